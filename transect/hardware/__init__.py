"""One folder per hardware target: intrinsics, schedule rules, usable libraries. Named in one table.

A vendor's package adds its own under the entry-point group "transect.hardware".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from transect.hardware.rule import ScheduleRule
from transect.support.errors import InputError
from transect.target import Target, host_target
from transect.tir.tensor_intrin import TensorIntrin, install

__all__ = [
    "HARDWARE",
    "Hardware",
    "ScheduleRule",
    "TensorIntrin",
    "all_intrinsics",
    "find_target",
    "intrinsic_table",
    "intrinsics_of",
    "schedule_rules",
    "this_machine",
]


@dataclass(frozen=True)
class Hardware:
    """A kind of target, by what loads its parts ("module:attribute").

    targets: a dict of named Targets. rules: the schedule rules in the order in which they are
    tried. host: a function that describes this machine, None if it cannot be one of the kind.
    intrinsics: a dict of functions that give a TensorIntrin each, by its name.
    """

    targets: str
    rules: str
    host: str | None = None
    intrinsics: str | None = None


HARDWARE: dict[str, Hardware] = {
    "x86": Hardware(
        "transect.hardware.x86:TARGETS",
        "transect.hardware.x86.schedule:RULES",
        "transect.hardware.x86:host",
        "transect.hardware.x86.intrinsics:INTRINSICS",
    ),
    "arm": Hardware(
        "transect.hardware.arm:TARGETS",
        "transect.hardware.arm.schedule:RULES",
        "transect.hardware.arm:host",
        "transect.hardware.arm.intrinsics:INTRINSICS",
    ),
    "cuda": Hardware(
        "transect.hardware.cuda:TARGETS",
        "transect.hardware.cuda.schedule:RULES",
    ),
}
"""The kinds of target that transect knows, by the `name` of their Targets."""


@cache
def all_hardware() -> dict[str, Hardware]:
    """HARDWARE and what installed packages add."""
    added = {point.name: point.load() for point in entry_points(group="transect.hardware")}
    return {**HARDWARE, **added}


def _load(loader: str) -> Any:
    module, _, attribute = loader.partition(":")
    return getattr(import_module(module), attribute)


@cache
def schedule_rules(target_name: str) -> tuple[ScheduleRule, ...]:
    """The rules of a kind of target; none for one without any, whose programs stay as written."""
    found = all_hardware().get(target_name)
    return () if found is None else tuple(_load(found.rules))


@cache
def intrinsic_table() -> dict[str, Callable[[], TensorIntrin]]:
    """The tensor intrinsics of all folders, by name; each is made when it is asked for."""
    table: dict[str, Callable[[], TensorIntrin]] = {}
    for kind in all_hardware():
        table |= intrinsics_of(kind)
    return table


@cache
def intrinsics_of(kind: str) -> dict[str, Callable[[], TensorIntrin]]:
    """The tensor intrinsics of one folder, by name."""
    found = all_hardware().get(kind)
    return {} if found is None or found.intrinsics is None else dict(_load(found.intrinsics))


install(intrinsic_table)


def all_intrinsics() -> tuple[TensorIntrin, ...]:
    """The tensor intrinsics of all folders."""
    return tuple(make() for make in intrinsic_table().values())


@cache
def this_machine() -> Target:
    """The machine this process runs on, with the rates that its folder knows."""
    plain = host_target()
    found = all_hardware().get(plain.name)
    return plain if found is None or found.host is None else _load(found.host)()


def find_target(name: str) -> Target:
    """A target by name: "host", or one of those listed in the folders ("x86-znver4").

    Raises InputError, with the names there are, for any other.
    """
    if name == "host":
        return this_machine()
    known: dict[str, Target] = {}
    for hardware in all_hardware().values():
        known |= _load(hardware.targets)
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise InputError(
            f"no target {name!r}",
            notes=[f"there are: host, {', '.join(sorted(known))}"],
            remedy=f"did you mean {near[0]!r}?" if near else "give a transect.Target",
        )
    return known[name]
