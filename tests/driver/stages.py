"""Running a program at any stage of its compile in the interpreters, for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transect.driver import pipeline
from transect.ir.function import IRModule
from transect.relax import expr as rx
from transect.relax.interpret import interpret as run_graph
from transect.runtime import Signature
from transect.script import parse, script
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter
from transect.tir.interpret import interpret as run_program
from transect.tir.interpreter.host import AnyList
from transect.transform import Context

_TRANSPOSED = 112  # of cblas.h


def stage_names() -> list[str]:
    """The stages of a compile, as `CompiledModel.stages` names them."""
    names = ["input"]
    for step in pipeline(Context(), "main").passes:
        earlier = sum(name.rsplit("_", 1)[0] == step.name for name in names)
        names.append(f"{step.name}_{earlier + 1}" if earlier else step.name)
    return names


def blas_table() -> dict[str, Any]:
    """numpy in the place of OpenBLAS, for interpreted calls of its C functions."""

    def gemm(
        order: int, trans_a: int, trans_b: int, m: int, n: int, k: int,
        alpha: float, a: Any, lda: int, b: Any, ldb: int, beta: float, c: Any, ldc: int,
    ) -> None:  # fmt: skip
        assert (order, alpha, beta) == (101, 1, 0)
        left_rows = (k, m) if trans_a == _TRANSPOSED else (m, k)
        right_rows = (n, k) if trans_b == _TRANSPOSED else (k, n)
        assert (lda, ldb, ldc) == (max(left_rows[1], 1), max(right_rows[1], 1), max(n, 1))
        left = a.view(m * k).reshape(left_rows)
        right = b.view(k * n).reshape(right_rows)
        left = left.T if trans_a == _TRANSPOSED else left
        right = right.T if trans_b == _TRANSPOSED else right
        c.view(m * n)[:] = (left @ right).reshape(-1)

    return {"scipy_cblas_sgemm": gemm, "scipy_cblas_dgemm": gemm}


def run_stage(
    module: IRModule,
    signature: Signature,
    inputs: Mapping[str, np.ndarray],
    shapes: Sequence[tuple[int, ...]],
) -> list[np.ndarray]:
    """The outputs of the entry of `module`, at whatever stage it is.

    shapes: of the outputs, in order.
    """
    func = module[signature.name]
    arrays = [array.copy() for array in inputs.values()]
    if isinstance(func, rx.Function):
        result = run_graph(module, signature.name, *arrays)
        return list(result) if isinstance(result, tuple) else [result]
    assert isinstance(func, PrimFunc)
    made = [
        np.full(shape, 99, output.dtype)
        for shape, output in zip(shapes, signature.outputs, strict=True)
        if output.kind == "destination"
    ]
    entry = f"__tvm_ffi_{signature.name}"
    if entry in module:
        returned = Interpreter(module, extern=blas_table()).call_entry(entry, *arrays, *made)
    else:
        slots = [AnyList([None]) for output in signature.outputs if output.kind == "owned"]
        run_program(module, *arrays, *made, *slots, name=signature.name, extern=blas_table())
        returned = slots[0].slots[0] if slots else None
    return made or [returned]


def round_trip(module: IRModule) -> IRModule:
    """The module printed and parsed."""
    constants: dict[str, np.ndarray] = {}
    parsed = parse(script(module, constants=constants), constants=constants)
    assert isinstance(parsed, IRModule)
    return parsed
