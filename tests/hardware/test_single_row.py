"""A product whose number of rows is symbolic has a nest of its own for one row."""

import numpy as np
import pytest

from tests.codegen.support import lower
from tests.schedule.programs import matmul, run
from transect.hardware import schedule_rules
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.hardware.x86 import ICELAKE
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.plan import Plan, Planner
from transect.tir.function import PrimFunc
from transect.tir.stmt import Allocate, BlockRealize, IfThenElse
from transect.tir.visit import walk_stmts
from transect.transform import Context

N, M, D = Var("n"), Var("m"), Var("d")


def scheduled(func: PrimFunc, **answers: str) -> PrimFunc:
    planner = Planner(
        target=ICELAKE, given=Plan({f"schedule:*{key}": name for key, name in answers.items()})
    )
    context = Context(target=ICELAKE, planner=planner)
    made = ScheduleKernels(schedule_rules("x86"))(IRModule.of(f=func), context)["f"]
    assert isinstance(made, PrimFunc)
    return made


def has_case(func: PrimFunc) -> bool:
    assert isinstance(func.body, BlockRealize)
    return isinstance(func.body.block.body, IfThenElse)


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_both_nests_compute_the_product(rows: int, bias: bool) -> None:
    func = matmul(N, M, D, bias=bias)
    made = scheduled(func)
    assert has_case(made)
    sizes = {"n": rows, "m": 35, "d": 7}
    np.testing.assert_array_equal(run(made, sizes)[-1], run(func, sizes)[-1])


def test_the_plan_decides() -> None:
    assert not has_case(scheduled(matmul(N, M, D), **{"single row": "as any other"}))


def test_rows_that_are_known_have_one_nest() -> None:
    assert not has_case(scheduled(matmul(4, M, D)))
    assert not has_case(scheduled(matmul(1, M, D)))


def test_rows_are_added_up_in_one_vector_before_the_result_is_touched() -> None:
    """What is read of the matrix goes to a sum of as many values as its vectors have: no size."""
    lowered = lower(scheduled(matmul(1, M, D)), ICELAKE)["main"]
    assert isinstance(lowered, PrimFunc)
    stored = {
        repr(extent)
        for stmt in walk_stmts(lowered.body)
        if isinstance(stmt, Allocate) and "rf" in stmt.var.name
        for extent in stmt.extents
    }
    assert stored == {"16"}, stored
