"""LowerSignature: buffer parameters become pointers, symbolic variables trailing scalars."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.node import replace
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.transform.function_pass import FunctionPass
from transect.transform import Context


@dataclass(frozen=True)
class LowerSignature(FunctionPass):
    """Make the parameters what machine code takes.

    Requires flat buffers and, where entries are wanted, MakePackedAPI before. Leaves parameters in
    the order that calls between functions use: for each old one its pointer or scalar, then the
    values of tir.function.symbolic_vars; and an empty buffer_map.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with flat parameters."""
        if not func.buffer_map:
            return func
        params = [func.buffer_map[p].data if p in func.buffer_map else p for p in func.params]
        return replace(func, params=(*params, *symbolic_vars(func)), buffer_map={})
