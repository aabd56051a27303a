"""From a tensor program to a callable, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from transect.codegen.llvm.compile import compile_module
from transect.codegen.llvm.loader import load
from transect.ir.function import IRModule
from transect.runtime.arrays import to_tensor
from transect.target import Target, host_target
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter
from transect.tir.transform import lowering
from transect.tir.transform.make_packed_api import PREFIX
from transect.transform import Context, Pipeline


def lower(program: PrimFunc | IRModule, target: Target | None = None) -> IRModule:
    """The program lowered for the CPU; a single function is exported as "main"."""
    target = target or host_target()
    module = (
        IRModule.of(main=program.with_attrs(global_symbol="main"))
        if isinstance(program, PrimFunc)
        else program
    )
    return Pipeline(*lowering(target))(module, Context(target=target))


def compiled(
    program: PrimFunc | IRModule,
    name: str = "main",
    *,
    target: Target | None = None,
    libraries: Mapping[str, Path] | Sequence[Path] = (),
    symbols: Mapping[str, int] | None = None,
) -> Callable[..., Any]:
    """The function `name` in machine code, called with numpy arrays and scalars."""
    target = target or host_target()
    loaded = load(
        compile_module(lower(program, target), target), libraries=libraries, symbols=symbols
    )
    entry = tvm_ffi.Function.__from_extern_c__(
        loaded.address(PREFIX + name), keep_alive_object=loaded
    )
    return lambda *args: entry(
        *(to_tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in args)
    )


def check(program: PrimFunc, *args: Any, rtol: float = 0.0, atol: float = 0.0) -> list[Any]:
    """Run compiled and interpreted on copies of `args` and compare every array afterwards."""
    ours = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
    theirs = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
    compiled(program)(*ours)
    Interpreter().run(program, *theirs)
    for got, want in zip(ours, theirs, strict=True):
        if isinstance(got, np.ndarray):
            assert_same(got, want, rtol, atol)
    return ours


def assert_same(got: np.ndarray, want: np.ndarray, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Equal values, NaN like NaN, and the same sign of zero unless a tolerance is given."""
    wide = np.float64 if got.dtype.kind not in "biu" else got.dtype
    a, b = got.astype(wide), want.astype(wide)
    if rtol or atol:
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    else:
        np.testing.assert_array_equal(a, b)
        if wide is np.float64:
            ordered = ~np.isnan(b)
            np.testing.assert_array_equal(np.signbit(a[ordered]), np.signbit(b[ordered]))
