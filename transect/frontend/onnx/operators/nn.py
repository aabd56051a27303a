"""Neural networks: products, convolutions, pooling, normalisation, softmax."""

from __future__ import annotations

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.shape import product
from transect.ir.expr import Expr, IntImm, as_int
from transect.relax.expr import Value


def matmul(node: Node) -> Result:
    """The matrix product, broadcast over leading dimensions."""
    return node.emit("matmul", node.value(0), node.value(1))


def gemm(node: Node) -> Result:
    """alpha * A' * B' + beta * C."""
    a, b = node.value(0), node.value(1)
    if node.attribute("transA", 0):
        a = node.emit("permute_dims", a, axes=(1, 0))
    if node.attribute("transB", 0):
        b = node.emit("permute_dims", b, axes=(1, 0))
    result = node.emit("matmul", a, b)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if alpha != 1.0:
        result = node.emit("multiply", result, node.scalar(alpha, result))
    if not node.has(2) or beta == 0.0:
        return result
    bias = node.value(2)
    if beta != 1.0:
        bias = node.emit("multiply", bias, node.scalar(beta, bias))
    return node.emit("add", result, bias)


_LAYOUTS = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW"), 3: ("NCDHW", "OIDHW")}


def window(
    node: Node, rank: int, kernel: list[int], dims: tuple[Expr, ...]
) -> dict[str, tuple[int, ...]]:
    """strides, dilations and padding (all begins, then all ends) of a sliding window."""
    strides = tuple(node.attribute("strides", [1] * rank))
    dilations = tuple(node.attribute("dilations", [1] * rank))
    mode = node.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        padding = tuple(node.attribute("pads", [0] * 2 * rank))
    elif mode == "VALID":
        padding = (0,) * 2 * rank
    else:
        begins: list[int] = []
        ends: list[int] = []
        for dim, size, stride, dilation in zip(dims[2:], kernel, strides, dilations, strict=True):
            extent = as_int(dim)
            if extent is None and stride != 1:
                raise node.error(f"auto_pad={mode} over a dynamic dimension with a stride")
            reach = dilation * (size - 1) + 1
            output = 1 if extent is None else -(-extent // stride)
            total = reach - 1 if extent is None else max(0, (output - 1) * stride + reach - extent)
            small, large = total // 2, total - total // 2
            begins.append(small if mode == "SAME_UPPER" else large)
            ends.append(large if mode == "SAME_UPPER" else small)
        padding = (*begins, *ends)
    return {"strides": strides, "dilation": dilations, "padding": padding}


def conv(node: Node) -> Result:
    """Convolution over one, two or three spatial dimensions, with optional bias."""
    data, weight = node.value(0), node.value(1)
    kernel = [as_int(dim) for dim in node.shape(weight)[2:]]
    rank = len(kernel)
    sizes = [size for size in kernel if size is not None]
    if rank not in _LAYOUTS or len(sizes) != rank:
        raise node.error(f"a kernel with {rank} spatial dimensions")
    layout, kernel_layout = _LAYOUTS[rank]
    result = node.emit(
        f"nn.conv{rank}d",
        data,
        weight,
        groups=node.attribute("group", 1),
        data_layout=layout,
        kernel_layout=kernel_layout,
        **window(node, rank, sizes, node.shape(data)),
    )
    return (
        result
        if not node.has(2)
        else node.emit("add", result, channel_vector(node, node.value(2), rank))
    )


def channel_vector(node: Node, value: Value, rank: int) -> Value:
    """A vector over channels, shaped to broadcast over `rank` spatial dimensions."""
    dims = [*node.shape(value), *[IntImm(1)] * rank]
    return node.emit("reshape", value, node.shape_of(dims))


def pool(name: str) -> tuple[Converter, ...]:
    """Max or average pooling."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        dims = node.shape(value)
        kernel = list(node.attribute("kernel_shape", [1]))
        rank = len(kernel)
        options = window(node, rank, kernel, dims)
        fields: dict[str, object] = {
            "pool_size": tuple(kernel),
            "ceil_mode": node.attribute("ceil_mode", 0) == 1,
            "layout": _LAYOUTS[rank][0],
        }
        if name == "avg_pool":
            fields["count_include_pad"] = node.attribute("count_include_pad", 0) == 1
        return node.emit(f"nn.{name}{rank}d", value, **options, **fields)

    return one(convert)


def global_pool(name: str) -> tuple[Converter, ...]:
    """A reduction over all spatial dimensions, kept with size one."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        axes = tuple(range(2, len(node.shape(value))))
        return node.emit(name, value, axis=axes, keepdims=True)

    return one(convert)


def softmax(name: str) -> tuple[Converter, ...]:
    """Softmax along one axis; before opset 13 over all dimensions from `axis` on."""

    def along(node: Node) -> Result:
        value = node.value(0)
        return node.emit(
            name, value, axis=node.axis(node.attribute("axis", -1), len(node.shape(value)))
        )

    def flattened(node: Node) -> Result:
        value = node.value(0)
        dims = node.shape(value)
        axis = node.axis(node.attribute("axis", 1), len(dims))
        if axis == len(dims) - 1:
            return node.emit(name, value, axis=axis)
        flat = node.emit(
            "reshape", value, node.shape_of([product(dims[:axis]), product(dims[axis:])])
        )
        return node.emit("reshape", node.emit(name, flat, axis=1), node.shape_of(dims))

    return (Converter(flattened, 1), Converter(along, 13))


def batch_normalization(node: Node) -> Result:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, per channel, with given statistics."""
    if node.attribute("training_mode", 0):
        raise node.error("training mode is not covered", "export the model for inference")
    value = node.value(0)
    rank = len(node.shape(value)) - 2
    scale, bias, mean, variance = (node.value(i) for i in range(1, 5))
    epsilon = node.scalar(node.attribute("epsilon", 1e-5), variance)
    deviation = node.emit("sqrt", node.emit("add", variance, epsilon))
    factor = node.emit("divide", scale, deviation)
    offset = node.emit("subtract", bias, node.emit("multiply", mean, factor))
    scaled = node.emit("multiply", value, channel_vector(node, factor, rank))
    return node.emit("add", scaled, channel_vector(node, offset, rank))


def layer_normalization(node: Node) -> Result:
    """Normalisation over the dimensions from `axis` on, then scale and bias."""
    if node.outputs > 1:
        raise node.error("its mean and deviation as outputs are not covered")
    value = node.value(0)
    rank = len(node.shape(value))
    axis = node.axis(node.attribute("axis", -1), rank)
    bias = node.value(2) if node.has(2) else node.emit("zeros_like", node.value(1))
    return node.emit(
        "nn.layer_norm",
        value,
        node.value(1),
        bias,
        axes=tuple(range(axis, rank)),
        epsilon=node.attribute("epsilon", 1e-5),
    )


def dropout(node: Node) -> Result:
    """The operand: at inference nothing is dropped."""
    return node.operand(0)


NN: dict[str, tuple[Converter, ...]] = {
    "AveragePool": pool("avg_pool"),
    "BatchNormalization": one(batch_normalization),
    "Conv": one(conv),
    "Dropout": one(dropout),
    "Gemm": one(gemm),
    "GlobalAveragePool": global_pool("mean"),
    "GlobalMaxPool": global_pool("max"),
    "LayerNormalization": one(layer_normalization),
    "LogSoftmax": softmax("nn.log_softmax"),
    "MatMul": one(matmul),
    "MaxPool": pool("max_pool"),
    "Softmax": softmax("nn.softmax"),
}
"""Converters of neural-network operators."""
