"""How depthwise convolutions are scheduled on x86: windows of each channel by itself.

A tile of neighbouring results of one vector of channels stays in registers while its window is
read; tiles at the borders have code of their own. Other contractions are in `contraction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from transect.arith.evaluate import evaluate
from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.contraction import (
    inline_consumers,
    parallel_options,
    stage_results,
)
from transect.hardware.x86.roles import Roles, roles
from transect.hardware.x86.tile_cost import second_level
from transect.ir.condition import conjuncts
from transect.ir.expr import Call, Expr, Var, as_int
from transect.ir.sizes import ceildiv, product
from transect.ir.structural import structural_hash
from transect.ir.traverse import free_vars, walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.buffer import BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.stmt import Block, BufferStore, IterVar
from transect.tir.visit import own_terms, walk_stmts

_PER_TILE = 6.0
"""Cycles that a tile takes beside its arithmetic: its loop and the first sums of each chain."""
_PER_VECTOR = 0.5
"""Cycles that a tile waits for each vector that moves between the first two caches, though loads
run beside multiply-adds: measured on images of 7 to 56 pixels a row."""
_OTHER_PANEL = 1.0
"""Cycles that a tile takes longer where its weights do not lie side by side."""


@dataclass(frozen=True)
class DepthwiseRule(ScheduleRule):
    """Depthwise convolutions with channels last, the window of a known size.

    tiles: (rows, pixels a row) of results of one vector of channels, to choose from. limit: how
    many products of a tile are worth writing out. inline_limit: how many operations of a producer
    are worth repeating wherever a window reads its result. unroll_limit: how many operations on
    each result are worth repeating in the code for every result of a tile.

    Channels run innermost, so that memory is read in order, and what neighbouring tiles share of
    the image is still in the first-level cache:

        for rows, pixels: for vectors of channels: one tile of rows x pixels, its window written out

    Tiles that leave the image or are cut off have nests of their own where the sizes of the image
    are known, and elsewhere test which of them they are.
    """

    tiles: tuple[tuple[int, int], ...] = (
        (1, 1),
        (1, 2),
        (1, 4),
        (1, 7),
        (2, 1),
        (2, 2),
        (2, 4),
        (2, 7),
        (3, 3),
        (4, 1),
        (4, 2),
        (4, 4),
        (5, 3),
        (7, 1),
        (7, 2),
    )
    limit: int = 160
    inline_limit: int = 32
    unroll_limit: int = 8
    name: ClassVar[str] = "x86.depthwise"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        found = info.contractions()
        return bool(found) and (seen := _window(found[0])) is not None and seen.taps <= self.limit

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        window = _window(info.contractions()[0])
        assert window is not None
        return self._sites(window, target)

    def _sites(self, window: _Window, target: Target) -> tuple[Site, ...]:
        found = window.found
        block = found.site.block
        subject = structural_hash(block)
        tile = SiteKey("schedule", subject, str(target), "tile")
        parallel = SiteKey("schedule", subject, str(target), "parallel")
        dtype = found.output.buffer.dtype
        options = parallel_options(dtype, found.operations, target)
        return (
            Site(tile, self._tile_options(window, target), f"{block.name} register tile"),
            Site(parallel, options, f"{block.name} threads"),
        )

    def _tile_options(self, window: _Window, target: Target) -> tuple[Option, ...]:
        limits = [as_int(axis.dom.extent) for axis in window.image]
        options: list[Option] = []
        for rows, pixels in self.tiles:
            name = f"{rows}x{pixels}"
            too_long = rows * pixels * window.taps > self.limit
            read = window.reach(window.across, pixels)
            # Results, one row of the image that they read, and one weight.
            too_wide = rows * pixels + min(read, window.taps) + 1 > target.vector_registers
            empty = any(
                limit is not None and size > limit
                for size, limit in zip((rows, pixels)[-len(limits) :], limits, strict=True)
            )
            empty |= window.down is None and rows > 1
            if (too_long or too_wide or empty) and name != "1x1":
                continue
            cost = _tile_cost(window, rows, pixels, target)
            options.append(Option(name, {"rows": rows, "pixels": pixels}, cost))
        return tuple(options)

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        window = _window(info.contractions()[0])
        assert window is not None
        tile, parallel = map(sch.sample, self._sites(window, target))
        rows, pixels = tile.number("rows"), tile.number("pixels")
        found = window.found
        lanes = target.lanes(found.output.buffer.dtype)
        block = sch.get_block(found.site.block.name)
        handled = self._inline_producer(sch, info, window)
        copy = sch.cache_write(block, 0, "local")
        handled += inline_consumers(sch, info, found.output.buffer)
        stage = stage_results(sch, block, copy, self.unroll_limit)
        # A tile of its own size for each variable, 1 where there is none.
        sizes = {window.column.var: lanes, window.across.var: pixels}
        if window.down is not None:
            sizes[window.down.var] = rows
        parts = {axis.var: _parts(sch.get(block), axis, sizes[axis.var]) for axis in window.image}
        sch.pad_domain(block, [sizes.get(item.var, 1) for item in sch.get(block).iter_vars])
        if stage is not None:
            indices = found.output.indices
            sch.pad_domain(stage, [sizes.get(i, 1) if isinstance(i, Var) else 1 for i in indices])
        made = self._tile(
            sch, window, (block, copy, stage), sizes, parts,
            parallel=parallel.flag("parallel"),
        )  # fmt: skip
        names = [sch.get(item).name for item in (block, copy, stage, *made) if item is not None]
        return (*handled, *names)

    def _tile(
        self,
        sch: Schedule,
        window: _Window,
        blocks: tuple[BlockRV, BlockRV, BlockRV | None],
        sizes: dict[Var, int],
        parts: dict[Var, list[int]],
        *,
        parallel: bool,
    ) -> list[BlockRV]:
        """Tile, move the other blocks to the tiles, and divide the image; the new blocks."""
        block, copy, stage = blocks
        items = window.found.site.block.iter_vars
        loops = dict(zip((item.var for item in items), sch.get_loops(block), strict=True))
        reduced = [loops[item.var] for item in items if item.kind == "reduce"]
        tiles: dict[Var, LoopRV] = {}
        inside: dict[Var, LoopRV] = {}
        for var, size in sizes.items():
            tiles[var], inside[var] = sch.split(loops[var], [None, size])
        outer = [loops[i.var] for i in items if i.kind == "spatial" and i.var not in sizes]
        image = [tiles[axis.var] for axis in window.image]
        lane, pixel = inside[window.column.var], inside[window.across.var]
        rows = [] if window.down is None else [inside[window.down.var]]
        vectors = tiles[window.column.var]
        # One row of results after the other: what a row has read stays for the next one.
        sch.reorder(*outer, *image, vectors, *rows, *reduced, pixel, lane)
        if stage is not None:
            sch.reverse_compute_at(stage, vectors, preserve_unit_loops=True)
        sch.reverse_compute_at(copy, vectors, preserve_unit_loops=True)
        init = sch.decompose_reduction(block, (*rows, *reduced)[0])
        depth = len(outer) + len(image) + 1
        for item in (block, init, stage, copy):
            if item is None:
                continue
            *inner, last = sch.get_loops(item)[depth:]
            if item in (stage, copy) and as_int(sch.get(last).extent) != sizes[window.column.var]:
                vector, last = sch.split(last, [None, sizes[window.column.var]])
                inner.append(vector)
            sch.vectorize(last)
            for loop in inner if item is not copy or stage is None else ():
                sch.unroll(loop)
        made = [init]
        if parallel:
            # Threads take tiles of all rows alike, which then test where they are.
            together = [*outer, *image[:-1]] or image
            image = [loop for loop in image if loop not in together]
            sch.parallel(sch.fuse(*together) if len(together) > 1 else together[0])
        made += self._divide(sch, window, image, parts)
        return made

    def _divide(
        self, sch: Schedule, window: _Window, image: list[LoopRV], parts: dict[Var, list[int]]
    ) -> list[BlockRV]:
        """Nests of their own for tiles at the borders; the blocks that this makes."""
        made: list[BlockRV] = []
        axes = window.image[len(window.image) - len(image) :]
        for axis, loop in reversed(list(zip(axes, image, strict=True))):
            if len(parts[axis.var]) > 1:
                _, *others = sch.loop_partition(loop, [*parts[axis.var]])
                for other in others:
                    made += sch.get_child_blocks(other)
        return made

    def _inline_producer(self, sch: Schedule, info: KernelInfo, window: _Window) -> list[str]:
        """Do what makes the image, such as padding, where it is read, if that is cheap."""
        producer = info.producer(window.roles.rows.buffer)
        if producer is None or not _is_cheap(producer, self.inline_limit):
            return []
        try:
            sch.compute_inline(sch.get_block(producer.name))
        except ScheduleError:
            return []
        return [producer.name]


@dataclass(frozen=True)
class _Window:
    """A depthwise convolution and where its window moves.

    found, roles: as contractions are seen. across: the pixels of a row. down: the rows of the
    image, None if it has none. taps: how many products a result sums.
    """

    found: Contraction
    roles: Roles
    across: IterVar
    down: IterVar | None
    taps: int

    @property
    def column(self) -> IterVar:
        """The channels."""
        return self.roles.column

    @property
    def image(self) -> tuple[IterVar, ...]:
        """The variables of the image, rows first."""
        return (self.across,) if self.down is None else (self.down, self.across)

    @property
    def size(self) -> int | None:
        """The bytes of image and result, None if they are unknown."""
        image, result = self.roles.rows.buffer, self.found.output.buffer
        sizes = [as_int(product(item.shape)) for item in (image, result)]
        if None in sizes:
            return None
        return sum((size or 0) * result.dtype.bytes for size in sizes)

    def reach(self, axis: IterVar | None, results: int) -> int:
        """How many places along a dimension of the image `results` neighbours read."""
        if axis is None:
            return 1
        index = next(i for i in self.roles.rows.indices if axis.var in free_vars((i,)))
        grid = _grid(index, axis, self.found.reduce, np.arange(results))
        return np.unique(grid).size


def _window(found: Contraction) -> _Window | None:
    """The depthwise convolution that a contraction is, or None: it is none, its image has not the
    channels last, or the size of the window is unknown."""
    part = roles(found)
    if part is None or not part.shared or part.row is None or len(found.batch) != 1:
        return None
    steps = {item.var for item in found.reduce}
    moving: list[IterVar] = []
    for item in found.site.iter_vars("spatial"):
        indices = [i for i in part.rows.indices if item.var in free_vars((i,))]
        used = set(free_vars(indices)) - {item.var}
        if item is not part.column and len(indices) == 1 and used <= steps:
            moving += [item] if used or item is part.row else []
        elif item is not part.column:
            return None
    taps = as_int(product(item.dom.extent for item in found.reduce))
    window = {
        v
        for item in moving[-2:]
        for i in part.rows.indices
        if item.var in free_vars((i,))
        for v in free_vars((i,))
        if v in steps
    }
    if taps is None or not window or part.row not in moving[-2:]:
        return None
    others = [item for item in moving[-2:] if item is not part.row]
    return _Window(found, part, part.row, others[0] if others else None, taps)


def _grid(term: Expr, axis: IterVar, steps: Sequence[IterVar], places: np.ndarray) -> np.ndarray:
    """A term over places along an axis and, in further dimensions, all steps of a reduction."""
    inner = [item for item in steps if item.var in free_vars((term,))]
    values: dict[Var, np.ndarray] = {axis.var: places.reshape(-1, *[1] * len(inner))}
    for number, item in enumerate(inner):
        shape = [1] * (len(inner) + 1)
        shape[number + 1] = -1
        values[item.var] = np.arange(as_int(item.dom.extent) or 0).reshape(shape)
    return np.broadcast_arrays(evaluate(term, values), *values.values())[0]


def _parts(block: Block, axis: IterVar, size: int) -> list[int]:
    """How many tiles of so many results an axis of the image has before those that neither leave
    the image nor are cut off, how many of these, and how many after them; parts of none left
    out. Nothing if its size is unknown."""
    extent = as_int(axis.dom.extent)
    if extent is None:
        return []
    steps = [item for item in block.iter_vars if item.kind == "reduce"]
    inside = np.ones(extent, bool)
    terms = (term for stmt in walk_stmts(block.body) for term in walk(*own_terms(stmt)))
    for term in terms:
        if not isinstance(term, Call) or term.op is not INTRINSICS["if_then_else"]:
            continue
        for condition in conjuncts(term.args[0]):
            used = set(free_vars((condition,)))
            if axis.var in used and used <= {axis.var, *(item.var for item in steps)}:
                grid = _grid(condition, axis, steps, np.arange(extent))
                inside &= grid.reshape(extent, -1).all(1)
    tiles = -(-extent // size)
    if not inside.any():
        return [tiles]
    # The results from the first one inside to the first one outside after it.
    first = int(inside.argmax())
    after = extent - first if inside[first:].all() else int((~inside[first:]).argmax())
    before = -(-first // size)
    between = max(0, (first + after) // size - before)
    return [part for part in (before, between, tiles - before - between) if part]


def _tile_cost(window: _Window, rows: int, pixels: int, target: Target) -> Cost:
    """What all tiles of rows x pixels results take: arithmetic, waiting for what moves between
    caches, and what comes from beyond them. Tiles that are cut off compute less."""
    dtype = window.found.output.buffer.dtype
    lanes = target.lanes(dtype)
    channels = as_int(window.column.dom.extent) or lanes
    high, wide = window.reach(window.down, rows), window.reach(window.across, pixels)
    vectors = ceildiv(window.column.dom.extent, lanes)
    results, tiles = vectors, vectors
    for item in window.found.rows:
        size = {window.down: rows, window.across: pixels}.get(item, 1)
        results = results * item.dom.extent
        tiles = tiles * ceildiv(item.dom.extent, size)
    # What fits the first-level cache of all channels of a tile is found there again: what the next
    # tile of the row reads as well, and the weights.
    held = (high * wide + rows * pixels + window.taps) * channels * dtype.bytes
    missing = max(0.0, 1 - target.caches[0] / held)
    step = window.reach(window.across, 2) - window.reach(window.across, 1)
    again = max(0, wide - pixels * step)
    moved = high * (wide - again) + rows * pixels + missing * (high * again + window.taps)
    each = _PER_TILE + _PER_VECTOR * moved + (_OTHER_PANEL if window.roles.panel != lanes else 0.0)
    per_cycle = 2 * lanes * target.fma_per_cycle
    operations = results * (2 * lanes * window.taps) + tiles * round(each * per_cycle)
    size = window.size
    if size is not None and size <= second_level(target):
        return Cost({dtype: operations})
    image, result = window.roles.rows.buffer, window.found.output.buffer
    traffic = {
        "L2": tiles * round(moved * lanes * dtype.bytes),
        "L3": (product(image.shape) + product(result.shape)) * dtype.bytes,
    }
    return Cost({dtype: operations}, traffic)


def _is_cheap(producer: Block, limit: int) -> bool:
    """Whether a map is worth repeating wherever a window reads it."""
    if not isinstance(producer.body, BufferStore) or producer.init is not None:
        return False
    value = producer.body.value
    parts = (value,)
    if isinstance(value, Call) and value.op is INTRINSICS["if_then_else"]:
        parts = value.args
    terms = list(walk(*parts))
    return (
        not any(isinstance(t, Call) for t in terms)
        and sum(isinstance(t, BufferLoad) for t in terms) <= 1
        and sum(not isinstance(t, Var) for t in terms) <= limit
    )
