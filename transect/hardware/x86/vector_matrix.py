"""How products of a single row with a matrix are scheduled on x86.

They take as long as reading the matrix does, so it is read in order: several whole rows of it are
added to a row of results that stays in the first-level cache. See benchmarks/ops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.contraction import inline_consumers
from transect.hardware.x86.elementwise import parallel_site, vectorize_loop
from transect.hardware.x86.roles import Roles, roles
from transect.ir.expr import Expr, as_int
from transect.ir.structural import structural_hash
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.schedule import Schedule


@dataclass(frozen=True)
class VectorMatrixRule(ScheduleRule):
    """Products of one row with a matrix of many columns that lie side by side, or of an unknown
    number of them.

    least: columns from which on the rule applies, below them registers hold all results. most:
    columns that are worked on at once where their number is known, whose results stay in the
    first-level cache. unrolls: how many rows of the matrix may be added at once.
    """

    least: int = 512
    most: int = 4096
    unrolls: tuple[int, ...] = (2, 4, 8)
    name: ClassVar[str] = "x86.vector_matrix"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        return self._found(info) is not None

    def _found(self, info: KernelInfo) -> tuple[Contraction, Roles] | None:
        for found in info.contractions()[:1]:
            part = roles(found)
            if part is None or not part.contiguous or part.panel is not None:
                return None  # Panels lie in the order in which register tiles read them.
            if len(found.reduce) != 1:
                return None
            single = part.row is None or as_int(part.row.dom.extent) == 1
            columns = as_int(part.column.dom.extent)
            if single and (columns is None or columns >= self.least):
                return found, part
        return None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        found = self._found(info)
        assert found is not None
        return self._sites(found[0], target)

    def _sites(self, found: Contraction, target: Target) -> tuple[Site, ...]:
        block = found.site.block
        # Fusing other blocks with the contraction leaves its block as it is, and so its keys.
        subject = structural_hash(block)
        dtype = found.output.buffer.dtype
        options = tuple(
            Option(
                f"{rows} rows",
                {"rows": rows},
                # Results are loaded and stored once for so many multiply-adds.
                Cost({dtype: found.operations}, efficiency=rows / (2 * (rows + 2))),
            )
            for rows in self.unrolls
        )
        key = SiteKey("schedule", subject, str(target), "rows")
        rows = Site(key, options, f"{block.name} rows at once")
        return (rows, parallel_site(found.site, subject, target))

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        matched = self._found(info)
        assert matched is not None
        found, part = matched
        answer, parallel = map(sch.sample, self._sites(found, target))
        rows = answer.number("rows")
        name = found.site.block.name
        block = sch.get_block(name)
        copy = sch.cache_write(block, 0, "local")
        done = [name, sch.get(copy).name]
        done += inline_consumers(sch, info, found.output.buffer)
        lanes = target.lanes(found.output.buffer.dtype)
        items = found.site.block.iter_vars
        column, depth = items.index(part.column), items.index(found.reduce[0])
        columns, extent = part.column.dom.extent, found.reduce[0].dom.extent
        parts, vectors = self._parts(columns, lanes, target)
        multiples = {column: lanes * (vectors or 1), depth: rows}
        sch.pad_domain(block, [multiples.get(n, 1) for n in range(len(items))])
        steps, _ = sch.split(sch.get_loops(block)[depth], [None, rows])
        partial = sch.rfactor(steps, 0)
        *loops, steps = sch.get_loops(block)
        spatial = [item for item in items if item.kind == "spatial"]
        across = loops.pop(spatial.index(part.column))
        panels, vector, lane = sch.split(across, [parts, vectors, lanes])
        sch.reorder(*loops, panels, steps, vector, lane)
        sch.reverse_compute_at(copy, panels)
        sch.compute_at(partial, vector)
        init = sch.decompose_reduction(block, steps)
        *_, inside, row = sch.get_loops(partial)
        sch.reorder(row, inside)
        first = sch.decompose_reduction(partial, row)
        sch.unroll(row)
        done += [sch.get(made).name for made in (partial, first, init)]
        for made in (init, copy, first, partial, block):
            vectorize_loop(sch, sch.get_loops(made)[-1], lanes)
        if as_int(extent) is None or as_int(extent % rows) != 0:
            _, rest = sch.loop_partition(steps, [extent // rows, None])
            done += [sch.get(made).name for made in sch.get_child_blocks(rest)]
        together = [*loops, panels]
        if parallel.flag("parallel"):
            sch.parallel(sch.fuse(*together) if len(together) > 1 else panels)
        return tuple(done)

    def _parts(self, columns: Expr, lanes: int, target: Target) -> tuple[int | None, int | None]:
        """How many panels there are, or of how many vectors each is: as many as fit, in panels of
        one size, one a core at least. Of an unknown number of columns each core has its part."""
        known = as_int(columns)
        if known is None:
            return target.cores, None
        count = max(target.cores, -(-known // self.most))
        return None, -(-known // (count * lanes))
