"""Attention as ONNX Runtime's optimizers fuse it (domain com.microsoft), and rotary positions.

ONNX's own Attention is in `attention.py`. Source: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.quantize import (
    combined_scale,
    integer_product,
    optional,
    to_float,
)
from transect.ir.dtype import INT32, INT64
from transect.ir.expr import Expr, IntImm, as_int
from transect.ir.types import tensor_type
from transect.relax.expr import Value, constant, make_tuple, prim_value, tuple_item


@dataclass(frozen=True)
class Heads:
    """query, key, value: (batch, length, heads, size), of different lengths and sizes."""

    query: Value
    key: Value
    value: Value


def split_heads(node: Node, value: Value, heads: int) -> Value:
    """(batch, length, hidden) as (batch, length, heads, size)."""
    batch, length, hidden = node.shape(value)
    dims = node.shape_of([batch, length, IntImm(heads), hidden // heads])
    return node.emit("reshape", value, dims)


def heads_first(node: Node, value: Value) -> Value:
    """(batch, length, heads, size) as (batch, heads, length, size), or back."""
    return node.emit("permute_dims", value, axes=(0, 2, 1, 3))


def attend(node: Node, heads: Heads, bias: Value | None) -> Value:
    """Attention, with the heads side by side in the result: (batch, length, hidden)."""
    scale = node.attribute("scale", 0.0)
    causal = node.attribute("unidirectional", 0) == 1
    operands = [heads.query, heads.key, heads.value, *([] if bias is None else [bias])]
    result = node.emit(
        "nn.attention",
        *operands,
        scale=scale or None,
        causal_mask="BottomRight" if causal else None,
    )
    batch, length, count, size = node.shape(result)
    return node.emit("reshape", result, node.shape_of([batch, length, count * size]))


def with_past(node: Node, past: Value, new: Value) -> Value:
    """Keys or values (batch, length, heads, size) after the past ones, whose heads are first."""
    return node.emit("concat", make_tuple(heads_first(node, past), new), axis=1)


def mask_bias(node: Node, index: int, batch: Expr, keys: Expr) -> Value | None:
    """What a mask adds to the scores: 0 where a key is seen, else `mask_filter_value`.

    The mask: (batch, keys) or (batch, queries, keys) of 0 and 1; (batch,) numbers of keys that are
    seen; or (2 * batch,) ends and then beginnings of what is seen.
    """
    if not node.has(index):
        return None
    mask = node.value(index)
    dims = node.shape(mask)
    if len(dims) == 1:
        mask = _seen_keys(node, mask, batch, keys)
    elif len(dims) in (2, 3):
        queries = dims[1:-1]
        mask = node.checked(mask, tensor_type((batch, *queries, keys), node.dtype(mask)))
        rows = queries or (IntImm(1),)
        mask = node.emit("reshape", mask, node.shape_of([batch, IntImm(1), *rows, keys]))
    else:
        raise node.error(f"a mask of {len(dims)} dimensions is not covered")
    dtype = node.dtype(node.value(0))
    if not node.dtype(mask).is_bool:
        mask = node.emit("not_equal", mask, node.scalar(0, mask))
    kind = dtype if dtype.is_float else node.dtype(node.value(2))
    hidden = constant(node.attribute("mask_filter_value", -10000.0), kind)
    return node.emit("where", mask, constant(0.0, kind), hidden)


def _seen_keys(node: Node, lengths: Value, batch: Expr, keys: Expr) -> Value:
    (count,) = node.shape(lengths)
    places = node.emit("arange", prim_value(IntImm(0)), prim_value(keys), dtype=INT32)
    column = node.shape_of([batch, IntImm(1), IntImm(1), IntImm(1)])
    if node.analyzer.can_prove_equal(count, batch):
        return node.emit("less", places, node.emit("reshape", lengths, column))
    if not node.analyzer.can_prove_equal(count, batch * 2):
        raise node.error(f"a mask of {count!r} numbers for a batch of {batch!r}")
    cut = node.emit("reshape", lengths, node.shape_of([IntImm(2), batch]))
    ends, begins = (
        node.emit("reshape", node.emit("take", cut, constant(side, INT64), axis=0), column)
        for side in (0, 1)
    )
    before_end = node.emit("less", places, ends)
    return node.emit("logical_and", before_end, node.emit("greater_equal", places, begins))


def _sum(node: Node, a: Value | None, b: Value | None) -> Value | None:
    if a is None or b is None:
        return b if a is None else a
    return node.emit("add", a, b)


def attention(node: Node) -> Result:
    """Attention of one input to itself, which is projected to queries, keys and values here."""
    if node.attribute("do_rotary", 0) or node.attribute("past_present_share_buffer", 0):
        raise node.error("do_rotary and past_present_share_buffer are not covered")
    projected = node.emit("matmul", node.value(0), node.value(1))
    if node.has(2):
        projected = node.emit("add", projected, node.value(2))
    return _self_attention(node, projected, mask=3, past=4, bias=5)


def q_attention(node: Node) -> Result:
    """Attention whose projection is a product of quantized matrices."""
    x, weight, bias, x_scale, w_scale = (node.value(i) for i in range(5))
    total = integer_product(node, x, weight, optional(node, 6), optional(node, 7))
    scale = combined_scale(node, x_scale, w_scale)
    projected = node.emit("add", node.emit("multiply", to_float(node, total), scale), bias)
    return _self_attention(node, projected, mask=5, past=8, bias=9)


def _self_attention(node: Node, projected: Value, mask: int, past: int, bias: int) -> Result:
    batch, _, hidden = node.shape(projected)
    width = as_int(hidden)
    if width is None:
        raise node.error("the weights must have a constant shape")
    sizes = node.attribute("qkv_hidden_sizes", [width // 3] * 3)
    cuts = (sizes[0], sizes[0] + sizes[1])
    parts = node.emit("split", projected, indices_or_sections=cuts, axis=2)
    count = node.attribute("num_heads", 1)
    query, key, value = (split_heads(node, tuple_item(parts, i), count) for i in range(3))
    if node.has(past):
        before = node.emit("split", node.value(past), indices_or_sections=2, axis=0)
        key, value = (
            with_past(node, node.emit("squeeze", tuple_item(before, i), axis=(0,)), item)
            for i, item in enumerate((key, value))
        )
    extra = _sum(node, mask_bias(node, mask, batch, node.shape(key)[1]), optional(node, bias))
    result = attend(node, Heads(query, key, value), extra)
    if not node.wants(1):
        return result
    both = (node.emit("expand_dims", heads_first(node, item), axis=(0,)) for item in (key, value))
    return [result, node.emit("concat", make_tuple(*both), axis=0)]


def multi_head_attention(node: Node) -> Result:
    """Attention of projected queries, keys and values, to which a bias is added first."""
    count = node.attribute("num_heads", 1)
    query, key, value = _projected(node, count)
    batch = node.shape(query)[0]
    if node.has(6):
        key, value = (with_past(node, node.value(i), item) for i, item in ((6, key), (7, value)))
    mask = mask_bias(node, 4, batch, node.shape(key)[1])
    result = attend(node, Heads(query, key, value), _sum(node, mask, optional(node, 5)))
    if node.wants(3):
        raise node.error("the products of queries and keys as an output are not covered")
    if not (node.wants(1) or node.wants(2)):
        return result
    return [result, heads_first(node, key), heads_first(node, value)]


def _projected(node: Node, count: int) -> list[Value]:
    """The queries, keys and values: apart, keys with values (b, n, h, 2, d), or all in one."""
    query = node.value(0)
    if len(node.shape(query)) == 5:
        return _unpacked(node, query, 3)
    if node.has(1) and len(node.shape(node.value(1))) == 5:
        return [split_heads(node, query, count), *_unpacked(node, node.value(1), 2)]
    parts = [query, *(node.value(i) if node.has(i) else query for i in (1, 2))]
    if node.has(3):
        ends = [0]
        for item in parts:
            dims = node.shape(item)
            width = as_int(dims[2] if len(dims) == 3 else dims[1] * dims[3])
            if width is None:
                raise node.error("the hidden sizes must be constant")
            ends.append(ends[-1] + width)
        pieces = node.emit("split", node.value(3), indices_or_sections=tuple(ends[1:-1]), axis=0)
        parts = [
            node.emit("add", item, tuple_item(pieces, i)) if len(node.shape(item)) == 3 else item
            for i, item in enumerate(parts)
        ]
    return [
        split_heads(node, item, count) if len(node.shape(item)) == 3 else heads_first(node, item)
        for item in parts
    ]


def _unpacked(node: Node, packed: Value, count: int) -> list[Value]:
    parts = node.emit("split", packed, indices_or_sections=count, axis=3)
    return [node.emit("squeeze", tuple_item(parts, i), axis=(3,)) for i in range(count)]


def rotated(
    node: Node, value: Value, cosine: Value, sine: Value, size: int, interleaved: bool
) -> Value:
    """The first `size` numbers of every head turned in pairs.

    value: (batch, length, heads, head size). cosine, sine: broadcast to (batch, length, heads,
    size / 2). The pairs: neighbours if `interleaved`, else each half with the other.
    """
    *outer, whole = node.shape(value)
    rest: list[Value] = []
    if as_int(whole) != size:
        parts = node.emit("split", value, indices_or_sections=(size,), axis=3)
        value, rest = tuple_item(parts, 0), [tuple_item(parts, 1)]
    pair = [IntImm(size // 2), IntImm(2)] if interleaved else [IntImm(2), IntImm(size // 2)]
    axis = 4 if interleaved else 3
    apart = node.emit("reshape", value, node.shape_of([*outer, *pair]))
    halves = node.emit("split", apart, indices_or_sections=2, axis=axis)
    a, b = (node.emit("squeeze", tuple_item(halves, i), axis=(axis,)) for i in range(2))
    first = node.emit("subtract", node.emit("multiply", a, cosine), node.emit("multiply", b, sine))
    second = node.emit("add", node.emit("multiply", a, sine), node.emit("multiply", b, cosine))
    both = (node.emit("expand_dims", item, axis=(axis,)) for item in (first, second))
    joined = node.emit("concat", make_tuple(*both), axis=axis)
    turned = node.emit("reshape", joined, node.shape_of([*outer, IntImm(size)]))
    return node.emit("concat", make_tuple(turned, *rest), axis=3) if rest else turned


def rotary_embedding(node: Node) -> Result:
    """Rotary positions: (batch, length, hidden), or (batch, heads, length, head size)."""
    if node.attribute("is_packed_batching", 0) or node.attribute("scale", 1.0) != 1.0:
        raise node.error("packed batches and a scale are not covered")
    value = node.value(0)
    dims = node.shape(value)
    half = as_int(node.shape(node.value(2))[1])
    if half is None:
        raise node.error("the caches must have a constant shape")
    size = node.attribute("rotary_embedding_dim", 0) or 2 * half
    if len(dims) == 4:
        split = heads_first(node, value)
    else:
        hidden = as_int(dims[2])
        count = node.attribute("num_heads", 0) or (0 if hidden is None else hidden // size)
        split = split_heads(node, value, count)
    length = node.shape(split)[1]
    cosine, sine = (
        angles(node, node.value(index), positions(node, node.value(1), length)) for index in (2, 3)
    )
    turned = rotated(node, split, cosine, sine, size, node.attribute("interleaved", 0) == 1)
    if len(dims) == 4:
        return heads_first(node, turned)
    return node.emit("reshape", turned, node.shape_of(dims))


def positions(node: Node, given: Value, length: Expr) -> Value:
    """Positions (batch, length) as they are; one alone is that of the first element."""
    if len(node.shape(given)) != 1:
        return given
    steps = node.emit("arange", prim_value(IntImm(0)), prim_value(length), dtype=INT64)
    row = node.emit("add", steps, node.emit("astype", given, dtype=INT64))
    return node.emit("reshape", row, node.shape_of([IntImm(1), length]))


def angles(node: Node, cache: Value, places: Value) -> Value:
    """The rows of a cache at the positions (batch, length), for every head: (batch, length, 1,
    size / 2)."""
    return node.emit("expand_dims", node.emit("take", cache, places, axis=0), axis=(2,))


MICROSOFT_ATTENTION: dict[str, tuple[Converter, ...]] = {
    "Attention": one(attention),
    "MultiHeadAttention": one(multi_head_attention),
    "QAttention": one(q_attention),
    "RotaryEmbedding": one(rotary_embedding),
}
"""Converters of ONNX Runtime's attention."""
