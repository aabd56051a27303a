"""How matrix products become instructions that multiply and add more than vectors of results.

A register tile of rows x instructions accumulates over the whole sum; the operand that holds the
columns lies in tiles already, where `PackConstants` put it. Which instructions
there are says `hardware.instructions`; plain products are scheduled in `contraction`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from transect.hardware.instructions import instructions_of, is_narrow, rate_of
from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.contraction import (
    ContractionRule,
    inline_consumers,
    parallel_options,
    stage_results,
)
from transect.hardware.x86.elementwise import unroll_steps
from transect.ir.expr import Call, Expr, IntImm, Var, as_int
from transect.ir.sizes import ceildiv
from transect.ir.structural import structural_hash
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.tensor_candidate import TensorCandidate, candidates
from transect.tir.intrinsics import LLVM_CALLS
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.tensor_intrin import TensorIntrin
from transect.tir.visit import walk_terms

_LOOPS = "loops"
_LATENCY = 5
"""Cycles from one accumulation to the next."""
_LOADS_PER_CYCLE = 2
_PER_STEP = 0.5
"""What a step of the sum takes besides, in cycles."""
_PER_FORM = 0.5
"""Cycles that one more form of an operand takes."""


@dataclass(frozen=True)
class TensorizedRule(ScheduleRule):
    """Products by tensor intrinsics that do more per cycle than multiply-adds of vectors.

    heights, widths: rows and instructions side by side of register tiles to choose from, in
    all combinations that the registers hold. unroll_limit: how many operations on each
    result are worth repeating in the code for every result of a tile. steps: how many of the sum
    are written out. plain: schedules the product if loops are chosen.
    """

    heights: tuple[int, ...] = (1, 2, 4, 6, 8, 12, 14)
    widths: tuple[int, ...] = (1, 2, 3, 4)
    unroll_limit: int = 8
    steps: int = 4
    plain: ContractionRule = field(default_factory=ContractionRule)
    name: ClassVar[str] = "x86.tensorized"

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        # Which instructions there are depends on the target; there may be loops alone.
        return self.plain.matches(info) and is_narrow(info.contractions()[0])

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        found = info.contractions()[0]
        choices = self._candidates(found, target)
        return (self._site(found, choices, self.plain.space(info, target), target),)

    def _candidates(self, found: Contraction, target: Target) -> tuple[TensorCandidate, ...]:
        lanes = target.lanes(found.output.buffer.dtype)
        plain = target.fma_per_cycle * lanes
        return tuple(
            item
            for item in candidates(found, instructions_of(target))
            # Loops convert operands besides.
            if rate_of(item.intrin, target) * item.products >= plain
            and item.is_tiled()
            and self._tiles(item, target)
        )

    def _site(
        self,
        found: Contraction,
        choices: tuple[TensorCandidate, ...],
        plain: tuple[Site, ...],
        target: Target,
    ) -> Site:
        key = self._key(found, target, "instruction")
        options = [
            Option(item.intrin.name, {}, Cost(), (self._tile_site(item, target),))
            for item in choices
        ]
        # Operands are converted wherever they are used; of integers there is no multiply-add, and
        # a multiplication is two operations.
        dtype = found.output.buffer.dtype
        more = found.operations // 2 + (found.operations * 2 if dtype.is_integral else 0)
        options.append(Option(_LOOPS, {}, Cost({dtype: more}), plain))
        return Site(key, tuple(options), f"{found.site.block.name} instruction")

    def _key(self, found: Contraction, target: Target, role: str) -> SiteKey:
        # Fusing other blocks with the contraction leaves its block as it is, and so its keys.
        return SiteKey("schedule", structural_hash(found.site.block), str(target), role)

    def _tile_site(self, item: TensorCandidate, target: Target) -> Site:
        found = item.contraction
        key = self._key(found, target, f"{item.intrin.name} tile")
        parallel = self._parallel_site(item, target)
        label = f"{found.site.block.name} tile of {item.intrin.name}"
        options = [replace(each, children=(parallel,)) for each in self._tiles(item, target)]
        return Site(key, tuple(options), label)

    def _tiles(self, item: TensorCandidate, target: Target) -> list[Option]:
        """The register tiles that there is room for."""
        found = item.contraction
        dtype = found.output.buffer.dtype
        panels = ceildiv(item.column.dom.extent, item.lanes)
        height: Expr = IntImm(1) if item.row is None else item.row.dom.extent
        steps: Expr = IntImm(1)
        for each in found.site.block.iter_vars:
            if each is item.reduce:
                steps = steps * ceildiv(each.dom.extent, item.group)
            elif each is not item.row and each is not item.column:
                steps = steps * each.dom.extent
        registers = max(1, item.lanes * dtype.bits // target.vector_bits)
        # Where it takes several instructions, each has its own form of the operands.
        forms = _calls(item.intrin)
        options: list[Option] = []
        for rows in self.heights:
            if rows % item.rows or (rows > item.rows and item.row is None):
                continue
            for width in self.widths:
                if registers * (rows + forms) * width + forms > target.vector_registers:
                    continue
                known = as_int(panels)
                if width > 1 and (known is None or known % width):
                    continue
                count = rows // item.rows * width
                needed = count / rate_of(item.intrin, target)
                needed += _PER_FORM * (forms - 1) * (rows + width)
                busy = max(needed, _LATENCY, (rows + width) / _LOADS_PER_CYCLE)
                tiles = ceildiv(height, rows) * (panels // width if width > 1 else panels)
                # As many operations as the machine's vectors could have done in the time.
                speed = 2 * target.fma_per_cycle * target.lanes(dtype)
                work = tiles * steps * round((busy + _PER_STEP) * speed)
                parameters = {"rows": rows, "width": width}
                options.append(Option(f"{rows}x{width}", parameters, Cost({dtype: work})))
        return options

    def _parallel_site(self, item: TensorCandidate, target: Target) -> Site:
        found = item.contraction
        dtype = found.output.buffer.dtype
        per = max(1.0, rate_of(item.intrin, target) * item.products / target.fma_per_cycle)
        work = found.operations * target.lanes(dtype) // round(per)
        options = parallel_options(dtype, work, target)
        key = self._key(found, target, f"{item.intrin.name} parallel")
        return Site(key, options, f"{found.site.block.name} threads")

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        found = info.contractions()[0]
        choices = self._candidates(found, target)
        site = self._site(found, choices, self.plain.space(info, target), target)
        chosen = sch.sample(site)
        if chosen.name == _LOOPS:
            return self.plain.apply(sch, info, target)
        item = next(each for each in choices if each.intrin.name == chosen.name)
        tile = sch.sample(self._tile_site(item, target))
        parallel = sch.sample(self._parallel_site(item, target)).flag("parallel")
        rows, width = tile.number("rows"), tile.number("width")
        return self._schedule(sch, info, item, rows, width, parallel=parallel)

    def _schedule(
        self,
        sch: Schedule,
        info: KernelInfo,
        item: TensorCandidate,
        rows: int,
        width: int,
        *,
        parallel: bool,
    ) -> tuple[str, ...]:
        found = item.contraction
        block = sch.get_block(found.site.block.name)
        copy = sch.cache_write(block, 0, "local")
        done = inline_consumers(sch, info, found.output.buffer)
        iter_vars = sch.get(block).iter_vars
        by_var = {item.column.var: item.lanes * width}
        if item.row is not None:
            by_var[item.row.var] = rows
        stage = stage_results(sch, block, copy, self.unroll_limit)
        sch.pad_domain(block, [by_var.get(each.var, 1) for each in iter_vars])
        if stage is not None:
            places = [by_var.get(i, 1) if isinstance(i, Var) else 1 for i in found.output.indices]
            sch.pad_domain(stage, places)
        made = [block, copy] if stage is None else [block, copy, stage]
        done += [sch.get(each).name for each in made]
        loops = dict(zip((each.var for each in iter_vars), sch.get_loops(block), strict=True))
        outer = [
            loops[each.var]
            for each in iter_vars
            if each.kind == "spatial" and each.var not in by_var
        ]
        sums = [
            loops[each.var] for each in iter_vars if each.kind == "reduce" and each != item.reduce
        ]
        columns, wide, lane = sch.split(loops[item.column.var], [None, width, item.lanes])
        nest = [*outer, columns]
        inner = [wide]
        instruction: list[LoopRV] = [lane]
        if item.row is not None:
            down, high, low = sch.split(loops[item.row.var], [None, rows // item.rows, item.rows])
            nest.append(down)
            inner.insert(0, high)
            instruction.insert(0, low)
        last = None if item.reduce is None else loops[item.reduce.var]
        sch.reorder(*nest, *sums, *([] if last is None else [last]), *inner, *instruction)
        if stage is not None:
            sch.reverse_compute_at(stage, nest[-1])
        sch.reverse_compute_at(copy, nest[-1])
        first = (*sums, *([] if last is None else [last]))[0]
        init = sch.decompose_reduction(block, first)
        done.append(sch.get(init).name)
        if last is not None:
            done += self._sum(sch, item, last, inner, instruction)
        called = sch.tensorize(instruction[0], item.intrin.name)
        done.append(sch.get(called).name)
        for loop in inner:
            sch.unroll(loop)
        if last is not None and rows * width > 2:
            steps = sch.get_loops(called)[len(nest) + len(sums)]
            done += [sch.get(left).name for left in unroll_steps(sch, steps, self.steps)[1]]
        self._in_registers(sch, init, len(nest), item.lanes)
        leaving = copy if stage is None else stage
        self._in_registers(sch, leaving, len(nest), item.lanes)
        if stage is not None:
            self._vectorize_last(sch, copy, item.lanes)
        if parallel:
            sch.parallel(sch.fuse(*nest) if len(nest) > 1 else nest[0])
        return tuple(done)

    def _sum(
        self,
        sch: Schedule,
        item: TensorCandidate,
        last: LoopRV,
        inner: list[LoopRV],
        instruction: list[LoopRV],
    ) -> list[str]:
        """Cut the sum into the groups that the instruction takes; what is left over is done by
        plain loops. Gives the names of new blocks."""
        made: list[str] = []
        assert item.reduce is not None
        extent = sch.get(last).extent
        known = as_int(extent)
        if known is None or known % item.group:
            whole = extent // item.group * item.group
            last, rest = sch.loop_partition(last, [whole, None])
            (left,) = sch.get_child_blocks(rest)
            made.append(sch.get(left).name)
            # As whole vectors, or the sums would have to be in memory.
            *unrolled, lane = sch.get_loops(left)[-len(inner) - len(instruction) :]
            sch.vectorize(lane)
            for loop in unrolled:
                sch.unroll(loop)
        steps, group = sch.split(last, [None, item.group])
        sch.reorder(steps, *inner, *instruction, group)
        return made

    def _in_registers(self, sch: Schedule, block: BlockRV, around: int, lanes: int) -> None:
        """Constant indices everywhere let the accumulators live in registers."""
        self._vectorize_last(sch, block, lanes)
        for loop in sch.get_loops(block)[around:]:
            if sch.get(loop).kind == "serial" and as_int(sch.get(loop).extent) is not None:
                sch.unroll(loop)

    def _vectorize_last(self, sch: Schedule, block: BlockRV, lanes: int) -> None:
        last = sch.get_loops(block)[-1]
        extent = as_int(sch.get(last).extent)
        if extent is None or extent == 1:
            return
        if extent > lanes:
            _, last = sch.split(last, [None, lanes])
        sch.vectorize(last)


def _calls(intrin: TensorIntrin) -> int:
    """How many instructions an intrinsic is."""
    terms = walk_terms(intrin.implementation.body)
    return sum(isinstance(t, Call) and t.op in LLVM_CALLS for t in terms)
