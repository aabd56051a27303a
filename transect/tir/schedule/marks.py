"""Primitives that change the schedule, not the program: enter_postproc, work_on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.tir.function import PrimFunc
from transect.tir.schedule.edit import Edit, Primitive, Target, look


@dataclass(frozen=True)
class EnterPostproc(Primitive):
    """A mark in the trace: what follows finishes the program and is no part of its schedule.

    Searches leave it out with `trace.without_postproc()` and do it again after their own changes.
    """

    name: ClassVar[str] = "enter_postproc"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        return look(func)


@dataclass(frozen=True)
class WorkOn(Primitive):
    """Which function of the module is meant where none is named. Handles keep their functions."""

    func_name: str
    name: ClassVar[str] = "work_on"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        return look(func)
