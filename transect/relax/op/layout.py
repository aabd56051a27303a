"""Rewriting a tensor in another layout, by a map of its indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from transect.ir.dtype import INDEX
from transect.ir.expr import (
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Range,
    Var,
    as_int,
    const,
    logical_and,
    minimum,
)
from transect.ir.sizes import ceildiv
from transect.ir.traverse import substitute
from transect.ir.types import TensorType, Type
from transect.relax.expr import Op
from transect.relax.op.inference import (
    analyzer_of,
    fail,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import result_shape
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.index_map import IndexMap
from transect.tir.op import if_then_else
from transect.tir.stmt import Stmt


@cache
def axis_var(number: int) -> Var:
    """The variable that stands for the index along axis `number` in every AxisMap."""
    return Var(f"i{number}", INDEX)


@dataclass(frozen=True)
class AxisMap:
    """Indices of a tensor of `rank` dimensions -> indices of the same element in another layout.

    outputs: expressions over axis_var(0), axis_var(1), …, so that equal maps are equal objects.
    """

    rank: int
    outputs: tuple[Expr, ...]

    @staticmethod
    def of(index_map: IndexMap) -> AxisMap:
        """The same map over the variables that all maps share."""
        rank = len(index_map.inputs)
        return AxisMap(rank, index_map.apply([axis_var(k) for k in range(rank)]))

    def index_map(self) -> IndexMap:
        """The same map as schedules take it."""
        return IndexMap(tuple(axis_var(k) for k in range(self.rank)), self.outputs)

    def apply(self, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where the element at `indices` goes."""
        values = {axis_var(k): item for k, item in enumerate(indices)}
        return tuple(simplify(substitute(item, values)) for item in self.outputs)


@dataclass(frozen=True)
class Part:
    """An output (variable // divisor) % modulus, the modulus None for no bound."""

    axis: int
    divisor: int
    modulus: int | None


def _part(expr: Expr) -> Part | None:
    if isinstance(expr, Var):
        return Part(int(expr.name[1:]), 1, None)
    if isinstance(expr, FloorDiv | FloorMod):
        inner, number = _part(expr.a), as_int(expr.b)
        if inner is None or number is None or number < 1:
            return None
        if isinstance(expr, FloorMod):
            return Part(inner.axis, inner.divisor, number) if inner.modulus is None else None
        if inner.modulus is None:
            return Part(inner.axis, inner.divisor * number, None)
        if inner.modulus % number == 0:
            return Part(inner.axis, inner.divisor * number, inner.modulus // number)
    return None


def splits(index_map: AxisMap) -> list[Part] | None:
    """The outputs as parts of inputs, None unless each input is exactly the join of its parts."""
    parts = [_part(item) for item in index_map.outputs if as_int(item) != 0]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    for axis in range(index_map.rank):
        own = sorted((p for p in known if p.axis == axis), key=lambda p: p.divisor)
        reach: int | None = 1
        for part in own:
            if reach is None or part.divisor != reach:
                return None
            reach = None if part.modulus is None else part.divisor * part.modulus
        if reach is not None:
            return None
    return known


@dataclass(frozen=True)
class LayoutTransform(Operator):
    """layout_transform(x, index_map, pad_value): x with element i at index_map(i).

    index_map: an AxisMap (an IndexMap is taken, too), one to one. Elements of the result to which
    the map takes none are pad_value, which must be given where there are such. axis_separators:
    where the result's axes are cut into groups that are flattened apart; input_axis_separators: of
    x. Source: Relax layout_transform.
    """

    name = "layout_transform"
    index_map: AxisMap
    pad_value: float | None = None
    axis_separators: tuple[int, ...] = ()
    input_axis_separators: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.index_map, IndexMap):
            object.__setattr__(self, "index_map", AxisMap.of(self.index_map))
        super().__post_init__()

    def extents(self, sizes: Sequence[Expr]) -> tuple[Expr, ...]:
        """The extents of the result."""
        return tuple(_extent(self, item, sizes) for item in self.index_map.outputs)

    def infer(self, x: Type) -> TensorType:
        """One dimension per output of the map."""
        data = tensor(self, x, "x")
        if data.ndim not in (-1, self.index_map.rank):
            fail(self, f"the map takes {self.index_map.rank} indices, x has {data.ndim} dimensions")
        if data.shape is None:
            return unknown_like(data, ndim=len(self.index_map.outputs))
        return with_shape(data, self.extents(data.shape))

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map where the index map can be inverted by form, else one write per element."""
        sizes = result_shape(self, x)
        filler = const(0 if self.pad_value is None else self.pad_value, x.dtype)
        parts = splits(self.index_map)
        if parts is None:
            return self._scattered(b, x, sizes, filler)
        spots = [k for k, item in enumerate(self.index_map.outputs) if as_int(item) != 0]

        def element(*i: Var) -> Expr:
            place: list[Expr] = [IntImm(0)] * x.ndim
            for part, spot in zip(parts, spots, strict=True):
                place[part.axis] = place[part.axis] + i[spot] * part.divisor
            inside = [
                place[axis] < size
                for axis, size in enumerate(x.shape)
                if not self._fills(axis, size, parts, sizes, spots)
            ]
            return if_then_else(logical_and(*inside), x[tuple(place)], filler)

        return b.compute(sizes, element, name="y")

    def _fills(
        self,
        axis: int,
        size: Expr,
        parts: Sequence[Part],
        sizes: Sequence[Expr],
        spots: Sequence[int],
    ) -> bool:
        last: Expr = IntImm(0)
        for part, spot in zip(parts, spots, strict=True):
            if part.axis == axis:
                last = last + (sizes[spot] - 1) * part.divisor
        return analyzer_of(last, size).can_prove(last < size)

    def _scattered(
        self, b: FunctionBuilder, x: Buffer, sizes: tuple[Expr, ...], filler: Expr
    ) -> Buffer:
        target = b.allocate(sizes, x.dtype, name="y")

        def fill(*i: Var) -> Stmt:
            return store(target, i, filler)

        def put(*i: Var) -> Stmt:
            return store(target, self.index_map.apply(i), x[i])

        b.block(sizes, fill, name="fill")
        b.block(x.shape, put, kinds="O" * x.ndim, name="put")
        return target


def _extent(op: Op, output: Expr, sizes: Sequence[Expr]) -> Expr:
    """The extent of one axis of the result."""
    part = _part(output)
    if part is not None:
        whole = simplify(ceildiv(sizes[part.axis], part.divisor))
        return whole if part.modulus is None else simplify(minimum(whole, part.modulus))
    analyzer = analyzer_of(*sizes)
    for axis, size in enumerate(sizes):
        analyzer.bind(axis_var(axis), Range.of(size))
    highest = analyzer.bounds(output).max
    if highest is not None:
        return IntImm(highest + 1)
    last = {axis_var(axis): size - 1 for axis, size in enumerate(sizes)}
    guess = simplify(substitute(output, last))
    if not analyzer.can_prove(output <= guess):
        fail(op, f"cannot tell the extent of {output!r} over {tuple(sizes)!r}")
    return simplify(guess + 1)
