"""Which tensor intrinsics a target has: its folder's, installed packages', and those given with it.

A user's own are given to `transect.compile(…, intrinsics=…)`, to `with_intrinsics`, or come from an
installed package (entry-point group `tir.tensor_intrin.ENTRY_POINTS`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from blake3 import blake3

from transect.hardware import intrinsics_of
from transect.ir.structural import structural_hash
from transect.support.errors import InputError
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.tensor_intrin import TensorIntrin, package_names, remember

EXTRA = "tensor_intrins"
"""The key in `Target.extra`: names with digests of intrinsics that were given with the target."""

RATES = "intrin_rates"
"""The key in `Target.extra`: how many of an intrinsic a core starts per cycle, by its name, where
it differs from what the intrinsic says."""


def with_intrinsics(target: Target, intrinsics: Iterable[TensorIntrin]) -> Target:
    """`target` with more instructions, which schedules for it may choose.

    Raises InputError for one that the target cannot run.
    """
    given = tuple(intrinsics)
    if not given:
        return target
    for intrin in given:
        missing = intrin.missing(target)
        if missing:
            raise InputError(
                f"{target} lacks {', '.join(missing)}, which {intrin.name} needs",
                remedy="compile for a target that has it",
            )
        remember(intrin)
    known: object = target.extra.get(EXTRA, ())
    assert isinstance(known, tuple)
    added = tuple((intrin.name, _digest(intrin)) for intrin in given)
    return replace(target, extra={**target.extra, EXTRA: (*known, *added)})


def is_narrow(found: Contraction) -> bool:
    """Whether a product's operands are narrower than its sums. Of others vectors of multiply-adds
    are taken to be the fastest, and no instruction is asked for."""
    return found.left.buffer.dtype.bits < found.output.buffer.dtype.bits


def rate_of(intrin: TensorIntrin, target: Target) -> float:
    """How many of it a core of `target` starts per cycle: what the target says, in
    `extra["intrin_rates"]` by name, or the intrinsic itself."""
    return target.numbers(RATES).get(intrin.name, intrin.rate)


def _digest(intrin: TensorIntrin) -> str:
    parts = (structural_hash(intrin.description), structural_hash(intrin.implementation))
    text = f"{parts} {intrin.target} {sorted(intrin.requires)} {intrin.rate}"
    return blake3(text.encode()).hexdigest()[:16]


def instructions_of(target: Target) -> tuple[TensorIntrin, ...]:
    """The intrinsics that schedules for `target` choose from: not what was only registered in this
    process, which another compile of the same model would not see."""
    given: tuple[tuple[str, str], ...] = target.extra.get(EXTRA, ())  # pyright: ignore[reportAssignmentType]
    return _instructions(target.name, target.features, given)


@lru_cache(maxsize=64)
def _instructions(
    kind: str, features: frozenset[str], given: tuple[tuple[str, str], ...]
) -> tuple[TensorIntrin, ...]:
    names = (*(name for name, _ in given), *intrinsics_of(kind), *package_names())
    found = (TensorIntrin.get(name) for name in dict.fromkeys(names))
    machine = Target(kind, "", features)
    return tuple(intrin for intrin in found if not intrin.missing(machine))
