"""References between the functions of a module: who calls whom, and the types references carry."""

from __future__ import annotations

from transect.ir.expr import Call, GlobalVar
from transect.ir.function import BaseFunc, IRModule
from transect.ir.node import replace
from transect.relax import expr as rx
from transect.relax.block_builder import function_ref_type
from transect.relax.visit import Rewriter, called_functions, map_graph_functions
from transect.tir.function import PrimFunc
from transect.tir.visit import walk_terms


def referenced_functions(function: BaseFunc) -> list[str]:
    """The names of the module's functions that `function` refers to, in order of appearance."""
    if isinstance(function, rx.Function):
        return called_functions(function)
    if isinstance(function, PrimFunc):
        calls = (term for term in walk_terms(function.body) if isinstance(term, Call))
        callees = (call.op.name for call in calls if isinstance(call.op, GlobalVar))
        return list(dict.fromkeys(callees))
    return []


def reachable_functions(module: IRModule, entries: tuple[str, ...]) -> set[str]:
    """The names of the functions that the entries call, directly or not, themselves included."""
    reached: set[str] = set()
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        if name in reached or name not in module:
            continue
        reached.add(name)
        waiting.extend(referenced_functions(module[name]))
    return reached


class _Refresh(Rewriter):
    def __init__(self, module: IRModule) -> None:
        super().__init__()
        self.module = module

    def rewrite(self, value: rx.Value) -> rx.Value:
        if isinstance(value, rx.GlobalFunc) and value.name in self.module:
            kind = function_ref_type(self.module[value.name])
            return value if kind is None else replace(value, type=kind)
        return super().rewrite(value)


def refresh_references(module: IRModule) -> IRModule:
    """`module` with the references to graph functions carrying their present types, and the types
    of the calls derived anew. For passes that change a function's parameters."""
    return map_graph_functions(module, lambda _, function: _Refresh(module).run(function))
