"""Simplified expressions have the value of the original ones, and nothing false is proved."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.arith.random_terms import DTYPES, Problem
from transect.arith.evaluate import evaluate
from transect.ir.dtype import DType
from transect.ir.expr import Expr, Range, const

_POINTS = 12


def _check(problem: Problem, expr: Expr) -> None:
    analyzer = problem.analyzer
    simple = analyzer.simplify(expr)
    assert simple.dtype is expr.dtype
    limits = analyzer.bounds(expr)
    for _ in range(_POINTS):
        point = problem.point()
        try:
            wanted = evaluate(expr, point)
        except ZeroDivisionError:
            continue
        assert evaluate(simple, point) == wanted, f"{expr!r}\n-> {simple!r}\nat {point}"
        assert int(wanted) in limits, f"{expr!r} is {wanted}, not in {limits}, at {point}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_simplify_keeps_the_value(dtype: DType, seed: int) -> None:
    problem = Problem(random.Random(seed), dtype)
    _check(problem, problem.number(4))
    _check(problem, problem.truth(4))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_constraints_are_used_soundly(dtype: DType, seed: int) -> None:
    problem = Problem(random.Random(seed), dtype)
    given_condition, condition, number = problem.truth(2), problem.truth(3), problem.number(3)
    analyzer = problem.analyzer
    with analyzer.constraint(given_condition):
        proved, simple = analyzer.can_prove(condition), analyzer.simplify(number)
        limits = analyzer.bounds(number)
    for _ in range(_POINTS):
        point = problem.point()
        try:
            holds = evaluate(given_condition, point)
            truth, wanted = evaluate(condition, point), evaluate(number, point)
        except ZeroDivisionError:
            continue
        if holds:
            assert truth or not proved, (
                f"proved {condition!r} from {given_condition!r}, false at {point}"
            )
            assert evaluate(simple, point) == wanted, f"{number!r}\n-> {simple!r}\nat {point}"
            assert wanted in limits


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_symbolic_bounds_enclose(dtype: DType, seed: int) -> None:
    problem = Problem(random.Random(seed), dtype)
    expr = problem.number(3)
    over = {loop: Range(const(0, dtype), size) for loop, size in problem.loops.items()}
    found = problem.analyzer.symbolic_bounds(expr, over)
    if found is None:
        return
    for _ in range(_POINTS):
        point = problem.point()
        try:
            value = evaluate(expr, point)
            # An end may divide by what the expression divides by only in another case.
            low, high = (evaluate(end, point) for end in found)
        except ZeroDivisionError:
            continue
        assert low <= value <= high, (
            f"{expr!r} = {value} not in [{found[0]!r}, {found[1]!r}] at {point}"
        )


def test_simplifying_again_changes_no_value() -> None:
    problem = Problem(random.Random(0), DTYPES[0])
    for _ in range(60):
        expr = problem.number(3)
        _check(problem, problem.analyzer.simplify(expr))
