"""Activation functions of neural networks, softmax, and dropout as it is at inference."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Expr, IntImm, Var, cast, const, maximum, minimum, negate, select
from transect.ir.types import TensorType, TupleType, Type
from transect.relax.op.elementwise import FloatUnary, NumberUnary
from transect.relax.op.inference import (
    common_device,
    common_dtype,
    fail,
    normalize_axis,
    require_float,
    require_rank,
    require_same,
    tensor,
)
from transect.relax.op.loops import accumulator, math, promoted
from transect.relax.op.operator import Operator
from transect.relax.op.reduce import reduce_axes
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder

# --- maps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relu(NumberUnary):
    """nn.relu(x): max(x, 0); NaN stays NaN. x: number. Source: ONNX Relu-14."""

    name = "nn.relu"

    def scalar(self, x: Expr) -> Expr:
        """Max with zero."""
        return maximum(x, const(0, x.dtype))


@dataclass(frozen=True)
class Relu6(NumberUnary):
    """nn.relu6(x): min(max(x, 0), 6); NaN stays NaN. x: number. Source: torch ReLU6."""

    name = "nn.relu6"

    def scalar(self, x: Expr) -> Expr:
        """Max with zero, then Min with six."""
        return minimum(maximum(x, const(0, x.dtype)), const(6, x.dtype))


@dataclass(frozen=True)
class LeakyRelu(FloatUnary):
    """nn.leakyrelu(x, alpha): x where x >= 0, else alpha * x.

    x: float. Source: ONNX LeakyRelu-16.
    """

    name = "nn.leakyrelu"
    alpha: float = 0.01

    def scalar(self, x: Expr) -> Expr:
        """A choice by the sign."""
        return select(x < const(0, x.dtype), x * const(self.alpha, x.dtype), x)


@dataclass(frozen=True)
class Elu(FloatUnary):
    """nn.elu(x, alpha): x where x >= 0, else alpha * (exp(x) - 1). x: float. Source: ONNX Elu-6."""

    name = "nn.elu"
    alpha: float = 1.0

    def scalar(self, x: Expr) -> Expr:
        """expm1 keeps small negative x exact."""
        low = math("expm1", minimum(x, const(0, x.dtype)))
        return select(x < const(0, x.dtype), low * const(self.alpha, x.dtype), x)


@dataclass(frozen=True)
class Celu(FloatUnary):
    """nn.celu(x, alpha): x where x >= 0, else alpha * (exp(x / alpha) - 1). x: float.

    Source: ONNX Celu-12.
    """

    name = "nn.celu"
    alpha: float = 1.0

    def scalar(self, x: Expr) -> Expr:
        """expm1 keeps small negative x exact."""
        zero, alpha = const(0, x.dtype), const(self.alpha, x.dtype)
        return select(x < zero, math("expm1", minimum(x, zero) / alpha) * alpha, x)


@dataclass(frozen=True)
class Selu(FloatUnary):
    """nn.selu(x, alpha, gamma): gamma * x where x >= 0, else gamma * alpha * (exp(x) - 1).

    x: float. Source: ONNX Selu-22.
    """

    name = "nn.selu"
    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    def scalar(self, x: Expr) -> Expr:
        """expm1 keeps small negative x exact."""
        zero = const(0, x.dtype)
        low = math("expm1", minimum(x, zero)) * const(self.alpha, x.dtype)
        return const(self.gamma, x.dtype) * select(x < zero, low, x)


@dataclass(frozen=True)
class Gelu(FloatUnary):
    """nn.gelu(x): x * Φ(x) = 0.5 * x * (1 + erf(x / sqrt(2))). x: float.

    Source: ONNX Gelu-20; Hendrycks and Gimpel, arXiv 1606.08415.
    """

    name = "nn.gelu"

    def scalar(self, x: Expr) -> Expr:
        """In float32 at least: the sum loses narrower floats' digits."""
        wide = promoted(x)
        root_half = const(0.7071067811865476, wide.dtype)
        half, one = const(0.5, wide.dtype), const(1, wide.dtype)
        return cast(wide * half * (math("erf", wide * root_half) + one), x.dtype)


@dataclass(frozen=True)
class GeluTanh(FloatUnary):
    """nn.gelu_tanh(x): 0.5 * x * (1 + tanh(sqrt(2 / π) * (x + 0.044715 * x**3))). x: float.

    Source: ONNX Gelu-20 with approximate="tanh".
    """

    name = "nn.gelu_tanh"

    def scalar(self, x: Expr) -> Expr:
        """In float32 at least: the sum loses narrower floats' digits."""
        wide = promoted(x)
        half, one = const(0.5, wide.dtype), const(1, wide.dtype)
        inner = wide + const(0.044715, wide.dtype) * wide * wide * wide
        shaped = math("tanh", const(0.7978845608028654, wide.dtype) * inner)
        return cast(half * wide * (one + shaped), x.dtype)


