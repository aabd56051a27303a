"""Elements read and written by position: gathers, scatters, scans, triangles, repetition.

Gather, Slice and Split, which also compute shapes, are in `shape`; what has a size that depends on
data is in `search`.
"""

from __future__ import annotations

import onnx

from transect.frontend.onnx.data_shapes import (
    bind_size,
    check_condition,
    read_sizes,
    reshape_to,
)
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import Elements, Operand, as_dimension
from transect.ir.dtype import INT64, as_dtype
from transect.ir.expr import EQ, Expr, IntImm, as_int, logical_and, select
from transect.relax.expr import Value, constant, prim_value, shape_expr

MOST_ELEMENTS = 64
"""Ranges of constants up to this length are shapes, or parts of one."""


def on_axis(name: str, operands: int, axis: int = 0) -> tuple[Converter, ...]:
    """An entry that is one graph operator of `operands` tensors along an axis."""

    def convert(node: Node) -> Result:
        values = [node.value(i) for i in range(operands)]
        along = node.axis(node.attribute("axis", axis), len(node.shape(values[0])))
        return node.emit(name, *values, axis=along)

    return one(convert)


def gather_nd(node: Node) -> Result:
    """Slices at the positions in the last axis of the indices."""
    return node.emit(
        "gather_nd", node.value(0), node.value(1), batch_dims=node.attribute("batch_dims", 0)
    )


def scatter_elements(node: Node) -> Result:
    """A tensor with elements along one axis replaced, or joined with new ones."""
    values = [node.value(i) for i in range(3)]
    axis = node.axis(node.attribute("axis", 0), len(node.shape(values[0])))
    return node.emit(
        "scatter_elements", *values, axis=axis, reduction=node.attribute("reduction", "none")
    )


def scatter_nd(node: Node) -> Result:
    """A tensor with slices replaced, or joined with new ones."""
    values = [node.value(i) for i in range(3)]
    return node.emit("scatter_nd", *values, reduction=node.attribute("reduction", "none"))


def tensor_scatter(node: Node) -> Result:
    """A cache with an update written at a position of each item of the batch."""
    past, update = node.value(0), node.value(1)
    axis = node.axis(node.attribute("axis", -2), len(node.shape(past)))
    if node.has(2):
        places = node.value(2)
    else:
        places = node.emit("zeros", node.shape_of(node.shape(past)[:1]), dtype=INT64)
    circular = node.attribute("mode", "linear") == "circular"
    return node.emit("tensor_scatter", past, update, places, axis=axis, circular=circular)


def one_hot(node: Node) -> Result:
    """A new axis with one value at the index and another elsewhere."""
    indices, values = node.value(0), node.value(2)
    if not node.dtype(indices).is_integral:
        indices = node.emit("astype", indices, dtype=INT64)
    off, on = (node.emit("take", values, constant(i, INT64), axis=0) for i in range(2))
    depth = as_dimension(_depth(node))
    axis = node.attribute("axis", -1)
    return node.emit("one_hot", indices, on, off, shape_expr(depth), axis=axis)


def _depth(node: Node) -> Expr:
    known = node.constant(1)
    if known is not None:
        return IntImm(int(known.reshape(())))
    if node.dtype(node.value(1)).is_integral:
        return node.sizes(1, "depth").values[0]
    whole = node.emit("astype", node.value(1), dtype=INT64)
    return read_sizes(node, whole, "depth").values[0]


def range_(node: Node) -> Result:
    """start, start + delta, … before the limit."""
    known = [node.operand(i).elements for i in range(3)]
    items = [item for item in known if item is not None]
    if len(items) == 3:
        start, limit, delta = (as_dimension(item.values[0]) for item in items)
        numbers = [as_int(item) for item in (start, limit, delta)]
        dtype = items[0].dtype
        if all(number is not None for number in numbers) and numbers[2] != 0:
            values = range(*(int(number or 0) for number in numbers))
            if len(values) <= MOST_ELEMENTS:
                return Operand(None, Elements(tuple(map(IntImm, values)), 1, dtype))
        if numbers[2]:
            limits = [prim_value(node.simplify(item)) for item in (start, limit, delta)]
            return node.emit("arange", *limits, dtype=dtype)
    values = [node.value(i) for i in range(3)]
    (count,) = read_sizes(node, node.emit("arange_size", *values), "range").values
    return node.emit("arange_tensor", values[0], values[2], shape_expr(count))


