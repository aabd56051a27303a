"""ConvertToDataflow: runs of pure bindings become dataflow blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import Type
from transect.relax import expr as rx
from transect.relax.inference import is_pure_call
from transect.relax.visit import Rewriter, direct_bindings, map_graph_functions, use_counts
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class ConvertToDataflow(Pass):
    """Put each run of two or more bindings without effects and branches into one dataflow block,
    in bodies and branches alike: only in those do calls fuse.

    Requires and leaves A-normal form.

        with R.dataflow():                  with R.dataflow():
            lv = R.exp(x)                       lv = R.exp(x)
            R.output(lv)             ->         lv1 = R.add(lv, lv)
        lv1 = R.add(lv, lv)                     R.output(lv1)
        if c: ...                           if c: ...
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with dataflow blocks as large as they can be."""
        del context
        return map_graph_functions(module, lambda _, function: _Convert(function).run(function))


class _Convert(Rewriter):
    def __init__(self, function: rx.Function) -> None:
        super().__init__()
        self.uses = use_counts(function)
        self.local: set[rx.Var] = set()

    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        if var.dataflow == (var in self.local):
            return super().renew(var, kind)
        self.variables[var] = new = rx.Var(var.name, kind, var in self.local, var.span)
        return new

    def rewrite_seq(self, seq: rx.SeqExpr, params: Iterable[rx.Var] = ()) -> rx.SeqExpr:
        blocks: list[rx.BindingBlock] = []
        for flows, run in groupby(direct_bindings(seq), _flows):
            found = tuple(run)
            dataflow = flows and len(found) > 1
            if dataflow:
                self.local |= set(self._inner(found))
            blocks.append(rx.BindingBlock(found, dataflow))
        kept = seq.blocks
        same = len(blocks) == len(kept) and all(
            new.dataflow == old.dataflow and new.bindings == old.bindings
            for new, old in zip(blocks, kept, strict=True)
        )
        return super().rewrite_seq(seq if same else replace(seq, blocks=tuple(blocks)), params)

    def _inner(self, run: tuple[rx.Binding, ...]) -> Iterator[rx.Var]:
        """The variables that only the bindings of the run use."""
        inside: Counter[rx.Var] = Counter()
        for binding in run:
            inside.update(use_counts(binding))
        for binding in run:
            if inside[binding.var] == self.uses.get(binding.var, 0):
                yield binding.var


def _flows(binding: rx.Binding) -> bool:
    """Whether a binding may stand in a dataflow block."""
    value = binding.value
    if isinstance(binding, rx.MatchCast):
        return True
    if isinstance(value, rx.Call):
        return is_pure_call(value)
    return not isinstance(value, rx.If | rx.SeqExpr | rx.Function)
