"""Statements of tensor programs: what `T` functions are made of, from syntax trees to TIR.

Blocks live in `block`, the function as a whole in `prim_func`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.ir.dtype import HANDLE, VOID, DType, as_dtype
from transect.ir.expr import (
    Call,
    Expr,
    GlobalVar,
    Pointer,
    Range,
    StringImm,
    Var,
    as_expr,
    const,
    promote,
)
from transect.script import directives as d
from transect.script.axes import make_range
from transect.script.intrinsics import call_intrinsic
from transect.script.parser.block import BlockState, bind_axis, finish_block
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.evaluate import Environment, FormattedText, as_tuple, slice_ends
from transect.script.parser.function import FunctionParser
from transect.script.parser.source import Source
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.intrinsics import INTRINSICS
from transect.tir.op import pointer_argument
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
)


@dataclass(frozen=True)
class Rest:
    """A statement that takes the rest of its suite as its body: `T.attr(...)` without `with`."""

    wrap: Callable[[Stmt], Stmt]


class TensorParser(FunctionParser):
    """Parses the statements of one tensor program."""

    def __init__(self, source: Source, environment: Environment, diagnostics: Diagnostics) -> None:
        super().__init__(source, environment, diagnostics)
        self.blocks: list[BlockState] = []
        self.attrs: dict[str, Any] = {}
        self.buffer_map: dict[Var, Buffer] = {}
        self.params: tuple[Var, ...] = ()
        self.bound: set[Var] = set()
        self.loop_ranges: dict[Var, Range] = {}
        self._statements: dict[type[ast.stmt], Callable[[Any], Any]] = {
            ast.Expr: self._expression,
            ast.Assign: self._assign,
            ast.AnnAssign: self._annotated,
            ast.AugAssign: self._augmented,
            ast.For: self._for,
            ast.While: self._while,
            ast.If: self._branch_statement,
            ast.With: self._with,
            ast.Assert: self._assert,
            ast.Return: self._return,
            ast.Pass: lambda node: [],
        }

    # --- evaluation -------------------------------------------------------------------------

    def call(self, function: Any, args: list[Any], keywords: dict[str, Any], node: ast.Call) -> Any:
        if isinstance(function, GlobalVar):
            return self.call_function(function, args, keywords, node)
        return super().call(function, args, keywords, node)

    def call_function(
        self, callee: GlobalVar, args: list[Any], keywords: dict[str, Any], node: ast.AST
    ) -> Expr:
        """`cls.f(A, n)`: a buffer passes its pointer; where all parameters are given and nothing
        else, the values of the callee's symbolic dimensions follow from the buffers."""
        dtype = as_dtype(keywords.get("dtype", VOID))
        terms = [
            pointer_argument(item) if isinstance(item, Buffer) else as_term(item) for item in args
        ]
        function = (
            None
            if self.environment.module is None
            else self.environment.module.function(callee.name)
        )
        if isinstance(function, PrimFunc) and len(args) == len(function.params):
            values: dict[Var, Expr] = {}
            for param, given in zip(function.params, args, strict=True):
                formal = function.buffer_map.get(param)
                if formal is None or not isinstance(given, Buffer):
                    continue
                for dim, actual in zip(formal.shape, given.shape, strict=False):
                    if isinstance(dim, Var):
                        values.setdefault(dim, actual)
            symbols = symbolic_vars(function)
            missing = [var.name for var in symbols if var not in values]
            if missing:
                raise self.error(
                    f"{callee.name!r} needs values for {', '.join(missing)}",
                    node,
                    "give them after the arguments",
                )
            terms += [values[var] for var in symbols]
        return Call(callee, tuple(terms), dtype)

    # --- suites -----------------------------------------------------------------------------

    def suite(self, nodes: Sequence[ast.stmt]) -> list[Stmt]:
        """The statements of an indented suite."""
        found: list[Stmt] = []
        for number, node in enumerate(nodes):
            result = self.attempt(node, lambda node=node: self.statement(node))
            if isinstance(result, Rest):
                found.append(result.wrap(as_body(self.suite(nodes[number + 1 :]))))
                break
            found.extend(result or ())
        return found

    def body(self, nodes: Sequence[ast.stmt]) -> Stmt:
        """A suite, with names of its own, as one statement."""
        with self.scope():
            return as_body(self.suite(nodes))

    def statement(self, node: ast.stmt) -> list[Stmt] | Rest:
        """The statements (none, one or several) that a Python statement means."""
        handler = self._statements.get(type(node))
        if handler is None:
            raise self.error(
                f"{type(node).__name__} statements have no meaning in a tensor program",
                node,
                "statements are assignments, for, while, if, with and assert",
            )
        return handler(node)

    # --- assignments ------------------------------------------------------------------------

    def _assign(self, node: ast.Assign) -> list[Stmt] | Rest:
        if len(node.targets) != 1:
            raise self.error("one assignment at a time", node, "write one line for each target")
        target = node.targets[0]
        value = self.eval(node.value)
        if isinstance(target, ast.Subscript):
            return self.store(target, value, node)
        return self.assign(target, value, node)

    def assign(self, target: ast.expr, value: Any, node: ast.stmt) -> list[Stmt] | Rest:
        """`target = value` where the target is a name or several."""
        if isinstance(target, ast.Name):
            return self.assign_name(target.id, value, node)
        if not isinstance(target, ast.Tuple | ast.List):
            raise self.error("cannot assign to this", target, "assign to a name or to A[i]")
        if isinstance(value, d.AxisRemap):
            value = self.remap_axes(value, node)
        items = self.guarded(lambda: list(value), node)
        if len(items) != len(target.elts):
            raise self.error(
                f"{len(target.elts)} names for {len(items)} values",
                target,
                "as many of the one as of the other",
            )
        found: list[Stmt] = []
        for item, part in zip(target.elts, items, strict=True):
            result = self.assign(item, part, node)
            if isinstance(result, Rest):
                raise self.error(
                    "this opens a scope and needs a line of its own", node, "assign it to one name"
                )
            found.extend(result)
        return found

    def assign_name(self, name: str, value: Any, node: ast.stmt) -> list[Stmt] | Rest:
        """`name = value`: a binding of the program, a declaration, or a value of the parser's."""
        if isinstance(value, d.FreshVar):
            self.define(name, self.fresh_variable(name, value))
            return []
        if isinstance(value, d.MetaVar):
            self.define(name, value.value)
            return []
        if isinstance(value, d.BindDirective):
            value = value.value
        handler = _NAMED.get(value.__class__)
        if handler is not None:
            return handler(self, name, value, node)
        if isinstance(value, Expr | int | float) and not isinstance(value, d.FreshVar):
            return self.bind(name, as_expr(value), node)
        if isinstance(value, np.generic):
            return self.bind(name, as_expr(value), node)  # pyright: ignore[reportArgumentType]
        if isinstance(value, d.EnvThread):
            value.name = name
        self.define(name, value)
        return []

    def bind(self, name: str, value: Expr, node: ast.stmt, var: Var | None = None) -> list[Stmt]:
        """Bind a value to a new variable of the program."""
        for scope in self.scopes[:-1]:
            if isinstance(scope.get(name), Var) and scope[name] in self.bound:
                raise self.error(
                    f"{name!r} is bound outside of this suite already; variables are bound once",
                    node,
                    f"use a buffer for what changes: {name} = "
                    f'T.alloc_buffer((1,), "{value.dtype}", scope="local")',
                )
        made = Var(name, value.dtype) if var is None else var
        self.bound.add(made)
        self.define(name, made)
        return [Bind(made, value, self.source.span(node))]

    def _annotated(self, node: ast.AnnAssign) -> list[Stmt] | Rest:
        if not isinstance(node.target, ast.Name):
            raise self.error("only a name can be annotated", node, "write name: type = value")
        kind = self.eval(node.annotation)
        if node.value is None:
            raise self.error(
                f"{node.target.id!r} needs a value",
                node,
                "variables are bound once, where they are made",
            )
        value = self.as_value(self.eval(node.value), node)
        if isinstance(kind, d.LetName):
            kind = kind.kind
        if isinstance(kind, str):
            kind = self.eval(self.parse_expression(kind, node.annotation))
        if isinstance(kind, d.FreshVar | d.HandleName):
            pointer = kind.pointer if isinstance(kind, d.FreshVar) else None
            value = as_expr(value)
            if value.dtype is not HANDLE:
                raise self.error(
                    f"{node.target.id!r} is a handle, the value a {value.dtype}",
                    node,
                    "drop the annotation, or T.reinterpret the value",
                )
            return self.bind(node.target.id, value, node, Var(node.target.id, HANDLE, pointer))
        if isinstance(kind, d.ScalarName) and isinstance(value, Expr | int | float):
            return self.bind(node.target.id, self.converted(value, kind.dtype, node), node)
        return self.assign_name(node.target.id, value, node)

    def converted(self, value: Any, dtype: DType, node: ast.AST) -> Expr:
        """A value that must be of `dtype`: numbers take it, expressions must have it."""
        if not isinstance(value, Expr):
            if isinstance(value, float) and not dtype.is_float and not value.is_integer():
                raise self.error(
                    f"{value} is not of {dtype}", node, "round it, or store to a float buffer"
                )
            if not isinstance(value, int | float | np.generic):
                raise self.error(
                    f"expected a value of {dtype}, got {_kind(value)}",
                    node,
                    "store a number or a term",
                )
            return const(value, dtype)  # pyright: ignore[reportArgumentType]
        if value.dtype is dtype:
            return value
        if dtype.is_scalar or value.dtype.is_scalar is False or value.dtype is not dtype.element:
            raise self.error(
                f"expected {dtype}, got {value.dtype}", node, f'convert it: T.Cast("{dtype}", ...)'
            )
        return promote(value, const(0, dtype))[0]

    def store(self, target: ast.Subscript, value: Any, node: ast.stmt) -> list[Stmt]:
        """`A[i, j] = value`."""
        buffer = self.eval(target.value)
        if not isinstance(buffer, Buffer):
            raise self.error(
                f"cannot store to a {_kind(buffer)}",
                target,
                "only buffers have elements to store to",
            )
        index = self.eval(target.slice)
        return [self.store_to(buffer, index, value, None, target, node)]

    def store_to(
        self,
        buffer: Buffer,
        index: Any,
        value: Any,
        predicate: Any,
        target: ast.AST,
        node: ast.stmt,
    ) -> Stmt:
        """The store of a value of any kind."""
        items = as_tuple(index)
        if len(items) != buffer.ndim:
            self.load(buffer, items, target)
        filled: list[Any] = [
            slice(0, extent) if slice_ends(item) == (None, None, None) else item
            for item, extent in zip(items, buffer.shape, strict=True)
        ]
        load = BufferLoad(buffer, self.index_terms(filled, target))
        stored = self.converted(self.as_value(value, node), load.dtype, node)
        mask = None if predicate is None else as_expr(predicate)
        return BufferStore(buffer, stored, load.indices, mask, self.source.span(node))

    def _augmented(self, node: ast.AugAssign) -> list[Stmt]:
        if not isinstance(node.target, ast.Subscript):
            raise self.error(
                "only elements of buffers can be updated; variables are bound once",
                node,
                'keep it in a buffer: T.alloc_buffer((1,), "float32", scope="local")',
            )
        buffer, index = self.eval(node.target.value), self.eval(node.target.slice)
        if not isinstance(buffer, Buffer):
            raise self.error(
                f"cannot store to a {_kind(buffer)}",
                node.target,
                "store to elements of buffers: A[i] = ...",
            )
        old = self.as_value(self.load(buffer, index, node.target), node)
        value = self.binary(type(node.op), old, self.eval(node.value), node)
        return [self.store_to(buffer, index, value, None, node.target, node)]

    # --- buffers ----------------------------------------------------------------------------

    def make_buffer(
        self, name: str, spec: d.BufferSpec, node: ast.AST, data: Var | None = None
    ) -> Buffer:
        """The buffer that a description means; strings in it name symbolic dimensions."""
        pointer = spec.data if data is None else data
        if pointer is not None and not isinstance(pointer, Var):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise self.error(
                f"data= must be a pointer variable, got {_kind(pointer)}",
                node,
                "the data of a buffer (A.data), or what T.allocate gives",
            )
        if pointer is None:
            pointer = Var(name, HANDLE, Pointer(spec.dtype, spec.scope))
        return Buffer(
            name,
            pointer,
            spec.dtype,
            tuple(self.dimension(item, node) for item in spec.shape),
            tuple(self.dimension(item, node) for item in spec.strides),
            as_expr(0) if spec.elem_offset is None else self.dimension(spec.elem_offset, node),
            spec.align,
            spec.offset_factor,
            spec.axis_separators,
            spec.layout,
            self.source.span(node),
        )

    def alloc_buffer(self, name: str, value: d.AllocBuffer, node: ast.stmt) -> list[Stmt]:
        """`A = T.alloc_buffer(...)`: part of the innermost block."""
        made = self.make_buffer(name, value.spec, node)
        self.blocks[-1].alloc_buffers.append(made)
        self.define(name, made)
        return []

    def match_buffer(self, name: str, value: d.MatchBuffer, node: ast.stmt) -> list[Stmt]:
        """`A = T.match_buffer(...)`: of a parameter, or of a region in a block."""
        made = self.make_buffer(name, value.spec, node)
        if isinstance(value.source, BufferRegion):
            self.blocks[-1].match_buffers.append(
                MatchBufferRegion(made, value.source, self.source.span(node))
            )
        elif isinstance(value.source, Var) and value.source in self.params:
            if value.source in self.buffer_map:
                raise self.error(
                    f"{value.source.name!r} is matched already",
                    node,
                    "use the buffer that it was matched to",
                )
            self.buffer_map[value.source] = made
        else:
            raise self.error(
                "only a handle parameter or a region can be matched",
                node,
                "declare the parameter as `a: T.handle`, or give a region: A[0:16, i]",
            )
        self.define(name, made)
        return []

    def declare_buffer(self, name: str, value: d.DeclareBuffer, node: ast.stmt) -> list[Stmt]:
        """`A = T.decl_buffer(...)`; without data the memory is allocated first."""
        made = self.make_buffer(name, value.spec, node)
        self.define(name, made)
        span = self.source.span(node)
        declared = DeclBuffer(made, span)
        if value.spec.data is not None:
            return [declared]
        return [Allocate(made.data, made.dtype, made.shape, {}, span), declared]

    def declare_spec(self, name: str, value: d.BufferSpec, node: ast.stmt) -> list[Stmt]:
        """`A = T.Buffer(..., data=p)` in a body."""
        if value.data is None:
            raise self.error(
                "a buffer in a body needs data=", node, "T.alloc_buffer(...) allocates one"
            )
        return self.declare_buffer(name, d.DeclareBuffer(value), node)

    def allocate(self, name: str, value: d.AllocateSpec, node: ast.stmt) -> list[Stmt]:
        """`A = T.allocate(...)`."""
        pointer = Pointer(value.dtype, value.scope) if value.var is None else value.var.pointer
        var = Var(name, HANDLE, pointer)
        extents = tuple(self.dimension(item, node) for item in value.extents)
        self.define(name, var)
        return [
            Allocate(var, value.dtype, extents, dict(value.annotations), self.source.span(node))
        ]

    def allocate_const(self, name: str, value: d.AllocateConstSpec, node: ast.stmt) -> list[Stmt]:
        """`A = T.allocate_const(...)`."""
        pointer = Pointer(value.dtype) if value.var is None else value.var.pointer
        data = np.array(
            value.data,
            np.float64 if isinstance(value.data, list | float) and value.dtype.is_float else None,
        )
        array = data.astype(value.dtype.numpy).reshape(value.extents)
        array.flags.writeable = False
        var = Var(name, HANDLE, pointer)
        self.define(name, var)
        return [AllocateConst(var, array, self.source.span(node))]

    # --- loops and branches -----------------------------------------------------------------

    def _for(self, node: ast.For) -> list[Stmt]:
        loops = self.eval(node.iter)
        if isinstance(loops, range):
            if loops.step != 1:
                raise self.error("a loop has no step", node.iter, "scale the index instead")
            loops = d.Loops("serial", ((loops.start, loops.stop),))
        if not isinstance(loops, d.Loops):
            raise self.error(
                f"cannot loop over a {_kind(loops)}",
                node.iter,
                "use range, T.serial, T.grid, T.parallel, …",
            )
        if node.orelse:
            raise self.error("a loop has no else", node.orelse[0], "write it after the loop")
        targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
        names = [item.id for item in targets if isinstance(item, ast.Name)]
        if len(names) != len(loops.bounds):
            raise self.error(
                f"{len(targets)} names for {len(loops.bounds)} loops",
                node.target,
                "one name for each loop",
            )
        ranges = [make_range(start, stop) for start, stop in loops.bounds]
        variables = [
            Var(name, loops.dtype or item.extent.dtype)
            for name, item in zip(names, ranges, strict=True)
        ]
        for item in ranges:
            if not item.extent.dtype.is_integral:
                raise self.error(
                    f"the bounds of a loop must be integers, got {item.extent.dtype}",
                    node.iter,
                    'T.Cast("int64", ...) makes it one',
                )
        with self.scope():
            for name, var, item in zip(names, variables, ranges, strict=True):
                self.define(name, var)
                self.loop_ranges[var] = item
            inner = as_body(self.suite(node.body))
        span = self.source.span(node)
        for var, item in zip(reversed(variables), reversed(ranges), strict=True):
            inner = For(
                var,
                item.min,
                item.extent,
                loops.kind,
                inner,
                loops.thread,
                dict(loops.annotations),
                span,
            )
        return [inner]

    def condition(self, value: Any, node: ast.AST) -> Expr:
        """A condition of the program."""
        expr = as_expr(value)
        if not expr.dtype.is_bool:
            raise self.error(
                f"a condition must be a bool, got {expr.dtype}", node, "compare it: x != 0"
            )
        return expr

    def _while(self, node: ast.While) -> list[Stmt]:
        condition = self.condition(self.eval(node.test), node.test)
        return [While(condition, self.body(node.body), self.source.span(node))]

    def _branch_statement(self, node: ast.If) -> list[Stmt]:
        test = self.eval(node.test)
        if not isinstance(test, Expr):
            # Known to the Python program: only one side becomes part of the tensor program.
            return self.suite(node.body if test else node.orelse)
        condition = self.condition(test, node.test)
        then_case = self.body(node.body)
        else_case = self.body(node.orelse) if node.orelse else None
        return [IfThenElse(condition, then_case, else_case, self.source.span(node))]

    def _assert(self, node: ast.Assert) -> list[Stmt]:
        condition = self.condition(self.eval(node.test), node.test)
        message: Any = f"not {ast.unparse(node.test)}" if node.msg is None else self.eval(node.msg)
        return [self.assertion(condition, (message,), "ValueError", node)]

    def assertion(
        self, condition: Expr, message: tuple[Any, ...], kind: str, node: ast.stmt
    ) -> Stmt:
        """An assertion of the program."""
        if len(message) == 1 and isinstance(message[0], FormattedText):
            message = message[0].parts
        return AssertStmt(condition, message, kind, self.source.span(node))

    def _return(self, node: ast.Return) -> list[Stmt]:
        if node.value is None:
            raise self.error("a tensor program returns nothing", node, "leave it out")
        value = call_intrinsic(INTRINSICS["ret"], (self.eval(node.value),))
        return [Evaluate(value, self.source.span(node))]

    # --- expression statements --------------------------------------------------------------

    def _expression(self, node: ast.Expr) -> list[Stmt] | Rest:
        if isinstance(node.value, ast.Constant):
            return []  # A docstring, or `...`.
        value = self.eval(node.value)
        span = self.source.span(node)
        if isinstance(value, d.EvaluateDirective):
            value = as_expr(value.value)
        if isinstance(value, Expr):
            return [Evaluate(value, span)]
        if isinstance(value, d.StoreDirective):
            return [
                self.store_to(value.buffer, value.indices, value.value, value.predicate, node, node)
            ]
        if isinstance(value, d.AssertDirective):
            return [
                self.assertion(
                    self.condition(value.condition, node), value.message, value.kind, node
                )
            ]
        if isinstance(value, d.AttrFrame):
            return Rest(lambda inner: self.attribute_frame(value, inner, node))
        if isinstance(value, d.LaunchThread):
            return self.launch(value, None, node)
        if isinstance(value, d.Attributes) and value.role == "function":
            self.attrs.update(value.values)
            return []
        if isinstance(value, d.Regions | d.Where | d.Attributes):
            self.blocks[-1].declare(value, self, node)
            return []
        if value is None:
            return []  # A helper that was called for what it checks.
        raise self.error(
            f"a {_kind(value)} does nothing as a statement",
            node,
            "assign it to a name, or leave it out",
        )

    def attribute_frame(self, frame: d.AttrFrame, inner: Stmt, node: ast.stmt) -> Stmt:
        """`T.attr(...)` around statements."""
        return AttrStmt(frame.node, frame.key, frame.value, inner, self.source.span(node))

    def launch(self, frame: d.LaunchThread, name: str | None, node: ast.stmt) -> Rest:
        """`T.launch_thread`: a thread-bound loop around what follows."""
        axis = frame.thread
        extent = as_expr(frame.extent)
        thread = axis.thread if isinstance(axis, d.EnvThread) else axis
        names = [
            item for item in (name, axis.name if isinstance(axis, d.EnvThread) else None) if item
        ]
        var = Var(names[0] if names else thread.replace(".", "_"), extent.dtype)
        for item in names:
            self.define(item, var)
        zero = as_expr(0, extent.dtype)
        self.loop_ranges[var] = Range(zero, extent)
        span = self.source.span(node)
        return Rest(lambda inner: For(var, zero, extent, "thread_binding", inner, thread, {}, span))

    def launch_named(self, name: str, value: d.LaunchThread, node: ast.stmt) -> Rest:
        """`tx = T.launch_thread("threadIdx.x", 128)`."""
        return self.launch(value, name, node)

    # --- with -------------------------------------------------------------------------------

    def _with(self, node: ast.With) -> list[Stmt]:
        with self.scope():
            return self.frames(node, node.items)

    def frames(self, node: ast.With, items: Sequence[ast.withitem]) -> list[Stmt]:
        """The frames of one `with`, from the outside in."""
        if not items:
            return self.suite(node.body)
        frame = self.eval(items[0].context_expr)
        variable = items[0].optional_vars
        name = variable.id if isinstance(variable, ast.Name) else None
        if variable is not None and name is None:
            raise self.error("one name after `as`", variable, "name block axes with T.axis.remap")

        def inner() -> list[Stmt]:
            return self.frames(node, items[1:])

        if isinstance(frame, d.BlockFrame):
            return [self.block(frame, inner, node)]
        if isinstance(frame, d.InitFrame):
            if not self.blocks or self.blocks[-1].init is not None or self.blocks[-1].is_root:
                raise self.error(
                    "T.init() stands once in a block", node, "put all statements into the one"
                )
            self.blocks[-1].init = as_body(inner())
            return []
        if isinstance(frame, d.ScopeFrame):
            return [SeqStmt(tuple(inner()), self.source.span(node))]
        if isinstance(frame, d.AttrFrame):
            return [self.attribute_frame(frame, as_body(inner()), node)]
        if isinstance(frame, d.LaunchThread):
            rest = self.launch(frame, name, node)
            return [rest.wrap(as_body(inner()))]
        if isinstance(frame, d.AssertDirective):
            check = self.assertion(
                self.condition(frame.condition, node), frame.message, frame.kind, node
            )
            return [check, *inner()]
        if isinstance(frame, d.LetFrame):
            value = as_expr(frame.value)
            given = frame.var
            label = name or (given.name if given is not None else "v")
            if given is not None and not isinstance(given, d.FreshVar):
                return [Bind(given, value, self.source.span(node)), *inner()]
            var = None if given is None else Var(label, given.dtype, given.pointer)
            return [*self.bind(label, value, node, var), *inner()]
        if isinstance(frame, d.AllocateSpec | d.AllocateConstSpec | d.DeclareBuffer | d.BufferSpec):
            made = self.assign_name(name or "buffer", frame, node)
            assert isinstance(made, list)
            return [SeqStmt((*made, *inner()), self.source.span(node))]
        raise self.error(
            f"a {_kind(frame)} opens no scope",
            items[0].context_expr,
            "with takes T.block, T.init, T.attr, …",
        )

    def block(self, frame: d.BlockFrame, inner: Callable[[], list[Stmt]], node: ast.With) -> Stmt:
        """`with T.block(...)`."""
        state = BlockState(frame.name, no_realize=frame.no_realize)
        self.blocks.append(state)
        try:
            body = as_body(inner())
        finally:
            self.blocks.pop()
        return finish_block(state, body, self.source.span(node))

    def axis(self, name: str, value: d.Axis, node: ast.stmt) -> list[Stmt]:
        """`vi = T.axis.spatial(n, i)`."""
        state = self.blocks[-1]
        if state.is_root and not state.explicit:
            raise self.error("T.axis stands in a block", node, 'open one: with T.block("name"):')
        self.define(name, bind_axis(state, name, value, self, node))
        return []

    def remap(self, name: str, value: d.AxisRemap, node: ast.stmt) -> list[Stmt]:
        """`vi = T.axis.remap("S", [i])`."""
        axes = self.remap_axes(value, node)
        if len(axes) != 1:
            raise self.error(f"1 name for {len(axes)} axes", node, "write a, b = T.axis.remap(...)")
        return self.axis(name, axes[0], node)

    def remap_axes(self, value: d.AxisRemap, node: ast.stmt) -> list[d.Axis]:
        """The axes that a remap stands for: each runs over the whole range of its loop."""
        if len(value.kinds) != len(value.values):
            raise self.error(
                f"{len(value.kinds)} kinds for {len(value.values)} loops",
                node,
                'one letter of "SR" for each loop',
            )
        axes: list[d.Axis] = []
        for letter, loop in zip(value.kinds, value.values, strict=True):
            kind = _AXIS_KINDS.get(letter)
            if kind is None:
                raise self.error(f"no kind of axis {letter!r}", node, "S (spatial) or R (reduce)")
            domain = self.loop_ranges.get(loop) if isinstance(loop, Var) else None
            if domain is None:
                raise self.error(
                    "T.axis.remap takes variables of loops around the block",
                    node,
                    "T.axis.spatial(extent, value) takes any value",
                )
            axes.append(d.Axis(kind, domain, loop, None))
        return axes


def as_body(stmts: list[Stmt]) -> Stmt:
    """Statements of a suite as one: a sequence unless there is exactly one."""
    return stmts[0] if len(stmts) == 1 else SeqStmt(tuple(stmts))


def as_term(value: Any) -> Expr:
    """An argument of a call."""
    return StringImm(value) if isinstance(value, str) else as_expr(value)


def _kind(value: Any) -> str:
    return f"value of {value.dtype}" if isinstance(value, Expr) else type(value).__name__


_AXIS_KINDS: dict[str, Any] = {"S": "spatial", "R": "reduce"}

_NAMED: dict[type[Any], Callable[[TensorParser, str, Any, Any], list[Stmt] | Rest]] = {
    d.AllocBuffer: TensorParser.alloc_buffer,
    d.MatchBuffer: TensorParser.match_buffer,
    d.DeclareBuffer: TensorParser.declare_buffer,
    d.BufferSpec: TensorParser.declare_spec,
    d.AllocateSpec: TensorParser.allocate,
    d.AllocateConstSpec: TensorParser.allocate_const,
    d.LaunchThread: TensorParser.launch_named,
    d.Axis: TensorParser.axis,
    d.AxisRemap: TensorParser.remap,
}
