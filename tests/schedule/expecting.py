"""Comparing a scheduled program with the one that is expected, and reading refusals."""

from collections.abc import Callable

import pytest

from transect.ir.structural import structural_mismatch
from transect.support.errors import ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule


def expect(before: PrimFunc, edit: Callable[[Schedule], object], expected: PrimFunc) -> Schedule:
    """Apply `edit` to `before` and compare, names of the functions aside; gives the schedule."""
    schedule = Schedule(before)
    edit(schedule)
    wanted = expected.with_attrs(global_symbol="f")
    mismatch = structural_mismatch(schedule.func.with_attrs(global_symbol="f"), wanted)
    assert mismatch is None, f"{mismatch}\n{schedule.func}"
    return schedule


def refusal(func: PrimFunc, edit: Callable[[Schedule], object]) -> str:
    """The message of the ScheduleError that `edit` ends in; it leaves the program as it was."""
    schedule = Schedule(func)
    with pytest.raises(ScheduleError) as caught:
        edit(schedule)
    assert schedule.get_output_blocks()
    return str(caught.value)
