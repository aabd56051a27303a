"""Conversions of elements that are no plain casts: saturating ones, and of the bits alone.

The plain cast, `astype`, lives in `elementwise.py`; quantization in `qdq.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transect.ir.dtype import FLOAT32, UINT8, UINT32, DType
from transect.ir.expr import (
    EQ,
    NE,
    Expr,
    cast,
    const,
    logical_and,
    logical_or,
    maximum,
    minimum,
    select,
)
from transect.ir.types import TensorType
from transect.relax.op.elementwise import Unary
from transect.relax.op.inference import fail
from transect.tir.op import reinterpret

RoundMode = Literal["up", "down", "nearest"]


def saturated(x: Expr, dtype: DType) -> Expr:
    """`x`, a float, as a float `dtype`: what is too large becomes its largest finite value."""
    low, high = const(dtype.min_value, x.dtype), const(dtype.max_value, x.dtype)
    return cast(minimum(maximum(x, low), high), dtype)


@dataclass(frozen=True)
class CastNarrow(Unary):
    """cast_narrow(x, dtype, saturate, round_mode): x as a float format of 8 bits.

    saturate: numbers too large, infinities included, become the largest finite one; else they
    become what the format has for them. round_mode: of float8_e8m0fnu, which has powers of two
    only and drops the sign; the others round to nearest even. Source: ONNX Cast-25.
    """

    name = "cast_narrow"
    dtype: DType
    saturate: bool = True
    round_mode: RoundMode = "up"

    def check(self, x: TensorType) -> None:
        """Any dtype; the fields must fit each other."""
        if not self.dtype.is_float or self.dtype.bits != 8:
            fail(self, f"dtype must be a float of 8 bits, got {self.dtype}", "use astype")
        if self.round_mode not in ("up", "down", "nearest"):
            fail(self, f"round_mode must be up, down or nearest, got {self.round_mode!r}")

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """The attribute."""
        return self.dtype

    def scalar(self, x: Expr) -> Expr:
        """Limits, then a Cast; of exponents alone, arithmetic on the bits."""
        if not x.dtype.is_float or x.dtype.bits < 32:
            x = cast(x, FLOAT32)
        if self.dtype.code == "float8_e8m0fnu":
            return self._exponent(cast(x, FLOAT32))
        return saturated(x, self.dtype) if self.saturate else cast(x, self.dtype)

    def _exponent(self, x: Expr) -> Expr:
        def number(value: int) -> Expr:
            return const(value, UINT32)

        bits = reinterpret(x, UINT32) & number(0x7FFFFFFF)
        exponent, fraction = bits >> number(23), bits & number(0x7FFFFF)
        half, zero = number(0x400000), number(0)
        above = {
            "up": NE(fraction, zero),
            "nearest": logical_or(
                fraction > half, logical_and(EQ(fraction, half), exponent > zero)
            ),
            "down": fraction > number(0x7FFFFF),
        }[self.round_mode]
        most = number(0xFD if self.saturate else 0xFE)
        rounded = select(logical_and(above, exponent <= most), exponent + number(1), exponent)
        return reinterpret(cast(rounded, UINT8), self.dtype)


@dataclass(frozen=True)
class Bitcast(Unary):
    """bitcast(x, dtype): the bits of each element of x as another dtype of the same width.

    Source: ONNX BitCast-26.
    """

    name = "bitcast"
    dtype: DType

    def check(self, x: TensorType) -> None:
        """The widths must be equal; a bool counts as a byte."""
        if x.dtype is not None and _width(x.dtype) != _width(self.dtype):
            fail(self, f"{x.dtype} and {self.dtype} differ in width")

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """The attribute."""
        return self.dtype

    def scalar(self, x: Expr) -> Expr:
        """T.reinterpret, where a bool is its byte."""
        value = cast(x, UINT8) if x.dtype.is_bool else x
        if self.dtype.is_bool:
            return NE(reinterpret(value, UINT8), const(0, UINT8))
        return reinterpret(value, self.dtype)


def _width(dtype: DType) -> int:
    return 8 if dtype.is_bool else dtype.bits
