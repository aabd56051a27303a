"""Operators that look for elements: the greatest ones, those that are not zero, distinct ones.

Their results often have a size that depends on data: one kernel counts, the count becomes a
variable of the shape, and another kernel fills.
"""

from __future__ import annotations

import numpy as np

from transect.frontend.onnx.data_shapes import read_sizes
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import as_dimension
from transect.ir.dtype import INT64
from transect.ir.expr import Expr, IntImm
from transect.relax.expr import Value, constant, shape_expr, tuple_item


def top_k(node: Node) -> Result:
    """The k greatest or least elements along an axis, and their positions. They come sorted, also
    where the model does not ask for it."""
    value = node.value(0)
    axis = node.axis(node.attribute("axis", -1), len(node.shape(value)))
    if node.has(1):
        count = as_dimension(node.sizes(1, "k").values[0])
    else:
        count = IntImm(node.attribute("k", 1))
    largest = node.attribute("largest", 1) == 1
    found = node.emit("topk", value, shape_expr(count), axis=axis, largest=largest, dtype=INT64)
    return [tuple_item(found, index) for index in range(2)]


def _count_of(node: Node, counts: Value, what: str) -> Expr:
    """The sum of an int64 tensor as a variable of shapes."""
    total = counts
    if len(node.shape(counts)) != 1:
        total = node.emit("reshape", node.emit("sum", counts), shape_expr(1))
    return read_sizes(node, total, what).values[0]


def _nonzero(node: Node, value: Value) -> Value:
    """The positions of the elements that are not zero, as (rank, number)."""
    count = _count_of(node, node.emit("count_nonzero", value), "nonzero")
    return node.emit("nonzero_positions", value, shape_expr(count))


def nonzero(node: Node) -> Result:
    """The positions of the elements that are not zero, in row-major order."""
    return _nonzero(node, node.value(0))


def compress(node: Node) -> Result:
    """The slices along an axis (of the flattened tensor by default) that a condition selects."""
    value = node.value(0)
    axis: int | None = node.attribute("axis", None)
    if axis is not None:
        axis = node.axis(axis, len(node.shape(value)))
    found = _nonzero(node, node.value(1))
    (_, count) = node.shape(found)
    places = node.emit("reshape", found, shape_expr(count))
    return node.emit("take", value, places, axis=axis)


def unique(node: Node) -> Result:
    """The distinct elements, or slices along an axis, with what is asked about them."""
    value = node.value(0)
    axis: int | None = node.attribute("axis", None)
    if axis is not None:
        axis = node.axis(axis, len(node.shape(value)))
    in_order = node.attribute("sorted", 1) == 1
    groups = node.emit("unique_groups", value, axis=axis, sorted=in_order)
    first, inverse, sizes, number = (tuple_item(groups, k) for k in range(4))
    count = _count_of(node, node.builder.emit(number), "unique")

    def shortened(vector: Value) -> Value:
        zero = shape_expr(0)
        return node.emit(
            "strided_slice", vector, zero, zero, shape_expr(count), assume_inbound=True
        )

    places = shortened(first)
    return [node.emit("take", value, places, axis=axis), places, inverse, shortened(sizes)]


def non_max_suppression(node: Node) -> Result:
    """The boxes that no better box of their class overlaps, as (batch, class, box)."""
    boxes, scores = node.value(0), node.value(1)
    none = {
        2: np.zeros(1, np.int64),
        3: np.zeros(1, np.float32),
        4: np.full(1, -np.inf, np.float32),
    }
    limits = [
        node.value(index) if node.has(index) else constant(default)
        for index, default in none.items()
    ]
    center = node.attribute("center_point_box", 0) == 1
    selected = node.emit("select_boxes", boxes, scores, *limits, center=center)
    kept, number = (node.builder.emit(tuple_item(selected, k)) for k in range(2))
    count = _count_of(node, number, "boxes")
    return node.emit("list_boxes", kept, number, shape_expr(count))


SEARCH: dict[str, tuple[Converter, ...]] = {
    "Compress": one(compress),
    "NonMaxSuppression": one(non_max_suppression),
    "NonZero": one(nonzero),
    "TopK": one(top_k),
    "Unique": one(unique),
}
"""Converters of operators that look for elements."""
