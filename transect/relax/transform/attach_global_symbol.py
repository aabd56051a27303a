"""AttachGlobalSymbol: which functions are exported."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class AttachGlobalSymbol(Pass):
    """Export functions under their names: they get an entry that checks its arguments.

    names: of the functions; those the module does not have are passed over.
    """

    names: tuple[str, ...] = ("main",)

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with the attribute "global_symbol" on the functions named."""
        del context
        for name in self.names:
            if name in module and "global_symbol" not in module[name].attrs:
                module = module.with_function(name, module[name].with_attrs(global_symbol=name))
        return module
