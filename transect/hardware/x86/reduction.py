"""How reductions over rows are scheduled on x86: softmax, layer normalization, sums and maxima.

One row at a time goes through all blocks while it is in the first-level cache; a row's reduction
runs in several vectors of partial results, which are combined at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.elementwise import (
    inline_producers,
    line_vectors,
    operations_of,
    parallel_site,
    unroll_steps,
    vectorize_loop,
)
from transect.hardware.x86.streams import bytes_ahead, fetch_ahead, fetch_site
from transect.ir.expr import Expr, Var, as_int
from transect.ir.sizes import product
from transect.ir.traverse import walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.blocks import BlockSite
from transect.tir.analysis.pattern import PatternKind
from transect.tir.buffer import BufferLoad
from transect.tir.schedule import BlockRV, LoopRV, Schedule, subject_of
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, BufferStore, IterVar

_WRITTEN_OUT = 1 << 10
"""Bytes of a row, or of several rows at once, that are worth writing out."""
_FREE_OPERATIONS = 2
"""What is repeated for every element rather than kept for a row: a copy, or one operation."""


@dataclass(frozen=True)
class RowReductionRule(ScheduleRule):
    """Chains of reductions over the last dimension and maps around them, fused row by row.

    widths: how many vectors of partial results a reduction may keep. at_once: how many rows may
    be worked on at once, if they are short: while the lanes of one are combined, step by step,
    another is computed. inline_limit: operations of a producer that are worth repeating at each of
    several readers.
    """

    widths: tuple[int, ...] = (1, 2, 4)
    at_once: tuple[int, ...] = (1, 2)
    inline_limit: int = 8
    name: ClassVar[str] = "x86.rows"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        blocks = info.blocks()
        kinds = [info.kind(block.name) for block in blocks]
        if PatternKind.REDUCTION not in kinds or max(kinds) > PatternKind.REDUCTION:
            return False
        return all(
            last_axis(block) is not None
            for block, kind in zip(blocks, kinds, strict=True)
            if kind is PatternKind.REDUCTION
        )

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        subject = subject_of(info.func)
        reductions = self._reductions(info)
        widths = tuple(self._width_site(site, subject, target) for site in reductions)
        parallel = parallel_site(info.site(info.pending[-1]), subject, target)
        rows = self._at_once_site(info, subject, target)
        return (*widths, rows, parallel, fetch_site(info, subject, target))

    def _at_once_site(self, info: KernelInfo, subject: str, target: Target) -> Site:
        """How many rows are worked on at once."""
        last = info.site(info.pending[-1])
        dtype = last.block.writes[0].buffer.dtype
        spatial = list(last.iter_vars("spatial"))
        if not any(item.kind == "reduce" for item in last.block.iter_vars):
            spatial = spatial[:-1]
        count = as_int(spatial[-1].dom.extent) if spatial else None
        lengths = [as_int(axis.dom.extent) for axis in self._rows(info)]
        elements = product(item.dom.extent for item in last.block.iter_vars)
        options: list[Option] = []
        for rows in self.at_once:
            room = _WRITTEN_OUT // rows // dtype.bytes
            fits = all(length is not None and length <= room for length in lengths)
            if rows == 1 or (fits and count is not None and count % rows == 0):
                # Combining the lanes of a row takes about as long as its arithmetic.
                cost = Cost({dtype: elements}, efficiency=rows / (rows + 1))
                options.append(Option(f"{rows} at once", {"rows": rows}, cost))
        key = SiteKey("schedule", subject, str(target), f"{last.block.name}.rows")
        return Site(key, tuple(options), f"{last.block.name} rows at once")

    def _reductions(self, info: KernelInfo) -> list[BlockSite]:
        return [
            info.site(name) for name in info.pending if info.kind(name) is PatternKind.REDUCTION
        ]

    def _rows(self, info: KernelInfo) -> list[IterVar]:
        """What runs over the elements of a row, of each reduction."""
        found = (last_axis(site.block) for site in self._reductions(info))
        return [item for item in found if item is not None]

    def _width_site(self, site: BlockSite, subject: str, target: Target) -> Site:
        dtype = site.block.writes[0].buffer.dtype
        axis = last_axis(site.block)
        assert axis is not None
        extent = axis.dom.extent
        options: list[Option] = []
        vector = target.lanes(dtype)
        known = as_int(extent)
        if known is not None and known <= _WRITTEN_OUT // dtype.bytes:
            # All vectors of a row at once, in pairs: nothing is initialised and no chain waits.
            padded = -(-known // vector) * vector
            options.append(Option("all in pairs", {"width": 0}, Cost({dtype: padded})))
        for width in self.widths:
            lanes = width * target.lanes(dtype)
            # A chain of additions waits for each; several chains hide that, but round up more.
            padded = (extent + (lanes - 1)) // lanes * lanes
            cost = Cost({dtype: padded + lanes * 2}, efficiency=min(1.0, width / 4))
            options.append(Option(f"{width} vectors", {"width": width}, cost))
        key = SiteKey("schedule", subject, str(target), f"{site.block.name}.width")
        return Site(key, tuple(options), f"{site.block.name} partial results")

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        done = list(info.pending)
        last = info.site(info.pending[-1])
        ahead = bytes_ahead(sch, info, target)
        answer = sch.sample(self._at_once_site(info, sch.subject, target)).number("rows")
        inlined: set[str] = set()
        for block in info.blocks():
            inlined |= set(inline_producers(sch, info, block, self.inline_limit, keep=_once_a_row))
        order: list[BlockRV] = []
        partial: list[BlockRV] = []
        narrower: list[BlockRV] = []
        final: list[BlockRV] = []
        for name in (name for name in info.pending if name not in inlined):
            block = sch.get_block(name)
            if info.kind(name) is PatternKind.REDUCTION:
                chains, pairs = self._partial(sch, info.site(name), block, target)
                order += (*chains, *pairs)
                partial += chains
                narrower += pairs
                final.append(block)
                done += [sch.get(part).name for part in (*chains, *pairs)]
            order.append(block)
        rows = self._row_loops(sch, order[-1])
        # Rows that loops go over would follow each other.
        at_once = 1 if partial else answer
        if at_once > 1:
            rows[-1] = sch.split(rows[-1], [None, at_once])[0]
        if rows:
            for block in reversed(order[:-1]):
                sch.compute_at(block, rows[-1])
            # Not before: of a fused loop of unknown extent it is hard to tell which rows it has.
            row = sch.fuse(*rows) if len(rows) > 1 else rows[0]
            parallel = sch.sample(parallel_site(last, sch.subject, target))
            if parallel.flag("parallel"):
                sch.parallel(row)
        streams: list[tuple[LoopRV, int]] = []
        for block in order:
            dtype = sch.get(block).writes[0].buffer.dtype
            loops = sch.get_loops(block)[1 if rows else 0 :]
            if at_once > 1:
                # Partial results come before rows.
                across = loops.pop(1 if block in narrower else 0)
                sch.reorder(across, *loops)
                sch.unroll(across)
            if block in partial:
                streams += self._lanes(sch, block, loops, target.lanes(dtype))
            elif block in narrower:
                lane = self._lane(sch, block, loops)
                sch.reorder(lane, *(loop for loop in loops if loop is not lane))
                sch.fold_reduction(block)
                sch.set_scope(block, 0, "local")
                sch.vectorize(lane)
            elif block in final:
                sch.fold_reduction(block)
            elif loops and sch.get(block).writes[0].buffer not in sch.func.buffers:
                # One nest, whose last vector is cut off: whoever places the buffer sees all of a
                # row, and that no other one has to be kept.
                known = as_int(sch.get(loops[-1]).extent)
                vectors = max(self.widths) if known is None else line_vectors(dtype, target)
                if known is not None and known % (vectors * target.lanes(dtype)):
                    vectors = 1
                steps, vector, lane = sch.split(loops[-1], [None, vectors, target.lanes(dtype)])
                sch.vectorize(lane)
                sch.unroll(vector)
                if _few(sch, [steps], target.vector_registers // 2):
                    sch.unroll(steps)
            elif loops:
                steps = vectorize_loop(sch, loops[-1], target.lanes(dtype))
                # Half of the registers may hold a row between its passes.
                if steps is not None and _few(sch, [steps], target.vector_registers // 2):
                    sch.unroll(steps)
                elif steps is not None and line_vectors(dtype, target) > 1:
                    unroll_steps(sch, steps, line_vectors(dtype, target))
        length = as_int(self._rows(info)[0].dom.extent)
        if rows and length:
            # A row that is written out is fetched as a whole.
            read = at_once * length * _bytes_read(info.site(info.pending[0]).block)
            streams.append((sch.get_loops(order[0])[0], read))
        if streams:
            # What the first reduction has read is in the first-level cache for the others.
            loop, step = streams[0]
            fetch_ahead(sch, loop, step, ahead)
        return tuple(done)

    def _partial(
        self, sch: Schedule, site: BlockSite, block: BlockRV, target: Target
    ) -> tuple[list[BlockRV], list[BlockRV]]:
        """Partial results: in several vectors, in one vector, in half of its lanes, and so on.

        Gives those that are chains of additions, and those that are written out.
        """
        width = sch.sample(self._width_site(site, sch.subject, target)).number("width")
        vector = target.lanes(site.block.writes[0].buffer.dtype)
        lanes = max(1, width) * vector
        axis = last_axis(site.block)
        assert axis is not None
        position = site.block.iter_vars.index(axis)
        output = site.block.writes[0].buffer
        if output in sch.func.buffers:
            # The result itself cannot take a longer domain; an intermediate one can.
            sch.cache_write(block, 0, "local")
        multiples = [1] * len(site.block.iter_vars)
        multiples[position] = lanes
        sch.pad_domain(block, multiples)
        loop = sch.get_loops(block)[position]
        _, lane = sch.split(loop, [None, lanes])
        parts = [sch.rfactor(lane, -1)]
        while lanes > 2:
            lanes = vector if lanes > vector else lanes // 2
            _, lane = sch.split(sch.get_loops(block)[-1], [None, lanes])
            parts.append(sch.rfactor(lane, -1))
        return (parts[:1] if width else []), (parts[1:] if width else parts)

    def _row_loops(self, sch: Schedule, final: BlockRV) -> list[LoopRV]:
        """The loops of the last block over rows: all but that over a row's elements."""
        loops = sch.get_loops(final)
        block: Block = sch.get(final)
        spatial = [n for n, item in enumerate(block.iter_vars) if item.kind == "spatial"]
        reads_row = any(item.kind == "reduce" for item in block.iter_vars)
        return [loops[n] for n in (spatial if reads_row else spatial[:-1])]

    def _lanes(
        self, sch: Schedule, block: BlockRV, loops: list[LoopRV], lanes: int
    ) -> list[tuple[LoopRV, int]]:
        """Partial results as vectors in registers: steps outside, then vectors, then lanes.

        Gives the loop over steps, if it is one, and the bytes that it reads in each.
        """
        lane = self._lane(sch, block, loops)
        steps = [loop for loop in loops if loop is not lane]
        bytes_a_step = (as_int(sch.get(lane).extent) or lanes) * _bytes_read(sch.get(block))
        written_out = _few(sch, steps, max(self.widths))
        partial_vectors(sch, block, steps, lane, lanes, written_out=written_out)
        return [] if written_out else [(steps[-1], bytes_a_step)]

    def _lane(self, sch: Schedule, block: BlockRV, loops: list[LoopRV]) -> LoopRV:
        """The loop over partial results: the block's only spatial one left."""
        return next(loop for loop in loops if self._is_spatial(sch, block, loop))

    def _is_spatial(self, sch: Schedule, block: BlockRV, loop: LoopRV) -> bool:
        realize = Tree(sch.func).realize(sch.get(block))
        var = sch.get(loop).var
        return any(
            item.kind == "spatial" and _has(value, var)
            for item, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)
        )


