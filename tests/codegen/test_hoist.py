"""Addresses and masks are computed in front of the loops that do not change them."""

import re

import numpy as np
import pytest

from tests.codegen.support import check, lower
from transect.codegen.llvm.compile import emit_module
from transect.script import tir as T
from transect.target import host_target
from transect.tir.function import PrimFunc


def innermost(program: PrimFunc) -> str:
    """The block of LLVM IR that adds floats."""
    text = str(emit_module(lower(program), host_target()))
    blocks = re.split(r"\n(?=[a-z]+[0-9]*:)", text)
    return next(block for block in blocks if "fadd" in block)


@T.prim_func
def window(x: T.Buffer((9, 9, 32), "float32"), y: T.Buffer((7, 7, 32), "float32")):
    for i, j, k, m, c in T.grid(7, 7, 3, 3, 32):
        y[i, j, c] = y[i, j, c] + x[i + k, j + m, c]


@T.prim_func
def guarded(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n", "m"), "float32"), limit: T.int64):
    for i in range(n):
        for j in T.parallel(m):
            if i * 3 < limit:
                for k in range(4):
                    if (i + k) * 2 < limit and j % 3 < limit:
                        y[i, j] = y[i, j] + x[(i + k) % n, (j * 2 + i) % m]
                    else:
                        y[i, j] = y[i, j] - x[i, (m - 1) - j]


@T.prim_func
def divided(x: T.Buffer(("n",), "int64"), y: T.Buffer(("n",), "int64"), d: T.int64):
    for i in range(n):
        for j in range(2):
            if d > 0:
                y[i] = y[i] + x[i // d] + x[(i + j) % n] // d


@T.prim_func
def fused(x: T.Buffer(("n", 8), "float32"), y: T.Buffer((32,), "float32")):
    for tile in T.parallel(n * 4):
        for k in range(8):
            y[tile // n] = y[tile // n] + x[tile % n, k]


@T.prim_func
def empty(x: T.Buffer(("n",), "float32"), y: T.Buffer((4,), "float32")):
    for i in range(4):
        for j in range(n):
            y[i] = y[i] + x[(i * 7 + j) % n]


@T.prim_func
def follows(where: T.Buffer((8,), "int64"), y: T.Buffer((8,), "int64")):
    for i in range(8):
        y[where[i % 3]] = y[where[i % 3]] + 1
        where[i % 3] = (where[i % 3] + 3) % 8
        y[where[i % 3]] = y[where[i % 3]] * 2


def test_the_innermost_loop_only_adds_its_own_step() -> None:
    block = innermost(window)
    # The offset of the channel alone: all else is known outside.
    assert block.count("mul i64") == 0
    assert block.count("add i64") + block.count("add nsw i64") <= 1


def test_the_parts_of_a_fused_variable_are_known_in_front_of_the_loops_inside() -> None:
    assert "div" not in innermost(fused)
    assert "rem" not in innermost(fused)


@pytest.mark.parametrize("limit", [0, 3, 7, 100])
def test_what_is_computed_earlier_is_the_same(limit: int) -> None:
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    check(guarded, x, np.zeros_like(x), limit)


@pytest.mark.parametrize("divisor", [0, 1, 3])
def test_a_division_in_front_of_the_test_that_guards_it_does_no_harm(divisor: int) -> None:
    x = np.arange(6, dtype=np.int64)
    check(divided, x, np.zeros_like(x), divisor)


def test_a_loop_that_never_runs() -> None:
    check(empty, np.zeros(0, np.float32), np.ones(4, np.float32))


def test_an_index_that_is_read_from_memory_is_read_again() -> None:
    check(follows, np.arange(8, dtype=np.int64), np.arange(8, dtype=np.int64))
