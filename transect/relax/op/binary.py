"""Operators on two tensors that broadcast: arithmetic, extrema, bits, logic.

Comparisons live in `compare.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import DType
from transect.ir.expr import (
    EQ,
    LT,
    NE,
    Expr,
    IntImm,
    Var,
    cast,
    const,
    logical_and,
    logical_or,
    maximum,
    minimum,
    negate,
    select,
    truncdiv,
    truncmod,
)
from transect.ir.types import TensorType, Type
from transect.relax.expr import Op
from transect.relax.op.inference import (
    broadcast_types,
    common_dtype,
    fail,
    tensor_or_scalar,
)
from transect.relax.op.loops import TensorOperand, load, math, result_type
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.op import checked, if_then_else
from transect.tir.stmt import Stmt, seq


@dataclass(frozen=True)
class Binary(Operator):
    """Base of maps of two operands that broadcast as numpy's do: `scalar` gives an element.

    A scalar operand (a PrimValue) counts as a tensor of rank 0. Both operands have one dtype.
    """

    def check(self, dtype: DType) -> None:
        """Refuse a dtype of the operands that does not fit: by default bool."""
        if not (dtype.is_float or dtype.is_integral):
            fail(self, f"the operands must be numbers, got {dtype}", "cast them with R.astype")

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """The dtype of the result, that of the operands unless overridden."""
        return dtype

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """The element of the result from those of the operands."""
        raise NotImplementedError(f"{type(self).__name__}.scalar")

    def infer(self, a: Type, b: Type) -> TensorType:
        """The broadcast shape. Raises InferenceError where the operands do not broadcast."""
        left, right = tensor_or_scalar(self, a, "a"), tensor_or_scalar(self, b, "b")
        dtype = common_dtype(self, left, right)
        for kind in (left.dtype, right.dtype):
            if kind is not None:
                self.check(kind)
        return broadcast_types(self, left, right, dtype=self.result_dtype(dtype))

    def legalize(self, b: FunctionBuilder, x: TensorOperand, y: TensorOperand) -> Buffer:
        """One map."""
        result = result_type(self, x, y)
        sizes = result.shape or ()

        def element(*i: Var) -> Expr:
            return self.scalar(load(x, sizes, i), load(y, sizes, i))

        return b.compute(sizes, element, name="y", dtype=result.dtype)


# --- arithmetic ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Add(Binary):
    """add(a, b): a + b; integers wrap around. Source: ONNX Add-14."""

    name = "add"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """a + b."""
        return a + b


@dataclass(frozen=True)
class Subtract(Binary):
    """subtract(a, b): a - b; integers wrap around. Source: ONNX Sub-14."""

    name = "subtract"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """a - b."""
        return a - b


@dataclass(frozen=True)
class Multiply(Binary):
    """multiply(a, b): a * b; integers wrap around. Source: ONNX Mul-14."""

    name = "multiply"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """a * b."""
        return a * b


@dataclass(frozen=True)
class Divide(Binary):
    """divide(a, b): a / b of floats; of integers the quotient truncated toward zero.

    An integer divided by 0 fails when it runs, with ZeroDivisionError. Source: ONNX Div-14.
    """

    name = "divide"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """a / b."""
        return a / b if a.dtype.is_float else truncdiv(a, nonzero(self, b))


@dataclass(frozen=True)
class FloorDivide(Binary):
    """floor_divide(a, b): the greatest integral value not above the exact a / b.

    Of floats it is consistent with floor_mod, as Python's //: where a / b rounds up to an
    integer, that integer minus one. Source: array API floor_divide.
    """

    name = "floor_divide"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """// of integers; of floats from the exact remainder."""
        if not a.dtype.is_float:
            return a // nonzero(self, b)
        zero, one = const(0, a.dtype), const(1, a.dtype)
        remainder = math("fmod", a, b)
        quotient = (a - remainder) / b
        below = logical_and(NE(remainder, zero), differ_in_sign(remainder, b))
        quotient = select(below, quotient - one, quotient)
        floor = math("floor", quotient)
        nearest = select(quotient - floor > const(0.5, a.dtype), floor + one, floor)
        # A zero keeps the sign of the exact quotient; b = 0 gives what IEEE division does.
        nearest = select(NE(quotient, zero), nearest, math("copysign", zero, a / b))
        return select(NE(b, zero), nearest, a / b)


