"""Comparisons of two tensors that broadcast, and the choice between two by a third."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import BOOL, DType
from transect.ir.expr import EQ, GE, GT, LE, LT, NE, Expr, Var, make, select
from transect.ir.types import TensorType, Type
from transect.relax.op.binary import Binary
from transect.relax.op.inference import (
    broadcast_types,
    common_dtype,
    require_dtype,
    tensor_or_scalar,
)
from transect.relax.op.loops import TensorOperand, load, result_type
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


@dataclass(frozen=True)
class Comparison(Binary):
    """Base of the comparisons: the result is bool. NaN is neither equal, less nor greater."""

    def check(self, dtype: DType) -> None:
        """Any dtype, bool included."""
        del dtype

    def result_dtype(self, dtype: DType | None) -> DType | None:
        """Bool."""
        return BOOL


@dataclass(frozen=True)
class Equal(Comparison):
    """equal(a, b): a == b, elementwise. Source: ONNX Equal-19."""

    name = "equal"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """EQ."""
        return make(EQ, a, b)


@dataclass(frozen=True)
class NotEqual(Comparison):
    """not_equal(a, b): a != b, elementwise. Source: ONNX Equal-19 negated."""

    name = "not_equal"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """NE."""
        return make(NE, a, b)


@dataclass(frozen=True)
class Less(Comparison):
    """less(a, b): a < b, elementwise. Source: ONNX Less-13."""

    name = "less"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """LT."""
        return make(LT, a, b)


@dataclass(frozen=True)
class LessEqual(Comparison):
    """less_equal(a, b): a <= b, elementwise. Source: ONNX LessOrEqual-16."""

    name = "less_equal"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """LE."""
        return make(LE, a, b)


@dataclass(frozen=True)
class Greater(Comparison):
    """greater(a, b): a > b, elementwise. Source: ONNX Greater-13."""

    name = "greater"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """GT."""
        return make(GT, a, b)


@dataclass(frozen=True)
class GreaterEqual(Comparison):
    """greater_equal(a, b): a >= b, elementwise. Source: ONNX GreaterOrEqual-16."""

    name = "greater_equal"

    def scalar(self, a: Expr, b: Expr) -> Expr:
        """GE."""
        return make(GE, a, b)


@dataclass(frozen=True)
class Where(Operator):
    """where(condition, a, b): a where the condition holds, else b; the three broadcast.

    condition: bool. a, b: one dtype, that of the result. Source: ONNX Where-16.
    """

    name = "where"

    def infer(self, condition: Type, a: Type, b: Type) -> TensorType:
        """The broadcast shape of the three operands."""
        chooser = tensor_or_scalar(self, condition, "condition")
        require_dtype(self, chooser, BOOL, "condition")
        left, right = tensor_or_scalar(self, a, "a"), tensor_or_scalar(self, b, "b")
        return broadcast_types(self, chooser, left, right, dtype=common_dtype(self, left, right))

    def legalize(
        self, b: FunctionBuilder, condition: TensorOperand, x: TensorOperand, y: TensorOperand
    ) -> Buffer:
        """One map."""
        result = result_type(self, condition, x, y)
        sizes = result.shape or ()

        def element(*i: Var) -> Expr:
            return select(load(condition, sizes, i), load(x, sizes, i), load(y, sizes, i))

        return b.compute(sizes, element, name="y", dtype=result.dtype)
