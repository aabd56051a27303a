"""LSTM, GRU and RNN: a loop over the steps of each direction.

The products of the inputs of all steps with their weights are one product ahead of the loop; what
a step does with them is in `relax.op.recurrent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.values import as_dimension
from transect.ir.expr import LT, Expr, IntImm, as_expr, as_int
from transect.ir.types import PrimType
from transect.relax.call import call_tir_inplace
from transect.relax.expr import (
    Constant,
    Value,
    constant,
    make_tuple,
    prim_value,
    shape_expr,
    tuple_item,
)
from transect.relax.loop import while_loop
from transect.relax.op.recurrent import ACTIVATIONS, GruCell, GruReset, LstmCell, RnnCell, StepStore


@dataclass(frozen=True)
class Direction:
    """One direction of a node.

    weights: of the inputs, (inputs, gates * hidden). recurrent: of the state, (hidden, gates *
    hidden). bias: of the inputs' product, None for none; state_bias: of the last gate of the
    state's product. peephole: (3 * hidden,). cell: the fields that all cells have.
    """

    number: int
    weights: Value
    recurrent: Value
    bias: Value | None
    state_bias: Value | None
    peephole: Value | None
    lengths: Value
    cell: Mapping[str, Any]


Step = Callable[[Node, Direction, Value, Value, Sequence[Value]], Sequence[Value]]
"""From the inputs' products, the number of the step and the state (h first) to the next state."""


# --- parts of weights: at once where they are constant ------------------------------------------


def _row(node: Node, value: Value, number: int) -> Value:
    """value[number]."""
    if isinstance(value, Constant):
        return constant(value.data[number])
    one = node.emit("strided_slice", value, *map(shape_expr, (0, number, number + 1)))
    return node.emit("reshape", one, node.shape_of(node.shape(value)[1:]))


def _transposed(node: Node, value: Value) -> Value:
    if isinstance(value, Constant):
        return constant(np.ascontiguousarray(value.data.T))
    return node.emit("permute_dims", value, axes=(1, 0))


def _part(node: Node, value: Value, axis: int, begin: Expr, end: Expr) -> Value:
    """value[begin:end] along an axis."""
    return node.emit("strided_slice", value, *map(shape_expr, (axis, begin, end)))


def _sum(node: Node, a: Value, b: Value) -> Value:
    if isinstance(a, Constant) and isinstance(b, Constant):
        return constant(a.data + b.data)
    return node.emit("add", a, b)


# --- cells --------------------------------------------------------------------------------------


def _product(node: Node, a: Value, b: Value) -> Value:
    return node.emit("matmul", a, b)


def _rnn_step(
    node: Node, way: Direction, inputs: Value, step: Value, state: Sequence[Value]
) -> Sequence[Value]:
    product = _product(node, state[0], way.recurrent)
    return (node.emit_op(RnnCell(**way.cell), inputs, product, state[0], step, way.lengths),)


def _gru_step(
    node: Node, way: Direction, inputs: Value, step: Value, state: Sequence[Value]
) -> Sequence[Value]:
    (h,) = state
    cell = GruCell(**way.cell)
    if way.state_bias is not None:
        product = node.emit("add", _product(node, h, way.recurrent), way.state_bias)
        return (node.emit_op(cell, inputs, product, h, step, way.lengths),)
    _, size = node.shape(h)
    gates = _product(node, h, _columns(node, way.recurrent, as_expr(0), size * 2))
    reset = node.emit_op(GruReset(**way.cell), inputs, gates, h, step, way.lengths)
    candidate = _product(node, reset, _columns(node, way.recurrent, size * 2, size * 3))
    return (node.emit_op(cell, inputs, gates, h, step, way.lengths, candidate),)


def _columns(node: Node, weights: Value, begin: Expr, end: Expr) -> Value:
    if isinstance(weights, Constant) and isinstance(begin, IntImm) and isinstance(end, IntImm):
        return constant(np.ascontiguousarray(weights.data[:, begin.value : end.value]))
    return _part(node, weights, 1, begin, end)


def _lstm_step(
    node: Node, way: Direction, inputs: Value, step: Value, state: Sequence[Value]
) -> Sequence[Value]:
    h, c = state
    forget = node.attribute("input_forget", 0) == 1
    cell = LstmCell(**way.cell, input_forget=forget)
    peephole = () if way.peephole is None else (way.peephole,)
    product = _product(node, h, way.recurrent)
    both = node.emit_op(cell, inputs, product, h, c, step, way.lengths, *peephole)
    return [node.builder.emit(tuple_item(both, number)) for number in range(2)]


@dataclass(frozen=True)
class Kind:
    """An operator: its gates, its default activations, the first operands of its states (initial
    values), and its step."""

    gates: int
    functions: tuple[str, ...]
    states: tuple[int, ...]
    step: Step


