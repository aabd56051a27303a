"""Neural networks: matrix products, softmax. Windows and norms have their own files."""

from __future__ import annotations

from collections.abc import Sequence

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.ir.expr import Expr
from transect.relax.expr import Value, make_tuple
from transect.relax.op.inference import product
from transect.relax.op.linear_algebra import Einsum


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


def einsum(node: Node) -> Result:
    """The sum of products that Einstein's notation names; of two operands a matrix product."""
    text = node.attribute("equation", "")
    values = [node.value(i) for i in range(len(node.operands))]
    product = as_matmul(node, text, values)
    if product is not None:
        return product
    return node.emit("einsum", make_tuple(*values), subscripts=text)


def as_matmul(node: Node, text: str, values: Sequence[Value]) -> Value | None:
    """An einsum of two operands as transposes around a matrix product, None if it is not one: a
    letter repeated in an operand or summed over in one alone, or an extent that broadcasts."""
    if len(values) != 2:
        return None
    shapes = [node.shape(value) for value in values]
    operator = Einsum(text)
    (left, right), output = operator.labels([len(dims) for dims in shapes])
    extents = operator.sizes(shapes, [left, right])
    for labels, dims in zip((left, right), shapes, strict=True):
        wide = all(extents[x] is dim for x, dim in zip(labels, dims, strict=True))
        if len(set(labels)) != len(labels) or not wide:
            return None
    batch = [x for x in output if x in left and x in right]
    rows = [x for x in output if x in left and x not in right]
    columns = [x for x in output if x in right and x not in left]
    summed = [x for x in left if x in right and x not in output]
    if {*left, *right} != {*batch, *rows, *columns, *summed} or not summed:
        return None

    def matrix(value: Value, labels: list[str], groups: tuple[list[str], list[str]]) -> Value:
        order = [*batch, *groups[0], *groups[1]]
        axes = tuple(labels.index(x) for x in order)
        if axes != tuple(range(len(axes))):
            value = node.emit("permute_dims", value, axes=axes)
        dims = [*(extents[x] for x in batch), *(product(extents[x] for x in g) for g in groups)]
        return value if all(len(g) == 1 for g in groups) else reshaped(value, dims)

    def reshaped(value: Value, dims: Sequence[Expr]) -> Value:
        return node.emit("reshape", value, node.shape_of(dims))

    result = node.emit(
        "matmul",
        matrix(values[0], left, (rows, summed)),
        matrix(values[1], right, (summed, columns)),
    )
    order = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        result = reshaped(result, [extents[x] for x in order])
    if order == output:
        return result
    return node.emit("permute_dims", result, axes=tuple(order.index(x) for x in output))


def det(node: Node) -> Result:
    """The determinants of square matrices."""
    return node.emit("determinant", node.value(0))


NN: dict[str, tuple[Converter, ...]] = {
    "Det": one(det),
    "Einsum": one(einsum),
    "Gemm": one(gemm),
    "LogSoftmax": softmax("nn.log_softmax"),
    "MatMul": one(matmul),
    "Softmax": softmax("nn.softmax"),
}
"""Converters of neural-network operators."""
