"""DispatchLibraries: calls that the plan gave to a library run the library's program instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.references import referenced_functions
from transect.relax.visit import Rewriter, graph_functions
from transect.support.errors import InputError
from transect.tir.function import PrimFunc
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class Dispatch:
    """A call that a library takes: the routine's name, and the program that calls it, which takes
    the same arguments as the one it stands in for."""

    routine: str
    program: PrimFunc


@dataclass(frozen=True)
class DispatchLibraries(Pass):
    """Replace the callees of the given call_tirs, named by the variables they are bound to.

    Leaves the library's programs in the module with the attribute "library", and removes private
    programs that nobody calls any more.
    """

    calls: Mapping[rx.Var, Dispatch]

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with these calls dispatched. Raises InputError for one that is not there."""
        del context
        builder = BlockBuilder(module)
        found: set[rx.Var] = set()
        for name, function in list(graph_functions(module)):
            rewriter = _Dispatch(self.calls, builder)
            new = rewriter.run(function)
            found |= rewriter.found
            if new is not function:
                builder.module = builder.module.with_function(name, new)
        missing = [var.name for var in self.calls if var not in found]
        if missing:
            raise InputError(f"the module has no call bound to {', '.join(missing)}")
        return _without_unused(builder.module, module)


class _Dispatch(Rewriter):
    def __init__(self, calls: Mapping[rx.Var, Dispatch], builder: BlockBuilder) -> None:
        super().__init__()
        self.calls = calls
        self.builder = builder
        self.found: set[rx.Var] = set()

    def rewrite_binding(self, binding: rx.Binding) -> None:
        dispatch = self.calls.get(binding.var)
        if dispatch is None or isinstance(binding, rx.MatchCast):
            super().rewrite_binding(binding)
            return
        value = self.rewrite(binding.value)
        if not isinstance(value, rx.Call):
            raise InputError(f"{binding.var.name} is not bound to a call")
        program = dispatch.program.with_attrs(library=dispatch.routine, global_symbol=None)
        callee = self.builder.add_function(program, dispatch.routine.replace(".", "_"))
        self.bind(binding, replace(value, args=(callee, *value.args[1:])))
        self.found.add(binding.var)


def _without_unused(module: IRModule, before: IRModule) -> IRModule:
    used = {n for function in module.functions.values() for n in referenced_functions(function)}
    already = {n for function in before.functions.values() for n in referenced_functions(function)}
    gone = [
        name
        for name, function in module.functions.items()
        if name in already and name not in used and "global_symbol" not in function.attrs
    ]
    return module.without(*gone) if gone else module
