"""Control flow: If, Loop, Scan. Their subgraphs see the values around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from transect.frontend.onnx.data_shapes import read_flag
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.iterate import Step, iterate
from transect.frontend.onnx.values import Elements, Operand, as_dimension
from transect.ir.dtype import BOOL
from transect.ir.expr import Expr, as_int, not_equal
from transect.ir.traverse import free_vars
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.expr import Value, make_tuple, prim_value, tuple_item
from transect.relax.shapes import prove_equal
from transect.support.errors import TransectError

# --- If ---------------------------------------------------------------------------------------


def if_(node: Node) -> Result:
    """One of two subgraphs; at once the right one where the condition is known."""
    graphs = (_graph(node, "then_branch"), _graph(node, "else_branch"))
    known = node.constant(0)
    if known is not None:
        if known.size != 1:
            raise node.error(f"the condition has {known.size} elements, not one")
        chosen = graphs[0] if known.reshape(-1)[0] else graphs[1]
        return node.run_graph(chosen, node.scope.inline())
    elements = node.operand(0).elements
    condition = node.value(0) if elements is None else prim_value(not_equal(elements.values[0], 0))
    kinds: list[list[Type]] = []

    def branch(graph: onnx.GraphProto) -> Callable[[], Value]:
        def run() -> Value:
            outputs = node.run_graph(graph, node.scope.branch())
            values = [node.tensor(output) for output in outputs]
            kinds.append([value.type for value in values])
            return make_tuple(*values)

        return run

    try:
        result = node.builder.emit_if(
            condition, branch(graphs[0]), branch(graphs[1]), span=(node.layer,)
        )
    except TransectError as error:
        raise error.at((node.layer,)) from None
    first, second = kinds
    if len(first) != len(second):
        raise node.error(f"the branches give {len(first)} and {len(second)} values")
    items = [tuple_item(result, index) for index in range(len(first))]
    return [_joined(node, *row) for row in zip(items, first, second, strict=True)]


def _joined(node: Node, value: Value, first: Type, second: Type) -> Value:
    """The result of a branch, with variables for the dimensions in which the branches differ."""
    item = node.builder.emit(value, span=(node.layer,))
    if not isinstance(first, TensorType) or not isinstance(second, TensorType):
        return item
    if first.dtype is not second.dtype:
        raise node.error(f"the branches give tensors of {first.dtype} and {second.dtype}")
    if first.ndim != second.ndim:
        raise node.error(
            f"the branches give tensors with {first.ndim} and {second.ndim} dimensions",
            "the number of dimensions of every tensor must be known",
        )
    if first.shape is None or second.shape is None or node.type_of(item).shape is not None:
        return item
    known = node.builder.symbols
    dims: list[Expr] = []
    for a, b in zip(first.shape, second.shape, strict=True):
        same = prove_equal(a, b) and known.issuperset(free_vars((a,)))
        dims.append(a if same else node.symbols.size("branch"))
    kind = tensor_type(tuple(dims), first.dtype)
    return node.builder.match_cast(item, kind, "branch", (node.layer,))


def _graph(node: Node, name: str) -> onnx.GraphProto:
    graph: onnx.GraphProto | None = node.attribute(name, None)
    if graph is None:
        raise node.error(f"the attribute {name} is missing", "the model is not valid ONNX")
    return graph


# --- Loop -------------------------------------------------------------------------------------


def loop(node: Node) -> Result:
    """A subgraph again and again, so many times or while a condition holds; what it gives besides
    its state is stacked."""
    body = _graph(node, "body")
    count = None if not node.has(0) else as_dimension(node.elements(0, "trip count").values[0])
    going = None
    if node.has(1):
        known = node.operand(1).elements
        going = read_flag(node, node.value(1)) if known is None else known.values[0]
    state = [node.value(index) for index in range(2, len(node.operands))]
    if len(body.input) != len(state) + 2 or len(body.output) < len(state) + 1:
        raise node.error(
            f"the body takes {len(body.input)} values and gives {len(body.output)} for a state of "
            f"{len(state)}",
            "the model is not valid ONNX",
        )

    def step(index: Expr, flag: Expr, values: Sequence[Value]) -> Step:
        scope = node.scope.branch()
        scope.define(body.input[0].name, Operand(None, Elements((index,), 0)))
        scope.define(body.input[1].name, Operand(None, Elements((flag,), 0, BOOL)))
        for item, value in zip(body.input[2:], values, strict=True):
            scope.define(item.name, Operand(value))
        outputs = node.run_graph(body, scope)
        onwards = outputs[0]
        following = (
            read_flag(node, node.tensor(onwards))
            if onwards.elements is None
            else as_dimension(onwards.elements.values[0])
        )
        tensors = [node.tensor(output) for output in outputs[1:]]
        return Step(following, tensors[: len(state)], tensors[len(state) :])

    final, stacks = iterate(node, count, going, state, step)
    return [*final, *stacks]


# --- Scan -------------------------------------------------------------------------------------


def scan(node: Node) -> Result:
    """A subgraph for each element of sequences, along any axis, in either direction."""
    body = _graph(node, "body")
    number = int(node.attribute("num_scan_inputs", 0))
    split = len(node.operands) - number
    values = [node.value(index) for index in range(len(node.operands))]
    if len(body.input) != len(values) or len(body.output) < split or number < 1:
        raise node.error(
            f"the body takes {len(body.input)} values, the node {len(values)}",
            "the model is not valid ONNX",
        )
    outputs = len(body.output) - split
    axes = _per_item(node, "scan_input_axes", number)
    directions = _per_item(node, "scan_input_directions", number)
    result_axes = _per_item(node, "scan_output_axes", outputs)
    result_directions = _per_item(node, "scan_output_directions", outputs)
    final, stacks = _scan(
        node, body, values[:split], values[split:], axes, directions, result_directions
    )
    moved = [_to_axis(node, stack, axis) for stack, axis in zip(stacks, result_axes, strict=True)]
    return [*final, *moved]


def scan_batches(node: Node) -> Result:
    """As `scan` for each item of a batch, the first dimension of all operands: opset 8."""
    body = _graph(node, "body")
    if node.has(0):
        raise node.error("sequence_lens is not covered", "convert the model to opset 9 or newer")
    number = int(node.attribute("num_scan_inputs", 0))
    values = [node.value(index) for index in range(1, len(node.operands))]
    split = len(values) - number
    if number < 1 or len(body.input) != len(values) or len(body.output) < split:
        raise node.error(
            f"the body takes {len(body.input)} values, the node {len(values)}",
            "the model is not valid ONNX",
        )
    outputs = len(body.output) - split
    directions = _per_item(node, "directions", number)

    def step(index: Expr, flag: Expr, state: Sequence[Value]) -> Step:
        items = [_element(node, value, 0, index) for value in values]
        final, stacks = _scan(
            node, body, items[:split], items[split:], [0] * number, directions, [0] * outputs
        )
        return Step(flag, [*state], [*final, *stacks])

    batch = as_dimension(node.shape(values[0])[0])
    _, stacks = iterate(node, batch, None, [], step)
    return stacks


def _scan(
    node: Node,
    body: onnx.GraphProto,
    state: Sequence[Value],
    sequences: Sequence[Value],
    axes: Sequence[int],
    directions: Sequence[int],
    result_directions: Sequence[int],
) -> tuple[list[Value], list[Value]]:
    """The final state and what was given besides it, stacked along axis 0."""
    places = [
        node.axis(axis, len(node.shape(value))) for axis, value in zip(axes, sequences, strict=True)
    ]
    lengths = [
        as_dimension(node.shape(value)[axis]) for axis, value in zip(places, sequences, strict=True)
    ]
    count = next((item for item in lengths if as_int(item) is not None), lengths[0])
    sequences = [
        _of_length(node, value, axis, count) for value, axis in zip(sequences, places, strict=True)
    ]

    def step(index: Expr, flag: Expr, values: Sequence[Value]) -> Step:
        scope = node.scope.branch()
        items = [
            _element(node, value, axis, count - 1 - index if backwards else index)
            for value, axis, backwards in zip(sequences, places, directions, strict=True)
        ]
        for item, value in zip(body.input, [*values, *items], strict=True):
            scope.define(item.name, Operand(value))
        tensors = [node.tensor(output) for output in node.run_graph(body, scope)]
        return Step(flag, tensors[: len(state)], tensors[len(state) :])

    return iterate(node, count, None, state, step, [item == 1 for item in result_directions])


def _of_length(node: Node, value: Value, axis: int, count: Expr) -> Value:
    """A sequence that is checked to have `count` elements when the model runs, unless it must."""
    dims = node.shape(value)
    if prove_equal(dims[axis], count):
        return value
    if as_int(dims[axis]) is not None and as_int(count) is not None:
        raise node.error(f"sequences of lengths {dims[axis]!r} and {count!r}")
    kind = tensor_type((*dims[:axis], count, *dims[axis + 1 :]), node.dtype(value))
    return node.builder.match_cast(value, kind, "sequence", (node.layer,))


def _element(node: Node, value: Value, axis: int, index: Expr) -> Value:
    """One element of a sequence along `axis`."""
    return node.emit("element", value, prim_value(node.simplify(index)), axis=axis)


def _to_axis(node: Node, stack: Value, axis: int) -> Value:
    """A stack with its first dimension moved to `axis`."""
    rank = len(node.shape(stack))
    place = node.axis(axis, rank)
    if place == 0:
        return stack
    order = [*range(1, place + 1), 0, *range(place + 1, rank)]
    return node.emit("permute_dims", stack, axes=tuple(order))


def _per_item(node: Node, name: str, count: int) -> list[int]:
    found: list[int] = node.attribute(name, [0] * count)
    if len(found) != count:
        raise node.error(f"{name} has {len(found)} items, not {count}")
    return found


CONTROL: dict[str, tuple[Converter, ...]] = {
    "If": one(if_),
    "Loop": one(loop),
    "Scan": (Converter(scan_batches, 8), Converter(scan, 9)),
}
"""Converters of control flow."""
