"""Shapes and layout: what asks for a shape, computes one, or moves elements by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import Elements, Operand, as_dimension
from transect.ir.dtype import INT64, as_dtype
from transect.ir.expr import Expr, IntImm, as_int
from transect.relax.expr import constant, make_tuple, shape_expr, tuple_item


def product(dims: Sequence[Expr]) -> Expr:
    """The number of elements of a shape."""
    return reduce(lambda a, b: a * b, dims, IntImm(1))


def shape(node: Node) -> Result:
    """The dimensions of a tensor, as a shape."""
    dims = node.shape(node.value(0))
    rank = len(dims)
    start, end = (node.attribute(name, default) for name, default in (("start", 0), ("end", rank)))
    return Operand(None, Elements(tuple(map(as_dimension, dims[start:end])), 1))


def size(node: Node) -> Result:
    """The number of elements of a tensor."""
    return Operand(None, Elements((node.simplify(product(node.shape(node.value(0)))),), 0))


def reshape(node: Node) -> Result:
    """The same elements in another shape: 0 keeps a dimension, -1 is what is left."""
    target = node.elements(1, "shape") if node.has(1) else None
    if target is None:
        raise node.error("the shape is missing", "convert the model to opset 5 or newer")
    elements = node.operand(0).elements
    if elements is not None and len(target.values) <= 1 and node.operand(0).value is None:
        return Operand(None, Elements(elements.values, len(target.values), elements.dtype))
    value = node.value(0)
    source = node.shape(value)
    keep_zero = node.attribute("allowzero", 0) == 1
    dims: list[Expr] = []
    unknown: int | None = None
    for index, dim in enumerate(target.values):
        number = as_int(dim)
        if number == -1:
            unknown = index
            dims.append(IntImm(1))
        elif number == 0 and not keep_zero:
            if index >= len(source):
                raise node.error(f"dimension {index} is kept, but the tensor has {len(source)}")
            dims.append(source[index])
        else:
            dims.append(as_dimension(dim))
    if unknown is not None:
        dims[unknown] = _quotient(node, source, [d for i, d in enumerate(dims) if i != unknown])
    return node.emit("reshape", value, node.shape_of(dims))


def _quotient(node: Node, source: Sequence[Expr], others: list[Expr]) -> Expr:
    """The dimension that -1 stands for. Equal factors cancel, so that it is known even where the
    batch is empty."""
    left = [node.simplify(dim) for dim in source]
    right = [node.simplify(dim) for dim in others]
    for dim in list(right):
        if dim in left and as_int(dim) != 0:
            left.remove(dim)
            right.remove(dim)
    divisor = node.simplify(product(right))
    if as_int(divisor) == 0:
        raise node.error("-1 in a shape with no elements has no value", "give the dimension itself")
    return node.simplify(product(left) // divisor)


def flatten(node: Node) -> Result:
    """Two dimensions: those before `axis`, and the rest."""
    value = node.value(0)
    dims = node.shape(value)
    axis = node.attribute("axis", 1)
    cut = axis + len(dims) if axis < 0 else axis
    return node.emit("reshape", value, node.shape_of([product(dims[:cut]), product(dims[cut:])]))


def squeeze(node: Node) -> Result:
    """Without dimensions of size one: those of `axes`, or all of them."""
    axes = _axes(node)
    elements = node.operand(0).elements
    if elements is not None and node.operand(0).value is None:
        return Operand(None, Elements(elements.values, 0, elements.dtype))
    value = node.value(0)
    dims = node.shape(value)
    if axes is None:
        axes = [index for index, dim in enumerate(dims) if as_int(dim) == 1]
    return node.emit("squeeze", value, axis=tuple(node.axis(axis, len(dims)) for axis in axes))


def unsqueeze(node: Node) -> Result:
    """With dimensions of size one inserted at `axes` of the result."""
    axes = _axes(node) or []
    elements = node.operand(0).elements
    if elements is not None and elements.rank == 0 and axes in ([0], [-1]):
        return Operand(None, Elements(elements.values, 1, elements.dtype))
    value = node.value(0)
    rank = len(node.shape(value)) + len(axes)
    return node.emit("expand_dims", value, axis=tuple(node.axis(axis, rank) for axis in axes))


def _axes(node: Node) -> list[int] | None:
    """The axes: an operand from opset 13 on, an attribute before."""
    if node.has(1):
        return node.integers(1, "axes")
    axes: list[int] | None = node.attribute("axes", None)
    return axes


def transpose(node: Node) -> Result:
    """Dimensions in another order, reversed by default."""
    value = node.value(0)
    rank = len(node.shape(value))
    order = node.attribute("perm", list(range(rank))[::-1])
    return node.emit("permute_dims", value, axes=tuple(order))


def concat(node: Node) -> Result:
    """Tensors joined along `axis`; of shapes, a shape."""
    known = [node.operand(i).elements for i in range(len(node.operands))]
    items = [item for item in known if item is not None and item.rank == 1]
    if len(items) == len(node.operands):
        return Operand(
            None, Elements(tuple(v for item in items for v in item.values), 1, items[0].dtype)
        )
    values = [node.value(i) for i in range(len(node.operands))]
    axis = node.axis(node.attribute("axis", 0), len(node.shape(values[0])))
    return values[0] if len(values) == 1 else node.emit("concat", make_tuple(*values), axis=axis)


def gather(node: Node) -> Result:
    """Slices of a tensor by index; elements of a shape by constant index."""
    elements = node.operand(0).elements
    index = node.constant(1)
    if elements is not None and elements.rank == 1 and index is not None and index.ndim <= 1:
        count = len(elements.values)
        picked = [int(i) for i in index.reshape(-1)]
        if any(not -count <= i < count for i in picked):
            raise node.error(f"index {picked} into a shape of {count} dimensions")
        return Operand(
            None, Elements(tuple(elements.values[i] for i in picked), index.ndim, elements.dtype)
        )
    value = node.value(0)
    axis = node.axis(node.attribute("axis", 0), len(node.shape(value)))
    return node.emit("take", value, node.value(1), axis=axis)


def slice_(node: Node) -> Result:
    """A strided box: begin, end, axes and steps are operands from opset 10 on."""
    if node.opset >= 10:
        starts = list(node.elements(1, "begin").values)
        ends = list(node.elements(2, "end").values)
        axes = node.integers(3, "axes") if node.has(3) else None
        steps = node.integers(4, "steps") if node.has(4) else [1] * len(starts)
    else:
        starts = [IntImm(i) for i in node.attribute("starts", [])]
        ends = [IntImm(i) for i in node.attribute("ends", [])]
        axes = node.attribute("axes", None)
        steps = [1] * len(starts)
    axes = list(range(len(starts))) if axes is None else axes
    if 0 in steps:
        raise node.error("a step of 0", "the model is not valid ONNX")
    elements = node.operand(0).elements
    if elements is not None and elements.rank == 1:
        bounds = [as_int(node.simplify(item)) for item in (*starts, *ends)]
        if all(bound is not None for bound in bounds) and len(starts) == 1:
            return Operand(
                None, Elements(elements.values[bounds[0] : bounds[1] : steps[0]], 1, elements.dtype)
            )
    value = node.value(0)
    dims = node.shape(value)
    kept: list[tuple[int, Expr, Expr, int]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        position = node.axis(axis, len(dims))
        dim = node.simplify(dims[position])
        stop = _to_the_end(node, end, dim) if step > 0 else end
        if not (step == 1 and as_int(start) == 0 and stop is dim):
            kept.append((position, start, stop, step))
    if not kept:
        return node.operand(0)
    return node.emit(
        "strided_slice",
        value,
        shape_expr(*(position for position, _, _, _ in kept)),
        node.shape_of([start for _, start, _, _ in kept]),
        node.shape_of([stop for _, _, stop, _ in kept]),
        shape_expr(*(step for _, _, _, step in kept)),
    )


def _to_the_end(node: Node, end: Expr, dim: Expr) -> Expr:
    """`dim` for an end beyond it, as exporters write "to the end" with any large number."""
    return dim if node.analyzer.can_prove(as_dimension(end) >= dim) else end


def expand(node: Node) -> Result:
    """A tensor broadcast against a shape, in both directions."""
    value = node.value(0)
    source = node.shape(value)
    target = [as_dimension(dim) for dim in node.elements(1, "shape").values]
    rank = max(len(source), len(target))
    left = [IntImm(1)] * (rank - len(source)) + list(source)
    right = [IntImm(1)] * (rank - len(target)) + target
    dims = [a if as_int(b) == 1 else b for a, b in zip(left, right, strict=True)]
    return node.emit("broadcast_to", value, node.shape_of(dims))


def constant_of_shape(node: Node) -> Result:
    """A tensor filled with one value; a short one of integers is a shape."""
    fill = np.asarray(node.attribute("value", np.zeros(1, np.float32))).reshape(())
    elements = node.elements(0, "shape")
    dtype = as_dtype(fill.dtype)
    if len(elements.values) == 1 and dtype is INT64:
        count = as_int(elements.values[0])
        if count is not None and count <= 64:
            return Operand(None, Elements((IntImm(int(fill)),) * count, 1))
    return node.emit("full", node.shape_of(elements.values), constant(fill), dtype=dtype)


def split(node: Node) -> Result:
    """A tensor cut along `axis` into parts of given or equal sizes."""
    value = node.value(0)
    dims = node.shape(value)
    axis = node.axis(node.attribute("axis", 0), len(dims))
    sizes = node.integers(1, "sizes") if node.has(1) else node.attribute("split", None)
    if sizes is None:
        extent = as_int(dims[axis])
        count = node.attribute("num_outputs", node.outputs)
        if extent is None:
            raise node.error("equal parts of a dynamic dimension", "give the sizes of the parts")
        part = -(-extent // count)
        sizes = [min(part, extent - part * i) for i in range(count)]
    cuts = tuple(int(i) for i in np.cumsum(sizes)[:-1])
    parts = node.emit("split", value, indices_or_sections=cuts, axis=axis)
    return [tuple_item(parts, index) for index in range(len(sizes))]


SHAPE: dict[str, tuple[Converter, ...]] = {
    "Concat": one(concat),
    "ConstantOfShape": one(constant_of_shape),
    "Expand": one(expand),
    "Flatten": one(flatten),
    "Gather": one(gather),
    "Reshape": one(reshape),
    "Shape": one(shape),
    "Size": one(size),
    "Slice": one(slice_),
    "Split": one(split),
    "Squeeze": one(squeeze),
    "Transpose": one(transpose),
    "Unsqueeze": one(unsqueeze),
}
"""Converters of operators on shapes and layout."""
