"""The nest of a product in register tiles: which loops it has, and how their steps are written.

Which tiles, in which order, and what else is done with them is up to the rules that use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.arith import Analyzer
from transect.hardware.x86.elementwise import unroll_steps, vectorize_loop
from transect.hardware.x86.roles import Roles
from transect.hardware.x86.tile_cost import loop_around
from transect.ir.expr import Expr, as_int
from transect.ir.sizes import product
from transect.tir.analysis.contraction import Contraction
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.stmt import IterVar
from transect.tir.transform.inject_prefetch import PREFETCH, PREFETCH_NEXT, PREFETCH_NEXT_ROWS


@dataclass(frozen=True)
class Blocks:
    """The blocks of a contraction: itself, the copy to its output with what follows it, the packed
    operand, the results between registers and copy, and the map before it that is made in parts."""

    block: BlockRV
    copy: BlockRV
    packed: BlockRV | None = None
    stage: BlockRV | None = None
    producer: BlockRV | None = None

    def all(self) -> list[BlockRV]:
        """Those that there are."""
        found = (self.block, self.copy, self.packed, self.stage, self.producer)
        return [item for item in found if item is not None]


@dataclass(frozen=True)
class ProductNest:
    """How the steps of a tile's reduction are written.

    reduction_limit: how many multiply-adds of a tile's whole reduction are worth writing out.
    prefetch: how many steps of the reduction ahead vectors are fetched into the first-level cache.
    parts: over how many tiles of rows the next panel is fetched into the second-level cache, where
        their number is not known.
    few_panels: how many panels may read the same rows for these to be fetched ahead as well: more
        of them find the rows in the second-level cache, and wait for what is fetched.
    rows_ahead: how many rows ahead a copy of columns fetches.
    unroll: how many steps are written out.
    """

    reduction_limit: int = 128
    prefetch: int = 8
    parts: int = 8
    few_panels: int = 2
    rows_ahead: int = 16
    unroll: int = 4

    def tile(
        self,
        sch: Schedule,
        blocks: Blocks,
        found: Contraction,
        part: Roles,
        axes: tuple[int | None, int],
        tile: tuple[int | Expr, int | Expr, int],
        *,
        at_once: int,
        parallel: bool,
    ) -> list[BlockRV]:
        """Tile, and move the other blocks to the tiles; the blocks that this makes.

        axes: the positions of row and column among the variables of the block. tile: rows, vectors
        and their lanes. at_once: see `ContractionRule._orders`. Loops around those of the block's
        own variables stay as they are.
        """
        row, column = axes
        rows, vectors, lanes = tile
        block, copy = blocks.block, blocks.copy
        loops = loops_of(sch, block)
        iter_vars = found.site.block.iter_vars
        kinds = [item.kind for item in iter_vars]
        outer = [
            loop for n, loop in enumerate(loops) if kinds[n] == "spatial" and n not in (row, column)
        ]
        reduced = [loop for n, loop in enumerate(loops) if kinds[n] == "reduce"]
        # A loop of one step would be left out of the copies of the nest that are made later.
        widths = [None, lanes] if vectors == 1 else [None, vectors, lanes]
        columns, *lane_loops = sch.split(loops[column], widths)
        lane = lane_loops[-1]
        inner: list[LoopRV] = []
        both = {item.var for item in found.batch}
        batch = [
            loop for loop, item in zip(loops, iter_vars, strict=True)
            if loop in outer and item.var in both
        ]  # fmt: skip
        rest = [loop for loop in outer if loop not in batch]
        tiles: list[LoopRV] = []
        if row is not None and rows != 1:
            row_tiles, unrolled = sch.split(loops[row], [None, rows])
            tiles.append(row_tiles)
            inner.append(unrolled)
        elif row is not None:
            tiles.append(loops[row])
        together, several = [*batch, columns, *rest], columns
        around = loop_around(found, part)
        if at_once and around is None:
            several, *tiles = sch.split(tiles[0], [None, at_once])
            together = [*batch, several, columns]
        elif at_once:
            position = next(n for n, item in enumerate(iter_vars) if item is around)
            rest.remove(loops[position])
            several, one = sch.split(loops[position], [None, at_once])
            together = [*batch, *rest, several, columns, one]
        nest = [*together, *tiles]
        inner += lane_loops
        sch.reorder(*nest, *reduced, *inner)
        depth = len(sch.get_loops(block)) - len(reduced) - len(inner)
        if blocks.stage is not None:
            sch.reverse_compute_at(blocks.stage, nest[-1], preserve_unit_loops=True)
        sch.reverse_compute_at(copy, nest[-1], preserve_unit_loops=True)
        if blocks.packed is not None:
            sch.compute_at(blocks.packed, columns, preserve_unit_loops=True)
            _vectorize_last(sch, blocks.packed, lanes)
            self._fetch_rows(sch, blocks.packed)
        if blocks.producer is not None:
            sch.compute_at(blocks.producer, several, preserve_unit_loops=True)
            vectorize_loop(sch, sch.get_loops(blocks.producer)[-1], lanes)
        init = sch.decompose_reduction(block, reduced[0])
        made = [init]
        sch.vectorize(lane)
        for loop in inner[:-1]:
            sch.unroll(loop)
        init_loops = sch.get_loops(init)[-len(inner) :]
        for loop in init_loops[:-1]:
            sch.unroll(loop)
        sch.vectorize(init_loops[-1])
        _vectorize_last(sch, copy, lanes)
        # Constant indices everywhere let the accumulators live in registers.
        leaving = copy
        if blocks.stage is not None:
            leaving = blocks.stage
            _vectorize_last(sch, leaving, lanes)
        for loop in sch.get_loops(leaving)[depth:]:
            if sch.get(loop).kind == "serial":
                sch.unroll(loop)
        # How much is written out is not decided where the tile is not.
        if isinstance(rows, int) and isinstance(vectors, int):
            inside = nest[nest.index(columns) + 1 :]
            again = product(sch.get(loop).extent for loop in inside)
            panels = as_int(sch.get(columns).extent)
            few = panels is not None and panels <= self.few_panels
            made += self._write_out(sch, found, reduced, (rows, vectors), again, few=few)
        if blocks.packed is not None or at_once:
            # The packed panel stands between this loop and those inside, or what a block reads
            # does, or should stay in a cache.
            together = together[: together.index(several) + 1]
        if parallel:
            sch.parallel(sch.fuse(*together) if len(together) > 1 else columns)
        return made

    def _fetch_rows(self, sch: Schedule, packed: BlockRV) -> None:
        """Let a copy of columns fetch ahead: it reads a little of rows that lie far apart."""
        loops = sch.get_loops(packed)
        if len(loops) < 3 or sch.get(loops[-1]).kind != "vectorized":
            return
        rows, vectors = loops[-3:-1]
        if as_int(sch.get(vectors).extent) is not None:
            sch.unroll(vectors)
            sch.annotate(rows, PREFETCH, self.rows_ahead)

    def _write_out(
        self,
        sch: Schedule,
        found: Contraction,
        reduced: Sequence[LoopRV],
        tile: tuple[int, int],
        again: Expr,
        *,
        few: bool,
    ) -> list[BlockRV]:
        """Write out steps of the reduction, or let them fetch ahead; the blocks that this makes.

        again: how many tiles one after the other read the same panel. few: whether few panels read
        the same rows.
        """
        rows, vectors = tile
        if self.is_short(found.reduce, rows * vectors):
            for loop in reduced:
                sch.unroll(loop)
            return []
        if self.is_short(found.reduce[-1:], rows * vectors):
            sch.unroll(reduced[-1])
            return []
        if rows <= 2:
            # Each vector is used once or twice: the tile waits for memory.
            sch.annotate(reduced[-1], PREFETCH, self.prefetch)
            return []
        steps, left = unroll_steps(sch, reduced[-1], self.unroll)
        parts = as_int(again) or self.parts
        if parts > 1:
            # The first tile of each panel would wait for memory.
            sch.annotate(steps, PREFETCH_NEXT, parts)
            if few:
                sch.annotate(steps, PREFETCH_NEXT_ROWS, True)
        else:
            sch.annotate(steps, PREFETCH, max(1, self.prefetch // self.unroll))
        return left

    def is_short(self, reduced: Sequence[IterVar], tile: int) -> bool:
        """Whether loops of a reduction are worth writing out, so that steps share what they load
        and no time goes into short loops."""
        steps = as_int(product(item.dom.extent for item in reduced))
        return steps is not None and steps * tile <= self.reduction_limit


def loops_of(sch: Schedule, block: BlockRV) -> list[LoopRV]:
    """The loops of a block's variables, one for each, without those around them."""
    return sch.get_loops(block)[-len(sch.get(block).iter_vars) :]


def _vectorize_last(sch: Schedule, block: BlockRV, lanes: int) -> None:
    last = sch.get_loops(block)[-1]
    if as_int(Analyzer().simplify(sch.get(last).extent % lanes)) is None:
        return
    _, lane = sch.split(last, [None, lanes])
    sch.vectorize(lane)
