"""Random numbers from a counter: each is a function of the seed and its place, so that results do
not depend on threads and repeat from run to run. Sampling by them is in `statistical.py`."""

from __future__ import annotations

import math as numbers
from dataclasses import dataclass

from transect.ir.dtype import FLOAT32, FLOAT64, DType, as_dtype
from transect.ir.expr import Expr, Var, cast, const
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import as_sizes, fail, shape, shape_rank
from transect.relax.op.loops import flatten_index, math, result_type
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import bitwise_xor, shift_right

UINT64 = as_dtype("uint64")
_STEP = 0x9E3779B97F4A7C15
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_MASK = (1 << 64) - 1


def _mixed(number: int) -> int:
    """SplitMix64's finalizer of a Python integer."""
    for shift, factor in _FACTORS:
        number = (number ^ (number >> shift)) * factor & _MASK
    return number ^ (number >> 31)


def uniform_bits(seed: int, stream: int, place: Expr) -> Expr:
    """24 random bits, as a uint64, for a place of a stream. Source: Steele et al., SplitMix64."""
    start = _mixed((seed ^ _mixed(stream + 1)) & _MASK)
    bits = cast(place, UINT64) * const(_STEP, UINT64) + const(start, UINT64)
    for shift, factor in _FACTORS:
        bits = bitwise_xor(bits, shift_right(bits, const(shift, UINT64))) * const(factor, UINT64)
    bits = bitwise_xor(bits, shift_right(bits, const(31, UINT64)))
    return shift_right(bits, const(40, UINT64))


@dataclass(frozen=True)
class Random(Operator):
    """Base of the random tensors. size: the shape. seed: any integer. dtype: of the result."""

    seed: int = 0
    dtype: DType = FLOAT32

    def infer(self, size: Type) -> TensorType:
        """A tensor of that shape."""
        if not self.dtype.is_float:
            fail(self, f"dtype must be a float one, got {self.dtype}")
        sizes = shape(self, size, "size")
        if sizes is None:
            return TensorType(None, self.dtype, shape_rank(self, size, "size"), None)
        return tensor_type(as_sizes(sizes), self.dtype)

    def unit(self, place: Expr, stream: int, wide: DType) -> Expr:
        """A number in (0, 1), of `wide`."""
        bits = cast(uniform_bits(self.seed, stream, place), wide)
        return (bits + const(0.5, wide)) * const(2.0**-24, wide)

    def value(self, place: Expr, wide: DType) -> Expr:
        """The element at a row-major position."""
        raise NotImplementedError(f"{type(self).__name__}.value")

    def legalize(self, b: FunctionBuilder, size: tuple[Expr, ...]) -> Buffer:
        """One map."""
        sizes = result_type(self, size).shape or ()
        wide = FLOAT64 if self.dtype is FLOAT64 else FLOAT32

        def element(*i: Var) -> Expr:
            return self.value(flatten_index(i, sizes), wide)

        return b.compute(sizes, element, name="y", dtype=self.dtype)


@dataclass(frozen=True)
class RandomUniform(Random):
    """random.uniform(size): numbers between low and high. Source: ONNX RandomUniform-22."""

    name = "random.uniform"
    low: float = 0.0
    high: float = 1.0

    def value(self, place: Expr, wide: DType) -> Expr:
        """Scaled and shifted."""
        span = const(self.high - self.low, wide)
        return self.unit(place, 0, wide) * span + const(self.low, wide)


@dataclass(frozen=True)
class RandomNormal(Random):
    """random.normal(size): numbers of a normal distribution. Source: ONNX RandomNormal-22; Box and
    Muller 1958."""

    name = "random.normal"
    mean: float = 0.0
    scale: float = 1.0

    def value(self, place: Expr, wide: DType) -> Expr:
        """From two uniform ones."""
        radius = math("sqrt", const(-2, wide) * math("log", self.unit(place, 0, wide)))
        turn = math("cos", const(2 * numbers.pi, wide) * self.unit(place, 1, wide))
        return radius * turn * const(self.scale, wide) + const(self.mean, wide)
