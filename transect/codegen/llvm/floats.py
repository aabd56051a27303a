"""Conversions between float32/float64 and bfloat16, float8 and float16, rounding to nearest even.

Everything is integer arithmetic on lanes of any count, so that no conversion depends on the
machine's extensions or a compiler's run-time library. Sources: ml_dtypes' definitions (e4m3fn has
no infinities and saturates to NaN), IEEE 754 for the others.
"""

from __future__ import annotations

from transect.codegen.llvm.builder import FunctionText
from transect.codegen.llvm.types import splat, vector_of
from transect.ir.dtype import DType

_FORMATS = {"bfloat16": (8, 7), "float8_e4m3fn": (4, 3), "float8_e5m2": (5, 2), "float16": (5, 10)}
"""(exponent bits, fraction bits)."""


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
    exponent_bits, fraction_bits = _FORMATS[str(dtype.element)]
    bits = lanes.cast("bitcast", value, "float", "i32")
    magnitude = lanes.op("and", bits, 0x7FFFFFFF)
    drop = 23 - fraction_bits
    half = (1 << (drop - 1)) - 1
    if exponent_bits == 8:
        odd = lanes.op("and", lanes.op("lshr", magnitude, drop), 1)
        rounded = lanes.op("lshr", lanes.op("add", lanes.op("add", magnitude, half), odd), drop)
        nan_code = 0x7FC0
    else:
        bias = (1 << (exponent_bits - 1)) - 1
        smallest_normal = (127 - bias + 1) << 23
        odd = lanes.op("and", lanes.op("lshr", magnitude, drop), 1)
        shifted = lanes.op("sub", magnitude, (127 - bias) << 23)
        normal = lanes.op("lshr", lanes.op("add", lanes.op("add", shifted, half), odd), drop)
        # Subnormal results: adding the power of two whose unit in the last place is the smallest
        # step lets the floating-point adder do the rounding.
        magic = (127 - bias + drop + 1) << 23
        absolute = lanes.cast("bitcast", magnitude, "i32", "float")
        step = lanes.cast("bitcast", lanes.constant(magic), "i32", "float")
        total = text.define(f"fadd {vector_of('float', dtype.lanes)} {absolute}, {step}")
        subnormal = lanes.op("sub", lanes.cast("bitcast", total, "float", "i32"), magic)
        rounded = lanes.select(lanes.test("ult", magnitude, smallest_normal), subnormal, normal)
        if dtype.code == "float8_e4m3fn":
            nan_code = 0x7F
            rounded = lanes.select(lanes.test("ugt", rounded, 0x7E), nan_code, rounded)
        else:
            infinity = ((1 << exponent_bits) - 1) << fraction_bits
            nan_code = infinity | 1 << (fraction_bits - 1)
            rounded = lanes.select(lanes.test("ugt", rounded, infinity), infinity, rounded)
    rounded = lanes.select(lanes.test("ugt", magnitude, 0x7F800000), nan_code, rounded)
    width = dtype.element.bits
    sign = lanes.op("and", lanes.op("lshr", bits, 32 - width), 1 << (width - 1))
    return lanes.cast("trunc", lanes.op("or", rounded, sign), "i32", f"i{width}")


def bits_to_float32(
    text: FunctionText, value: str, dtype: DType, *, native_half: bool = False
) -> str:
    """float32 lanes from the bits of a narrow format; exact."""
    lanes = _Lanes(text, dtype.lanes)
    if native_half and dtype.code == "float":
        return lanes.cast("fpext", lanes.cast("bitcast", value, "i16", "half"), "half", "float")
    exponent_bits, fraction_bits = _FORMATS[str(dtype.element)]
    width = dtype.element.bits
    wide = lanes.cast("zext", value, f"i{width}", "i32")
    if exponent_bits == 8:
        return lanes.cast("bitcast", lanes.op("shl", wide, 16), "i32", "float")
    sign = lanes.op("shl", lanes.op("and", wide, 1 << (width - 1)), 32 - width)
    magnitude = lanes.op("and", wide, (1 << (width - 1)) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    # Placing the fields under a float32 exponent and multiplying by the power of two that the
    # biases differ by is right for normal and subnormal values alike.
    placed = lanes.cast("bitcast", lanes.op("shl", magnitude, 23 - fraction_bits), "i32", "float")
    scale = lanes.cast("bitcast", lanes.constant((127 + 127 - bias) << 23), "i32", "float")
    scaled = text.define(f"fmul {vector_of('float', dtype.lanes)} {placed}, {scale}")
    result = lanes.cast("bitcast", scaled, "float", "i32")
    if dtype.code == "float8_e4m3fn":
        special = lanes.test("eq", magnitude, 0x7F)
        result = lanes.select(special, 0x7FC00000, result)
    else:
        infinity = ((1 << exponent_bits) - 1) << fraction_bits
        special = lanes.test("uge", magnitude, infinity)
        result = lanes.select(special, lanes.op("or", result, 0x7F800000), result)
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
