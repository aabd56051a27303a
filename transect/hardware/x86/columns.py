"""How reductions over other dimensions than the last are scheduled on x86: column sums, pooling.

Neighbouring results are the lanes of vectors that stay in registers over the whole reduction. Rows
that are reduced to one value each are in `reduction`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.contraction import inline_consumers
from transect.hardware.x86.elementwise import (
    inline_producers,
    operations_of,
    parallel_site,
    vectorize_loop,
)
from transect.hardware.x86.reduction import last_axis
from transect.hardware.x86.roles import contiguous
from transect.ir.expr import Expr, IntImm
from transect.ir.sizes import ceildiv
from transect.ir.traverse import free_vars, walk
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.blocks import BlockSite
from transect.tir.analysis.pattern import PatternKind
from transect.tir.buffer import BufferLoad
from transect.tir.schedule import Schedule, subject_of
from transect.tir.stmt import BufferStore, IterVar

_CHAINS = 8
"""Independent additions that hide the latency of one."""


@dataclass(frozen=True)
class ColumnReductionRule(ScheduleRule):
    """Reductions that keep the last dimension of what they read, one at a time.

    widths: how many vectors of results are kept in registers at once. inline_limit: operations of
    a producer that are worth repeating at each of several readers.
    """

    widths: tuple[int, ...] = (1, 2, 4, 8, 16)
    inline_limit: int = 8
    name: ClassVar[str] = "x86.columns"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        return self._found(info) is not None

    def _found(self, info: KernelInfo) -> tuple[BlockSite, IterVar] | None:
        """The first reduction that the rule takes, with the variable of its columns."""
        for name in info.pending:
            if info.kind(name) in (PatternKind.REDUCTION, PatternKind.CONTRACTION):
                site = info.site(name)
                column = column_axis(site)
                if column is not None:
                    return site, column
        return None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        found = self._found(info)
        assert found is not None
        return self._sites(*found, subject_of(info.func), target)

    def _sites(
        self, site: BlockSite, column: IterVar, subject: str, target: Target
    ) -> tuple[Site, ...]:
        dtype = site.block.writes[0].buffer.dtype
        others: Expr = IntImm(operations_of(site.block))
        for item in site.block.iter_vars:
            if item is not column:
                others = others * item.dom.extent
        options: list[Option] = []
        for width in self.widths:
            lanes = width * target.lanes(dtype)
            padded = ceildiv(column.dom.extent, lanes) * lanes
            cost = Cost({dtype: padded * others}, efficiency=min(1.0, width / _CHAINS))
            options.append(Option(f"{width} vectors", {"width": width}, cost))
        key = SiteKey("schedule", subject, str(target), f"{site.block.name}.columns")
        width = Site(key, tuple(options), f"{site.block.name} columns at once")
        return (width, parallel_site(site, subject, target))

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        found = self._found(info)
        assert found is not None
        site, column = found
        output = site.block.writes[0].buffer
        lanes = target.lanes(output.dtype)
        answer, parallel = map(sch.sample, self._sites(site, column, sch.subject, target))
        width = answer.number("width")
        block = sch.get_block(site.block.name)
        done = [site.block.name]
        done += inline_producers(sch, info, site.block, self.inline_limit)
        copy = sch.cache_write(block, 0, "local")
        done += [sch.get(copy).name, *inline_consumers(sch, info, output)]
        kinds = [item.kind for item in site.block.iter_vars]
        position = site.block.iter_vars.index(column)
        sch.pad_domain(block, [width * lanes if n == position else 1 for n in range(len(kinds))])
        loops = sch.get_loops(block)
        outer = [loop for n, loop in enumerate(loops) if kinds[n] == "spatial" and n != position]
        reduced = [loop for n, loop in enumerate(loops) if kinds[n] == "reduce"]
        columns, vector, lane = sch.split(loops[position], [None, width, lanes])
        sch.reorder(*outer, columns, *reduced, vector, lane)
        sch.reverse_compute_at(copy, columns)
        init = sch.decompose_reduction(block, reduced[0])
        done.append(sch.get(init).name)
        for nest in ([vector, lane], sch.get_loops(init)[len(outer) + 1 :]):
            for loop in nest[:-1]:
                sch.unroll(loop)
            sch.vectorize(nest[-1])
        steps = vectorize_loop(sch, sch.get_loops(copy)[-1], lanes)
        if steps is not None:
            # Constant indices let the accumulators live in registers.
            sch.unroll(steps)
        together = [*outer, columns]
        if parallel.flag("parallel"):
            sch.parallel(sch.fuse(*together) if len(together) > 1 else columns)
        return tuple(done)


def column_axis(site: BlockSite) -> IterVar | None:
    """The spatial variable of the output's last dimension, if a reduction that reads it side by
    side, or not over a last dimension, may use it as lanes."""
    store = site.only_store()
    if store is None or not isinstance(site.block.body, BufferStore) or not store.indices:
        return None
    last = store.indices[-1]
    column = next((i for i in site.iter_vars("spatial") if i.var is last), None)
    if column is None or any(
        item.kind not in ("spatial", "reduce") for item in site.block.iter_vars
    ):
        return None
    loads = [
        item
        for item in walk(store.value)
        if isinstance(item, BufferLoad) and item.buffer is not store.buffer
    ]
    using = [load for load in loads if column.var in free_vars(load.indices)]
    if not using:
        return None
    side_by_side = all(contiguous(load, column.var) for load in using)
    return column if side_by_side or last_axis(site.block) is None else None
