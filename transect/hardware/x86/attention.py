"""How attention is scheduled on x86: a product, functions of its rows, and a second product that
sums over these rows, as in softmax(q @ k.T) @ v.

A block of rows at a time: register tiles of the first product are written to whole rows in a buffer
that stays in the second-level cache, each row becomes weights there, and register tiles of the
second product read them. The operands that are read in vectors are packed into panels, once for
each batch. The first product as a whole is never in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.contraction import inline_consumers
from transect.hardware.x86.elementwise import unroll_steps
from transect.hardware.x86.reduction import partial_vectors
from transect.hardware.x86.roles import contiguous
from transect.ir.expr import Call, Expr, Var, as_int
from transect.ir.sizes import ceildiv, product
from transect.ir.structural import structural_hash
from transect.ir.traverse import walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.row_chain import RowChain, find_row_chain
from transect.tir.buffer import BufferLoad
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, BufferStore
from transect.tir.transform.transpose_tiles import TRANSPOSE

_FMA_LATENCY = 4
_PER_ROW, _PER_VECTOR = 0.15, 0.25
"""What each row and each vector of a tile adds to a step, in cycles (see `contraction`)."""
_PER_TILE = 32
"""Cycles that a tile takes to begin and end."""
_STEPS = 128
"""What an unknown sum is taken for."""
_COPIED, _TURNED = 4, 16
"""Operations in vectors that copying an element takes as long as, in order and across rows."""
_SPLIT = 30
"""One part of this many is lost where vectors that are read in place cross cache lines."""
_DIVISION = 8
"""The same of a division."""
_NEAR = 1024
"""Bytes between rows from which on they are better packed: pages and lines evict each other."""
_WIDTH = 2
"""Vectors of partial results of a row's reduction."""
_LAST_LANES = 4
"""Partial results that are combined one after the other; more of them in vectors."""


