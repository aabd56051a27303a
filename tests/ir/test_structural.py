"""Structural equality and hash: up to renaming, with a path, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from transect.ir.dtype import FLOAT32
from transect.ir.expr import Expr, FloatImm, Intrinsic, Var
from transect.ir.function import IRModule
from transect.ir.structural import structural_equal, structural_hash, structural_mismatch
from transect.support.errors import InputTypeError
from transect.support.span import Span
from transect.tir.buffer import buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore, Evaluate, For, SeqStmt, Stmt

PROGRAM = """
from transect.ir.dtype import HANDLE
from transect.ir.expr import IntImm, Var, minimum
from transect.ir.function import IRModule
from transect.ir.structural import structural_hash
from transect.tir.buffer import buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore, For

def make(names, limit=8, dtype="float32"):
    i, n, handle = Var(names[0]), Var(names[1]), Var(names[2], HANDLE)
    data = buffer(names[3], (n,), dtype)
    store = BufferStore(data, data[minimum(i, limit)], (i,))
    loop = For(i, IntImm(0), n, "serial", store)
    attrs = {"global_symbol": "main", "tags": frozenset({"a", "b", "c"}), "scale": -0.0}
    return PrimFunc((handle,), {handle: data}, loop, attrs)
"""
_SCOPE: dict[str, object] = {}
exec(PROGRAM, _SCOPE)


def make(names: str, limit: int = 8, dtype: str = "float32") -> PrimFunc:
    return _SCOPE["make"](names, limit, dtype)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]


def test_bound_names_do_not_count() -> None:
    a, b = make("inhb"), make("xyzw")
    assert structural_equal(a, b)
    assert structural_hash(a) == structural_hash(b)


@pytest.mark.parametrize("other", [make("inhb", 9), make("inhb", 8, "float16")])
def test_differences_count(other: PrimFunc) -> None:
    assert not structural_equal(make("inhb"), other)
    assert structural_hash(make("inhb")) != structural_hash(other)


def test_mismatch_tells_the_path() -> None:
    a, b = IRModule.of(main=make("inhb")), IRModule.of(main=make("inhb", 9))
    path = structural_mismatch(a, b)
    assert path == "functions['main'].body.body.value.indices[0].b.value: 8 against 9"
    assert structural_mismatch(a, IRModule.of(other=make("inhb"))) == (
        "functions: only one side has main, other"
    )
    assert structural_mismatch(a, a) is None


def test_free_variables_match_only_themselves() -> None:
    x, y, z = Var("x"), Var("y"), Var("z")
    assert structural_equal(x + 1, x + 1)
    assert not structural_equal(x + 1, y + 1)
    assert structural_equal(x + y, y + z, map_free=True)
    assert not structural_equal(x + y, z + z, map_free=True)
    assert not structural_equal(x + x, y + z, map_free=True)
    assert structural_hash(x + y) == structural_hash(y + z)
    assert structural_hash(x + y) != structural_hash(x + x)


def test_two_functions_may_share_a_variable() -> None:
    i, j, k = Var("i"), Var("j"), Var("k")

    def loop(var: Var) -> PrimFunc:
        data = buffer("b", (8,))
        return PrimFunc(
            (), {}, For(var, i * 0, i * 0 + 8, "serial", BufferStore(data, data[var], (var,)))
        )

    shared = IRModule.of(f=loop(j), g=loop(j))
    apart = IRModule.of(f=loop(j), g=loop(k))
    assert structural_equal(shared, apart)
    assert structural_hash(shared) == structural_hash(apart)


def test_spans_do_not_count() -> None:
    x = Var("x")
    at = Span("model.py", 3, 0, 3, 5)
    assert structural_equal(Evaluate(x, (at,)), Evaluate(x))
    assert structural_hash(Evaluate(x, (at,))) == structural_hash(Evaluate(x))


def test_constants_are_compared_by_their_bits() -> None:
    assert not structural_equal({"a": 1}, {"a": True})
    assert not structural_equal({"a": 0.0}, {"a": -0.0})
    assert structural_equal({"a": float("nan")}, {"a": float("nan")})
    assert structural_hash(1) != structural_hash(True)
    assert structural_hash(0.0) != structural_hash(-0.0)
    assert structural_equal(np.arange(4), np.arange(4))
    assert not structural_equal(np.arange(4), np.arange(4, dtype=np.int32))
    assert structural_hash(np.zeros((2, 3))) != structural_hash(np.zeros((3, 2)))


def _nested(depth: int, *, shared: bool) -> Stmt:
    value: Expr = FloatImm(1.0, FLOAT32)

    def build(level: int) -> Stmt:
        if level == 0:
            return Evaluate(value)
        if shared:
            half = build(level - 1)
            return SeqStmt((half, half))
        return SeqStmt((build(level - 1), build(level - 1)))

    return build(depth)


def test_sharing_does_not_count_and_stays_linear() -> None:
    assert structural_equal(_nested(6, shared=True), _nested(6, shared=False))
    assert structural_hash(_nested(6, shared=True)) == structural_hash(_nested(6, shared=False))
    deep = _nested(60, shared=True)
    assert structural_equal(deep, _nested(60, shared=True))
    assert structural_hash(deep) == structural_hash(_nested(60, shared=True))


def test_long_chains_need_no_recursion() -> None:
    def chain() -> Expr:
        expr: Expr = Var("x")
        for i in range(3000):
            expr = expr * 2 + i
        return expr

    assert structural_equal(chain(), chain(), map_free=True)
    assert structural_hash(chain()) == structural_hash(chain())


def test_hash_refuses_what_has_no_stable_text() -> None:
    with pytest.raises(InputTypeError, match="same in every process"):
        structural_hash({"a": object()})
    assert structural_hash({"a": Intrinsic("exp")}) == structural_hash({"a": Intrinsic("exp")})


def test_hash_is_the_same_in_other_processes() -> None:
    script = PROGRAM + '\nprint(structural_hash(IRModule.of(main=make("inhb"))))\n'
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "2")
    }
    assert found == {structural_hash(IRModule.of(main=make("xyzw")))}
