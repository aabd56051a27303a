"""Quantization as ONNX has it, and products of quantized integers.

Zero points are taken out of products: sum((a - za) * (b - zb)) is sum(a * b) minus za and zb times
sums of rows and columns, which for weights are constant. So the inner loops are plain sums of
products of bytes in int32, where wrapping around keeps them exact. What ONNX Runtime adds is in
`microsoft_quantized.py`.
"""

from __future__ import annotations

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.cast import onnx_dtype
from transect.frontend.onnx.operators.convolution import convolution
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.windows import channel_vector
from transect.frontend.onnx.values import Elements, Operand
from transect.ir.dtype import FLOAT32, INT32, UINT8, as_dtype
from transect.ir.expr import IntImm, as_int
from transect.relax.expr import Constant, Value, constant


def quantize_linear(node: Node) -> Result:
    """round(x / scale) + zero point; the output's dtype is that of the zero point."""
    value, scale = node.value(0), node.value(1)
    zero = node.value(2) if node.has(2) else None
    code = node.attribute("output_dtype", 0)
    if zero is not None:
        dtype = node.dtype(zero)
    else:
        dtype = onnx_dtype(node, code) if code else UINT8
    precision = node.attribute("precision", 0)
    return node.emit(
        "quantize",
        value,
        *parameters(scale, zero),
        out_dtype=dtype,
        saturate=node.attribute("saturate", 1) == 1,
        precision=onnx_dtype(node, precision) if precision else None,
        **_placement(node, value, scale),
    )


def dequantize_linear(node: Node) -> Result:
    """(x - zero point) * scale; the output's dtype is that of the scale, or an attribute."""
    value, scale = node.value(0), node.value(1)
    zero = node.value(2) if node.has(2) else None
    code = node.attribute("output_dtype", 0)
    return node.emit(
        "dequantize",
        value,
        *parameters(scale, zero),
        out_dtype=onnx_dtype(node, code) if code else node.dtype(scale),
        **_placement(node, value, scale),
    )


def parameters(scale: Value, zero: Value | None) -> list[Value]:
    """The scale, and the zero point where there is one that is not known to be 0."""
    return [scale] if zero is None or is_zero(zero) else [scale, zero]


def is_zero(zero: Value) -> bool:
    """Whether a zero point is a constant of zeros."""
    return isinstance(zero, Constant) and not zero.data.astype(np.float32).any()


def _placement(node: Node, value: Value, scale: Value) -> dict[str, int]:
    """The axis and block size; the axis means nothing for a single scale."""
    rank, block = len(node.shape(value)), node.attribute("block_size", 0)
    if len(node.shape(scale)) == 0 or (not block and as_int(node.shape(scale)[0]) == 1):
        return {}
    return {"axis": node.axis(node.attribute("axis", 1), rank), "block": block}


def dynamic_quantize_linear(node: Node) -> Result:
    """To uint8, with the scale and zero point that the values' range gives."""
    return dynamically_quantized(node, node.value(0))


def dynamically_quantized(node: Node, value: Value) -> list[Value]:
    """`value` as uint8, its scale, its zero point."""
    zero = node.scalar(0.0, value)
    steps = node.scalar(255.0, value)
    low = node.emit("minimum", node.emit("min", value), zero)
    high = node.emit("maximum", node.emit("max", value), zero)
    span = node.emit("subtract", high, low)
    # Of zeros alone any scale will do: ONNX Runtime takes 1.
    flat = node.emit("equal", span, zero)
    scale = node.emit("where", flat, node.scalar(1.0, value), node.emit("divide", span, steps))
    place = node.emit("divide", node.emit("subtract", zero, low), scale)
    clipped = node.emit("minimum", node.emit("maximum", node.emit("round", place), zero), steps)
    point = node.emit("astype", clipped, dtype=UINT8)
    return [node.emit("quantize", value, scale, point, out_dtype=UINT8), scale, point]


def centered(node: Node, value: Value, zero: Value | None) -> Value:
    """`value` minus its zero point, in a dtype where that is exact."""
    if zero is None or is_zero(zero):
        return value
    dtype = as_dtype("int16") if node.dtype(value).bits <= 8 else INT32
    wide = (node.emit("astype", item, dtype=dtype) for item in (value, zero))
    return node.emit("subtract", *wide)


def as_column(node: Node, value: Value, rank: int) -> Value:
    """A zero point or scale of rows, (m,) or one for all, so that it broadcasts to a matrix."""
    dims = node.shape(value)
    if len(dims) != 1 or as_int(dims[0]) == 1 or rank < 2:
        return one_for_all(node, value)
    return node.emit("reshape", value, node.shape_of([*dims, IntImm(1)]))


def one_for_all(node: Node, value: Value) -> Value:
    """A tensor of one element as a scalar; others as they are."""
    dims = node.shape(value)
    if not dims or any(as_int(dim) != 1 for dim in dims):
        return value
    if isinstance(value, Constant):
        return constant(value.data.reshape(()))
    return node.emit("reshape", value, node.shape_of([]))


