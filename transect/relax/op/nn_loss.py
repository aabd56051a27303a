"""Losses of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.expr import EQ, Expr, IntImm, cast, const, negate
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    common_device,
    common_dtype,
    fail,
    optional_tensor,
    require_float,
    require_integer,
    require_rank,
    require_same,
    tensor,
)
from transect.relax.op.loops import accumulator, index
from transect.relax.op.operator import Operator
from transect.relax.op.reduce import narrow, reduce_axes
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import if_then_else


@dataclass(frozen=True)
class NLLLoss(Operator):
    """nn.nll_loss(predictions, targets, weights): -predictions[n, t, …] * weights[t] with the class
    t = targets[n, …]; as `reduction` says "none", their "sum", or their "mean" by weight.

    predictions: (n, c, …) or (c,) log-probabilities. targets: (n, …) or () integer. weights: (c,),
    ones by default. Targets equal to ignore_index count nothing.
    Source: ONNX NegativeLogLikelihoodLoss-22.
    """

    name = "nn.nll_loss"
    reduction: str = "mean"
    ignore_index: int = -100

    def infer(self, predictions: Type, targets: Type, weights: Type | None = None) -> TensorType:
        """The shape of the targets, or a tensor of rank 0."""
        data, classes = tensor(self, predictions, "predictions"), tensor(self, targets, "targets")
        factors = optional_tensor(self, weights, "weights")
        require_float(self, data, "predictions")
        require_integer(self, classes, "targets")
        if self.reduction not in ("none", "sum", "mean"):
            fail(self, f'reduction must be "none", "sum" or "mean", got {self.reduction!r}')
        dtype = common_dtype(self, data, *(() if factors is None else (factors,)))
        device = common_device(self, data, classes, factors)
        if data.ndim == 0:
            fail(self, "predictions must have at least one dimension")
        if data.ndim > 0:
            require_rank(self, classes, data.ndim - 1, "targets")
        if data.shape is not None:
            axis = min(1, data.ndim - 1)
            if classes.shape is not None:
                rest = (*data.shape[:axis], *data.shape[axis + 1 :])
                for a, b in zip(rest, classes.shape, strict=True):
                    require_same(self, a, b, "the extents of predictions and targets")
            if factors is not None:
                require_rank(self, factors, 1, "weights")
                if factors.shape is not None:
                    require_same(self, data.shape[axis], factors.shape[0], "the numbers of classes")
        if self.reduction == "none":
            return TensorType(classes.shape, dtype, classes.ndim, device)
        return tensor_type((), dtype, device=device)

    def legalize(
        self,
        b: FunctionBuilder,
        predictions: Buffer,
        targets: Buffer,
        weights: Buffer | None = None,
    ) -> Buffer:
        """A map; for a reduction one or two sums."""
        dtype = predictions.dtype
        wide = accumulator(dtype)
        axis = min(1, predictions.ndim - 1)

        def ignored(i: Sequence[Expr]) -> Expr:
            return EQ(index(targets[tuple(i)]), IntImm(self.ignore_index))

        def weight(*i: Expr) -> Expr:
            found: Expr = const(1, wide)
            if weights is not None:
                found = cast(weights[index(targets[i])], wide)
            return if_then_else(ignored(i), const(0, wide), found)

        def loss(*i: Expr) -> Expr:
            place = (*i[:axis], index(targets[i]), *i[axis:])
            value = negate(cast(predictions[place], wide))
            if weights is not None:
                value = value * cast(weights[index(targets[i])], wide)
            return if_then_else(ignored(i), const(0, wide), value)

        if self.reduction == "none":
            return b.compute(targets.shape, loss, name="y", dtype=dtype)
        axes = tuple(range(targets.ndim))
        total = reduce_axes(b, targets.shape, axes, loss, "sum", "total")
        if self.reduction == "sum":
            return narrow(b, total, dtype)
        whole = reduce_axes(b, targets.shape, axes, weight, "sum", "whole")

        def mean() -> Expr:
            return cast(total[()] / whole[()], dtype)

        return b.compute((), mean, name="y", dtype=dtype)


@dataclass(frozen=True)
class CrossEntropyWithLogits(Operator):
    """nn.cross_entropy_with_logits(predictions, labels): -sum(predictions * labels), divided by
    the extent of the first axis where there are several.

    predictions: log-probabilities. labels: probabilities, of the same type. Result: rank 0.
    Source: Relax nn.cross_entropy_with_logits.
    """

    name = "nn.cross_entropy_with_logits"

    def infer(self, predictions: Type, labels: Type) -> TensorType:
        """A tensor of rank 0."""
        data, wanted = tensor(self, predictions, "predictions"), tensor(self, labels, "labels")
        require_float(self, data, "predictions")
        dtype, device = common_dtype(self, data, wanted), common_device(self, data, wanted)
        if data.ndim >= 0:
            require_rank(self, wanted, data.ndim, "labels")
        if data.shape is not None and wanted.shape is not None:
            for a, b in zip(data.shape, wanted.shape, strict=True):
                require_same(self, a, b, "the extents of predictions and labels")
        return tensor_type((), dtype, device=device)

    def legalize(self, b: FunctionBuilder, predictions: Buffer, labels: Buffer) -> Buffer:
        """One sum, then a division."""
        wide = accumulator(predictions.dtype)
        shape = predictions.shape

        def product(*i: Expr) -> Expr:
            return cast(predictions[i], wide) * cast(labels[i], wide)

        total = reduce_axes(b, shape, tuple(range(len(shape))), product, "sum", "total")

        def element() -> Expr:
            value = negate(total[()])
            if len(shape) > 1:
                value = value / cast(shape[0], wide)
            return cast(value, predictions.dtype)

        return b.compute((), element, name="y", dtype=predictions.dtype)
