"""How matrix products and convolutions are scheduled on x86.

A register tile of rows x vectors accumulates over the whole reduction; the vector operand is read
in place or packed panel by panel into a buffer that stays in the second-level cache. See
benchmarks/ops for what this reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.elementwise import operations_of
from transect.hardware.x86.product_nest import Blocks, ProductNest
from transect.hardware.x86.register_tile import TileTime, tile_times
from transect.hardware.x86.roles import Roles, contiguous, roles
from transect.hardware.x86.tile_cost import (
    PANEL,
    PARTS,
    SCATTERED,
    cache_of,
    cost_of_parts,
    joined,
    loop_around,
    operand_bytes,
    order_cost,
    rounded,
    second_level,
    shared_tile_cycles,
    used_by,
)
from transect.ir.dtype import DType
from transect.ir.expr import LE, Call, Expr, IntImm, Var, as_int, select
from transect.ir.sizes import ceildiv
from transect.ir.structural import structural_hash
from transect.ir.traverse import walk
from transect.plan import Cost, Option, Site, SiteKey, typical_size
from transect.plan.cost import Amount
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.pattern import PatternKind
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.schedule import BlockRV, Schedule
from transect.tir.stmt import Block, BufferStore, IterVar

STREAMS, _ONE_STREAM = 4, 16
"""As many streams through memory as are worth having, and what part of the time each one less takes
longer: a processor fetches more ahead of several than of one, by a fifth (benchmarks/ops)."""
_FAR_APART = 2
"""How much longer rows take to come from beyond the second-level cache where only a part of each is
read at a time."""


@dataclass(frozen=True)
class ContractionRule(ScheduleRule):
    """Register-tiled contractions, for static and symbolic extents alike.

    most_rows, most_vectors: of register tiles to choose from. tiles: the same as (rows, vectors),
    for contractions whose operands both depend on the column. inline_limit: how many operations of
    a producer are worth repeating where its result is read. unroll_limit: how many operations on
    each result are worth repeating in the code for every result of a tile. nest: how steps of the
    reduction are written. blocks: how many iterations of the loop around rows may be done at once.
    row_blocks: how many rows, where there is no such loop. scales: multiples of representative
    sizes that tiles and their order should be good for.
    """

    most_rows: int = 16
    most_vectors: int = 8
    tiles: tuple[tuple[int, int], ...] = (
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (1, 8),
        (2, 4),
        (2, 8),
        (4, 2),
        (4, 4),
        (6, 2),
        (6, 4),
        (7, 2),
        (7, 3),
        (8, 1),
        (8, 2),
        (8, 3),
        (12, 1),
        (12, 2),
        (14, 1),
        (14, 2),
    )
    inline_limit: int = 4
    unroll_limit: int = 8
    nest: ProductNest = field(default_factory=ProductNest)
    blocks: tuple[int, ...] = (1, 2, 4, 7, 8, 14, 16, 28)
    row_blocks: tuple[int, ...] = (48, 96, 192, 384)
    scales: tuple[int, ...] = (1, 4, 16)
    name: ClassVar[str] = "x86.contraction"
    single_row: ClassVar[bool] = True

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        found = info.contractions()
        return bool(found) and roles(found[0]) is not None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        return self._sites(info, info.contractions()[0], target)

    def _sites(self, info: KernelInfo, found: Contraction, target: Target) -> tuple[Site, ...]:
        part = roles(found)
        assert part is not None
        block = found.site.block
        name = block.name
        # Fusing other blocks with the contraction leaves its block as it is, and so its keys.
        subject = structural_hash(block)

        def key(role: str) -> SiteKey:
            return SiteKey("schedule", subject, str(target), role)

        return (
            Site(
                key("tile"),
                self.tile_options(found, part, target, subject),
                f"{name} register tile",
                scales=self.scales_of(found),
            ),
            Site(
                key("order"),
                self._orders(info, found, part, target),
                f"{name} order",
                scales=self.scales_of(found),
            ),
            Site(
                key("parallel"),
                parallel_options(found.output.buffer.dtype, found.operations, target),
                f"{name} threads",
            ),
        )

    def _alone(
        self, sch: Schedule, found: Contraction, part: Roles, tile: tuple[Expr, Expr], lanes: int
    ) -> None:
        """Tile a contraction that is all of a program, in tiles of decision variables."""
        block = sch.get_block(found.site.block.name)
        items = found.site.block.iter_vars
        row = None if part.row is None else items.index(part.row)
        copy = sch.cache_write(block, 0, "local")
        self.nest.tile(
            sch, Blocks(block, copy), found, part, (row, items.index(part.column)), (*tile, lanes),
            at_once=0, parallel=False,
        )  # fmt: skip

    def scales_of(self, found: Contraction) -> tuple[int, ...]:
        """The scales of sizes that a contraction's choices should be good for: one if they are
        known."""
        extents = (item.dom.extent for item in found.site.block.iter_vars)
        return (1,) if all(as_int(extent) is not None for extent in extents) else self.scales

    def tile_options(
        self, found: Contraction, part: Roles, target: Target, subject: str
    ) -> tuple[Option, ...]:
        """Register tiles, those first that the cost model prefers where sizes are typical."""
        if part.shared:
            return self._shared_tile_options(found, part, target)
        dtype = found.output.buffer.dtype
        lanes = target.lanes(dtype)
        height = self.most_rows if part.row is not None else 1
        widths = range(1, self.most_vectors + 1)
        if part.panel is not None:
            widths = [part.panel // lanes] if part.panel % lanes == 0 else []
        tiles = [(rows, vectors) for vectors in widths for rows in range(1, height + 1)]
        streams = self._streams(found, part, lanes) if tiles else {}
        tiles += [tile for tile in streams if tile not in tiles]
        if not tiles:
            return ()
        times = tile_times(found, part, self._alone, target, tiles, subject)
        order = np.argsort(times.seconds(typical_size), kind="stable")
        held = operand_bytes(found, part.columns)
        level = cache_of(held, target)
        options: list[Option] = []
        for place in map(int, order):
            rows, vectors = times.tiles[place]
            late: dict[str, Amount] = {}
            if streams:
                few = STREAMS - streams.get((rows, vectors), 1)
                late = {level: held * few // _ONE_STREAM}
            # As many operations as the machine could have done in the time.
            cost = Cost({dtype: TileTime(times, place, target.peak(dtype))}, late)
            name = f"{rows}x{vectors * lanes}"
            options.append(Option(name, {"rows": rows, "vectors": vectors}, cost))
        return tuple(options)

    def _streams(self, found: Contraction, part: Roles, lanes: int) -> dict[tuple[int, int], int]:
        """Tiles of all rows that there are, over several panels at a time, and how many. Nothing
        where other rows read the same columns again."""
        panel, columns = part.panel, as_int(part.column.dom.extent)
        height = 1 if part.row is None else as_int(part.row.dom.extent) or 0
        others = [i for i in (*found.rows, *found.columns) if i not in (part.row, part.column)]
        alone = all(as_int(item.dom.extent) == 1 for item in others)
        if panel is None or not alone or not 1 <= height <= self.most_rows:
            return {}
        return {
            (height, count * panel // lanes): count
            for count in range(1, STREAMS + 1)
            if count == 1 or columns is not None
            if count * panel <= self.most_vectors * lanes
        }

    def _shared_tile_options(
        self, found: Contraction, part: Roles, target: Target
    ) -> tuple[Option, ...]:
        dtype = found.output.buffer.dtype
        lanes = target.lanes(dtype)
        options: list[Option] = []
        steps: Expr = IntImm(1)
        for item in found.site.block.iter_vars:
            if item is not part.row and item is not part.column:
                steps = steps * item.dom.extent
        height = IntImm(1) if part.row is None else part.row.dom.extent
        for rows, vectors in self.tiles:
            if rows * vectors + vectors + 1 > target.vector_registers:
                continue
            if part.row is None and rows > 1:
                continue
            if part.panel is not None and part.panel != vectors * lanes:
                continue
            short = partial(self.nest.is_short, found.reduce)
            width = part.column.dom.extent
            cycles = shared_tile_cycles(height, width, (rows, vectors, lanes), part, short, target)
            padded = rounded(height, rows) * rounded(width, vectors * lanes)
            panel = padded * steps * dtype.bytes // max(1, rows)
            # As many operations as the machine could have done in the time.
            work = steps * cycles * (2 * lanes * target.fma_per_cycle) // PARTS
            options.append(
                Option(
                    f"{rows}x{vectors * lanes}",
                    {"rows": rows, "vectors": vectors},
                    Cost({dtype: work}, {"L2": panel}),
                )
            )
        return tuple(options)

    def _orders(
        self, info: KernelInfo, found: Contraction, part: Roles, target: Target
    ) -> tuple[Option, ...]:
        """In which order tiles follow, and whether columns are packed.

        All columns for some rows read the one operand again and again, all rows for some columns
        the other; from where depends on its size. `block`: the iterations of the loop around rows,
        or rows, that are done with all columns before the next ones are; 0 for all of them.
        """
        dtype = found.output.buffer.dtype
        held, other = (operand_bytes(found, load) for load in (part.columns, part.rows))
        level = cache_of(held, target)
        width = part.panel or PANEL * target.lanes(dtype)
        panels = ceildiv(part.column.dom.extent, width)
        in_order = contiguous(part.rows, found.reduce[-1].var)
        again = IntImm(1) if part.shared else panels * (1 if in_order else SCATTERED)
        around = loop_around(found, part)
        slower: dict[DType, Expr] = {}
        if part.panel is None and not part.shared:
            # Rows far apart miss the first-level cache and its translation buffers; where they do
            # not fit the second level, they also evict each other from there, as their addresses
            # share low bits. In percent of the arithmetic (benchmarks/ops).
            fits = LE(held, IntImm(second_level(target)))
            slower[dtype] = found.operations * select(fits, IntImm(25), IntImm(200)) // 100
        options: list[Option] = []
        operands = (held, other, again)
        if part.contiguous:
            producer = _map_before(info, found, self.inline_limit)
            for block in self._blocks(around, part):
                cost = order_cost(found, part, around, block, operands, slower, target)
                if producer is not None:
                    made = cost_of_parts(producer, around, block, target)
                    cost = replace(cost, traffic=joined(cost.traffic, made))
                if part.panel is None and level != "L2":
                    longer = {level: held * (_FAR_APART - 1)}
                    cost = replace(cost, traffic=joined(cost.traffic, longer))
                what = "rows " if around is None else ""
                name = f"direct, {block} {what}at once" if block else "direct, columns first"
                options.append(Option(name, {"pack": False, "block": block}, cost))
        if part.panel is None and not part.shared:
            # What lies side by side is copied in vectors, anything else element by element.
            single = held // dtype.bytes * (0 if part.contiguous else 8 * target.lanes(dtype))
            cost = order_cost(found, part, around, 0, operands, {dtype: single}, target)
            cost = replace(cost, traffic=joined(cost.traffic, {level: held * 2}))
            options.append(Option("packed", {"pack": True, "block": 0}, cost))
        return tuple(options)

    def _blocks(self, around: IterVar | None, part: Roles) -> list[int]:
        """The numbers of iterations to do at once: those that divide all of them."""
        if around is None:
            rows = None if part.row is None or part.shared else as_int(part.row.dom.extent)
            return [n for n in self.row_blocks if rows is not None and n < rows] + [0]
        extent = as_int(around.dom.extent)
        if extent is None:
            return [1, 0]
        return [n for n in self.blocks if n < extent and extent % n == 0] + [0]

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        found = info.contractions()[0]
        part = roles(found)
        assert part is not None
        sites = self._sites(info, found, target)
        tile, order, parallel = map(sch.sample, sites)
        rows, vectors = tile.number("rows"), tile.number("vectors")
        lanes = target.lanes(found.output.buffer.dtype)
        block = sch.get_block(found.site.block.name)
        iter_vars = sch.get(block).iter_vars
        column = next(n for n, item in enumerate(iter_vars) if item.var is part.column.var)
        row = next(
            (n for n, i in enumerate(iter_vars) if part.row is not None and i.var is part.row.var),
            None,
        )
        multiples = [1] * len(iter_vars)
        multiples[column] = vectors * lanes
        at_once = order.number("block")
        if row is not None and at_once and loop_around(found, part) is None:
            # Blocks of as many tiles each: LoopPartition leaves out those of padding.
            tiles = ceildiv(iter_vars[row].dom.extent, rows)
            at_once = as_int(ceildiv(tiles, ceildiv(tiles, -(-at_once // rows)))) or 1
            multiples[row] = rows * at_once
        elif row is not None:
            multiples[row] = rows
        packed: BlockRV | None = None
        axes: list[int] = []
        if order.flag("pack"):
            packed, axes = self._pack(sch, block, found, part, column)
        # What makes the columns is done where they are packed; their order in memory stays as it
        # is where they are not.
        operands = [part.rows] if packed is None else [part.rows, part.columns]
        handled = self._inline_producers(sch, info, found, operands)
        copy = sch.cache_write(block, 0, "local")
        handled += inline_consumers(sch, info, found.output.buffer)
        if packed is not None:
            sch.pad_domain(packed, [multiples[axis] if axis == column else 1 for axis in axes])
        stage = stage_results(sch, block, copy, self.unroll_limit)
        sch.pad_domain(block, multiples)
        if stage is not None:
            by_var = {i.var: m for i, m in zip(found.site.block.iter_vars, multiples, strict=True)}
            indices = found.output.indices
            sch.pad_domain(stage, [by_var[i] if isinstance(i, Var) else 1 for i in indices])
        before = _map_before(info, found, self.inline_limit) if at_once else None
        producer = None if before is None else sch.get_block(before.name)
        blocks = Blocks(block, copy, packed, stage, producer)
        made = self.nest.tile(
            sch, blocks, found, part, (row, column), (rows, vectors, lanes),
            at_once=at_once, parallel=parallel.flag("parallel"),
        )  # fmt: skip
        return (*handled, *(_name(sch, item) for item in (*blocks.all(), *made)))

    def _pack(
        self, sch: Schedule, block: BlockRV, found: Contraction, part: Roles, column: int
    ) -> tuple[BlockRV, list[int]]:
        """A copy of the vector operand whose last dimension is the column."""
        current = sch.get(block)
        used = {item.var for item in used_by(found, part.columns)}
        axes = [n for n, i in enumerate(current.iter_vars) if i.var in used and n != column]
        axes.append(column)
        index = next(
            n for n, region in enumerate(current.reads) if region.buffer is part.columns.buffer
        )
        return sch.reindex_cache_read(block, index, "global", axes), axes

    def _inline_producers(
        self, sch: Schedule, info: KernelInfo, found: Contraction, operands: Sequence[BufferLoad]
    ) -> list[str]:
        """Inline cheap producers of operands; the others stay for other rules."""
        done: list[str] = []
        for operand in operands:
            producer = info.producer(operand.buffer)
            if producer is None or not _is_cheap(found, producer, self.inline_limit):
                continue
            try:
                sch.compute_inline(sch.get_block(producer.name))
            except ScheduleError:
                continue
            done.append(producer.name)
        return done


def _map_before(info: KernelInfo, found: Contraction, inline_limit: int) -> Block | None:
    """The map that makes one operand for the contraction alone, and costs too much to be inlined:
    padding, say."""
    for operand in (found.left, found.right):
        producer = info.producer(operand.buffer)
        if (
            producer is not None
            and producer.name in info.pending
            and info.kind(producer.name) <= PatternKind.INJECTIVE
            and len(info.consumers(operand.buffer)) == 1
            and not _is_cheap(found, producer, inline_limit)
        ):
            return producer
    return None


def _is_cheap(found: Contraction, producer: Block, limit: int) -> bool:
    """Whether a map is worth repeating wherever its result is read."""
    if not isinstance(producer.body, BufferStore) or producer.init is not None:
        return False
    value = producer.body.value
    part = roles(found)
    if part is not None and part.shared:
        # Each element is read a few times, by tiles that lie inside for the most part: making it
        # takes longer than reading it again.
        limit = 16 * limit
        if isinstance(value, Call) and value.op is INTRINSICS["if_then_else"]:
            condition, *values = value.args
            return not any(isinstance(t, Call) for t in walk(condition, *values))
    terms = list(walk(value))
    return not any(isinstance(t, Call) for t in terms) and (
        sum(not isinstance(t, Var) for t in terms) <= limit
    )


def parallel_options(dtype: DType, operations: Expr, target: Target) -> tuple[Option, ...]:
    """Whether a nest runs on several cores. operations: of all of it, which its tiles count as
    shared by all cores: one core alone has the rest to do as well."""
    rest = operations * (target.cores - 1) // target.cores
    serial = Option("serial", {"parallel": False}, Cost({dtype: rest}, threads=1))
    if target.cores == 1:
        return (serial,)
    return (serial, Option("parallel", {"parallel": True}, Cost(launches=1)))


def stage_results(sch: Schedule, block: BlockRV, copy: BlockRV, limit: int) -> BlockRV | None:
    """Where more than `limit` operations are done with each result, a buffer between a block and
    the copy of its results: what leaves the registers is unrolled, and the code for the rest should
    not be."""
    if operations_of(sch.get(copy)) <= limit:
        return None
    own = sch.get(block).writes[0].buffer
    index = next(n for n, region in enumerate(sch.get(copy).reads) if region.buffer is own)
    return sch.cache_read(copy, index, "local", [copy])


def inline_consumers(sch: Schedule, info: KernelInfo, result: Buffer) -> list[str]:
    """Do elementwise consumers of `result`, which one block makes, in that block.

    Where several read it, all but the last are computed where they are read, if they are maps
    that maps read. Gives the names of the blocks that are gone.
    """
    done: list[str] = []
    while result not in sch.func.buffers:
        now = replace(info, func=sch.func, sites=block_sites(sch.func))
        readers = now.consumers(result)
        if not all(reader.name in info.pending for reader in readers):
            return done
        inner = [reader for reader in readers if _is_inner_map(now, reader)]
        try:
            if len(readers) == 1:
                (reader,) = readers
                sch.reverse_compute_inline(sch.get_block(reader.name))
                result = reader.writes[0].buffer
            elif inner:
                reader = inner[0]
                sch.compute_inline(sch.get_block(reader.name))
            else:
                return done
        except ScheduleError:
            return done
        done.append(reader.name)
    return done


def _is_inner_map(info: KernelInfo, block: Block) -> bool:
    """Whether a block is a map whose result only maps read."""
    output = block.writes[0].buffer
    readers = info.consumers(output)
    return (
        len(block.writes) == 1
        and output not in info.func.buffers
        and bool(readers)
        and all(info.kind(item.name) <= PatternKind.INJECTIVE for item in (block, *readers))
    )


def _name(sch: Schedule, block: BlockRV) -> str:
    return sch.get(block).name
