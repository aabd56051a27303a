"""RemoveUnusedFunctions: functions that no entry calls."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.relax.references import reachable_functions
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class RemoveUnusedFunctions(Pass):
    """Drop the functions that the entries do not reach.

    entries: their names; empty for all functions with a "global_symbol", and "main".
    """

    entries: tuple[str, ...] = ()

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with the functions that are reached."""
        del context
        entries = self.entries or tuple(
            name
            for name, function in module.functions.items()
            if "global_symbol" in function.attrs or name == "main"
        )
        reached = reachable_functions(module, entries)
        unused = [name for name in module if name not in reached]
        return module.without(*unused) if unused else module
