"""A loop over a subgraph: its counter, its state, and the results that it stacks.

Which subgraph, and what it is fed, is in `control`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transect.frontend.onnx.data_shapes import reshape_to
from transect.frontend.onnx.node import Node
from transect.frontend.onnx.values import as_dimension
from transect.ir.dtype import DType
from transect.ir.expr import Expr, IntImm, Var, as_int, maximum, not_equal
from transect.ir.sizes import product
from transect.ir.traverse import free_vars
from transect.ir.types import PrimType, tensor_type
from transect.relax import expr as rx
from transect.relax.call import call_tir_inplace
from transect.relax.expr import (
    GlobalFunc,
    Value,
    constant,
    make_tuple,
    prim_value,
    shape_expr,
)
from transect.relax.loop import while_loop
from transect.relax.op.element import store_range
from transect.support.errors import TransectError


@dataclass(frozen=True)
class Step:
    """What one iteration gives: whether to go on (0 or 1), the next state, results to stack."""

    going: Expr
    state: Sequence[Value]
    rows: Sequence[Value]


Body = Callable[[Expr, Expr, Sequence[Value]], Step]
"""From the number of the iteration, the flag that let it run, and the state."""


@dataclass(frozen=True)
class _Row:
    """What is known of a result before the loop: its dtype, and its dimensions, None for those
    that differ from one iteration to the next."""

    dtype: DType
    dims: tuple[Expr | None, ...]

    @property
    def varying(self) -> int:
        """The number of dimensions that the loop has to carry."""
        return sum(dim is None for dim in self.dims)


@dataclass(frozen=True)
class _Stack:
    """The rows of a result as one vector, which is written in place.

    runs: the number of rows, if both that and their size are known before the loop: the vector is
    of the right size then. Otherwise it grows twofold, and the loop carries how much is in use.
    """

    row: _Row
    runs: Expr | None
    backwards: bool
    program: GlobalFunc

    @property
    def carried(self) -> int:
        """The number of scalars that the loop carries for it."""
        return self.row.varying + (self.runs is None)


def iterate(
    node: Node,
    count: Expr | None,
    going: Expr | None,
    state: Sequence[Value],
    body: Body,
    backwards: Sequence[bool] = (),
) -> tuple[list[Value], list[Value]]:
    """Run `body` `count` times (None: without end) and while `going` is not 0.

    Gives the final state, and each result of the body stacked along a new first axis; `backwards`
    says for each of them whether the last comes first.
    """

    def condition(index: Value, flag: Value, *_: Value) -> Value:
        return prim_value(_goes_on(index, flag, count))

    def advance(index: Value, flag: Value, *rest: Value) -> list[Value]:
        return _advance(node, body, stacks, len(state), index, flag, rest)

    try:
        rows, steady = _probe(node, state, body)
        runs: Expr | None = None
        if count is not None and steady and (going is None or as_int(going) == 1):
            runs = node.simplify(maximum(count, 0))
        stacks = [
            _stack(node, row, runs, number < len(backwards) and backwards[number])
            for number, row in enumerate(rows)
        ]
        flag = IntImm(1) if going is None else going
        final = while_loop(
            node.builder,
            condition,
            advance,
            [
                *(prim_value(IntImm(0)), prim_value(as_dimension(flag)), *state),
                *(_empty(node, stack) for stack in stacks),
                *(prim_value(IntImm(0)) for stack in stacks for _ in range(stack.carried)),
            ],
            name="loop",
            span=(node.layer,),
        )
        values, vectors = final[2 : 2 + len(state)], final[2 + len(state) :]
        carried = map(_number, vectors[len(stacks) :])
        made = _number(final[0]) if runs is None else runs
        results = [
            _finished(node, stack, vector, made, carried)
            for stack, vector in zip(stacks, vectors, strict=False)
        ]
    except TransectError as error:
        raise error.at((node.layer,)) from None
    return list(values), results


def _stack(node: Node, row: _Row, runs: Expr | None, backwards: bool) -> _Stack:
    program = node.builder.add_function(store_range(row.dtype), "store_range")
    return _Stack(row, None if row.varying else runs, backwards, program)


def _empty(node: Node, stack: _Stack) -> Value:
    """The vector before the loop."""
    size: Expr = IntImm(0)
    if stack.runs is not None:
        size = product(
            [stack.runs, *(as_dimension(dim) for dim in stack.row.dims if dim is not None)]
        )
    return _zeros(node, size, stack.row.dtype)


def _zeros(node: Node, size: Expr, dtype: DType) -> Value:
    return node.emit("full", node.shape_of([size]), constant(0, dtype), dtype=dtype)


def _finished(
    node: Node, stack: _Stack, vector: Value, runs: Expr, carried: Iterator[Expr]
) -> Value:
    """The rows in the vector along a new first axis."""
    used = None if stack.runs is not None else next(carried)
    dims = [next(carried) if dim is None else dim for dim in stack.row.dims]
    if used is None:
        return node.emit("reshape", vector, node.shape_of([runs, *dims]))
    bounds = [shape_expr(item) for item in (0, 0, used)]
    rows = reshape_to(node, node.emit("strided_slice", vector, *bounds), [runs, *dims])
    return node.emit("flip", rows, axis=0) if stack.backwards else rows


def _goes_on(index: Value, flag: Value, count: Expr | None) -> Expr:
    running = not_equal(_number(flag), 0)
    return running if count is None else running & (_number(index) < count)


def _number(value: Value) -> Expr:
    """The expression that a scalar of the loop's state is."""
    if isinstance(value, rx.PrimValue):
        return value.value
    kind = value.type
    assert isinstance(kind, PrimType)
    assert kind.value is not None
    return kind.value