@dataclass(frozen=True)
class FloorMod(Binary):
    """floor_mod(a, b): a - floor(a / b) * b, with the sign of b. Source: array API remainder."""

    name = "floor_mod"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """% of integers; of floats the exact remainder moved to the sign of b."""
        if not a.dtype.is_float:
            return a % nonzero(self, b)
        zero = const(0, a.dtype)
        remainder = math("fmod", a, b)
        moved = select(differ_in_sign(remainder, b), remainder + b, remainder)
        return select(NE(remainder, zero), moved, math("copysign", remainder, b))


@dataclass(frozen=True)
class Mod(Binary):
    """mod(a, b): the remainder of the truncating division, with the sign of a.

    Source: Relax mod; ONNX Mod-13 with fmod=1.
    """

    name = "mod"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """The C remainder, exact for floats."""
        return math("fmod", a, b) if a.dtype.is_float else truncmod(a, nonzero(self, b))


@dataclass(frozen=True)
class Power(Binary):
    """power(a, b): a to the power of b; integers wrap around.

    A negative exponent of integers gives the power truncated toward zero: 0, except for the bases
    1 and -1 (and 0, whose result is unspecified). Source: ONNX Pow-15.
    """

    name = "power"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """T.pow of floats."""
        return math("pow", a, b)

    def legalize(self, b: FunctionBuilder, x: TensorOperand, y: TensorOperand) -> Buffer:
        """One map; of integers a scan over the exponent's bits that squares and multiplies."""
        result = result_type(self, x, y)
        dtype = result.dtype
        if dtype is None or dtype.is_float:
            return super().legalize(b, x, y)
        sizes = result.shape or ()
        one, zero = const(1, dtype), const(0, dtype)
        square = b.allocate(sizes, dtype, name="square")
        power = b.allocate(sizes, dtype, name="power")

        def step(*i: Var) -> Stmt:
            *place, bit = i
            here = tuple(place)
            odd = NE(load(y, sizes, here) >> cast(bit, dtype) & one, zero)
            base = load(x, sizes, here)
            factor = if_then_else(EQ(bit, IntImm(0)), base, square[here] * square[here])
            so_far = if_then_else(EQ(bit, IntImm(0)), one, power[here])
            return seq(
                store(square, here, factor),
                store(power, here, select(odd, so_far * square[here], so_far)),
            )

        bits = dtype.bits - (0 if dtype.is_uint else 1)
        b.block((*sizes, bits), step, kinds="S" * len(sizes) + "N", name="power")
        if dtype.is_uint:
            return power

        def signed(*i: Var) -> Expr:
            base, exponent = load(x, sizes, i), load(y, sizes, i)
            unit = logical_or(EQ(base, one), EQ(base, const(-1, dtype)))
            odd = NE(exponent & one, zero)
            small = select(unit, select(odd, base, one), zero)
            return select(exponent < zero, small, power[i])

        return b.compute(sizes, signed, name="y")


@dataclass(frozen=True)
class Atan2(Binary):
    """atan2(a, b): the angle of the point (b, a), in radians. Operands: float.

    Source: array API atan2.
    """

    name = "atan2"

    def check(self, dtype: DType) -> None:
        """The dtype must be a float one."""
        if not dtype.is_float:
            fail(self, f"the operands must be floats, got {dtype}")

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """T.atan2."""
        return math("atan2", a, b)


@dataclass(frozen=True)
class LogAddExp(Binary):
    """log_add_exp(a, b): log(exp(a) + exp(b)), without overflow. Operands: float.

    Source: array API logaddexp.
    """

    name = "log_add_exp"

    def check(self, dtype: DType) -> None:
        """The dtype must be a float one."""
        if not dtype.is_float:
            fail(self, f"the operands must be floats, got {dtype}")

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """The larger plus log1p(exp(-|a - b|)); equal infinities are their own result."""
        # inf - inf is NaN, so equal operands take log(2) from the second branch.
        distance = math("fabs", a - b)
        log_two = const(0.6931471805599453, a.dtype)
        rest = select(EQ(a, b), log_two, math("log1p", math("exp_nonpositive", negate(distance))))
        return maximum(a, b) + rest


def nonzero(op: Op, divisor: Expr) -> Expr:
    """An integer divisor; where it is 0, the kernel fails."""
    message = f"{op.name}: integer division by zero"
    condition = NE(divisor, const(0, divisor.dtype))
    return checked(divisor, condition, message, exception="ZeroDivisionError")


def differ_in_sign(a: Expr, b: Expr) -> Expr:
    """Whether exactly one of two floats is below zero."""
    zero = const(0, a.dtype)
    return NE(LT(a, zero), LT(b, zero))


