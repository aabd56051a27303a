"""Calls of a function to itself as the last thing it does: loops, in a language without loops.

How such a function is made is in `loop`; how it becomes a native loop in `relax.transform`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transect.ir.expr import Var
from transect.relax import expr as rx
from transect.relax.shapes import plain_vars, prove_equal
from transect.relax.unify import unify_types


@dataclass(frozen=True)
class TailLoop:
    """A function that calls itself in tail position.

    calls: the variables that those calls are bound to, with the calls. carried: the numbers of the
    parameters that change from one call to the next. varying: the symbolic variables that do.
    """

    calls: dict[rx.Var, rx.Call]
    carried: frozenset[int]
    varying: frozenset[Var]

    def next_values(self, var: rx.Var) -> Iterator[rx.Value]:
        """What `var` passes for the parameters that change, if it is bound to a tail call."""
        if var in self.calls:
            for number in sorted(self.carried):
                yield self.calls[var].args[number]


def last_binding(seq: rx.SeqExpr) -> rx.VarBinding | None:
    """The last binding of `seq` if its value is the result, else None."""
    for block in reversed(seq.blocks):
        if block.bindings:
            last = block.bindings[-1]
            if isinstance(last, rx.VarBinding) and last.var is seq.body:
                return last
            return None
    return None


def tails(seq: rx.SeqExpr) -> Iterator[tuple[rx.SeqExpr, rx.VarBinding | None]]:
    """The sequences that end `seq`, those of branches at its end in their place, each with the
    binding of its result if that is its last."""
    waiting = [seq]
    while waiting:
        item = waiting.pop()
        last = last_binding(item)
        if last is not None and isinstance(last.value, rx.If):
            waiting += [last.value.else_branch, last.value.then_branch]
        else:
            yield item, last


def tail_results(function: rx.Function, loop: TailLoop) -> list[rx.Value]:
    """What the function gives back at each of its ends that is not a call of itself."""
    return [
        item.body
        for item, last in tails(function.body)
        if last is None or last.var not in loop.calls
    ]


def tail_loop(function: rx.Function, name: str) -> TailLoop | None:
    """How `function`, the module's `name`, calls itself in tail position; None if it does not."""
    calls: dict[rx.Var, rx.Call] = {}
    for _, last in tails(function.body):
        if last is not None and isinstance(last.value, rx.Call):
            callee = last.value.op
            if isinstance(callee, rx.GlobalFunc) and callee.name == name:
                calls[last.var] = last.value
    if not calls:
        return None
    params = function.params
    kinds = tuple(param.type for param in params)
    varying: set[Var] = set()
    for call in calls.values():
        values = unify_types(kinds, tuple(arg.type for arg in call.args)).values
        for var in plain_vars(kinds):
            if var not in values or not prove_equal(values[var], var):
                varying.add(var)
    carried = frozenset(
        number
        for number, param in enumerate(params)
        if any(call.args[number] is not param for call in calls.values())
    )
    return TailLoop(calls, carried, frozenset(varying))
