"""Running a program at any stage of its compile in the interpreters, for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def stage_names() -> list[str]:
    """The stages of a compile, as `CompiledModel.stages` names them."""
    names = ["input"]
    for step in pipeline(Context(), "main").passes:
        earlier = sum(name.rsplit("_", 1)[0] == step.name for name in names)
        names.append(f"{step.name}_{earlier + 1}" if earlier else step.name)
    return names


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
        returned = Interpreter(module).call_entry(entry, *arrays, *made)
    else:
        slots = [AnyList([None]) for output in signature.outputs if output.kind == "owned"]
        run_program(module, *arrays, *made, *slots, name=signature.name)
        returned = slots[0].slots[0] if slots else None
    return made or [returned]


def round_trip(module: IRModule) -> IRModule:
    """The module printed and parsed."""
    constants: dict[str, np.ndarray] = {}
    parsed = parse(script(module, constants=constants), constants=constants)
    assert isinstance(parsed, IRModule)
    return parsed
