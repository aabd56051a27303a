"""How many iterations of a nest of loops fulfil the conditions of tiles, as a term.

Conditions are those that splitting and moving blocks leave: linear forms of the loop variables
below or above some bound. Extents may be symbolic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transect.ir.dtype import INDEX
from transect.ir.expr import (
    GE,
    GT,
    LE,
    LT,
    Expr,
    IntImm,
    Var,
    as_int,
    maximum,
    select,
)
from transect.ir.traverse import free_vars
from transect.tir.affine import affine
from transect.tir.analysis.linear import ONE, ZERO, clamp, least, linear, multiply, same


@dataclass(frozen=True)
class Count:
    """A number of iterations. exact: whether it is that, or only a bound from above."""

    value: Expr
    exact: bool = True


@dataclass(frozen=True)
class Digit:
    """A loop in a form: its variable runs over `extent` values, each counts `factor`."""

    var: Var
    factor: Expr
    extent: Expr


@dataclass
class _Constraint:
    """low <= sum of factor * variable <= high; None: no end."""

    factors: dict[Var, Expr]
    low: Expr | None
    high: Expr | None


def count_points(extents: Mapping[Var, Expr], conditions: Sequence[Expr]) -> Count:
    """How many values of the variables, each from 0 to below its extent, fulfil all conditions.

    Exact for conditions over digits of tiles, however often they are split, and for windows that
    overlap from tile to tile. Other conditions are left out, which gives an upper bound.
    """
    left = dict(extents)
    total: Expr = ONE
    exact = True
    constraints: list[_Constraint] = []
    for condition in conditions:
        if not any(var in left for var in free_vars([condition])):
            total = multiply(total, select(condition, ONE, ZERO))
            continue
        found = _constraint(condition, left)
        if found is None:
            exact = False
        else:
            _join(constraints, found)
    while constraints:
        constraint = min(constraints, key=lambda item: len(item.factors))
        constraints.remove(constraint)
        others = [c for c in constraints if any(var in c.factors for var in constraint.factors)]
        digits = [Digit(v, f, left[v]) for v, f in constraint.factors.items()]
        if not others:
            number = _between(digits, constraint.low, constraint.high)
            if number is None:
                exact = False
                continue
            for var in constraint.factors:
                del left[var]
            total = multiply(total, number)
            continue
        merged = _as_one(digits)
        if merged is None or constraint.low is not None or constraint.high is None:
            exact = False
            continue
        replaced = [_replaced(c, constraint.factors, merged) for c in others]
        if any(factors is None for factors in replaced):
            exact = False
            continue
        for var in constraint.factors:
            del left[var]
        left[merged.var] = clamp(_steps(constraint.high, merged.factor), merged.extent)
        for other, factors in zip(others, replaced, strict=True):
            assert factors is not None
            other.factors = factors
    for extent in left.values():
        total = multiply(total, extent)
    return Count(total, exact)


def _constraint(condition: Expr, variables: Mapping[Var, Expr]) -> _Constraint | None:
    if not isinstance(condition, LT | LE | GT | GE):
        return None
    a, b = linear(condition.a, variables), linear(condition.b, variables)
    if a is None or b is None:
        return None
    upward = isinstance(condition, LT | LE)
    form = a.plus(b, -1)
    strict = -1 if isinstance(condition, LT) else 1 if isinstance(condition, GT) else 0
    bound = (affine(ZERO) - affine(form.offset)).plus(strict).to_expr(INDEX)
    given = dict(form.coefficients)
    numbers = [as_int(factor) for factor in given.values()]
    if all(number is not None and number < 0 for number in numbers):
        factors: dict[Var, Expr] = {
            var: IntImm(-_known(factor), INDEX) for var, factor in given.items()
        }
        bound = (affine(ZERO) - affine(bound)).to_expr(INDEX)
        return _Constraint(factors, bound if upward else None, None if upward else bound)
    if any(number is not None and number < 0 for number in numbers) or not given:
        return None
    return _Constraint(given, None if upward else bound, bound if upward else None)


def _known(factor: Expr) -> int:
    number = as_int(factor)
    assert number is not None
    return number


def _join(constraints: list[_Constraint], new: _Constraint) -> None:
    for old in constraints:
        if old.factors.keys() == new.factors.keys() and all(
            same(old.factors[var], new.factors[var]) for var in new.factors
        ):
            if new.low is not None:
                old.low = new.low if old.low is None else maximum(old.low, new.low)
            if new.high is not None:
                old.high = new.high if old.high is None else least(old.high, new.high)
            return
    constraints.append(new)


def _merge_digits(digits: list[Digit]) -> list[Digit]:
    """Digits of one number joined: where one counts as much as another's whole range."""
    found: list[Digit] = [item for item in digits if as_int(item.extent) != 1] or digits[:1]
    while len(found) > 1:
        pair = next(
            (
                (low, high)
                for low in found
                for high in found
                if low is not high and same(high.factor, multiply(low.factor, low.extent))
            ),
            None,
        )
        if pair is None:
            break
        low, high = pair
        found = [item for item in found if item not in pair]
        found.append(Digit(Var("digits"), low.factor, multiply(low.extent, high.extent)))
    return found


def _as_one(digits: list[Digit]) -> Digit | None:
    merged = _merge_digits(digits)
    return merged[0] if len(merged) == 1 else None


def _between(digits: list[Digit], low: Expr | None, high: Expr | None) -> Expr | None:
    """How many values of the digits make a sum from `low` to `high`."""
    merged = _merge_digits(digits)
    everything: Expr = ONE
    for item in merged:
        everything = multiply(everything, item.extent)
    above = everything if high is None else _up_to(merged, high)
    below = ZERO if low is None else _up_to(merged, low - 1)
    if above is None or below is None:
        return None
    return above if below is ZERO else maximum(above - below, ZERO)


def _up_to(digits: list[Digit], high: Expr) -> Expr | None:
    if len(digits) == 1:
        (digit,) = digits
        return clamp(_steps(high, digit.factor), digit.extent)
    if len(digits) != 2:
        return None
    inner, outer = sorted(digits, key=lambda item: as_int(item.factor) != 1)
    if as_int(inner.factor) != 1:
        return None
    # Windows that overlap: the sum over outer of min(inner extent, what is left of `high`).
    step, width = outer.factor, inner.extent
    count = _plus(high, 1)
    whole = clamp(_steps(count - width, step), outer.extent)
    some = clamp(_steps(high, step), outer.extent)
    partly = (some - whole) * count - step * (some * (some - 1) - whole * (whole - 1)) // 2
    return select(high < 0, ZERO, width * whole + partly)


def _steps(high: Expr, factor: Expr) -> Expr:
    """How many multiples of `factor` there are from 0 to `high`."""
    return _plus(high if as_int(factor) == 1 else high // factor, 1)


def _plus(value: Expr, number: int) -> Expr:
    return affine(value).plus(number).to_expr(INDEX)


def _replaced(
    constraint: _Constraint, factors: Mapping[Var, Expr], merged: Digit
) -> dict[Var, Expr] | None:
    """The factors of a constraint with one digit in place of those it was merged from."""
    if not all(var in constraint.factors for var in factors):
        return None
    lowest = next((v for v, factor in factors.items() if same(factor, merged.factor)), None)
    if lowest is None:
        return None
    scale = constraint.factors[lowest]
    for var, factor in factors.items():
        if not same(multiply(scale, factor), multiply(merged.factor, constraint.factors[var])):
            return None
    rest = {var: factor for var, factor in constraint.factors.items() if var not in factors}
    return {**rest, merged.var: scale}
