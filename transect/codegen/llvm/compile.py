"""An IRModule of lowered functions -> object code, with the cheap pass pipeline.

Loading it is in `loader`; keeping it on disk belongs to the runtime.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from transect.codegen.llvm import amx, objects, runtime
from transect.codegen.llvm.expression import CodeUnit
from transect.codegen.llvm.function import emit_function
from transect.codegen.llvm.module import ModuleText
from transect.codegen.llvm.partition import partition
from transect.ir.function import IRModule
from transect.target import Target
from transect.tir.function import PrimFunc

_FUTEX = {"x86_64": 202, "i686": 240, "aarch64": 98, "riscv64": 98}


@dataclass(frozen=True)
class CompiledObject:
    """Machine code and what it needs.

    objects: relocatable object files, position-independent. entries: the exported functions in the
    tvm-ffi calling convention. constants: arrays that the symbol `__transect_constants` (an array
    of pointers) must point to before the first call, in order. externs: the C symbols that the
    code takes from elsewhere.
    """

    objects: tuple[bytes, ...]
    entries: tuple[str, ...]
    constants: tuple[np.ndarray, ...] = ()
    externs: tuple[str, ...] = ()


Translate = Callable[[Sequence[str], str, str], Sequence[bytes]]
"""LLVM IR texts, a processor and its features -> object files (see `backend.compile_text`)."""


def translate_here(texts: Sequence[str], arch: str, features: str) -> list[bytes]:
    """Object files from texts, by LLVM in this process, which loads it if it has to."""
    backend = import_module("transect.codegen.llvm.backend")
    return [backend.compile_text(text, arch, features) for text in texts]


def emit_module(module: IRModule, target: Target) -> ModuleText:
    """The LLVM IR of all PrimFuncs of `module`; graph functions are left out.

    Raises UnsupportedError for what the CPU back end cannot emit.
    """
    machine = "aarch64" if target.name == "arm" else platform.machine().lower()
    text = ModuleText(
        {**runtime.HELPERS, **objects.HELPERS, **amx.HELPERS},
        futex_number=_FUTEX.get(machine, 202),
    )
    native_half = "f16c" in target.features or machine == "aarch64"
    unit = CodeUnit(module, target, native_half=native_half)
    for name, func in module.functions.items():
        if isinstance(func, PrimFunc):
            emit_function(unit, text, name, func)
    text.functions.append(runtime.unload(text))
    return text


def compile_module(
    module: IRModule, target: Target, translate: Translate = translate_here, parts: int = 1
) -> CompiledObject:
    """Compile all PrimFuncs of `module`, lowered by `tir.transform.lowering(target)`.

    translate: runs LLVM. parts: how many texts of about the same size it gets, at most.
    Raises UnsupportedError for what the CPU back end cannot emit.
    """
    text = emit_module(module, target)
    texts = partition(str(text), parts)
    return CompiledObject(
        tuple(translate(texts, target.arch, machine_features(target))),
        tuple(text.entries),
        tuple(text.constants),
        tuple(sorted(text.externs)),
    )


def assembly(module: IRModule, target: Target) -> str:
    """The assembly of all PrimFuncs of `module`, also for a processor of another kind than this
    machine's, which cannot run it. Raises as `compile_module` does."""
    backend = import_module("transect.codegen.llvm.backend")
    triple = "aarch64-unknown-linux-gnu" if target.name == "arm" else ""
    text = str(emit_module(module, target))
    return backend.assembly_text(text, target.arch, machine_features(target), triple)


def machine_features(target: Target) -> str:
    """The features that a target names, for LLVM; those of this machine are found by it."""
    if target.arch == "host":
        return ""
    spelled = {name.replace("sse4_2", "sse4.2").replace("_", "-") for name in target.features}
    if target.name == "x86":
        # LLVM ends the process where a processor that it does not know lacks this.
        spelled.add("64bit")
    return ",".join(f"+{_LLVM_FEATURE.get(name, name)}" for name in sorted(spelled))


_LLVM_FEATURE = {
    "avx512-vnni": "avx512vnni",
    "avx512-bf16": "avx512bf16",
    "avx512-fp16": "avx512fp16",
    "avx-vnni": "avxvnni",
}
