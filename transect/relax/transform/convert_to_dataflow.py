"""ConvertToDataflow: pure bindings that follow each other become dataflow blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import Type
from transect.relax import expr as rx
from transect.relax.inference import is_pure_call
from transect.relax.visit import Rewriter, map_graph_functions, walk
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class ConvertToDataflow(Pass):
    """Group runs of pure bindings into dataflow blocks, in bodies, branches and nested functions.

    What has control flow or an effect stays between them. Requires and leaves A-normal form;
    blocks that are dataflow blocks already stay as they are.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with its pure parts in dataflow blocks."""
        del context
        return convert_to_dataflow(module)


def convert_to_dataflow(module: IRModule) -> IRModule:
    """As the pass, for front ends, which have no context."""
    return map_graph_functions(module, lambda _, function: _Group().run(function))


def _fits(binding: rx.Binding) -> bool:
    """Whether a binding may stand in a dataflow block."""
    value = binding.value
    if isinstance(binding, rx.MatchCast):
        return True
    if isinstance(value, rx.Call):
        return is_pure_call(value)
    return not isinstance(value, rx.If | rx.SeqExpr | rx.Function)


class _Group(Rewriter):
    def __init__(self) -> None:
        super().__init__()
        self.local: set[rx.Var] = set()

    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        if var not in self.local:
            return super().renew(var, kind)
        new = replace(var, type=kind, dataflow=True)
        self.variables[var] = new
        return new

    def rewrite_seq(self, seq: rx.SeqExpr, params: Iterable[rx.Var] = ()) -> rx.SeqExpr:
        self.local |= _local(seq)
        return super().rewrite_seq(seq, params)

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        if block.dataflow:
            super().rewrite_block(block)
            return
        for dataflow, bindings in groupby(block.bindings, _fits):
            self.out.begin(dataflow=dataflow, span=block.span)
            for binding in bindings:
                self.rewrite_binding(binding)
        self.out.close()


def _local(seq: rx.SeqExpr) -> set[rx.Var]:
    """The variables of new dataflow blocks that nothing outside of their block uses."""
    home: dict[rx.Var, int] = {}
    shared: set[rx.Var] = set()
    number = 0
    for block in seq.blocks:
        for dataflow, bindings in groupby(block.bindings, _fits):
            number += 1
            for binding in bindings:
                for item in walk(binding.value):
                    if isinstance(item, rx.Var) and home.get(item, number) != number:
                        shared.add(item)
                if dataflow and not block.dataflow:
                    home[binding.var] = number
    shared.update(item for item in walk(seq.body) if isinstance(item, rx.Var))
    return home.keys() - shared
