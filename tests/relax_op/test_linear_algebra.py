"""Matrix products, einsum, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.relax_op.support import check, floats, integers, run, same


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (7, 4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 5)),
        ((0, 4), (4, 5)),
    ],
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = floats(*a), floats(*b, seed=1)
    check(np.matmul(x, y), "matmul", x, y, symbolic=(2, 3, 4, 5))


def test_matmul_into_another_dtype() -> None:
    x, y = integers(3, 40, low=-128, high=128, dtype="int8"), integers(40, 2, dtype="int8")
    check(x.astype("int32") @ y.astype("int32"), "matmul", x, y, out_dtype="int32")
    a, b = floats(3, 64, dtype="float16"), floats(64, 2, seed=1, dtype="float16")
    expected = (a.astype("float32") @ b.astype("float32")).astype("float16")
    check(expected, "matmul", a, b, tolerance=1e-3)


def test_matmul_over_an_empty_extent() -> None:
    check(np.zeros((2, 3), "float32"), "matmul", floats(2, 0), floats(0, 3))


def test_linear() -> None:
    x, w, bias = floats(2, 3, 4), floats(5, 4, seed=1), floats(5, seed=2)
    check(x @ w.T + bias, "linear", x, w, bias, symbolic=(2, 3))
    check(x @ w.T, "linear", x, w, symbolic=(2, 3, 4, 5))


def test_outer() -> None:
    a, b = floats(3), floats(4, seed=1)
    check(np.outer(a, b), "outer", a, b, symbolic=(3, 4))


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("ij->ji", ((2, 3),)),
        ("ii->i", ((3, 3),)),
        ("ii", ((3, 3),)),
        ("ij,j", ((2, 3), (3,))),
        ("...ij,...jk->...ik", ((2, 3, 4), (4, 5))),
        ("i,j,k->kji", ((2,), (3,), (4,))),
        ("ij->", ((2, 3),)),
        ("b...,b...->b...", ((2, 3), (2, 3))),
    ],
)
def test_einsum(text: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    operands = tuple(floats(*size, seed=k) for k, size in enumerate(shapes))
    expected = np.einsum(text, *operands)
    check(expected, "einsum", operands, subscripts=text, symbolic=(2, 3))


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, allowed: np.ndarray | None, bias: Any
) -> np.ndarray:
    """The formula, in float64."""
    q, k, v = (x.astype("float64").transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * scale + bias
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    result = weights / weights.sum(-1, keepdims=True) @ v
    return result.transpose(0, 2, 1, 3)


Q, K, V = floats(2, 3, 4, 8), floats(2, 5, 4, 8, seed=1), floats(2, 5, 4, 6, seed=2)


@pytest.mark.parametrize(
    ("mask", "window"),
    [(None, None), ("TopLeft", None), ("BottomRight", None), ("TopLeft", 2), ("BottomRight", 2)],
)
def test_attention(mask: str | None, window: int | None) -> None:
    first = 0 if mask == "TopLeft" else 2
    allowed = None if mask is None else np.tri(3, 5, first, bool)
    if allowed is not None and window is not None:
        allowed &= ~np.tri(3, 5, first - window, bool)
    expected = attention(Q, K, V, 1 / math.sqrt(8), allowed, 0).astype("float32")
    check(
        expected, "nn.attention", Q, K, V, causal_mask=mask, window_size=window, symbolic=(2, 3, 5)
    )


def test_attention_with_bias_and_scale() -> None:
    bias = floats(4, 1, 5, seed=3)
    expected = attention(Q, K, V, 0.3, None, bias[None])
    check(expected.astype("float32"), "nn.attention", Q, K, V, bias, scale=0.3, symbolic=(3,))
    check(expected.astype("float32"), "nn.attention_bias", Q, K, V, bias, scale=0.3)


def test_attention_in_half_precision_keeps_scores_in_single() -> None:
    q, k, v = (x.astype("float16") for x in (Q, K, V))
    expected = attention(q, k, v, 1 / math.sqrt(8), None, 0).astype("float16")
    same(run("nn.attention", q, k, v), expected, 2e-3)
