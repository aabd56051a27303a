"""What the passes ask of the rooms below them: libraries' offers, schedule spaces, an evaluator."""

from __future__ import annotations

from transect.hardware import schedule_rules
from transect.hardware.kernel import KernelInfo
from transect.library import Offer, libraries
from transect.plan import Site
from transect.target import Target
from transect.tir.function import PrimFunc


def library_offers(func: PrimFunc, target: Target) -> tuple[Offer, ...]:
    """What the installed libraries offer for a tensor program."""
    if target.host is not None or target.name != "x86":
        return ()
    found = (
        routine.offer(func, target)
        for library in libraries()
        if library.find() is not None
        for routine in library.routines()
    )
    return tuple(offer for offer in found if offer is not None)


def schedule_space(func: PrimFunc, target: Target) -> tuple[Site, ...]:
    """The sites that scheduling a tensor program will ask for."""
    info = KernelInfo.of(func)
    if info is None:
        return ()
    for rule in schedule_rules(target.name):
        if rule.matches(info):
            return rule.space(info, target)
    return ()