@dataclass(frozen=True)
class AttentionRule(ScheduleRule):
    """Two products with functions of rows between them, a block of rows at a time.

    tiles: (rows, vectors) of register tiles. blocks: how many such tiles a block of rows may have.
    unroll: how many steps of a sum are written out.
    """

    tiles: tuple[tuple[int, int], ...] = (
        (1, 4),
        (2, 4),
        (4, 2),
        (4, 3),
        (4, 4),
        (6, 2),
        (6, 4),
        (8, 2),
        (8, 3),
        (12, 2),
        (14, 2),
    )
    blocks: tuple[int, ...] = (1, 2, 4, 8, 16)
    unroll: int = 4
    name: ClassVar[str] = "x86.attention"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        return _chain(info) is not None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        found = _chain(info)
        assert found is not None
        return self._sites(info, found, target)

    def _sites(self, info: KernelInfo, found: RowChain, target: Target) -> tuple[Site, ...]:
        subject = structural_hash((found.scores.site.block, found.results.site.block))
        name = found.results.site.block.name

        def key(role: str) -> SiteKey:
            return SiteKey("schedule", subject, str(target), f"rows.{role}")

        tiles = self._tile_options(info, found, target)
        return (
            Site(key("tile"), tiles, f"{name} register tiles and rows at once"),
            Site(key("divide"), self._divide_options(found), f"{name} factors of rows"),
            Site(key("parallel"), self._parallel_options(found, target), f"{name} threads"),
        )

    def _tile_options(
        self, info: KernelInfo, found: RowChain, target: Target
    ) -> tuple[Option, ...]:
        lanes = target.lanes(found.results.output.buffer.dtype)
        options: list[Option] = []
        for rows, vectors in self.tiles:
            if rows * vectors + vectors + 1 > target.vector_registers:
                continue
            width = vectors * lanes
            in_place = _in_order(info, found, width)
            options += [
                Option(
                    f"{rows}x{width}, {tiles * rows} rows" + ("" if packed else ", direct"),
                    {"rows": rows, "vectors": vectors, "tiles": tiles, "pack": packed},
                    self._tile_cost(found, target, (rows, vectors, tiles), packed=packed),
                )
                for tiles in self.blocks
                for packed in ((False, True) if in_place else (True,))
            ]
        return tuple(options)

    def _tile_cost(
        self, found: RowChain, target: Target, tile: tuple[int, int, int], *, packed: bool
    ) -> Cost:
        rows, vectors, tiles = tile
        dtype = found.results.output.buffer.dtype
        width, block = vectors * target.lanes(dtype), rows * tiles
        batch = product(item.dom.extent for item in found.results.batch)
        length = found.results.reduce[0].dom.extent
        column, inner = found.results.columns[0].dom.extent, found.scores.reduce[0].dom.extent
        padded = batch * _padded(found.results.rows[0].dom.extent, block)
        work = padded * (_padded(length, width) * inner + _padded(column, width) * length)
        # A step of a tile takes longer than its multiply-adds, by what it loads.
        busy = max(rows * vectors / target.fma_per_cycle, _FMA_LATENCY)
        steps = (as_int(length) or _STEPS) + (as_int(inner) or _STEPS)
        waiting = _PER_ROW * rows + _PER_VECTOR * vectors + 2 * _PER_TILE / steps
        efficiency = rows * vectors / target.fma_per_cycle / (busy + waiting)
        # Panels come from the second-level cache once a block of rows; the rows stay in a cache.
        efficiency /= 1 + 1 / (2 * block)
        held = block * (as_int(length) or 0) * dtype.bytes * 2
        for room in target.caches[:2]:
            efficiency *= 1.0 if held <= room // 2 else 0.97
        keys, values = batch * length * inner, batch * length * column
        copied = values * _COPIED if packed else padded * column * length * 2 // _SPLIT
        return Cost({dtype: work * 2 + keys * _TURNED + copied}, efficiency=efficiency)

    def _divide_options(self, found: RowChain) -> tuple[Option, ...]:
        dtype = found.results.output.buffer.dtype
        rows = product(i.dom.extent for i in (*found.results.batch, *found.results.rows))
        results = rows * found.results.columns[0].dom.extent
        weights = rows * found.results.reduce[0].dom.extent
        return (
            Option("of results", {"results": True}, Cost({dtype: results * _DIVISION})),
            Option("of weights", {"results": False}, Cost({dtype: weights * _DIVISION})),
        )

    def _parallel_options(self, found: RowChain, target: Target) -> tuple[Option, ...]:
        dtype = found.results.output.buffer.dtype
        work = {dtype: found.scores.operations + found.results.operations}
        serial = Option("serial", {"parallel": False}, Cost(work, threads=1))
        if target.cores == 1:
            return (serial,)
        return (serial, Option("parallel", {"parallel": True}, Cost(work, launches=1)))

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        found = _chain(info)
        assert found is not None
        tile, divide, parallel = map(sch.sample, self._sites(info, found, target))
        nest = _Nest(sch, info, found, target, self)
        nest.prepare(divide=divide.flag("results"))
        sizes = (tile.number(key) for key in ("rows", "vectors", "tiles"))
        nest.tile(*sizes, pack=tile.flag("pack"))
        if parallel.flag("parallel"):
            nest.parallelize()
        return nest.handled()


