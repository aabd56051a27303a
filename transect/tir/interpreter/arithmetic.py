"""What operators and math intrinsics compute, on numpy scalars and arrays alike.

Integers wrap around, casts follow C, quotients truncate where the node says so. Functions of the
C library are computed in float64 and rounded once, as the best reference for any approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    Binary,
    Div,
    FloorDiv,
    FloorMod,
    Max,
    Min,
    Mod,
    Mul,
    Sub,
)

Value = Any
"""A numpy scalar, or an array over the open grid axes (innermost first) and then the lanes."""


where: Callable[[Value, Value, Value], Value] = np.where
"""Elementwise choice (condition, a, b), with a type that says as little as `Value`."""


def truncated_quotient(a: Value, b: Value) -> Value:
    """a / b of integers, toward zero; b is not 0."""
    quotient = np.floor_divide(a, b)
    uneven = (quotient * b != a) & ((a < 0) != (b < 0))
    return quotient + uneven.astype(quotient.dtype)


def divide(a: Value, b: Value) -> Value:
    """Div: IEEE for floats, truncated for integers."""
    return truncated_quotient(a, b) if a.dtype.kind in "iu" else np.divide(a, b)


def _minimum(a: Value, b: Value) -> Value:
    # numpy prefers the first of equals for float16 only, which shows in the sign of zero.
    return where((a < b) | (a != a), a, b) if a.dtype == np.float16 else np.minimum(a, b)


def _maximum(a: Value, b: Value) -> Value:
    return where((a > b) | (a != a), a, b) if a.dtype == np.float16 else np.maximum(a, b)


BINARY: dict[type[Binary], Callable[[Value, Value], Value]] = {
    Add: np.add,
    Sub: np.subtract,
    Mul: np.multiply,
    Div: divide,
    Mod: np.fmod,
    FloorDiv: np.floor_divide,
    FloorMod: np.remainder,
    Min: _minimum,
    Max: _maximum,
    EQ: np.equal,
    NE: np.not_equal,
    LT: np.less,
    LE: np.less_equal,
    GT: np.greater,
    GE: np.greater_equal,
}
"""The two-operand nodes but And and Or, which do not always evaluate their second operand."""


def convert(value: Value, source: DType, target: DType) -> Value:
    """`value` cast by the rules of C; to bool: whether it is not zero."""
    if target.is_bool:
        return value != value.dtype.type(0)
    if source.is_float and target.is_integral:
        return _float_to_integer(value, target)
    if source.bits < 8 and source.is_integral:
        value = value.astype(np.int8)  # ml_dtypes converts its small integers to few others.
    return value.astype(target.numpy)


def _float_to_integer(value: Value, target: DType) -> Value:
    # Through int64 (or uint64), then wrapped: narrower conversions of numpy differ by platform.
    wide = np.uint64 if target.is_uint and target.bits == 64 else np.int64
    return np.trunc(value.astype(np.float64)).astype(wide).astype(target.numpy)


def _through_float64(function: Callable[..., Value]) -> Callable[..., Value]:
    def compute(*args: Value) -> Value:
        kind = args[0].dtype
        return np.asarray(function(*(arg.astype(np.float64) for arg in args))).astype(kind)[()]

    return compute


_erf = np.frompyfunc(math.erf, 1, 1)


def _error_function(x: Value) -> Value:
    result: Value = _erf(x)
    return np.asarray(result).astype(np.float64)


def _sigmoid(x: Value) -> Value:
    return 1.0 / (1.0 + np.exp(-x))


def _round_half_away(x: Value) -> Value:
    whole: Value = np.trunc(x)
    return where(np.abs(x - whole) >= 0.5, whole + np.copysign(1.0, x), whole)


def _fused_multiply_add(a: Value, b: Value, c: Value) -> Value:
    kind = a.dtype
    if kind == np.float64:
        return np.asarray(_exact_multiply_add(a, b, c)).astype(kind)[()]
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    # The product is exact. The sum is rounded to odd, so that rounding it again is rounding once.
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    even = np.asarray(total).view(np.int64) & 1 == 0
    inexact = np.isfinite(total) & (error != 0) & even
    toward = np.nextafter(total, np.copysign(np.inf, error))
    return where(inexact, toward, total).astype(kind)[()]


def _multiply_add_of_floats(a: float, b: float, c: float) -> float:
    plain = a * b + c
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return plain
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact) if exact else plain
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


_exact_multiply_add = np.frompyfunc(_multiply_add_of_floats, 3, 1)


def _next_after(a: Value, b: Value) -> Value:
    # As in C, equal arguments give the second: a zero of its sign.
    return where(a == b, b, np.nextafter(a, b))


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _bits_of(x: Value) -> Value:
    return np.asarray(x).view(_UNSIGNED[x.dtype.itemsize])


def _population_count(x: Value) -> Value:
    return np.bitwise_count(_bits_of(x)).astype(x.dtype)[()]


def _leading_zeros(x: Value) -> Value:
    bits = _bits_of(x)
    width = bits.dtype.itemsize * 8
    shift = 1
    while shift < width:
        bits = bits | (bits >> bits.dtype.type(shift))
        shift *= 2
    return (width - np.bitwise_count(bits).astype(np.int64)).astype(x.dtype)[()]


def _load_exponent(x: Value, exponent: Value) -> Value:
    return np.ldexp(x.astype(np.float64), exponent.astype(np.int32)).astype(x.dtype)


def _multiply_shift(x: Value, y: Value, bits: Value, shift: Value) -> Value:
    """round(x * y * 2**(shift - bits)) of fixed-point int32 values."""
    left, right = np.maximum(shift, 0).astype(np.int64), np.maximum(-shift, 0).astype(np.int64)
    product = (x.astype(np.int64) << left) * y.astype(np.int64)
    total = bits.astype(np.int64) + right
    return ((product + (np.int64(1) << (total - 1))) >> total).astype(np.int32)


def _identity(x: Value) -> Value:
    return x


def _exp10(x: Value) -> Value:
    return np.power(10.0, x)


def _reciprocal_root(x: Value) -> Value:
    return 1.0 / np.sqrt(x)


_LIBRARY: dict[str, Callable[..., Value]] = {
    "exp": np.exp,
    "exp_nonpositive": np.exp,
    "exp2": np.exp2,
    "exp10": _exp10,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "rsqrt": _reciprocal_root,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _error_function,
    "sigmoid": _sigmoid,
    "pow": np.power,
    "atan2": np.arctan2,
    "fmod": np.fmod,
    "hypot": np.hypot,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "nearbyint": np.rint,
    "round": _round_half_away,
    "copysign": np.copysign,
}

MATH: dict[str, Callable[..., Value]] = {
    **{name: _through_float64(function) for name, function in _LIBRARY.items()},
    "fabs": np.abs,
    "abs": np.abs,
    "fma": _fused_multiply_add,
    "ldexp": _load_exponent,
    "nextafter": _next_after,
    "popcount": _population_count,
    "clz": _leading_zeros,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "likely": _identity,
    "tvm_thread_invariant": _identity,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "bitwise_not": np.invert,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    "q_multiply_shift": _multiply_shift,
}
"""Pure intrinsics whose result follows from the values of their arguments."""


def on_dtype(function: Callable[..., Value], dtype: DType) -> Callable[..., Value]:
    """`function` on values of `dtype`: integers below a byte are computed in bytes and wrapped."""
    if not dtype.is_integral or dtype.bits >= 8:
        return function
    function = _on_few_bits(function, dtype.bits)
    wide, kind = (np.int8 if dtype.is_int else np.uint8), dtype.numpy
    mask, sign = wide((1 << dtype.bits) - 1), wide(1 << (dtype.bits - 1))

    def compute(*args: Value) -> Value:
        result: Value = function(*(arg.astype(wide) for arg in args))
        if result.dtype == np.bool_:
            return result
        low = result & mask
        return (((low ^ sign) - sign) if dtype.is_int else low).astype(kind)

    return compute


def _on_few_bits(function: Callable[..., Value], bits: int) -> Callable[..., Value]:
    """The functions that count bits, on the low `bits` of a byte."""
    if function not in (_population_count, _leading_zeros):
        return function
    spare = 8 - bits if function is _leading_zeros else 0

    def compute(x: Value) -> Value:
        kind = x.dtype.type
        return function(x & kind((1 << bits) - 1)) - kind(spare)

    return compute


def reinterpret(value: Value, source: DType, target: DType) -> Value:
    """The same bits as another dtype; lanes are the last axis of a vector."""
    array = np.asarray(value)
    if source.is_scalar:
        array = array[..., None]
    bits = np.ascontiguousarray(array).view(target.numpy)
    return bits[..., 0] if target.is_scalar else bits
