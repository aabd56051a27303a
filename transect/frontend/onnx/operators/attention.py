"""Attention, in all variants, from products and softmax."""

from __future__ import annotations

import math

import numpy as np
import onnx

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.ir.dtype import BOOL, as_dtype
from transect.ir.expr import Expr, IntImm, as_int
from transect.relax.expr import Value, constant, make_tuple, shape_expr


def attention(node: Node) -> Result:
    """softmax(Q @ K' * scale, capped, with masks) @ V for each head, with caches."""
    rank = len(node.shape(node.value(0)))
    query = _heads(node, 0, "q_num_heads")
    key, value = (_heads(node, index, "kv_num_heads") for index in (1, 2))
    offset: Expr = IntImm(0)
    if node.has(4):
        offset = node.shape(node.value(4))[2]
        key = node.emit("concat", make_tuple(node.value(4), key), axis=2)
        value = node.emit("concat", make_tuple(node.value(5), value), axis=2)
    present = [key, value]
    groups = _groups(node, query, key)
    if groups > 1:
        key, value = (node.emit("repeat", item, repeats=groups, axis=1) for item in present)
    root = node.scalar(math.sqrt(_scale(node, query)), query)
    turned = node.emit("permute_dims", key, axes=(0, 1, 3, 2))
    scores = node.emit(
        "matmul", node.emit("multiply", query, root), node.emit("multiply", turned, root)
    )
    stages = [scores]
    cap = node.attribute("softcap", 0.0)
    if cap:
        capped = node.emit("tanh", node.emit("divide", scores, node.scalar(cap, scores)))
        scores = node.emit("multiply", capped, node.scalar(cap, scores))
    stages.append(scores)
    bias = _bias(node, scores, offset)
    if bias is not None:
        scores = node.emit("add", scores, bias)
    stages.append(scores)
    weights = _softmax(node, scores)
    if bias is not None and _may_hide_all(node):
        weights = _without_hidden(node, weights, bias)
    stages.append(weights)
    result = node.emit("matmul", weights, value)
    if rank == 3:
        result = node.emit("permute_dims", result, axes=(0, 2, 1, 3))
        batch, length, heads, size = node.shape(result)
        result = node.emit("reshape", result, node.shape_of([batch, length, heads * size]))
    return [result, *present, stages[node.attribute("qk_matmul_output_mode", 0)]]


def _heads(node: Node, index: int, count: str) -> Value:
    """Operand `index` as (batch, heads, length, size)."""
    value = node.value(index)
    dims = node.shape(value)
    if len(dims) == 4:
        return value
    heads = node.attribute(count, 0)
    if heads < 1 or len(dims) != 3:
        raise node.error(f"operand {index} has {len(dims)} dimensions and {count} is {heads}")
    batch, length, hidden = dims
    cut = [batch, length, IntImm(heads), node.simplify(hidden // heads)]
    apart = node.emit("reshape", value, node.shape_of(cut))
    return node.emit("permute_dims", apart, axes=(0, 2, 1, 3))


def _groups(node: Node, query: Value, key: Value) -> int:
    """How many heads of the query share one of the key."""
    many, few = as_int(node.shape(query)[1]), as_int(node.shape(key)[1])
    if many is None or not few or many % few:
        raise node.error(f"{many} heads of the query over {few} of the key")
    return many // few


def _scale(node: Node, query: Value) -> float:
    size = as_int(node.shape(query)[3])
    scale = node.attribute("scale", None)
    if scale is not None:
        return scale
    if not size:
        raise node.error("the size of a head is not constant", "give the attribute scale")
    return 1 / math.sqrt(size)


def _may_hide_all(node: Node) -> bool:
    """Whether a query may see no key at all; a causal mask alone always leaves it one."""
    return node.has(3) or node.has(6) or node.attribute("left_window_size", -1) >= 0


def _bias(node: Node, scores: Value, offset: Expr) -> Value | None:
    """What is added to the scores: 0 or minus infinity, and a mask of floats; None if nothing."""
    queries, keys = node.shape(scores)[2:]
    bounds = {side: node.attribute(f"{side}_window_size", -1) for side in ("left", "right")}
    left = None if bounds["left"] < 0 else bounds["left"]
    right = None if bounds["right"] < 0 else bounds["right"]
    if node.attribute("is_causal", 0):
        right = 0
    hidden = constant(np.asarray(-math.inf), node.dtype(scores))
    zero = constant(np.asarray(0.0), node.dtype(scores))
    bias: Value | None = None
    if node.has(3):
        mask = _lengthened(node, node.value(3), keys)
        bias = mask
        if node.dtype(mask) is BOOL:
            bias = node.emit("where", mask, zero, hidden)
    if left is not None or right is not None or node.has(6):
        lengths = [node.value(6)] if node.has(6) else []
        size = shape_expr(queries, keys, offset)
        seen = node.emit("nn.attention_window", size, *lengths, left=left, right=right)
        bias = node.emit("where", seen, zero if bias is None else bias, hidden)
    return bias


def _lengthened(node: Node, mask: Value, keys: Expr) -> Value:
    """A mask with as many columns as there are keys, those added seeing nothing."""
    dims = node.shape(mask)
    if as_int(dims[-1]) == 1 or node.analyzer.can_prove_equal(dims[-1], keys):
        return mask
    none = [IntImm(0)] * len(dims)
    widths = node.shape_of([*none, *none[1:], keys - dims[-1]])
    hidden = False if node.dtype(mask) is BOOL else -math.inf
    return node.emit("nn.dynamic_pad", mask, widths, constant(np.asarray(hidden), node.dtype(mask)))


def _softmax(node: Node, scores: Value) -> Value:
    """Over the keys, in the precision that is asked for."""
    code = node.attribute("softmax_precision", 0)
    own = node.dtype(scores)
    wanted = as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code)) if code else own
    if wanted is own:
        return node.emit("nn.softmax", scores, axis=-1)
    wide = node.emit("nn.softmax", node.emit("astype", scores, dtype=wanted), axis=-1)
    return node.emit("astype", wide, dtype=own)


def _without_hidden(node: Node, weights: Value, bias: Value) -> Value:
    """The weights, 0 for a query that sees no key."""
    most = node.emit("max", bias, axis=(-1,), keepdims=True)
    lowest = constant(np.asarray(-math.inf), node.dtype(bias))
    blind = node.emit("equal", most, lowest)
    return node.emit("where", blind, constant(np.asarray(0.0), node.dtype(weights)), weights)


ATTENTION: dict[str, tuple[Converter, ...]] = {
    "Attention": one(attention),
}
"""Converters of attention."""
