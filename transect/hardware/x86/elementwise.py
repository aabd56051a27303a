"""How elementwise programs, copies and gathers are scheduled on x86: parallel rows of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.streams import LINE, bytes_ahead, fetch_ahead, fetch_site
from transect.ir.dtype import DType
from transect.ir.expr import Call, Expr, IntImm, Var, as_int
from transect.ir.sizes import product
from transect.ir.traverse import free_vars, walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.analysis.blocks import BlockSite
from transect.tir.analysis.pattern import PatternKind
from transect.tir.analysis.regions import buffer_bytes
from transect.tir.buffer import BufferLoad
from transect.tir.op import without_checks
from transect.tir.schedule import BlockRV, LoopRV, Schedule, subject_of
from transect.tir.stmt import Block, BufferStore
from transect.tir.transform.transpose_tiles import TRANSPOSE

_CALL_COST = 16
"""Operations that an elementary function counts as."""
_ELEMENTS = 256
"""Of how many elements of each of a few rows, which become columns, a core takes care at a time."""


def operations_of(block: Block) -> int:
    """Scalar operations of one instance, elementary functions counted as several."""
    total = 1
    body = block.body
    if isinstance(body, BufferStore):
        for term in walk(without_checks(body.value)):
            total += _CALL_COST if isinstance(term, Call) else 0
            total += isinstance(term, Expr) and not isinstance(term, Var | BufferLoad | IntImm)
    return total


def cost_of(site: BlockSite, *, threads: int | None = None, launches: int = 0) -> Cost:
    """The predicted cost of all instances of a block."""
    count = product(item.dom.extent for item in site.block.iter_vars)
    dtype = site.block.writes[0].buffer.dtype
    traffic: Expr = IntImm(0)
    for region in (*site.block.reads, *site.block.writes):
        traffic = traffic + buffer_bytes(region.buffer)
    return Cost(
        {dtype: count * operations_of(site.block)},
        {"memory": traffic},
        launches=launches,
        efficiency=0.5,
        threads=threads,
    )


def parallel_site(site: BlockSite, subject: str, target: Target) -> Site:
    """Whether a nest runs on several cores."""
    key = SiteKey("schedule", subject, str(target), f"{site.block.name}.parallel")
    serial = Option("serial", {"parallel": False}, cost_of(site, threads=1))
    parallel = Option("parallel", {"parallel": True}, cost_of(site, launches=1))
    options = (serial,) if target.cores == 1 else (serial, parallel)
    return Site(key, options, f"{site.block.name} threads")


def vectorize_loop(sch: Schedule, loop: LoopRV, lanes: int) -> LoopRV | None:
    """Run the full vectors of `loop` as vectors and what is left as one with a mask.

    Gives the loop over the full vectors; None if the loop is known to be too short for one.
    """
    known = as_int(sch.get(loop).extent)
    if known is not None and known < max(lanes // 4, 4):
        # Written out: AVX2 stores with a mask take longer than a few elements.
        sch.unroll(loop)
        return None
    if known is not None and known <= lanes:
        if known < lanes:
            (_, loop) = sch.split(loop, [1, lanes])
        sch.vectorize(loop)
        return None
    extent = sch.get(loop).extent
    if known is None or known % lanes:
        loop, rest = sch.loop_partition(loop, [extent // lanes * lanes, None])
        sch.vectorize(sch.split(rest, [None, lanes])[1])
    steps, lane = sch.split(loop, [None, lanes])
    sch.vectorize(lane)
    return steps


def unroll_steps(sch: Schedule, loop: LoopRV, steps: int) -> tuple[LoopRV, list[BlockRV]]:
    """Write out `steps` iterations of a loop at a time, what is left over one by one: the loop over
    these groups, and the block of the rest, if there is any."""
    made: list[BlockRV] = []
    extent = sch.get(loop).extent
    known = as_int(extent)
    if known is None or known % steps:
        loop, rest = sch.loop_partition(loop, [extent // steps * steps, None])
        made = sch.get_child_blocks(rest)
    groups, step = sch.split(loop, [None, steps])
    sch.unroll(step)
    return groups, made


def line_vectors(dtype: DType, target: Target) -> int:
    """How many vectors to work on at a time where their order does not matter: those of a cache
    line. Constants are loaded once for them, and a loop fetches whole lines ahead."""
    return max(1, LINE // (target.lanes(dtype) * dtype.bytes))


@dataclass(frozen=True)
class ElementwiseRule(ScheduleRule):
    """Maps: inline what is cheap, run rows on different cores and neighbours as vectors.

    inline_limit: operations of a producer that are worth repeating at each of several readers.
    """

    inline_limit: int = 8
    name: ClassVar[str] = "x86.elementwise"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        return info.kind(info.pending[-1]) <= PatternKind.INJECTIVE

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        site, subject = info.site(info.pending[-1]), subject_of(info.func)
        return (parallel_site(site, subject, target), fetch_site(info, subject, target))

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        site = info.site(info.pending[-1])
        block = sch.get_block(site.block.name)
        done = [site.block.name, *inline_producers(sch, info, site.block, self.inline_limit)]
        answer = sch.sample(parallel_site(site, sch.subject, target))
        ahead = bytes_ahead(sch, info, target)
        dtype = max(
            (r.buffer.dtype for r in (*site.block.reads, *site.block.writes)),
            key=lambda kind: kind.bits,
        )
        loops = sch.get_loops(block)
        if not loops:
            return tuple(done)
        across = _turned_axis(sch.get(block))
        if across is not None:
            vectors = line_vectors(dtype, target)
            together = _tile(sch, loops, across, target.lanes(dtype), vectors)
            if answer.flag("parallel"):
                sch.parallel(sch.fuse(*together))
            return tuple(done)
        if _same_everywhere(sch.get(block)):
            loops = [sch.fuse(*loops)]
        steps = vectorize_loop(sch, loops[-1], target.lanes(dtype))
        if steps is not None:
            vectors = line_vectors(dtype, target)
            if vectors > 1:
                steps, _ = unroll_steps(sch, steps, vectors)
            fetch_ahead(sch, steps, vectors * target.lanes(dtype) * dtype.bytes, ahead)
        if answer.flag("parallel"):
            _parallelize(sch, loops[:-1], steps)
        return tuple(done)


def _turned_axis(block: Block) -> int | None:
    """Of a transposing block, which variable runs over neighbours in what it reads, while that of
    its last dimension strides; None for other blocks."""
    body = block.body
    own = [item.var for item in block.iter_vars]
    if not isinstance(body, BufferStore) or list(body.indices) != own or len(own) < 2:
        return None
    for term in walk(body.value):
        if not isinstance(term, BufferLoad) or len(term.indices) < 2:
            continue
        *outer, last = term.indices
        if last in own[:-1] and own[-1] in outer:
            return own.index(last)  # pyright: ignore[reportArgumentType]
    return None


def _tile(
    sch: Schedule, loops: list[LoopRV], across: int, lanes: int, vectors: int
) -> list[LoopRV]:
    """Square tiles of cache lines over the loop `across` and the last one, in squares of `lanes` by
    `lanes`, which are turned in registers: what is read side by side is used at once, and lines are
    read and written whole. A few rows or columns are copied element by element. vectors: of a cache
    line.

    Gives the loops around the tiles.
    """
    turned, last = loops[across], loops[-1]
    outer = [loop for loop in loops if loop not in (turned, last)]
    for few, many in ((last, turned), (turned, last)):
        known = as_int(sch.get(few).extent)
        if known is not None and known <= lanes // 2:
            # Channels of an image: most of a vector would be empty.
            parts, element = sch.split(many, [None, _ELEMENTS])
            sch.reorder(*outer, parts, element, few)
            sch.unroll(few)
            return [*outer, parts]
    rows, *some, row = sch.split(turned, [None, vectors, lanes] if vectors > 1 else [None, lanes])
    columns, *more, lane = sch.split(last, [None, vectors, lanes] if vectors > 1 else [None, lanes])
    sch.reorder(*outer, rows, columns, *some, *more, row, lane)
    sch.annotate(row, TRANSPOSE, True)
    sch.vectorize(lane)
    return [*outer, rows, columns]


def _parallelize(sch: Schedule, outer: list[LoopRV], inner: LoopRV | None) -> None:
    if outer:
        sch.parallel(sch.fuse(*outer) if len(outer) > 1 else outer[0])
    elif inner is not None:
        sch.parallel(inner)


def _same_everywhere(block: Block) -> bool:
    """Whether all accesses are at the block's variables in order, over whole compact buffers."""
    body = block.body
    own = tuple(item.var for item in block.iter_vars)
    if not isinstance(body, BufferStore) or body.indices != own:
        return False
    shape = tuple(item.dom.extent for item in block.iter_vars)
    loads = [term for term in walk(body.value) if isinstance(term, BufferLoad)]
    buffers = [body.buffer, *(load.buffer for load in loads)]
    return (
        # Quotients by what is not a constant stay in the indices.
        all(as_int(extent) is not None for extent in shape[1:])
        and all(load.indices == own for load in loads)
        and all(buffer.shape == shape and not buffer.strides for buffer in buffers)
        and not set(free_vars([body.value])) & set(own) - _index_vars(loads)
    )


def _index_vars(loads: list[BufferLoad]) -> set[Var]:
    return set(free_vars([index for load in loads for index in load.indices]))


def inline_producers(
    sch: Schedule,
    info: KernelInfo,
    block: Block,
    limit: int,
    keep: Callable[[Block, Block], bool] = lambda producer, reader: False,
) -> list[str]:
    """Inline the spatial producers of a block, and theirs, unless that repeats much work or `keep`
    tells not to, of a producer and its reader."""
    done: list[str] = []
    waiting = [block]
    while waiting:
        reader = waiting.pop()
        for region in reader.reads:
            producer = info.producer(region.buffer)
            if producer is None or producer.name not in info.pending or producer.name in done:
                continue
            if info.kind(producer.name) > PatternKind.INJECTIVE:
                continue
            readers = info.consumers(region.buffer)
            if keep(producer, reader):
                continue
            if len(readers) > 1 and operations_of(producer) > limit:
                continue
            try:
                sch.compute_inline(sch.get_block(producer.name))
            except ScheduleError:
                continue
            done.append(producer.name)
            waiting.append(producer)
    return done
