"""Normalize: graph functions in A-normal form."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.relax.visit import Rewriter, map_graph_functions
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class Normalize(Pass):
    """Bind every nested value to a variable, and join sequences inside sequences.

    Requires nothing but scopes and types; leaves A-normal form, which all other passes require.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with its graph functions in A-normal form."""
        del context
        return map_graph_functions(module, lambda _, function: Rewriter().run(function))
