"""DeadCodeElimination: bindings whose result nobody uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.relax import expr as rx
from transect.relax.inference import is_pure
from transect.relax.visit import map_graph_functions, walk
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class DeadCodeElimination(Pass):
    """Drop pure bindings whose variable is not used, in bodies, branches and nested functions.

    Calls that may have an effect stay, and so does every match_cast, which is a check: those that
    hold for sure are removed by Canonicalize. Requires and leaves A-normal form.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module without dead bindings."""
        del context
        return map_graph_functions(module, lambda _, function: eliminate_dead_code(function))


def eliminate_dead_code(function: rx.Function) -> rx.Function:
    """`function` without the pure bindings that nothing uses."""
    body, _ = _sweep(function.body)
    return replace(function, body=body)


def _used(values: Iterable[rx.Value]) -> set[rx.Var]:
    return {item for value in values for item in walk(value) if isinstance(item, rx.Var)}


def _sweep(seq: rx.SeqExpr) -> tuple[rx.SeqExpr, set[rx.Var]]:
    """`seq` without its dead bindings, and the variables it uses."""
    live = _used((seq.body,))
    blocks: list[rx.BindingBlock] = []
    for block in reversed(seq.blocks):
        kept: list[rx.Binding] = []
        for binding in reversed(block.bindings):
            dead = isinstance(binding, rx.VarBinding) and binding.var not in live
            if dead and is_pure(binding.value):
                continue
            new, used = _sweep_binding(binding)
            live |= used
            kept.append(new)
        if len(kept) == len(block.bindings):
            same = all(a is b for a, b in zip(reversed(kept), block.bindings, strict=True))
            blocks.append(block if same else replace(block, bindings=tuple(reversed(kept))))
        elif kept:
            blocks.append(replace(block, bindings=tuple(reversed(kept))))
    blocks.reverse()
    if len(blocks) == len(seq.blocks) and all(
        a is b for a, b in zip(blocks, seq.blocks, strict=True)
    ):
        return seq, live
    return replace(seq, blocks=tuple(blocks)), live


def _sweep_binding(binding: rx.Binding) -> tuple[rx.Binding, set[rx.Var]]:
    value = binding.value
    if isinstance(value, rx.If):
        then_branch, first = _sweep(value.then_branch)
        else_branch, second = _sweep(value.else_branch)
        new = replace(value, then_branch=then_branch, else_branch=else_branch)
        return replace(binding, value=new), _used((value.condition,)) | first | second
    if isinstance(value, rx.Function):
        body, used = _sweep(value.body)
        return replace(binding, value=replace(value, body=body)), used
    return binding, _used((value,))
