"""Operators of sliding windows: convolutions, their transposes, pools."""

from __future__ import annotations

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.windows import (
    LAYOUTS,
    Window,
    channel_vector,
    padded,
    per_axis,
    window,
)
from transect.ir.dtype import DType
from transect.ir.expr import Expr, IntImm, as_int, maximum
from transect.relax.expr import Value, make_tuple, shape_expr, tuple_item


def kernel_of(node: Node, weight: Value) -> list[int]:
    """The extents of a kernel (o, i, sizes...), which must be constant."""
    sizes = [as_int(dim) for dim in node.shape(weight)[2:]]
    known = [size for size in sizes if size is not None]
    if len(known) not in LAYOUTS or len(known) != len(sizes):
        raise node.error(f"a kernel of {node.type_of(weight)!r}")
    return known


def biased(node: Node, result: Value) -> Value:
    """A convolution's result with the optional bias, operand 2, added."""
    if not node.has(2):
        return result
    bias = channel_vector(node, node.value(2), len(node.shape(result)) - 2)
    return node.emit("add", result, bias)


def conv(node: Node) -> Result:
    """Convolution over one, two or three spatial dimensions, with optional bias."""
    return biased(node, convolution(node, node.value(0), node.value(1)))


def convolution(
    node: Node,
    data: Value,
    weight: Value,
    out_dtype: DType | None = None,
    fill: Value | None = None,
) -> Value:
    """A convolution with the window of the node's attributes. out_dtype: of its sums. fill: what
    the padding holds, a scalar tensor; 0 by default."""
    kernel = kernel_of(node, weight)
    data, frame = padded(node, data, window(node, kernel, node.shape(data)), fill=fill)
    layout, kernel_layout = LAYOUTS[len(kernel)]
    return node.emit(
        f"nn.conv{len(kernel)}d",
        data,
        weight,
        groups=node.attribute("group", 1),
        data_layout=layout,
        kernel_layout=kernel_layout,
        out_dtype=out_dtype,
        **frame.fields(),
    )


def conv_transpose(node: Node) -> Result:
    """The transpose of a convolution: each input distributed over a window."""
    data, weight = node.value(0), node.value(1)
    kernel = kernel_of(node, weight)
    rank = len(kernel)
    dims = node.shape(data)[2:]
    strides = per_axis(node, "strides", rank)
    dilations = per_axis(node, "dilations", rank)
    extra = per_axis(node, "output_padding", rank, 0)
    wanted: list[Expr] | None = None
    upper = node.attribute("auto_pad", "NOTSET") == "SAME_UPPER"
    if "output_shape" in node.attributes:
        sizes: list[int] = node.attribute("output_shape", [0])[-rank:]
        if len(sizes) != rank or any(size <= 0 for size in sizes):
            raise node.error(f"output_shape {sizes} is not {rank} positive sizes")
        wanted = [IntImm(size) for size in sizes]
    elif upper or node.attribute("auto_pad", "NOTSET") == "SAME_LOWER":
        wanted = [dim * stride for dim, stride in zip(dims, strides, strict=True)]
    begins, ends = [0] * rank, [0] * rank
    crops: list[tuple[Expr, Expr]] = []
    if wanted is None and node.attribute("auto_pad", "NOTSET") != "VALID":
        pads = per_axis(node, "pads", 2 * rank, 0)
        begins, ends = list(pads[:rank]), list(pads[rank:])
    elif wanted is not None:
        for axis, (dim, size) in enumerate(zip(dims, wanted, strict=True)):
            reach = dilations[axis] * (kernel[axis] - 1) + 1 + extra[axis]
            total = node.simplify((dim - 1) * strides[axis] + reach - size)
            spare = node.simplify(maximum(total, 0))
            small, large = spare // 2, spare - spare // 2
            begin = node.simplify(small if upper else large)
            crops.append((begin, node.simplify(total - begin)))
        known = [(as_int(begin), as_int(end)) for begin, end in crops]
        pairs = [(b, e) for b, e in known if b is not None and e is not None and e >= 0]
        if len(pairs) == rank:
            begins, ends = [b for b, _ in pairs], [e for _, e in pairs]
            crops = []
    result = _transposed(node, data, weight, Window(strides, dilations, (*begins, *ends)), extra)
    if crops:
        sides = [[-pair[side] for pair in crops] for side in (0, 1)]
        none = [IntImm(0)] * 2
        widths = node.shape_of([*none, *sides[0], *none, *sides[1]])
        result = node.emit("nn.dynamic_pad", result, widths)
    return biased(node, result)