class _Nest:
    """The schedule of one chain, step by step."""

    def __init__(
        self, sch: Schedule, info: KernelInfo, found: RowChain, target: Target, rule: AttentionRule
    ) -> None:
        self.sch = sch
        self.info = info
        self.found = found
        self.unroll = rule.unroll
        self.lanes = target.lanes(found.results.output.buffer.dtype)
        self.scores = sch.get_block(found.scores.site.block.name)
        self.results = sch.get_block(found.results.site.block.name)
        self.before = {site.block.name for site in info.sites}
        self.gone: list[str] = []
        self.mine: list[BlockRV] = [self.scores, self.results]
        self.rank = len(found.results.batch)
        """How many loops are outside of the rows."""

    def handled(self) -> tuple[str, ...]:
        """The names of the blocks that were dealt with."""
        now = set(_names(self.sch))
        made = now - self.before
        return (*self.gone, *(self.name(item) for item in self.mine), *sorted(made))

    def name(self, block: BlockRV) -> str:
        return self.sch.get(block).name

    # --- what is computed where -----------------------------------------------------------------

    def prepare(self, *, divide: bool) -> None:
        """Inline what is cheap, compute once what is not, and write through registers."""
        sch, found = self.sch, self.found
        self._inline_operands()
        self.store_scores = sch.cache_write(self.scores, 0, "local")
        between = list(found.between)
        inlined = inline_consumers(sch, self.info, found.scores.output.buffer)
        self.gone += inlined
        between = [name for name in between if name not in inlined]
        blocks = self._share(between)
        if divide:
            blocks = self._weigh_results(blocks)
        else:
            self.store_results = sch.cache_write(self.results, 0, "local")
        self.between = blocks
        self.mine += blocks
        self.gone += inline_consumers(sch, self.info, found.results.output.buffer)

    def _inline_operands(self) -> None:
        """What only moves elements of an operand is read where they come from."""
        weights = self.found.results.left.buffer
        for found in (self.found.scores, self.found.results):
            for load in (found.left, found.right):
                producer = None if load.buffer is weights else self.info.producer(load.buffer)
                while producer is not None and producer.name in self.info.pending:
                    value = _value(producer) if isinstance(producer.body, BufferStore) else None
                    if not isinstance(value, BufferLoad) or producer.init is not None:
                        break
                    try:
                        self.sch.compute_inline(self.sch.get_block(producer.name))
                    except ScheduleError:
                        break
                    self.gone.append(producer.name)
                    producer = self.info.producer(value.buffer)

    def _share(self, names: list[str]) -> list[BlockRV]:
        """Elementary functions of rows are computed once, although two blocks need them."""
        blocks = [self.sch.get_block(name) for name in names]
        position = 0
        while position < len(blocks):
            for other in blocks[position + 1 :]:
                attempt = self.sch.copy()
                try:
                    made = attempt.cache_common(blocks[position], other)
                except ScheduleError:
                    continue
                if not any(isinstance(t, Call) for t in walk(_value(attempt.get(made)))):
                    continue
                made = self.sch.cache_common(blocks[position], other)
                blocks.insert(position, made)
                break
            position += 1
        return blocks

    def _weigh_results(self, blocks: list[BlockRV]) -> list[BlockRV]:
        """A divisor of all weights of a row divides the results instead."""
        sch = self.sch
        last = blocks[-1] if blocks else None
        if last is not None and not any(isinstance(t, Call) for t in walk(_value(sch.get(last)))):
            attempt = sch.copy()
            try:
                attempt.compute_inline(last)
                attempt.factor_out(self.results, "local")
            except ScheduleError:
                pass
            else:
                self.gone.append(self.name(last))
                sch.compute_inline(last)
                self.store_results = sch.factor_out(self.results, "local")
                return blocks[:-1]
        self.store_results = sch.cache_write(self.results, 0, "local")
        return blocks

    # --- loops ----------------------------------------------------------------------------------

    def tile(self, rows: int, vectors: int, tiles: int, *, pack: bool) -> None:
        """Tile both products and put everything between them into a loop over blocks of rows."""
        sch, rank = self.sch, self.rank
        block, width = rows * tiles, vectors * self.lanes
        self._pad(self.scores, {rank: block, rank + 1: width})
        packed = [self._panels(self.scores, width)]
        self._pad(self.store_scores, {rank: block})
        for item in self.between:
            self._pad(item, {rank: block})
        self._pad(self.results, {rank: block, rank + 1: width})
        if pack:
            packed.append(self._panels(self.results, width))
        order = [(item, self._partial(item)) for item in self.between]

        loops = sch.get_loops(self.results)
        batch = loops[:rank]
        row, column, length = loops[rank : rank + 3]
        blocks, row_tiles, unrolled = sch.split(row, [None, tiles, rows])
        columns, *inner = sch.split(column, [None, vectors, self.lanes])
        sch.reorder(*batch, blocks, columns, row_tiles, length, unrolled, *inner)
        self.outer = [*batch, blocks]
        self.together = batch or [blocks]
        self.outer += [columns, row_tiles]
        sch.reverse_compute_at(self.store_results, row_tiles)
        for item in packed[1:] if batch else ():
            sch.compute_at(item, batch[-1])
        # Rows: consumers before their producers.
        for item, partial in reversed(order):
            for each in reversed([*partial, item]):
                sch.compute_at(each, blocks)
        self._row_by_row(order)
        sch.compute_at(self.store_scores, blocks)
        i, j = self._axes(self.store_scores, (rank, rank + 1))
        panels, *lanes = sch.split(j, [None, vectors, self.lanes])
        steps, step = sch.split(i, [None, rows])
        sch.reorder(panels, steps, step, *lanes)
        self.outer += [panels, steps]
        sch.compute_at(self.scores, steps)
        if batch:
            sch.compute_at(packed[0], batch[-1])
        # Registers.
        a, b, k = self._axes(self.scores, (rank, rank + 1, rank + 2))
        b_vectors = sch.split(b, [None, self.lanes])
        sch.reorder(k, a, *b_vectors)
        self._registers(self.scores, k, [a, *b_vectors])
        self._registers(self.results, length, [unrolled, *inner])
        a, b = self._axes(self.store_results, (rank, rank + 1))
        out = sch.split(b, [None, self.lanes])
        for nest in ([step, *lanes], [a, *out]):
            sch.vectorize(nest[-1])
            for loop in nest[:-1]:
                sch.unroll(loop)
        for item in packed:
            self._copy(item, width)
        for item, partial in order:
            self._rows(item, partial)

    def _axes(self, block: BlockRV, axes: Sequence[int]) -> list[LoopRV]:
        """The innermost loops of some iteration variables of a block that was moved; those that
        were left out, because they have one step, are added."""
        sch = self.sch
        found: list[LoopRV] = []
        for axis in axes:
            realize = Tree(sch.func).realize(sch.get(block))
            inside = set(walk(realize.iter_values[axis]))
            own = [loop for loop in sch.get_loops(block) if sch.get(loop).var in inside]
            moved = own and own[-1] not in self.outer
            found.append(own[-1] if moved else sch.add_unit_loop(block))
        return found

    def _pad(self, block: BlockRV, multiples: dict[int, int]) -> None:
        count = len(self.sch.get(block).iter_vars)
        self.sch.pad_domain(block, [multiples.get(n, 1) for n in range(count)])

    def _panels(self, block: BlockRV, width: int) -> BlockRV:
        """A copy of the operand that is read in vectors, in panels."""
        current: Block = self.sch.get(block)
        rank = self.rank
        var = current.iter_vars[rank + 1].var
        loads = [t for t in walk(_value(current)) if isinstance(t, BufferLoad)]
        written = current.writes[0].buffer
        found = next(t.buffer for t in loads if t.buffer is not written and var in _vars(t))
        index = next(n for n, region in enumerate(current.reads) if region.buffer is found)

        def panels(*variables: Var) -> tuple[Expr, ...]:
            *batch, _, column, summed = variables
            return (*batch, column // width, summed, column % width)

        return self.sch.reindex_cache_read(block, index, "global", panels)

    def _copy(self, packed: BlockRV, width: int) -> None:
        """Copy to panels in vectors; what is read across them is turned in registers."""
        sch = self.sch
        column, summed = sch.get_loops(packed)[-2:]
        block: Block = sch.get(packed)
        (load,) = [t for t in walk(_value(block)) if isinstance(t, BufferLoad)]
        panels, vectors, lane = sch.split(column, [None, width // self.lanes, self.lanes])
        sch.reorder(panels, summed, vectors, lane)
        across = not contiguous(load, block.iter_vars[-2].var)
        if across and (as_int(sch.get(summed).extent) or 1) % self.lanes == 0:
            _, step = sch.split(summed, [None, self.lanes])
            sch.reorder(vectors, step)
            sch.annotate(step, TRANSPOSE, True)
        sch.vectorize(lane)

    def _registers(self, block: BlockRV, reduced: LoopRV, tile: list[LoopRV]) -> None:
        """Accumulate a tile in registers."""
        sch = self.sch
        init = sch.decompose_reduction(block, reduced)
        for nest in (tile, sch.get_loops(init)[-len(tile) :]):
            sch.vectorize(nest[-1])
            for loop in nest[:-1]:
                sch.unroll(loop)
        unroll_steps(sch, reduced, self.unroll)

    # --- rows -----------------------------------------------------------------------------------

    def _row_by_row(self, order: list[tuple[BlockRV, list[BlockRV]]]) -> None:
        """One loop over rows for the weights, what they are made of, and what is summed over them:
        a row stays in the first-level cache, and its partial results in registers."""
        sch = self.sch
        maps = [n for n, (item, _) in enumerate(order) if self._is_map_of_rows(item)]
        if not maps:
            return
        (row,) = self._axes(order[maps[-1]][0], (self.rank,))
        self.outer.append(row)
        for item, partial in reversed(order[: maps[-1]]):
            for each in reversed([*partial, item]):
                sch.compute_at(each, row)
        for item, partial in order[maps[-1] + 1 :]:
            if not partial:
                break
            for each in (*partial, item):
                sch.reverse_compute_at(each, row)

    def _is_map_of_rows(self, block: BlockRV) -> bool:
        """Whether a block computes each element of rows."""
        kinds = [item.kind for item in self.sch.get(block).iter_vars]
        return kinds == ["spatial"] * (self.rank + 2)

    def _partial(self, block: BlockRV) -> list[BlockRV]:
        """Partial results of a reduction over rows: in vectors, in one vector, in a few lanes."""
        sch = self.sch
        current: Block = sch.get(block)
        if current.init is None:
            return []
        lanes = _WIDTH * self.lanes
        self._pad(block, {len(current.iter_vars) - 1: lanes})
        _, lane = sch.split(sch.get_loops(block)[-1], [None, lanes])
        parts = [sch.rfactor(lane, -1)]
        for narrower in (self.lanes, _LAST_LANES):
            if narrower < lanes:
                _, lane = sch.split(sch.get_loops(block)[-1], [None, narrower])
                parts.append(sch.rfactor(lane, -1))
                lanes = narrower
        return parts

    def _rows(self, block: BlockRV, partial: list[BlockRV]) -> None:
        sch = self.sch
        for part in partial:
            # rfactor puts the partial results' variable first; short rows leave none to reduce.
            items = sch.get(part).iter_vars
            reduced = [n for n, item in enumerate(items) if item.kind == "reduce"]
            row, lane, *steps = self._axes(part, (self.rank + 1, 0, *reduced))
            sch.reorder(row, *steps, lane)
            partial_vectors(sch, part, steps, lane, self.lanes, written_out=part is not partial[0])
        last = sch.get_loops(block)[-1]
        if partial:
            sch.decompose_reduction(block, last)
            sch.unroll(last)
        else:
            # One nest, whose last vector is cut off: whoever places the buffer sees all of a row.
            sch.vectorize(sch.split(last, [None, self.lanes])[1])

    def parallelize(self) -> None:
        """Run batches, or blocks of rows if there are none, on different cores."""
        together = self.together
        self.sch.parallel(self.sch.fuse(*together) if len(together) > 1 else together[0])


def _chain(info: KernelInfo) -> RowChain | None:
    """The first chain among the blocks not scheduled yet."""
    sites = [site for site in info.sites if site.block.name in info.pending]
    return find_row_chain(sites, info.func.buffers)


def _padded(extent: Expr, multiple: int) -> Expr:
    """What tiles of `multiple` compute: an unknown extent leaves half a tile empty on average."""
    if as_int(extent) is None:
        return extent + multiple // 2
    return ceildiv(extent, multiple) * multiple


def _in_order(info: KernelInfo, found: RowChain, width: int) -> bool:
    """Whether the second product may read vectors where they are: side by side, full ones only,
    and rows not far apart."""
    load, column = found.results.right, found.results.columns[0]
    extent = as_int(column.dom.extent)
    producer = info.producer(load.buffer)
    return (
        contiguous(load, column.var)
        and extent is not None
        and extent % width == 0
        and extent * load.buffer.dtype.bytes <= _NEAR
        and load.indices[-2] is found.results.reduce[0].var
        and (producer is None or producer.name not in info.pending)
    )


def _names(sch: Schedule) -> list[str]:
    return [site.block.name for site in block_sites(sch.func)]


def _value(block: Block) -> Expr:
    assert isinstance(block.body, BufferStore)
    return block.body.value


def _vars(load: BufferLoad) -> set[object]:
    return set(walk(*load.indices))
