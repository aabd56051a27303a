"""One folder per hardware target: intrinsics, schedule rules, usable libraries. Named in one table.

A vendor's package adds its own under the entry-point group "transect.hardware".
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from transect.hardware.rule import ScheduleRule

__all__ = ["SCHEDULE_RULES", "ScheduleRule", "schedule_rules"]

SCHEDULE_RULES: dict[str, str] = {
    "x86": "transect.hardware.x86.schedule:RULES",
    "cuda": "transect.hardware.cuda.schedule:RULES",
}
"""Loaders of the schedule rules, by the name of the target."""


@cache
def schedule_rules(target_name: str) -> tuple[ScheduleRule, ...]:
    """The rules of a target in the order in which they are tried; none for a target without any,
    whose programs then stay as they were written."""
    loaders = dict(SCHEDULE_RULES)
    loaders |= {point.name: point.value for point in entry_points(group="transect.hardware")}
    if target_name not in loaders:
        return ()
    module, name = loaders[target_name].split(":")
    return tuple(getattr(import_module(module), name))
