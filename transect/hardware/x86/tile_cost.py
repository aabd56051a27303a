"""What the order of a contraction's tiles takes on x86, and the tiles of a depthwise convolution,
as terms over their sizes. `register_tile` predicts other tiles.

The numbers were measured on products of 128 to 1024 rows and on convolutions of 7 to 112 pixels a
row; benchmarks/ops repeats such measurements. Scheduling is in `contraction`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from transect.hardware.x86.roles import Roles
from transect.ir.dtype import DType
from transect.ir.expr import Expr, IntImm, as_int
from transect.ir.sizes import ceildiv, product
from transect.ir.traverse import free_vars
from transect.plan import Cost
from transect.plan.cost import Amount
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.regions import buffer_bytes
from transect.tir.buffer import BufferLoad
from transect.tir.stmt import Block, IterVar

KeyT = TypeVar("KeyT")

_FMA_LATENCY = 4
_LOADS_PER_CYCLE = 2
_VECTORS_PER_CYCLE = 0.34
"""Vectors that the second-level cache gives."""
_BESIDE = 8
"""Of so many bytes from the second-level cache one is waited for. The others come beside what
computes, in the time of the register tile."""
_PANELS, _ROWS = 3, 8
"""A panel stays in the second-level cache if that holds so many; otherwise parts of it come from
beyond for every tile, of so many rows: measured on sums of 2048 and 3072 products."""
_ROOM, _ROOM_OF_WINDOWS = 2, 8
"""How many times the bytes of the rows must fit where they stay until the last panel is done:
measured on the convolutions of ResNet-50, those over windows and strides apart."""
PARTS = 100
"""Parts of a cycle that are counted."""
_PER_ROW, _PER_VECTOR = 0.15, 0.2
"""What each row and each vector of a tile adds to a step, in cycles, though loads run beside
multiply-adds: measured on products of 128 to 1024 rows."""
_WINDOW = 2
"""Rows that a usual window needs beyond those of its results."""
PANEL = 2
"""Vectors of a usual panel."""
SCATTERED = 10
"""What reading broadcast elements that do not follow each other takes, in reads of such that do:
measured on convolutions of 7 to 56 pixels a row."""


def shared_tile_cycles(
    height: Expr,
    width: Expr,
    tile: tuple[int, int, int],
    part: Roles,
    short: Callable[[int], bool],
    target: Target,
) -> Expr:
    """What one step of a depthwise convolution takes for all tiles of height x width results, in
    `PARTS` of a cycle; `register_tile` knows of other contractions. What is left over has tiles of
    its own, as large as it is, if its size is known. short: whether all steps of a tile of so many
    vectors are written out."""
    # Lanes of the result: operands may be narrower.
    rows, vectors, lanes = tile

    def one(rows: int, vectors: int) -> int:
        if not rows or not vectors:
            return 0
        products = rows * vectors
        busy = max(products / target.fma_per_cycle, _FMA_LATENCY)
        # Both operands are loaded for each multiply-add, or, if all steps are written out, what
        # neighbouring windows share only once.
        loads = (rows + 2) / 3 * vectors + vectors if short(products) else 2 * products
        busy = max(busy, loads / _LOADS_PER_CYCLE, vectors / _VECTORS_PER_CYCLE)
        # Many rows evict each other from the first-level cache where they lie whole pages apart.
        far = (0.1 if part.panel else 0.25) * products / target.fma_per_cycle if rows > 8 else 0.0
        waiting = _PER_ROW * rows + _PER_VECTOR * vectors + far
        return round(PARTS * (busy + waiting))

    known = as_int(height), as_int(width)
    if known[0] is None or known[1] is None:
        area = rounded(height, rows) * rounded(width, vectors * lanes)
        return area * one(rows, vectors) // (rows * vectors * lanes)
    down, left = divmod(known[0], rows)
    across, last = divmod(-(-known[1] // lanes), vectors)
    return IntImm(
        down * (across * one(rows, vectors) + one(rows, last))
        + across * one(left, vectors)
        + one(left, last)
    )


def rounded(extent: Expr, multiple: int) -> Expr:
    """What tiles of `multiple` compute: an unknown extent leaves half a tile empty on average."""
    if as_int(extent) is None:
        return extent + multiple // 2
    return ceildiv(extent, multiple) * multiple


def operand_bytes(found: Contraction, load: BufferLoad) -> Expr:
    """The bytes of what a load reads over the whole domain."""
    return product(item.dom.extent for item in used_by(found, load)) * load.buffer.dtype.bytes


def cache_of(size: Expr, target: Target) -> str:
    """The cache that holds so many bytes beside others; unknown sizes count as small."""
    return "L2" if (as_int(size) or 0) <= second_level(target) // 2 else "L3"


def second_level(target: Target) -> int:
    """The bytes of the second-level cache, or of the only one."""
    return target.caches[min(1, len(target.caches) - 1)]


def loop_around(found: Contraction, part: Roles) -> IterVar | None:
    """The variable of the innermost loop around a tile's rows that is not the columns'."""
    shared = {item.var for item in found.batch}
    own = {part.column.var} if part.row is None else {part.column.var, part.row.var}
    spatial = [item for item in found.site.iter_vars("spatial") if item.var not in shared | own]
    return spatial[-1] if spatial else None


def order_cost(
    found: Contraction,
    part: Roles,
    around: IterVar | None,
    block: int,
    operands: tuple[Expr, Expr, Expr],
    beside: Mapping[DType, Amount],
    target: Target,
) -> Cost:
    """What moves where `block` iterations around rows, or rows, are done for one panel after
    another.

    operands: the bytes of the panels, those of the rows, and how often rows are read. beside: other
    operations that this order takes.
    """
    held, rows, times = operands
    other = rows * times
    dtype = found.output.buffer.dtype
    width = part.panel or PANEL * target.lanes(dtype)
    outer: Expr = IntImm(1)
    for item in (*found.rows, *found.columns):
        if item not in (part.row, part.column):
            outer = outer * item.dom.extent
    panel = held * width // part.column.dom.extent
    if around is None or as_int(outer) == 1:
        height = IntImm(1) if part.row is None else part.row.dom.extent
        blocks = ceildiv(height, block) if block else IntImm(1)
        traffic = joined(
            waited_for(held * blocks, held, target),
            waited_for(rows * (times - 1), rows * _ROOM // blocks, target),
        )
        if (as_int(panel) or 0) > second_level(target) // _PANELS:
            traffic = joined(traffic, {"L3": held * ceildiv(height, _ROWS) // _BESIDE})
        parts = blocks if block else ceildiv(part.column.dom.extent, width)
        return Cost(operations=joined(idle(found, parts, target), beside), traffic=traffic)
    # Windows overlap.
    size = min((rows, buffer_bytes(part.rows.buffer)), key=lambda item: as_int(item) or 0)
    extent = around.dom.extent
    at_once = extent if not block else IntImm(block)
    blocks = ceildiv(extent, at_once)
    traffic = waited_for(held * (outer // extent) * blocks, held, target)
    if cache_of(panel, target) != "L2":
        traffic = {cache_of(panel, target): held * outer}
    held_rows = size * _ROOM_OF_WINDOWS * at_once // extent
    traffic = joined(traffic, waited_for(other, held_rows, target))
    waiting = idle(found, blocks, target) if block else {}
    return Cost(operations=joined(waiting, beside), traffic=traffic)


def waited_for(moved: Expr, size: Expr, target: Target) -> dict[str, Amount]:
    """What is waited for of so many bytes that move from where data of a size stays."""
    level = cache_of(size, target)
    return {level: moved // _BESIDE if level == "L2" else moved}


def idle(found: Contraction, parts: Expr, target: Target) -> dict[DType, Amount]:
    """What cores could compute that wait, as they share so many parts as wholes."""
    count = as_int(parts)
    if count is None:
        return {}
    cores = -(-count // target.cores) * target.cores - count
    return {found.output.buffer.dtype: found.operations * cores // count} if cores else {}


def cost_of_parts(
    producer: Block, around: IterVar | None, block: int, target: Target
) -> dict[str, Expr]:
    """The bytes that move where a map is made in parts, for so many iterations at a time."""
    size = buffer_bytes(producer.writes[0].buffer)
    if not block or around is None:
        return {cache_of(size, target): size * 2}
    extent = around.dom.extent
    # A window reaches into the rows of the next block.
    each = size * (block + _WINDOW) // extent
    return {cache_of(each, target): each * ceildiv(extent, block) * 2}


def joined(*parts: Mapping[KeyT, Amount]) -> dict[KeyT, Amount]:
    """The sums of amounts by key."""
    total: dict[KeyT, Amount] = {}
    for part in parts:
        for key, amount in part.items():
            total[key] = total[key] + amount if key in total else amount
    return total


def used_by(found: Contraction, load: BufferLoad) -> list[IterVar]:
    inside = set(free_vars(load.indices))
    return [item for item in found.site.block.iter_vars if item.var in inside]
