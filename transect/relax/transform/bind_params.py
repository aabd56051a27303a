"""BindParams: parameters that are known when the program is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.relax import expr as rx
from transect.relax.inference import function_type
from transect.relax.references import refresh_references
from transect.relax.unify import unify_types
from transect.relax.visit import Rewriter
from transect.support.errors import InputError
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class BindParams(Pass):
    """Replace parameters of `function` by constants, such as the weights of a model.

    values: arrays by parameter name. The symbolic dimensions that they determine become numbers.
    Raises InputError for a name that is no parameter, InferenceError for one that does not fit.
    """

    values: Mapping[str, Any]
    function: str = "main"

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with the parameters bound."""
        del context
        function = module[self.function]
        if not isinstance(function, rx.Function):
            raise InputError(f"{self.function} is not a graph function")
        names = [param.name for param in function.params]
        for name in self.values:
            if name not in names:
                raise InputError(
                    f"{self.function} has no parameter {name!r}",
                    notes=[f"it has: {', '.join(names)}"],
                )
        if not self.values:
            return module
        bound = [param for param in function.params if param.name in self.values]
        constants = [rx.constant(self.values[param.name]) for param in bound]
        found = unify_types(
            [param.type for param in bound],
            [constant.type for constant in constants],
            [param.name for param in bound],
            self.function,
        )
        rewriter = Rewriter(dict(zip(bound, constants, strict=True)), found.values)
        rest = tuple(param for param in function.params if param.name not in self.values)
        new = rewriter.run(replace(function, params=rest))
        kind = function_type(new.params, new.ret_type, pure=new.pure)
        changed = module.with_function(self.function, replace(new, type=kind))
        return refresh_references(changed)
