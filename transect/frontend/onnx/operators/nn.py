"""Neural networks: matrix products, softmax, dropout. Windows and norms have their own files."""

from __future__ import annotations

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.shape import product


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


def dropout(node: Node) -> Result:
    """The operand: at inference nothing is dropped."""
    return node.operand(0)


NN: dict[str, tuple[Converter, ...]] = {
    "Dropout": one(dropout),
    "Gemm": one(gemm),
    "LogSoftmax": softmax("nn.log_softmax"),
    "MatMul": one(matmul),
    "Softmax": softmax("nn.softmax"),
}
"""Converters of neural-network operators."""