def tile(node: Node) -> Result:
    """A tensor repeated along each axis."""
    value = node.value(0)
    dims = node.shape(value)
    repeats = [as_dimension(item) for item in node.sizes(1, "repeats").values]
    if len(repeats) != len(dims):
        raise node.error(f"{len(repeats)} repeats of a tensor with {len(dims)} dimensions")
    return node.emit("tile", value, node.shape_of(repeats))


def scan(name: str) -> tuple[Converter, ...]:
    """A running sum or product along an axis, which may be known only at run time."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        dims = node.shape(value)
        fields = {
            "exclusive": node.attribute("exclusive", 0) == 1,
            "reverse": node.attribute("reverse", 0) == 1,
        }
        given = node.elements(1, "axis").values[0]
        axis = as_int(given)
        if axis is not None:
            return node.emit(name, value, axis=node.axis(axis, len(dims)), **fields)
        folded = node.emit(name, around_axis(node, value, given), axis=1, **fields)
        return reshape_to(node, folded, dims)

    return one(convert)


def around_axis(node: Node, value: Value, axis: Expr) -> Value:
    """A tensor as (before, along, behind) an axis that only a run knows."""
    dims = node.shape(value)
    rank = len(dims)
    place = node.simplify(select(axis < 0, axis + rank, axis))
    check_condition(node, logical_and(place >= 0, place < rank), "axis_is_in_range")
    before, along, behind = (IntImm(1), IntImm(1), IntImm(1))
    for number, dim in enumerate(dims):
        before = before * select(place > number, dim, IntImm(1))
        along = along * select(EQ(place, IntImm(number)), dim, IntImm(1))
        behind = behind * select(place < number, dim, IntImm(1))
    sizes = [bind_size(node, item, "axis") for item in (before, along, behind)]
    return reshape_to(node, value, sizes)


def trilu(node: Node) -> Result:
    """One side of a diagonal of matrices."""
    name = "triu" if node.attribute("upper", 1) else "tril"
    value = node.value(0)
    if not node.has(1):
        return node.emit(name, value)
    return node.emit(name, value, prim_value(node.elements(1, "diagonal").values[0]))


def eye_like(node: Node) -> Result:
    """Ones on a diagonal of a matrix of another's shape."""
    value = node.value(0)
    code = node.attribute("dtype", 0)
    dtype = as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code)) if code else node.dtype(value)
    return node.emit("eye_like", value, prim_value(IntImm(node.attribute("k", 0))), dtype=dtype)


def reverse_sequence(node: Node) -> Result:
    """The first elements of each sequence in reverse order."""
    return node.emit(
        "reverse_sequence",
        node.value(0),
        node.value(1),
        seq_axis=node.attribute("time_axis", 0),
        batch_axis=node.attribute("batch_axis", 1),
    )


def hardmax(node: Node) -> Result:
    """1 at the first of the greatest elements along an axis, 0 elsewhere; before opset 13 along
    all axes from it on together."""
    value = node.value(0)
    dims = node.shape(value)
    axis = node.axis(node.attribute("axis", -1 if node.opset >= 13 else 1), len(dims))
    flat = value
    if node.opset < 13 and axis < len(dims) - 1:
        rest: Expr = IntImm(1)
        for dim in dims[axis:]:
            rest = rest * dim
        flat = node.emit("reshape", value, node.shape_of([*dims[:axis], rest]))
    depth = node.shape(flat)[axis]
    best = node.emit("argmax", flat, axis=axis)
    on, off = node.scalar(1, value), node.scalar(0, value)
    result = node.emit("one_hot", best, on, off, node.shape_of([depth]), axis=axis)
    return result if flat is value else node.emit("reshape", result, node.shape_of(dims))


INDEX: dict[str, tuple[Converter, ...]] = {
    "CumProd": scan("cumprod"),
    "CumSum": scan("cumsum"),
    "EyeLike": one(eye_like),
    "GatherElements": on_axis("gather_elements", 2),
    "GatherND": one(gather_nd),
    "Hardmax": one(hardmax),
    "OneHot": one(one_hot),
    "Range": one(range_),
    "ReverseSequence": one(reverse_sequence),
    "Scatter": one(scatter_elements),
    "ScatterElements": one(scatter_elements),
    "ScatterND": one(scatter_nd),
    "TensorScatter": one(tensor_scatter),
    "Tile": one(tile),
    "Trilu": one(trilu),
}
"""Converters of operators on positions."""
