"""Compiling and loading: symbols and intrinsic names are checked, objects reload."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import scipy_openblas32
import tvm_ffi

from tests.codegen.support import compiled, lower
from transect.codegen.llvm.compile import CompiledObject, compile_module, emit_module
from transect.codegen.llvm.loader import load
from transect.ir.dtype import FLOAT32, HANDLE, INT32, VOID
from transect.ir.expr import Expr, IntImm, Ramp, Var, as_expr, cast
from transect.runtime.arrays import to_tensor
from transect.support.errors import InputError, UnsupportedError
from transect.target import Target, host_target
from transect.tir.buffer import BufferLoad, buffer
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import BufferStore, Evaluate, For, Stmt, While, seq

N = Var("n")
X, Y = buffer("x", (N,)), buffer("y", (N,))


def function(body: Stmt) -> PrimFunc:
    """A function of two float32 vectors."""
    a, b = Var("a", HANDLE), Var("b", HANDLE)
    return PrimFunc((a, b), {a: X, b: Y}, body)


def loop(value: Expr, index: Expr, i: Var, extent: Expr) -> For:
    """y[index] = value for i in range(extent)."""
    return For(i, IntImm(0), extent, "serial", BufferStore(Y, value, (index,)))


def doubled() -> PrimFunc:
    """y = x + x."""
    i = Var("i")
    return function(loop(X[i] + X[i], i, i, N))


def test_cached_bytes_load_without_compiling() -> None:
    made = compile_module(lower(doubled()), host_target())
    again = load(CompiledObject(made.objects, made.entries, made.constants, made.externs))
    f = tvm_ffi.Function.__from_extern_c__(again.address("__tvm_ffi_main"), keep_alive_object=again)
    y = np.zeros(3, np.float32)
    f(to_tensor(np.arange(3, dtype=np.float32)), to_tensor(y))
    assert y.tolist() == [0, 2, 4]


def test_equal_programs_give_equal_text() -> None:
    first, second = (str(emit_module(lower(doubled()), host_target())) for _ in range(2))
    assert first == second


def test_an_entry_that_is_not_there_is_named() -> None:
    module = load(compile_module(lower(doubled()), host_target()))
    with pytest.raises(InputError, match="no entry 'other'"):
        module.address("other")


def test_an_unknown_symbol_is_an_error_when_loading() -> None:
    call = Evaluate(INTRINSICS["call_extern"]("no_such_symbol_anywhere", as_expr(1), dtype=VOID))
    made = compile_module(lower(function(call)), host_target())
    assert "no_such_symbol_anywhere" in made.externs
    with pytest.raises(InputError, match="no_such_symbol_anywhere"):
        load(made)


def test_symbols_may_be_given_as_addresses() -> None:
    seen: list[int] = []
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int64)(seen.append)
    call = Evaluate(INTRINSICS["call_extern"]("my_callback", N, dtype=VOID))
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    f = compiled(function(call), symbols={"my_callback": address})
    f(np.zeros(5, np.float32), np.zeros(5, np.float32))
    assert seen == [5]


def test_a_library_is_called_by_path() -> None:
    """y = 2 * x + y by cblas_saxpy of the OpenBLAS wheel."""
    path = Path(scipy_openblas32.get_lib_dir()) / f"{scipy_openblas32.get_library(fullname=True)}"
    one = IntImm(1, INT32)
    call = INTRINSICS["call_extern"](
        "scipy_cblas_saxpy",
        cast(N, INT32),
        as_expr(2.0, FLOAT32),
        X.data,
        one,
        Y.data,
        one,
        dtype=VOID,
    )
    f = compiled(function(Evaluate(call)), libraries=[path])
    x, y = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
    f(x, y)
    assert y.tolist() == [1, 3, 5, 7]


def test_a_misspelt_llvm_intrinsic_is_found() -> None:
    value = INTRINSICS["call_llvm_pure_intrin"]("llvm.sqroot.f32", X[0], dtype="float32")
    with pytest.raises(UnsupportedError, match=r"unknown LLVM intrinsics: llvm\.sqroot\.f32"):
        compile_module(lower(function(BufferStore(Y, value, (as_expr(0),)))), host_target())
    good = INTRINSICS["call_llvm_pure_intrin"]("llvm.sqrt.f32", X[0], dtype="float32")
    f = compiled(function(BufferStore(Y, good, (as_expr(0),))))
    y = np.zeros(1, np.float32)
    f(np.full(1, 9, np.float32), y)
    assert y[0] == 3


def test_an_intrinsic_of_another_target_is_refused() -> None:
    body = Evaluate(INTRINSICS["tvm_storage_sync"]("shared"))
    with pytest.raises(UnsupportedError, match=r"T\.tvm_storage_sync on the CPU"):
        compile_module(lower(function(body)), host_target())


def test_a_loop_bound_to_a_gpu_thread_is_refused() -> None:
    i = Var("i")
    body = For(i, IntImm(0), N, "thread_binding", BufferStore(Y, X[i], (i,)), "blockIdx.x")
    with pytest.raises(UnsupportedError, match=r"bound to blockIdx\.x on the CPU"):
        compile_module(lower(function(body)), host_target())


def test_code_for_a_machine_without_extensions_is_right_too() -> None:
    """Plain x86-64: no fused multiply-add, no float16 conversions, 128-bit vectors."""
    i = Var("i")
    half = X[i].astype("float16").astype("float32")
    program = function(loop(INTRINSICS["exp"](half) * X[i] + half, i, i, N))
    f = compiled(program, target=Target("x86", "x86-64"))
    x = np.linspace(-3, 3, 101, dtype=np.float32)
    y = np.zeros_like(x)
    f(x, y)
    h = x.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(y, np.exp(h) * x + h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [-1, 0, 2, 3])
def test_strided_vectors_gather(stride: int) -> None:
    start = as_expr(21 if stride < 0 else 0)
    load_index = Ramp(start, as_expr(stride), 8)
    body = BufferStore(Y, BufferLoad(X, (load_index,)), (Ramp(as_expr(0), as_expr(1), 8),))
    x, y = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
    compiled(function(body))(x, y)
    assert y[:8].tolist() == [float((21 if stride < 0 else 0) + k * stride) for k in range(8)]
    scatter = BufferStore(
        Y, BufferLoad(X, (Ramp(as_expr(0), as_expr(1), 8),)), (Ramp(as_expr(0), as_expr(3), 8),)
    )
    compiled(function(scatter))(x, y)
    assert y[:24:3].tolist() == list(range(8))


def test_masked_lanes_are_neither_read_nor_written() -> None:
    """The arrays end where the mask does; what lies behind is a page that may not be touched."""
    lanes = Ramp(as_expr(0), as_expr(1), 16)
    from_zero = INTRINSICS["get_active_lane_mask"](as_expr(0), N, dtype="boolx16")
    body = BufferStore(Y, BufferLoad(X, (lanes,), from_zero), (lanes,), from_zero)
    f = compiled(function(body))
    for n in (0, 1, 7, 16):
        x, y = np.arange(16, dtype=np.float32), np.full(16, -1, np.float32)
        f(x[:n], y[:n])
        assert y.tolist() == [float(k) if k < n else -1.0 for k in range(16)]


def test_while_and_nested_conditions() -> None:
    """y[0] = the number of halvings that bring x[0] below 1."""
    step = seq(BufferStore(X, X[0] * 0.5, (as_expr(0),)), BufferStore(Y, Y[0] + 1.0, (as_expr(0),)))
    f = compiled(function(While(X[0] >= 1.0, step)))
    x, y = np.array([100.0], np.float32), np.zeros(1, np.float32)
    f(x, y)
    assert y[0] == 7


def test_returning_a_value_is_refused() -> None:
    body = Evaluate(INTRINSICS["ret"](N + 1, dtype=VOID))
    with pytest.raises(UnsupportedError, match=r"T\.ret of a value"):
        compile_module(lower(function(body)), host_target())
