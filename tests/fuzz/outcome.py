"""Running programs of the fuzzers in several ways, and comparing what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np
import tvm_ffi

from tests.fuzz.programs import MIX, mix
from transect.codegen.llvm.compile import compile_module
from transect.codegen.llvm.loader import load
from transect.ir.dtype import as_dtype
from transect.ir.function import IRModule
from transect.runtime.arrays import to_tensor
from transect.support.errors import TransectError
from transect.target import host_target
from transect.tir.interpret import Interpreter
from transect.tir.transform import lowering
from transect.tir.transform.make_packed_api import PREFIX
from transect.transform import Context, Pipeline

Outcome = tuple[type[BaseException] | None, str, list[np.ndarray]]
"""The error and its text, or the arguments after a run."""

tvm_ffi.register_global_func(MIX, mix, override=True)


def outcome(run: Callable[..., object], arguments: Sequence[np.ndarray]) -> Outcome:
    """What a run leaves in its arguments, or which error an assertion raises."""
    copies = [item.copy() for item in arguments]
    try:
        run(*copies)
    except TransectError:
        raise  # A fault of the program or of a pass, not what an assertion says: never agreement.
    except (ValueError, TypeError, RuntimeError) as error:
        return type(error), str(error), []
    return None, "", copies


def assert_agree(
    got: Outcome, want: Outcome, *, exact: bool = False, inexact: frozenset[int] = frozenset()
) -> None:
    """Integers are equal, floats as well if `exact`; else by the number of operations that may be
    contracted, or for the arrays `inexact` to 4 units in the last place (1 of narrow formats)."""
    assert got[0] is want[0], f"{got[:2]} against {want[:2]}"
    assert want[1] == got[1]
    for number, (a, b) in enumerate(zip(got[2], want[2], strict=True)):
        if as_dtype(b.dtype).code in ("int", "uint", "bool"):
            np.testing.assert_array_equal(a, b)
            continue
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        if exact:
            np.testing.assert_array_equal(wide_a, wide_b)
            continue
        info = ml_dtypes.finfo(b.dtype)
        if number in inexact:
            units = 4 if b.dtype.itemsize >= 4 else 1
            eps, floor = units * float(info.eps), 4 * float(info.smallest_subnormal)
        else:
            # A contracted multiply-add rounds once, so the last bits may differ.
            eps = {4: 1e-4, 8: 1e-9}.get(b.dtype.itemsize, 2 * float(info.eps))
            floor = eps * np.nanmax(np.abs(np.where(np.isfinite(wide_b), wide_b, 0)), initial=1)
        np.testing.assert_allclose(wide_a, wide_b, rtol=eps, atol=floor, err_msg=str(number))


def interpreted(module: IRModule, *, vectorize: bool = True) -> Callable[..., object]:
    runner = Interpreter(module, vectorize=vectorize)
    return lambda *args: runner.call("main", *args)


def compiled(module: IRModule) -> Callable[..., object]:
    target = host_target()
    lowered = Pipeline(*lowering(target))(module, Context(target=target))
    loaded = load(compile_module(lowered, target))
    address = loaded.address(PREFIX + "main")
    entry = tvm_ffi.Function.__from_extern_c__(address, keep_alive_object=loaded)
    return lambda *args: entry(*(to_tensor(arg) for arg in args))
