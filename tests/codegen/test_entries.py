"""Entries check their arguments: nothing wrong gets past them, and every message says what."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm_ffi

from tests.codegen.support import compiled, lower
from transect.ir.dtype import HANDLE
from transect.ir.expr import IntImm, Var
from transect.ir.function import IRModule
from transect.script import tir as T
from transect.support.errors import VerifyError
from transect.tir.buffer import buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore, For
from transect.tir.transform import MakePackedAPI


@T.prim_func
def matmul(
    x: T.Buffer(("n", "d"), "float32"),
    w: T.Buffer(("d", "m"), "float32"),
    y: T.Buffer(("n", "m"), "float32"),
):
    for i, j, k in T.grid(n, m, d):
        with T.block("body"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                y[vi, vj] = T.float32(0)
            y[vi, vj] = y[vi, vj] + x[vi, vk] * w[vk, vj]


@T.prim_func
def scaled(
    x: T.Buffer(("n",), "float32"),
    y: T.Buffer(("n * 2",), "float32"),
    k: T.int32,
    f: T.float64,
    b: T.bool,
):
    for i in range(n):
        y[i] = x[i] * T.Cast("float32", k)
        y[i + n] = T.if_then_else(b, T.Cast("float32", f), T.float32(0))


@pytest.fixture(scope="module")
def mm() -> Callable[..., Any]:
    return compiled(matmul)


def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("n", "m", "d"), [(3, 4, 5), (1, 1, 1), (7, 0, 2), (0, 3, 2), (2, 3, 0), (17, 33, 9)]
)
def test_one_compile_serves_all_sizes(mm: Callable[..., Any], n: int, m: int, d: int) -> None:
    random = np.random.default_rng(0)
    x, w = random.random((n, d), np.float32), random.random((d, m), np.float32)
    y = np.full((n, m), np.nan, np.float32)
    mm(x, w, y)
    np.testing.assert_allclose(y, x @ w, rtol=1e-5)


CASES: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((zeros(2, 2),), TypeError, "main: expected 3 arguments, got 1"),
    (
        (zeros(2, 4), zeros(3, 2), zeros(2, 2)),
        ValueError,
        "main: argument 1 'w': dimension 0 is 3, but 'd' is 4 (from argument 0 'x')",
    ),
    (
        (zeros(2, 4), zeros(4, 2), zeros(2, 5)),
        ValueError,
        "main: argument 2 'y': dimension 1 is 5, but 'm' is 2 (from argument 1 'w')",
    ),
    ((1.5, zeros(4, 2), zeros(2, 5)), TypeError, "main: argument 0 'x' must be a tensor"),
    ((None, zeros(4, 2), zeros(2, 5)), TypeError, "main: argument 0 'x' must be a tensor"),
    (("text", zeros(4, 2), zeros(2, 5)), TypeError, "main: argument 0 'x' must be a tensor"),
    (
        (zeros(2, 4, 1), zeros(4, 2), zeros(2, 2)),
        ValueError,
        "main: argument 0 'x' must have 2 dimensions, got 3",
    ),
    (
        (zeros(2, 4), zeros(4, 2, dtype="float64"), zeros(2, 2)),
        TypeError,
        "main: argument 1 'w' must be float32, got DLPack type code 2, 64 bits, 1 lanes",
    ),
    (
        (zeros(4, 2).T, zeros(4, 2), zeros(2, 2)),
        ValueError,
        "main: argument 0 'x' must be contiguous",
    ),
    (
        (zeros(4, 8)[:, ::2], zeros(4, 2), zeros(4, 2)),
        ValueError,
        "main: argument 0 'x' must be contiguous",
    ),
]


@pytest.mark.parametrize(("args", "kind", "message"), CASES, ids=[case[2] for case in CASES])
def test_wrong_arguments(
    mm: Callable[..., Any], args: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        mm(*args)
    assert message in str(caught.value)


def test_strides_of_dimensions_of_one_do_not_matter(mm: Callable[..., Any]) -> None:
    x = np.ones((3, 1), np.float32, order="F")
    w, y = np.ones((1, 2), np.float32, order="F"), zeros(3, 2)
    mm(x, w, y)
    assert (y == 1).all()


def test_scalars_and_computed_dimensions() -> None:
    f = compiled(scaled)
    x, y = np.arange(3, dtype=np.float32), zeros(6)
    f(x, y, 3, 0.5, True)
    assert y.tolist() == [0, 3, 6, 0.5, 0.5, 0.5]
    f(x, y, True, 2, False)
    assert y.tolist() == [0, 1, 2, 0, 0, 0]
    for args, kind, message in (
        (
            (x, zeros(5), 3, 0.5, True),
            ValueError,
            "main: argument 1 'y': dimension 0 is 5, expected 6 by the signature",
        ),
        (
            (x, y, 1 << 40, 0.5, True),
            ValueError,
            "main: argument 2 'k' is 1099511627776, which int32 cannot hold",
        ),
        ((x, y, 2.5, 0.5, True), TypeError, "main: argument 2 'k' must be an integer"),
        ((x, y, 2, "no", True), TypeError, "main: argument 3 'f' must be a number"),
        ((x, y, 2, 1.0, 0.5), TypeError, "main: argument 4 'b' must be bool"),
    ):
        with pytest.raises(kind) as caught:
            f(*args)
        assert message in str(caught.value)


def strided(*, offset: bool) -> PrimFunc:
    """y[i, j] = x[i, j] with x of any strides."""
    n, m, rows, columns, start = (Var(name) for name in ("n", "m", "rows", "columns", "start"))
    x = buffer("x", (n, m), strides=(rows, columns), elem_offset=start if offset else 0)
    y = buffer("y", (n, m))
    i, j = Var("i"), Var("j")
    body = BufferStore(y, x[i, j], (i, j))
    nest = For(i, IntImm(0), n, "serial", For(j, IntImm(0), m, "serial", body))
    params = (Var("a", HANDLE), Var("b", HANDLE))
    return PrimFunc(params, {params[0]: x, params[1]: y}, nest)


@pytest.mark.parametrize("offset", [False, True])
def test_declared_strides_are_bound(offset: bool) -> None:
    f = compiled(strided(offset=offset))
    base = np.arange(60, dtype=np.float32).reshape(6, 10)
    for view in (base, base.T, base[1:, 2:5], base[::2, 1::3]):
        y = np.zeros(view.shape, np.float32)
        f(view, y)
        np.testing.assert_array_equal(y, view)


def test_a_dimension_that_no_argument_determines_is_refused() -> None:
    n = Var("n")
    x = buffer("x", (n * 2,))
    param = Var("a", HANDLE)
    func = PrimFunc(
        (param,), {param: x}, BufferStore(x, x[0], (IntImm(0),)), {"global_symbol": "f"}
    )
    with pytest.raises(VerifyError, match="no argument of 'f' determines n"):
        MakePackedAPI()(IRModule.of(f=func))


def test_private_functions_get_no_entry() -> None:
    module = lower(
        IRModule.of(
            kernel=matmul.with_attrs(global_symbol=None),
            main=matmul.with_attrs(global_symbol="main"),
        )
    )
    assert [name for name in module if name.startswith("__tvm_ffi_")] == ["__tvm_ffi_main"]


def test_null_data_is_refused_unless_there_is_none() -> None:
    f = compiled(scaled)
    empty = np.zeros(0, np.float32)
    f(empty, empty, 1, 1.0, True)


def test_code_is_freed_with_its_function(mm: Callable[..., Any]) -> None:
    f = compiled(scaled)
    f(zeros(2), zeros(4), 1, 1.0, True)
    del f
    gc.collect()
    mm(zeros(1, 1), zeros(1, 1), zeros(1, 1))
    assert isinstance(tvm_ffi.__version__, str)