def partial_vectors(
    sch: Schedule,
    block: BlockRV,
    steps: Sequence[LoopRV],
    lane: LoopRV,
    lanes: int,
    *,
    written_out: bool,
) -> None:
    """Partial results as vectors in registers: steps outside, then vectors, then lanes.

    steps: loops of the reduction, written out if asked for. lane: over the partial results.
    """
    several = (as_int(sch.get(lane).extent) or 0) > lanes
    inner = sch.split(lane, [None, lanes]) if several else [lane]
    sch.reorder(*steps, *inner)
    init = sch.decompose_reduction(block, [*steps, *inner][0])
    sch.set_scope(block, 0, "local")
    if written_out:
        for step in steps:
            sch.unroll(step)
    for nest in (inner, sch.get_loops(init)[-len(inner) :]):
        for loop in nest[:-1]:
            sch.unroll(loop)
        sch.vectorize(nest[-1])


def _once_a_row(producer: Block, reader: Block) -> bool:
    """Whether a producer has fewer instances than its reader, and does enough to pay for memory."""
    return _rank(producer) < _rank(reader) and operations_of(producer) > _FREE_OPERATIONS


def _rank(block: Block) -> int:
    return sum(as_int(item.dom.extent) != 1 for item in block.iter_vars)


def _bytes_read(block: Block) -> int:
    """Of the widest element that a block reads or writes."""
    return max(region.buffer.dtype.bytes for region in (*block.reads, *block.writes))


def _few(sch: Schedule, loops: list[LoopRV], limit: int) -> bool:
    extents = [as_int(sch.get(loop).extent) for loop in loops]
    return all(extent is not None and extent <= limit for extent in extents)


def last_axis(block: Block) -> IterVar | None:
    """The reduction variable that alone runs over the last dimension of what a block reads."""
    reduced = [item for item in block.iter_vars if item.kind == "reduce"]
    body = block.body
    if not reduced or not isinstance(body, BufferStore):
        return None
    loads = [
        term
        for term in walk(body.value)
        if isinstance(term, BufferLoad) and term.buffer is not body.buffer and term.indices
    ]
    last = [item for item in reduced if any(_has(load.indices[-1], item.var) for load in loads)]
    if len(reduced) == 1 and not last:
        last = reduced
    if len(last) != 1:
        return None
    own = last[0].var
    others = [item.var for item in block.iter_vars if item.var is not own]
    for load in loads:
        *outer, index = load.indices
        if any(_has(item, own) for item in outer):
            return None
        # A window that slides: neighbouring results read what overlaps.
        if _has(index, own) and any(_has(index, var) for var in others):
            return None
    return last[0]


def _has(expr: Expr, var: Var) -> bool:
    return any(item is var for item in walk(expr))