def _transposed(
    node: Node, data: Value, weight: Value, frame: Window, extra: tuple[int, ...]
) -> Value:
    groups = node.attribute("group", 1)
    kernel = kernel_of(node, weight)
    rank = len(kernel)
    layout, _ = LAYOUTS[rank]
    apart = tuple(kernel) == frame.strides and not any((*frame.padding, *extra))
    channels, per_group, *_ = node.shape(weight)
    if rank == 2 and groups == 1 and apart and kernel[0] == kernel[1]:
        # Windows that do not overlap: a product over channels, then blocks of channels as pixels.
        # A plain matrix product is far quicker than a sum with tests in it.
        blocks = node.simplify(per_group * (kernel[0] * kernel[1]))
        flat = node.emit("reshape", weight, node.shape_of([channels, blocks]))
        matrix = node.emit("permute_dims", flat, axes=(1, 0))
        one_by_one = node.shape_of([blocks, channels, IntImm(1), IntImm(1)])
        product = node.emit("nn.conv2d", data, node.emit("reshape", matrix, one_by_one))
        return node.emit("nn.pixel_shuffle", product, upscale_factor=kernel[0])
    return node.emit(
        f"nn.conv{rank}d_transpose",
        data,
        weight,
        groups=groups,
        output_padding=extra,
        data_layout=layout,
        kernel_layout="IO" + layout[2:],
        **frame.fields(),
    )


def deform_conv(node: Node) -> Result:
    """Convolution whose taps are moved by offsets."""
    data, weight, offset = node.value(0), node.value(1), node.value(2)
    frame = window(node, kernel_of(node, weight), node.shape(data))
    mask = node.value(4) if node.has(4) else make_tuple()
    result = node.emit(
        "nn.deform_conv2d",
        data,
        weight,
        offset,
        mask,
        groups=node.attribute("group", 1),
        offset_groups=node.attribute("offset_group", 1),
        **frame.fields(),
    )
    if not node.has(3):
        return result
    return node.emit("add", result, channel_vector(node, node.value(3), 2))


def col2im(node: Node) -> Result:
    """Blocks of an image, added up where they overlap."""
    image = node.sizes(1, "image").values
    block = node.sizes(2, "block").values
    rank = len(block)
    return node.emit(
        "nn.col2im",
        node.value(0),
        node.shape_of(image),
        node.shape_of(block),
        strides=per_axis(node, "strides", rank),
        dilation=per_axis(node, "dilations", rank),
        padding=per_axis(node, "pads", 2 * rank, 0),
    )


# --- pools --------------------------------------------------------------------------------------


def max_pool(node: Node) -> Result:
    """The maximum of each window, and where it is if that is asked for."""
    kernel = list(node.attribute("kernel_shape", [1]))
    value = node.value(0)
    frame = window(node, kernel, node.shape(value), centred=True)
    options = {"pool_size": tuple(kernel), "ceil_mode": node.attribute("ceil_mode", 0) == 1}
    if node.outputs > 1:
        if frame.widths is not None:
            raise node.error("indices with auto_pad over a dynamic dimension")
        both = node.emit(
            "nn.max_pool_with_indices",
            value,
            column_major=node.attribute("storage_order", 0) == 1,
            **options,
            **frame.fields(),
        )
        return [tuple_item(both, 0), tuple_item(both, 1)]
    value, frame = padded(node, value, frame, lowest=True)
    return node.emit(
        f"nn.max_pool{len(kernel)}d", value, layout=LAYOUTS[len(kernel)][0], **options,
        **frame.fields(),
    )  # fmt: skip


def average_pool(node: Node) -> Result:
    """The mean of each window."""
    return averaged(node, node.value(0))


