"""ScheduleRule: how one kind of tensor program is scheduled on one kind of hardware."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.plan import Site
from transect.target import Target
from transect.tir.schedule import Schedule


class ScheduleRule(ABC):
    """Subclasses are frozen dataclasses; the fields are options.

    Every number comes from a site of the plan: `space` states them without touching the program,
    `apply` asks the schedule for the same sites.
    """

    name: ClassVar[str] = ""
    single_row: ClassVar[bool] = False
    """Whether a product of one row should have a nest of its own beside that for any number."""
    transformed: ClassVar[bool] = False
    """Whether it is for products between transforms (see `tir.schedule.winograd`): convolutions
    become such only for targets that have a rule for them."""

    def suits(self, target: Target) -> bool:
        """Whether the target has what the rule makes use of."""
        del target
        return True

    @abstractmethod
    def matches(self, info: KernelInfo) -> bool:
        """Whether the rule has something to do for the blocks not scheduled yet."""

    @abstractmethod
    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """The choices, with a predicted cost for each option."""

    @abstractmethod
    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """Schedule what it can; the names of the blocks it has dealt with (those that it removed
        or made included). Raises ScheduleError if the program does not allow it."""