@dataclass(frozen=True)
class Silu(FloatUnary):
    """nn.silu(x): x * sigmoid(x). x: float. Source: ONNX Swish-24."""

    name = "nn.silu"

    def scalar(self, x: Expr) -> Expr:
        """x times T.sigmoid."""
        return x * math("sigmoid", x)


@dataclass(frozen=True)
class Softplus(FloatUnary):
    """nn.softplus(x, beta, threshold): log(1 + exp(beta * x)) / beta, or x itself where
    beta * x > threshold. x: float. Source: torch.nn.functional.softplus; ONNX Softplus-1.
    """

    name = "nn.softplus"
    beta: float = 1.0
    threshold: float = 20.0

    def scalar(self, x: Expr) -> Expr:
        """max(z, 0) + log1p(exp(-|z|)), which neither overflows nor loses small values."""
        zero, beta = const(0, x.dtype), const(self.beta, x.dtype)
        scaled = x * beta
        tail = math("log1p", math("exp_nonpositive", negate(math("fabs", scaled))))
        smooth = (maximum(scaled, zero) + tail) / beta
        return select(scaled > const(self.threshold, x.dtype), x, smooth)


@dataclass(frozen=True)
class Softsign(FloatUnary):
    """nn.softsign(x): x / (1 + |x|). x: float. Source: ONNX Softsign-1."""

    name = "nn.softsign"

    def scalar(self, x: Expr) -> Expr:
        """A division."""
        return x / (const(1, x.dtype) + math("fabs", x))


@dataclass(frozen=True)
class HardSigmoid(FloatUnary):
    """nn.hardsigmoid(x, alpha, beta): max(0, min(1, alpha * x + beta)). x: float.

    Source: ONNX HardSigmoid-6.
    """

    name = "nn.hardsigmoid"
    alpha: float = 1 / 6
    beta: float = 0.5

    def scalar(self, x: Expr) -> Expr:
        """A line, clipped."""
        line = x * const(self.alpha, x.dtype) + const(self.beta, x.dtype)
        return maximum(minimum(line, const(1, x.dtype)), const(0, x.dtype))


@dataclass(frozen=True)
class HardSwish(FloatUnary):
    """nn.hardswish(x): x * max(0, min(1, x / 6 + 0.5)). x: float. Source: ONNX HardSwish-14."""

    name = "nn.hardswish"

    def scalar(self, x: Expr) -> Expr:
        """x times a clipped line."""
        return x * HardSigmoid().scalar(x)


@dataclass(frozen=True)
class Mish(FloatUnary):
    """nn.mish(x): x * tanh(log(1 + exp(x))). x: float. Source: ONNX Mish-18."""

    name = "nn.mish"

    def scalar(self, x: Expr) -> Expr:
        """x times tanh of softplus."""
        return x * math("tanh", Softplus().scalar(x))


@dataclass(frozen=True)
class ThresholdedRelu(FloatUnary):
    """nn.thresholded_relu(x, alpha): x where x > alpha, else 0. Source: ONNX ThresholdedRelu-10."""

    name = "nn.thresholded_relu"
    alpha: float = 1.0

    def scalar(self, x: Expr) -> Expr:
        """A choice."""
        return select(x > const(self.alpha, x.dtype), x, const(0, x.dtype))


@dataclass(frozen=True)
class Prelu(Operator):
    """nn.prelu(x, alpha, axis): x where x >= 0, else alpha[c] * x, c the position along `axis`.

    x: float. alpha: (n,) with n the extent of the axis, or (1,). Source: ONNX PRelu-16.
    """

    name = "nn.prelu"
    axis: int = 1

    def infer(self, x: Type, alpha: Type) -> TensorType:
        """The type of x."""
        data, slope = tensor(self, x, "x"), tensor(self, alpha, "alpha")
        require_float(self, data)
        dtype = common_dtype(self, data, slope)
        device = common_device(self, data, slope)
        require_rank(self, slope, 1, "alpha")
        if data.ndim >= 0:
            axis = normalize_axis(self, self.axis, data.ndim)
            if data.shape is not None and slope.shape not in (None, (IntImm(1),)):
                require_same(self, data.shape[axis], slope.shape[0], "the extents of the axis")
        return TensorType(data.shape, dtype, data.ndim, device)

    def legalize(self, b: FunctionBuilder, x: Buffer, alpha: Buffer) -> Buffer:
        """One map."""
        axis = normalize_axis(self, self.axis, x.ndim)
        shared = alpha.shape[0] is IntImm(1)

        def element(*i: Var) -> Expr:
            slope = alpha[IntImm(0) if shared else i[axis]]
            return select(x[i] < const(0, x.dtype), slope * x[i], x[i])

        return b.compute(x.shape, element, name="y")


