"""BindSymbolicVars: dimensions that are known when the program is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transect.ir.expr import Expr, ExprLike, Var, as_expr
from transect.ir.function import IRModule
from transect.relax.references import refresh_references
from transect.relax.visit import Rewriter, defined_symbols, graph_functions
from transect.support.errors import InputError
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class BindSymbolicVars(Pass):
    """Replace symbolic dimensions by numbers or other expressions.

    values: by name or variable. function: the only function to change, None for all.
    Raises InputError for a name that no function has.
    """

    values: Mapping[str | Var, ExprLike]
    function: str | None = None

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with the dimensions bound."""
        del context
        missing = dict(self.values)
        for name, function in list(graph_functions(module)):
            if self.function not in (None, name):
                continue
            chosen: dict[Var, Expr] = {}
            for var in defined_symbols(function):
                for key in (var, var.name):
                    if key in self.values:
                        chosen[var] = as_expr(self.values[key], var.dtype)
                        missing.pop(key, None)
            if chosen:
                module = module.with_function(name, Rewriter(symbols=chosen).run(function))
        if missing:
            names = ", ".join(k if isinstance(k, str) else k.name for k in missing)
            raise InputError(f"no function has the symbolic dimension {names}")
        return refresh_references(module)
