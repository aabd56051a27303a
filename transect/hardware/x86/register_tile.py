"""Which register tiles a contraction may have, and what the cost model predicts for them.

The nest is scheduled once with decision variables, and with variables for its sizes too: all
contractions of one form share a prediction, whatever their sizes. `contraction` makes the nest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import lru_cache

import numpy as np

from transect.arith.population import Array
from transect.hardware.cpu_cost import CpuCost, Prediction
from transect.hardware.tile_site import fitting
from transect.hardware.x86.roles import Roles, roles
from transect.hardware.x86.tile_cost import used_by
from transect.ir.dtype import DType
from transect.ir.expr import Cast, Expr, IntImm, Var, as_int
from transect.ir.node import replace
from transect.ir.sizes import ceildiv
from transect.ir.structural import structural_hash
from transect.ir.traverse import substitute, walk
from transect.plan.cost import Sizes, number
from transect.target import Target
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction
from transect.tir.buffer import BufferLoad
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule
from transect.tir.stmt import IterVar

ROWS, VECTORS = Var("rows"), Var("vectors")
"""The sizes of a register tile, in all nests of this kind."""
_DOWN, _ACROSS = Var("down"), Var("across")
"""How many tiles there are along rows and columns."""
_PANELS, _WIDTH = Var("panels"), Var("width")
"""The sizes of the packed columns: as many panels as there are tiles, and of the same width."""

SPARE = 2
"""Vector registers that stay free where sizes are not known: with less, tiles of 9 x 3 and 14 x 2
vectors over rows at unknown distances took twice as long as others (measured on AVX-512)."""

Nest = Callable[[Schedule, Contraction, Roles, tuple[Expr, Expr], int], None]
"""Schedules a contraction that is all of a program in tiles of rows x vectors of so many lanes."""


@dataclass(frozen=True)
class Form:
    """A contraction without its sizes: what its prediction depends on, as a key.

    digest: of `func`, the program; machine: the text of the target.
    """

    digest: str
    machine: str
    func: PrimFunc = field(compare=False)
    target: Target = field(compare=False)
    nest: Nest = field(compare=False)
    lanes: int


@dataclass(frozen=True, eq=False)
class TileTimes:
    """The predicted seconds of a contraction's tiles on one core, without what an order of tiles
    decides: transfers from beyond the second-level cache.

    tiles: rows and vectors of each. height, width: rows and vectors of all results; where they are
    numbers, tiles at the edges are as large as what is left over. sizes: of the program that was
    predicted.
    """

    prediction: Prediction
    tiles: tuple[tuple[int, int], ...]
    height: Expr
    width: Expr
    lanes: int
    sizes: Mapping[Var, Expr]
    _known: dict[tuple[float, ...], Array] = field(default_factory=dict[tuple[float, ...], Array])

    def seconds(self, sizes: Sizes) -> Array:
        """Of each tile, with representative sizes in place of variables."""
        terms = (self.height, self.width, *self.sizes.values())
        key = tuple(number(item, sizes) for item in terms)
        if key not in self._known:
            height, width, *rest = key
            self._known[key] = self._seconds(height, width, rest)
        return self._known[key]

    def _seconds(self, height: float, width: float, rest: Sequence[float]) -> Array:
        rows, vectors = (np.array(column, np.int64) for column in zip(*self.tiles, strict=True))
        down = _pieces(height, rows, known=as_int(self.height) is not None)
        across = _pieces(width, vectors, known=as_int(self.width) is not None)
        fixed = {var: np.int64(size) for var, size in zip(self.sizes, rest, strict=True)}
        pairs = [(some, other) for some in down for other in across]
        columns = {
            ROWS: [some.size for some, _ in pairs],
            _DOWN: [some.count for some, _ in pairs],
            VECTORS: [other.size for _, other in pairs],
            _ACROSS: [other.count for _, other in pairs],
            _PANELS: [other.count for _, other in pairs],
            _WIDTH: [other.size * self.lanes for _, other in pairs],
        }
        own = {var: np.concatenate(parts) for var, parts in columns.items()}
        weights = np.stack([some.weight * other.weight for some, other in pairs])
        found = self.prediction.evaluate({**fixed, **own}).core
        return (weights * np.reshape(found, weights.shape)).sum(axis=0)


@dataclass(frozen=True)
class TileTime:
    """The time of one of several tiles, times a factor: an amount of a Cost."""

    times: TileTimes
    place: int
    factor: float

    def number(self, sizes: Sizes) -> float:
        """See `plan.cost.Predicted`."""
        return float(self.times.seconds(sizes)[self.place]) * self.factor


@dataclass(frozen=True)
class _Piece:
    """Tiles along one axis: `count` of `size`, whose time counts `weight` times."""

    size: Array
    count: Array
    weight: Array


def _pieces(extent: float, tile: Array, *, known: bool) -> list[_Piece]:
    if not known:
        # What is left over takes a whole tile, half of which is empty on average.
        count = np.maximum(1, extent // tile).astype(np.int64)
        return [_Piece(tile, count, np.maximum(1.0, (extent + tile / 2) / (count * tile)))]
    count, left = np.divmod(int(extent), tile)
    whole = _Piece(tile, np.maximum(1, count), (count > 0).astype(float))
    return [whole, _Piece(np.maximum(1, left), np.ones_like(tile), (left > 0).astype(float))]


def tile_times(
    found: Contraction,
    part: Roles,
    nest: Nest,
    target: Target,
    tiles: Sequence[tuple[int, int]],
    subject: str,
) -> TileTimes:
    """The times of those of the tiles that the registers hold, of all if they hold none.

    subject: the structural hash of the contraction's block.
    """
    asked = _Asked(subject, repr(target), tuple(tiles), found, part, nest, target)
    lengths = [item.dom.extent for item in found.site.block.iter_vars]
    if all(as_int(size) is not None for size in (*lengths, *part.rows.buffer.shape)):
        return _known_times(asked)
    # Equal programs may have other variables.
    return _times(asked)


@dataclass(frozen=True)
class _Asked:
    """What times are asked for. subject, machine: the texts of block and target."""

    subject: str
    machine: str
    tiles: tuple[tuple[int, int], ...]
    found: Contraction = field(compare=False)
    part: Roles = field(compare=False)
    nest: Nest = field(compare=False)
    target: Target = field(compare=False)


@lru_cache(maxsize=4096)
def _known_times(asked: _Asked) -> TileTimes:
    return _times(asked)


def _times(asked: _Asked) -> TileTimes:
    found, part, target, tiles = asked.found, asked.part, asked.target, asked.tiles
    lanes = target.lanes(found.output.buffer.dtype)
    func, sizes = _program(found, part, lanes)
    form = Form(structural_hash(func), asked.machine, func, target, asked.nest, lanes)
    prediction = _predicted(form)
    height = IntImm(1) if part.row is None else part.row.dom.extent
    width = ceildiv(part.column.dom.extent, lanes)
    known = all(as_int(size) is not None for size in (*sizes.values(), height, width))
    kept = _fitting(form, tiles, target.vector_registers - (0 if known else SPARE))
    return TileTimes(prediction, kept, height, width, lanes, sizes)


@lru_cache(maxsize=1024)
def _fitting(
    form: Form, tiles: tuple[tuple[int, int], ...], registers: int
) -> tuple[tuple[int, int], ...]:
    prediction = _predicted(form)
    columns = dict(zip((ROWS, VECTORS), np.array(tiles, np.int64).T, strict=True))
    # Neither registers nor code depend on sizes.
    sizes = {var: np.int64(1) for var in prediction.variables if var not in columns}
    answer = prediction.evaluate({**sizes, **columns})
    fits = fitting(answer, changed(form.target, vector_registers=registers), len(tiles))
    return tuple(tile for tile, fit in zip(tiles, fits, strict=True) if fit) or tiles


@lru_cache(maxsize=256)
def _predicted(form: Form) -> Prediction:
    (found,) = (c for s in block_sites(form.func) if (c := find_contraction(s)) is not None)
    part = roles(found)
    assert part is not None
    sch = Schedule(form.func)
    form.nest(sch, found, part, (ROWS, VECTORS), form.lanes)
    return CpuCost().of(sch.func, form.target)


def _program(found: Contraction, part: Roles, lanes: int) -> tuple[PrimFunc, dict[Var, Expr]]:
    """The contraction alone, of whole tiles, its sizes variables; and what these are.

    The columns lie in panels, as wide as a tile, in the order in which tiles read them: whether
    they do is another choice. An index that is read from memory is taken for its first variable.
    """
    items = found.site.block.iter_vars
    spatial = [item for item in items if item.kind == "spatial" and item is not part.column]
    spatial.append(part.column)
    reduced = [item for item in items if item.kind == "reduce"]
    sizes: dict[Var, Expr] = {}

    def size(name: str, value: Expr) -> Var:
        var = _variable(name)
        sizes[var] = value
        return var

    width = VECTORS * lanes

    def extent(item: IterVar) -> Expr:
        if item is part.column:
            return _ACROSS * width
        if item is part.row:
            return _DOWN * ROWS
        return size(f"extent{items.index(item)}", item.dom.extent)

    used = used_by(found, part.columns)
    inner = [item for item in used if item is not part.column]
    extents = {item.var: extent(item) for item in (*spatial, *reduced)}
    builder = FunctionBuilder("contraction")
    columns = builder.input(
        "columns", (_PANELS, *(extents[item.var] for item in inner), _WIDTH),
        part.columns.buffer.dtype,
    )  # fmt: skip
    shape = [size(f"shape{n}", length) for n, length in enumerate(part.rows.buffer.shape)]
    rows = builder.input("rows", shape, part.rows.buffer.dtype)
    dtype = found.output.buffer.dtype

    def value(*variables: Var) -> Expr:
        now = dict(zip((item.var for item in (*spatial, *reduced)), variables, strict=True))
        column = now[part.column.var]
        indices = [substitute(_readable(index), now) for index in part.rows.indices]
        left = BufferLoad(rows, tuple(indices))
        where = (column // width, *(now[item.var] for item in inner), column % width)
        right = BufferLoad(columns, where)
        return _as(left, dtype) * _as(right, dtype)

    # The result is no parameter, and neither are sizes: those would be no decisions.
    builder.reduce(
        [extents[item.var] for item in spatial], [extents[item.var] for item in reduced], value,
        name="result",
    )  # fmt: skip
    func = builder.finish([])
    return replace(func, params=tuple(func.buffer_map)), sizes


def _readable(index: Expr) -> Expr:
    if any(isinstance(item, BufferLoad) for item in walk(index)):
        return next(item for item in walk(index) if isinstance(item, Var))
    return index


def _as(value: Expr, dtype: DType) -> Expr:
    return value if value.dtype is dtype else Cast(dtype, value)


@lru_cache(maxsize=64)
def _variable(name: str) -> Var:
    """The variable of a name, one for all programs."""
    return Var(name)
