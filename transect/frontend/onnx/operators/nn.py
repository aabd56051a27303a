"""Neural networks: matrix products, normalisation, softmax. Windows are in `convolution.py`."""

from __future__ import annotations

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.shape import product
from transect.frontend.onnx.operators.windows import channel_vector


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
    "BatchNormalization": one(batch_normalization),
    "Dropout": one(dropout),
    "Gemm": one(gemm),
    "LayerNormalization": one(layer_normalization),
    "LogSoftmax": softmax("nn.log_softmax"),
    "MatMul": one(matmul),
    "Softmax": softmax("nn.softmax"),
}
"""Converters of neural-network operators."""