# --- extrema ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Maximum(Binary):
    """maximum(a, b): the larger; NaN if either is NaN. Source: ONNX Max-13."""

    name = "maximum"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """Max."""
        return maximum(a, b)


@dataclass(frozen=True)
class Minimum(Binary):
    """minimum(a, b): the smaller; NaN if either is NaN. Source: ONNX Min-13."""

    name = "minimum"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """Min."""
        return minimum(a, b)


# --- bits ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bitwise(Binary):
    """Base of the operations on the bits of integers or on bool."""

    def check(self, dtype: DType) -> None:
        """The dtype must not be a float one."""
        if dtype.is_float:
            fail(self, f"the operands must be integers or bool, got {dtype}")


@dataclass(frozen=True)
class BitwiseAnd(Bitwise):
    """bitwise_and(a, b): the bits set in both. Source: ONNX BitwiseAnd-18."""

    name = "bitwise_and"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """& ; of bool the logical operation."""
        return a & b


@dataclass(frozen=True)
class BitwiseOr(Bitwise):
    """bitwise_or(a, b): the bits set in either. Source: ONNX BitwiseOr-18."""

    name = "bitwise_or"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """| ; of bool the logical operation."""
        return a | b


@dataclass(frozen=True)
class BitwiseXor(Bitwise):
    """bitwise_xor(a, b): the bits set in exactly one. Source: ONNX BitwiseXor-18."""

    name = "bitwise_xor"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """^ ; of bool inequality."""
        return NE(a, b) if a.dtype.is_bool else a ^ b


@dataclass(frozen=True)
class Shift(Binary):
    """Base of the shifts of integers."""

    def check(self, dtype: DType) -> None:
        """The dtype must be an integer one."""
        if not dtype.is_integral:
            fail(self, f"the operands must be integers, got {dtype}")


@dataclass(frozen=True)
class LeftShift(Shift):
    """left_shift(a, b): a * 2**b, wrapped; 0 where b is at least the number of bits.

    b: not negative. Source: array API bitwise_left_shift.
    """

    name = "left_shift"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """<< for the shifts that machines have."""
        bits = const(a.dtype.bits - 1, a.dtype)
        return select(b > bits, const(0, a.dtype), a << minimum(b, bits))


@dataclass(frozen=True)
class RightShift(Shift):
    """right_shift(a, b): floor(a / 2**b). b: not negative.

    Source: array API bitwise_right_shift.
    """

    name = "right_shift"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """>> for the shifts that machines have; beyond them, what is left is the sign."""
        bits = const(a.dtype.bits - 1, a.dtype)
        shifted = a >> minimum(b, bits)
        return select(b > bits, const(0, a.dtype), shifted) if a.dtype.is_uint else shifted


@dataclass(frozen=True)
class Logical(Binary):
    """Base of the operations on truth values."""

    def check(self, dtype: DType) -> None:
        """The dtype must be bool."""
        if not dtype.is_bool:
            fail(self, f"the operands must be bool, got {dtype}", 'cast them: R.astype(x, "bool")')


@dataclass(frozen=True)
class LogicalAnd(Logical):
    """logical_and(a, b): both are true. Source: ONNX And-7."""

    name = "logical_and"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """And."""
        return a & b


@dataclass(frozen=True)
class LogicalOr(Logical):
    """logical_or(a, b): at least one is true. Source: ONNX Or-7."""

    name = "logical_or"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """Or."""
        return a | b


@dataclass(frozen=True)
class LogicalXor(Logical):
    """logical_xor(a, b): exactly one is true. Source: ONNX Xor-7."""

    name = "logical_xor"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """NE."""
        return NE(a, b)


@dataclass(frozen=True)
class EwiseFMA(Operator):
    """ewise_fma(a, b, c): a * b + c, elementwise; the operands broadcast.

    Operands: numbers of one dtype. The product is rounded too. Source: Relax ewise_fma.
    """

    name = "ewise_fma"

    def infer(self, a: Type, b: Type, c: Type) -> TensorType:
        """The broadcast shape."""
        return Add().infer(Multiply().infer(a, b), c)

    def legalize(
        self, b: FunctionBuilder, x: TensorOperand, y: TensorOperand, z: TensorOperand
    ) -> Buffer:
        """One map."""
        result = result_type(self, x, y, z)
        sizes = result.shape or ()

        def element(*i: Var) -> Expr:
            return load(x, sizes, i) * load(y, sizes, i) + load(z, sizes, i)

        return b.compute(sizes, element, name="y", dtype=result.dtype)
