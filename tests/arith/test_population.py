"""Terms compiled for a population agree with their careful evaluation, one by one."""

import numpy as np
import pytest

from transect.arith.evaluate import evaluate
from transect.arith.population import compile_terms, grid
from transect.ir.dtype import FLOAT32
from transect.ir.expr import (
    Expr,
    Var,
    equal,
    logical_and,
    logical_not,
    maximum,
    minimum,
    select,
)
from transect.ir.sizes import ceildiv
from transect.support.errors import InputError, UnsupportedError

N, T, U = Var("n"), Var("t"), Var("u")
TERMS: list[Expr] = [
    N + T * 3 - U,
    ceildiv(N, T) * T - N,
    N % T + N // U,
    minimum(maximum(N - T, 0), U * 2),
    select(logical_and(T > 2, logical_not(equal(U, 1))), N, T - U),
    N * 0 + 7,
]


def test_many_points_at_once_are_the_points_one_by_one() -> None:
    values = grid({N: [0, 1, 5, 100], T: [1, 2, 3, 7], U: [1, 4]})
    found = compile_terms(TERMS)(values)
    count = len(values[N])
    assert count == 4 * 4 * 2
    for place in range(count):
        point = {var: int(column[place]) for var, column in values.items()}
        for term, column in zip(TERMS, found, strict=True):
            assert np.broadcast_to(column, count)[place] == evaluate(term, point), (term, point)


def test_what_terms_share_is_computed_once() -> None:
    shared = (N + T) * U
    alone = compile_terms([shared]).operations
    assert compile_terms([shared, shared * 2, shared - N]).operations == alone + 2


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(InputError, match="no values for t"):
        compile_terms([N + T])({N: np.arange(3)})


def test_a_float_is_no_index() -> None:
    with pytest.raises(UnsupportedError, match="has no meaning for a population"):
        compile_terms([Var("f", FLOAT32) > 1.0])
