"""Primitives that choose: sites of the plan. With its decision each is a look at the program.

`Schedule` states the site and asks the plan; the primitive here, decision included, is what the
trace keeps, so that a replay chooses the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from transect.ir.expr import as_int
from transect.support.errors import ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.schedule.compute_at import ComputeAt, ReverseComputeAt
from transect.tir.schedule.edit import (
    Edit,
    Primitive,
    Target,
    expect_block,
    expect_loop,
    look,
    refuse,
)
from transect.tir.schedule.inline import ComputeInline
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, For

INLINE, ROOT = -2, -1
"""Locations that are no loop: computed where it is read, and where it is now."""


@dataclass(frozen=True)
class SampleCategorical(Primitive):
    """One of several values.

    probs: how likely each is where a policy draws at random. decision: which was taken, from 0.
    role: which of the schedule's choices it is.

        v0 = sch.sample_categorical([2, 4, 8], [0.2, 0.5, 0.3])   ->   4
    """

    candidates: tuple[int | float | str, ...]
    probs: tuple[float, ...] | None = None
    decision: int | None = None
    role: str = ""
    name: ClassVar[str] = "sample_categorical"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        if not self.candidates:
            raise ScheduleError(f"{self.name}: there are no candidates", remedy="give some")
        if self.probs is not None and (
            len(self.probs) != len(self.candidates) or min(self.probs) < 0 or not sum(self.probs)
        ):
            raise ScheduleError(
                f"{self.name}: {self.probs} are no probabilities of {self.candidates}",
                remedy="give one number from 0 on for each, not all of them 0",
            )
        if self.decision is not None and not 0 <= self.decision < len(self.candidates):
            raise ScheduleError(
                f"{self.name}: there is no candidate {self.decision}",
                remedy=f"a decision in [0, {len(self.candidates)})",
            )
        return look(func)


@dataclass(frozen=True)
class SamplePerfectTile(Primitive):
    """Extents of `n` nested loops whose product is the extent of a loop, a constant.

    max_innermost_factor: the largest last extent. decision: the extents. role: which of the
    schedule's choices it is.

        v0 = sch.sample_perfect_tile(i, n=2)    # of 12 iterations   ->   (3, 4)
    """

    n: int
    max_innermost_factor: int = 16
    decision: tuple[int, ...] | None = None
    role: str = ""
    name: ClassVar[str] = "sample_perfect_tile"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        tiles = self.tiles(expect_loop(self.name, targets[0]))
        if self.decision is not None and self.decision not in tiles:
            refuse(
                self.name,
                f"{self.decision} is no tile of it with {self.n} extents and a last one of at "
                f"most {self.max_innermost_factor}",
                targets[0],
                f"such as {tiles[-1]}",
            )
        return look(func)

    def tiles(self, loop: For) -> tuple[tuple[int, ...], ...]:
        """What it could be. Raises ScheduleError for a loop of symbolic extent."""
        extent = as_int(loop.extent)
        if extent is None:
            refuse(
                self.name,
                f"loop {loop.var.name!r} has the symbolic extent {loop.extent!r}",
                loop,
                "split it by a factor of sample_categorical",
            )
        if self.n < 1 or extent < 1 or self.max_innermost_factor < 1:
            refuse(
                self.name,
                f"{extent} iterations in {self.n} extents, the last at most "
                f"{self.max_innermost_factor}",
                loop,
                "give positive numbers",
            )
        found = factorizations(extent, self.n)
        small = tuple(tile for tile in found if tile[-1] <= self.max_innermost_factor)
        if not small:
            refuse(
                self.name,
                f"one extent of at most {self.max_innermost_factor} is not its {extent} iterations",
                loop,
                "ask for more extents",
            )
        return small


@dataclass(frozen=True)
class SampleComputeLocation(Primitive):
    """A loop where a block could be computed, by compute_at or reverse_compute_at.

    decision: which of `locations`: the loops it could be moved under, outermost first; -1: it
    stays where it is; -2: compute_inline. The result is the loop, if it is one.

        l2 = sch.sample_compute_location(b)   ->   a loop around a reader of what b makes
        sch.compute_at(b, l2)                      # does nothing for -1, compute_inline for -2
    """

    decision: int | None = None
    role: str = ""
    name: ClassVar[str] = "sample_compute_location"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found = self.locations(func, block)
        if self.decision is None or self.decision not in found:
            refuse(
                self.name,
                f"{self.decision} is none of its locations",
                block,
                f"one of {', '.join(map(str, found))}",
            )
        loop = found[self.decision]
        return look(func, *(() if loop is None else (loop,)))

    def locations(self, func: PrimFunc, block: Block) -> dict[int, For | None]:
        """Every location that a primitive would take the block to, by number."""
        found: dict[int, For | None] = {ROOT: None}
        if _allowed(func, ComputeInline(), block):
            found[INLINE] = None
        tree = Tree(func)
        loops = [item for item in tree.order if isinstance(item, For)]
        number = 0
        for loop in loops:
            if tree.is_inside(block, loop) or tree.scope(loop) is not tree.scope(block):
                continue
            if _allowed(func, ComputeAt(), block, loop) or _allowed(
                func, ReverseComputeAt(), block, loop
            ):
                found[number] = loop
                number += 1
        return dict(sorted(found.items()))


def _allowed(func: PrimFunc, primitive: Primitive, *targets: Target) -> bool:
    try:
        primitive.apply(func, *targets)
    except ScheduleError:
        return False
    return True


@cache
def factorizations(extent: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """All tuples of `parts` positive numbers whose product is `extent`, in lexical order."""
    if parts == 1:
        return ((extent,),)
    return tuple(
        (divisor, *rest)
        for divisor in range(1, extent + 1)
        if extent % divisor == 0
        for rest in factorizations(extent // divisor, parts - 1)
    )


def weights(probs: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """How likely each of `count` options is: as given, or the same for all."""
    if probs is None:
        return (1.0 / count,) * count
    total = sum(probs)
    return tuple(value / total for value in probs)
