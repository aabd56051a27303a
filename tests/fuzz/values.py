"""Random expressions over loop variables and buffers of every dtype.

Values are such that every operation is exact or insensitive to contraction, and undefined behaviour
does not occur. What is only accurate to some units in the last place comes from `inexact`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

from transect.ir.dtype import BOOL, FLOAT32, INT32, DType, as_dtype
from transect.ir.expr import (
    EQ,
    LT,
    Add,
    And,
    Binary,
    Call,
    Div,
    Expr,
    IntImm,
    Max,
    Min,
    Mul,
    Or,
    Select,
    Sub,
    Var,
    cast,
    const,
    make,
    truncdiv,
    truncmod,
)
from transect.tir import op
from transect.tir.buffer import Buffer
from transect.tir.intrinsics import INTRINSICS

ItemT = TypeVar("ItemT")

FLOATS = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
DTYPES = (
    *FLOATS, "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "int4", "uint4", "bool",
)  # fmt: skip
_UNARY = (
    "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "rsqrt",
)  # fmt: skip
_PAIRS = ("pow", "atan2", "hypot", "fmod")


@dataclass
class Values:
    """Draws expressions. readable: the buffers that may be loaded from. dtypes: by name."""

    draw: st.DrawFn
    readable: list[Buffer]
    dtypes: tuple[str, ...] = DTYPES

    def pick(self, items: Sequence[ItemT]) -> ItemT:
        return self.draw(st.sampled_from(items))

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def dtype(self) -> DType:
        return as_dtype(self.pick(self.dtypes))

    # --- expressions

    def index(self, dim: Expr, indices: list[Var]) -> Expr:
        """An index in [0, dim), from the loop variables."""
        if not indices:
            return IntImm(0)
        base = self.pick(indices)
        how = self.number(0, 4)
        if how == 0:
            return (base + self.number(0, 3)) % dim
        if how == 1:
            return Min(base, dim - 1)
        if how == 2:
            return (dim - 1) - base % dim
        if how == 3:
            return (base * self.number(1, 3) + self.pick(indices)) % dim
        return base % dim

    def load(self, indices: list[Var]) -> Expr:
        source = self.pick(self.readable)
        return source[tuple(self.index(dim, indices) for dim in source.shape)]

    def leaf(self, dtype: DType, indices: list[Var]) -> Expr:
        how = self.number(0, 3)
        if how == 0:
            low = -3 if dtype.is_int or dtype.is_float else 0
            return const(self.number(low, 1 if dtype.is_bool else 3), dtype)
        if how == 1 and indices:
            return cast(self.pick(indices) % 7, dtype)
        return self.convert(self.load(indices), dtype)

    def convert(self, value: Expr, dtype: DType) -> Expr:
        """`value` as `dtype`; a float becomes an integer only where that is defined."""
        if value.dtype.is_float and dtype.is_integral:
            # These limits are numbers in every format.
            low = 0.0 if dtype.is_uint else -8.0 if dtype.bits < 8 else -64.0
            high = 7.0 if dtype.bits < 8 else 64.0
            clamped = Min(Max(value, const(low, value.dtype)), const(high, value.dtype))
            ordered = EQ(value, value)
            return cast(Select(ordered, clamped, const(0.0, value.dtype)), dtype)
        return cast(value, dtype)

    def condition(self, indices: list[Var]) -> Expr:
        """A condition on exact values only."""
        dtype = self.dtype()
        a, b = self.leaf(dtype, indices), self.leaf(dtype, indices)
        how = self.number(0, 6)
        if how == 0:
            return LT(a, b)
        if how == 1:
            return EQ(a, b)
        if how == 5 and dtype.is_float:
            return op.isnan(a) | op.isinf(b)
        if how == 6:
            return cast(a, BOOL) | ~cast(b, BOOL)
        if how == 2 and indices:
            return LT(self.pick(indices), IntImm(self.number(0, 6)))
        if how == 3:
            return self.condition(indices) & LT(b, a)
        return ~LT(a, b)

    def expr(self, dtype: DType, indices: list[Var], depth: int = 3) -> Expr:
        if depth == 0 or self.number(0, 4) == 0:
            return self.leaf(dtype, indices)
        how = self.number(0, 9)
        a = self.expr(dtype, indices, depth - 1)
        if how <= 4:
            kinds = [And, Or] if dtype.is_bool else [Add, Sub, Mul, Min, Max]
            kind: type[Binary] = self.pick(kinds)
            return make(kind, a, self.expr(dtype, indices, depth - 1))
        if how == 5:
            return Select(self.condition(indices), a, self.expr(dtype, indices, depth - 1))
        if how == 6:
            other = self.expr(dtype, indices, depth - 1)
            return op.if_then_else(self.condition(indices), a, other)
        if how == 7:
            return self.convert(self.leaf(self.dtype(), indices), dtype)
        return self.special(a, dtype, indices)

    def special(self, a: Expr, dtype: DType, indices: list[Var]) -> Expr:
        b = self.leaf(dtype, indices)
        if dtype.is_bool:
            return self.pick([~a, EQ(a, b), LT(a, b)])
        if dtype.is_float:
            choices: list[Callable[[], Expr]] = [
                lambda: op.abs(a),
                lambda: op.sqrt(op.abs(b)),
                lambda: op.floor(b),
                lambda: op.ceil(b),
                lambda: op.trunc(b),
                lambda: op.round(b),
                lambda: op.nearbyint(b),
                lambda: op.copysign(a, b),
                lambda: op.fma(self.leaf(dtype, indices), b, self.leaf(dtype, indices)),
                lambda: op.ldexp(b, self.number(-3, 3)),
                lambda: op.nextafter(b, self.leaf(dtype, indices)),
            ]
            return self.pick(choices)()
        numbers = (1, 2, 3, 4, 5, -1, -2, -3) if dtype.is_int else (1, 2, 3, 4, 5)
        divisor = const(self.pick(numbers), dtype)
        shift = const(self.number(0, 3), dtype)
        choices: list[Callable[[], Expr]] = [
            lambda: a // divisor,
            lambda: a % divisor,
            lambda: truncdiv(a, divisor),
            lambda: truncmod(a, divisor),
            lambda: a & b,
            lambda: a | b,
            lambda: op.bitwise_xor(a, b),
            lambda: ~a,
            lambda: a << shift,
            lambda: a >> shift,
            lambda: op.popcount(a),
            lambda: op.clz(a),
            lambda: op.abs(a),
            lambda: a // make(Max, b, const(1, dtype)),
            lambda: a << (b & const(3, dtype)),
            lambda: a >> (b & const(3, dtype)),
            lambda: self.scaled(a, dtype),
        ]
        return self.pick(choices)()

    def scaled(self, a: Expr, dtype: DType) -> Expr:
        """A fixed-point product."""
        y, shift = self.number(-(1 << 20), 1 << 20), self.number(-6, 1)
        args = (cast(a, INT32), const(y, INT32), const(20, INT32), const(shift, INT32))
        return cast(Call(INTRINSICS["q_multiply_shift"], args, INT32), dtype)

    def inexact(self, dtype: DType, indices: list[Var]) -> Expr:
        """A value of a float `dtype` that is accurate to some units in the last place."""
        x = self.leaf(dtype, indices)
        how = self.number(0, 8)
        if how == 0:
            return make(Div, x, self.leaf(dtype, indices))
        if how == 1:
            bits = self.leaf(INT32, indices)
            return cast(op.reinterpret(bits, FLOAT32), dtype)
        if how <= 3:
            name, y = self.pick(_PAIRS), self.leaf(dtype, indices)
            return getattr(op, {"pow": "power"}.get(name, name))(x, y)
        return getattr(op, self.pick(_UNARY))(x)
