"""LLVM itself: IR text -> object code. The only file that loads LLVM, which takes some 60 MB.

It imports nothing of the compiler but errors: worker processes run it alone.
"""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from transect.support.errors import UnsupportedError

HOST = "host"
"""The name of the processor of this machine, with all its features."""


@cache
def _initialize() -> None:
    """Make LLVM's targets available."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # Constants of what follows a loop stay out of the registers of the loop: a register tile with
    # an elementary function after it took twice as long with its accumulators spilled.
    llvm.set_option("", "--disable-machine-licm")
    # Loops start at a cache line: where the loop of a register tile of 1 KB of code happened to
    # start 16 bytes before one, it took 3 to 5% longer.
    llvm.set_option("", "--x86-experimental-pref-innermost-loop-alignment=6")


@cache
def _machine(arch: str, features: str, triple: str = "") -> llvm.TargetMachine:
    _initialize()
    cpu = "" if arch == "generic" else arch
    if arch == HOST:
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    kind = llvm.Target.from_triple(triple) if triple else llvm.Target.from_default_triple()
    return kind.create_target_machine(
        cpu=cpu, features=features, opt=2, reloc="pic", codemodel="default"
    )


def compile_text(source: str, arch: str, features: str) -> bytes:
    """An object file from LLVM IR text, for the processor `arch` with `features` ("+avx2,…"); for
    HOST they are what LLVM finds.

    Raises UnsupportedError for intrinsics that LLVM does not know, RuntimeError for text that is
    not LLVM IR.
    """
    machine = _machine(arch, features)
    return machine.emit_object(_optimized(source, machine))


def assembly_text(source: str, arch: str, features: str, triple: str = "") -> str:
    """As `compile_text`, but assembly; triple: of another machine ("aarch64-linux-gnu")."""
    machine = _machine(arch, features, triple)
    return machine.emit_assembly(_optimized(source, machine))


def _optimized(source: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
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
    return parsed


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