def _advance(
    node: Node,
    body: Body,
    stacks: Sequence[_Stack],
    states: int,
    index: Value,
    flag: Value,
    rest: Sequence[Value],
) -> list[Value]:
    """One iteration: the body, and its results written to their stacks."""
    _know(node, index, flag, *rest)
    step = body(_number(index), _number(flag), rest[:states])
    vectors = rest[states : states + len(stacks)]
    carried = map(_number, rest[states + len(stacks) :])
    written: list[Value] = []
    scalars: list[Value] = []
    for stack, vector, value in zip(stacks, vectors, step.rows, strict=True):
        dims = [as_dimension(dim) for dim in node.shape(value)]
        size = node.simplify(product(dims))
        if stack.runs is None:
            start = next(carried)
            vector = _with_room(node, vector, start, size)
            scalars.append(prim_value(node.simplify(start + size)))
        else:
            place = _number(index)
            start = node.simplify((stack.runs - 1 - place if stack.backwards else place) * size)
        for dim, fixed in zip(dims, stack.row.dims, strict=True):
            if fixed is None:
                next(carried)
                scalars.append(prim_value(node.simplify(dim)))
        flat = node.emit("reshape", value, node.shape_of([size]))
        call = call_tir_inplace(
            stack.program, [vector, flat], (0,), node.type_of(vector), [start], (node.layer,)
        )
        written.append(node.builder.emit(call))
    following = prim_value(node.simplify(_number(index) + 1))
    return [following, prim_value(as_dimension(step.going)), *step.state, *written, *scalars]


def _with_room(node: Node, vector: Value, used: Expr, more: Expr) -> Value:
    """The vector, at least twice as long if it has no room for `more` elements behind `used`."""
    (size,) = map(as_dimension, node.shape(vector))
    dtype = node.dtype(vector)

    def longer() -> Value:
        return node.emit(
            "concat", make_tuple(vector, _zeros(node, maximum(size, more), dtype)), axis=0
        )

    chosen = node.builder.emit_if(prim_value(used + more > size), longer, lambda: vector)
    kind = tensor_type((node.symbols.size("room"),), dtype)
    return node.builder.match_cast(chosen, kind, "room", (node.layer,))


def _know(node: Node, *values: Value) -> None:
    """Tell the analyzer that the loop's counters and dimensions are not negative."""
    for value in values:
        dims = [_number(value)] if isinstance(value.type, PrimType) else node.shape(value)
        for dim in dims:
            if isinstance(dim, Var):
                node.analyzer.bind(dim, (0, None))


def _probe(node: Node, state: Sequence[Value], body: Body) -> tuple[list[_Row], bool]:
    """What the body's results are like, found by running it once for nothing, and whether it lets
    the loop go on whenever it ran."""
    rows: list[_Row] = []
    around = node.builder.symbols
    index, flag = Var("index"), Var("flag")
    counters = [rx.Var(item.name, PrimType(item.dtype, item)) for item in (index, flag)]
    params = [rx.Var(f"state{number}", value.type) for number, value in enumerate(state)]
    steady = False

    def run() -> Value:
        nonlocal steady
        _know(node, *counters, *params)
        step = body(index, flag, params)
        steady = step.going is flag or as_int(step.going) == 1
        for value in step.rows:
            dims = node.shape(value)
            fixed = (dim if around.issuperset(free_vars((dim,))) else None for dim in dims)
            rows.append(_Row(node.dtype(value), tuple(fixed)))
        return make_tuple()

    with node.builder.attempt() as take_back:
        node.builder.local_function([*counters, *params], run)
    take_back()
    return rows, steady
