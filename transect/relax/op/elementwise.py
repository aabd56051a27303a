"""Operators that map each element of one tensor: functions, rounding, tests, casts.

Activations of neural networks live in `nn_activation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import BOOL, DType
from transect.ir.expr import (
    NE,
    Expr,
    FloatImm,
    IntImm,
    Var,
    call_bitwise,
    cast,
    const,
    logical_not,
    maximum,
    minimum,
    negate,
    select,
)
from transect.ir.types import TensorType, Type
from transect.relax.op.inference import (
    fail,
    present,
    require_dtype,
    require_float,
    require_number,
    tensor,
    tensor_or_scalar,
)
from transect.relax.op.loops import TensorOperand, load, math
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import abs as absolute
from transect.tir.op import isfinite, isinf, isnan


@dataclass(frozen=True)
class Unary(Operator):
    """Base of maps of one tensor of any shape: `scalar` gives an element of the result."""

    def check(self, x: TensorType) -> None:
        """Refuse an operand whose dtype does not fit."""
        del x

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """The dtype of the result, that of the operand unless overridden."""
        return dtype

    def scalar(self, x: Expr) -> Expr:
        """The element of the result from that of the operand."""
        raise NotImplementedError(f"{type(self).__name__}.scalar")

    def infer(self, x: Type) -> TensorType:
        """The shape of the operand with the result's dtype."""
        x = tensor(self, x, "x")
        self.check(x)
        return TensorType(x.shape, self.result_dtype(x.dtype), x.ndim, x.device)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""

        def element(*i: Var) -> Expr:
            return self.scalar(x[i])

        return b.compute(x.shape, element, name="y", dtype=self.result_dtype(x.dtype))


@dataclass(frozen=True)
class FloatUnary(Unary):
    """Base of maps of a float tensor, by default with the intrinsic of their name."""

    def check(self, x: TensorType) -> None:
        """The dtype must be a float one."""
        require_float(self, x)

    def scalar(self, x: Expr) -> Expr:
        """The intrinsic of the operator's own name."""
        return math(self.name, x)


@dataclass(frozen=True)
class NumberUnary(Unary):
    """Base of maps of an integer or float tensor."""

    def check(self, x: TensorType) -> None:
        """The dtype must be a number."""
        require_number(self, x)


@dataclass(frozen=True)
class Test(FloatUnary):
    """Base of the tests that give bool."""

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """Bool."""
        return BOOL


@dataclass(frozen=True)
class Exp(FloatUnary):
    """exp(x): e to the power of x, elementwise.

    x: float. Result: the type of x. Source: ONNX Exp-13.
    """

    name = "exp"


@dataclass(frozen=True)
class Log(FloatUnary):
    """log(x): the natural logarithm; NaN below 0, -inf at 0, elementwise.

    x: float. Result: the type of x. Source: ONNX Log-13.
    """

    name = "log"


@dataclass(frozen=True)
class Log2(FloatUnary):
    """log2(x): the logarithm to base 2, elementwise.

    x: float. Result: the type of x. Source: array API log2.
    """

    name = "log2"


@dataclass(frozen=True)
class Log10(FloatUnary):
    """log10(x): the logarithm to base 10, elementwise.

    x: float. Result: the type of x. Source: array API log10.
    """

    name = "log10"


@dataclass(frozen=True)
class Log1p(FloatUnary):
    """log1p(x): log(1 + x), exact for small x, elementwise.

    x: float. Result: the type of x. Source: array API log1p.
    """

    name = "log1p"


@dataclass(frozen=True)
class Expm1(FloatUnary):
    """expm1(x): exp(x) - 1, exact for small x, elementwise.

    x: float. Result: the type of x. Source: array API expm1.
    """

    name = "expm1"


@dataclass(frozen=True)
class Sqrt(FloatUnary):
    """sqrt(x): the square root; NaN below 0, elementwise.

    x: float. Result: the type of x. Source: ONNX Sqrt-13.
    """

    name = "sqrt"


@dataclass(frozen=True)
class Rsqrt(FloatUnary):
    """rsqrt(x): 1 / sqrt(x), elementwise. x: float. Result: the type of x. Source: Relax rsqrt."""

    name = "rsqrt"


@dataclass(frozen=True)
class Sin(FloatUnary):
    """sin(x): the sine of x radians, elementwise.

    x: float. Result: the type of x. Source: ONNX Sin-7.
    """

    name = "sin"


@dataclass(frozen=True)
class Cos(FloatUnary):
    """cos(x): the cosine of x radians, elementwise.

    x: float. Result: the type of x. Source: ONNX Cos-7.
    """

    name = "cos"


@dataclass(frozen=True)
class Tan(FloatUnary):
    """tan(x): the tangent of x radians, elementwise.

    x: float. Result: the type of x. Source: ONNX Tan-7.
    """

    name = "tan"


@dataclass(frozen=True)
class Sinh(FloatUnary):
    """sinh(x): the hyperbolic sine, elementwise.

    x: float. Result: the type of x. Source: ONNX Sinh-9.
    """

    name = "sinh"


