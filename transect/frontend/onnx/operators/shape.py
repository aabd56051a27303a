"""Shapes and layout: what asks for a shape, computes one, or moves elements by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import accumulate, pairwise

import numpy as np

from transect.frontend.onnx.data_shapes import (
    bind_size,
    check_condition,
    check_size,
    define_size,
    dims_besides,
    is_among,
    reshape_to,
)
from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.values import Elements, Operand, as_dimension
from transect.ir.dtype import as_dtype
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    as_int,
    equal,
    logical_or,
    maximum,
    minimum,
    not_equal,
    select,
)
from transect.ir.sizes import ceildiv, product
from transect.ir.types import tensor_type
from transect.relax.expr import Value, constant, make_tuple, shape_expr, tuple_item
from transect.relax.shapes import prove_equal


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
    if node.has(1) and not node.is_constant(1):
        return _squeeze_by_data(node)
    axes = _axes(node)
    value = node.value(0)
    dims = node.shape(value)
    if axes is None:
        axes = [index for index, dim in enumerate(dims) if as_int(dim) == 1]
    dropped = tuple(node.axis(axis, len(dims)) for axis in axes)
    sizes = [IntImm(1) if axis in dropped else dim for axis, dim in enumerate(dims)]
    if any(as_int(dim) is None for dim, size in zip(dims, sizes, strict=True) if dim is not size):
        value = node.checked(value, tensor_type(tuple(sizes), node.dtype(value)))
    return node.emit("squeeze", value, axis=dropped)


def unsqueeze(node: Node) -> Result:
    """With dimensions of size one inserted at `axes` of the result."""
    if node.has(1) and not node.is_constant(1):
        return _unsqueeze_by_data(node)
    axes = _axes(node) or []
    value = node.value(0)
    rank = len(node.shape(value)) + len(axes)
    return node.emit("expand_dims", value, axis=tuple(node.axis(axis, rank) for axis in axes))


def _squeeze_by_data(node: Node) -> Value:
    value, axes = node.value(0), node.elements(1, "axes").values
    dims = node.shape(value)
    dropped = is_among(axes, len(dims))
    return reshape_to(node, value, dims_besides(node, dims, dropped, len(dims) - len(axes)))


def _unsqueeze_by_data(node: Node) -> Value:
    value, axes = node.value(0), node.elements(1, "axes").values
    dims = node.shape(value)
    result: list[Expr] = []
    ahead: Expr = IntImm(0)
    for number, inserted in enumerate(is_among(axes, len(dims) + len(axes))):
        size: Expr = IntImm(1)
        for axis, dim in enumerate(dims):
            size = select(equal(number - ahead, axis), as_dimension(dim), size)
        result.append(bind_size(node, select(inserted, IntImm(1), size), "unsqueezed"))
        ahead = node.simplify(ahead + select(inserted, IntImm(1), IntImm(0)))
    check_condition(node, equal(ahead, len(axes)), "axes_are_distinct_and_in_range")
    return reshape_to(node, value, result)


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
    value = node.value(0)
    dims = node.shape(value)
    if node.opset >= 10:
        starts, ends = (list(node.elements(i, w).values) for i, w in ((1, "begin"), (2, "end")))
        axes = list(node.elements(3, "axes").values) if node.has(3) else None
        steps = list(node.elements(4, "steps").values) if node.has(4) else None
    else:
        starts = [IntImm(i) for i in node.attribute("starts", [])]
        ends = [IntImm(i) for i in node.attribute("ends", [])]
        given: list[int] | None = node.attribute("axes", None)
        axes, steps = None if given is None else [IntImm(i) for i in given], None
    axes = [IntImm(i) for i in range(len(starts))] if axes is None else axes
    steps = [IntImm(1)] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.error(
            f"{len(starts)} begins, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps"
        )
    known = [node.axis(axis.value, len(dims)) for axis in axes if isinstance(axis, IntImm)]
    if len(set(known)) < len(known):
        raise node.error(f"its axes {known} name one twice", "the model is not valid ONNX")
    if any(as_int(step) == 0 for step in steps):
        raise node.error("a step of 0", "the model is not valid ONNX")
    for step in steps:
        check_condition(node, not_equal(step, IntImm(0)), "step_is_not_zero")
    kept: list[tuple[int, Expr, Expr, Expr]] = []
    for position, start, end, step in _boxes(node, dims, axes, starts, ends, steps):
        dim = node.simplify(dims[position])
        if node.analyzer.can_prove(step > 0):
            stop = _to_the_end(node, end, dim)
        else:
            start, stop = _from_the_first(node, start, step, dim), end
        if not (as_int(step) == 1 and as_int(start) == 0 and stop is dim):
            kept.append((position, start, stop, step))
    if not kept:
        return node.operand(0)
    return node.emit(
        "strided_slice",
        value,
        shape_expr(*(position for position, _, _, _ in kept)),
        *(node.shape_of(list(column)) for column in list(zip(*kept, strict=True))[1:]),
    )


def _boxes(
    node: Node,
    dims: Sequence[Expr],
    axes: Sequence[Expr],
    starts: Sequence[Expr],
    ends: Sequence[Expr],
    steps: Sequence[Expr],
) -> Iterator[tuple[int, Expr, Expr, Expr]]:
    """Begin, end and step of each axis that is sliced; of all of them if only a run knows which."""
    rows = list(zip(axes, starts, ends, steps, strict=True))
    if all(as_int(axis) is not None for axis in axes):
        for axis, start, end, step in rows:
            yield node.axis(as_int(axis) or 0, len(dims)), start, end, step
        return
    for position, dim in enumerate(dims):
        begin, stop, stride = IntImm(0), dim, IntImm(1)
        for axis, start, end, step in rows:
            here = logical_or(EQ(axis, IntImm(position)), EQ(axis, IntImm(position - len(dims))))
            begin = select(here, start, begin)
            stop = select(here, end, stop)
            stride = select(here, step, stride)
        yield position, node.simplify(begin), node.simplify(stop), node.simplify(stride)


def _to_the_end(node: Node, end: Expr, dim: Expr) -> Expr:
    """`dim` for an end beyond it, as exporters write "to the end" with any large number."""
    return dim if node.analyzer.can_prove(as_dimension(end) >= dim) else end


def _from_the_first(node: Node, start: Expr, step: Expr, dim: Expr) -> Expr:
    """A begin before the first element is the first for ONNX; Python finds nothing before it."""
    if as_int(start) == -1 or node.analyzer.can_prove(as_dimension(start) >= 0 - dim):
        return start
    return select(step < 0, maximum(start, 0 - dim), start)


def expand(node: Node) -> Result:
    """A tensor broadcast against a shape, in both directions."""
    value = node.value(0)
    source = node.shape(value)
    target = [as_dimension(dim) for dim in node.sizes(1, "shape").values]
    rank = max(len(source), len(target))
    left = [IntImm(1)] * (rank - len(source)) + list(source)
    right = [IntImm(1)] * (rank - len(target)) + target
    pairs = [(as_dimension(a), b) for a, b in zip(left, right, strict=True)]
    dims = [_wider(node, a, b) for a, b in pairs]
    certain = all(
        as_int(a) == 1 or prove_equal(a, dim) for (a, _), dim in zip(pairs, dims, strict=True)
    )
    return node.emit("broadcast_to" if certain else "stretch", value, node.shape_of(dims))


def _wider(node: Node, a: Expr, b: Expr) -> Expr:
    """The dimension that two broadcast to; that they do is checked when the model runs."""
    if as_int(a) == 1 or prove_equal(a, b):
        return b
    if as_int(b) == 1:
        return a
    if as_int(a) is not None and as_int(b) is not None:
        raise node.error(f"dimensions of {as_int(a)} and {as_int(b)} do not broadcast")
    wide = b if as_int(b) is not None else a
    if as_int(wide) is None:
        # Both may be 1.
        wide = define_size(node, select(equal(a, 1), b, a), "broadcast")
    for dim in (a, b):
        check_size(node, select(equal(dim, 1), wide, dim), wide, "broadcast")
    return wide


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
    extent = dims[axis]
    given: list[int] | None = node.attribute("split", None)
    if node.has(1):
        sizes = [as_dimension(item) for item in node.sizes(1, "sizes").values]
    elif given is not None:
        sizes = [IntImm(item) for item in given]
    elif "num_outputs" in node.attributes:
        count = node.attribute("num_outputs", node.outputs)
        if count != node.outputs:
            raise node.error(f"num_outputs is {count}, but it has {node.outputs} outputs")
        part = node.simplify(ceildiv(extent, count))
        # The last part is smaller, and where there is too little several are.
        ends = [node.simplify(minimum(part * i, extent)) for i in range(count + 1)]
        sizes = [node.simplify(b - a) for a, b in pairwise(ends)]
    else:
        sizes = [node.simplify(extent // node.outputs)] * node.outputs
    return parts_of(node, value, axis, sizes)


def parts_of(node: Node, value: Value, axis: int, sizes: Sequence[Expr]) -> list[Value]:
    """A tensor cut along `axis` into parts, whose sizes must make up the whole."""
    dims = node.shape(value)
    extent = dims[axis]
    numbers = [item.value for item in sizes if isinstance(item, IntImm)]
    if len(numbers) == len(sizes) and isinstance(extent, IntImm):
        cuts = tuple(accumulate(numbers[:-1]))
        if sum(numbers) != extent.value:
            raise node.error(f"parts of {numbers} of an axis of {extent!r}")
        parts = node.emit("split", value, indices_or_sections=cuts, axis=axis)
        return [tuple_item(parts, index) for index in range(len(sizes))]
    total = node.simplify(reduce(lambda a, b: a + b, sizes, IntImm(0)))
    if not prove_equal(total, extent):
        kind = tensor_type((*dims[:axis], total, *dims[axis + 1 :]), node.dtype(value))
        value = node.builder.match_cast(value, kind, "split", (node.layer,))
    found: list[Value] = []
    begin: Expr = IntImm(0)
    for size in sizes:
        end = node.simplify(begin + size)
        limits = (node.shape_of([begin]), node.shape_of([end]))
        found.append(
            node.emit("strided_slice", value, shape_expr(axis), *limits, assume_inbound=True)
        )
        begin = end
    return found


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
