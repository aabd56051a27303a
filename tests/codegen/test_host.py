"""Host functions: packed calls, owned values, errors that keep their class, releases at exits."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tvm_ffi

from tests.codegen.support import compiled, lower
from transect.codegen.llvm.compile import emit_module
from transect.ir.dtype import HANDLE, INT32, VOID
from transect.ir.expr import Call, Expr, GlobalVar, IntImm, Pointer, Var, as_expr, equal
from transect.ir.function import IRModule
from transect.runtime.arrays import to_numpy
from transect.target import host_target
from transect.tir.buffer import buffer
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    Bind,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    Stmt,
    seq,
)


def run(name: str, *args: Expr | int | float | str | bool) -> Evaluate:
    """The statement that calls an intrinsic."""
    return Evaluate(INTRINSICS[name](*args, dtype=VOID))


@pytest.fixture
def register() -> Iterator[Callable[[Callable[..., Any]], str]]:
    """Registers a Python function under a fresh name for the length of a test."""
    names: list[str] = []

    def add(function: Callable[..., Any]) -> str:
        names.append(f"test.{uuid.uuid4().hex}")
        tvm_ffi.register_global_func(names[-1], function)
        return names[-1]

    yield add
    for name in names:
        tvm_ffi.registry.remove_global_func(name)


def host(*stmts: Stmt) -> PrimFunc:
    """A function of one float32 vector `x` (n) and a slot for the result."""
    return PrimFunc(
        (X_PARAM, RESULT), {X_PARAM: X}, seq(*stmts), {"transect.arguments": ("buffer", "result")}
    )


N = Var("n")
X = buffer("x", (N,))
X_PARAM = Var("x", HANDLE)
RESULT = Var("result", HANDLE)
SLOTS = Var("slots", HANDLE)


def item(index: int) -> Expr:
    """Slot `index` as an argument."""
    return INTRINSICS["anylist_getitem"](SLOTS, index)


def test_arguments_of_all_kinds_arrive(register: Callable[..., str]) -> None:
    seen: list[Any] = []

    def record(*args: Any) -> None:
        seen.extend(args)

    data = np.ones(3, np.float32)
    f = compiled(
        host(
            Bind(SLOTS, INTRINSICS["any_list"](2)),
            run("anylist_set", SLOTS, 0, "text"),
            run("make_shape", SLOTS, 1, N, 7),
            run(
                "call_packed",
                register(record),
                5,
                True,
                2.5,
                "abc",
                IntImm(0, HANDLE),
                item(0),
                item(1),
            ),
        )
    )
    f(data)
    assert seen[:6] == [5, True, 2.5, "abc", None, "text"]
    assert tuple(seen[6]) == (3, 7)


def test_a_view_is_modified_in_place(register: Callable[..., str]) -> None:
    def double(x: Any) -> None:
        array = np.from_dlpack(x) if hasattr(x, "__dlpack__") else to_numpy(x)
        array *= 2

    f = compiled(
        host(
            Bind(SLOTS, INTRINSICS["any_list"](1)),
            run("alloc_tensor", SLOTS, 0, "float32", N),
            run("memory_copy", INTRINSICS["tensor_data"](item(0)), X.data, N * 4),
            run("call_packed", register(double), item(0)),
            run("memory_copy", X.data, INTRINSICS["tensor_data"](item(0)), N * 4),
        )
    )
    x = np.arange(4, dtype=np.float32)
    f(x)
    assert x.tolist() == [0, 2, 4, 6]


def test_results_are_kept_and_returned(register: Callable[..., str]) -> None:
    f = compiled(
        host(
            Bind(SLOTS, INTRINSICS["any_list"](3)),
            run("anylist_setitem_call_packed", SLOTS, 0, register(lambda n: (n, "two")), N),
            run("tuple_get", SLOTS, 1, SLOTS, 0, 0),
            run("anylist_set", SLOTS, 2, 4.5),
            run("make_tuple", RESULT, 0, item(1), item(0), item(2)),
        )
    )
    first, second, third = f(np.zeros(6, np.float32))
    assert (first, tuple(second), third) == (6, (6, "two"), 4.5)


def test_numbers_come_back(register: Callable[..., str]) -> None:
    name = register(lambda a, b: a + b)
    whole = Call(
        INTRINSICS["call_packed"], (*_text(name), as_expr(2), as_expr(3)), as_expr(0).dtype
    )
    kind = as_expr(1.5).dtype
    real = Call(INTRINSICS["call_packed"], (*_text(name), as_expr(0.5), as_expr(0.25)), kind)
    f = compiled(
        host(BufferStore(X, whole.astype(kind), (as_expr(0),)), BufferStore(X, real, (as_expr(1),)))
    )
    x = np.zeros(2, np.float32)
    f(x)
    assert x.tolist() == [5, 0.75]


def _text(value: str) -> tuple[Expr, ...]:
    return INTRINSICS["call_packed"](value, dtype=VOID).args


def test_a_returned_tensor_outlives_the_code() -> None:
    f = compiled(
        host(
            run("alloc_tensor", RESULT, 0, "float32", N, 2),
            run(
                "memory_copy",
                INTRINSICS["tensor_data"](INTRINSICS["anylist_getitem"](RESULT, 0)),
                X.data,
                N * 4,
            ),
        )
    )
    result = f(np.arange(5, dtype=np.float32))
    del f
    gc.collect()
    array = to_numpy(result)
    assert array.shape == (5, 2)
    assert array.ravel()[:5].tolist() == [0, 1, 2, 3, 4]
    assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize("slots", [1, 3])
def test_errors_pass_through_and_everything_is_released(
    register: Callable[..., str], slots: int
) -> None:
    kept = tvm_ffi.from_dlpack(np.zeros(4, np.float32))
    token = object()

    def give() -> Any:
        return kept

    def fail(*_args: Any) -> None:
        raise ValueError(f"no luck with {token!r}")

    tmp = Var("tmp", HANDLE, Pointer(X.dtype))
    f = compiled(
        host(
            Bind(SLOTS, INTRINSICS["any_list"](slots)),
            Allocate(tmp, X.dtype, (N * 100000,), {}),
            *(run("anylist_setitem_call_packed", SLOTS, i, register(give)) for i in range(slots)),
            run("call_packed", register(fail), *(item(i) for i in range(slots))),
            BufferStore(X, as_expr(1.0), (as_expr(0),)),
        )
    )
    x = np.zeros(4, np.float32)
    before, uses = sys.getrefcount(kept), _count(kept)
    for _ in range(50):
        with pytest.raises(ValueError, match="no luck with"):
            f(x)
    assert x[0] == 0
    gc.collect()
    assert sys.getrefcount(kept) == before
    assert _count(kept) == uses


def _count(value: Any) -> int:
    """The strong references to a tvm-ffi object, from the header of the C object."""
    return ctypes.c_uint32.from_address(int(value.__chandle__())).value


def test_an_unknown_function_is_named() -> None:
    f = compiled(host(run("call_packed", "no.such.function", 1)))
    with pytest.raises(ValueError, match=r"no function is registered as 'no\.such\.function'"):
        f(np.zeros(1, np.float32))


def test_it_may_be_registered_after_loading(register: Callable[..., str]) -> None:
    name = f"test.{uuid.uuid4().hex}"
    f = compiled(host(run("call_packed", name)))
    with pytest.raises(ValueError, match="no function is registered"):
        f(np.zeros(1, np.float32))
    called: list[int] = []
    tvm_ffi.register_global_func(name, lambda: called.append(1))
    f(np.zeros(1, np.float32))
    f(np.zeros(1, np.float32))
    tvm_ffi.registry.remove_global_func(name)
    assert called == [1, 1]


def test_a_failing_callee_ends_its_caller() -> None:
    n, x = Var("n"), Var("x", HANDLE)
    inner_buffer = buffer("x", (n,))
    check = AssertStmt(
        n > 3, ("n is ", n, ", 100% wrong; half of it is ", n.astype("float64") * 0.5), "IndexError"
    )
    inner = PrimFunc(
        (x,), {x: inner_buffer}, seq(check, BufferStore(inner_buffer, as_expr(7.0), (as_expr(0),)))
    )
    call = Evaluate(Call(GlobalVar("inner"), (X.data, N), VOID))
    main = PrimFunc(
        (X_PARAM,),
        {X_PARAM: X},
        seq(call, BufferStore(X, as_expr(9.0), (as_expr(1),))),
        {"global_symbol": "main"},
    )
    f = compiled(IRModule.of(inner=inner, main=main))
    good, bad = np.zeros(4, np.float32), np.zeros(3, np.float32)
    f(good)
    assert good[:2].tolist() == [7, 9]
    with pytest.raises(IndexError, match=r"n is 3, 100% wrong; half of it is 1\.5"):
        f(bad)
    assert not bad.any()


def test_recursion_and_branches() -> None:
    """x[0] = n! by a function that calls itself."""
    n, x = Var("n"), Var("x", HANDLE)
    cell = buffer("x", (1,))
    recurse = seq(
        Evaluate(Call(GlobalVar("factorial"), (cell.data, n - 1), VOID)),
        BufferStore(cell, cell[0] * n.astype("float32"), (as_expr(0),)),
    )
    stop = BufferStore(cell, as_expr(1.0), (as_expr(0),))
    factorial = PrimFunc(
        (x, n), {x: cell}, IfThenElse(n <= 1, stop, recurse), {"global_symbol": "factorial"}
    )
    f = compiled(IRModule.of(factorial=factorial), "factorial")
    out = np.zeros(1, np.float32)
    f(out, 6)
    assert out[0] == 720


@pytest.mark.parametrize("size", [10, 5000])
def test_constants_in_the_object_and_beside_it(size: int) -> None:
    data = np.arange(size, dtype=np.float32)
    table = Var("table", HANDLE, Pointer(X.dtype))
    view = buffer("table", (size,), data=table)
    i = Var("i")
    loop = For(i, IntImm(0), N, "serial", BufferStore(X, view[i] + 1.0, (i,)))
    f = compiled(host(AllocateConst(table, data), DeclBuffer(view), loop))
    x = np.zeros(size, np.float32)
    f(x)
    np.testing.assert_array_equal(x, data + 1)


def test_workspace_is_reused_and_its_size_is_checked() -> None:
    tmp = Var("tmp", HANDLE, Pointer(X.dtype))
    view = buffer("tmp", (N * N,), data=tmp)
    i = Var("i")
    body = seq(
        Allocate(tmp, X.dtype, (N, N), {}),
        DeclBuffer(view),
        For(i, IntImm(0), N, "serial", BufferStore(view, X[i] * 2.0, (i * N,))),
        For(i, IntImm(0), N, "serial", BufferStore(X, view[i * N], (i,))),
    )
    f = compiled(host(body))
    for size in (0, 3, 100, 1000, 3):
        x = np.ones(size, np.float32)
        f(x)
        assert (x == 2).all()
    scalar = Var("k")
    big = PrimFunc(
        (scalar,), {}, seq(Allocate(tmp, X.dtype, (scalar, scalar), {}), Evaluate(as_expr(0)))
    )
    g = compiled(big)
    g(10)
    for wrong in (-1, 1 << 40):
        with pytest.raises(ValueError, match="a workspace's size is negative or overflows"):
            g(wrong)


@pytest.mark.parametrize("grows", [False, True])
def test_loops_take_workspace_of_one_size_once(grows: bool) -> None:
    """for i in range(4): tmp = x * i, at the end of a workspace; x = tmp + 1."""
    i, j, k = Var("i"), Var("j"), Var("k")
    before = i * 4096 if grows else IntImm(0)
    tmp = Var("tmp", HANDLE, Pointer(X.dtype))
    view = buffer("tmp", (before + N,), data=tmp)
    product = BufferStore(view, X[j] * i.astype("float32"), (before + j,))
    step = seq(
        Allocate(tmp, X.dtype, (before + N,), {}),
        DeclBuffer(view),
        For(j, IntImm(0), N, "serial", product),
        For(k, IntImm(0), N, "serial", BufferStore(X, view[before + k] + 1.0, (k,))),
    )
    program = host(For(i, IntImm(0), IntImm(4), "serial", step))
    text = str(emit_module(lower(program), host_target()))
    assert bool(re.search(r"label %taken\d", text)) is not grows
    f = compiled(program)
    for size in (0, 3, 1000, 3):
        x = np.ones(size, np.float32)
        f(x)
        assert (x == 16).all()


def test_type_checks_of_slots(register: Callable[..., str]) -> None:
    is_tensor = equal(INTRINSICS["anylist_type_index"](SLOTS, 0), as_expr(70, INT32))
    f = compiled(
        host(
            Bind(SLOTS, INTRINSICS["any_list"](1)),
            run("anylist_setitem_call_packed", SLOTS, 0, register(lambda: 3)),
            # Not a tensor: the fields read as those of no tensor, and nothing crashes.
            AssertStmt(
                equal(INTRINSICS["tensor_ndim"](item(0)), as_expr(-1, INT32)),
                ("wrong",),
                "RuntimeError",
            ),
            AssertStmt(is_tensor, ("the result is not a tensor",), "TypeError"),
        )
    )
    with pytest.raises(TypeError, match="the result is not a tensor"):
        f(np.zeros(1, np.float32))
