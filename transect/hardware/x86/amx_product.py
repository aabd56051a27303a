"""How matrix products are scheduled on AMX tiles.

Both operands are packed in tiles, with zeros where sizes do not divide; a register tile of the
result accumulates over the whole sum. The packing of an operand that is a constant is done when
the model is compiled (`relax.transform.lift_packing`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.x86.amx import PRODUCTS, TileProduct
from transect.hardware.x86.contraction import inline_consumers
from transect.ir.expr import Expr, IntImm, Var, as_int
from transect.ir.sizes import ceildiv
from transect.ir.structural import structural_hash
from transect.ir.traverse import free_vars
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.packing import PACKING
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.schedule import BlockRV, Schedule
from transect.tir.stmt import IterVar
from transect.tir.tiles import TILE_ROWS, TILE_SCOPE

_REGISTERS = 8
_UNKNOWN_ROWS = 24
"""What an unknown number of rows counts as, beside known ones."""
_PRODUCT_CYCLES, _LOAD_CYCLES = 16, 8
"""Cycles from one tile product, or one load of a tile from the first-level cache, to the next."""


@dataclass(frozen=True)
class _Roles:
    """A contraction as rows times columns of tiles.

    product: the instructions. rows, columns: the operands, the first of which the instruction
    takes by rows. row, column, reduce: the positions of their variables in the block. batch: the
    positions of all others. row_axis: the dimension of the result that the rows are.
    """

    product: TileProduct
    rows: BufferLoad
    columns: BufferLoad
    row: int
    column: int
    reduce: int
    batch: tuple[int, ...]
    row_axis: int


@dataclass(frozen=True)
class AmxProductRule(ScheduleRule):
    """Products of bfloat16, int8 and uint8 matrices on AMX tiles.

    tiles: (rows, columns) of the register tile, in tiles, to choose from. blocks: how many rows
    are packed and multiplied with all columns before the next. least: rows from which on the rule
    applies; fewer leave most of a tile empty. unknown_block: the largest block of an unknown
    number of rows.
    """

    tiles: tuple[tuple[int, int], ...] = ((2, 2), (1, 3), (1, 2), (1, 1), (2, 1))
    blocks: tuple[int, ...] = (32, 64, 128, 256)
    least: int = 4
    unknown_block: int = 64
    name: ClassVar[str] = "x86.amx_product"

    def suits(self, target: Target) -> bool:
        """See ScheduleRule."""
        return "amx_tile" in target.features

    def matches(self, info: KernelInfo) -> bool:
        """See ScheduleRule."""
        return self._found(info) is not None

    def _found(self, info: KernelInfo) -> tuple[Contraction, _Roles] | None:
        for found in info.contractions()[:1]:
            part = _roles(found)
            if part is None:
                return None
            extent = as_int(found.site.block.iter_vars[part.row].dom.extent)
            if extent is None or extent >= self.least:
                return found, part
        return None

    def space(self, info: KernelInfo, target: Target) -> tuple[Site, ...]:
        """See ScheduleRule."""
        matched = self._found(info)
        assert matched is not None
        return self._sites(*matched, target)

    def _sites(self, found: Contraction, part: _Roles, target: Target) -> tuple[Site, ...]:
        block = found.site.block
        # Fusing other blocks with the contraction leaves its block as it is, and so its keys.
        subject = structural_hash(block)

        def key(role: str) -> SiteKey:
            return SiteKey("schedule", subject, str(target), role)

        threads = [Option("serial", {"parallel": False}, self._shared(found, target, 1))]
        if target.cores > 1:
            cost = self._shared(found, target, target.cores)
            threads.append(Option("parallel", {"parallel": True}, cost))
        return (
            Site(key("amx tile"), self._tile_options(found, part, target), f"{block.name} tiles"),
            Site(key("amx block"), self._block_options(found, part, target), f"{block.name} rows"),
            Site(key("parallel"), tuple(threads), f"{block.name} threads"),
        )

    def _shared(self, found: Contraction, target: Target, threads: int) -> Cost:
        """What running on so many threads adds to the work, which the tiles count for one."""
        dtype = found.output.buffer.dtype
        work = found.operations // _speed(target, found)
        if threads == 1:
            return Cost({dtype: work * (target.cores - 1) // target.cores}, threads=1)
        return Cost(launches=1)

    def _tile_options(self, found: Contraction, part: _Roles, target: Target) -> tuple[Option, ...]:
        items = found.site.block.iter_vars
        dtype = found.output.buffer.dtype
        steps: Expr = ceildiv(items[part.reduce].dom.extent, part.product.depth)
        for position in part.batch:
            steps = steps * items[position].dom.extent
        options: list[Option] = []
        for rows, columns in self.tiles:
            if rows * columns + rows + columns > _REGISTERS:
                continue
            count = ceildiv(items[part.row].dom.extent, rows * TILE_ROWS) * ceildiv(
                items[part.column].dom.extent, columns * TILE_ROWS
            )
            # Loads come from the second-level cache half of the time.
            cycles = max(rows * columns * _PRODUCT_CYCLES, 2 * (rows + columns) * _LOAD_CYCLES)
            # As many operations as the machine's vectors do in that time.
            each = cycles * 2 * target.fma_per_cycle * target.lanes(dtype)
            parameters = {"rows": rows, "columns": columns}
            options.append(
                Option(f"{rows}x{columns} tiles", parameters, Cost({dtype: count * steps * each}))
            )
        return tuple(options)

    def _block_options(
        self, found: Contraction, part: _Roles, target: Target
    ) -> tuple[Option, ...]:
        items = found.site.block.iter_vars
        row, column, reduce = (items[n].dom.extent for n in (part.row, part.column, part.reduce))
        size = part.product.left.bytes
        second = target.caches[min(1, len(target.caches) - 1)]
        depth = as_int(reduce) or 1024
        options: list[Option] = []
        for block in self.blocks:
            if as_int(row) is None and block > self.unknown_block:
                continue  # Rows are rounded up to whole blocks.
            # All columns are read once for each block of rows, which stays near.
            near = "L2" if block * depth * size <= second // 4 else "L3"
            repeats = ceildiv(row, block)
            traffic: dict[str, Expr] = {"L3": repeats * column * reduce * size}
            inner = row * reduce * size * ceildiv(column, 2 * TILE_ROWS)
            traffic[near] = traffic.get(near, IntImm(0)) + inner
            options.append(Option(f"{block} rows", {"block": block}, Cost({}, traffic)))
        return tuple(options)

    def apply(self, sch: Schedule, info: KernelInfo, target: Target) -> tuple[str, ...]:
        """See ScheduleRule."""
        matched = self._found(info)
        assert matched is not None
        found, part = matched
        tile, rows, parallel = map(sch.sample, self._sites(found, part, target))
        count = (tile.number("rows"), tile.number("columns"))
        block = sch.get_block(found.site.block.name)
        each = _tiles_of_block(
            as_int(found.site.block.iter_vars[part.row].dom.extent),
            count[0] * TILE_ROWS,
            rows.number("block"),
        )
        handled: list[str] = []
        out: BlockRV | None = None
        if not _stores_whole_tiles(found, part, sch, (each * count[0], count[1])):
            out = sch.cache_write(block, 0, "global")
            handled = inline_consumers(sch, info, found.output.buffer)
        packed = _pack(sch, block, part, count, each)
        made = _tile(sch, block, out, packed, part, count, each, parallel=parallel.flag("parallel"))
        return (*handled, *(sch.get(item).name for item in made))


def _speed(target: Target, found: Contraction) -> int:
    """How many times as fast as multiply-adds of vectors tile products are."""
    dtype = found.output.buffer.dtype
    depth = 64 // found.left.buffer.dtype.bytes
    per_cycle = TILE_ROWS * TILE_ROWS * depth // _PRODUCT_CYCLES
    return max(1, per_cycle // (target.fma_per_cycle * target.lanes(dtype)))


def _roles(found: Contraction) -> _Roles | None:
    """How tiles would be used, or None if no instruction fits."""
    items = found.site.block.iter_vars
    if len(found.reduce) != 1 or not found.output.indices:
        return None
    last = found.output.indices[-1]
    if any(item.var is last for item in found.columns):
        rows, columns, candidates = found.left, found.right, found.rows
    elif any(item.var is last for item in found.rows):
        rows, columns, candidates = found.right, found.left, found.columns
    else:
        return None
    types = (rows.buffer.dtype, columns.buffer.dtype, found.output.buffer.dtype)
    product = next((p for p in PRODUCTS if (p.left, p.right, p.result) == types), None)
    order = [index for index in found.output.indices if isinstance(index, Var)]
    if product is None or len(order) < len(found.output.indices):
        return None
    in_order = sorted(
        (item for item in candidates if item.var in order), key=lambda item: order.index(item.var)
    )
    if not in_order:
        return None
    # The longest loop over rows fills tiles best.
    row = max(reversed(in_order), key=lambda item: as_int(item.dom.extent) or _UNKNOWN_ROWS)
    column = next(item for item in items if item.var is last)
    chosen = [items.index(item) for item in (row, column, found.reduce[0])]
    batch = tuple(n for n in range(len(items)) if n not in chosen)
    axis = order.index(row.var)
    return _Roles(product, rows, columns, chosen[0], chosen[1], chosen[2], batch, axis)


@dataclass(frozen=True)
class _Packed:
    """The blocks that pack rows and columns, and the batch positions that index each."""

    rows: BlockRV
    columns: BlockRV
    columns_batch: tuple[int, ...]


def _pack(
    sch: Schedule, block: BlockRV, part: _Roles, count: tuple[int, int], each: int
) -> _Packed:
    """Copies of both operands in tiles; the block's domain grows to whole register tiles."""
    items = sch.get(block).iter_vars
    batches: dict[Buffer, tuple[int, ...]] = {}
    copies: dict[Buffer, BlockRV] = {}
    for load, own in (
        (part.rows, (part.row, part.reduce)),
        (part.columns, (part.reduce, part.column)),
    ):
        used = tuple(n for n in part.batch if _uses(load, items[n]))
        reads = [region.buffer for region in sch.get(block).reads]
        batches[load.buffer] = used
        copies[load.buffer] = sch.reindex_cache_read(
            block, reads.index(load.buffer), "global", (*used, *own)
        )
    multiples = [1] * len(items)
    multiples[part.row] = each * count[0] * TILE_ROWS
    multiples[part.column] = count[1] * TILE_ROWS
    multiples[part.reduce] = part.product.depth
    sch.pad_einsum(block, multiples)
    for buffer, copy in copies.items():
        copies[buffer] = _padded(sch, block, copy)
    depth, group = part.product.depth, part.product.group
    height, width = count[0] * TILE_ROWS, count[1] * TILE_ROWS

    # The tiles that a step of the sum takes lie side by side.
    def row_tiles(*index: Expr) -> tuple[Expr, ...]:
        *outer, i, k = index
        return (
            *outer,
            i // height,
            k // depth,
            i // TILE_ROWS % count[0],
            i % TILE_ROWS,
            k % depth,
        )

    def row_by_row(*index: Expr) -> tuple[Expr, ...]:
        *outer, i, k = index
        return (
            *outer,
            i // height,
            i // TILE_ROWS % count[0],
            i % TILE_ROWS,
            k // depth,
            k % depth,
        )

    def column_tiles(*index: Expr) -> tuple[Expr, ...]:
        *outer, k, j = index
        inner = (k % depth // group, j % TILE_ROWS, k % group)
        return (*outer, j // width, k // depth, j // TILE_ROWS % count[1], *inner)

    for load, tiles, order in (
        (part.rows, row_tiles, row_by_row),
        (part.columns, column_tiles, column_tiles),
    ):
        copy = copies[load.buffer]
        sch.transform_layout(copy, ("write", 0), tiles)
        sch.transform_block_layout(copy, order)
    return _Packed(
        copies[part.rows.buffer], copies[part.columns.buffer], batches[part.columns.buffer]
    )


def _padded(sch: Schedule, block: BlockRV, copy: BlockRV) -> BlockRV:
    """The block that makes what `block` reads: `copy`, or the one with zeros around it, which
    then does what `copy` did."""
    written = sch.get(copy).writes[0].buffer
    if any(region.buffer is written for region in sch.get(block).reads):
        return copy
    (reader,) = sch.get_consumers(copy)
    sch.compute_inline(copy)
    return reader


def _tile(
    sch: Schedule,
    block: BlockRV,
    out: BlockRV | None,
    packed: _Packed,
    part: _Roles,
    count: tuple[int, int],
    each: int,
    *,
    parallel: bool,
) -> list[BlockRV]:
    """Nest, move and tensorize; the blocks that there are then."""
    product = part.product
    store = sch.cache_write(block, 0, TILE_SCOPE)
    by_buffer = {sch.get(item).writes[0].buffer: item for item in (packed.rows, packed.columns)}
    loads: dict[BlockRV, BlockRV] = {}
    for number, region in enumerate(sch.get(block).reads):
        copy = by_buffer.get(region.buffer)
        if copy is not None:
            loads[copy] = sch.cache_read(block, number, TILE_SCOPE, [block])
    left, right = loads[packed.rows], loads[packed.columns]
    loops = sch.get_loops(block)
    outer = [loops[n] for n in part.batch]
    blocks, tiles, row, in_row = sch.split(loops[part.row], [None, each, count[0], TILE_ROWS])
    panels, column, in_column = sch.split(loops[part.column], [None, count[1], TILE_ROWS])
    steps, in_step = sch.split(loops[part.reduce], [None, product.depth])
    sch.reorder(*outer, blocks, panels, tiles, steps, row, column, in_row, in_column, in_step)
    for item in (left, right):
        sch.compute_at(item, steps)
    sch.compute_at(packed.rows, blocks)
    if packed.columns_batch:
        innermost = max(part.batch.index(n) for n in packed.columns_batch)
        sch.compute_at(packed.columns, outer[innermost])
    else:
        sch.annotate(packed.columns, PACKING, True)
        if parallel:
            sch.parallel(sch.get_loops(packed.columns)[0])
    sch.reverse_compute_at(store, tiles)
    if out is not None:
        sch.reverse_compute_at(out, tiles)
    init = sch.decompose_reduction(block, steps)
    for side in ("read", "write") if out is not None else ("read",):
        sch.transform_layout(store, (side, 0), _squares(part.row_axis))
    for item in (store,) if out is None else (store, out):
        first, second = sch.get_loops(item)[-2:]
        upper, in_upper = sch.split(first, [None, TILE_ROWS])
        lower, lane = sch.split(second, [None, TILE_ROWS])
        if item is store:
            sch.reorder(upper, lower, in_upper, lane)
            sch.unroll(upper)
            sch.unroll(lower)
        else:
            sch.unroll(lower)
            sch.vectorize(lane)
    made: list[BlockRV] = []
    for item, depth, around, name in (
        (init, 2, tiles, product.zero),
        (left, 2, steps, product.load_rows),
        (right, 3, steps, product.load_columns),
        (store, 2, tiles, product.store),
        (block, 3, steps, product.name),
    ):
        nest = sch.get_loops(item)
        outside = [sch.get(loop) for loop in nest].index(sch.get(around))
        # Which registers tiles are in must be known.
        for loop in nest[outside + 1 : -depth]:
            if sch.get(loop).kind == "serial":
                sch.unroll(loop)
        made.append(sch.tensorize(nest[-depth], name))
    sch.vectorize(sch.get_loops(packed.rows)[-1])
    if parallel:
        together = [*outer, blocks]
        sch.parallel(sch.fuse(*together) if len(together) > 1 else blocks)
    return [packed.rows, packed.columns, *(() if out is None else (out,)), *made]


def _stores_whole_tiles(
    found: Contraction, part: _Roles, sch: Schedule, count: tuple[int, int]
) -> bool:
    """Whether tiles can be stored where the result belongs: nothing is done with it here, and
    there are no partial ones."""
    items = found.site.block.iter_vars
    extents = (as_int(items[n].dom.extent) for n in (part.row, part.column))
    fits = all(
        extent is not None and extent % (tiles * TILE_ROWS) == 0
        for extent, tiles in zip(extents, count, strict=True)
    )
    return (
        fits and found.output.buffer in sch.func.buffers and part.row_axis == _last_but_one(found)
    )


def _last_but_one(found: Contraction) -> int:
    return len(found.output.indices) - 2


def _tiles_of_block(extent: int | None, height: int, rows: int) -> int:
    """How many register tiles of `height` rows a block of about `rows` rows has, so that all
    blocks are of one size."""
    most = max(1, rows // height)
    if extent is None:
        return most
    total = -(-extent // height)
    return -(-total // -(-total // most))


def _squares(axis: int) -> Callable[..., tuple[Expr, ...]]:
    """The layout of a result in tiles: along `axis` and the last one."""

    def tiles(*index: Expr) -> tuple[Expr, ...]:
        i, j = index[axis], index[-1]
        rest = (*index[:axis], *index[axis + 1 : -1])
        return (*rest, i // TILE_ROWS, j // TILE_ROWS, i % TILE_ROWS, j % TILE_ROWS)

    return tiles


def _uses(load: BufferLoad, item: IterVar) -> bool:
    return item.var in free_vars(load.indices)
