"""Evaluation with numbers and with arrays, as the machine computes."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tests.arith.random_terms import DTYPES, Problem
from transect.arith.evaluate import evaluate, evaluate_all
from transect.ir.dtype import FLOAT16, FLOAT32, INDEX, INT8, UINT8, DType
from transect.ir.expr import (
    Broadcast,
    Call,
    Expr,
    FloatImm,
    Intrinsic,
    Ramp,
    Select,
    Shuffle,
    Var,
    as_expr,
    cast,
    logical_and,
    logical_or,
    truncdiv,
    truncmod,
)
from transect.ir.traverse import walk
from transect.support.errors import InputError, UnsupportedError

X, Y = Var("x"), Var("y")


def test_numbers() -> None:
    assert evaluate(X * 4 + Y // 3 % 2, {X: 2, Y: 7}) == 8
    assert evaluate(truncdiv(X, 2), {X: -7}) == -3
    assert evaluate(truncmod(X, 2), {X: -7}) == -1
    assert evaluate(X + 1, {X: 10**30}) == 10**30 + 1
    assert evaluate(X < Y, {X: 1, Y: 2}) is True


def test_narrow_integers_wrap() -> None:
    a, b = Var("a", INT8), Var("b", UINT8)
    assert evaluate(a + 1, {a: 127}) == -128
    assert evaluate(b - 1, {b: 0}) == 255
    assert evaluate(a * a, {a: np.array([16, 100])}).tolist() == [0, 16]
    assert evaluate(cast(X, UINT8), {X: -1}) == 255


def test_only_the_chosen_side_is_evaluated() -> None:
    assert evaluate(logical_and(X > 0, Y // X > 2), {X: 0, Y: 1}) is False
    assert evaluate(logical_or(X < 1, Y // X > 2), {X: 0, Y: 1}) is True
    assert evaluate(Select(X > 0, Y // X, as_expr(-1)), {X: 0, Y: 1}) == -1
    with pytest.raises(ZeroDivisionError):
        evaluate(Y // X, {X: 0, Y: 1})


def test_floats_round_to_their_dtype() -> None:
    half = Var("h", FLOAT16)
    assert evaluate(half + 1.0, {half: 2048.0}) == 2048.0
    single = FloatImm(0.1, FLOAT32)
    assert evaluate(single, {}).dtype == np.float32
    sqrt = Call(Intrinsic("sqrt", arity=1), (half,), FLOAT16)
    assert evaluate(sqrt, {half: 2.0}) == np.float16(math.sqrt(2))
    assert math.isnan(evaluate(sqrt, {half: -1.0}))
    assert evaluate(cast(half, INT8), {half: -2.7}) == -2


def test_vectors_have_lanes_on_the_last_axis() -> None:
    ramp = Ramp(X, as_expr(2), 4)
    assert evaluate(ramp, {X: 3}).tolist() == [3, 5, 7, 9]
    both = ramp + Broadcast(Y, 4)
    assert evaluate(both, {X: np.array([0, 10]), Y: 1}).tolist() == [[1, 3, 5, 7], [11, 13, 15, 17]]
    picked = Shuffle((ramp,), (as_expr(3), as_expr(0)))
    assert evaluate(picked, {X: 0}).tolist() == [6, 0]


def test_unknown_things_are_named() -> None:
    with pytest.raises(InputError, match="no value for variable 'x'"):
        evaluate(X + 1, {})
    call = Call(Intrinsic("barrier", "write", 0), (), INDEX)
    with pytest.raises(UnsupportedError, match=r"T\.barrier"):
        evaluate(call, {})
    assert evaluate(call + 1, {}, lambda item, of: 41) == 42


def test_shared_terms_are_evaluated_once() -> None:
    count = 0
    call = Call(Intrinsic("probe"), (X,), INDEX)
    expr: Expr = call
    for _ in range(40):
        expr = expr + expr

    def probe(item: Expr, of: object) -> int:
        nonlocal count
        count += 1
        return 1

    assert evaluate_all([expr, call], {X: 0}, probe) == [2**40, 1]
    assert count == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_agree_with_numbers(dtype: DType) -> None:
    problem = Problem(random.Random(5), dtype)
    checked = 0
    for _ in range(60):
        expr = problem.number(3)
        points = [problem.point() for _ in range(8)]
        try:
            wanted = [evaluate(expr, point) for point in points]
            for item in walk(expr):
                for point in points:
                    if isinstance(item, Expr):
                        evaluate(item, point)
        except ZeroDivisionError:
            continue
        arrays = {var: np.array([point[var] for point in points]) for var in points[0]}
        assert np.broadcast_to(evaluate(expr, arrays), (8,)).tolist() == wanted, repr(expr)
        checked += 1
    assert checked > 10
