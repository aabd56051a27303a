"""What random programs have found, as small programs of their own."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.support import compiled
from transect.ir.dtype import BOOL, HANDLE
from transect.ir.expr import LT, And, IntImm, Or, Var, true
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.script import parse, script
from transect.tir.buffer import buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule
from transect.tir.stmt import For, realize_root

RNG = np.random.default_rng(3)


def test_conditions_with_a_constant_print_as_constructors() -> None:
    y, i = buffer("y", (4,), "bool"), Var("i")
    value = And(Or(true(), LT(i, IntImm(2))), Or(LT(i, IntImm(3)), IntImm(0, BOOL)))
    loop = For(i, IntImm(0), IntImm(4), "serial", store(y, (i,), value))
    handle = Var("y", HANDLE)
    module = IRModule.of(main=PrimFunc((handle,), {handle: y}, realize_root(loop), {}))
    assert structural_mismatch(module, parse(script(module))) is None


def test_a_producer_inside_the_reduction_does_not_start_it_again() -> None:
    builder = FunctionBuilder("main")
    x = builder.input("x", (8, 16), "int32")
    doubled = builder.compute((8, 16), lambda i, k: x[i, k] * 2, name="doubled")
    total = builder.reduce((8,), (16,), lambda i, k: doubled[i, k] + x[i, k], name="total")
    schedule = Schedule(builder.finish([total]))
    outer, _ = schedule.split(schedule.get_loops(schedule.get_block("total"))[1], [None, 4])
    schedule.compute_at(schedule.get_block("doubled"), outer)
    data, result = RNG.integers(-9, 9, (8, 16)).astype(np.int32), np.zeros(8, np.int32)
    compiled(schedule.func)(data, result)
    np.testing.assert_array_equal(result, 3 * data.sum(1))


@pytest.mark.parametrize("depth", [0, 1, 6])
@pytest.mark.parametrize("tiled", [False, True])
def test_a_product_over_an_empty_dimension_is_zero(depth: int, tiled: bool) -> None:
    n, m, d = Var("n"), Var("m"), Var("d")
    builder = FunctionBuilder("main")
    x, w = builder.input("x", (n, d), "float32"), builder.input("w", (d, m), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    schedule = Schedule(builder.finish([y]))
    if tiled:
        i, j, k = schedule.get_loops(schedule.get_block("y"))
        outer, inner = schedule.split(k, [None, 4])
        schedule.reorder(outer, i, j, inner)
    a, b = (RNG.integers(-4, 5, shape).astype(np.float32) for shape in ((3, depth), (depth, 5)))
    for run in (compiled(schedule.func), lambda *args: interpret(schedule.func, *args)):
        result = np.full((3, 5), np.nan, np.float32)
        run(a, b, result)
        np.testing.assert_array_equal(result, a @ b)
