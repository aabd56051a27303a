"""A loop over a subgraph: its counter, its state, and the results that it stacks.

Which subgraph, and what it is fed, is in `control`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transect.frontend.onnx.data_shapes import reshape_to
from transect.frontend.onnx.node import Node
from transect.frontend.onnx.values import as_dimension
from transect.ir.dtype import DType
from transect.ir.expr import Expr, IntImm, Var, as_int, maximum, not_equal
from transect.ir.traverse import free_vars
from transect.ir.types import PrimType
from transect.relax import expr as rx
from transect.relax.expr import Value, constant, make_tuple, prim_value, shape_expr
from transect.relax.loop import while_loop
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
    says for each of them whether the last comes first. Rows are joined as one vector, for their
    size may be known only once the loop has run.
    """

    def condition(index: Value, flag: Value, *_: Value) -> Value:
        return prim_value(_goes_on(index, flag, count))

    def advance(index: Value, flag: Value, *rest: Value) -> list[Value]:
        return _advance(node, body, rows, backwards, len(state), index, flag, rest)

    try:
        rows, steady = _probe(node, state, body)
        empty = [
            node.emit("full", shape_expr(0), constant(0, row.dtype), dtype=row.dtype)
            for row in rows
        ]
        sizes = [prim_value(IntImm(0)) for row in rows for _ in range(row.varying)]
        flag = IntImm(1) if going is None else going
        counters = [prim_value(IntImm(0)), prim_value(as_dimension(flag))]
        final = while_loop(
            node.builder,
            condition,
            advance,
            [*counters, *state, *empty, *sizes],
            name="loop",
            span=(node.layer,),
        )
    except TransectError as error:
        raise error.at((node.layer,)) from None
    runs = _number(final[0])
    if count is not None and steady and (going is None or as_int(going) == 1):
        runs = node.simplify(maximum(count, 0))
    values, flat = final[2 : 2 + len(state)], final[2 + len(state) :]
    carried = iter(flat[len(rows) :])
    stacks: list[Value] = []
    for row, vector in zip(rows, flat, strict=False):
        dims = [_number(next(carried)) if dim is None else dim for dim in row.dims]
        stacks.append(reshape_to(node, vector, [runs, *dims]))
    return list(values), stacks


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
    rows: Sequence[_Row],
    backwards: Sequence[bool],
    states: int,
    index: Value,
    flag: Value,
    rest: Sequence[Value],
) -> list[Value]:
    """One iteration: the body, and its results appended."""
    _know(node, index, flag, *rest)
    step = body(_number(index), _number(flag), rest[:states])
    vectors = rest[states : states + len(rows)]
    joined: list[Value] = []
    sizes: list[Value] = []
    for number, (row, vector, value) in enumerate(zip(rows, vectors, step.rows, strict=True)):
        dims = node.shape(value)
        total: Expr = IntImm(1)
        for dim in dims:
            total = total * as_dimension(dim)
        flat = node.emit("reshape", value, node.shape_of([total]))
        ahead = number < len(backwards) and backwards[number]
        pair = (flat, vector) if ahead else (vector, flat)
        joined.append(node.emit("concat", make_tuple(*pair), axis=0))
        sizes += [
            prim_value(node.simplify(as_dimension(dim)))
            for dim, fixed in zip(dims, row.dims, strict=True)
            if fixed is None
        ]
    following = prim_value(node.simplify(_number(index) + 1))
    return [following, prim_value(as_dimension(step.going)), *step.state, *joined, *sizes]


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
