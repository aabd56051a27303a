"""Convolutions of windows of three as products of transformed data and filters.

Two neighbouring results take four products instead of six in each direction. Source: Winograd
(1980), as F(2, 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transect.arith import Analyzer
from transect.ir.dtype import FLOAT32, FLOAT64, INDEX
from transect.ir.expr import Expr, Range, Var, as_expr, as_int, const, equal, minimum, select
from transect.ir.node import replace
from transect.ir.sizes import ceildiv
from transect.ir.traverse import free_vars, substitute
from transect.tir.affine import difference
from transect.tir.analysis.axes import is_loop_nests, loads_of
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction
from transect.tir.buffer import Buffer, BufferLoad, buffer
from transect.tir.builder import loop_nest
from transect.tir.function import PrimFunc
from transect.tir.stmt import BlockRealize, BufferStore, IterVar, SeqStmt, Stmt, seq
from transect.tir.visit import fresh_copy

Matrix = tuple[tuple[int, ...], ...]

_TAPS, _RESULTS, _STEPS = 3, 2, 4
"""The products of a result, the results that are made together, and what they take."""
_DATA: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_FILTERS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
_BACK: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))


@dataclass(frozen=True)
class Transformed:
    """A program over transformed filters.

    function: the program, whose parameter has the shape (4, …, channels, results) now. buffer: that
    parameter. order: the axes of the filters as they were: those of the window, channels, results.
    """

    function: PrimFunc
    buffer: Buffer
    order: tuple[int, ...]


def to_winograd(func: PrimFunc, filters: Buffer) -> Transformed | None:
    """The convolution of a program by its parameter `filters` as a product between transforms; None
    if it has none, or not such a one: windows of 3 x 3 one step apart over images of known size,
    channels last, one group, floats throughout, and enough channels.

        for n, h, w, f, i, j, c: Y[n, h, w, f] += X[n, h + i, w + j, c] * W[f, i, j, c]
        ->
        for n, y, x, c, a, b: V[n, y, a, b, x, c] = the transform of X[n, 2 y:, 2 x:, c]
        for n, y, a, b, x, f, c: M[n, y, a, b, x, f] += V[n, y, a, b, x, c] * W1[a, b, c, f]
        for n, h, w, f: Y[n, h, w, f] = the transform of M[n, h // 2, :, :, w // 2, f]

    Rounding errors: with C channels, |x| <= X and |w| <= W, a result is at most 64 C (C + 7) e X W
    off (to first order in e, half the distance from 1 to the next float), where the sum of its 9 C
    products is at most 81 C^2 e X W off. Only convolutions of so many channels become such products
    that the bound is not larger than that of the sum. NaN and infinities reach the results that
    they would reach in the sum, which are NaN where that would be infinite.
    """
    found = _convolution(func, filters)
    if found is None:
        return None
    taps = [found.axis(tap) for _, tap in found.windows]
    last = (found.axis(found.channel.var), found.axis(found.column.var))
    steps = [as_expr(_STEPS, filters.shape[axis].dtype) for axis in taps]
    shape = (*steps, *(filters.shape[axis] for axis in last))
    new = replace(filters, shape=shape)
    nests, made = found.nests(new)
    root = func.body
    assert isinstance(root, BlockRealize)
    old = root.block.body
    stmts: list[Stmt] = []
    for stmt in old.stmts if isinstance(old, SeqStmt) else (old,):
        stmts += nests if stmt is found.site.loops[0] else [stmt]
    block = replace(root.block, body=seq(*stmts), alloc_buffers=(*root.block.alloc_buffers, *made))
    params = {var: new if item is filters else item for var, item in func.buffer_map.items()}
    body = replace(root, block=block)
    return Transformed(replace(func, buffer_map=params, body=body), new, (*taps, *last))


def transform_filters(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The filters as the program of `Transformed` takes them, computed in double precision."""
    turned = array.transpose(order).astype(np.float64)
    for axis in range(len(order) - 2):
        turned = np.moveaxis(np.tensordot(np.array(_FILTERS), turned, (1, axis)), 0, axis)
    return np.ascontiguousarray(turned, array.dtype)


@dataclass(frozen=True)
class _Convolution:
    """A convolution by windows of three: each variable of its result that a window moves with, and
    the variable of the window; the sum over channels; the columns of the result."""

    site: BlockSite
    found: Contraction
    data: BufferLoad
    filters: BufferLoad
    windows: tuple[tuple[IterVar, Var], ...]
    channel: IterVar
    column: IterVar

    def axis(self, var: Var) -> int:
        """The axis of the filters that a variable runs over."""
        return self.filters.indices.index(var)

    def nests(self, filters: Buffer) -> tuple[list[Stmt], list[Buffer]]:
        """The three nests, and the buffers between them."""
        used = {self.column.var, *(item.var for item, _ in self.windows)}
        others = [item for item in self.site.iter_vars("spatial") if item.var not in used]
        tiles = [
            _spatial(f"{item.var.name}_tile", ceildiv(item.dom.extent, _RESULTS))
            for item, _ in self.windows
        ]
        steps = [_spatial(f"v_step{n}", const(_STEPS, INDEX)) for n in range(len(tiles))]
        space = _Space(tuple(others), tuple(tiles), tuple(steps))
        name, dtype = self.found.output.buffer.name, self.found.output.buffer.dtype
        data = buffer(f"{name}_data", space.shape(self.channel.dom.extent), dtype)
        products = buffer(f"{name}_products", space.shape(self.column.dom.extent), dtype)
        nests = (
            self._forth(space, data),
            self._product(space, data, filters, products),
            self._back(space, products),
        )
        return [fresh_copy(item) for item in nests], [data, products]

    def _forth(self, space: _Space, data: Buffer) -> Stmt:
        tiles, steps = _variables(space.tiles), _variables(space.steps)
        channel = replace(self.channel, kind="spatial")
        value = _transform(_DATA, steps, lambda at: self._element(tiles, at))
        store = BufferStore(data, value, space.place(tiles, steps, channel.var))
        return loop_nest(data.name, (*space.others, *space.tiles, channel, *space.steps), store)

    def _product(self, space: _Space, data: Buffer, filters: Buffer, products: Buffer) -> Stmt:
        tiles, steps = _variables(space.tiles), _variables(space.steps)
        channel, column = self.channel.var, self.column.var
        into = space.place(tiles, steps, column)
        factor = BufferLoad(data, space.place(tiles, steps, channel))
        value = factor * BufferLoad(filters, (*steps, channel, column))
        *outer, row = space.tiles
        return loop_nest(
            products.name,
            (*space.others, *outer, *space.steps, row, self.column, self.channel),
            BufferStore(products, BufferLoad(products, into) + value, into),
            BufferStore(products, const(0, products.dtype), into),
        )

    def _back(self, space: _Space, products: Buffer) -> Stmt:
        tiles: list[Expr] = [item.var // _RESULTS for item, _ in self.windows]
        results: list[Expr] = [item.var % _RESULTS for item, _ in self.windows]

        def element(at: Sequence[Expr]) -> Expr:
            return BufferLoad(products, space.place(tiles, at, self.column.var))

        output = self.found.output
        store = BufferStore(output.buffer, _transform(_BACK, results, element), output.indices)
        return loop_nest(self.site.block.name, self.site.iter_vars("spatial"), store)

    def _element(self, tiles: Sequence[Expr], at: Sequence[Expr]) -> Expr:
        """What the transform of a tile reads."""
        now: dict[Var, Expr] = {}
        for (item, tap), tile, step in zip(self.windows, tiles, at, strict=True):
            now |= {item.var: tile * _RESULTS, tap: step}
        simplify = Analyzer().simplify
        indices = [simplify(substitute(index, now)) for index in self.data.indices]
        for axis, index in enumerate(self.data.indices):
            inside = set(free_vars((index,)))
            for item, _ in self.windows:
                if item.var in inside and (as_int(item.dom.extent) or 0) % _RESULTS:
                    # The last tile has results that nobody reads, whose data need not exist.
                    indices[axis] = minimum(indices[axis], self.data.buffer.shape[axis] - 1)
        return BufferLoad(self.data.buffer, tuple(indices))


@dataclass(frozen=True)
class _Space:
    """What data and products run over besides channels and columns: variables that no window moves
    with, tiles in each direction, and the elements of a transform."""

    others: tuple[IterVar, ...]
    tiles: tuple[IterVar, ...]
    steps: tuple[IterVar, ...]

    def shape(self, last: Expr) -> tuple[Expr, ...]:
        """Of a buffer."""
        others, tiles, steps = (
            [item.dom.extent for item in items] for items in (self.others, self.tiles, self.steps)
        )
        return (*others, *tiles[:-1], *steps, tiles[-1], last)

    def place(self, tiles: Sequence[Expr], steps: Sequence[Expr], last: Expr) -> tuple[Expr, ...]:
        """Of an element. Neighbours along the last direction are rows of one product."""
        return (*_variables(self.others), *tiles[:-1], *steps, tiles[-1], last)


def _variables(items: Sequence[IterVar]) -> list[Expr]:
    return [item.var for item in items]


def _convolution(func: PrimFunc, filters: Buffer) -> _Convolution | None:
    """The convolution by a parameter, if it is one that this is made for."""
    if not is_loop_nests(func):
        return None
    readers = [
        site
        for site in block_sites(func)
        if (store := site.only_store()) and filters in {load.buffer for load in loads_of(store)}
    ]
    found = find_contraction(readers[0]) if len(readers) == 1 else None
    if found is None or found.batch:
        return None
    site, output = readers[0], found.output
    mine, data = (
        (found.left, found.right) if found.left.buffer is filters else (found.right, found.left)
    )
    dtypes = {item.buffer.dtype for item in (output, mine, data)}
    plain = (*mine.indices, *output.indices)
    if dtypes not in _DTYPES or not all(isinstance(index, Var) for index in plain):
        return None
    spatial = {item.var: item for item in site.iter_vars("spatial")}
    own = [item for var, item in spatial.items() if var in mine.indices]
    windows = ((item, _window(item, data, found)) for item in spatial.values())
    moved = [(item, tap) for item, tap in windows if tap is not None]
    taps = {tap for _, tap in moved}
    channels = [item for item in found.reduce if item.var not in taps]
    if len(moved) != 2 or len(channels) != 1 or len(own) != 1:
        return None
    (channel,), (column,) = channels, own
    if data.indices[-1] is not channel.var or output.indices[-1] is not column.var:
        return None
    if not _is_exact_enough(channel):
        return None
    return _Convolution(site, found, data, mine, tuple(moved), channel, column)


_DTYPES = ({FLOAT32}, {FLOAT64})


def _window(item: IterVar, data: BufferLoad, found: Contraction) -> Var | None:
    """The variable of the window of three that moves with a variable of the result by one step;
    None if there is none."""
    using = [index for index in data.indices if item.var in free_vars((index,))]
    if len(using) != 1 or as_int(item.dom.extent) is None:
        return None
    (index,) = using
    for tap in found.reduce:
        if as_int(tap.dom.extent) != _TAPS or set(free_vars((index,))) != {item.var, tap.var}:
            continue
        alone = sum(tap.var in free_vars((other,)) for other in data.indices) == 1
        if alone and isinstance(difference(index, item.var + tap.var), int):
            return tap.var
    return None


def _is_exact_enough(channel: IterVar) -> bool:
    """Whether the bound of the rounding errors is not larger than that of the sum."""
    count = as_int(channel.dom.extent) or 0
    return 64 * (count + 7) <= 81 * count


def _transform(
    matrix: Matrix, rows: Sequence[Expr], element: Callable[[Sequence[Expr]], Expr]
) -> Expr:
    """The element of a transform in all directions at `rows`, one for each: of what `element` gives
    for its columns."""

    def along(at: tuple[Expr, ...]) -> Expr:
        if len(at) == len(rows):
            return element(at)
        row = rows[len(at)]
        inner = [along((*at, const(column, row.dtype))) for column in range(len(matrix[0]))]
        value = _sum(matrix[-1], inner)
        for number in reversed(range(len(matrix) - 1)):
            value = select(equal(row, number), _sum(matrix[number], inner), value)
        return value

    return along(())


def _sum(factors: Sequence[int], values: Sequence[Expr]) -> Expr:
    """The sum of values times 1, 0 or -1, those first that are added."""
    plus = [value for factor, value in zip(factors, values, strict=True) if factor > 0]
    total, *rest = plus
    for value in rest:
        total = total + value
    for factor, value in zip(factors, values, strict=True):
        total = total - value if factor < 0 else total
    return total


def _spatial(name: str, extent: Expr) -> IterVar:
    return IterVar(Var(name, extent.dtype), Range.of(extent), "spatial")
