"""How tensor programs are given to the threads of an NVIDIA GPU: the portable rules.

Tensor cores, asynchronous copies and warp specialization are not used yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.pattern import PatternKind
from transect.tir.schedule import BlockRV, Schedule, subject_of


def bind_tiled_contraction(
    sch: Schedule, block: BlockRV, tile: int = 16, *, row: int = 0, column: int = 1, depth: int = 2
) -> None:
    """A matrix product on tiles in shared memory: one result a thread, tile x tile threads a block.

    row, column, depth: positions of the loops over the result's rows and columns and over the
    reduction. Extents may be symbolic: tiles are padded, and only elements that exist are written.
    """
    copy = sch.cache_write(block, 0, "local")
    loads = [sch.cache_read(block, index, "shared", [block]) for index in (0, 1)]
    for load in loads:
        sch.pad_domain(load, [tile] * len(sch.get_loops(load)))
    multiples = [1] * len(sch.get_loops(block))
    for position in (row, column, depth):
        multiples[position] = tile
    sch.pad_domain(block, multiples)
    loops = sch.get_loops(block)
    rows, ty = sch.split(loops[row], [None, tile])
    columns, tx = sch.split(loops[column], [None, tile])
    steps, inner = sch.split(loops[depth], [None, tile])
    sch.reorder(rows, columns, steps, ty, tx, inner)
    sch.reverse_compute_at(copy, columns)
    for load in loads:
        sch.compute_at(load, steps)
    init = sch.decompose_reduction(block, steps)
    for nest in (
        sch.get_loops(init)[-2:],
        *(sch.get_loops(load)[-2:] for load in loads),
        [ty, tx],
        sch.get_loops(copy)[-2:],
    ):
        sch.bind(nest[0], "threadIdx.y")
        sch.bind(nest[1], "threadIdx.x")
    sch.unroll(inner)
    sch.bind(rows, "blockIdx.y")
    sch.bind(columns, "blockIdx.x")


def bind_flat(sch: Schedule, block: BlockRV, threads: int = 256) -> None:
    """One element of the result for each thread: all spatial loops fused and bound."""
    current = sch.get(block)
    loops = sch.get_loops(block)
    spatial = [
        loop for loop, item in zip(loops, current.iter_vars, strict=True) if item.kind == "spatial"
    ]
    rest = [loop for loop in loops if loop not in spatial]
    sch.reorder(*spatial, *rest)
    fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    blocks, thread = sch.split(fused, [None, threads])
    if current.init is not None and rest:
        sch.decompose_reduction(block, rest[0])
    sch.bind(blocks, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")


@dataclass(frozen=True)
class FlatRule(ScheduleRule):
    """One thread an element, for whatever no better rule knows. sizes: threads of a block."""

    sizes: tuple[int, ...] = (128, 256)
    name: ClassVar[str] = "cuda.flat"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        last = info.site(info.pending[-1])
        kind = info.kind(info.pending[-1])
        return kind < PatternKind.OPAQUE and bool(last.iter_vars("spatial"))

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        return (self._site(info, subject_of(info.func), target),)

    def _site(self, info: KernelInfo, subject: str, target: Target) -> Site:
        name = info.pending[-1]
        options = tuple(
            Option(f"{size} threads", {"threads": size}, Cost(launches=1)) for size in self.sizes
        )
        return Site(SiteKey("schedule", subject, str(target), f"{name}.threads"), options, name)

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        name = info.pending[-1]
        threads = sch.sample(self._site(info, sch.subject, target)).number("threads")
        bind_flat(sch, sch.get_block(name), threads)
        return (name,)


@dataclass(frozen=True)
class TiledContractionRule(ScheduleRule):
    """Matrix products on tiles in shared memory. tiles: edges of the tiles to choose from."""

    tiles: tuple[int, ...] = (16, 32)
    name: ClassVar[str] = "cuda.tiled"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        found = info.contractions()
        return bool(found) and _is_matmul(found[0])

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        return (self._site(info.contractions()[0], subject_of(info.func), target),)

    def _site(self, found: Contraction, subject: str, target: Target) -> Site:
        name = found.site.block.name
        dtype = found.output.buffer.dtype
        options = tuple(
            Option(
                f"{tile}x{tile}",
                {"tile": tile},
                # Each element of a tile is loaded once for `tile` multiplications.
                Cost({dtype: found.operations}, {"L2": found.operations * dtype.bytes // tile}),
            )
            for tile in self.tiles
        )
        return Site(SiteKey("schedule", subject, str(target), f"{name}.tile"), options, name)

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        found = info.contractions()[0]
        tile = sch.sample(self._site(found, sch.subject, target)).number("tile")
        items = found.site.block.iter_vars
        bind_tiled_contraction(
            sch,
            sch.get_block(found.site.block.name),
            tile,
            row=items.index(found.rows[0]),
            column=items.index(found.columns[0]),
            depth=items.index(found.reduce[0]),
        )
        return (found.site.block.name,)


def _is_matmul(found: Contraction) -> bool:
    return (
        found.is_plain
        and not found.batch
        and len(found.rows) == len(found.columns) == len(found.reduce) == 1
    )


RULES: tuple[ScheduleRule, ...] = (TiledContractionRule(), FlatRule())
"""The rules in the order in which they are tried."""
