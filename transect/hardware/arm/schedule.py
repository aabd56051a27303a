"""The schedule rules of Arm processors: none of its own yet; programs run as they are written."""

from __future__ import annotations

from transect.hardware.rule import ScheduleRule

RULES: tuple[ScheduleRule, ...] = ()
