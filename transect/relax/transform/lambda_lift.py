"""LambdaLift: nested functions become functions of the module."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.relax.block_builder import BlockBuilder
from transect.relax.lift import Lifter
from transect.relax.visit import graph_functions
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class LambdaLift(Pass):
    """Move nested functions to the module, what they capture passed as further parameters.

    A call of a nested function becomes a direct call; one that is used as a value becomes a
    make_closure, and calls of values become invoke_closure. Captured symbolic variables are passed
    as scalars. Requires and leaves A-normal form.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module without nested functions."""
        del context
        builder = BlockBuilder(module)
        for name, function in list(graph_functions(module)):
            new = Lifter(builder, name).run(function)
            if new is not function:
                builder.module = builder.module.with_function(name, new)
        return builder.module
