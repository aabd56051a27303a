"""Random small graph programs: table operators over symbolic shapes, tuples, branches, casts,
calls of other functions, and packed calls that write over what they are given.

Values are small whole numbers as long as what made them is exact; only such values are compared,
so that a last bit never decides which way a program goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from transect.ir.dtype import BOOL, FLOAT32, as_dtype
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import ObjectType, TensorType, TupleType, tensor_type
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.inference import infer_call
from transect.relax.op import find_operator
from transect.relax.op.inference import assumptions
from transect.relax.shapes import type_vars
from transect.support.errors import InferenceError
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc

BUMP, SCALE, FILL, SAME = "fuzz.bump", "fuzz.scale", "fuzz.fill", "fuzz.same"


def _bump(x: np.ndarray) -> None:
    x += x.dtype.type(1)


def _fill(x: np.ndarray, out: np.ndarray) -> None:
    out[...] = x + out.dtype.type(2)


PACKED: dict[str, Callable[..., Any]] = {
    BUMP: _bump,
    SCALE: lambda x: x * 2,
    FILL: _fill,
    SAME: lambda x: x,
}
"""What programs call: in place, with a new result, into a destination, giving its argument back."""

EXACT = ("nn.relu", "negative", "abs", "square", "floor", "zeros_like", "ones_like")
INEXACT = ("tanh", "sigmoid", "exp", "nn.silu", "nn.gelu", "nn.softmax", "nn.log_softmax")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum")
COMPARE = ("equal", "less", "greater_equal", "not_equal")
REDUCE = ("sum", "max", "min", "mean")
LARGEST = 1 << 18


class Graph:
    """A module with the function "main", and arguments for it by the extent n. Shows as script."""

    def __init__(self, module: IRModule, params: Sequence[rx.Var]) -> None:
        self.module = module
        self.params = params

    def arguments(self, n: int) -> list[np.ndarray]:
        """Whole numbers from -3 to 3, the same for each n."""
        random = np.random.default_rng(n)
        made: list[np.ndarray] = []
        for param in self.params:
            kind = param.type
            assert isinstance(kind, TensorType)
            shape = [getattr(dim, "value", n) for dim in kind.shape or ()]
            assert kind.dtype is not None
            values = random.integers(0 if kind.dtype is BOOL else -3, 2, shape)
            made.append(np.asarray(values).astype(kind.dtype.numpy))
        return made

    def __repr__(self) -> str:
        return repr(self.module)


@dataclass
class _State:
    """A function under construction: the values in scope, and what is known of their numbers.

    bounds: the largest magnitude of an exact value; one that is not there may be anything.
    """

    draw: Any
    builder: BlockBuilder
    n: Var
    pool: list[rx.Var] = field(default_factory=list[rx.Var])
    tuples: list[rx.Var] = field(default_factory=list[rx.Var])
    bounds: dict[rx.Var, int] = field(default_factory=dict[rx.Var, int])
    local: bool = False
    outputs: list[rx.Var] = field(default_factory=list[rx.Var])

    def pick(self, wanted: Callable[[rx.Var], bool] = lambda _: True) -> rx.Var | None:
        found = [var for var in self.pool if wanted(var)]
        return self.draw(st.sampled_from(found)) if found else None

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def emit(self, value: rx.Value, bound: int | None = None) -> rx.Var:
        """Bind a value; in a dataflow block some are outputs."""
        if self.local and self.draw(st.booleans()):
            var = self.builder.emit_output(value)
            self.outputs.append(var)
        else:
            var = self.builder.emit(value)
        if isinstance(var.type, TensorType):
            self.pool.append(var)
        else:
            self.tuples.append(var)
        if bound is not None and bound <= LARGEST:
            self.bounds[var] = bound
        return var

    def bound(self, *values: rx.Var) -> int | None:
        """The largest magnitude among exact values; None if one is not exact."""
        found = [self.bounds.get(value) for value in values]
        return None if None in found else max(item for item in found if item is not None)


def _rank(var: rx.Var) -> int:
    assert isinstance(var.type, TensorType)
    return var.type.ndim


def _is(dtype: Any) -> Callable[[rx.Var], bool]:
    return lambda var: isinstance(var.type, TensorType) and var.type.dtype is dtype


def _call(name: str, *operands: rx.Value, **attributes: Any) -> rx.Call:
    operator = find_operator(name)(**attributes)
    if assumptions(operator, [operand.type for operand in operands]):
        raise InferenceError("the sizes of a run might not fit")
    return operator(*operands)


# --- steps ----------------------------------------------------------------------------------


def _unary(s: _State) -> None:
    x = s.pick(_is(FLOAT32))
    if x is None:
        return
    name = s.draw(st.sampled_from((*EXACT, *INEXACT)))
    bound = s.bound(x)
    if name == "square" and bound is not None:
        bound *= bound
    if name == "exp":
        # Not so large that a difference of two is only rounding.
        x = s.emit(_call("minimum", x, rx.constant(np.float32(2))), bound)
    s.emit(_call(name, x), bound if name in EXACT else None)


def _binary(s: _State) -> None:
    x = s.pick(lambda v: not _is(BOOL)(v))
    y = s.pick(lambda v: x is not None and isinstance(x.type, TensorType) and _is(x.type.dtype)(v))
    if x is None or y is None:
        return
    name = s.draw(st.sampled_from(BINARY))
    bound = s.bound(x, y)
    if bound is not None:
        bound = bound * bound if name == "multiply" else 2 * bound
    second: rx.Value = y
    if s.integer(0, 3) == 0 and isinstance(x.type, TensorType) and x.type.dtype is not None:
        second = rx.constant(np.asarray(s.integer(-2, 2), x.type.dtype.numpy))
        bound = s.bound(x)
        bound = None if bound is None else 2 * bound + 2
    s.emit(_call(name, x, second), bound)


def _compare(s: _State) -> None:
    x = s.pick(lambda v: v in s.bounds and not _is(BOOL)(v))
    y = s.pick(
        lambda v: (
            v in s.bounds
            and x is not None
            and isinstance(x.type, TensorType)
            and _is(x.type.dtype)(v)
        )
    )
    if x is not None and y is not None:
        s.emit(_call(s.draw(st.sampled_from(COMPARE)), x, y), 1)


def _where(s: _State) -> None:
    c, x, y = s.pick(_is(BOOL)), s.pick(_is(FLOAT32)), s.pick(_is(FLOAT32))
    if c is not None and x is not None and y is not None:
        s.emit(_call("where", c, x, y), s.bound(x, y))


def _reduce(s: _State) -> None:
    x = s.pick(lambda v: _is(FLOAT32)(v) and _rank(v) > 0)
    if x is None:
        return
    name = s.draw(st.sampled_from(REDUCE))
    axis = s.draw(st.sampled_from([None, -1, 0]))
    bound = s.bound(x)
    # max of nothing is an extreme value, and mean divides.
    exact = bound is not None and name == "sum"
    keep = s.draw(st.booleans())
    s.emit(_call(name, x, axis=axis, keepdims=keep), bound * 64 if bound and exact else None)


def _matmul(s: _State) -> None:
    x = s.pick(lambda v: _is(FLOAT32)(v) and _rank(v) > 0)
    y = s.pick(lambda v: _is(FLOAT32)(v) and _rank(v) > 0)
    if x is not None and y is not None:
        bound = s.bound(x, y)
        s.emit(_call("matmul", x, y), None if bound is None else bound * bound * 16)


def _shape(s: _State) -> None:
    x = s.pick()
    if x is None:
        return
    kind = x.type
    assert isinstance(kind, TensorType)
    choice = s.integer(0, 9)
    bound = s.bound(x)
    rank = kind.ndim
    if choice == 0:
        s.emit(_call("flatten", x), bound)
    elif choice == 1:
        s.emit(_call("expand_dims", x, axis=s.integer(0, rank)), bound)
    elif choice == 2:
        s.emit(_call("squeeze", x), bound)
    elif choice == 3:
        s.emit(_call("permute_dims", x), bound)
    elif choice == 4 and rank > 0:
        s.emit(_call("concat", rx.make_tuple(x, x), axis=s.integer(-1, 0)), bound)
    elif choice == 5 and rank > 0:
        s.emit(_call("flip", x, axis=s.integer(-1, 0)), bound)
    elif choice == 6:
        parts = s.emit(_call("split", x, indices_or_sections=2, axis=-1))
        s.emit(rx.tuple_item(parts, s.integer(0, 1)), bound)
    elif choice == 7 and kind.shape is not None:
        s.emit(_call("reshape", x, rx.shape_expr(*reversed(kind.shape))), bound)
    elif choice == 8:
        s.emit(_call("broadcast_to", x, rx.shape_expr(s.n, 4)), bound)
    elif choice == 9:
        y = s.pick(_is(kind.dtype))
        assert y is not None
        bound = s.bound(x, y)
        s.emit(_call("stack", rx.make_tuple(x, y), axis=s.integer(-1, 0)), bound)


def _astype(s: _State) -> None:
    x = s.pick(lambda v: v in s.bounds)
    if x is not None:
        dtype = s.draw(st.sampled_from(["float32", "int64", "bool"]))
        s.emit(_call("astype", x, dtype=dtype), s.bound(x))


def _create(s: _State) -> None:
    choice = s.integer(0, 2)
    if choice == 0:
        shape = rx.shape_expr(s.n, s.draw(st.sampled_from([1, 4])))
        s.emit(_call("full", shape, rx.constant(np.float32(2)), dtype=FLOAT32), 2)
    elif choice == 1:
        stop = rx.prim_value(s.n)
        s.emit(_call("arange", rx.prim_value(0), stop, rx.prim_value(1), dtype=FLOAT32), 64)
    else:
        x = s.pick()
        if x is not None:
            shape = s.builder.emit(_call("shape_of", x))
            s.emit(_call("shape_to_tensor", shape), 4096)


def _gather(s: _State) -> None:
    x = s.pick(lambda v: _rank(v) > 0)
    if x is not None:
        # Index 0 is one past the end where the extent is 0, so only axes of constant extent.
        kind = x.type
        assert isinstance(kind, TensorType)
        size = getattr((kind.shape or ())[-1], "value", 0)
        if size > 0:
            indices = rx.constant(np.arange(3, dtype=np.int64)[::-1] % size)
            s.emit(_call("take", x, indices, axis=-1), s.bound(x))


def _tuple(s: _State) -> None:
    x, y = s.pick(), s.pick()
    if x is None or y is None:
        return
    if s.tuples and s.draw(st.booleans()):
        whole = s.draw(st.sampled_from(s.tuples))
        if isinstance(whole.type, TupleType):
            items = s.integer(0, len(whole.type.items) - 1)
            item = whole.type.items[items]
            if isinstance(item, TensorType):
                s.emit(rx.tuple_item(whole, items))
        return
    s.emit(rx.make_tuple(x, y))


def _match_cast(s: _State) -> None:
    x = s.pick()
    if x is None:
        return
    kind = x.type
    assert isinstance(kind, TensorType)
    dims = [Var(f"k{axis}") for axis in range(kind.ndim)]
    shape = tuple(dims) if s.draw(st.booleans()) else kind.shape
    var = s.builder.match_cast(x, tensor_type(shape, kind.dtype))
    s.pool.append(var)
    if x in s.bounds:
        s.bounds[var] = s.bounds[x]


def _kernel(kind: TensorType) -> PrimFunc:
    b = FunctionBuilder("kernel")
    dims = tuple(Var(f"d{axis}") for axis in range(kind.ndim))
    assert kind.dtype is not None
    x = b.input("x", dims, kind.dtype)
    y = b.compute(dims, lambda *i: x[i] + 1, name="y", dtype=kind.dtype)
    return b.finish(y).with_attrs(global_symbol=None)


def _call_tir(s: _State) -> None:
    x = s.pick(_is(FLOAT32))
    if x is not None and isinstance(x.type, TensorType):
        bound = s.bound(x)
        callee = s.builder.add_function(_kernel(x.type), "kernel")
        call = special.call_tir(callee, [x], x.type)
        s.emit(call, None if bound is None else bound + 1)


def _pure_packed(s: _State) -> None:
    x = s.pick(_is(FLOAT32))
    if x is None:
        return
    bound = s.bound(x)
    bound = None if bound is None else 2 * bound + 2
    assert isinstance(x.type, TensorType)
    if s.draw(st.booleans()):
        s.emit(special.call_dps_packed(FILL, [x], x.type), bound)
    else:
        s.emit(special.call_pure_packed(SCALE, x, type_args=(x.type,)), bound)


def _helper(s: _State) -> None:
    """A call of another function of the module."""
    x = s.pick(lambda v: _is(FLOAT32)(v) and _rank(v) == 2)
    if x is not None and "helper" in s.builder.module:
        bound = s.bound(x)
        callee = s.builder.global_func("helper")
        s.emit(callee_call(callee, x), None if bound is None else 2 * bound + 2)


def callee_call(callee: rx.GlobalFunc, *args: rx.Value) -> rx.Call:
    """A call of a function of the module, typed by what it is called with."""
    call = rx.Call(callee, args, ObjectType())
    return replace(call, type=infer_call(call))


PURE = (
    _unary, _unary, _unary, _binary, _binary, _binary, _compare, _where, _reduce, _reduce, _matmul,
    _shape, _shape, _shape, _astype, _create, _gather, _tuple, _call_tir, _pure_packed,
)  # fmt: skip


# --- control and effects --------------------------------------------------------------------


def _bump_in_place(s: _State) -> None:
    x = s.pick(_is(FLOAT32))
    if x is not None:
        s.builder.emit(special.call_packed(BUMP, x, type_args=(TupleType(()),)))


def _same(s: _State) -> None:
    """A packed function that gives its argument back."""
    x = s.pick(_is(FLOAT32))
    if x is not None:
        s.emit(special.call_packed(SAME, x, type_args=(x.type,)))


def _branch(s: _State, depth: int) -> None:
    condition = s.pick(lambda v: _is(BOOL)(v) and _rank(v) == 0 and v in s.bounds)
    if condition is None:
        return
    kinds: list[Any] = []

    def case() -> rx.Value:
        kept = list(s.pool), list(s.tuples), dict(s.bounds)
        _steps(s, s.integer(0, 3), depth + 1)
        wanted = kinds[0] if kinds else None
        found = s.pick(
            lambda v: (
                _is(FLOAT32)(v)
                and wanted in (None, v.type)
                and all(symbol is s.n for symbol in type_vars(v.type))
            )
        )
        if found is None:
            dims = rx.shape_expr(*wanted.shape)
            found = s.builder.emit(_call("full", dims, rx.constant(np.float32(3)), dtype=FLOAT32))
        kinds.append(found.type)
        s.pool, s.tuples, s.bounds = kept
        return found

    var = s.builder.emit_if(condition, case, case)
    s.pool.append(var)


def _dataflow(s: _State) -> None:
    pool, tuples = list(s.pool), list(s.tuples)
    s.outputs = []
    with s.builder.dataflow():
        s.local = True
        for _ in range(s.integer(1, 7)):
            _attempt(s, s.draw(st.sampled_from(PURE)))
        s.local = False
    inside = [var for var in s.outputs if isinstance(var.type, TensorType)]
    s.pool = [*pool, *inside]
    s.tuples = [*tuples, *(var for var in s.outputs if not isinstance(var.type, TensorType))]


def _attempt(s: _State, step: Callable[[_State], None]) -> None:
    try:
        step(s)
    except InferenceError:
        # What was drawn does not fit the operator: another step will.
        return


def _steps(s: _State, count: int, depth: int) -> None:
    for _ in range(count):
        choice = s.integer(0, 9)
        if choice < 2 and depth == 0:
            _dataflow(s)
        elif choice == 2 and depth < 2:
            _branch(s, depth)
        elif choice == 3:
            _bump_in_place(s)
        elif choice == 4:
            _attempt(s, _same)
        elif choice == 5:
            _attempt(s, _match_cast)
        elif choice == 6:
            _attempt(s, _helper)
        else:
            _attempt(s, s.draw(st.sampled_from(PURE)))


def _add_helper(builder: BlockBuilder) -> None:
    """helper(x: (a, b)) -> x + x, or a recursion that a scalar ends."""
    x = builder.var("x", tensor_type((Var("a"), Var("b")), FLOAT32))
    with builder.function("helper", (x,), private=True):
        builder.emit_func_output(builder.emit(_call("add", x, x)))


@st.composite
def graphs(draw: Any) -> Graph:
    """A random program."""
    n = Var("n")
    builder = BlockBuilder()
    _add_helper(builder)
    kinds = [((n, 4), "float32"), ((n, 4), "float32"), ((4,), "float32"), ((), "float32"),
             ((), "bool"), ((n,), "int64"), ((2, 3), "float32")]  # fmt: skip
    params = [
        builder.var(f"p{i}", tensor_type(_dims(shape), as_dtype(dtype)))
        for i, (shape, dtype) in enumerate(kinds)
    ]
    s = _State(draw, builder, n, list(params))
    # Packed functions may add to a value now and then.
    s.bounds = dict.fromkeys(params, 16)
    with builder.function("main", params, pure=False):
        _steps(s, s.integer(1, 6), 0)
        results = [s.pick() for _ in range(s.integer(1, 4))]
        chosen: list[rx.Value] = [item for item in results if item is not None]
        if s.tuples and s.draw(st.booleans()):
            chosen.append(s.draw(st.sampled_from(s.tuples)))
        builder.emit_func_output(rx.make_tuple(*chosen) if len(chosen) > 1 else chosen[0])
    return Graph(builder.finish(), params)


def _dims(shape: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(rx.shape_expr(*shape).values)


__all__ = ["PACKED", "Graph", "graphs"]
