"""ToNonDataflow: the form that lowering takes, without dataflow blocks."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import Type
from transect.relax import expr as rx
from transect.relax.visit import Rewriter, map_graph_functions
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class ToNonDataflow(Pass):
    """Turn dataflow blocks into ordinary ones and their local variables into ordinary variables.

    Requires and leaves A-normal form. What may be reordered or dropped can no longer be seen.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module without dataflow blocks."""
        del context
        return map_graph_functions(module, lambda _, function: _Flatten().run(function))


class _Flatten(Rewriter):
    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        if not var.dataflow:
            return super().renew(var, kind)
        new = replace(var, type=kind, dataflow=False)
        self.variables[var] = new
        return new

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        plain = replace(block, dataflow=False) if block.dataflow else block
        super().rewrite_block(plain)
        blocks = self.out.blocks
        if len(blocks) > 1:
            last = blocks.pop()
            blocks[-1] = replace(blocks[-1], bindings=(*blocks[-1].bindings, *last.bindings))