def averaged(node: Node, value: Value) -> Value:
    """The mean of each window of `value`, with the node's attributes."""
    kernel = list(node.attribute("kernel_shape", [1]))
    frame = window(node, kernel, node.shape(value), centred=True)
    include = node.attribute("count_include_pad", 0) == 1
    options = {
        "pool_size": tuple(kernel),
        "ceil_mode": node.attribute("ceil_mode", 0) == 1,
        "layout": LAYOUTS[len(kernel)][0],
    }
    name = f"nn.avg_pool{len(kernel)}d"
    if frame.widths is None or include:
        value, frame = padded(node, value, frame)
        return node.emit(name, value, count_include_pad=include, **options, **frame.fields())
    # The share of each window that is not padding is the mean of ones, padded by zeros.
    dims = [IntImm(1), IntImm(1), *node.shape(value)[2:]]
    ones = node.emit("ones", shape_expr(*dims), dtype=node.dtype(value))
    share, frame_of_ones = padded(node, ones, frame)
    value, frame = padded(node, value, frame)
    mean = node.emit(name, value, **options, **frame.fields())
    return node.emit("divide", mean, node.emit(name, share, **options, **frame_of_ones.fields()))


def lp_pool(node: Node) -> Result:
    """The p-norm of each window."""
    kernel = list(node.attribute("kernel_shape", [1]))
    value = node.value(0)
    value, frame = padded(node, value, window(node, kernel, node.shape(value), centred=True))
    return node.emit(
        "nn.lp_pool",
        value,
        p=int(node.attribute("p", 2)),
        pool_size=tuple(kernel),
        ceil_mode=node.attribute("ceil_mode", 0) == 1,
        **frame.fields(),
    )


def global_pool(name: str) -> tuple[Converter, ...]:
    """A reduction over all spatial dimensions, kept with size one."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        axes = tuple(range(2, len(node.shape(value))))
        return node.emit(name, value, axis=axes, keepdims=True)

    return one(convert)


def global_lp_pool(node: Node) -> Result:
    """The p-norm over all spatial dimensions."""
    value = node.value(0)
    p = node.scalar(node.attribute("p", 2), value)
    power = node.emit("power", node.emit("abs", value), p)
    total = node.emit("sum", power, axis=tuple(range(2, len(node.shape(value)))), keepdims=True)
    return node.emit("power", total, node.scalar(1 / node.attribute("p", 2), value))


def max_unpool(node: Node) -> Result:
    """Each element put where the maximum of its window was, zeros elsewhere."""
    value, index = node.value(0), node.value(1)
    kernel = list(node.attribute("kernel_shape", [1]))
    rank = len(kernel)
    dims = node.shape(value)
    strides = per_axis(node, "strides", rank)
    pads = per_axis(node, "pads", 2 * rank, 0)
    outer = [
        (dim - 1) * stride + (size - begin - end)
        for dim, stride, size, begin, end in zip(
            dims[2:], strides, kernel, pads[:rank], pads[rank:], strict=True
        )
    ]
    natural = node.shape_of([*dims[:2], *outer])
    zeros = node.emit("zeros", natural, dtype=node.dtype(value))
    scattered = node.emit(
        "scatter_elements",
        node.emit("flatten", zeros),
        node.emit("flatten", index),
        node.emit("flatten", value),
        axis=0,
    )
    result = node.emit("reshape", scattered, natural)
    if not node.has(2):
        return result
    # The indices count in the shape above; a larger one given has more zeros at the end.
    target = node.elements(2, "output shape").values
    more = [size - old for size, old in zip(target, natural.values, strict=True)]
    widths = node.shape_of([*[IntImm(0)] * len(more), *more])
    if all(as_int(width) == 0 for width in widths.values):
        return result
    return node.emit("nn.dynamic_pad", result, widths)


CONVOLUTION: dict[str, tuple[Converter, ...]] = {
    "AveragePool": one(average_pool),
    "Col2Im": one(col2im),
    "Conv": one(conv),
    "ConvTranspose": one(conv_transpose),
    "DeformConv": one(deform_conv),
    "GlobalAveragePool": global_pool("mean"),
    "GlobalLpPool": one(global_lp_pool),
    "GlobalMaxPool": global_pool("max"),
    "LpPool": one(lp_pool),
    "MaxPool": one(max_pool),
    "MaxUnpool": one(max_unpool),
}
"""Converters of operators of sliding windows."""
