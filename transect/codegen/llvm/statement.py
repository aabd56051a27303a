"""Statements -> instructions: stores, bindings, control flow, loops, allocations, asserts.

Parallel loops are handed to `parallel`; what a function needs around its body is in `function`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transect.codegen.llvm.builder import Line
from transect.codegen.llvm.expression import ExpressionEmitter, alignment
from transect.codegen.llvm.failing import raise_error
from transect.codegen.llvm.tile_registers import is_tile, last_uses
from transect.codegen.llvm.types import element_type, memory_type, register_type, vector_of
from transect.ir.dtype import DType
from transect.ir.expr import Call, Expr, Intrinsic, Ramp, StringImm, Var, as_int
from transect.ir.traverse import free_vars, walk
from transect.support.errors import TransectError, UnsupportedError
from transect.support.span import Origin, Span
from transect.tir.buffer import BufferLoad
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    While,
)

STACK_LIMIT = 16 << 10
"""Bytes up to which one static allocation lives in the stack frame; threads have small stacks."""

FRAME_LIMIT = 128 << 10
"""Bytes of static allocations of one function beyond which even small ones take workspace."""

_MOST_PLACES = 8
"""Origins of one statement that an error message lists."""


@dataclass
class _Frame:
    """Stack bytes that a function's allocations have taken so far."""

    used: int = 0