@dataclass(frozen=True)
class Cosh(FloatUnary):
    """cosh(x): the hyperbolic cosine, elementwise.

    x: float. Result: the type of x. Source: ONNX Cosh-9.
    """

    name = "cosh"


@dataclass(frozen=True)
class Tanh(FloatUnary):
    """tanh(x): the hyperbolic tangent, elementwise.

    x: float. Result: the type of x. Source: ONNX Tanh-13.
    """

    name = "tanh"


@dataclass(frozen=True)
class Asin(FloatUnary):
    """asin(x): the arc sine in radians; NaN outside [-1, 1], elementwise.

    x: float. Result: the type of x. Source: ONNX Asin-7.
    """

    name = "asin"


@dataclass(frozen=True)
class Acos(FloatUnary):
    """acos(x): the arc cosine in radians; NaN outside [-1, 1], elementwise.

    x: float. Result: the type of x. Source: ONNX Acos-7.
    """

    name = "acos"


@dataclass(frozen=True)
class Atan(FloatUnary):
    """atan(x): the arc tangent in radians, elementwise.

    x: float. Result: the type of x. Source: ONNX Atan-7.
    """

    name = "atan"


@dataclass(frozen=True)
class Asinh(FloatUnary):
    """asinh(x): the inverse hyperbolic sine, elementwise.

    x: float. Result: the type of x. Source: ONNX Asinh-9.
    """

    name = "asinh"


@dataclass(frozen=True)
class Acosh(FloatUnary):
    """acosh(x): the inverse hyperbolic cosine; NaN below 1, elementwise.

    x: float. Result: the type of x. Source: ONNX Acosh-9.
    """

    name = "acosh"


@dataclass(frozen=True)
class Atanh(FloatUnary):
    """atanh(x): the inverse hyperbolic tangent; NaN outside [-1, 1], elementwise.

    x: float. Result: the type of x. Source: ONNX Atanh-9.
    """

    name = "atanh"


@dataclass(frozen=True)
class Erf(FloatUnary):
    """erf(x): the Gauss error function, elementwise.

    x: float. Result: the type of x. Source: ONNX Erf-13.
    """

    name = "erf"


@dataclass(frozen=True)
class Sigmoid(FloatUnary):
    """sigmoid(x): 1 / (1 + exp(-x)), elementwise.

    x: float. Result: the type of x. Source: ONNX Sigmoid-13.
    """

    name = "sigmoid"


# --- numbers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Negative(NumberUnary):
    """negative(x): -x, elementwise. x: number; integers wrap around. Source: ONNX Neg-13."""

    name = "negative"

    def scalar(self, x: Expr) -> Expr:
        """-x, with the sign of a float zero changed too."""
        return negate(x) if x.dtype.is_float else const(0, x.dtype) - x


@dataclass(frozen=True)
class Abs(NumberUnary):
    """abs(x): the magnitude, elementwise. x: number; the least integer stays itself.

    Source: ONNX Abs-13.
    """

    name = "abs"

    def scalar(self, x: Expr) -> Expr:
        """x itself where it has no sign."""
        return absolute(x)


@dataclass(frozen=True)
class Sign(NumberUnary):
    """sign(x): -1, 0 or 1 as x is below, at or above zero; NaN of NaN. Source: ONNX Sign-13."""

    name = "sign"

    def scalar(self, x: Expr) -> Expr:
        """Comparisons with zero; x itself where it is zero or NaN."""
        positive = select(x > const(0, x.dtype), const(1, x.dtype), x)
        if x.dtype.is_uint:
            return positive
        return select(x < const(0, x.dtype), const(-1, x.dtype), positive)


@dataclass(frozen=True)
class Square(NumberUnary):
    """square(x): x * x, elementwise. x: number. Source: array API square."""

    name = "square"

    def scalar(self, x: Expr) -> Expr:
        """x * x."""
        return x * x


@dataclass(frozen=True)
class Rounding(NumberUnary):
    """Base of the roundings to an integral value: integers stay as they are."""

    def scalar(self, x: Expr) -> Expr:
        """The intrinsic of the operator's own name."""
        return math(self.name, x) if x.dtype.is_float else x


@dataclass(frozen=True)
class Floor(Rounding):
    """floor(x): the greatest integer that is not above x. Source: ONNX Floor-13."""

    name = "floor"


@dataclass(frozen=True)
class Ceil(Rounding):
    """ceil(x): the least integer that is not below x. Source: ONNX Ceil-13."""

    name = "ceil"


@dataclass(frozen=True)
class Trunc(Rounding):
    """trunc(x): x without its fraction. Source: array API trunc."""

    name = "trunc"


@dataclass(frozen=True)
class Round(Rounding):
    """round(x): the nearest integer, halves to the even one. Source: ONNX Round-11."""

    name = "round"

    def scalar(self, x: Expr) -> Expr:
        """T.nearbyint: T.round takes halves away from zero."""
        return math("nearbyint", x) if x.dtype.is_float else x


