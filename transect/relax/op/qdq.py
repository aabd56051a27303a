"""Conversions between floats and quantized integers."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import FLOAT32, INT8, INT32, DType
from transect.ir.expr import Expr, IntImm, Var, as_int, cast, const, maximum, minimum
from transect.ir.types import TensorType, Type
from transect.relax.op.inference import (
    common_device,
    fail,
    normalize_axis,
    require_float,
    require_same,
    tensor,
    tensor_or_scalar,
)
from transect.relax.op.loops import TensorOperand, load
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import nearbyint


def check_scales(op: Operator, x: TensorType, axis: int, scale: Type, zero_point: Type) -> None:
    """Refuse a scale or zero point that is neither a scalar nor a vector along the axis."""
    for value, what in ((scale, "scale"), (zero_point, "zero_point")):
        kind = tensor_or_scalar(op, value, what)
        common_device(op, x, kind)
        if kind.ndim > 1:
            fail(op, f"{what} must be a scalar or a vector, got {kind.ndim} dimensions")
        if kind.ndim == 1 and x.shape is not None and kind.shape is not None:
            place = normalize_axis(op, axis, x.ndim)
            if as_int(kind.shape[0]) != 1:
                require_same(op, x.shape[place], kind.shape[0], f"the extents of x and {what}")


def along(parameter: TensorOperand, place: Expr) -> Expr:
    """The scale or zero point for the position `place` along the axis."""
    if isinstance(parameter, Buffer) and parameter.ndim == 1:
        return parameter[IntImm(0) if as_int(parameter.shape[0]) == 1 else place]
    return load(parameter, (), ())


@dataclass(frozen=True)
class Quantize(Operator):
    """quantize(x, scale, zero_point, axis, out_dtype): round(x / scale) + zero_point, halves to
    even, clipped to the range of out_dtype.

    x: float. scale, zero_point: scalars, or (n,) along `axis`. Result: out_dtype, an integer or
    float8 (not rounded). Source: ONNX QuantizeLinear-21.
    """

    name = "quantize"
    axis: int = -1
    out_dtype: DType = INT8

    def infer(self, x: Type, scale: Type, zero_point: Type) -> TensorType:
        """The shape of x."""
        data = tensor(self, x, "x")
        require_float(self, data)
        check_scales(self, data, self.axis, scale, zero_point)
        return TensorType(data.shape, self.out_dtype, data.ndim, data.device)

    def legalize(
        self, b: FunctionBuilder, x: Buffer, scale: TensorOperand, zero_point: TensorOperand
    ) -> Buffer:
        """One map."""
        axis = normalize_axis(self, self.axis, x.ndim) if x.ndim else 0
        work = x.dtype if x.dtype.bits >= 32 else FLOAT32
        low, high = const(self.out_dtype.min_value, work), const(self.out_dtype.max_value, work)

        def element(*i: Var) -> Expr:
            place = i[axis] if i else IntImm(0)
            value = cast(x[i], work) / cast(along(scale, place), work)
            if not self.out_dtype.is_float:
                value = nearbyint(value)
            value = value + cast(along(zero_point, place), work)
            return cast(minimum(maximum(value, low), high), self.out_dtype)

        return b.compute(x.shape, element, name="y", dtype=self.out_dtype)


@dataclass(frozen=True)
class Dequantize(Operator):
    """dequantize(x, scale, zero_point, axis, out_dtype): (x - zero_point) * scale.

    x: integer or float8. scale, zero_point: scalars, or (n,) along `axis`. Result: out_dtype.
    Source: ONNX DequantizeLinear-21.
    """

    name = "dequantize"
    axis: int = -1
    out_dtype: DType = FLOAT32

    def infer(self, x: Type, scale: Type, zero_point: Type) -> TensorType:
        """The shape of x."""
        data = tensor(self, x, "x")
        if not self.out_dtype.is_float:
            fail(self, f"out_dtype must be a float one, got {self.out_dtype}")
        check_scales(self, data, self.axis, scale, zero_point)
        return TensorType(data.shape, self.out_dtype, data.ndim, data.device)

    def legalize(
        self, b: FunctionBuilder, x: Buffer, scale: TensorOperand, zero_point: TensorOperand
    ) -> Buffer:
        """One map. Integers are subtracted as int32, where they cannot overflow."""
        axis = normalize_axis(self, self.axis, x.ndim) if x.ndim else 0
        work = self.out_dtype if self.out_dtype.bits >= 32 else FLOAT32
        steps = work if x.dtype.is_float else INT32 if x.dtype.bits < 32 else x.dtype

        def element(*i: Var) -> Expr:
            place = i[axis] if i else IntImm(0)
            distance = cast(x[i], steps) - cast(along(zero_point, place), steps)
            value = cast(distance, work) * cast(along(scale, place), work)
            return cast(value, self.out_dtype)

        return b.compute(x.shape, element, name="y", dtype=self.out_dtype)
