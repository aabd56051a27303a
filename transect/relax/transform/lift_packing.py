"""LiftPacking: what a kernel does with a constant before it begins becomes a call of its own.

Which copies are packing says the kernel's schedule; `FoldConstant` then computes the calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import as_int
from transect.ir.function import IRModule
from transect.ir.types import tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import rewrite_functions
from transect.relax.call import call_tir
from transect.relax.transform.fusion import Member, ProgramRewriter
from transect.tir.analysis.packing import split_packing
from transect.tir.function import PrimFunc
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class LiftPacking(Pass):
    """Take the packing of constant operands out of scheduled kernels.

        y = call_tir(product, (x, W))   ->   W1 = call_tir(product_packing, (W,))
                                             y = call_tir(product, (x, W1))

    Requires scheduled kernels whose packing blocks are annotated (`tir.analysis.packing`). Leaves
    kernels without packing where the operand is a constant; those of other operands keep theirs.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with packing of constants outside of the kernels."""
        del context
        return rewrite_functions(module, lambda builder, name, function: _Lift(builder))


class _Lift(ProgramRewriter):
    scheduled = True

    def rewrite_program(self, binding: rx.VarBinding, member: Member) -> bool:
        """Bind the call with its constants packed outside; whether there were any."""
        function: PrimFunc = member.function
        inputs = [self.rewrite(value) for value in member.inputs]
        found = False
        for position, value in enumerate(inputs):
            if not isinstance(value, rx.Constant):
                continue
            split = split_packing(function, function.buffers[position])
            if split is None:
                continue
            packed = split.packing.buffers[-1]
            if any(as_int(extent) is None for extent in packed.shape):
                continue
            name = f"{member.name}_packing"
            callee = self.builder.add_function(split.packing, name)
            kind = tensor_type(packed.shape, packed.dtype)
            inputs[position] = self.emit(call_tir(callee, [value], kind), "packed")
            function, found = split.rest, True
        if found:
            callee = self.builder.add_function(function, member.name)
            self.bind(binding, call_tir(callee, inputs, member.out_type, member.tir_vars))
        return found
