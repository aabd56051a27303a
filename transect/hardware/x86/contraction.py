"""How matrix products and convolutions are scheduled on x86.

A register tile of rows x vectors accumulates over the whole reduction; the vector operand is read
in place or packed panel by panel into a buffer that stays in the second-level cache. See
benchmarks/kernels.py for what this reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.elementwise import operations_of, vectorize_loop
from transect.ir.dtype import DType
from transect.ir.expr import LE, Call, Expr, FloorMod, IntImm, Var, as_int, ceildiv, select
from transect.ir.structural import structural_hash
from transect.ir.traverse import free_vars, substitute, walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.plan.cost import Amount
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.affine import difference
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.pattern import PatternKind
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.stmt import Block, BufferStore, IterVar
from transect.tir.transform.inject_prefetch import PREFETCH

_FMA_LATENCY = 4
_LOADS_PER_CYCLE = 2
_VECTORS_PER_CYCLE = 0.34
"""Vectors that the second-level cache gives."""
_PARTS = 100
"""Parts of a cycle that are counted."""
_PER_ROW, _PER_VECTOR = 0.15, 0.2
"""What each row and each vector of a tile adds to a step, in cycles, though loads run beside
multiply-adds: measured on products of 128 to 1024 rows."""
_WINDOW = 2
"""Rows that a usual window needs beyond those of its results."""
_PANEL = 2
"""Vectors of a usual panel."""
_SCATTERED = 10
"""What reading broadcast elements that do not follow each other takes, in reads of such that do:
measured on convolutions of 7 to 56 pixels a row."""


@dataclass(frozen=True)
class Roles:
    """A contraction seen as rows times columns.

    column: the variable of the output's last dimension, which becomes vectors. row: the variable
    that is unrolled beside it, or None. columns: the operand that depends on `column` and not on
    `row`; rows: the other one. contiguous: whether the elements of `columns` for neighbouring
    columns lie side by side. panel: how many columns lie side by side before others come, None for
    all. shared: whether `rows` depends on `column` as well, as in a depthwise convolution, and so
    is read in vectors too.
    """

    column: IterVar
    row: IterVar | None
    columns: BufferLoad
    rows: BufferLoad
    contiguous: bool
    panel: int | None
    shared: bool


def roles(found: Contraction) -> Roles | None:
    """The roles of a contraction's variables, or None if it cannot be seen so: the last dimension
    is in both operands and one of them cannot be read in vectors along it."""
    last = found.output.indices[-1] if found.output.indices else None
    spatial = (*found.batch, *found.rows, *found.columns)
    column = next((item for item in spatial if item.var is last), None)
    if column is None:
        return None
    shared = column in found.batch
    if shared and bool(found.rows) == bool(found.columns):
        return None
    swapped = bool(found.columns) if shared else column in found.rows
    columns, rows = (found.left, found.right) if swapped else (found.right, found.left)
    candidates = found.columns if swapped else found.rows
    order = [index for index in found.output.indices if isinstance(index, Var)]
    in_order = sorted(
        (item for item in candidates if item.var in order), key=lambda item: order.index(item.var)
    )
    row = in_order[-1] if in_order else None
    panel = panel_width(columns, column.var)
    side_by_side = panel is not None or contiguous(columns, column.var)
    if shared and not (side_by_side and contiguous(rows, column.var)):
        return None
    return Roles(column, row, columns, rows, side_by_side, panel, shared)


def contiguous(load: BufferLoad, var: Var) -> bool:
    """Whether the elements that a load reads for neighbouring values of `var` are neighbours."""
    *outer, last = load.indices
    if any(item is var for index in outer for item in walk(index)):
        return False
    moved: dict[Var, Expr] = {var: var + 1}
    step = difference(substitute(last, moved), last)
    return step == 1 and not load.buffer.strides


def panel_width(load: BufferLoad, var: Var) -> int | None:
    """The width of the panels (`tir.schedule.layout.panel_axis`) that a load takes along `var`, if
    it does: it reads at var // width, …, var % width and nowhere else."""
    last = load.indices[-1]
    width = as_int(last.b) if isinstance(last, FloorMod) and last.a is var else None
    if width is None or as_int(load.buffer.shape[-1]) != width or load.buffer.strides:
        return None
    using = [index for index in load.indices[:-1] if var in free_vars((index,))]
    return width if len(using) == 1 and using[0] is var // width else None


