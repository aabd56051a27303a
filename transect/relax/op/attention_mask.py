"""Which keys a query sees, by their positions."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import BOOL, INT64
from transect.ir.expr import Expr, IntImm, Var, cast, logical_and, true
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.op.inference import (
    as_sizes,
    fail,
    optional_tensor,
    require_integer,
    require_rank,
    shape,
)
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


@dataclass(frozen=True)
class AttentionWindow(Operator):
    """nn.attention_window(size, lengths): whether query i, which stands at position p = i + offset,
    sees key j: p - left <= j <= p + right.

    size: the shape (queries, keys, offset). lengths: (batch,) integers, the keys there are, or
    absent; the offset is then lengths - queries, so that the last query stands at the last key.
    left, right: None has no bound. Result: bool (queries, keys), or (batch, 1, queries, keys).
    Source: ONNX Attention-25.
    """

    name = "nn.attention_window"
    left: int | None = None
    right: int | None = None

    def infer(self, size: Type, lengths: Type | None = None) -> TensorType:
        """(queries, keys), or (batch, 1, queries, keys)."""
        sizes = shape(self, size, "size")
        counts = optional_tensor(self, lengths, "lengths")
        rank = 2 if counts is None else 4
        if sizes is None:
            return TensorType(None, BOOL, rank, None)
        if len(sizes) != 3:
            fail(self, f"size must have 3 values, got {len(sizes)}")
        if counts is None:
            return tensor_type(as_sizes(sizes[:2]), BOOL)
        require_integer(self, counts, "lengths")
        require_rank(self, counts, 1, "lengths")
        if counts.shape is None:
            return TensorType(None, BOOL, rank, counts.device)
        dims = (counts.shape[0], IntImm(1), *as_sizes(sizes[:2]))
        return tensor_type(dims, BOOL, device=counts.device)

    def legalize(
        self, b: FunctionBuilder, size: tuple[Expr, ...], lengths: Buffer | None = None
    ) -> Buffer:
        """One map."""
        queries, keys, offset = as_sizes(size)

        def seen(i: Expr, j: Expr, first: Expr) -> Expr:
            position = i + first
            below = true() if self.right is None else j <= position + self.right
            above = true() if self.left is None else j >= position - self.left
            return logical_and(below, above)

        if lengths is None:

            def plain(i: Var, j: Var) -> Expr:
                return seen(i, j, offset)

            return b.compute((queries, keys), plain, name="seen", dtype=BOOL)

        def element(batch: Var, _: Var, i: Var, j: Var) -> Expr:
            count = cast(lengths[batch], INT64)
            return logical_and(seen(i, j, count - queries), j < count)

        return b.compute((lengths.shape[0], 1, queries, keys), element, name="seen", dtype=BOOL)
