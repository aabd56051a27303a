"""LambdaLift: nested functions become functions of the module."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.relax.block_builder import rewrite_functions
from transect.relax.lift import Lifter
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
        return rewrite_functions(module, lambda builder, name, _: Lifter(builder, name))
