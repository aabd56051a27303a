"""BlockBuilder: graph functions written from Python, one binding at a time.

Front ends and passes build with it; TVMScript is parsed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, ExprLike, as_expr, as_int, cast
from transect.ir.expr import Var as Symbol
from transect.ir.function import BaseFunc, IRModule
from transect.ir.structural import structural_equal
from transect.ir.types import CallableType, TensorType, TupleType, Type, tensor_type
from transect.relax import expr as rx
from transect.relax.call import call_tir, global_func
from transect.relax.emit import Bindings, Names
from transect.relax.inference import function_type, join
from transect.relax.shapes import plain_vars
from transect.relax.unify import unify_prim_func
from transect.relax.visit import Rewriter, graph_functions
from transect.support.errors import InferenceError, InputError
from transect.support.span import Spans
from transect.tir.function import PrimFunc
from transect.tir.visit import walk_stmts


class BlockBuilder:
    """Builds the functions of a module.

        builder = BlockBuilder()
        x = builder.var("x", tensor_type((n, d), FLOAT32))
        with builder.function("main", (x,)):
            with builder.dataflow():
                y = builder.emit(Exp()(x))
                z = builder.emit_output(Add()(y, y))
            builder.emit_func_output(z)
        module = builder.module

    Values may be nested: operands are bound to variables on the way, in A-normal form.
    """

    def __init__(self, module: IRModule | None = None) -> None:
        self.module = IRModule({}, {}, {}) if module is None else module
        self._alike: dict[object, list[str]] = {}
        self._known: dict[BaseFunc, rx.GlobalFunc] = {}
        for name, function in self.module.functions.items():
            if isinstance(function, PrimFunc):
                self._alike.setdefault(_outline(function), []).append(name)
        self._bindings: Bindings | None = None
        self._result: rx.SeqExpr | None = None

    # --- functions ----------------------------------------------------------------------

    @staticmethod
    def var(name: str, kind: Type, span: Spans = ()) -> rx.Var:
        """A parameter of a function to come."""
        return rx.Var(name, kind, span=span)

    @contextmanager
    def function(
        self,
        name: str,
        params: Sequence[rx.Var] = (),
        *,
        attrs: Mapping[str, Any] | None = None,
        pure: bool = True,
        private: bool = False,
        span: Spans = (),
    ) -> Generator[None]:
        """The function `name` of the module, of what is emitted inside.

        Give its result to `emit_func_output`. A function that is not `private` is exported under
        its name (the attribute "global_symbol").
        """
        if self._bindings is not None:
            raise InputError(
                "a function inside another",
                remedy="emit a nested function with emit_local_function",
            )
        self._bindings = Bindings(
            Names(param.name for param in params), plain_vars(param.type for param in params)
        )
        self._result = None
        try:
            yield
            body = self._take_result(name)
        finally:
            self._bindings = None
            self._result = None
        all_attrs = {} if private else {"global_symbol": name}
        made = make_function(
            params, body, pure=pure, attrs={**all_attrs, **(attrs or {})}, span=span
        )
        self.module = self.module.with_function(name, made)

    def _take_result(self, name: str) -> rx.SeqExpr:
        if self._result is None:
            raise InputError(f"{name} has no result", remedy="call emit_func_output")
        return self._result

    def emit_func_output(self, value: rx.Value) -> None:
        """The result of the function under construction."""
        self._result = self._open.finish(value)

    def add_function(self, function: BaseFunc, name: str) -> rx.GlobalFunc:
        """Add a function to the module; of a tensor program, find a structurally equal one if
        there is one already.

        name: made unique if it is taken by another function. An exported function is never shared.
        """
        if function in self._known:
            return self._known[function]
        alike: list[str] = []
        if isinstance(function, PrimFunc) and "global_symbol" not in function.attrs:
            alike = self._alike.setdefault(_outline(function), [])
        for known in alike:
            if structural_equal(self.module[known], function):
                self._known[function] = self.global_func(known)
                return self._known[function]
        unique = self.module.fresh_name(name)
        self.module = self.module.with_function(unique, function)
        alike.append(unique)
        self._known[function] = self.global_func(unique)
        return self._known[function]

    def global_func(self, name: str) -> rx.GlobalFunc:
        """A reference to a function of the module, with its type if it is a graph function."""
        return global_func(name, function_ref_type(self.module[name]))

    @staticmethod
    def declare(
        name: str, params: Sequence[rx.Var], ret_type: Type, *, pure: bool = True
    ) -> rx.GlobalFunc:
        """A reference to a function to come, for recursion."""
        return global_func(name, function_type(params, ret_type, pure=pure))

    # --- blocks and bindings ------------------------------------------------------------

    @property
    def _open(self) -> Bindings:
        if self._bindings is None:
            raise InputError("nothing to emit into", remedy="use `with builder.function(...)`")
        return self._bindings

    @property
    def symbols(self) -> frozenset[Symbol]:
        """The symbolic variables in scope."""
        return frozenset(self._open.symbols)

    @contextmanager
    def dataflow(self, span: Spans = ()) -> Generator[None]:
        """A dataflow block: what is emitted inside is local to it, but for `emit_output`."""
        bindings = self._open
        if bindings.in_dataflow:
            raise InputError("a dataflow block inside another")
        bindings.begin(dataflow=True, span=span)
        yield
        bindings.begin(dataflow=False)

    def emit(self, value: rx.Value, name: str = "lv", span: Spans = ()) -> rx.Var:
        """Bind a value to a new variable and give that."""
        return self._open.bind(value, name, span=span)

    def emit_output(self, value: rx.Value, name: str = "gv", span: Spans = ()) -> rx.Var:
        """Bind a value to a variable that is visible after the dataflow block."""
        return self._open.bind(value, name, output=True, span=span)

    def match_cast(self, value: rx.Value, kind: Type, name: str = "lv", span: Spans = ()) -> rx.Var:
        """Check `value` at run time to be of type `kind`, whose new variables this binds."""
        return self._open.match_cast(value, kind, name, span=span)

    def emit_if(
        self,
        condition: rx.Value,
        then_case: Callable[[], rx.Value],
        else_case: Callable[[], rx.Value],
        name: str = "gv",
        span: Spans = (),
    ) -> rx.Var:
        """Bind the result of a branch; each case emits into its own scope and gives its result.

        Raises InputError inside a dataflow block, which has no control flow.
        """
        if self._open.in_dataflow:
            raise InputError("a dataflow block has no branches", remedy="emit it outside the block")
        cond = self._open.leaf(condition)
        first, second = self._branch(then_case), self._branch(else_case)
        value = rx.If(cond, first, second, join(first.type, second.type), span)
        return self._open.bind(value, name, span=span)

    def _branch(self, case: Callable[[], rx.Value]) -> rx.SeqExpr:
        outer = self._open
        self._bindings = Bindings(outer.names, outer.symbols)
        try:
            return self._bindings.finish(case())
        finally:
            self._bindings = outer

    def emit_local_function(
        self,
        params: Sequence[rx.Var],
        body: Callable[[], rx.Value],
        name: str = "inner",
        *,
        pure: bool = True,
    ) -> rx.Var:
        """Bind a function that may use the variables around it."""
        return self._open.bind(self.local_function(params, body, pure=pure), name)

    def local_function(
        self, params: Sequence[rx.Var], body: Callable[[], rx.Value], *, pure: bool = True
    ) -> rx.Function:
        """A function of what `body` emits, which may use the variables around it; not bound."""
        outer = self._open
        self._bindings = Bindings(
            outer.names, outer.symbols.union(plain_vars(param.type for param in params))
        )
        try:
            return make_function(params, self._bindings.finish(body()), pure=pure)
        finally:
            self._bindings = outer

    @contextmanager
    def attempt(self) -> Generator[Callable[[], None]]:
        """What is added to the module inside is taken back by calling what this gives."""
        saved = self.module, {key: list(names) for key, names in self._alike.items()}
        known = dict(self._known)

        def take_back() -> None:
            self.module, self._alike = saved
            self._known = known

        yield take_back

    def emit_call_tir(
        self,
        function: PrimFunc,
        inputs: Sequence[rx.Value],
        name: str = "kernel",
        *,
        tir_vars: Sequence[ExprLike] = (),
        span: Spans = (),
    ) -> rx.Var:
        """Add a tensor program to the module and bind its result on `inputs`.

        The buffers after the inputs are the outputs; their shapes follow from the inputs' shapes
        and `tir_vars`, the values of the program's scalar parameters.
        """
        callee = self.add_function(function, name)
        leaves = [self._open.leaf(item) for item in inputs]
        out_type = call_tir_type(function, [item.type for item in leaves], tir_vars, callee.name)
        return self.emit(call_tir(callee, leaves, out_type, tir_vars, span), span=span)

    def finish(self) -> IRModule:
        """The module."""
        return self.module


def _outline(function: PrimFunc) -> object:
    """What equal tensor programs share and few others do, found without looking into terms."""
    buffers = tuple((buffer.dtype, *map(as_int, buffer.shape)) for buffer in function.buffers)
    return buffers, len(function.params), sum(1 for _ in walk_stmts(function.body))


def make_function(
    params: Sequence[rx.Var],
    body: rx.SeqExpr,
    *,
    pure: bool = True,
    attrs: Mapping[str, Any] | None = None,
    ret_type: Type | None = None,
    span: Spans = (),
) -> rx.Function:
    """A graph function; its return type is that of the body unless a wider one is given."""
    result = body.type if ret_type is None else ret_type
    kind = function_type(params, result, pure=pure)
    return rx.Function(tuple(params), body, result, kind, pure, dict(attrs or {}), span)


def function_ref_type(function: BaseFunc) -> CallableType | None:
    """The type of a reference to a function of the module; None for a tensor program."""
    if isinstance(function, rx.Function):
        return function_type(function.params, function.ret_type, pure=function.pure)
    return None


def call_tir_type(
    function: PrimFunc,
    inputs: Sequence[Type],
    tir_vars: Sequence[ExprLike] = (),
    callee: str = "the tensor program",
) -> TensorType | TupleType:
    """The type of a call_tir: the buffers after the inputs, in the caller's terms.

    Raises InferenceError if the inputs do not fit or do not determine the outputs' shapes.
    """
    outputs = function.buffers[len(inputs) :]
    if not outputs:
        raise InferenceError(f"{callee} has no output after {len(inputs)} inputs")
    declared = [tensor_type(buffer.shape, buffer.dtype) for buffer in outputs]
    unknown = [tensor_type(None, buffer.dtype, buffer.ndim) for buffer in outputs]
    found = unify_prim_func(
        function, [*inputs, *unknown], [as_expr(item) for item in tir_vars], callee
    )
    kinds = [found.apply(kind) for kind in declared]
    for buffer, kind in zip(outputs, kinds, strict=True):
        if not isinstance(kind, TensorType) or kind.shape is None:
            raise InferenceError(
                f"the inputs of {callee} do not determine the shape of its output {buffer.name}",
                remedy="give the output's type: call_tir(f, inputs, out_type)",
            )
    tensors = [tensor_type(_as_dims(k.shape), k.dtype) for k in kinds if isinstance(k, TensorType)]
    return tensors[0] if len(tensors) == 1 else TupleType(tuple(tensors))


def _as_dims(shape: tuple[Expr, ...] | None) -> tuple[Expr, ...]:
    """Dimensions of a graph tensor, which are int64, from those of a buffer, which may be int32."""
    return tuple(cast(extent, INDEX) for extent in shape or ())


def rewrite_functions(
    module: IRModule, rewriter: Callable[[BlockBuilder, str, rx.Function], Rewriter]
) -> IRModule:
    """`module` with each graph function rewritten, and the functions that this adds to the builder.

    rewriter: makes the one of a function from the builder and the function's name.
    """
    builder = BlockBuilder(module)
    for name, function in list(graph_functions(module)):
        new = rewriter(builder, name, function).run(function)
        if new is not function:
            builder.module = builder.module.with_function(name, new)
    return builder.module
