"""Statements, blocks and buffer declarations as script text.

Functions as a whole live in `prim_func`; expressions in `expression`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from transect.ir.dtype import INDEX, VOID, DType
from transect.ir.expr import Call, Expr, IntImm, Pointer, Range, Var, true
from transect.ir.traverse import free_vars, walk
from transect.script.constants import ConstantStore
from transect.script.printer.expression import ExpressionPrinter
from transect.script.printer.names import Names, quote
from transect.tir.buffer import Buffer
from transect.tir.function import buffer_fields
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
)

_LOOPS = {
    "serial": "T.serial",
    "parallel": "T.parallel",
    "vectorized": "T.vectorized",
    "unrolled": "T.unroll",
}


class Lines:
    """Text being written, with the current indentation."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def add(self, text: str) -> None:
        """One line (or several, already relative to the current indentation)."""
        pad = "    " * self.depth
        self.lines.extend(pad + line if line else "" for line in text.split("\n"))

    @contextmanager
    def indented(self, head: str) -> Generator[None]:
        """`head`, then what is added inside one step further right; `pass` if that is nothing."""
        self.add(head)
        self.depth += 1
        start = len(self.lines)
        yield
        if len(self.lines) == start:
            self.add("pass")
        self.depth -= 1

    def text(self) -> str:
        """All lines, without a newline at the end."""
        return "\n".join(self.lines)


