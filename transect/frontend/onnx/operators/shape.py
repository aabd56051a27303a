"""Shapes and layout: what asks for a shape, computes one, or moves elements by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from transect.frontend.onnx.data_shapes import bind_size, reshape_to
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import Elements, Operand, as_dimension
from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, IntImm, as_int, equal, maximum, select
from transect.relax.expr import Value, constant, make_tuple, shape_expr, tuple_item


def product(dims: Sequence[Expr]) -> Expr:
    """The number of elements of a shape."""
    return reduce(lambda a, b: a * b, dims, IntImm(1))


def shape(node: Node) -> Result:
    """The dimensions of a tensor, as a shape."""
    operand = node.operand(0)
    if operand.value is None and operand.known is not None:
        dims: Sequence[Expr] = [IntImm(extent) for extent in operand.known.array.shape]
    else:
        dims = [as_dimension(dim) for dim in node.shape(node.value(0))]
    chosen = dims[slice(node.attribute("start", 0), node.attribute("end", len(dims)))]
    return Operand(None, Elements(tuple(chosen), 1))


def size(node: Node) -> Result:
    """The number of elements of a tensor."""
    dims = map(as_dimension, node.shape(node.value(0)))
    return Operand(None, Elements((node.simplify(product(tuple(dims))),), 0))


def reshape(node: Node) -> Result:
    """The same elements in another shape: 0 keeps a dimension, -1 is what is left."""
    if not node.has(1):
        raise node.error("the shape is missing", "convert the model to opset 5 or newer")
    target = node.elements(1, "shape").values
    value = node.value(0)
    source = node.shape(value)
    if any(node.symbols.may_be_negative(dim) for dim in target):
        return _reshape_by_data(node, value, target)
    keep_zero = node.attribute("allowzero", 0) == 1
    dims: list[Expr] = []
    unknown: int | None = None
    for index, dim in enumerate(target):
        number = as_int(dim)
        if number == -1:
            if unknown is not None:
                raise node.error("two dimensions are -1", "only one of them can be left out")
            unknown = index
            dims.append(IntImm(1))
        elif number is not None and number < 0:
            raise node.error(f"a dimension of {number}", "the model is not valid ONNX")
        elif number == 0 and not keep_zero:
            if index >= len(source):
                raise node.error(f"dimension {index} is kept, but the tensor has {len(source)}")
            dims.append(source[index])
        else:
            dims.append(as_dimension(dim))
    if unknown is not None:
        dims[unknown] = _quotient(node, source, [d for i, d in enumerate(dims) if i != unknown])
    return reshape_to(node, value, dims)


def _reshape_by_data(node: Node, value: Value, target: Sequence[Expr]) -> Value:
    """A reshape of which only a run knows where 0 and -1 stand."""
    source = node.shape(value)
    keep_zero = node.attribute("allowzero", 0) == 1
    left_out = [equal(dim, -1) for dim in target]
    given: list[Expr] = []
    for index, dim in enumerate(target):
        kept = source[index] if index < len(source) and not keep_zero else dim
        known = select(equal(dim, 0), as_dimension(kept), as_dimension(dim))
        given.append(bind_size(node, select(left_out[index], IntImm(1), known), "shape"))
    rest = product(given)
    left = product(source) // maximum(rest, 1)
    dims = [
        bind_size(node, select(missing, left, dim), "shape")
        for missing, dim in zip(left_out, given, strict=True)
    ]
    return reshape_to(node, value, dims)


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
    value = node.value(0)
    dims = node.shape(value)
    if axes is None:
        axes = [index for index, dim in enumerate(dims) if as_int(dim) == 1]
    return node.emit("squeeze", value, axis=tuple(node.axis(axis, len(dims)) for axis in axes))


def unsqueeze(node: Node) -> Result:
    """With dimensions of size one inserted at `axes` of the result."""
    axes = _axes(node) or []
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
    """Tensors joined along `axis`."""
    values = [node.value(i) for i in range(len(node.operands))]
    axis = node.axis(node.attribute("axis", 0), len(node.shape(values[0])))
    return values[0] if len(values) == 1 else node.emit("concat", make_tuple(*values), axis=axis)


def gather(node: Node) -> Result:
    """Slices of a tensor by index."""
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
    target = [as_dimension(dim) for dim in node.sizes(1, "shape").values]
    rank = max(len(source), len(target))
    left = [IntImm(1)] * (rank - len(source)) + list(source)
    right = [IntImm(1)] * (rank - len(target)) + target
    dims = [a if as_int(b) == 1 else b for a, b in zip(left, right, strict=True)]
    return node.emit("broadcast_to", value, node.shape_of(dims))


def constant_of_shape(node: Node) -> Result:
    """A tensor filled with one value."""
    fill = np.asarray(node.attribute("value", np.zeros(1, np.float32))).reshape(())
    dims = node.sizes(0, "shape").values
    return node.emit("full", node.shape_of(dims), constant(fill), dtype=as_dtype(fill.dtype))


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
    "Shape": one(shape),
    "Size": one(size),
    "Concat": one(concat),
    "ConstantOfShape": one(constant_of_shape),
    "Expand": one(expand),
    "Flatten": one(flatten),
    "Gather": one(gather),
    "Reshape": one(reshape),
    "Slice": one(slice_),
    "Split": one(split),
    "Squeeze": one(squeeze),
    "Transpose": one(transpose),
    "Unsqueeze": one(unsqueeze),
}
"""Converters of operators on shapes and layout."""
