"""How products between transforms are scheduled on x86, such as Winograd's convolutions.

Some rows of the image at a time: their transforms and products stay in the second-level cache. See
`tir.schedule.winograd` for the programs, and `product_nest` for the register tiles.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.contraction import ContractionRule, inline_consumers, parallel_options
from transect.hardware.x86.product_nest import Blocks, loops_of
from transect.hardware.x86.roles import Roles, roles
from transect.hardware.x86.tile_cost import (
    cache_of,
    idle,
    joined,
    loop_around,
    operand_bytes,
    waited_for,
)
from transect.ir.dtype import DType
from transect.ir.expr import Expr, FloorDiv, IntImm, Var, as_int
from transect.ir.sizes import ceildiv, product
from transect.ir.structural import structural_hash
from transect.plan import Cost, Option, Site, SiteKey
from transect.plan.cost import Amount
from transect.target import Target
from transect.tir.analysis.axes import loads_of
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.pattern import PatternKind
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.stmt import Block, IterVar

_FORTH, _BACK = 12, 8
"""Operations that an element takes on its way to the products, and a product on its way back, as
many as multiply-adds could be done in the time: measured on the convolutions of ResNet-50."""


@dataclass(frozen=True)
class WinogradRule(ScheduleRule):
    """Products whose operand a map makes, and of which another map takes several for a result.

    products: chooses and writes register tiles.

        for block of rows (parallel):
            for tiles, vectors of channels: all elements of one transform
            for elements, panels: register tiles over the tiles of a row
            for tiles, vectors of results: the results of one tile, and what follows them

    Where there are few rows, each of these nests may run over the whole image instead, so that
    filters are read once and cores share the elements.
    """

    products: ContractionRule = field(default_factory=ContractionRule)
    name: ClassVar[str] = "x86.winograd"
    transformed: ClassVar[bool] = True

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        return _transformed(info) is not None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        seen = _transformed(info)
        assert seen is not None
        return self._sites(seen, target)

    def _sites(self, seen: _Transformed, target: Target) -> tuple[Site, ...]:
        found = seen.found
        block = found.site.block
        subject = structural_hash(block)

        def key(role: str) -> SiteKey:
            return SiteKey("schedule", subject, str(target), role)

        tiles = self.products.tile_options(found, seen.part, target, subject)
        height, width = (as_int(item.dom.extent) or 0 for item in (seen.row, seen.part.column))
        lanes = target.lanes(found.output.buffer.dtype)
        whole = [
            option
            for option in tiles
            if height % option.number("rows") == 0
            and width % (option.number("vectors") * lanes) == 0
        ]
        dtype = found.output.buffer.dtype
        threads = parallel_options(dtype, found.operations, target)
        return (
            Site(
                key("tile"),
                tuple(whole or tiles),
                f"{block.name} register tile",
                scales=self.products.scales_of(found),
            ),
            Site(key("rows"), self._rows_options(seen, target), f"{block.name} rows at once"),
            Site(key("parallel"), threads, f"{block.name} threads"),
        )

    def _rows_options(self, seen: _Transformed, target: Target) -> tuple[Option, ...]:
        extent = as_int(seen.around.dom.extent) or 1
        options = [
            Option(f"{rows} rows", {"rows": rows}, _cost(seen, rows, target))
            for rows in range(1, extent + 1)
            if extent % rows == 0
        ]
        return (*options, Option("all images", {"rows": 0}, _cost(seen, 0, target)))

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        seen = _transformed(info)
        assert seen is not None
        tile, rows, threads = map(sch.sample, self._sites(seen, target))
        found, part = seen.found, seen.part
        lanes = target.lanes(found.output.buffer.dtype)
        block = sch.get_block(found.site.block.name)
        copy = sch.cache_write(block, 0, "local")
        handled = inline_consumers(sch, info, seen.back.writes[0].buffer)
        back = sch.get_block(seen.back.name)
        outer, tiles = self._tile_results(sch, seen, back, rows.number("rows"), lanes)
        forth = sch.get_block(seen.forth.name)
        before = [sch.get_block(item.name) for item in seen.before]
        parallel = threads.flag("parallel")
        if outer:
            for item in (copy, block, forth, *before):
                sch.compute_at(item, outer[-1], preserve_unit_loops=True)
        items = found.site.block.iter_vars
        made = self.products.nest.tile(
            sch, Blocks(block, copy), found, part,
            (items.index(seen.row), items.index(part.column)),
            (tile.number("rows"), tile.number("vectors"), lanes),
            at_once=0, parallel=parallel and not outer,
        )  # fmt: skip
        around = self._vectorize_transform(sch, seen, forth, lanes)
        nests = [tiles, around]
        for item in before:
            *rows_of, last = loops_of(sch, item)
            # One block, whatever is left over: blocks of rows share some of what several make.
            sch.vectorize(sch.split(last, [None, lanes])[1])
            nests.append(rows_of[:-1])
        if parallel:
            for loops in [outer] if outer else nests:
                sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])
        names = [sch.get(item).name for item in (block, copy, forth, back, *before, *made)]
        return (*handled, *names)

    def _tile_results(
        self, sch: Schedule, seen: _Transformed, back: BlockRV, rows: int, lanes: int
    ) -> tuple[list[LoopRV], list[LoopRV]]:
        """Write out the results of a tile. The loops around a block of so many rows of tiles, none
        where all are one block, and those around a row of tiles."""
        variables = [item.var for item in seen.back.iter_vars]
        loops = dict(zip(variables, loops_of(sch, back), strict=True))
        down, across, column = (loops.pop(var) for var in (seen.down, seen.across, seen.column))
        outer = list(loops.values())
        *blocks, tiles, row = sch.split(down, [None, *([rows] if rows else []), seen.steps[0]])
        along, pixel = sch.split(across, [None, seen.steps[1]])
        vector, lane = sch.split(column, [None, lanes])
        sch.reorder(*outer, *blocks, tiles, along, vector, row, pixel, lane)
        sch.unroll(row)
        sch.unroll(pixel)
        sch.vectorize(lane)
        around = [*outer, *blocks] if blocks else []
        return around, [*outer, tiles]

    def _vectorize_transform(
        self, sch: Schedule, seen: _Transformed, forth: BlockRV, lanes: int
    ) -> list[LoopRV]:
        """Write out all elements of one transform, of vectors of channels; the loops around a row
        of tiles."""
        variables = [item.var for item in seen.forth.iter_vars]
        loops = dict(zip(variables, loops_of(sch, forth), strict=True))
        *outer, last = seen.axes
        written = [loops[outer[axis]] for axis in seen.elements]
        vector, lane = sch.split(loops[last], [None, lanes])
        rest = [loops[var] for axis, var in enumerate(outer) if axis not in seen.elements]
        sch.reorder(*rest, vector, *written, lane)
        for loop in written:
            sch.unroll(loop)
        sch.vectorize(lane)
        return rest[:-1]


@dataclass(frozen=True)
class _Transformed:
    """A product between transforms.

    found, part: the product, and its roles. row, around: its variables of a row of tiles and of the
    rows. forth: the map that makes its operand; axes: its variables, in the order of the operand.
    before: maps that make what that reads, the last one first. back: the map that takes the
    products. elements: the axes of operand and products that run over one transform. down, across,
    column: the variables of `back` for the rows of results, the results of a row, and the columns.
    steps: how many results of a tile there are down and across.
    """

    found: Contraction
    part: Roles
    row: IterVar
    around: IterVar
    forth: Block
    axes: tuple[Var, ...]
    before: tuple[Block, ...]
    back: Block
    elements: tuple[int, ...]
    down: Var
    across: Var
    column: Var
    steps: tuple[int, int]


def _transformed(info: KernelInfo) -> _Transformed | None:
    """The product between transforms of a program, None if it has none."""
    products = info.contractions()
    part = roles(products[0]) if len(products) == 1 else None
    if part is None or part.row is None or part.shared or not part.contiguous:
        return None
    found, row = products[0], part.row
    around = loop_around(found, part)
    forth = _map(info, info.producer(part.rows.buffer))
    readers = info.consumers(found.output.buffer)
    back = _map(info, readers[0]) if len(readers) == 1 else None
    if around is None or forth is None or back is None or not found.batch:
        return None
    axis = {index: n for n, index in enumerate(found.output.indices)}
    store, made = info.site(back.name).only_store(), info.site(forth.name).only_store()
    axes = () if made is None else tuple(i for i in made.indices if isinstance(i, Var))
    if store is None or made is None or len(axes) != len(made.indices):
        return None
    taken = [load for load in loads_of(store) if load.buffer is found.output.buffer]
    down, across = (
        _tile({load.indices[axis[item.var]] for load in taken}) for item in (around, row)
    )
    column = store.indices[-1]
    if len(taken) < 2 or down is None or across is None or not isinstance(column, Var):
        return None
    before: list[Block] = []
    read = forth
    while len(read.reads) == 1 and (block := _map(info, info.producer(read.reads[0].buffer))):
        before.append(block)
        read = block
    elements = tuple(axis[item.var] for item in found.batch)
    return _Transformed(
        found, part, row, around, forth, axes, tuple(before), back, elements,
        down[0], across[0], column, (down[1], across[1]),
    )  # fmt: skip


def _map(info: KernelInfo, block: Block | None) -> Block | None:
    """A block, if it is a map that no rule has scheduled."""
    if block is None or block.name not in info.pending:
        return None
    return block if info.kind(block.name) <= PatternKind.INJECTIVE else None


def _tile(indices: Collection[Expr]) -> tuple[Var, int] | None:
    """The variable and the divisor, where all indices are the same quotient."""
    index = next(iter(indices)) if len(indices) == 1 else None
    divisor = as_int(index.b) if isinstance(index, FloorDiv) else None
    if not isinstance(index, FloorDiv) or not isinstance(index.a, Var) or divisor is None:
        return None
    return index.a, divisor


def _cost(seen: _Transformed, rows: int, target: Target) -> Cost:
    """What the transforms take, and what moves where so many rows of tiles are done at a time."""
    found, part = seen.found, seen.part
    dtype = found.output.buffer.dtype
    held, data = (operand_bytes(found, load) for load in (part.columns, part.rows))
    results = product(i.dom.extent for i in found.site.iter_vars("spatial")) * dtype.bytes
    work: dict[DType, Amount] = {dtype: (data * _FORTH + results * _BACK) // dtype.bytes}
    images = product(i.dom.extent for i in found.rows if i not in (seen.row, seen.around))
    parts = images * ceildiv(seen.around.dom.extent, rows) if rows else IntImm(1)
    level = cache_of((data + results) // parts, target)
    traffic = joined({level: (data + results) * 2}, waited_for(held * parts, held, target))
    if not rows:
        return Cost(operations=work, traffic=traffic, launches=2 + len(seen.before))
    return Cost(operations=joined(work, idle(found, parts, target)), traffic=traffic)
