"""Conversions of the element type: Cast, CastLike, BitCast."""

from __future__ import annotations

import onnx

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.ir.dtype import DType, as_dtype
from transect.relax.expr import Value
from transect.support.errors import InputTypeError


def onnx_dtype(node: Node, code: int) -> DType:
    """The dtype of an ONNX type code. Raises ImportModelError if it has no counterpart."""
    try:
        return as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, InputTypeError):
        names = {number: name for name, number in onnx.TensorProto.DataType.items()}
        raise node.error(
            f"element type {names.get(code, code)} has no counterpart",
            "use a numeric or bool tensor",
        ) from None


def convert_to(node: Node, dtype: DType) -> Result:
    """Operand 0 as `dtype`."""
    return to_format(node, node.value(0), dtype)


def to_format(node: Node, value: Value, dtype: DType) -> Value:
    """`value` as `dtype`, by the attributes `saturate` and `round_mode` of the node where the
    dtype is a float of 8 bits."""
    if node.dtype(value) is dtype:
        return value
    if not dtype.is_float or dtype.bits != 8:
        return node.emit("astype", value, dtype=dtype)
    return node.emit(
        "cast_narrow",
        value,
        dtype=dtype,
        saturate=node.attribute("saturate", 1) == 1,
        round_mode=node.attribute("round_mode", "up"),
    )


def cast(node: Node) -> Result:
    """Conversion to the dtype of an attribute."""
    return convert_to(node, onnx_dtype(node, node.attribute("to", 0)))


def cast_like(node: Node) -> Result:
    """Conversion to the dtype of the second operand."""
    return convert_to(node, node.dtype(node.value(1)))


def bit_cast(node: Node) -> Result:
    """The same bits as another dtype of the same width."""
    return node.emit("bitcast", node.value(0), dtype=onnx_dtype(node, node.attribute("to", 0)))


CAST: dict[str, tuple[Converter, ...]] = {
    "BitCast": one(bit_cast),
    "Cast": one(cast),
    "CastLike": one(cast_like),
}
"""Converters of conversions."""