@dataclass(frozen=True)
class Clip(NumberUnary):
    """clip(x, min, max): min(max(x, min), max), elementwise; NaN stays NaN.

    x: number. min, max: scalars or tensors of rank 0, taken in the dtype of x; absent for no
    limit. Where min > max the result is max. Source: ONNX Clip-13.
    """

    name = "clip"

    def infer(self, x: Type, min: Type | None = None, max: Type | None = None) -> TensorType:
        """The type of x. Raises InferenceError for a limit that is not a scalar."""
        x = tensor(self, x, "x")
        require_number(self, x)
        for limit, what in ((min, "min"), (max, "max")):
            if present(limit) is not None and limit is not None:
                kind = tensor_or_scalar(self, limit, what)
                if kind.ndim > 0:
                    fail(self, f"{what} must be a scalar, got {limit!r}")
        return x

    def legalize(
        self,
        b: FunctionBuilder,
        x: Buffer,
        min: TensorOperand | None = None,
        max: TensorOperand | None = None,
    ) -> Buffer:
        """One map."""

        def element(*i: Var) -> Expr:
            value: Expr = x[i]
            if min is not None:
                value = maximum(value, clamp_cast(load(min, (), ()), x.dtype))
            if max is not None:
                value = minimum(value, clamp_cast(load(max, (), ()), x.dtype))
            return value

        return b.compute(x.shape, element, name="y")


def clamp_cast(limit: Expr, dtype: DType) -> Expr:
    """A limit in `dtype`; a float constant beyond an integer dtype's range becomes its end."""
    if isinstance(limit, FloatImm | IntImm) and dtype.is_integral:
        if limit.value != limit.value:
            return const(0, dtype)
        low, high = dtype.min_value, dtype.max_value
        return const(int(sorted((low, limit.value, high))[1]), dtype)
    return cast(limit, dtype)


# --- tests, logic, bits ----------------------------------------------------------------------


@dataclass(frozen=True)
class IsNan(Test):
    """isnan(x): whether x is not a number. x: float. Result: bool. Source: ONNX IsNaN-20."""

    name = "isnan"

    def scalar(self, x: Expr) -> Expr:
        """T.isnan."""
        return isnan(x)


@dataclass(frozen=True)
class IsInf(Test):
    """isinf(x): whether x is an infinity. x: float. Result: bool. Source: ONNX IsInf-20."""

    name = "isinf"

    def scalar(self, x: Expr) -> Expr:
        """T.isinf."""
        return isinf(x)


@dataclass(frozen=True)
class IsFinite(Test):
    """isfinite(x): whether x is neither infinite nor NaN. x: float. Result: bool.

    Source: array API isfinite.
    """

    name = "isfinite"

    def scalar(self, x: Expr) -> Expr:
        """T.isfinite."""
        return isfinite(x)


@dataclass(frozen=True)
class LogicalNot(Unary):
    """logical_not(x): the opposite truth value. x: bool. Source: ONNX Not-1."""

    name = "logical_not"

    def check(self, x: TensorType) -> None:
        """The dtype must be bool."""
        require_dtype(self, x, BOOL, "x")

    def scalar(self, x: Expr) -> Expr:
        """Not x."""
        return logical_not(x)


@dataclass(frozen=True)
class BitwiseNot(Unary):
    """bitwise_not(x): all bits inverted. x: integer or bool. Source: ONNX BitwiseNot-18."""

    name = "bitwise_not"

    def check(self, x: TensorType) -> None:
        """The dtype must not be a float one."""
        if x.dtype is not None and x.dtype.is_float:
            fail(self, f"x must have an integer or bool dtype, got {x.dtype}")

    def scalar(self, x: Expr) -> Expr:
        """Not x of bool, else T.bitwise_not."""
        return logical_not(x) if x.dtype.is_bool else call_bitwise("bitwise_not", x)


# --- conversion ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Astype(Unary):
    """astype(x, dtype): x converted. Floats to integers truncate toward zero; numbers to bool
    give x != 0 (NaN is true).

    Source: ONNX Cast-13.
    """

    name = "astype"
    dtype: DType

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """The attribute."""
        return self.dtype

    def scalar(self, x: Expr) -> Expr:
        """A Cast, or a comparison for bool."""
        if self.dtype.is_bool and not x.dtype.is_bool:
            return NE(x, const(0, x.dtype))
        return cast(x, self.dtype)


@dataclass(frozen=True)
class WrapParam(Unary):
    """wrap_param(x, dtype): a parameter converted to `dtype`, kept apart so that passes can tell.

    Source: Relax wrap_param.
    """

    name = "wrap_param"
    dtype: DType

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """The attribute."""
        return self.dtype

    def scalar(self, x: Expr) -> Expr:
        """A Cast."""
        return cast(x, self.dtype)


@dataclass(frozen=True)
class StopLiftParams(Unary):
    """builtin.stop_lift_params(x): x; what follows is not moved to where parameters are prepared.

    Source: Relax builtin.stop_lift_params.
    """

    name = "builtin.stop_lift_params"

    def scalar(self, x: Expr) -> Expr:
        """x."""
        return x