RNN = Kind(1, ("tanh",), (5,), _rnn_step)
GRU = Kind(3, ("sigmoid", "tanh"), (5,), _gru_step)
LSTM = Kind(4, ("sigmoid", "tanh", "tanh"), (5, 6), _lstm_step)


# --- the node -----------------------------------------------------------------------------------


def _convert(kind: Kind) -> Callable[[Node], Result]:
    return lambda node: _recurrent(node, kind)


def _recurrent(node: Node, kind: Kind) -> Result:
    """Y, Y_h and for an LSTM Y_c."""
    batch_first = node.attribute("layout", 0) == 1
    x = node.value(0)
    if batch_first:
        x = node.emit("permute_dims", x, axes=(1, 0, 2))
    shape = node.shape(x)
    if len(shape) != 3:
        raise node.error(f"the input has {len(shape)} dimensions, not 3")
    steps, batch, _ = map(as_dimension, shape)
    ways = _directions(node, kind)
    hidden = as_dimension(node.shape(ways[0].recurrent)[0])
    stated = node.attribute("hidden_size", None)
    if stated is not None and as_int(hidden) not in (None, stated):
        raise node.error(f"hidden_size is {stated}, but its weights are for {hidden!r}")
    dtype = node.dtype(x)
    zero = constant(0, dtype)
    y: Value | None = None
    if node.wants(0):
        sizes = (steps, IntImm(len(ways)), batch, hidden)
        order = (2, 0, 1, 3) if batch_first else (0, 1, 2, 3)
        y = node.emit("full", node.shape_of([sizes[k] for k in order]), zero, dtype=dtype)
    finals: list[list[Value]] = []
    for way in ways:
        state = [_initial(node, operand, way, batch, hidden, zero) for operand in kind.states]
        inputs = _projected(node, x, way, steps, batch)
        store = None if y is None else _store(node, way, hidden, len(ways), batch_first=batch_first)
        *state, last = _run(node, kind, way, inputs, steps, state, y, store)
        y = None if y is None else last
        finals.append(state if y is not None else [*state, last])
    stacked = [_stacked(node, values, batch_first) for values in zip(*finals, strict=True)]
    return [zero if y is None else y, *stacked]


def _run(
    node: Node,
    kind: Kind,
    way: Direction,
    inputs: Value,
    steps: Expr,
    state: Sequence[Value],
    y: Value | None,
    store: Callable[[Value, Value, Value], Value] | None,
) -> Sequence[Value]:
    """The loop of one direction: the final state, and the sequence of states if it is asked for."""

    def body(step: Value, *now: Value) -> list[Value]:
        following = list(kind.step(node, way, inputs, step, now[: len(state)]))
        count = step.type
        assert isinstance(count, PrimType)
        assert count.value is not None
        rest = [] if store is None else [store(now[-1], following[0], step)]
        return [prim_value(count.value + 1), *following, *rest]

    def goes_on(step: Value, *_: Value) -> Value:
        count = step.type
        assert isinstance(count, PrimType)
        assert count.value is not None
        return prim_value(LT(count.value, steps))

    first = [prim_value(IntImm(0)), *state, *([] if y is None else [y])]
    name = node.op_type.lower()
    return while_loop(node.builder, goes_on, body, first, name=name, span=(node.layer,))[1:]


def _store(
    node: Node, way: Direction, hidden: Expr, directions: int, *, batch_first: bool
) -> Callable[[Value, Value, Value], Value]:
    """What writes a state into the sequence of states."""
    has_lengths = node.has(4)
    program = StepStore(
        node.dtype(way.recurrent),
        hidden,
        directions,
        way.number,
        node.dtype(way.lengths) if has_lengths else None,
        bool(way.cell["reverse"]),
        batch_first,
    ).program()
    callee = node.builder.add_function(program, "store_step")

    def store(y: Value, h: Value, step: Value) -> Value:
        kind = node.type_of(y)
        count = step.type
        assert isinstance(count, PrimType)
        assert count.value is not None
        given = [y, h, *([way.lengths] if has_lengths else [])]
        call = call_tir_inplace(callee, given, (0,), kind, [count.value], (node.layer,))
        return node.builder.emit(call)

    return store


def _stacked(node: Node, values: Sequence[Value], batch_first: bool) -> Value:
    """The final states of the directions as one tensor."""
    axis = 1 if batch_first else 0
    rows = [node.emit("expand_dims", value, axis=axis) for value in values]
    return rows[0] if len(rows) == 1 else node.emit("concat", make_tuple(*rows), axis=axis)