# --- along an axis -----------------------------------------------------------------------------


@dataclass(frozen=True)
class AlongAxis(Operator):
    """Base of the functions of the values along one axis that keep the shape."""

    axis: int = -1

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        data = tensor(self, x, "x")
        require_float(self, data)
        if data.ndim >= 0:
            normalize_axis(self, self.axis, data.ndim)
        return data

    def finish(self, shifted: Expr, total: Expr) -> Expr:
        """The result from x - max(x) and the sum of its exponentials."""
        raise NotImplementedError(f"{type(self).__name__}.finish")

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """The maximum, the sum of exponentials of the distances from it, and a map."""
        axis = normalize_axis(self, self.axis, x.ndim)
        wide = accumulator(x.dtype)

        def value(*i: Expr) -> Expr:
            return cast(x[i], wide)

        largest = reduce_axes(b, x.shape, (axis,), value, "max", "largest")

        def shifted(i: tuple[Expr, ...]) -> Expr:
            return cast(x[i], wide) - largest[(*i[:axis], *i[axis + 1 :])]

        def exponential(*i: Expr) -> Expr:
            return math("exp_nonpositive", shifted(i))

        total = reduce_axes(b, x.shape, (axis,), exponential, "sum", "total")

        def element(*i: Var) -> Expr:
            return cast(self.finish(shifted(i), total[(*i[:axis], *i[axis + 1 :])]), x.dtype)

        return b.compute(x.shape, element, name="y", dtype=x.dtype)


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """nn.softmax(x): exp(x - max(x)) / sum(exp(x - max(x))) along `axis`.

    x: (..., n, ...) float. Result: the type of x. Source: ONNX Softmax-13.
    """

    name = "nn.softmax"

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """The maximum, the exponentials of the distances from it, their sum, and a map.

        One reciprocal a row instead of a division an element: a result is off by 1.5 units in the
        last place at most, besides what the exponential and the sum are off.
        """
        axis = normalize_axis(self, self.axis, x.ndim)
        wide = accumulator(x.dtype)

        def row(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return (*i[:axis], *i[axis + 1 :])

        def value(*i: Expr) -> Expr:
            return cast(x[i], wide)

        largest = reduce_axes(b, x.shape, (axis,), value, "max", "largest")

        def exponential(*i: Var) -> Expr:
            return math("exp_nonpositive", value(*i) - largest[row(i)])

        powers = b.compute(x.shape, exponential, name="powers", dtype=wide)
        total = reduce_axes(b, x.shape, (axis,), lambda *i: powers[i], "sum", "total")

        def inverse(*i: Var) -> Expr:
            return const(1, wide) / total[i]

        scale = b.compute(total.shape, inverse, name="scale", dtype=wide)

        def element(*i: Var) -> Expr:
            return cast(powers[i] * scale[row(i)], x.dtype)

        return b.compute(x.shape, element, name="y", dtype=x.dtype)


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """nn.log_softmax(x): x - max(x) - log(sum(exp(x - max(x)))) along `axis`.

    x: (..., n, ...) float. Result: the type of x. Source: ONNX LogSoftmax-13.
    """

    name = "nn.log_softmax"

    def finish(self, shifted: Expr, total: Expr) -> Expr:
        """x - max - log(sum)."""
        return shifted - math("log", total)


# --- dropout -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dropout(Operator):
    """nn.dropout(x, rate): (x, mask), as it is at inference: nothing is dropped, the mask is ones.

    x: float. Source: ONNX Dropout-22.
    """

    name = "nn.dropout"
    rate: float = 0.5

    def infer(self, x: Type) -> TupleType:
        """Twice the type of x."""
        data = tensor(self, x, "x")
        if not 0 <= self.rate < 1:
            fail(self, f"rate must be in [0, 1), got {self.rate}")
        return TupleType((data, data))

    def legalize(self, b: FunctionBuilder, x: Buffer) -> tuple[Buffer, Buffer]:
        """A copy, and a map to one."""

        def copied(*i: Var) -> Expr:
            return x[i]

        def one(*i: Var) -> Expr:
            del i
            return const(1, x.dtype)

        return b.compute(x.shape, copied, name="y"), b.compute(x.shape, one, name="mask")
