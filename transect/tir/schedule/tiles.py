"""Programs over a parameter that lies in tiles, as matrix instructions take their operands.

The caller rearranges the array. Which tiles an instruction takes says `tir.analysis`.
"""

from __future__ import annotations

import numpy as np

from transect.ir.expr import Expr, Range, as_expr, as_int
from transect.ir.node import replace
from transect.ir.sizes import ceildiv
from transect.tir.analysis.tensor_candidate import Tiling
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.layout import Reindexed


def tile_axes(func: PrimFunc, buffer: Buffer, tiling: Tiling) -> PrimFunc:
    """`func` over a parameter in tiles (see `Tiling`). Nothing reads what fills them up.

    Requires `is_loop_nests`.
    """
    rest = _others(buffer.ndim, tiling)
    sizes = {"columns": tiling.lanes, "reduce": tiling.group}
    axes = {"columns": tiling.columns, "reduce": tiling.reduce}
    numbers = [tiling.columns, *rest, *([] if tiling.reduce is None else [tiling.reduce])]
    divisors = {tiling.columns: tiling.lanes, tiling.reduce: tiling.group}

    def axis_of(name: str) -> int:
        axis = axes[name]
        assert axis is not None
        return axis

    shape = buffer.shape
    new = replace(
        buffer,
        shape=(
            *(ceildiv(shape[n], divisors.get(n, 1)) for n in numbers),
            *(as_expr(sizes[name], shape[axis_of(name)].dtype) for name in tiling.order),
        ),
    )

    def index(old: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (
            *(old[n] // divisors[n] if n in divisors else old[n] for n in numbers),
            *(old[axis_of(name)] % sizes[name] for name in tiling.order),
        )

    def ranges(old: tuple[Range, ...]) -> tuple[Range, ...]:
        if all(as_int(item.extent) == 1 for item in old):
            one = old[0].extent
            return tuple(Range(item, one) for item in index(tuple(item.min for item in old)))
        return tuple(Range.of(extent) for extent in new.shape)

    body = Reindexed(buffer, new, index, ranges).visit(func.body)
    params = {var: new if item is buffer else item for var, item in func.buffer_map.items()}
    return replace(func, buffer_map=params, body=body)


def to_tiles(array: np.ndarray, tiling: Tiling) -> np.ndarray:
    """The array in tiles, filled up with zeros."""
    rest = _others(array.ndim, tiling)
    sizes = {tiling.columns: tiling.lanes}
    if tiling.reduce is not None:
        sizes[tiling.reduce] = tiling.group
    room = [(0, -extent % sizes.get(axis, 1)) for axis, extent in enumerate(array.shape)]
    padded = np.pad(array, room)
    split: list[int] = []
    place: dict[int, int] = {}
    for axis, extent in enumerate(padded.shape):
        place[axis] = len(split)
        split += [extent // sizes[axis], sizes[axis]] if axis in sizes else [extent]
    numbers = [tiling.columns, *rest, *([] if tiling.reduce is None else [tiling.reduce])]
    within = {"columns": tiling.columns, "reduce": tiling.reduce}
    order = [place[n] for n in numbers]
    for name in tiling.order:
        axis = within[name]
        assert axis is not None
        order.append(place[axis] + 1)
    return np.ascontiguousarray(padded.reshape(split).transpose(order))


def _others(ndim: int, tiling: Tiling) -> list[int]:
    return [axis for axis in range(ndim) if axis not in (tiling.columns, tiling.reduce)]
