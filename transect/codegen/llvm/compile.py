"""An IRModule of lowered functions -> object code, with the cheap pass pipeline.

Loading it is in `loader`; keeping it on disk belongs to the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
import numpy as np

from transect.codegen.llvm import objects, runtime
from transect.codegen.llvm.expression import CodeUnit
from transect.codegen.llvm.function import emit_function
from transect.codegen.llvm.module import ModuleText
from transect.ir.function import IRModule
from transect.support.errors import UnsupportedError
from transect.target import Target
from transect.tir.function import PrimFunc

_FUTEX = {"x86_64": 202, "i686": 240, "aarch64": 98, "riscv64": 98}


@dataclass(frozen=True)
class CompiledObject:
    """Machine code and what it needs.

    code: a relocatable object file, position-independent. entries: the exported functions in the
    tvm-ffi calling convention. constants: arrays that the symbol `__transect_constants` (an array
    of pointers) must point to before the first call, in order. externs: the C symbols that the
    code takes from elsewhere.
    """

    code: bytes
    entries: tuple[str, ...]
    constants: tuple[np.ndarray, ...] = ()
    externs: tuple[str, ...] = ()


@cache
def initialize() -> None:
    """Make LLVM's targets available; done once per process."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def emit_module(module: IRModule, target: Target) -> ModuleText:
    """The LLVM IR of all PrimFuncs of `module`; graph functions are left out.

    Raises UnsupportedError for what the CPU back end cannot emit.
    """
    machine = target_machine(target)
    features = machine_features(target)
    text = ModuleText(
        {**runtime.HELPERS, **objects.HELPERS},
        futex_number=_FUTEX.get(machine.triple.split("-")[0], 202),
    )
    unit = CodeUnit(module, target, native_half="f16c" in features or "aarch64" in machine.triple)
    for name, func in module.functions.items():
        if isinstance(func, PrimFunc):
            emit_function(unit, text, name, func)
    text.functions.append(runtime.unload(text))
    return text


def compile_module(module: IRModule, target: Target) -> CompiledObject:
    """Compile all PrimFuncs of `module`, lowered by `tir.transform.lowering(target)`.

    Raises UnsupportedError for what the CPU back end cannot emit.
    """
    text = emit_module(module, target)
    return CompiledObject(
        compile_text(str(text), target),
        tuple(text.entries),
        tuple(text.constants),
        tuple(sorted(text.externs)),
    )


def compile_text(source: str, target: Target) -> bytes:
    """An object file from LLVM IR text."""
    initialize()
    machine = target_machine(target)
    parsed = llvm.parse_assembly(source)
    _check_intrinsics(parsed)
    parsed.triple = machine.triple
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(parsed, builder)
    return machine.emit_object(parsed)


def machine_features(target: Target) -> str:
    """The feature string for LLVM: of this machine for arch "host", else what the target names."""
    initialize()
    if target.arch == "host":
        return llvm.get_host_cpu_features().flatten()
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


@cache
def _machine(arch: str, features: str) -> llvm.TargetMachine:
    initialize()
    cpu = llvm.get_host_cpu_name() if arch == "host" else "" if arch == "generic" else arch
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=2, reloc="pic", codemodel="default"
    )


def target_machine(target: Target) -> llvm.TargetMachine:
    """LLVM's description of `target`, made once."""
    return _machine(target.arch, machine_features(target))


def _check_intrinsics(parsed: llvm.ModuleRef) -> None:
    """The verifier takes a misspelt llvm.* name for an ordinary external function. Those that
    LLVM knows get attributes when they are parsed."""
    unknown = [
        function.name
        for function in parsed.functions
        if function.name.startswith("llvm.") and not any(True for _ in function.attributes)
    ]
    if unknown:
        raise UnsupportedError(
            f"unknown LLVM intrinsics: {', '.join(sorted(unknown))}",
            remedy="check the spelling and the type suffix",
        )
