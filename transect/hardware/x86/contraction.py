"""How matrix products and convolutions are scheduled on x86.

A register tile of rows x vectors accumulates over the whole reduction; the vector operand is read
in place or packed panel by panel into a buffer that stays in the second-level cache. See
benchmarks/kernels.py for what this reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.elementwise import operations_of
from transect.ir.dtype import DType
from transect.ir.expr import LE, Call, Expr, FloorMod, IntImm, Var, as_int, ceildiv, select
from transect.ir.structural import structural_hash
from transect.ir.traverse import free_vars, substitute, walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.affine import difference
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.pattern import PatternKind
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.stmt import Block, BufferStore, IterVar
from transect.tir.transform.inject_prefetch import PREFETCH

_FMA_LATENCY = 4
_LOADS_PER_CYCLE = 2
_PARTS = 100
"""Parts of a cycle that are counted."""
_PER_ROW, _PER_VECTOR = 0.15, 0.25
"""What each row and each vector of a tile adds to a step, in cycles, though loads run beside
multiply-adds: measured on products of 128 to 1024 rows."""
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
    are written out.
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
    name: ClassVar[str] = "x86.contraction"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        found = info.contractions()
        return bool(found) and roles(found[0]) is not None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        return self._sites(info.contractions()[0], target)

    def _sites(self, found: Contraction, target: Target) -> tuple[Site, ...]:
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
            Site(key("pack"), self._pack_options(found, part, target), f"{name} packing"),
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
            cycles = _cycles(height, part.column.dom.extent, (rows, vectors), part, target)
            padded = _padded(height, rows) * _padded(part.column.dom.extent, vectors * lanes)
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

    def _pack_options(self, found: Contraction, part: Roles, target: Target) -> tuple[Option, ...]:
        dtype = found.output.buffer.dtype
        held, other = (_bytes(found, load) for load in (part.columns, part.rows))
        outer: Expr = IntImm(1)
        for item in (*found.rows, *found.columns):
            if item not in (part.row, part.column):
                outer = outer * item.dom.extent
        # All columns for some rows read the one operand again and again, the other way round it is
        # the other; from where depends on its size. Where there are no more rows than those of a
        # tile's loop, both are one nest.
        by_rows = {_level(held, target): held * outer}
        by_columns = by_rows
        if as_int(outer) != 1:
            width = part.panel or _PANEL * target.lanes(dtype)
            panels = ceildiv(part.column.dom.extent, width)
            in_order = contiguous(part.rows, found.reduce[-1].var)
            again = other * panels * (1 if in_order else _SCATTERED)
            by_columns = {_level(other, target): again}
            panel = held * width // part.column.dom.extent
            if _level(panel, target) != "L2":
                by_columns["L3"] = by_columns.get("L3", IntImm(0)) + held * outer
        # What lies side by side is copied in vectors, anything else element by element.
        single = IntImm(0) if part.contiguous else held // dtype.bytes * (8 * target.lanes(dtype))
        copied = dict(by_columns)
        copied[_level(held, target)] = copied.get(_level(held, target), IntImm(0)) + held * 2
        packed = Option(
            "packed", {"pack": True, "columns_first": True}, Cost({dtype: single}, copied)
        )
        if not part.contiguous:
            return (packed,)
        slower: dict[DType, Expr] = {}
        if part.panel is None and not part.shared:
            # Rows far apart miss the first-level cache and its translation buffers; where they do
            # not fit the second level, they also evict each other from there, as their addresses
            # share low bits. In percent of the arithmetic (benchmarks/kernels.py).
            fits = LE(held, IntImm(_second_level(target)))
            slower[dtype] = found.operations * select(fits, IntImm(25), IntImm(200)) // 100
        direct = Option("direct", {"pack": False, "columns_first": False}, Cost(slower, by_rows))
        turned = Option(
            "direct, columns first",
            {"pack": False, "columns_first": True},
            Cost(slower, by_columns),
        )
        options = (direct,) if as_int(outer) == 1 else (direct, turned)
        return options if part.panel or part.shared else (*options, packed)

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
        tile, pack, parallel = (sch.sample(site).parameters for site in self._sites(found, target))
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
        if pack["pack"]:
            packed, axes = self._pack(sch, block, found, part, column)
            sch.pad_domain(packed, [multiples[axis] if axis == column else 1 for axis in axes])
        stage = self._stage(sch, copy, found)
        sch.pad_domain(block, multiples)
        if stage is not None:
            by_var = {i.var: m for i, m in zip(found.site.block.iter_vars, multiples, strict=True)}
            indices = found.output.indices
            sch.pad_domain(stage, [by_var[i] if isinstance(i, Var) else 1 for i in indices])
        blocks = _Blocks(block, copy, packed, stage)
        made = self._tile(
            sch, blocks, found, (row, column), (rows, vectors, lanes),
            columns_first=bool(pack["columns_first"]), parallel=bool(parallel["parallel"]),
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
        axes: tuple[int | None, int],
        tile: tuple[int, int, int],
        *,
        columns_first: bool,
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
        together = [*batch, columns, *rest] if columns_first else [*outer, columns]
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
            if producer is None or not isinstance(producer.body, BufferStore):
                continue
            operations = sum(not isinstance(t, Var) for t in walk(producer.body.value))
            calls = any(isinstance(t, Call) for t in walk(producer.body.value))
            if calls or operations > self.inline_limit or producer.init is not None:
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
    operand, and the results between registers and copy."""

    block: BlockRV
    copy: BlockRV
    packed: BlockRV | None
    stage: BlockRV | None

    def all(self) -> list[BlockRV]:
        """Those that there are."""
        found = (self.block, self.copy, self.packed, self.stage)
        return [item for item in found if item is not None]


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


def _cycles(height: Expr, width: Expr, tile: tuple[int, int], part: Roles, target: Target) -> Expr:
    """What one step of the reduction takes for all tiles of height x width results, in `_PARTS` of
    a cycle. What is left over has tiles of its own, as large as it is, if its size is known."""
    rows, vectors = tile
    lanes = target.lanes(part.columns.buffer.dtype)

    def one(rows: int, vectors: int) -> int:
        if not rows or not vectors:
            return 0
        products = rows * vectors
        busy = max(products / target.fma_per_cycle, _FMA_LATENCY)
        # Vectors come from the second-level cache and are used once a row, broadcast elements from
        # the first, once a vector; a depthwise convolution loads both for each multiply-add.
        loads = 2 * products if part.shared else rows + vectors
        busy = max(busy, loads / _LOADS_PER_CYCLE)
        # Rows that lie whole pages apart evict each other from the first-level cache.
        far = 0.25 * products / target.fma_per_cycle if rows > 8 and part.panel is None else 0.0
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