@dataclass(frozen=True)
class ContractionRule(ScheduleRule):
    """Register-tiled contractions, for static and symbolic extents alike.

    tiles: (rows, vectors) of register tiles to choose from. inline_limit: how many operations of
    a producer are worth repeating where its result is read. unroll_limit: how many operations on
    each result are worth repeating in the code for every result of a tile. reduction_limit: how
    many multiply-adds of a tile's whole reduction are worth writing out. prefetch: how many steps
    of the reduction ahead vectors are fetched into the first-level cache. unroll: how many steps
    are written out. blocks: how many iterations of the loop around rows may be done at once.
    """

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
    reduction_limit: int = 128
    prefetch: int = 8
    unroll: int = 4
    blocks: tuple[int, ...] = (1, 2, 4, 7, 8, 14, 16, 28)
    name: ClassVar[str] = "x86.contraction"

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
            Site(key("tile"), self._tile_options(found, part, target), f"{name} register tile"),
            Site(key("order"), self._orders(info, found, part, target), f"{name} order"),
            Site(key("parallel"), self._parallel_options(found, target), f"{name} threads"),
        )

    def _tile_options(self, found: Contraction, part: Roles, target: Target) -> tuple[Option, ...]:
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
            short = partial(self._short, found.reduce)
            width = part.column.dom.extent
            cycles = _cycles(height, width, (rows, vectors, lanes), part, short, target)
            padded = _padded(height, rows) * _padded(width, vectors * lanes)
            panel = padded * steps * dtype.bytes // max(1, rows)
            # As many operations as the machine could have done in the time.
            work = steps * cycles * (2 * lanes * target.fma_per_cycle) // _PARTS
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
        the other; from where depends on its size. `block`: the iterations of the loop around rows
        that are done with all columns before the next ones are; 0 for all of them.
        """
        dtype = found.output.buffer.dtype
        held, other = (_bytes(found, load) for load in (part.columns, part.rows))
        width = part.panel or _PANEL * target.lanes(dtype)
        panels = ceildiv(part.column.dom.extent, width)
        in_order = contiguous(part.rows, found.reduce[-1].var)
        again = IntImm(1) if part.shared else panels * (1 if in_order else _SCATTERED)
        around = _around(found, part)
        slower: dict[DType, Expr] = {}
        if part.panel is None and not part.shared:
            # Rows far apart miss the first-level cache and its translation buffers; where they do
            # not fit the second level, they also evict each other from there, as their addresses
            # share low bits. In percent of the arithmetic (benchmarks/kernels.py).
            fits = LE(held, IntImm(_second_level(target)))
            slower[dtype] = found.operations * select(fits, IntImm(25), IntImm(200)) // 100
        options: list[Option] = []
        if part.contiguous:
            producer = _map_before(info, found, self.inline_limit)
            for block in self._blocks(around):
                cost = _order_cost(found, part, around, block, (held, other * again), target)
                cost = replace(cost, operations=slower)
                if producer is not None:
                    made = _made_in_blocks(producer, around, block, target)
                    cost = replace(cost, traffic=_sum(cost.traffic, made))
                name = f"direct, {block} at once" if block else "direct, columns first"
                options.append(Option(name, {"pack": False, "block": block}, cost))
        if part.panel is None and not part.shared:
            # What lies side by side is copied in vectors, anything else element by element.
            single = held // dtype.bytes * (0 if part.contiguous else 8 * target.lanes(dtype))
            cost = _order_cost(found, part, around, 0, (held, other * again), target)
            copied = _sum(cost.traffic, {_level(held, target): held * 2})
            cost = replace(cost, operations={dtype: single}, traffic=copied)
            options.append(Option("packed", {"pack": True, "block": 0}, cost))
        return tuple(options)

    def _blocks(self, around: IterVar | None) -> list[int]:
        """The numbers of iterations to do at once: those that divide all of them."""
        extent = 1 if around is None else as_int(around.dom.extent)
        if extent is None:
            return [1, 0]
        return [n for n in self.blocks if n < extent and extent % n == 0] + [0]

    def _parallel_options(self, found: Contraction, target: Target) -> tuple[Option, ...]:
        dtype = found.output.buffer.dtype
        # The tiles are counted as shared by all cores: one core alone has the rest to do as well.
        rest = found.operations * (target.cores - 1) // target.cores
        serial = Option("serial", {"parallel": False}, Cost({dtype: rest}, threads=1))
        if target.cores == 1:
            return (serial,)
        return (serial, Option("parallel", {"parallel": True}, Cost(launches=1)))

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        found = info.contractions()[0]
        part = roles(found)
        assert part is not None
        sites = self._sites(info, found, target)
        tile, order, parallel = (sch.sample(site).parameters for site in sites)
        rows, vectors = int(_number(tile["rows"])), int(_number(tile["vectors"]))
        lanes = target.lanes(found.output.buffer.dtype)
        block = sch.get_block(found.site.block.name)
        handled = self._inline_producers(sch, info, found)
        copy = sch.cache_write(block, 0, "local")
        handled += inline_consumers(sch, info, found.output.buffer)
        iter_vars = sch.get(block).iter_vars
        column = next(n for n, item in enumerate(iter_vars) if item.var is part.column.var)
        row = next(
            (n for n, i in enumerate(iter_vars) if part.row is not None and i.var is part.row.var),
            None,
        )
        multiples = [1] * len(iter_vars)
        multiples[column] = vectors * lanes
        if row is not None:
            multiples[row] = rows
        packed: BlockRV | None = None
        if order["pack"]:
            packed, axes = self._pack(sch, block, found, part, column)
            sch.pad_domain(packed, [multiples[axis] if axis == column else 1 for axis in axes])
        stage = self._stage(sch, copy, found)
        sch.pad_domain(block, multiples)
        if stage is not None:
            by_var = {i.var: m for i, m in zip(found.site.block.iter_vars, multiples, strict=True)}
            indices = found.output.indices
            sch.pad_domain(stage, [by_var[i] if isinstance(i, Var) else 1 for i in indices])
        at_once = int(_number(order["block"]))
        before = _map_before(info, found, self.inline_limit) if at_once else None
        producer = None if before is None else sch.get_block(before.name)
        blocks = _Blocks(block, copy, packed, stage, producer)
        made = self._tile(
            sch, blocks, found, part, (row, column), (rows, vectors, lanes),
            at_once=at_once, parallel=bool(parallel["parallel"]),
        )  # fmt: skip
        return (*handled, *(_name(sch, item) for item in (*blocks.all(), *made)))

    def _stage(self, sch: Schedule, copy: BlockRV, found: Contraction) -> BlockRV | None:
        """Where much is done with each result, a buffer between: what leaves the registers is
        unrolled, and the code for the rest should not be."""
        if operations_of(sch.get(copy)) <= self.unroll_limit:
            return None
        result = sch.get(copy)
        accumulated = sch.get_block(found.site.block.name)
        own = sch.get(accumulated).writes[0].buffer
        index = next(n for n, region in enumerate(result.reads) if region.buffer is own)
        return sch.cache_read(copy, index, "local", [copy])

    def _tile(
        self,
        sch: Schedule,
        blocks: _Blocks,
        found: Contraction,
        part: Roles,
        axes: tuple[int | None, int],
        tile: tuple[int, int, int],
        *,
        at_once: int,
        parallel: bool,
    ) -> list[BlockRV]:
        """Tile, and move the other blocks to the tiles; the blocks that this makes."""
        row, column = axes
        rows, vectors, lanes = tile
        block, copy = blocks.block, blocks.copy
        loops = sch.get_loops(block)
        iter_vars = found.site.block.iter_vars
        kinds = [item.kind for item in iter_vars]
        outer = [
            loop for n, loop in enumerate(loops) if kinds[n] == "spatial" and n not in (row, column)
        ]
        reduced = [loop for n, loop in enumerate(loops) if kinds[n] == "reduce"]
        # A loop of one step would be left out of the copies of the nest that are made later.
        widths = [None, vectors, lanes] if vectors > 1 else [None, lanes]
        columns, *lane_loops = sch.split(loops[column], widths)
        lane = lane_loops[-1]
        inner: list[LoopRV] = []
        both = {item.var for item in found.batch}
        batch = [
            loop for loop, item in zip(loops, iter_vars, strict=True)
            if loop in outer and item.var in both
        ]  # fmt: skip
        rest = [loop for loop in outer if loop not in batch]
        together = [*batch, columns, *rest]
        if at_once:
            around = _around(found, part)
            position = next(n for n, item in enumerate(iter_vars) if item is around)
            rest.remove(loops[position])
            several, one = sch.split(loops[position], [None, at_once])
            together = [*batch, *rest, several, columns, one]
        nest = list(together)
        if row is not None and rows > 1:
            row_tiles, unrolled = sch.split(loops[row], [None, rows])
            nest.append(row_tiles)
            inner.append(unrolled)
        elif row is not None:
            nest.append(loops[row])
        inner += lane_loops
        sch.reorder(*nest, *reduced, *inner)
        if blocks.stage is not None:
            sch.reverse_compute_at(blocks.stage, nest[-1])
        sch.reverse_compute_at(copy, nest[-1])
        if blocks.packed is not None:
            sch.compute_at(blocks.packed, columns)
            self._vectorize_last(sch, blocks.packed, lanes)
        if blocks.producer is not None:
            sch.compute_at(blocks.producer, together[-3])
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
        self._vectorize_last(sch, copy, lanes)
        # Constant indices everywhere let the accumulators live in registers.
        leaving = copy
        if blocks.stage is not None:
            leaving = blocks.stage
            self._vectorize_last(sch, leaving, lanes)
        for loop in sch.get_loops(leaving)[len(nest) :]:
            if sch.get(loop).kind == "serial":
                sch.unroll(loop)
        if self._short(found.reduce, rows * vectors):
            for loop in reduced:
                sch.unroll(loop)
        elif self._short(found.reduce[-1:], rows * vectors):
            sch.unroll(reduced[-1])
        elif rows <= 2:
            # Each vector is used once or twice: the tile waits for memory.
            sch.annotate(reduced[-1], PREFETCH, self.prefetch)
        else:
            made += unroll_steps(sch, reduced[-1], self.unroll)
        if blocks.packed is not None:
            # The packed panel stands between this loop and those inside.
            together = together[: together.index(columns) + 1]
        elif at_once:
            # What a block reads stands between, or should stay in a cache.
            together = together[:-2]
        if parallel:
            sch.parallel(sch.fuse(*together) if len(together) > 1 else columns)
        return made

    def _short(self, reduced: Sequence[IterVar], tile: int) -> bool:
        """Whether loops of a reduction are worth writing out, so that steps share what they load
        and no time goes into short loops."""
        steps = 1
        for item in reduced:
            steps *= as_int(item.dom.extent) or self.reduction_limit
        return steps * tile <= self.reduction_limit

    def _vectorize_last(self, sch: Schedule, block: BlockRV, lanes: int) -> None:
        last = sch.get_loops(block)[-1]
        if as_int(sch.get(last).extent) is None:
            return
        _, lane = sch.split(last, [None, lanes])
        sch.vectorize(lane)

    def _pack(
        self, sch: Schedule, block: BlockRV, found: Contraction, part: Roles, column: int
    ) -> tuple[BlockRV, list[int]]:
        """A copy of the vector operand whose last dimension is the column."""
        current = sch.get(block)
        used = {item.var for item in _used(found, part.columns)}
        axes = [n for n, i in enumerate(current.iter_vars) if i.var in used and n != column]
        axes.append(column)
        index = next(
            n for n, region in enumerate(current.reads) if region.buffer is part.columns.buffer
        )
        return sch.reindex_cache_read(block, index, "global", axes), axes

    def _inline_producers(self, sch: Schedule, info: KernelInfo, found: Contraction) -> list[str]:
        """Inline cheap producers of the operands; the others stay for other rules."""
        done: list[str] = []
        for operand in (found.left, found.right):
            producer = info.producer(operand.buffer)
            if producer is None or not _is_cheap(found, producer, self.inline_limit):
                continue
            try:
                sch.compute_inline(sch.get_block(producer.name))
            except ScheduleError:
                continue
            done.append(producer.name)
        return done


@dataclass(frozen=True)
class _Blocks:
    """The blocks of a contraction: itself, the copy to its output with what follows it, the packed
    operand, the results between registers and copy, and the map before it that is made in parts."""

    block: BlockRV
    copy: BlockRV
    packed: BlockRV | None
    stage: BlockRV | None
    producer: BlockRV | None

    def all(self) -> list[BlockRV]:
        """Those that there are."""
        found = (self.block, self.copy, self.packed, self.stage, self.producer)
        return [item for item in found if item is not None]


def _around(found: Contraction, part: Roles) -> IterVar | None:
    """The variable of the innermost loop around a tile's rows that is not the columns'."""
    shared = {item.var for item in found.batch}
    own = {part.column.var} if part.row is None else {part.column.var, part.row.var}
    spatial = [item for item in found.site.iter_vars("spatial") if item.var not in shared | own]
    return spatial[-1] if spatial else None


def _order_cost(
    found: Contraction,
    part: Roles,
    around: IterVar | None,
    block: int,
    operands: tuple[Expr, Expr],
    target: Target,
) -> Cost:
    """What moves where `block` iterations around rows are done for one panel after another.

    operands: the bytes of the panels, and of the rows times how often they are read.
    """
    held, other = operands
    outer: Expr = IntImm(1)
    for item in (*found.rows, *found.columns):
        if item not in (part.row, part.column):
            outer = outer * item.dom.extent
    if around is None or as_int(outer) == 1:
        return Cost(traffic={_level(held, target): held})
    extent = around.dom.extent
    at_once = extent if not block else IntImm(block)
    blocks = ceildiv(extent, at_once)
    dtype = found.output.buffer.dtype
    width = part.panel or _PANEL * target.lanes(dtype)
    panel = held * width // part.column.dom.extent
    traffic = {_level(held, target): held * (outer // extent) * blocks}
    if _level(panel, target) != "L2":
        traffic = {_level(panel, target): held * outer}
    traffic = _sum(traffic, {_level(other * at_once // extent, target): other})
    if not block or as_int(blocks) is None or target.cores == 1:
        return Cost(traffic=traffic)
    # Blocks are shared by the cores as wholes.
    count = as_int(blocks) or 1
    idle = -(-count // target.cores) * target.cores - count
    return Cost(traffic=traffic, calls=0.0, operations={dtype: found.operations * idle // count})


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


def _made_in_blocks(
    producer: Block, around: IterVar | None, block: int, target: Target
) -> dict[str, Expr]:
    """The bytes that move where a map is made in parts, for so many iterations at a time."""
    region = producer.writes[0].buffer
    size: Expr = IntImm(region.dtype.bytes)
    for extent in region.shape:
        size = size * extent
    if not block or around is None:
        return {_level(size, target): size * 2}
    extent = around.dom.extent
    # A window reaches into the rows of the next block.
    each = size * (block + _WINDOW) // extent
    return {_level(each, target): each * ceildiv(extent, block) * 2}


def _sum(*parts: Mapping[str, Amount]) -> dict[str, Amount]:
    total: dict[str, Amount] = {}
    for part in parts:
        for key, amount in part.items():
            total[key] = total[key] + amount if key in total else amount
    return total


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


def unroll_steps(sch: Schedule, loop: LoopRV, steps: int) -> list[BlockRV]:
    """Write out `steps` iterations of a loop at a time, what is left over one by one; the block of
    these, if any are left."""
    made: list[BlockRV] = []
    extent = sch.get(loop).extent
    known = as_int(extent)
    if known is None or known % steps:
        loop, rest = sch.loop_partition(loop, [extent // steps * steps, None])
        made = sch.get_child_blocks(rest)
    sch.unroll(sch.split(loop, [None, steps])[1])
    return made


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


def _cycles(
    height: Expr,
    width: Expr,
    tile: tuple[int, int, int],
    part: Roles,
    short: Callable[[int], bool],
    target: Target,
) -> Expr:
    """What one step of the reduction takes for all tiles of height x width results, in `_PARTS` of
    a cycle. What is left over has tiles of its own, as large as it is, if its size is known. short:
    whether all steps of a tile of so many vectors are written out."""
    # Lanes of the result: operands may be narrower.
    rows, vectors, lanes = tile

    def one(rows: int, vectors: int) -> int:
        if not rows or not vectors:
            return 0
        products = rows * vectors
        busy = max(products / target.fma_per_cycle, _FMA_LATENCY)
        # Vectors come from the second-level cache and are used once a row, broadcast elements from
        # the first, once a vector. A depthwise convolution loads both for each multiply-add, or, if
        # all of its steps are written out, what neighbouring windows share only once.
        loads = rows + vectors
        if part.shared:
            loads = (rows + 2) / 3 * vectors + vectors if short(products) else 2 * products
        busy = max(busy, loads / _LOADS_PER_CYCLE, vectors / _VECTORS_PER_CYCLE)
        # Many rows evict each other from the first-level cache where they lie whole pages apart.
        far = (0.1 if part.panel else 0.25) * products / target.fma_per_cycle if rows > 8 else 0.0
        waiting = _PER_ROW * rows + _PER_VECTOR * vectors + far
        return round(_PARTS * (busy + waiting))

    known = as_int(height), as_int(width)
    if known[0] is None or known[1] is None:
        area = _padded(height, rows) * _padded(width, vectors * lanes)
        return area * one(rows, vectors) // (rows * vectors * lanes)
    down, left = divmod(known[0], rows)
    across, last = divmod(-(-known[1] // lanes), vectors)
    return IntImm(
        down * (across * one(rows, vectors) + one(rows, last))
        + across * one(left, vectors)
        + one(left, last)
    )


def _padded(extent: Expr, multiple: int) -> Expr:
    """What tiles of `multiple` compute: an unknown extent leaves half a tile empty on average."""
    if as_int(extent) is None:
        return extent + multiple // 2
    return ceildiv(extent, multiple) * multiple


def _bytes(found: Contraction, load: BufferLoad) -> Expr:
    size: Expr = IntImm(load.buffer.dtype.bytes)
    for item in _used(found, load):
        size = size * item.dom.extent
    return size


def _level(size: Expr, target: Target) -> str:
    """The cache that holds so many bytes beside others; unknown sizes count as small."""
    return "L2" if (as_int(size) or 0) <= _second_level(target) // 2 else "L3"


def _second_level(target: Target) -> int:
    """The bytes of the second-level cache, or of the only one."""
    return target.caches[min(1, len(target.caches) - 1)]


def _used(found: Contraction, load: BufferLoad) -> list[IterVar]:
    inside = set(free_vars(load.indices))
    return [item for item in found.site.block.iter_vars if item.var in inside]


def _name(sch: Schedule, block: BlockRV) -> str:
    return sch.get(block).name


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
