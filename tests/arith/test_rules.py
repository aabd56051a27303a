"""Every rule of the tables is proved by Z3; a rule that is in no table is never applied."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import z3

from tests.arith.z3_terms import Translation, refute
from transect.arith.division import QUOTIENT_RULES
from transect.arith.lemmas import LEMMAS
from transect.arith.patterns import PATTERN_RULES
from transect.arith.rule import IntegerRule, PatternRule
from transect.arith.sums import SUM_RULES
from transect.ir.dtype import BOOL, FLOAT32, HANDLE, INDEX
from transect.ir.expr import IntImm, Var
from transect.ir.traverse import free_vars, substitute

# Multipliers: products of two unknowns are beyond Z3, so these take every value of a small set,
# and the other variables are unbounded integers.
_MULTIPLIERS = frozenset("abcdg")
_VALUES = (-5, -2, -1, 1, 2, 3, 8)

INTEGER_RULES: list[IntegerRule] = [
    *itertools.chain.from_iterable(QUOTIENT_RULES.values()),
    *SUM_RULES,
    *LEMMAS,
]


def test_names_are_unique() -> None:
    names = [rule.name for rule in (*INTEGER_RULES, *PATTERN_RULES)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", INTEGER_RULES, ids=lambda rule: rule.name)
def test_integer_rule(rule: IntegerRule) -> None:
    variables = free_vars([rule.left, rule.right, rule.when])
    multipliers = [var for var in variables if var.name in _MULTIPLIERS]
    others = {
        var: z3.Bool(var.name) if var.dtype is BOOL else z3.Int(var.name)
        for var in variables
        if var not in multipliers
    }
    applicable = 0
    for values in itertools.product(_VALUES, repeat=len(multipliers)):
        constants = {var: IntImm(value) for var, value in zip(multipliers, values, strict=True)}
        left, right, when = (substitute(e, constants) for e in (rule.left, rule.right, rule.when))
        premise = Translation(others)
        condition, wanted = premise.of(when), premise.of(left)
        defined = [divisor != 0 for divisor in premise.divisors]
        if refute(condition, *premise.side, *defined) is None:
            continue
        applicable += 1
        result = premise.of(right)
        divisors = [divisor == 0 for divisor in premise.divisors]
        counterexample = refute(
            condition, *premise.side, *defined, z3.Or(wanted != result, *divisors)
        )
        assert counterexample is None, f"{rule.name} fails for {constants}, {counterexample}"
    assert applicable, f"{rule.name}: no value tried satisfies its condition"


def _sorts(var: Var) -> list[Any]:
    if var.dtype is BOOL:
        return [z3.BoolSort()]
    if var.dtype is INDEX:
        return [z3.IntSort(), z3.BitVecSort(8)]
    if var.dtype is FLOAT32:
        return [z3.Float16(), z3.Float32()]
    assert var.dtype is HANDLE
    return [z3.IntSort(), z3.BoolSort(), z3.BitVecSort(8), z3.Float32()]


def _instances(rule: PatternRule) -> Iterator[Translation]:
    variables = free_vars([rule.left])
    kinds = {var.dtype: _sorts(var) for var in variables}
    for choice in itertools.product(*kinds.values()):
        sorts = dict(zip(kinds, choice, strict=True))
        floats = next((sort for sort in choice if sort.kind() == z3.Z3_FLOATING_POINT_SORT), None)
        yield Translation({var: z3.Const(var.name, sorts[var.dtype]) for var in variables}, floats)


@pytest.mark.parametrize("rule", PATTERN_RULES, ids=lambda rule: rule.name)
def test_pattern_rule(rule: PatternRule) -> None:
    for instance in _instances(rule):
        left, right = instance.of(rule.left), instance.of(rule.right)
        # Z3's equality of floats is of bits: a zero differs from the other, a NaN equals itself.
        counterexample = refute(left != right)
        assert counterexample is None, f"{rule.name} fails for {counterexample}"
    assert not set(free_vars([rule.right])) - set(free_vars([rule.left]))
