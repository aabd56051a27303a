"""What is known of integer expressions while a function is compiled for one set of sizes.

Sizes are numbers here, so most indices become sums of loop variables with constant factors, also
through quotients and remainders of split and fused loops. Intervals of them live here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transect.ir.expr import (
    GE,
    GT,
    LE,
    LT,
    Add,
    And,
    Broadcast,
    Call,
    Cast,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Ramp,
    Sub,
    Var,
)
from transect.ir.traverse import walk
from transect.tir.affine import Affine
from transect.tir.buffer import BufferLoad

LANE = Var("lane")
"""The atom that stands for the number of a vector's lane."""

Interval = tuple[int, int]
"""Both ends included."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop that runs as an axis of the grid: its counter from 0 on, and its thread axis."""

    var: Var
    thread: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What is in scope at a statement.

    forms: integer variables as sums of others. ranges: of variables that have one. axes: the open
    grid axes, outermost first. varying: variables whose value differs along the grid. private:
    pointers to memory with an instance per grid point, and the number of axes then open.
    limits: sums known to be at most a number, from conditions around the statement. memo: results
    of `linear`.
    """

    forms: Mapping[Var, Affine] = field(default_factory=dict[Var, Affine])
    ranges: Mapping[Var, Interval] = field(default_factory=dict[Var, Interval])
    axes: tuple[Axis, ...] = ()
    varying: frozenset[Var] = frozenset()
    private: Mapping[Var, int] = field(default_factory=dict[Var, int])
    limits: tuple[tuple[Affine, int], ...] = ()
    memo: dict[Expr, Affine] = field(
        init=False, repr=False, compare=False, default_factory=dict[Expr, Affine]
    )

    def with_form(self, var: Var, form: Affine) -> Scope:
        """`var` is `form`."""
        return dataclasses.replace(self, forms={**self.forms, var: form})

    def with_range(self, var: Var, ends: Interval | None) -> Scope:
        """`var` lies between these ends, if they are known."""
        if ends is None:
            return self
        return dataclasses.replace(self, ranges={**self.ranges, var: ends})

    def with_axis(self, axis: Axis) -> Scope:
        """One more axis is open, inside the others."""
        return dataclasses.replace(self, axes=(*self.axes, axis), varying=self.varying | {axis.var})

    def with_varying(self, var: Var) -> Scope:
        """The value of `var` differs along the grid."""
        return dataclasses.replace(self, varying=self.varying | {var})

    def with_private(self, pointer: Var) -> Scope:
        """The memory of `pointer` was allocated here."""
        if not self.axes:
            return self
        return dataclasses.replace(self, private={**self.private, pointer: len(self.axes)})

    def assuming(self, condition: Expr) -> Scope:
        """`condition` holds, as far as it gives upper limits of sums."""
        found = tuple(_limits(condition, self))
        return dataclasses.replace(self, limits=(*self.limits, *found)) if found else self

    def varies(self, expr: Expr) -> bool:
        """Whether the value of `expr` may differ along the grid."""
        if not self.axes:
            return False
        for item in walk(expr):
            if isinstance(item, Var):
                form = self.forms.get(item)
                if item in self.varying:
                    return True
                if form is not None and any(self._atom_varies(atom) for atom in form.terms):
                    return True
            elif isinstance(item, BufferLoad) and item.buffer.data in self.private:
                return True
        return False

    def _atom_varies(self, atom: Expr) -> bool:
        return atom in self.varying if isinstance(atom, Var) else self.varies(atom)


def _limits(condition: Expr, scope: Scope) -> list[tuple[Affine, int]]:
    if isinstance(condition, And):
        return [*_limits(condition.a, scope), *_limits(condition.b, scope)]
    if isinstance(condition, Call) and isinstance(condition.op, Intrinsic):
        return _limits(condition.args[0], scope) if condition.op.name == "likely" else []
    if not isinstance(condition, LT | LE | GT | GE) or not condition.a.dtype.is_int:
        return []
    small, large = linear(condition.a, scope), linear(condition.b, scope)
    if isinstance(condition, GT | GE):
        small, large = large, small
    strict = isinstance(condition, LT | GT)
    rest = small - large
    # rest < 0 or rest <= 0: the terms are at most the negated constant.
    return [(Affine(0, rest.terms), -rest.const - (1 if strict else 0))]


def linear(expr: Expr, scope: Scope) -> Affine:
    """`expr` as a sum; parts that are no sums become atoms. A vector's lane number is `LANE`."""
    known = scope.memo.get(expr)
    if known is None:
        rule = _LINEAR.get(type(expr))
        known = Affine(0, {expr: 1}) if rule is None else rule(expr, scope)
        scope.memo[expr] = known
    return known


def _linear_mul(expr: Mul, scope: Scope) -> Affine:
    a, b = linear(expr.a, scope), linear(expr.b, scope)
    if a.is_const:
        return b.scaled(a.const)
    if b.is_const:
        return a.scaled(b.const)
    return Affine(0, {expr: 1})


