"""What simplify, bounds and proofs are expected to find, and what they must leave alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from transect.arith import Analyzer, Bounds
from transect.ir.dtype import BOOL, FLOAT32, INDEX, INT8, INT32
from transect.ir.expr import (
    EQ,
    Add,
    And,
    Call,
    Cast,
    Expr,
    Intrinsic,
    Mul,
    Not,
    Range,
    Select,
    Sub,
    Var,
    as_expr,
    as_int,
    cast,
    const,
    equal,
    logical_and,
    maximum,
    minimum,
    not_equal,
    select,
    truncdiv,
    truncmod,
)
from transect.ir.sizes import ceildiv
from transect.ir.traverse import walk
from transect.support.errors import InputTypeError

X, Y, N, M, I, J = (Var(name) for name in ("x", "y", "n", "m", "i", "j"))  # noqa: E741


@pytest.fixture
def known() -> Analyzer:
    """x >= 0, 0 <= y < 8, n >= 0, m >= 1, i in [0, n), j in [0, m)."""
    analyzer = Analyzer()
    analyzer.bind(X, (0, None))
    analyzer.bind(Y, (0, 7))
    analyzer.bind(N, (0, None))
    analyzer.bind(M, (1, None))
    analyzer.bind(I, Range.of(N))
    analyzer.bind(J, Range.of(M))
    return analyzer


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ((X * 8 + Y) // 8, X),
        ((X * 8 + Y) % 8, Y),
        ((I // 4) * 4 + I % 4, I),
        ((I * M + J) // M, I),
        ((I * M + J) % M, J),
        ((I + J * N) % N, I),
        ((N * M) // M, N),
        ((N + 1) * (M + 1) // (M + 1), N + 1),
        ((N * 4) // (M * 4), N // M),
        (X // 4 // 2 * 8 + X // 4 % 2 * 4 + X % 4, X),
        (X // 4 % 2 * 4 + X % 4, X % 8),
        (X // M * M + X % M, X),
        ((X * 4 + Y % 4) // 16, X // 4),
        (X // 3 // 5, X // 15),
        (X % 16 % 4, X % 4),
        (X % 8 // 4, X // 4 % 2),
        (X - X // 4 * 4, X % 4),
        (X * 2 + X * 3 - Y, X * 5 - Y),
        ((X + 1) * (X - 1) - X * X, as_expr(-1)),
        (truncdiv(X * 8 + Y, 8), X),
        (truncmod(X * 8 + Y, 8), Y),
        (minimum(N, N + 1), N),
        (maximum(X, 0), X),
        (minimum(minimum(X, Y), X), minimum(X, Y)),
        (maximum(X + M, Y + M), maximum(X, Y) + M),
        (select(X < 4, minimum(X, 4), X), X),
        (Not(X < Y), Y <= X),
        (X > 3, as_expr(3) < X),
        (X - 1 < Y, X <= Y),
        (X * 4 < 10, X < 3),
        (And(X < 5, And(Y < 3, X < 5)), And(X < 5, Y < 3)),
        (cast(cast(Y, INT32), INDEX), Y),
    ],
    ids=str,
)
def test_simplify(known: Analyzer, expr: Expr, expected: Expr) -> None:
    assert known.simplify(expr) is known.simplify(expected)


@pytest.mark.parametrize(
    "condition",
    [
        I < N,
        I * M + J < N * M,
        I * M + J >= 0,
        I * 8 + Y < N * 8,
        N - 1 < N,
        ceildiv(N, 8) * 8 >= N,
        ceildiv(N, 8) * 8 - N < 8,
        (N + 7) // 8 >= N // 8,
        N // 8 * 8 <= N,
        minimum(X, Y) <= Y,
        maximum(X, Y) >= Y,
        X % M < M,
        not_equal(X * 2, Y * 2 + 1),
        Select(X < Y, X, Y) <= 7 + X,
    ],
    ids=str,
)
def test_provable(known: Analyzer, condition: Expr) -> None:
    assert known.can_prove(condition)
    assert not known.can_prove(Not(condition))


@pytest.mark.parametrize("condition", [N > 0, I < M, X < N, equal(X, Y), N >= 1, M > 1], ids=str)
def test_unknown_stays_unknown(known: Analyzer, condition: Expr) -> None:
    # That a loop over n exists does not mean that n > 0 outside of it.
    assert not known.can_prove(condition)
    assert not known.can_prove(Not(condition))


def test_constraints_hold_inside_only(known: Analyzer) -> None:
    with known.constraint(X < 5):
        assert known.can_prove(X <= 4)
        assert known.bounds(X + Y) == Bounds(0, 11)
        with known.constraint(X >= 4):
            assert as_int(known.simplify(X)) == 4
    assert not known.can_prove(X <= 4)
    assert known.bounds(X) == Bounds(0, None)


def test_divisibility_is_learned(known: Analyzer) -> None:
    with known.constraint(equal(N % 8, 0)):
        assert known.simplify(N // 8 * 8) is N
        assert as_int(known.simplify(N % 4)) == 0
        assert as_int(known.simplify((N * 4 + 3) % 32)) == 3
    known.assume(equal(M % 6, 2))
    assert as_int(known.simplify(M % 3)) == 2


def test_a_variable_may_stand_for_an_expression(known: Analyzer) -> None:
    z = Var("z")
    known.bind(z, X * 8 + Y)
    assert known.simplify(z // 8) is X
    with pytest.raises(InputTypeError, match="bound to int32"):
        known.bind(Var("w"), const(1, INT32))


def test_fork_learns_for_itself(known: Analyzer) -> None:
    other = known.fork()
    other.assume(X < 3)
    assert other.can_prove(X < 3)
    assert not known.can_prove(X < 3)


def test_symbolic_bounds(known: Analyzer) -> None:
    analyzer = Analyzer()
    analyzer.bind(N, (1, None))
    analyzer.bind(M, (1, None))
    loops = {I: Range.of(N), J: Range.of(M)}
    for expr, low, high in [
        (I * M + J, as_expr(0), N * M - 1),
        (I * 4 + J // 2, as_expr(0), N * 4 + (M - 1) // 2 - 4),
        (I - J, 1 - M, N - 1),
        (minimum(I * 4 + J, N * 4 - 1), as_expr(0), minimum(N * 4 + M - 5, N * 4 - 1)),
        (X + I, X, X + N - 1),
    ]:
        found = analyzer.symbolic_bounds(expr, loops)
        assert found is not None
        assert analyzer.can_prove_equal(found[0], low)
        assert analyzer.can_prove_equal(found[1], high)
    assert analyzer.symbolic_bounds(X * I, loops) is None


# --- what must not be simplified ---------------------------------------------------------------


def test_narrow_integers_wrap_around() -> None:
    a, b = Var("a", INT8), Var("b", INT8)
    analyzer = Analyzer()
    assert not analyzer.can_prove(a < a + 1)
    assert analyzer.simplify(a * 8 // 8) is not a
    assert analyzer.simplify(a + b - b) is a  # Sums hold modulo 256.
    analyzer.bind(a, (0, 10))
    assert analyzer.can_prove(a < a + 1)
    assert analyzer.simplify(a * 8 // 8) is a
    wide = cast(a + b, INDEX)
    assert isinstance(analyzer.simplify(wide), Cast)
    analyzer.bind(b, (0, 10))
    assert analyzer.can_prove_equal(wide, cast(a, INDEX) + cast(b, INDEX))


def test_calls_with_effects_are_neither_merged_nor_dropped() -> None:
    call = Call(Intrinsic("next_random", "write", 0, INDEX), (), INDEX)
    read = Call(Intrinsic("counter", "read", 0, INDEX), (), INDEX)
    for effect in (call, read):
        for expr in (
            Sub(effect, effect),
            Add(effect, effect),
            Mul(effect, as_expr(0)),
            Select(EQ(effect, effect), X, X),
            And(EQ(effect, X), const(False, BOOL)),
        ):
            assert Analyzer().simplify(expr) is expr
    pure = Call(Intrinsic("f", "pure", 0, INDEX), (), INDEX)
    assert as_int(Analyzer().simplify(Sub(pure, pure))) == 0


def test_the_place_whose_address_is_taken_stays(known: Analyzer) -> None:
    take = Intrinsic("address_of", "read", 1, INDEX)
    place = minimum(X + Y * 0, X)
    inner = Call(take, (place,), INDEX)
    result = known.simplify(inner)
    assert isinstance(result, Call)
    assert type(result.args[0]) is type(place)


def test_floats_keep_nan_infinity_and_signed_zero() -> None:
    f = Var("f", FLOAT32)
    zero = const(0.0, FLOAT32)
    analyzer = Analyzer()
    for expr in (
        f - f,
        f * zero,
        f + zero,
        zero - f,
        f / f,
        EQ(f, f),
        Not(f < zero),
        f + 1.0 - 1.0,
    ):
        assert analyzer.simplify(expr) is expr
    assert analyzer.simplify(f * 1.0) is f
    assert analyzer.simplify(f - zero) is f
    assert analyzer.simplify(f + const(-0.0, FLOAT32)) is f


def test_short_circuits_keep_their_order(known: Analyzer) -> None:
    guarded = And(X < N, equal(Y // (N - X), 1))
    result = known.simplify(guarded)
    assert isinstance(result, And)
    assert result.a is known.simplify(X < N)


# --- size and determinism ----------------------------------------------------------------------


def _doubled(depth: int, step: int) -> Expr:
    expr: Expr = X
    for level in range(depth):
        expr = (
            expr + expr % (level + 2)
            if step == 0
            else Mul(expr, expr + 1)
            if step == 1
            else Select(expr < level, minimum(expr, Y), maximum(expr, Y + level))
        )
    return expr


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_shared_dag_stays_small(step: int) -> None:
    result = Analyzer().simplify(_doubled(20, step))
    assert len(list(walk(result))) < 3000


def test_long_sums_need_no_recursion() -> None:
    expr: Expr = X
    for number in range(3000):
        expr = expr + Var(f"v{number}") * 2
    result = Analyzer().simplify(expr)
    assert len(list(walk(result))) > 6000
    nested: Expr = X
    for number in range(2, 1500):
        nested = minimum(nested, Y + number) // 2
    Analyzer().simplify(nested)


_SCRIPT = """
from transect.arith import Analyzer
from transect.ir.expr import Range, Var, minimum
from transect.ir.structural import structural_hash
names = [Var(name) for name in "abcdefgh"]
analyzer = Analyzer()
for var in names:
    analyzer.bind(var, Range.of(names[0] + 9) if var is not names[0] else (0, 5))
total = names[0]
for k, var in enumerate(names):
    total = minimum(total * 3 + var // 4 * var, var % 8 + total * k + 7)
print(structural_hash(analyzer.simplify(total)))
"""


def test_results_are_the_same_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "7")
    }
    assert len(found) == 1


def test_the_order_of_operands_does_not_matter() -> None:
    analyzer = Analyzer()
    assert analyzer.simplify((X + Y) // 2) is analyzer.simplify((Y + X) // 2)
    assert analyzer.simplify(minimum(X, Y)) is analyzer.simplify(minimum(Y, X))
    assert analyzer.can_prove_equal((X + Y) * (X - Y), X * X - Y * Y)
    assert logical_and(X < 1) is (X < 1)
