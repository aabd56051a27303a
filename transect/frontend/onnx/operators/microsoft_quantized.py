"""Quantized operators that ONNX Runtime's quantizer writes (domain com.microsoft).

Maps of quantized tensors are computed in float32 between a dequantization and a quantization; sums
of products stay in int32 and are scaled once. Source: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.convolution import averaged
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.quantize import (
    centered,
    combined_scale,
    dequantize_linear,
    dynamically_quantized,
    integer_product,
    one_for_all,
    optional,
    parameters,
    quantize_linear,
    requantized,
    to_float,
)
from transect.ir.dtype import FLOAT32, INT32, DType
from transect.ir.expr import IntImm
from transect.ir.sizes import product
from transect.relax.expr import Value, constant, make_tuple


@dataclass(frozen=True)
class Quantized:
    """A quantized tensor, or what a result is to be quantized with (then `value` is None).

    zero: None stands for 0.
    """

    value: Value | None
    scale: Value
    zero: Value | None


def quantized(node: Node, index: int) -> Quantized:
    """The quantized tensor that operands index, index + 1 and index + 2 are."""
    zero = optional(node, index + 2)
    scale = one_for_all(node, node.value(index + 1))
    return Quantized(node.value(index), scale, None if zero is None else one_for_all(node, zero))


def target(node: Node, index: int) -> Quantized:
    """The scale and zero point of a result, which operands index and index + 1 are."""
    zero = optional(node, index + 1)
    scale = one_for_all(node, node.value(index))
    return Quantized(None, scale, None if zero is None else one_for_all(node, zero))


def as_float(node: Node, x: Quantized) -> Value:
    """The numbers that a quantized tensor stands for."""
    assert x.value is not None
    return node.emit("dequantize", x.value, *parameters(x.scale, x.zero))


def quantize(node: Node, value: Value, y: Quantized, dtype: DType) -> Value:
    """`value` quantized for the result `y`; dtype: where y has no zero point to tell it."""
    dtype = dtype if y.zero is None else node.dtype(y.zero)
    return node.emit("quantize", value, *parameters(y.scale, y.zero), out_dtype=dtype)


def on_floats(function: Callable[[Node, Value], Value]) -> tuple[Converter, ...]:
    """An operator of (x, its scale, its zero point, the result's scale, its zero point)."""

    def convert(node: Node) -> Result:
        x, y = quantized(node, 0), target(node, 3)
        return quantize(node, function(node, as_float(node, x)), y, node.dtype(node.value(0)))

    return one(convert)


def _sigmoid(node: Node, x: Value) -> Value:
    return node.emit("sigmoid", x)


def _leaky_relu(node: Node, x: Value) -> Value:
    return node.emit("nn.leakyrelu", x, alpha=node.attribute("alpha", 0.01))


def _softmax(node: Node, x: Value) -> Value:
    rank = len(node.shape(x))
    newer = node.attribute("opset", 13) >= 13
    axis = node.axis(node.attribute("axis", -1 if newer else 1), rank)
    if newer or axis == rank - 1:
        return node.emit("nn.softmax", x, axis=axis)
    dims = node.shape(x)
    flat = node.emit("reshape", x, node.shape_of([product(dims[:axis]), product(dims[axis:])]))
    return node.emit("reshape", node.emit("nn.softmax", flat, axis=1), node.shape_of(dims))


def _average_pool(node: Node, x: Value) -> Value:
    if not node.attribute("channels_last", 0):
        return averaged(node, x)
    rank = len(node.shape(x))
    first = node.emit("permute_dims", x, axes=(0, rank - 1, *range(1, rank - 1)))
    pooled = averaged(node, first)
    return node.emit("permute_dims", pooled, axes=(0, *range(2, rank), 1))


def qlinear_add(node: Node) -> Result:
    """a + b of quantized tensors that broadcast."""
    a, b, y = quantized(node, 0), quantized(node, 3), target(node, 6)
    total = node.emit("add", as_float(node, a), as_float(node, b))
    return quantize(node, total, y, node.dtype(node.value(0)))


def qlinear_mul(node: Node) -> Result:
    """a * b of quantized tensors that broadcast; the product of integers is exact."""
    a, b, y = quantized(node, 0), quantized(node, 3), target(node, 6)
    factors = (
        node.emit("astype", centered(node, node.value(index), item.zero), dtype=INT32)
        for index, item in ((0, a), (3, b))
    )
    scale = combined_scale(node, a.scale, b.scale, y.scale)
    return requantized(node, node.emit("multiply", *factors), scale, _zero_of(node, y), 0)


def _zero_of(node: Node, y: Quantized) -> Value:
    """The zero point of a result, 0 in the dtype of operand 0 where it is left out."""
    return y.zero if y.zero is not None else node.scalar(0, node.value(0))


def qlinear_global_average_pool(node: Node) -> Result:
    """The mean over all spatial dimensions: a sum of integers, scaled once."""
    x, y = quantized(node, 0), target(node, 3)
    value = node.value(0)
    rank = len(node.shape(value))
    spatial = range(1, rank - 1) if node.attribute("channels_last", 0) else range(2, rank)
    wide = node.emit("astype", centered(node, value, x.zero), dtype=INT32)
    total = node.emit("sum", wide, axis=tuple(spatial), keepdims=True)
    dims = node.shape(value)
    count = product([dims[axis] for axis in spatial])
    number = node.emit(
        "reshape", node.emit("shape_to_tensor", node.shape_of([count])), node.shape_of([])
    )
    divisor = node.emit("multiply", y.scale, node.emit("astype", number, dtype=FLOAT32))
    scale = node.emit("divide", x.scale, divisor)
    return requantized(node, total, scale, _zero_of(node, y), 0)


def qlinear_concat(node: Node) -> Result:
    """Quantized tensors joined along an axis, each brought to the result's scale."""
    y = target(node, 0)
    dtype = node.dtype(node.value(2))
    parts = [
        quantize(node, as_float(node, quantized(node, index)), y, dtype)
        for index in range(2, len(node.operands), 3)
    ]
    axis = node.axis(node.attribute("axis", 0), len(node.shape(parts[0])))
    return node.emit("concat", make_tuple(*parts), axis=axis)


def qlinear_where(node: Node) -> Result:
    """The first quantized tensor where the condition holds, else the second."""
    a, b, y = quantized(node, 1), quantized(node, 4), target(node, 7)
    chosen = node.emit("where", node.value(0), as_float(node, a), as_float(node, b))
    return quantize(node, chosen, y, node.dtype(node.value(1)))


def q_gemm(node: Node) -> Result:
    """alpha * A' * B' + C of quantized matrices; C is int32. Quantized again, or float32."""
    a, b = node.value(0), node.value(3)
    a_zero, b_zero = optional(node, 2), optional(node, 5)
    if node.attribute("transA", 0):
        a = _transposed(node, a)
    if node.attribute("transB", 0):
        b = _transposed(node, b)
    total = integer_product(node, a, b, a_zero, b_zero)
    if node.has(6):
        total = node.emit("add", total, node.value(6))
    a_scale, b_scale = node.value(1), node.value(4)
    alpha = node.attribute("alpha", 1.0)
    if alpha != 1.0:
        a_scale = node.emit("multiply", a_scale, node.scalar(alpha, a_scale))
    if not node.has(7):
        scale = combined_scale(node, a_scale, b_scale)
        return node.emit("multiply", to_float(node, total), scale)
    y = target(node, 7)
    return requantized(
        node, total, combined_scale(node, a_scale, b_scale, y.scale), _zero_of(node, y), 1
    )


def _transposed(node: Node, matrix: Value) -> Value:
    return node.emit("permute_dims", matrix, axes=(1, 0))


def scaled_product(
    node: Node, total: Value, a_scale: Value, b_scale: Value, bias: Value | None
) -> Value:
    """int32 sums as float32, scaled, plus a bias."""
    result = node.emit("multiply", to_float(node, total), combined_scale(node, a_scale, b_scale))
    return result if bias is None else node.emit("add", result, bias)


def matmul_integer_to_float(node: Node) -> Result:
    """The product of quantized matrices as float32, plus a bias."""
    a, b, a_scale, b_scale = (node.value(i) for i in range(4))
    total = integer_product(node, a, b, optional(node, 4), optional(node, 5))
    return scaled_product(node, total, a_scale, b_scale, optional(node, 6))


def dynamic_quantize_matmul(node: Node) -> Result:
    """The product of a float matrix, quantized when the model runs, with a quantized one."""
    value, scale, zero = dynamically_quantized(node, node.value(0))
    total = integer_product(node, value, node.value(1), zero, optional(node, 3))
    return scaled_product(node, total, scale, node.value(2), optional(node, 4))


def matmul_n_bits(node: Node) -> Result:
    """The product with a transposed matrix of 2, 4 or 8 bits an element, quantized in blocks of
    its rows. The matrix must be constant: it is unpacked while importing."""
    columns, depth = node.attribute("N", 0), node.attribute("K", 0)
    bits, block = node.attribute("bits", 4), node.attribute("block_size", 32)
    packed, scales = node.constant(1), node.value(2)
    if packed is None or bits not in (2, 4, 8):
        raise node.error(f"a matrix of {bits} bits that is computed, or of odd bits")
    if node.has(4):
        raise node.error("a permutation of the groups (g_idx) is not covered")
    blocks = -(-depth // block)
    matrix = _unpacked(packed.reshape(columns, -1), bits)[:, :depth]
    dims = node.shape_of([IntImm(columns), IntImm(blocks)])
    zeros: Value = constant(np.full((columns, blocks), 1 << (bits - 1), matrix.dtype))
    if node.has(3):
        given = node.constant(3)
        if given is not None and given.dtype == np.uint8:
            rows = given.reshape(columns, -1)
            zeros = constant(np.ascontiguousarray(_unpacked(rows, bits)[:, :blocks]))
        else:
            zeros = node.emit("reshape", node.value(3), dims)
    kind = node.dtype(node.value(0))
    numbers: Value = constant(np.ascontiguousarray(matrix))
    if node.dtype(zeros).is_float:
        numbers = node.emit("astype", numbers, dtype=node.dtype(zeros))
    weight = node.emit(
        "dequantize",
        numbers,
        node.emit("reshape", scales, dims),
        zeros,
        axis=1,
        block=block,
        out_dtype=kind,
    )
    result = node.emit("matmul", node.value(0), _transposed(node, weight))
    return node.emit("add", result, node.value(5)) if node.has(5) else result


def _unpacked(rows: np.ndarray, bits: int) -> np.ndarray:
    """Rows of bytes that hold numbers of `bits` each, the low bits first, as rows of bytes."""
    if bits == 8:
        return rows
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (rows[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(rows.shape[0], -1)


MICROSOFT_QUANTIZED: dict[str, tuple[Converter, ...]] = {
    "DequantizeLinear": one(dequantize_linear),
    "DynamicQuantizeMatMul": one(dynamic_quantize_matmul),
    "MatMulIntegerToFloat": one(matmul_integer_to_float),
    "MatMulNBits": one(matmul_n_bits),
    "QGemm": one(q_gemm),
    "QLinearAdd": one(qlinear_add),
    "QLinearAveragePool": on_floats(_average_pool),
    "QLinearConcat": one(qlinear_concat),
    "QLinearGlobalAveragePool": one(qlinear_global_average_pool),
    "QLinearLeakyRelu": on_floats(_leaky_relu),
    "QLinearMul": one(qlinear_mul),
    "QLinearSigmoid": on_floats(_sigmoid),
    "QLinearSoftmax": on_floats(_softmax),
    "QLinearWhere": one(qlinear_where),
    "QuantizeLinear": one(quantize_linear),
}
"""Converters of ONNX Runtime's quantized operators."""
