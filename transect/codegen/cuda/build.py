"""A module of scheduled tensor programs -> kernels in one cubin, and the functions that launch."""

from __future__ import annotations

from dataclasses import dataclass

from transect.codegen.cuda.nvrtc import compile_cubin
from transect.codegen.cuda.prelude import PRELUDE
from transect.codegen.cuda.split_host_device import Kernel, split
from transect.codegen.cuda.statement import KernelText
from transect.ir.function import IRModule
from transect.target import Target
from transect.tir.function import PrimFunc
from transect.tir.stmt import For
from transect.tir.transform.convert_blocks import ConvertBlocksToOpaque
from transect.tir.transform.flatten_buffer import FlattenBuffer
from transect.tir.transform.lower_init import LowerInit
from transect.tir.transform.lower_match_buffer import LowerMatchBuffer
from transect.tir.transform.lower_opaque_block import LowerOpaqueBlock
from transect.tir.transform.plan_allocations import PlanAllocations
from transect.tir.transform.simplify import Simplify
from transect.transform import Context, Pass


@dataclass(frozen=True)
class DeviceModule:
    """Compiled kernels. source: the CUDA C++; cubin: machine code for `arch`; kernels: by the name
    of the tensor program they belong to, in order of launching; functions: those programs."""

    source: str
    cubin: bytes
    arch: str
    kernels: dict[str, tuple[Kernel, ...]]
    functions: dict[str, PrimFunc]


def lowering() -> tuple[Pass, ...]:
    """The passes from blocks to what SplitHostDevice takes. Vector loops stay loops: the compiler
    of the device makes wide accesses itself."""
    return (
        LowerInit(),
        ConvertBlocksToOpaque(),
        LowerMatchBuffer(),
        PlanAllocations(),
        LowerOpaqueBlock(),
        FlattenBuffer(),
        Simplify(),
    )


def generate(module: IRModule, context: Context) -> tuple[str, dict[str, tuple[Kernel, ...]]]:
    """The CUDA C++ of all kernels of a module, and the kernels by tensor program."""
    for step in lowering():
        module = step(module, context)
    texts = [PRELUDE]
    kernels: dict[str, tuple[Kernel, ...]] = {}
    for name, func in module.functions.items():
        if not isinstance(func, PrimFunc):
            continue
        _, found = split(name, func)
        kernels[name] = found
        texts += [kernel_text(kernel) for kernel in found]
    return "\n".join(texts), kernels


def kernel_text(kernel: Kernel) -> str:
    """The CUDA C++ of one kernel."""
    body = kernel.func.body
    axes: list[For] = []
    while isinstance(body, For) and body.kind == "thread_binding":
        axes.append(body)
        body = body.body
    text = KernelText(kernel.name, kernel.func, axes, body, kernel.threads)
    return text.text


def build(module: IRModule, target: Target) -> DeviceModule:
    """Compile the tensor programs of a module, whose loops are bound to threads, for a GPU.

    Raises UnsupportedError for what kernels cannot do. Needs no GPU.
    """
    source, kernels = generate(module, Context(target=target))
    functions = {
        name: func for name, func in module.functions.items() if isinstance(func, PrimFunc)
    }
    cubin = compile_cubin(source, target.arch)
    return DeviceModule(source, cubin, target.arch, kernels, functions)