def _split(expr: Div | Mod | FloorDiv | FloorMod, scope: Scope) -> tuple[Affine, Affine] | None:
    """Quotient and remainder of a division by a positive constant, where both are sums."""
    a, b = linear(expr.a, scope), linear(expr.b, scope)
    if not b.is_const or b.const <= 0 or not expr.dtype.is_integral:
        return None
    divisor = b.const
    ends = interval(a, scope)
    if isinstance(expr, Div | Mod) and (ends is None or ends[0] < 0):
        return None
    if a.is_const:
        return Affine(a.const // divisor, {}), Affine(a.const % divisor, {})
    quotient = {atom: k // divisor for atom, k in a.terms.items() if k % divisor == 0}
    rest = {atom: k for atom, k in a.terms.items() if k % divisor != 0}
    remainder = Affine(a.const % divisor, rest)
    ends = interval(remainder, scope)
    if ends is None or ends[0] < 0 or ends[1] >= divisor:
        return None
    return Affine(a.const // divisor, quotient), remainder


def _linear_quotient(expr: Div | FloorDiv, scope: Scope) -> Affine:
    parts = _split(expr, scope)
    return Affine(0, {expr: 1}) if parts is None else parts[0]


def _linear_remainder(expr: Mod | FloorMod, scope: Scope) -> Affine:
    parts = _split(expr, scope)
    return Affine(0, {expr: 1}) if parts is None else parts[1]


def _linear_choice(expr: Min | Max, scope: Scope) -> Affine:
    a, b = linear(expr.a, scope), linear(expr.b, scope)
    ends = interval(a - b, scope)
    if ends is not None and (ends[0] >= 0 or ends[1] <= 0):
        return a if (ends[1] <= 0) is isinstance(expr, Min) else b
    return Affine(0, {expr: 1})


def _linear_cast(expr: Cast, scope: Scope) -> Affine:
    inner = linear(expr.value, scope)
    ends = interval(inner, scope) if expr.to.is_integral and expr.value.dtype.is_integral else None
    if ends is not None and expr.to.min_value <= ends[0] and ends[1] <= expr.to.max_value:
        return inner
    return Affine(0, {expr: 1})


def _linear_ramp(expr: Ramp, scope: Scope) -> Affine:
    stride = linear(expr.stride, scope)
    if not stride.is_const:
        return Affine(0, {expr: 1})
    return linear(expr.base, scope) + Affine(0, {LANE: 1}).scaled(stride.const)


def _linear_call(expr: Call, scope: Scope) -> Affine:
    if isinstance(expr.op, Intrinsic) and expr.op.name == "likely":
        return linear(expr.args[0], scope)
    return Affine(0, {expr: 1})


def _linear_var(expr: Var, scope: Scope) -> Affine:
    form = scope.forms.get(expr)
    return Affine(0, {expr: 1}) if form is None else form


def _linear_const(expr: IntImm, scope: Scope) -> Affine:
    return Affine(expr.value, {})


def _linear_add(expr: Add, scope: Scope) -> Affine:
    return linear(expr.a, scope) + linear(expr.b, scope)


def _linear_sub(expr: Sub, scope: Scope) -> Affine:
    return linear(expr.a, scope) - linear(expr.b, scope)


def _linear_broadcast(expr: Broadcast, scope: Scope) -> Affine:
    return linear(expr.value, scope)


_LINEAR: dict[type[Expr], Callable[[Any, Scope], Affine]] = {
    IntImm: _linear_const,
    Var: _linear_var,
    Add: _linear_add,
    Sub: _linear_sub,
    Mul: _linear_mul,
    FloorDiv: _linear_quotient,
    Div: _linear_quotient,
    FloorMod: _linear_remainder,
    Mod: _linear_remainder,
    Min: _linear_choice,
    Max: _linear_choice,
    Cast: _linear_cast,
    Ramp: _linear_ramp,
    Broadcast: _linear_broadcast,
    Call: _linear_call,
}


def interval(form: Affine, scope: Scope, lanes: int = 0) -> Interval | None:
    """The ends of a sum, None if an atom has none. lanes: how many lanes `LANE` counts."""
    low = high = form.const
    for atom, factor in form.terms.items():
        ends = (0, lanes - 1) if atom is LANE and lanes else _atom_interval(atom, scope)
        if ends is None:
            return None
        low += factor * ends[0 if factor > 0 else 1]
        high += factor * ends[1 if factor > 0 else 0]
    return low, high


def limited_interval(form: Affine, scope: Scope, lanes: int = 0) -> Interval | None:
    """`interval`, tightened from above by the limits in scope."""
    best = interval(form, scope, lanes)
    if best is None:
        return None
    for limit, most in scope.limits:
        if not limit.terms:
            continue
        atom, unit = next(iter(limit.terms.items()))
        factor, uneven = divmod(form.terms.get(atom, 0), unit)
        if uneven or factor <= 0:
            continue
        if any(form.terms.get(item, 0) != k * factor for item, k in limit.terms.items()):
            continue
        rest = interval(form - limit.scaled(factor), scope, lanes)
        if rest is not None:
            best = best[0], min(best[1], rest[1] + factor * most)
    return best


def _atom_interval(atom: Expr, scope: Scope) -> Interval | None:
    if isinstance(atom, Var):
        return scope.ranges.get(atom)
    if isinstance(atom, FloorDiv | FloorMod | Div | Mod):
        divisor = linear(atom.b, scope)
        if not divisor.is_const or divisor.const <= 0:
            return None
        inner = interval(linear(atom.a, scope), scope)
        if isinstance(atom, FloorMod):
            return 0, divisor.const - 1
        if inner is None or (isinstance(atom, Div | Mod) and inner[0] < 0):
            return None
        if isinstance(atom, Mod):
            return 0, divisor.const - 1
        return inner[0] // divisor.const, inner[1] // divisor.const
    if isinstance(atom, Min | Max):
        a = interval(linear(atom.a, scope), scope)
        b = interval(linear(atom.b, scope), scope)
        if a is None or b is None:
            return None
        pick = min if isinstance(atom, Min) else max
        return pick(a[0], b[0]), pick(a[1], b[1])
    return None