class StatementEmitter(ExpressionEmitter):
    """Emits statements of one function. `parallel` emits a parallel loop: (emitter, loop)."""

    parallel: Callable[[StatementEmitter, For], None]

    def __init__(self, *args: Any, parallel: Callable[[StatementEmitter, For], None]) -> None:
        super().__init__(*args)
        self.parallel = parallel
        self.frame = _Frame()
        self.places = False
        """Whether errors that leave through a statement with a span get its place added."""
        self.before_loops: frozenset[Var] | None = None
        """Inside of loops, the variables that were bound before the outermost of them."""

    def run(self, stmt: Stmt) -> None:
        """Emit `stmt`."""
        emit = _EMIT.get(type(stmt))
        if emit is None:
            raise UnsupportedError(
                f"{type(stmt).__name__} in code generation", remedy="run the lowering passes"
            )
        outer = self.text.place
        if self.places and stmt.span:
            # A fused kernel has the places of all it was made from.
            self.text.place = "".join(map(traceback_line, stmt.span[:_MOST_PLACES]))
        try:
            emit(self, stmt)
        except TransectError as error:
            raise error.at(stmt.span) from None
        self.text.place = outer

    def emit_evaluate(self, stmt: Evaluate) -> None:
        self.emit(stmt.value)

    def emit_seq(self, stmt: SeqStmt) -> None:
        released: list[str] = []
        ends = last_uses(stmt)
        for number, item in enumerate(stmt.stmts):
            if isinstance(item, Allocate) and is_tile(item.var):
                self.tiles.allocate(item)
            elif isinstance(item, Allocate):
                slot = self._allocate(item)
                if slot:
                    released.append(slot)
            else:
                self.run(item)
            for var in ends.get(number, ()):
                self.tiles.release(var)
        for slot in reversed(released):
            self.text.emit(
                f"call void {self.text.module.helper('transect.workspace.release')}(ptr {slot})"
            )

    def emit_bind(self, stmt: Bind) -> None:
        value = self.emit(stmt.value)
        self.bind(stmt.var, value)
        if isinstance(stmt.value, Call) and stmt.var.dtype.is_handle:
            self.handles[stmt.var] = stmt.value
        elif isinstance(stmt.value, Var) and stmt.value in self.handles:
            self.handles[stmt.var] = self.handles[stmt.value]

    def emit_declare(self, stmt: DeclBuffer) -> None:
        pass

    # --- stores ---

    def emit_store(self, stmt: BufferStore) -> None:
        if len(stmt.indices) != 1:
            raise UnsupportedError(
                f"a store to {stmt.buffer.name} that is not flat",
                remedy="run FlattenBuffer; axis separators are for memory of several dimensions",
            )
        index, kind = stmt.indices[0], stmt.buffer.dtype
        value = self.to_memory(self.emit(stmt.value), stmt.value.dtype)
        if index.dtype.is_scalar:
            if stmt.predicate is not None:
                raise UnsupportedError("a predicate on a scalar store", remedy="use an if")
            address = self.element_address(stmt.buffer.data, kind, index)
            self.text.emit(
                f"store {memory_type(kind)} {value}, ptr {address}, align {alignment(kind)}"
            )
        elif isinstance(index, Ramp) and as_int(index.stride) == 1 and kind.is_scalar:
            address = self.element_address(stmt.buffer.data, kind, index.base)
            memory = memory_type(stmt.value.dtype)
            if stmt.predicate is None:
                self.text.emit(f"store {memory} {value}, ptr {address}, align {alignment(kind)}")
            else:
                lanes = index.lanes
                name = self.text.module.declare(
                    f"llvm.masked.store.v{lanes}{_suffix(memory_type(kind))}.p0",
                    "void",
                    [memory, "ptr", "i32", f"<{lanes} x i1>"],
                )
                self.text.emit(
                    f"call void {name}({memory} {value}, ptr {address}, i32 {alignment(kind)}, "
                    f"{self.typed(stmt.predicate)})"
                )
        else:
            self._scatter(stmt, value)
        self.forget_reads()

    def _scatter(self, stmt: BufferStore, value: str) -> None:
        index, kind = stmt.indices[0], stmt.buffer.dtype
        lanes = index.dtype.lanes
        memory = vector_of(memory_type(kind), lanes)
        pointers = self.addresses(stmt.buffer.data, kind, index)
        mask = "splat (i1 true)" if stmt.predicate is None else self.emit(stmt.predicate)
        name = self.text.module.declare(
            f"llvm.masked.scatter.v{lanes}{_suffix(memory_type(kind))}.v{lanes}p0",
            "void",
            [memory, f"<{lanes} x ptr>", "i32", f"<{lanes} x i1>"],
        )
        self.text.emit(
            f"call void {name}({memory} {value}, <{lanes} x ptr> {pointers}, "
            f"i32 {alignment(kind)}, "
            f"<{lanes} x i1> {mask})"
        )

    # --- control flow ---

    def _nested(self, stmt: Stmt, before: list[Line] | None) -> None:
        self.enter(before)
        self.run(stmt)
        self.leave()

    def emit_if(self, stmt: IfThenElse) -> None:
        text = self.text
        condition = self.emit(stmt.condition)
        then, done = text.label("then"), text.label("endif")
        otherwise = text.label("else") if stmt.else_case is not None else done
        place = text.bookmark()
        text.branch_if(condition, then, otherwise)
        text.begin(then)
        self._nested(stmt.then_case, place)
        if text.open:
            text.branch(done)
        if stmt.else_case is not None:
            text.begin(otherwise)
            self._nested(stmt.else_case, place)
        text.begin(done)

    def emit_while(self, stmt: While) -> None:
        text = self.text
        head, body, done = text.label("while"), text.label("do"), text.label("done")
        self.forget_reads()
        place = text.bookmark()
        text.begin(head)
        self.enter(place)
        condition = self.emit(stmt.condition)
        text.branch_if(condition, body, done)
        text.begin(body)
        self.run(stmt.body)
        self.leave()
        if text.open:
            text.branch(head)
        self.forget_reads()
        text.begin(done)

    def emit_for(self, stmt: For) -> None:
        if stmt.kind == "parallel":
            self.parallel(self, stmt)
        elif stmt.kind == "thread_binding":
            raise UnsupportedError(
                f"a loop bound to {stmt.thread} on the CPU",
                remedy='schedule it with "parallel" instead',
            )
        elif stmt.kind != "serial":
            raise UnsupportedError(
                f"a {stmt.kind} loop in code generation", remedy="run the lowering passes"
            )
        else:
            kind = stmt.var.dtype
            first = self.emit(stmt.min)
            end = self.arithmetic_add(first, self.emit(stmt.extent), kind)
            self.loop(stmt.var, first, end, stmt.body, never_empty=(as_int(stmt.extent) or 0) > 0)

    def arithmetic_add(self, a: str, b: str, dtype: DType) -> str:
        """a + b of loop bounds."""
        return b if a == "0" else self.text.define(f"add nsw {register_type(dtype)} {a}, {b}")

    def loop(
        self, var: Var, first: str, end: str, body: Stmt, *, never_empty: bool = False
    ) -> None:
        """for var in [first, end): body, the test at the bottom."""
        text, kind = self.text, register_type(var.dtype)
        order = "ult" if var.dtype.is_uint else "slt"
        head, done = text.label("loop"), text.label("done")
        latch, following = text.label("next"), text.fresh("i")
        place = text.bookmark()
        if not never_empty:
            text.branch_if(text.define(f"icmp {order} {kind} {first}, {end}"), head, done)
            before = text.block
        else:
            before = text.block
            text.branch(head)
        self.forget_reads()
        text.begin(head)
        value = text.define(f"phi {kind} [ {first}, %{before} ], [ {following}, %{latch} ]")
        outermost = self.before_loops is None
        if outermost:
            self.before_loops = frozenset(self.variables)
        self.enter(place)
        self.bind(var, value)
        self.run(body)
        self.leave()
        if outermost:
            self.before_loops = None
        text.begin(latch)
        text.emit(f"{following} = add {'nuw' if order == 'ult' else 'nsw'} {kind} {value}, 1")
        text.branch_if(text.define(f"icmp {order} {kind} {following}, {end}"), head, done)
        self.forget_reads()
        text.begin(done)

    def emit_attribute(self, stmt: AttrStmt) -> None:
        self.run(stmt.body)

    # --- memory ---

    def emit_lonely_allocate(self, stmt: Allocate) -> None:
        self._allocate(stmt)

    def _allocate(self, stmt: Allocate) -> str:
        """Bind the memory; gives the workspace slot to release at the end of the scope, or ""."""
        sizes = [as_int(extent) for extent in stmt.extents]
        known = [size for size in sizes if size is not None]
        align = max(64, int(stmt.annotations.get("alignment", 0)))
        if len(known) == len(sizes):
            count = math.prod(known)
            nbytes = count * alignment(stmt.dtype) * stmt.dtype.lanes
            if nbytes <= STACK_LIMIT and self.frame.used + nbytes <= FRAME_LIMIT:
                self.frame.used += nbytes
                # SROA wants the element type and a constant count.
                kind = f"[{max(1, count)} x {memory_type(stmt.dtype)}]"
                self.bind(stmt.var, self.text.allocate(kind, align))
                return ""
        return self._workspace(stmt, align)

    def _workspace(self, stmt: Allocate, align: int) -> str:
        """Memory of unknown or large size. Where all iterations of the loops around take as much,
        the first takes it for all, and it is released at the end of the function."""
        if align > 64:
            raise UnsupportedError(f"workspace aligned to {align} bytes", remedy="64 is the most")
        text, module = self.text, self.text.module
        slot = text.allocate("ptr")
        text.entry.append(f"  store ptr null, ptr {slot}")
        text.at_exit.append(
            f"  call void {module.helper('transect.workspace.release')}(ptr {slot})"
        )
        once = self._is_same_in_loops(stmt.extents)
        ready = ""
        if once:
            take, ready = text.label("take"), text.label("taken")
            missing = text.define(f"icmp eq ptr {text.define(f'load ptr, ptr {slot}')}, null")
            text.branch_if(missing, take, ready)
            text.begin(take)
            self.enter()
        dims = [self.index(extent) for extent in stmt.extents]
        sizes = text.allocate(f"[{max(1, len(dims))} x i64]")
        for number, dim in enumerate(dims):
            place = text.define(f"getelementptr i64, ptr {sizes}, i64 {number}")
            text.emit(f"store i64 {dim}, ptr {place}")
        element = alignment(stmt.dtype) * stmt.dtype.lanes
        status = text.define(
            f"call i32 {module.helper('transect.workspace.take')}"
            f"(ptr {slot}, i64 {element}, i64 {len(dims)}, ptr {sizes})"
        )
        text.fail_unless_zero(status)
        if once:
            self.leave()
            text.begin(ready)
        self.bind(stmt.var, text.define(f"load ptr, ptr {slot}"))
        return "" if once else slot

    def _is_same_in_loops(self, extents: Sequence[Expr]) -> bool:
        """Whether there are loops around, and extents have one value in all their iterations."""
        outside = self.before_loops
        return (
            outside is not None
            and outside.issuperset(free_vars(extents))
            and not any(isinstance(item, BufferLoad | Call) for item in walk(*extents))
        )

    def emit_constant(self, stmt: AllocateConst) -> None:
        name, direct = self.text.module.data(stmt.data)
        self.bind(stmt.var, name if direct else self.text.define(f"load ptr, ptr {name}"))

    # --- failing ---

    def emit_assert(self, stmt: AssertStmt) -> None:
        text = self.text
        condition = self.emit(stmt.condition)
        if condition == "true":
            return
        good, bad = text.label("ok"), text.label("failed")
        text.branch_if(condition, good, bad, likely=True)
        text.begin(bad)
        self.enter()
        plain = [part.value if isinstance(part, StringImm) else part for part in stmt.message]
        raise_error(
            self,
            stmt.kind,
            [part if isinstance(part, str) else (self.emit(part), part.dtype) for part in plain],
        )
        self.leave()
        text.begin(good)


