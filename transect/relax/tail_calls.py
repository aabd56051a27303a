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

    def next_values(self) -> Iterator[tuple[rx.Var, rx.Value]]:
        """For each tail call, what it passes for the parameters that change."""
        for var, call in self.calls.items():
            for number in sorted(self.carried):
                yield var, call.args[number]


def last_binding(seq: rx.SeqExpr) -> rx.VarBinding | None:
    """The last binding of `seq` if its value is the result, else None."""
    for block in reversed(seq.blocks):
        if block.bindings:
            last = block.bindings[-1]
            if isinstance(last, rx.VarBinding) and last.var is seq.body:
                return last
            return None
    return None


def tail_calls(seq: rx.SeqExpr) -> Iterator[rx.VarBinding]:
    """The calls of functions of the module whose result is the result of `seq`."""
    waiting = [seq]
    while waiting:
        last = last_binding(waiting.pop())
        if last is None:
            continue
        if isinstance(last.value, rx.If):
            waiting += [last.value.else_branch, last.value.then_branch]
        elif isinstance(last.value, rx.Call) and isinstance(last.value.op, rx.GlobalFunc):
            yield last


def tail_loop(function: rx.Function, name: str) -> TailLoop | None:
    """How `function`, the module's `name`, calls itself in tail position; None if it does not."""
    calls: dict[rx.Var, rx.Call] = {}
    for binding in tail_calls(function.body):
        call = binding.value
        assert isinstance(call, rx.Call)
        if isinstance(call.op, rx.GlobalFunc) and call.op.name == name:
            calls[binding.var] = call
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
