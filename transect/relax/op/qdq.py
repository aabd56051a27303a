"""Conversions between floats and quantized integers."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import FLOAT32, INT8, INT32, DType
from transect.ir.expr import Expr, IntImm, Var, as_int, cast, const, maximum, minimum
from transect.ir.sizes import ceildiv
from transect.ir.types import TensorType, Type
from transect.relax.op.convert import saturated
from transect.relax.op.inference import (
    common_device,
    fail,
    normalize_axis,
    present,
    require_same,
    simplify,
    tensor,
    tensor_or_scalar,
)
from transect.relax.op.loops import TensorOperand, load
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import nearbyint


@dataclass(frozen=True)
class Scaled(Operator):
    """Base of the operators with a scale and a zero point: scalars, (n,) along `axis` of extent n,
    or with `block` > 0 tensors like x whose elements along the axis serve `block` of x each."""

    axis: int = -1
    block: int = 0

    def check_scales(self, x: TensorType, scale: Type, zero_point: Type | None) -> None:
        """Refuse a scale or zero point of the wrong shape."""
        for value, what in ((scale, "scale"), (zero_point, "zero_point")):
            if value is None or present(value) is None:
                continue
            kind = tensor_or_scalar(self, value, what)
            common_device(self, x, kind)
            if self.block:
                self._check_blocks(x, kind, what)
                continue
            if kind.ndim > 1:
                fail(self, f"{what} must be a scalar or a vector, got {kind.ndim} dimensions")
            if x.shape is None or kind.shape is None or kind.ndim == 0:
                continue
            if as_int(kind.shape[0]) != 1:
                place = normalize_axis(self, self.axis, x.ndim)
                what = f"the extents of x and {what}"
                require_same(self, x.shape[place], kind.shape[0], what)

    def _check_blocks(self, x: TensorType, kind: TensorType, what: str) -> None:
        if x.shape is None or kind.shape is None:
            return
        if kind.ndim != x.ndim:
            fail(self, f"{what} must have {x.ndim} dimensions, got {kind.ndim}")
        place = normalize_axis(self, self.axis, x.ndim)
        for axis, (size, blocks) in enumerate(zip(x.shape, kind.shape, strict=True)):
            wanted = simplify(ceildiv(size, self.block)) if axis == place else size
            require_same(self, wanted, blocks, f"the extents of x (in blocks) and {what}")

    def parameter(self, value: TensorOperand, x: Buffer, i: tuple[Expr, ...]) -> Expr:
        """The scale or zero point for the element `i` of x."""
        if not isinstance(value, Buffer) or value.ndim == 0:
            return load(value, (), ())
        axis = normalize_axis(self, self.axis, x.ndim) if x.ndim else 0
        if self.block:
            return value[(*i[:axis], i[axis] // self.block, *i[axis + 1 :])]
        return value[IntImm(0) if as_int(value.shape[0]) == 1 else i[axis]]


def to_quantized(value: Expr, zero_point: Expr | None, dtype: DType) -> Expr:
    """round(value) + zero_point in the range of an integer dtype; value: float32 or float64."""
    value = nearbyint(value)
    if zero_point is not None:
        value = value + cast(zero_point, value.dtype)
    low, high = const(dtype.min_value, value.dtype), const(dtype.max_value, value.dtype)
    return cast(minimum(maximum(value, low), high), dtype)


def working(dtype: DType) -> DType:
    """The float dtype to compute in."""
    return dtype if dtype.is_float and dtype.bits >= 32 else FLOAT32


@dataclass(frozen=True)
class Quantize(Scaled):
    """quantize(x, scale, zero_point, axis, block, out_dtype, saturate, precision): round(x / scale)
    + zero_point, halves to even, clipped to the range of out_dtype.

    x: number. scale, zero_point: see Scaled; without zero_point it is 0. Result: out_dtype, an
    integer, or a float that is not rounded, and clipped only with `saturate`. precision: the dtype
    of the quotient; float32 where x is narrower, by default. Source: ONNX QuantizeLinear-25.
    """

    name = "quantize"
    script_order = (
        "x",
        "scale",
        "zero_point",
        "axis",
        "out_dtype",
        "block",
        "saturate",
        "precision",
    )
    out_dtype: DType = INT8
    saturate: bool = True
    precision: DType | None = None

    def infer(self, x: Type, scale: Type, zero_point: Type | None = None) -> TensorType:
        """The shape of x."""
        data = tensor(self, x, "x")
        self.check_scales(data, scale, zero_point)
        return TensorType(data.shape, self.out_dtype, data.ndim, data.device)

    def legalize(
        self,
        b: FunctionBuilder,
        x: Buffer,
        scale: TensorOperand,
        zero_point: TensorOperand | None = None,
    ) -> Buffer:
        """One map."""
        steps = self.precision or working(x.dtype)
        work = working(x.dtype)

        def element(*i: Var) -> Expr:
            value = cast(x[i], steps) / cast(self.parameter(scale, x, i), steps)
            value = cast(value, work)
            zero = None if zero_point is None else self.parameter(zero_point, x, i)
            if not self.out_dtype.is_float:
                return to_quantized(value, zero, self.out_dtype)
            if zero is not None:
                value = value + cast(zero, work)
            return (
                saturated(value, self.out_dtype) if self.saturate else cast(value, self.out_dtype)
            )

        return b.compute(x.shape, element, name="y", dtype=self.out_dtype)


@dataclass(frozen=True)
class Dequantize(Scaled):
    """dequantize(x, scale, zero_point, axis, block, out_dtype): (x - zero_point) * scale.

    x: integer or narrow float. scale, zero_point: see Scaled; without zero_point it is 0. Result:
    out_dtype. Source: ONNX DequantizeLinear-25.
    """

    name = "dequantize"
    script_order = ("x", "scale", "zero_point", "axis", "out_dtype", "block")
    out_dtype: DType = FLOAT32

    def infer(self, x: Type, scale: Type, zero_point: Type | None = None) -> TensorType:
        """The shape of x."""
        data = tensor(self, x, "x")
        if not self.out_dtype.is_float:
            fail(self, f"out_dtype must be a float one, got {self.out_dtype}")
        self.check_scales(data, scale, zero_point)
        return TensorType(data.shape, self.out_dtype, data.ndim, data.device)

    def legalize(
        self,
        b: FunctionBuilder,
        x: Buffer,
        scale: TensorOperand,
        zero_point: TensorOperand | None = None,
    ) -> Buffer:
        """One map. Integers are subtracted as int32, where they cannot overflow."""
        work = working(self.out_dtype)
        steps = work if x.dtype.is_float else INT32 if x.dtype.bits < 32 else x.dtype

        def element(*i: Var) -> Expr:
            value = cast(x[i], steps)
            if zero_point is not None:
                value = value - cast(self.parameter(zero_point, x, i), steps)
            value = cast(value, work) * cast(self.parameter(scale, x, i), work)
            return cast(value, self.out_dtype)

        return b.compute(x.shape, element, name="y", dtype=self.out_dtype)


@dataclass(frozen=True)
class Requantize(Scaled):
    """requantize(x, scale, zero_point, axis, block, out_dtype): round(x * scale) + zero_point,
    halves to even, clipped to the range of out_dtype.

    x: int32 sums of products. scale: the product of the operands' scales over that of the result,
    float32; scale, zero_point: see Scaled. Result: out_dtype, an integer. Source: MLAS's
    MlasRequantizeOutput, which ONNX Runtime's QLinearConv and QLinearMatMul end with.
    """

    name = "requantize"
    script_order = ("x", "scale", "zero_point", "axis", "out_dtype", "block")
    out_dtype: DType = INT8

    def infer(self, x: Type, scale: Type, zero_point: Type) -> TensorType:
        """The shape of x."""
        data = tensor(self, x, "x")
        if not self.out_dtype.is_integral:
            fail(self, f"out_dtype must be an integer one, got {self.out_dtype}")
        self.check_scales(data, scale, zero_point)
        return TensorType(data.shape, self.out_dtype, data.ndim, data.device)

    def legalize(
        self, b: FunctionBuilder, x: Buffer, scale: TensorOperand, zero_point: TensorOperand
    ) -> Buffer:
        """One map."""

        def element(*i: Var) -> Expr:
            factor = cast(self.parameter(scale, x, i), FLOAT32)
            zero = self.parameter(zero_point, x, i)
            return to_quantized(cast(x[i], FLOAT32) * factor, zero, self.out_dtype)

        return b.compute(x.shape, element, name="y", dtype=self.out_dtype)
