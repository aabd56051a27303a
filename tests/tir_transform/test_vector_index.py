"""Vectors of indices become ramps: whole loads, and small allocations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codegen.support import compiled
from transect.hardware import this_machine
from transect.ir.dtype import INDEX
from transect.ir.expr import Broadcast, Expr, Ramp, Var, as_expr
from transect.ir.function import IRModule
from transect.script import parse
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.transform import lowering
from transect.tir.transform.vector_index import as_ramp
from transect.tir.visit import walk_terms
from transect.transform import Context, Pipeline

LANES = 4
V, W = Var("i", INDEX), Var("j", INDEX)


def _lanes(value: Expr, i: int, j: int) -> list[int]:
    """The value of each lane."""
    if isinstance(value, Ramp):
        base, stride = _scalar(value.base, i, j), _scalar(value.stride, i, j)
        return [base + stride * n for n in range(LANES)]
    if isinstance(value, Broadcast):
        return [_scalar(value.value, i, j)] * LANES
    a, b = (_lanes(part, i, j) for part in (getattr(value, "a"), getattr(value, "b")))  # noqa: B009
    operation = {"Add": int.__add__, "Sub": int.__sub__, "Mul": int.__mul__}[type(value).__name__]
    return [operation(x, y) for x, y in zip(a, b, strict=True)]


def _scalar(value: Expr, i: int, j: int) -> int:
    known = {V: i, W: j}
    if value in known:
        return known[value]  # pyright: ignore[reportArgumentType]
    if hasattr(value, "value"):
        return int(getattr(value, "value"))  # noqa: B009
    a, b = (_scalar(part, i, j) for part in (getattr(value, "a"), getattr(value, "b")))  # noqa: B009
    return {"Add": a + b, "Sub": a - b, "Mul": a * b}[type(value).__name__]


SCALARS = st.sampled_from([V, W, *(as_expr(n, INDEX) for n in (0, 1, 3))])
VECTORS = st.recursive(
    st.builds(lambda v: Broadcast(v, LANES), SCALARS)
    | st.builds(lambda b, s: Ramp(b, as_expr(s, INDEX), LANES), SCALARS, st.integers(-2, 2)),
    lambda inner: st.builds(lambda op, a, b: op(a, b),
                            st.sampled_from([Expr.__add__, Expr.__sub__, Expr.__mul__]),
                            inner, inner),
    max_leaves=5,
)  # fmt: skip


@given(VECTORS, st.integers(-5, 5), st.integers(-5, 5))
def test_lanes_stay(value: Expr, i: int, j: int) -> None:
    assert _lanes(as_ramp(value), i, j) == _lanes(value, i, j)


def test_sums_become_one_ramp() -> None:
    value = Broadcast(V * 64, LANES) + Ramp(W, as_expr(1, INDEX), LANES)
    assert as_ramp(value) is Ramp(V * 64 + W, as_expr(1, INDEX), LANES)
    assert as_ramp(value - Broadcast(W, LANES)).dtype.lanes == LANES


def _matched(width: int) -> PrimFunc:
    found = parse(f"""
@T.prim_func
def matched(A: T.Buffer((8, {16 * width}), "float32"), B: T.Buffer((8, {16 * width}), "float32")):
    L = T.alloc_buffer((8, {16 * width}), "float32", scope="local")
    for i in range(8):
        for j in T.unroll({width}):
            with T.block("fill"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A[vi, vj * 16 : vj * 16 + 16])
                T.writes(L[vi, vj * 16 : vj * 16 + 16])
                a = T.match_buffer(A[vi, vj * 16 : vj * 16 + 16], (16,), "float32")
                l = T.match_buffer(L[vi, vj * 16 : vj * 16 + 16], (16,), "float32", scope="local")
                l[T.ramp(0, 1, 16)] = a.vload([0], "float32x16") * T.broadcast(T.float32(2), 16)
        for j in T.unroll({width}):
            with T.block("copy"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(L[vi, vj * 16 : vj * 16 + 16])
                T.writes(B[vi, vj * 16 : vj * 16 + 16])
                b = T.match_buffer(B[vi, vj * 16 : vj * 16 + 16], (16,), "float32")
                l = T.match_buffer(L[vi, vj * 16 : vj * 16 + 16], (16,), "float32", scope="local")
                b[T.ramp(0, 1, 16)] = l[T.ramp(0, 1, 16)]
""")
    assert isinstance(found, PrimFunc)
    return found


@pytest.mark.parametrize("width", [1, 3])
def test_matched_vectors_are_whole_and_their_buffers_small(width: int) -> None:
    func = _matched(width)
    low = Pipeline(*lowering(this_machine()))(IRModule.of(main=func), Context())
    text = repr(low["main"])
    assert f"T.allocate([{16 * width}]" in text, text
    for item in walk_terms(low["main"].body):  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(item, Expr) and item.dtype.is_int and item.dtype.lanes > 1:
            assert isinstance(item, Ramp), item
    a = np.arange(8 * 16 * width, dtype=np.float32).reshape(8, -1)
    ours, theirs = np.zeros_like(a), np.zeros_like(a)
    compiled(func)(a, ours)
    interpret(func, a, theirs)
    np.testing.assert_array_equal(ours, a * 2)
    np.testing.assert_array_equal(theirs, a * 2)
