"""Conversions between float32/float64 and the narrow formats, rounding to nearest even.

Everything is integer arithmetic on lanes of any count, so that no conversion depends on the
machine's extensions or a compiler's run-time library. Sources: ml_dtypes' definitions for what
IEEE 754 does not know (float8, float4, bfloat16).
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.codegen.llvm.builder import FunctionText
from transect.codegen.llvm.types import splat, vector_of
from transect.ir.dtype import DType


@dataclass(frozen=True)
class _Format:
    """A narrow format: the widths and bias of its fields, and its codes without the sign.

    largest: the largest finite value; overflow: what anything above becomes; nan: NaN, with the
    sign bit where that is part of it.
    """

    exponent: int
    fraction: int
    bias: int
    largest: int
    overflow: int
    nan: int
    negative_zero: bool = True


_FORMATS = {
    "float16": _Format(5, 10, 15, 0x7BFF, 0x7C00, 0x7E00),
    "bfloat16": _Format(8, 7, 127, 0x7F7F, 0x7F80, 0x7FC0),
    "float8_e4m3fn": _Format(4, 3, 7, 0x7E, 0x7F, 0x7F),
    "float8_e4m3fnuz": _Format(4, 3, 8, 0x7F, 0x80, 0x80, negative_zero=False),
    "float8_e5m2": _Format(5, 2, 15, 0x7B, 0x7C, 0x7E),
    "float8_e5m2fnuz": _Format(5, 2, 16, 0x7F, 0x80, 0x80, negative_zero=False),
    # Without NaN: it becomes -0.
    "float4_e2m1fn": _Format(2, 1, 1, 0x7, 0x7, 0x8),
}


class _Lanes:
    """Lane-wise i32 instructions on `lanes` lanes."""

    def __init__(self, text: FunctionText, lanes: int) -> None:
        self.text = text
        self.lanes = lanes
        self.type = vector_of("i32", lanes)

    def constant(self, value: int) -> str:
        return splat("i32", str(value), self.lanes)

    def op(self, name: str, a: str, b: str | int) -> str:
        right = self.constant(b) if isinstance(b, int) else b
        return self.text.define(f"{name} {self.type} {a}, {right}")

    def test(self, name: str, a: str, b: str | int) -> str:
        right = self.constant(b) if isinstance(b, int) else b
        return self.text.define(f"icmp {name} {self.type} {a}, {right}")

    def select(self, condition: str, a: str | int, b: str | int) -> str:
        left = self.constant(a) if isinstance(a, int) else a
        right = self.constant(b) if isinstance(b, int) else b
        flag = vector_of("i1", self.lanes)
        return self.text.define(
            f"select {flag} {condition}, {self.type} {left}, {self.type} {right}"
        )

    def cast(self, name: str, value: str, source: str, target: str) -> str:
        return self.text.define(
            f"{name} {vector_of(source, self.lanes)} {value} to {vector_of(target, self.lanes)}"
        )


def float32_to_bits(
    text: FunctionText, value: str, dtype: DType, *, native_half: bool = False
) -> str:
    """The bits (i16 or i8 lanes) of float32 lanes rounded to a narrow format.

    native_half: the machine converts float16 itself.
    """
    lanes = _Lanes(text, dtype.lanes)
    if native_half and dtype.code == "float":
        return lanes.cast("bitcast", lanes.cast("fptrunc", value, "float", "half"), "half", "i16")
    bits = lanes.cast("bitcast", value, "float", "i32")
    if dtype.code == "float8_e8m0fnu":
        return _to_exponent(lanes, bits)
    form, width = _FORMATS[str(dtype.element)], dtype.bits
    magnitude = lanes.op("and", bits, 0x7FFFFFFF)
    drop = 23 - form.fraction
    odd = lanes.op("and", lanes.op("lshr", magnitude, drop), 1)
    rebias = (127 - form.bias) << 23
    shifted = lanes.op("sub", magnitude, rebias) if rebias else magnitude
    half = lanes.op("add", lanes.op("add", shifted, (1 << (drop - 1)) - 1), odd)
    rounded = lanes.op("lshr", half, drop)
    if rebias:
        # Subnormal results: adding the power of two whose unit in the last place is the smallest
        # step lets the floating-point adder do the rounding.
        magic = rebias + ((drop + 1) << 23)
        absolute = lanes.cast("bitcast", magnitude, "i32", "float")
        step = lanes.cast("bitcast", lanes.constant(magic), "i32", "float")
        total = text.define(f"fadd {vector_of('float', dtype.lanes)} {absolute}, {step}")
        subnormal = lanes.op("sub", lanes.cast("bitcast", total, "float", "i32"), magic)
        normal = lanes.test("uge", magnitude, rebias + (1 << 23))
        rounded = lanes.select(normal, rounded, subnormal)
    rounded = lanes.select(lanes.test("ugt", rounded, form.largest), form.overflow, rounded)
    rounded = lanes.select(lanes.test("ugt", magnitude, 0x7F800000), form.nan, rounded)
    sign = lanes.op("and", lanes.op("lshr", bits, 32 - width), 1 << (width - 1))
    if not form.negative_zero:
        sign = lanes.select(lanes.test("eq", rounded, 0), 0, sign)
    return lanes.cast("trunc", lanes.op("or", rounded, sign), "i32", f"i{width}")


def _to_exponent(lanes: _Lanes, bits: str) -> str:
    """float8_e8m0fnu: the exponent field alone, halves up; NaN for what is not above zero."""
    # The least value, 2^-127, is half of the least normal float32.
    half = lanes.select(lanes.test("ult", bits, 1 << 23), 1 << 21, 1 << 22)
    rounded = lanes.op("lshr", lanes.op("add", bits, half), 23)
    positive = lanes.test("ult", lanes.op("sub", bits, 1), 0x7F800000 - 1)
    return lanes.cast("trunc", lanes.select(positive, rounded, 0xFF), "i32", "i8")


def bits_to_float32(
    text: FunctionText, value: str, dtype: DType, *, native_half: bool = False
) -> str:
    """float32 lanes from the bits of a narrow format; exact."""
    lanes = _Lanes(text, dtype.lanes)
    if native_half and dtype.code == "float":
        return lanes.cast("fpext", lanes.cast("bitcast", value, "i16", "half"), "half", "float")
    width = dtype.bits
    wide = lanes.cast("zext", value, f"i{width}", "i32")
    if dtype.code == "float8_e8m0fnu":
        result = lanes.select(lanes.test("eq", wide, 0), 1 << 22, lanes.op("shl", wide, 23))
        result = lanes.select(lanes.test("eq", wide, 0xFF), 0x7FC00000, result)
        return lanes.cast("bitcast", result, "i32", "float")
    form = _FORMATS[str(dtype.element)]
    if form.bias == 127:
        return lanes.cast("bitcast", lanes.op("shl", wide, 16), "i32", "float")
    sign = lanes.op("shl", lanes.op("and", wide, 1 << (width - 1)), 32 - width)
    magnitude = lanes.op("and", wide, (1 << (width - 1)) - 1)
    # Placing the fields under a float32 exponent and multiplying by the power of two that the
    # biases differ by is right for normal and subnormal values alike.
    placed = lanes.cast("bitcast", lanes.op("shl", magnitude, 23 - form.fraction), "i32", "float")
    scale = lanes.cast("bitcast", lanes.constant((127 + 127 - form.bias) << 23), "i32", "float")
    scaled = text.define(f"fmul {vector_of('float', dtype.lanes)} {placed}, {scale}")
    result = lanes.cast("bitcast", scaled, "float", "i32")
    if dtype.has_infinity:
        special = lanes.test("uge", magnitude, form.overflow)
        result = lanes.select(special, lanes.op("or", result, 0x7F800000), result)
    elif dtype.has_nan:
        special = lanes.test("eq", magnitude if form.negative_zero else wide, form.nan)
        result = lanes.select(special, 0x7FC00000, result)
    return lanes.cast("bitcast", lanes.op("or", result, sign), "i32", "float")


def double_to_float_odd(text: FunctionText, value: str, lanes: int) -> str:
    """float32 lanes rounded to odd: a further rounding to a narrow format is then correct."""
    single, double, bits = (vector_of(kind, lanes) for kind in ("float", "double", "i32"))
    rounded = text.define(f"fptrunc {double} {value} to {single}")
    back = text.define(f"fpext {single} {rounded} to {double}")
    declared = text.module.declare(_fabs_name(lanes), double, [double])
    magnitude = text.define(f"call {double} {declared}({double} {value})")
    back_magnitude = text.define(f"call {double} {declared}({double} {back})")
    above = text.define(f"fcmp ogt {double} {back_magnitude}, {magnitude}")
    inexact = text.define(f"fcmp one {double} {back}, {value}")
    flag = vector_of("i1", lanes)
    raw = text.define(f"bitcast {single} {rounded} to {bits}")
    less = text.define(f"sub {bits} {raw}, {splat('i32', '1', lanes)}")
    toward_zero = text.define(f"select {flag} {above}, {bits} {less}, {bits} {raw}")
    odd = text.define(f"or {bits} {toward_zero}, {splat('i32', '1', lanes)}")
    chosen = text.define(f"select {flag} {inexact}, {bits} {odd}, {bits} {raw}")
    return text.define(f"bitcast {bits} {chosen} to {single}")


def _fabs_name(lanes: int) -> str:
    return "llvm.fabs.f64" if lanes == 1 else f"llvm.fabs.v{lanes}f64"
