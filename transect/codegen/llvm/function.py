"""A lowered PrimFunc -> one LLVM function that returns an i32 status."""

from __future__ import annotations

from collections.abc import Mapping

from transect.codegen.llvm import amx, host, intrinsics, math
from transect.codegen.llvm.builder import FunctionText
from transect.codegen.llvm.expression import CodeUnit, Handler, native_name
from transect.codegen.llvm.failing import emit_checked
from transect.codegen.llvm.module import ModuleText
from transect.codegen.llvm.parallel import emit_parallel
from transect.codegen.llvm.statement import StatementEmitter
from transect.codegen.llvm.types import register_type
from transect.support.errors import TransectError, UnsupportedError
from transect.tir.function import PrimFunc
from transect.tir.transform.make_packed_api import ARGUMENTS

HANDLERS: Mapping[str, Handler] = {
    **intrinsics.HANDLERS,
    **math.HANDLERS,
    **host.HANDLERS,
    **amx.HANDLERS,
    "checked": emit_checked,
}
"""All intrinsics that the CPU back end emits."""

PACKED = "packed"
"""The value of attrs["calling_convention"] of an entry in the tvm-ffi convention."""


def emit_function(unit: CodeUnit, module: ModuleText, name: str, func: PrimFunc) -> None:
    """Add `func` to `module`. Entries keep their name and are exported; others are internal.

    Raises UnsupportedError for a function that is not lowered or that the CPU cannot run.
    """
    if func.buffer_map:
        raise UnsupportedError(
            f"{name!r} still has buffer parameters", remedy="run the lowering passes"
        )
    is_entry = func.attrs.get("calling_convention") == PACKED
    alias = " noalias" if func.attrs.get("tir.noalias") else ""
    operands = [f"%p{number}" for number in range(len(func.params))]
    parameters = [
        f"{register_type(var.dtype)}{alias if var.dtype.is_handle else ''} {operand}"
        for var, operand in zip(func.params, operands, strict=True)
    ]
    symbol = name if is_entry else native_name(name).strip('"')
    text = FunctionText(
        module,
        symbol,
        parameters,
        linkage="" if is_entry else "internal ",
        attributes="nounwind uwtable",
    )
    emitter = StatementEmitter(unit, text, HANDLERS, parallel=emit_parallel)
    emitter.places = ARGUMENTS in func.attrs  # a host function: its spans name layers
    for var, operand in zip(func.params, operands, strict=True):
        emitter.bind(var, operand)
    try:
        amx.begin(emitter, func.body)
        emitter.run(func.body)
    except TransectError as error:
        error.notes = (*error.notes, f"in function {name!r}")
        raise error.at(func.span) from None
    module.functions.append(text.finish())
    if is_entry:
        module.entries.append(name)
