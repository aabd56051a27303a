"""Interned terms: identity is equality, also under threads, and sharing stays linear."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import threading

import pytest

from transect.ir.dtype import BOOL, FLOAT32, INT8, INT32
from transect.ir.expr import (
    EQ,
    Add,
    Broadcast,
    Call,
    Expr,
    FloatImm,
    IntImm,
    Mul,
    Select,
    Shuffle,
    StringImm,
    Var,
    as_expr,
    as_int,
    cast,
    const,
    equal,
    logical_and,
    minimum,
    promote,
    true,
    truncdiv,
    truncmod,
)
from transect.ir.sizes import ceildiv
from transect.ir.structural import structural_hash
from transect.ir.term import Term, live_terms
from transect.ir.traverse import free_vars, rewrite, substitute, walk
from transect.ir.types import CallableType, ObjectType, TensorType, tensor_type
from transect.support.errors import InputTypeError
from transect.tir.buffer import BufferLoad, buffer


def test_equal_terms_are_one_object() -> None:
    x = Var("x")
    assert x + 1 is x + 1
    assert Var("x") is not x
    assert IntImm(1) is not const(1, INT32)
    assert copy.deepcopy(x + 1) is x + 1


def test_constants_that_python_calls_equal_are_told_apart() -> None:
    assert const(0.0, FLOAT32) is not const(-0.0, FLOAT32)
    assert const(float("nan"), FLOAT32) is const(float("nan"), FLOAT32)
    assert const(True, BOOL) is true()
    with pytest.raises(InputTypeError, match="is an int, not bool"):
        IntImm(True, BOOL)
    with pytest.raises(InputTypeError, match="300 does not fit in int8"):
        IntImm(300, INT8)


def test_terms_are_immutable_and_have_no_truth_value() -> None:
    x = Var("x")
    with pytest.raises(AttributeError, match="immutable"):
        (x + 1).a = x  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError, match="immutable"):
        x.name = "y"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputTypeError, match="no truth value"):
        bool(x < 1)


def test_threads_agree_on_the_object() -> None:
    x = Var("x")
    count, rounds = 8, 300
    made: list[list[Expr]] = [[] for _ in range(count)]
    start = threading.Barrier(count)

    def build(number: int) -> None:
        for i in range(rounds):
            if i % 50 == 0:
                start.wait()
            made[number].append(minimum(x * i + 7, x // (i + 1)))

    threads = [threading.Thread(target=build, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for others in made[1:]:
        assert all(a is b for a, b in zip(made[0], others, strict=True))


def test_dropped_terms_leave_the_table() -> None:
    gc.collect()
    before = live_terms()
    x = Var("x")
    expr: Expr = x
    for i in range(20_000):
        expr = Add(expr, IntImm(i + 10**6))
    assert live_terms() >= before + 20_000
    del expr
    gc.collect()
    assert live_terms() <= before + 10


def _shared(depth: int) -> Expr:
    x = Var("x")
    expr: Expr = x
    for _ in range(depth):
        expr = Mul(Add(expr, expr), minimum(expr, expr + 1))
    return expr


def test_a_shared_dag_stays_linear() -> None:
    expr = _shared(40)
    assert len(list(walk(expr))) <= 40 * 4 + 3
    assert len(free_vars([expr])) == 1
    (var,) = free_vars([expr])
    assert substitute(expr, {var: var}) is expr
    assert substitute(expr, {var: Var("y")}) is not expr
    assert len(structural_hash(expr)) == 32


def test_children_and_map_children() -> None:
    x, b = Var("x"), buffer("B", (4, 4))
    load = b[x, x + 1]
    assert isinstance(load, BufferLoad)
    assert load.children() == (x, x + 1)
    guarded = BufferLoad(b, (x, x), x < 3)
    assert guarded.children() == (x, x, x < 3)
    assert IntImm(3).children() == ()
    assert Shuffle((Broadcast(x, 2),), (IntImm(0), IntImm(1))).children() == (
        Broadcast(x, 2),
        IntImm(0),
        IntImm(1),
    )
    unknown = tensor_type(None, None)
    assert unknown.children() == ()
    assert CallableType((unknown,), ObjectType()).children() == (unknown, ObjectType())
    assert CallableType(None, ObjectType()).children() == (ObjectType(),)

    def increment(child: Term) -> Term:
        return child + 1 if isinstance(child, Var) else child

    assert load.map_children(increment) is b[x + 1, x + 1]
    assert load.map_children(lambda child: child) is load
    assert unknown.map_children(increment) is unknown
    choice = Select(x < 1, x, IntImm(0))
    assert choice.map_children(increment) is Select(x < 1, x + 1, IntImm(0))
    assert isinstance(tensor_type((x,), FLOAT32).map_children(increment), TensorType)


def test_rewrite_shares_and_keeps() -> None:
    x, y = Var("x"), Var("y")
    expr = (x + 1) * (x + 1)
    calls: list[Term] = []

    def visit(item: Term) -> Term:
        calls.append(item)
        return y if item is x else item

    assert rewrite(expr, visit) is (y + 1) * (y + 1)
    assert len(calls) == len(set(calls))


def test_constants_fold_as_the_machine_computes() -> None:
    assert as_int(const(127, INT8) + 1) == -128
    assert as_int(truncdiv(-7, 2)) == -3
    assert as_int(as_expr(-7) // 2) == -4
    assert as_int(truncmod(-7, 2)) == -1
    assert as_int(as_expr(-7) % 2) == 1
    assert as_int(ceildiv(7, 2)) == 4
    assert isinstance(as_expr(1) // 0, Expr)
    assert as_int(as_expr(1) // 0) is None
    third = const(1.0, FLOAT32) / 3.0
    assert isinstance(third, FloatImm)
    assert third.value != 1 / 3
    assert const(1e300, "float16") is const(float("inf"), "float16")
    assert minimum(const(float("nan"), FLOAT32), 1.0) is const(float("nan"), FLOAT32)
    assert cast(const(2.9, FLOAT32), INT32) is const(2, INT32)


def test_operands_are_promoted() -> None:
    narrow, wide, real = Var("a", INT8), Var("b", INT32), Var("f", FLOAT32)
    assert (narrow + wide).dtype is INT32
    assert (wide + real).dtype is FLOAT32
    assert (wide + 1).dtype is INT32
    assert equal(real, 1).dtype is BOOL
    lanes = Broadcast(wide, 4)
    assert (lanes + wide).dtype is lanes.dtype
    assert EQ(lanes, lanes).dtype is BOOL.with_lanes(4)
    left, right = promote(2.5, real)
    assert left.dtype is right.dtype is FLOAT32
    with pytest.raises(InputTypeError, match="300 does not fit in int8"):
        _ = narrow < 300
    with pytest.raises(InputTypeError, match="ambiguous"):
        _ = wide / 2


def test_bad_operands_are_refused() -> None:
    with pytest.raises(InputTypeError, match="Add of int8 and int32"):
        Add(Var("a", INT8), Var("b", INT32))
    with pytest.raises(InputTypeError, match="cannot call"):
        Call("exp", (), FLOAT32)
    with pytest.raises(InputTypeError, match="expected an expression"):
        as_expr("x")  # pyright: ignore[reportArgumentType]
    assert StringImm("a") is StringImm("a")
    assert logical_and() is true()


def test_leaving_python_with_live_terms_is_quiet() -> None:
    script = "from transect.ir.expr import Var\nkept = [Var('x') * i + i for i in range(100)]\n"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
