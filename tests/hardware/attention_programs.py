"""Attention as one program, before any schedule, and what it should give."""

from __future__ import annotations

import numpy as np

from transect.ir.expr import Expr
from transect.tir import op
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc

Size = Expr | int
Array = np.ndarray


def attention(
    b: Size,
    h: Size,
    n: Size,
    m: Size,
    d: Size,
    e: Size,
    *,
    mask: bool = False,
    heads_inside: bool = False,
) -> PrimFunc:
    """y = softmax(q @ k.T / 2 + mask) @ v for each of b x h, the operands (b, h, length, size);
    heads_inside: (b, length, h, size), transposed in the program."""
    builder = FunctionBuilder("attention")
    shapes = {"q": (n, d), "k": (m, d), "v": (m, e)}
    given = {
        name: builder.input(name, (b, s, h, c) if heads_inside else (b, h, s, c), "float32")
        for name, (s, c) in shapes.items()
    }
    extra = builder.input("mask", (b, n, m), "float32") if mask else None
    q, k, v = given.values()
    if heads_inside:
        q, k, v = (
            builder.compute((b, h, s, c), lambda z, g, i, j, x=x: x[z, i, g, j], name=f"{name}h")
            for (name, (s, c)), x in zip(shapes.items(), (q, k, v), strict=True)
        )
    kt = builder.compute((b, h, d, m), lambda z, g, c, j: k[z, g, j, c], name="kt")
    s = builder.reduce(
        (b, h, n, m), (d,), lambda z, g, i, j, c: q[z, g, i, c] * kt[z, g, c, j], name="s"
    )
    t = builder.compute((b, h, n, m), lambda *i: s[i] * 0.5, name="t")
    if extra is not None:
        before = t
        t = builder.compute((b, h, n, m), lambda z, g, i, j: before[z, g, i, j] + extra[z, i, j])
    a = builder.reduce((b, h, n), (m,), lambda z, g, i, j: t[z, g, i, j], combiner="max", name="a")
    w = builder.reduce(
        (b, h, n), (m,), lambda z, g, i, j: op.exp(t[z, g, i, j] - a[z, g, i]), name="w"
    )
    p = builder.compute(
        (b, h, n, m),
        lambda z, g, i, j: op.exp(t[z, g, i, j] - a[z, g, i]) / w[z, g, i],
        name="p",
    )
    y = builder.reduce(
        (b, h, n, e), (m,), lambda z, g, i, c, j: p[z, g, i, j] * v[z, g, j, c], name="y"
    )
    if heads_inside:
        inner = y
        y = builder.compute((b, n, h, e), lambda z, i, g, c: inner[z, g, i, c], name="o")
    return builder.finish([y])


def operands(
    b: int, h: int, n: int, m: int, d: int, e: int, *, mask: bool, heads_inside: bool, seed: int = 0
) -> tuple[list[Array], Array]:
    """Random operands, and the result in float64. Masks hide keys, never all of a row."""
    rng = np.random.default_rng(seed)
    q, k, v = (
        rng.standard_normal((b, h, *shape)).astype(np.float32) for shape in ((n, d), (m, d), (m, e))
    )
    q *= np.float32(0.25)  # Scores near 0 round less before their exponentials are taken.
    scores = np.einsum("zgic,zgjc->zgij", q.astype(np.float64), k.astype(np.float64)) * 0.5
    arrays = [q, k, v]
    if heads_inside:
        arrays = [np.ascontiguousarray(item.transpose(0, 2, 1, 3)) for item in arrays]
    if mask:
        hidden = rng.random((b, n, m)) < 0.4
        hidden[:, :, rng.integers(0, m)] = False
        arrays.append(np.where(hidden, -np.inf, 0.0).astype(np.float32))
        scores += arrays[-1][:, None]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    exact = np.einsum("zgij,zgjc->zgic", weights, v.astype(np.float64))
    return arrays, exact.transpose(0, 2, 1, 3) if heads_inside else exact
