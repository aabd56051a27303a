"""What the passes ask of the rooms below them: libraries' offers, schedule spaces, an evaluator."""

from __future__ import annotations

from collections.abc import Collection

from transect.hardware import schedule_rules
from transect.hardware.instructions import instructions_of, is_narrow
from transect.hardware.kernel import KernelInfo
from transect.library import Offer, libraries
from transect.plan import Site
from transect.support.errors import InputError
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.tensor_candidate import Tiling, candidates
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.collapse import collapse_axes


def check_libraries(names: Collection[str]) -> None:
    """Raise InputError for a name that no library has."""
    known = [library.name for library in libraries()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"no library {unknown[0]!r}", remedy=f"there are: {', '.join(known)}; () for none"
        )


def library_offers(
    func: PrimFunc, target: Target, names: Collection[str] | None = None
) -> tuple[Offer, ...]:
    """What the installed libraries offer for a tensor program. names: those to ask; all if None."""
    if target.host is not None or target.name != "x86":
        return ()
    found = (
        routine.offer(func, target)
        for library in libraries()
        if (names is None or library.name in names) and library.find() is not None
        for routine in library.routines()
    )
    return tuple(offer for offer in found if offer is not None)


def schedule_space(func: PrimFunc, target: Target) -> tuple[Site, ...]:
    """The sites that scheduling a tensor program will ask for."""
    fewer = collapse_axes(func)
    info = KernelInfo.of(func if fewer is None else fewer.function)
    if info is None:
        return ()
    for rule in schedule_rules(target.name):
        if rule.suits(target) and rule.matches(info):
            return rule.space(info, target)
    return ()


def operand_tilings(found: Contraction, target: Target) -> tuple[tuple[Buffer, Tiling], ...]:
    """The tiles in which instructions of the target would take an operand of a product."""
    if not is_narrow(found):
        return ()
    made: dict[Tiling, Buffer] = {}
    for item in candidates(found, instructions_of(target)):
        tiling = item.tiling()
        if tiling is not None:
            made.setdefault(tiling, item.columns.buffer)
    return tuple((buffer, tiling) for tiling, buffer in made.items())


def has_transforms(target: Target) -> bool:
    """Whether the target has a schedule for products between transforms."""
    return any(rule.transformed and rule.suits(target) for rule in schedule_rules(target.name))