def traceback_line(origin: Origin) -> str:
    """An origin as a line of a Python traceback, in tvm-ffi's spelling."""
    if isinstance(origin, Span):
        return f'  File "{origin.file}", line {origin.line}, in transect: {origin}\n'
    # No file to show a line of: angle brackets keep Python from looking for one.
    return f'  File "<{origin.model}>", line 1, in transect: {origin}\n'


def is_call(expr: Expr, name: str) -> bool:
    """Whether `expr` calls the intrinsic `name`."""
    return isinstance(expr, Call) and isinstance(expr.op, Intrinsic) and expr.op.name == name


def _suffix(element: str) -> str:
    return {"float": "f32", "double": "f64", "ptr": "p0"}.get(element, element)


def _refuse_block(emitter: StatementEmitter, stmt: BlockRealize) -> None:
    raise UnsupportedError(
        f"block {stmt.block.name!r} in code generation", remedy="run LowerOpaqueBlock"
    )


_EMIT: dict[type[Stmt], Callable[[StatementEmitter, Any], None]] = {
    Evaluate: StatementEmitter.emit_evaluate,
    SeqStmt: StatementEmitter.emit_seq,
    Bind: StatementEmitter.emit_bind,
    DeclBuffer: StatementEmitter.emit_declare,
    BufferStore: StatementEmitter.emit_store,
    IfThenElse: StatementEmitter.emit_if,
    While: StatementEmitter.emit_while,
    For: StatementEmitter.emit_for,
    AttrStmt: StatementEmitter.emit_attribute,
    Allocate: StatementEmitter.emit_lonely_allocate,
    AllocateConst: StatementEmitter.emit_constant,
    AssertStmt: StatementEmitter.emit_assert,
    BlockRealize: _refuse_block,
}

__all__ = ["STACK_LIMIT", "StatementEmitter", "element_type", "is_call"]