class StatementPrinter:
    """Prints statements of one function with its names."""

    def __init__(self, names: Names, lines: Lines, store: ConstantStore) -> None:
        self.names = names
        self.lines = lines
        self.store = store
        self.expr = ExpressionPrinter(names)
        self.loops: dict[Var, Range] = {}
        self._table: dict[type[Any], Callable[[Any], None]] = {
            Evaluate: self._evaluate,
            BufferStore: self._store,
            Bind: self._bind,
            Allocate: self._allocate,
            AllocateConst: self._allocate_const,
            DeclBuffer: self._decl_buffer,
            AssertStmt: self._assert,
            AttrStmt: self._attr,
            SeqStmt: self._scope,
            IfThenElse: self._if,
            For: self._for,
            While: self._while,
            BlockRealize: self._realize,
            Block: lambda stmt: self._block(stmt, None, None),
        }

    def statement(self, stmt: Stmt) -> None:
        """One statement; a sequence shows as a scope of its own."""
        self._table[type(stmt)](stmt)

    def body(self, stmt: Stmt) -> None:
        """What stands in an indented suite: the items of a sequence, or the one statement."""
        if isinstance(stmt, SeqStmt) and len(stmt.stmts) != 1:
            for item in stmt.stmts:
                self.statement(item)
        else:
            self.statement(stmt)

    # --- declarations -----------------------------------------------------------------------

    def declare_free(self, roots: Sequence[Expr]) -> None:
        """`n = T.int64()` for every variable of `roots` that has no name yet."""
        for var in free_vars(roots):
            if var not in self.names:
                self.lines.add(f"{self.names.define(var, var.name)} = {fresh_variable(var)}")

    def define_buffer(self, value: Buffer) -> str:
        """Name a buffer, and through it its data pointer; fresh variables are declared first."""
        self.declare_free(buffer_fields(value))
        name = self.names.define(value, value.name)
        self.names.alias(value.data, f"{name}.data")
        return name

    def buffer_arguments(
        self,
        value: Buffer,
        *,
        data: bool = False,
        dims: Callable[[Expr], str] | None = None,
        defaults: tuple[str, DType] | None = None,
    ) -> str:
        """The arguments that describe a buffer: shape, dtype, and whatever is not the default."""
        show = self.expr.text if dims is None else dims
        shape = ", ".join(show(item) for item in value.shape)
        parts = [f"({shape}{',' if value.ndim == 1 else ''})", f'"{value.dtype}"']
        if data:
            parts.append(f"data={self.expr.text(value.data)}")
        if value.strides:
            strides = ", ".join(show(item) for item in value.strides)
            parts.append(f"strides=({strides}{',' if len(value.strides) == 1 else ''})")
        offset = value.elem_offset
        if not (isinstance(offset, IntImm) and offset.value == 0 and offset.dtype is INDEX):
            parts.append(f"elem_offset={show(offset)}")
        if value.scope != "global" and not data:
            parts.append(f'scope="{value.scope}"')
        if value.alignment != 64:
            parts.append(f"align={value.alignment}")
        if value.offset_factor != 1:
            parts.append(f"offset_factor={value.offset_factor}")
        if value.axis_separators:
            parts.append(f"axis_separators={list(value.axis_separators)}")
        if value.layout is not None:
            parts.append(f"layout={quote(value.layout)}")
        return ", ".join(parts)

    def alloc_buffer(self, value: Buffer) -> None:
        """`A = T.alloc_buffer(...)`, an item of a block's `alloc_buffers`."""
        self.define_data(value)
        name = self.define_buffer(value)
        own = (
            value.data.pointer is Pointer(value.dtype, value.scope)
            and self.names.get(value.data) == f"{name}.data"
        )
        self.lines.add(f"{name} = T.alloc_buffer({self.buffer_arguments(value, data=not own)})")

    def define_data(self, value: Buffer) -> None:
        """Declare the data pointer of a buffer that cannot have made it itself."""
        if value.data not in self.names and value.data.pointer is not Pointer(
            value.dtype, value.scope
        ):
            self.lines.add(
                f"{self.names.define(value.data, value.data.name)} = {fresh_variable(value.data)}"
            )

    # --- simple statements ------------------------------------------------------------------

    def _evaluate(self, stmt: Evaluate) -> None:
        text = self.expr.text(stmt.value)
        plain = isinstance(stmt.value, Call) and stmt.value.dtype is VOID
        self.lines.add(text if plain else f"T.evaluate({text})")

    def _store(self, stmt: BufferStore) -> None:
        name = self.expr.buffer(stmt.buffer)
        value = self.expr.literal_or(stmt.value, stmt.buffer.dtype)
        if stmt.predicate is not None:
            indices = self.expr.join(stmt.indices)
            value = self.expr.typed(stmt.value)
            self.lines.add(
                f"{name}.vstore([{indices}], {value}, predicate={self.expr.text(stmt.predicate)})"
            )
        else:
            self.lines.add(f"{name}[{self.expr.indices(stmt.indices)}] = {value}")

    def _bind(self, stmt: Bind) -> None:
        value = self.expr.literal_or(stmt.value, stmt.var.dtype)
        self.lines.add(
            f"{self.names.define(stmt.var, stmt.var.name)}: {variable_type(stmt.var)} = {value}"
        )

    def _allocate(self, stmt: Allocate) -> None:
        pointer = stmt.var.pointer
        scope = pointer.scope if pointer is not None else "global"
        parts = [f"[{self.expr.join(stmt.extents)}]", f'"{stmt.dtype}"', f'"{scope}"']
        if stmt.annotations:
            parts.append(f"annotations={self.expr.value(stmt.annotations)}")
        if pointer is not Pointer(stmt.dtype, scope):
            parts.append(f"var={fresh_variable(stmt.var)}")
        self.lines.add(
            f"{self.names.define(stmt.var, stmt.var.name)} = T.allocate({', '.join(parts)})"
        )

    def _allocate_const(self, stmt: AllocateConst) -> None:
        data, dtype = self.store.reference(stmt.data)
        pointer = stmt.var.pointer
        implied = (
            pointer is not None and str(pointer.element) == dtype and pointer.scope == "global"
        )
        extra = "" if implied else f", var={fresh_variable(stmt.var)}"
        name = self.names.define(stmt.var, stmt.var.name)
        self.lines.add(
            f'{name} = T.allocate_const({data}, "{dtype}", {list(stmt.data.shape)}{extra})'
        )

    def _decl_buffer(self, stmt: DeclBuffer) -> None:
        value = stmt.buffer
        self.declare_free((value.data,))
        name = self.define_buffer(value)
        self.lines.add(f"{name} = T.decl_buffer({self.buffer_arguments(value, data=True)})")

    def _assert(self, stmt: AssertStmt) -> None:
        condition = self.expr.typed(stmt.condition)
        text = self._message(stmt.message)
        if text is not None and stmt.kind == "ValueError":
            self.lines.add(f"assert {condition}, {text}")
            return
        if text is None:
            parts = [
                quote(part) if isinstance(part, str) else self.expr.typed(part)
                for part in stmt.message
            ]
            text = f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        self.lines.add(f"T.Assert({condition}, {text}, kind={quote(stmt.kind)})")

    def _message(self, parts: tuple[str | Expr, ...]) -> str | None:
        """The message as a string or an f-string, or None where that would not parse back."""
        strings = [isinstance(part, str) for part in parts]
        if any(a and b for a, b in pairwise(strings)) or "" in parts:
            return None if parts != ("",) else "''"
        if len(parts) == 1 and isinstance(parts[0], str):
            return quote(parts[0])
        text = ""
        for part in parts:
            if isinstance(part, str):
                if any(mark in part for mark in '"\\\n\r\t') or not part.isprintable():
                    return None
                text += part.replace("{", "{{").replace("}", "}}")
            else:
                shown = self.expr.typed(part)
                if any(mark in shown for mark in "\"'\\{}"):
                    return None
                text += f"{{{shown}}}"
        return f'f"{text}"' if text else None

    # --- compound statements ----------------------------------------------------------------

    def _attr(self, stmt: AttrStmt) -> None:
        node, value = self.expr.value(stmt.node), self.expr.value(stmt.value)
        with self.lines.indented(f"with T.attr({node}, {quote(stmt.key)}, {value}):"):
            self.body(stmt.body)

    def _scope(self, stmt: SeqStmt) -> None:
        with self.lines.indented("with T.scope():"):
            for item in stmt.stmts:
                self.statement(item)

    def _if(self, stmt: IfThenElse) -> None:
        word = "if"
        case: Stmt | None = stmt
        while isinstance(case, IfThenElse):
            with self.lines.indented(f"{word} {self.expr.typed(case.condition)}:"):
                self.body(case.then_case)
            word, case = "elif", case.else_case
        if case is not None:
            with self.lines.indented("else:"):
                self.body(case)

    def _while(self, stmt: While) -> None:
        with self.lines.indented(f"while {self.expr.typed(stmt.condition)}:"):
            self.body(stmt.body)

    def _for(self, stmt: For) -> None:
        nest = [stmt]
        if _plain(stmt):
            while isinstance(nest[-1].body, For) and _plain(nest[-1].body):
                inner = nest[-1].body
                outer = {loop.var for loop in nest}
                if any(item in outer for item in walk(inner.extent)):
                    break
                nest.append(inner)
        # Bounds are evaluated before the variables exist, so they print first.
        head = (
            self._loop_head(stmt)
            if len(nest) == 1
            else f"T.grid({', '.join(self.expr.text(f.extent) for f in nest)})"
        )
        variables = [self.names.define(loop.var, loop.var.name) for loop in nest]
        for loop in nest:
            self.loops[loop.var] = Range(loop.min, loop.extent)
        with self.lines.indented(f"for {', '.join(variables)} in {head}:"):
            self.body(nest[-1].body)

    def _loop_head(self, stmt: For) -> str:
        interval = Range(stmt.min, stmt.extent)
        zero = (
            isinstance(stmt.min, IntImm)
            and stmt.min.value == 0
            and stmt.min.dtype is stmt.extent.dtype
        )
        bounds = (
            [self.expr.text(stmt.extent)]
            if zero
            else [self.expr.text(stmt.min), self.expr.stop(interval)]
        )
        options: list[str] = []
        if stmt.thread is not None:
            options.append(f'thread="{stmt.thread}"')
        if stmt.annotations:
            options.append(f"annotations={self.expr.value(stmt.annotations)}")
        if stmt.var.dtype is not stmt.extent.dtype:
            options.append(f'dtype="{stmt.var.dtype}"')
        if stmt.kind == "thread_binding":
            return f"T.thread_binding({', '.join([*bounds, *options])})"
        if _plain(stmt) or (stmt.kind == "serial" and not options):
            return f"range({', '.join(bounds)})"
        return f"{_LOOPS[stmt.kind]}({', '.join([*bounds, *options])})"

    # --- blocks -----------------------------------------------------------------------------

    def _realize(self, stmt: BlockRealize) -> None:
        self._block(stmt.block, stmt.iter_values, stmt.predicate)

    def _block(self, block: Block, values: tuple[Expr, ...] | None, predicate: Expr | None) -> None:
        """A block. values, predicate: of its realization; None for a block printed alone."""
        option = ", no_realize=True" if values is None else ""
        with self.lines.indented(f"with T.block({quote(block.name)}{option}):"):
            self._iter_vars(block, values)
            if predicate is not None and predicate is not true():
                self.lines.add(f"T.where({self.expr.typed(predicate)})")
            for value in block.alloc_buffers:
                self.alloc_buffer(value)
            self.lines.add(f"T.reads({', '.join(self.expr.region(item) for item in block.reads)})")
            self.lines.add(
                f"T.writes({', '.join(self.expr.region(item) for item in block.writes)})"
            )
            if block.annotations:
                self.lines.add(f"T.block_attr({self.expr.value(block.annotations)})")
            for match in block.match_buffers:
                self._match(match)
            if block.init is not None:
                with self.lines.indented("with T.init():"):
                    self.body(block.init)
            self.body(block.body)

    def _match(self, match: MatchBufferRegion) -> None:
        value = match.buffer
        self.define_data(value)
        region = self.expr.region(match.source)
        name = self.define_buffer(value)
        self.lines.add(f"{name} = T.match_buffer({region}, {self.buffer_arguments(value)})")

    def _iter_vars(self, block: Block, values: tuple[Expr, ...] | None) -> None:
        items = block.iter_vars
        if not items:
            return
        if values is not None and len(values) != len(items):
            values = None  # Not valid, but an error message may have to show it.
        if values is not None and all(
            self._remaps(item, value) for item, value in zip(items, values, strict=True)
        ):
            shown = ", ".join(self.expr.text(value) for value in values)
            kinds = "".join(item.kind[0].upper() for item in items)
            names = ", ".join(self.names.define(item.var, item.var.name) for item in items)
            self.lines.add(f'{names} = T.axis.remap("{kinds}", [{shown}])')
            return
        for number, item in enumerate(items):
            extent = item.dom.extent
            zero = (
                isinstance(item.dom.min, IntImm)
                and item.dom.min.value == 0
                and item.dom.min.dtype is extent.dtype
            )
            domain = self.expr.text(extent)
            if not zero:
                domain = f"({self.expr.text(item.dom.min)}, {self.expr.stop(item.dom)})"
            shown = (
                [domain]
                if values is None
                else [domain, self.expr.literal_or(values[number], item.var.dtype)]
            )
            if item.var.dtype is not extent.dtype:
                shown.append(f'dtype="{item.var.dtype}"')
            name = self.names.define(item.var, item.var.name)
            self.lines.add(f"{name} = T.axis.{item.kind}({', '.join(shown)})")

    def _remaps(self, item: IterVar, value: Expr) -> bool:
        return (
            item.kind in ("spatial", "reduce")
            and isinstance(value, Var)
            and self.loops.get(value) is item.dom
            and value.dtype is item.var.dtype
        )


def _plain(stmt: For) -> bool:
    """Whether the loop may be part of `T.grid`."""
    return (
        stmt.kind == "serial"
        and isinstance(stmt.min, IntImm)
        and stmt.min.value == 0
        and stmt.min.dtype is stmt.extent.dtype
        and not stmt.annotations
        and stmt.thread is None
        and stmt.var.dtype is stmt.extent.dtype
    )


def variable_type(var: Var) -> str:
    """The annotation of a variable: `T.int64`, `T.handle("float32", "global")`."""
    if var.pointer is None:
        return f"T.{var.dtype}"
    return f'T.handle("{var.pointer.element}", "{var.pointer.scope}")'


def fresh_variable(var: Var) -> str:
    """The expression that makes a new variable of this type: `T.int64()`."""
    return f"{variable_type(var)}()" if var.pointer is None else variable_type(var)