def _projected(node: Node, x: Value, way: Direction, steps: Expr, batch: Expr) -> Value:
    """The products of the inputs of all steps with their weights, and the biases."""
    inputs, width = node.shape(way.weights)
    flat = node.emit("reshape", x, node.shape_of([steps * batch, inputs]))
    product = _product(node, flat, way.weights)
    if way.bias is not None:
        product = node.emit("add", product, way.bias)
    return node.emit("reshape", product, node.shape_of([steps, batch, width]))


def _initial(
    node: Node, operand: int, way: Direction, batch: Expr, hidden: Expr, zero: Value
) -> Value:
    if not node.has(operand):
        return node.emit("full", node.shape_of([batch, hidden]), zero, dtype=node.dtype(zero))
    value = node.value(operand)
    if node.attribute("layout", 0) == 1:
        value = node.emit("permute_dims", value, axes=(1, 0, 2))
    return _row(node, value, way.number)


def _directions(node: Node, kind: Kind) -> list[Direction]:
    direction = _text(node.attribute("direction", "forward"))
    reverses = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    if direction not in reverses:
        raise node.error(f"direction is {direction!r}", "forward, reverse or bidirectional")
    functions, parameters = _activations(node, kind, len(reverses[direction]))
    found: list[Direction] = []
    for number, reverse in enumerate(reverses[direction]):
        mine = slice(number * len(kind.functions), (number + 1) * len(kind.functions))
        cell = {
            "functions": functions[mine],
            "parameters": parameters[mine],
            "clip": node.attribute("clip", None),
            "reverse": reverse,
        }
        recurrent = _transposed(node, _row(node, node.value(2), number))
        bias, state_bias = _biases(node, kind, number)
        found.append(
            Direction(
                number,
                _transposed(node, _row(node, node.value(1), number)),
                recurrent,
                bias,
                state_bias,
                _row(node, node.value(7), number) if node.has(7) else None,
                node.value(4) if node.has(4) else make_tuple(),
                cell,
            )
        )
    return found


def _biases(node: Node, kind: Kind, number: int) -> tuple[Value | None, Value | None]:
    """The bias of the inputs' product, and that of the state's where it has one of its own."""
    after = kind is GRU and node.attribute("linear_before_reset", 0) != 0
    if not node.has(3):
        return None, (_no_bias(node) if after else None)
    both = _row(node, node.value(3), number)
    (size,) = node.shape(both)
    half = node.simplify(as_dimension(size) // 2)
    mine, states = _half(node, both, IntImm(0), half), _half(node, both, half, size)
    if not after:
        return _sum(node, mine, states), None
    # The last gate's is added to the state's product, which is reset as a whole.
    gates = node.simplify(half // 3 * 2)
    zeros = _mask(node, states, gates)
    return _sum(node, mine, zeros[0]), zeros[1]


def _half(node: Node, value: Value, begin: Expr, end: Expr) -> Value:
    if isinstance(value, Constant) and isinstance(begin, IntImm) and isinstance(end, IntImm):
        return constant(value.data[begin.value : end.value])
    return _part(node, value, 0, begin, end)


def _mask(node: Node, value: Value, place: Expr) -> tuple[Value, Value]:
    """A vector with zeros from `place` on, and one with zeros before it."""
    (size,) = node.shape(value)
    first, last = _half(node, value, IntImm(0), place), _half(node, value, place, size)
    zero = constant(0, node.dtype(value))

    def zeros(like: Value) -> Value:
        return node.emit("full", node.shape_of(node.shape(like)), zero, dtype=node.dtype(value))

    return (
        node.emit("concat", make_tuple(first, zeros(last)), axis=0),
        node.emit("concat", make_tuple(zeros(first), last), axis=0),
    )


def _no_bias(node: Node) -> Value:
    return constant(0, node.dtype(node.value(0)))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _activations(
    node: Node, kind: Kind, directions: int
) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    """The names of the activation functions of all directions, and their parameters: the lists of
    alphas and betas are used up by the functions that have such a parameter."""
    given: Sequence[str | bytes] = node.attribute("activations", kind.functions * directions)
    names = tuple(_text(item).lower() for item in given)
    unknown = [name for name in names if name not in ACTIVATIONS]
    if unknown or len(names) != len(kind.functions) * directions:
        raise node.error(f"activations are {', '.join(names)}", f"of {', '.join(ACTIVATIONS)}")
    lists = [iter(node.attribute(f"activation_{what}", ())) for what in ("alpha", "beta")]
    parameters = tuple(
        tuple(float(next(lists[k], default)) for k, default in enumerate(ACTIVATIONS[name][1]))
        for name in names
    )
    return names, parameters


RECURRENT: Mapping[str, tuple[Converter, ...]] = {
    "GRU": (Converter(_convert(GRU)),),
    "LSTM": (Converter(_convert(LSTM)),),
    "RNN": (Converter(_convert(RNN)),),
}