def integer_product(
    node: Node, a: Value, b: Value, a_zero: Value | None, b_zero: Value | None
) -> Value:
    """The matrix product of what two quantized tensors stand for, as int32. a_zero: one, or one
    for each row; b_zero: one, or one for each column."""
    if a_zero is not None:
        a_zero = as_column(node, a_zero, len(node.shape(a)))
    if b_zero is not None:
        b_zero = one_for_all(node, b_zero)
    if min(len(node.shape(item)) for item in (a, b)) < 2:
        left, right = centered(node, a, a_zero), centered(node, b, b_zero)
        return node.emit("matmul", left, right, out_dtype=INT32)
    total = node.emit("matmul", a, b, out_dtype=INT32)
    a_offset, b_offset = (
        None if zero is None or is_zero(zero) else node.emit("astype", zero, dtype=INT32)
        for zero in (a_zero, b_zero)
    )
    if a_offset is not None:
        columns = _total(node, b, -2)
        total = node.emit("subtract", total, node.emit("multiply", a_offset, columns))
    if b_offset is not None:
        rows = _total(node, a, -1)
        if a_offset is not None:
            depth = node.simplify(node.shape(a)[-1])
            count = node.emit(
                "astype", node.tensor(Operand(None, Elements((depth,), 0))), dtype=INT32
            )
            rows = node.emit("subtract", rows, node.emit("multiply", a_offset, count))
        total = node.emit("subtract", total, node.emit("multiply", b_offset, rows))
    return total


def _total(node: Node, value: Value, *axes: int) -> Value:
    """The sums over axes, kept, as int32."""
    wide = node.emit("astype", value, dtype=INT32)
    return node.emit("sum", wide, axis=axes, keepdims=True)


def optional(node: Node, index: int) -> Value | None:
    """Operand `index`, None where the node leaves it out."""
    return node.value(index) if node.has(index) else None


def matmul_integer(node: Node) -> Result:
    """The product of quantized matrices as int32."""
    a, b = node.value(0), node.value(1)
    return integer_product(node, a, b, optional(node, 2), optional(node, 3))


def integer_convolution(
    node: Node, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None
) -> Value:
    """The convolution of what two quantized tensors stand for, as int32; the padding stands for 0.
    w_zero: one, or one for each output channel."""
    if w_zero is not None:
        w_zero = one_for_all(node, w_zero)
        if node.shape(w_zero):
            w_zero = channel_vector(node, w_zero, len(node.shape(w)) - 1)
    w = centered(node, w, w_zero)
    if x_zero is None or is_zero(x_zero):
        return convolution(node, x, w, INT32)
    # The padding holds the zero point, so that every window lacks the same.
    x_zero = one_for_all(node, x_zero)
    rank = len(node.shape(w))
    sums = node.emit("reshape", _total(node, w, *range(1, rank)), node.shape_of([node.shape(w)[0]]))
    lacking = node.emit("multiply", node.emit("astype", x_zero, dtype=INT32), sums)
    total = convolution(node, x, w, INT32, x_zero)
    return node.emit("subtract", total, channel_vector(node, lacking, rank - 2))


def conv_integer(node: Node) -> Result:
    """The convolution of quantized tensors as int32."""
    x, w = node.value(0), node.value(1)
    return integer_convolution(node, x, w, optional(node, 2), optional(node, 3))


def combined_scale(node: Node, a: Value, b: Value, y: Value | None = None) -> Value:
    """a * b / y, in float32 and in this order, as ONNX Runtime does."""
    a, b = (to_float(node, one_for_all(node, item)) for item in (a, b))
    product = node.emit("multiply", a, b)
    return (
        product if y is None else node.emit("divide", product, to_float(node, one_for_all(node, y)))
    )


def to_float(node: Node, value: Value) -> Value:
    """`value` as float32."""
    return value if node.dtype(value) is FLOAT32 else node.emit("astype", value, dtype=FLOAT32)


def requantized(node: Node, total: Value, scale: Value, zero: Value, axis: int) -> Value:
    """int32 sums as quantized numbers of the dtype of `zero`; axis: that of a vector of scales."""
    fields = {"axis": axis} if node.shape(scale) else {}
    zero = one_for_all(node, zero)
    return node.emit("requantize", total, scale, zero, out_dtype=node.dtype(zero), **fields)


def qlinear_matmul(node: Node) -> Result:
    """The product of quantized matrices, quantized again."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.value(i) for i in range(8))
    total = integer_product(node, a, b, a_zero, b_zero)
    rank = len(node.shape(total))
    if (
        node.shape(one_for_all(node, a_scale))
        or len(node.shape(b_scale)) > 1
        or (len(node.shape(a)) == 1)
    ):
        # Scales of rows: an outer product, which no one axis has.
        scale = combined_scale(node, as_column(node, a_scale, len(node.shape(a))), b_scale, y_scale)
        value = node.emit("multiply", node.emit("astype", total, dtype=FLOAT32), scale)
        unit = constant(np.float32(1.0))
        zero = one_for_all(node, y_zero)
        return node.emit("quantize", value, unit, zero, out_dtype=node.dtype(zero))
    return requantized(
        node, total, combined_scale(node, a_scale, b_scale, y_scale), y_zero, rank - 1
    )


def qlinear_conv(node: Node) -> Result:
    """The convolution of quantized tensors, with an int32 bias, quantized again."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (node.value(i) for i in range(8))
    total = integer_convolution(node, x, w, x_zero, w_zero)
    if node.has(8):
        bias = channel_vector(node, node.value(8), len(node.shape(x)) - 2)
        total = node.emit("add", total, bias)
    return requantized(node, total, combined_scale(node, x_scale, w_scale, y_scale), y_zero, 1)


QUANTIZE: dict[str, tuple[Converter, ...]] = {
    "ConvInteger": one(conv_integer),
    "DequantizeLinear": one(dequantize_linear),
    "DynamicQuantizeLinear": one(dynamic_quantize_linear),
    "MatMulInteger": one(matmul_integer),
    "QLinearConv": one(qlinear_conv),
    "QLinearMatMul": one(qlinear_matmul),
    "QuantizeLinear": one(quantize_linear),
}
"""Converters of ONNX's quantization."""
