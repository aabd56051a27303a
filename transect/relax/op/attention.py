"""Attention, composed of matrix products and softmax, so that each can go to a library."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from transect.ir.dtype import BOOL, INT32
from transect.ir.expr import Expr, IntImm, as_int
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.expr import Value, constant, prim_value, shape_expr
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.compare import Where
from transect.relax.op.create import Ones, Tril, Triu
from transect.relax.op.elementwise import Astype
from transect.relax.op.inference import (
    common_device,
    common_dtype,
    fail,
    optional_tensor,
    require_dtype,
    require_float,
    require_rank,
    require_same,
    same,
    tensor,
)
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.loops import accumulator
from transect.relax.op.manipulate import PermuteDims
from transect.relax.op.nn_activation import Softmax
from transect.relax.op.operator import Emit, Operator


@dataclass(frozen=True)
class Attention(Operator):
    """nn.attention(query, key, value, bias): softmax(query @ key.T * scale + bias) @ value, for
    each head.

    query: (batch, n, heads, d). key: (batch, m, heads, d). value: (batch, m, heads, e). bias:
    broadcasts to (batch, heads, n, m), or absent. Result: (batch, n, heads, e).
    scale: 1 / sqrt(d) by default. causal_mask: None; "TopLeft" lets query i see the keys up to i;
    "BottomRight" up to i + m - n. window_size: of those, only the last so many. A query that sees
    no key gives NaN. Source: ONNX Attention-23; Vaswani et al., arXiv 1706.03762.
    """

    name = "nn.attention"
    scale: float | None = None
    causal_mask: str | None = None
    window_size: int | None = None

    def infer(self, query: Type, key: Type, value: Type, bias: Type | None = None) -> TensorType:
        """(batch, n, heads, e)."""
        q, k, v = (
            tensor(self, query, "query"),
            tensor(self, key, "key"),
            tensor(self, value, "value"),
        )
        extra = optional_tensor(self, bias, "bias")
        dtype = common_dtype(self, q, k, v)
        device = common_device(self, q, k, v, extra)
        for item, what in ((q, "query"), (k, "key"), (v, "value")):
            require_float(self, item, what)
            require_rank(self, item, 4, what)
        if self.causal_mask not in (None, "TopLeft", "BottomRight"):
            fail(self, f'causal_mask must be "TopLeft" or "BottomRight", got {self.causal_mask!r}')
        if self.window_size is not None and (self.causal_mask is None or self.window_size < 1):
            fail(self, "window_size must be positive, and needs causal_mask")
        if q.shape is None or k.shape is None or v.shape is None:
            return TensorType(None, dtype, 4, device)
        for axis, what in ((0, "batch extents"), (2, "numbers of heads")):
            require_same(self, q.shape[axis], k.shape[axis], f"the {what} of query and key")
            require_same(self, q.shape[axis], v.shape[axis], f"the {what} of query and value")
        require_same(self, q.shape[3], k.shape[3], "the last extents of query and key")
        require_same(self, k.shape[1], v.shape[1], "the lengths of key and value")
        if self.scale is None and as_int(q.shape[3]) is None:
            fail(self, "the last extent of query is symbolic", "give scale")
        if extra is not None and extra.shape is not None:
            scores = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
            self._check_bias(extra.shape, scores)
        return tensor_type((*q.shape[:3], v.shape[3]), dtype, device=device)

    def _check_bias(self, bias: tuple[Expr, ...], scores: tuple[Expr, ...]) -> None:
        if len(bias) > 4:
            fail(self, f"bias must have at most 4 dimensions, got {len(bias)}")
        for size, whole in zip(reversed(bias), reversed(scores), strict=False):
            if as_int(size) != 1:
                require_same(self, size, whole, "the extents of bias and of the scores")

    def decompose(
        self, emit: Emit, query: Value, key: Value, value: Value, bias: Value | None = None
    ) -> Value:
        """Transposes, products and softmax; the scores are in float32 at least."""
        kind = query.type
        assert isinstance(kind, TensorType)
        if kind.shape is None or kind.dtype is None:
            fail(self, "the shape and dtype of query must be known")
        wide = accumulator(kind.dtype)
        q = emit(PermuteDims((0, 2, 1, 3))(query))
        k = emit(PermuteDims((0, 2, 3, 1))(key))
        v = emit(PermuteDims((0, 2, 1, 3))(value))
        scores = emit(Matmul(None if wide is kind.dtype else wide)(q, k))
        scale = 1 / math.sqrt(as_int(kind.shape[3]) or 1) if self.scale is None else self.scale
        scores = emit(Multiply()(scores, constant(np.asarray(scale, wide.numpy))))
        if bias is not None:
            offset = bias if wide is kind.dtype else emit(Astype(wide)(bias))
            scores = emit(Add()(scores, offset))
        if self.causal_mask is not None:
            scores = emit(self._mask(emit, scores))
        weights = emit(Softmax(-1)(scores))
        if wide is not kind.dtype:
            weights = emit(Astype(kind.dtype)(weights))
        return PermuteDims((0, 2, 1, 3))(emit(Matmul()(weights, v)))

    def _mask(self, emit: Emit, scores: Value) -> Value:
        kind = scores.type
        assert isinstance(kind, TensorType)
        if kind.shape is None or kind.dtype is None:
            fail(self, "a mask needs a known shape")
        n, m = kind.shape[2:]
        top_left = self.causal_mask == "TopLeft" or same(n, m)
        last: Expr = IntImm(0) if top_left else m - n
        allowed = emit(Ones(BOOL)(shape_expr(n, m)))
        allowed = emit(Tril()(allowed, prim_value(last)))
        if self.window_size is not None:
            first = last - (self.window_size - 1)
            allowed = emit(Triu()(allowed, prim_value(first)))
        return Where()(allowed, scores, constant(np.asarray(-math.inf, kind.dtype.numpy)))


@dataclass(frozen=True)
class AttentionBias(Attention):
    """nn.attention_bias(query, key, value, bias): nn.attention with a bias, as some frameworks
    spell it. Operands, attributes and result are those of nn.attention.

    Source: Relax nn.attention_bias.
    """

    name = "nn.attention_bias"


@dataclass(frozen=True)
class AttentionVarLen(Operator):
    """nn.attention_var_len(queries, keys, values, seqstart_q, seqstart_k, max_seqlen_q,
    max_seqlen_k): nn.attention of sequences of different lengths, packed one after the other.

    queries: (1, n, heads, d), keys and values likewise. seqstart_q, seqstart_k: int32 positions
    where the sequences begin, and the end. max_seqlen_q, max_seqlen_k: int32, of one element.
    Result: (1, n, heads, e). For libraries: it has no loops of its own.
    Source: Relax nn.attention_var_len.
    """

    name = "nn.attention_var_len"
    scale: float | None = None
    causal_mask: str | None = None
    window_size: int | None = None

    def infer(
        self,
        queries: Type,
        keys: Type,
        values: Type,
        seqstart_q: Type,
        seqstart_k: Type,
        max_seqlen_q: Type,
        max_seqlen_k: Type,
    ) -> TensorType:
        """(1, n, heads, e)."""
        q, k = tensor(self, queries, "queries"), tensor(self, keys, "keys")
        v = tensor(self, values, "values")
        dtype, device = common_dtype(self, q, k, v), common_device(self, q, k, v)
        for item, what in ((q, "queries"), (k, "keys"), (v, "values")):
            require_float(self, item, what)
            require_rank(self, item, 4, what)
        for position, what in (
            (seqstart_q, "seqstart_q"),
            (seqstart_k, "seqstart_k"),
            (max_seqlen_q, "max_seqlen_q"),
            (max_seqlen_k, "max_seqlen_k"),
        ):
            require_dtype(self, tensor(self, position, what), INT32, what)
        if q.shape is None or v.shape is None:
            return TensorType(None, dtype, 4, device)
        return tensor_type((*q.shape[:3], v.shape[3]), dtype, device=device)
