"""Programs over buffers that lie in memory otherwise: axes in another order, panels of columns.

The caller rearranges the arrays; which axes belong together is found in `tir.analysis.axes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from transect.ir.expr import Expr, Range, Var, as_expr, as_int
from transect.ir.node import replace
from transect.ir.sizes import ceildiv
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite
from transect.tir.analysis.axes import loads_of
from transect.tir.analysis.blocks import BlockSite
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.stmt import BlockRealize, BufferStore, For, Stmt
from transect.tir.visit import StmtRewriter

Order = tuple[int, ...]
"""For each axis of the new buffer the one of the old that it is."""

TermT = TypeVar("TermT", bound=Term)


def permute_axes(func: PrimFunc, orders: Mapping[Buffer, Order]) -> PrimFunc:
    """`func` with the axes of some buffers, parameters or intermediate ones, in another order.

    Requires `is_loop_nests`. The loops over a result follow the order of its axes; those of a sum
    go from the largest step through memory to the smallest.

        for c, i in T.grid(64, 100):       for i, c in T.grid(100, 64):
            B[c, i] = A[c, i] + 1    ->        B[i, c] = A[i, c] + 1      # both (1, 0)
    """
    changed = {
        old: replace(old, shape=tuple(old.shape[axis] for axis in order))
        for old, order in orders.items()
        if order != tuple(range(len(order)))
    }
    if not changed:
        return func
    body = _Permute(changed, orders).visit(func.body)
    params = {var: changed.get(item, item) for var, item in func.buffer_map.items()}
    return replace(func, buffer_map=params, body=body)


def in_memory_order(func: PrimFunc) -> PrimFunc:
    """`func` with its loops in the order of `permute_axes`, and no other change."""
    return replace(func, body=_Permute({}, {}).visit(func.body))


class _Permute(StmtRewriter):
    def __init__(self, buffers: Mapping[Buffer, Buffer], orders: Mapping[Buffer, Order]) -> None:
        self.buffers = buffers
        self.orders = orders
        self.memo: dict[Term, Term] = {}

    def buffer(self, value: Buffer) -> Buffer:
        return self.buffers.get(value, value)

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._term, self.memo)

    def _term(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer in self.buffers:
            order = self.orders[item.buffer]
            indices = tuple(item.indices[axis] for axis in order)
            return BufferLoad(self.buffers[item.buffer], indices, item.predicate)
        if isinstance(item, BufferRegion) and item.buffer in self.buffers:
            order = self.orders[item.buffer]
            ranges = tuple(item.ranges[axis] for axis in order)
            return BufferRegion(self.buffers[item.buffer], ranges)
        return item

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        assert isinstance(new, BufferStore)
        order = self.orders.get(stmt.buffer)
        if order is None:
            return new
        return replace(new, indices=tuple(new.indices[axis] for axis in order))

    def visit_for(self, stmt: For) -> Stmt:
        loops: list[For] = []
        inner: Stmt = stmt
        while isinstance(inner, For):
            loops.append(inner)
            inner = inner.body
        assert isinstance(inner, BlockRealize)
        realize = self.visit(inner)
        assert isinstance(realize, BlockRealize)
        order = _iteration_order(BlockSite(realize, tuple(loops)))
        block = realize.block
        block = replace(block, iter_vars=tuple(block.iter_vars[n] for n in order))
        values = tuple(realize.iter_values[n] for n in order)
        result: Stmt = replace(realize, iter_values=values, block=block)
        for n in reversed(order):
            result = replace(loops[n], body=result)
        return result


def _iteration_order(site: BlockSite) -> list[int]:
    """The positions of the iteration variables: as the result's axes lie, then those of a sum as
    the first operand's do."""
    store = site.only_store()
    assert store is not None
    items = site.block.iter_vars
    position: dict[Var, int] = {}
    lane = free_vars(store.indices[-1:])
    # What a sum broadcasts is read element by element; what it takes as vectors may be packed.
    loads = sorted(
        loads_of(store), key=lambda load: any(v in lane for v in free_vars(load.indices))
    )
    for access in (store, *loads):
        for index in access.indices:
            for var in free_vars((index,)):
                position.setdefault(var, len(position))
    spatial = [n for n, item in enumerate(items) if item.kind == "spatial"]
    rest = [n for n, item in enumerate(items) if item.kind != "spatial"]
    last = len(position)
    return [
        *sorted(spatial, key=lambda n: position.get(items[n].var, last)),
        *sorted(rest, key=lambda n: position.get(items[n].var, last)),
    ]


def panel_axis(func: PrimFunc, buffer: Buffer, width: int) -> PrimFunc:
    """`func` over a parameter whose last axis is cut into panels, the number of the panel first.

    What is read of the panel that is not full is up to the caller. Requires `is_loop_nests`.

        W: T.Buffer((k, n))   ->   W: T.Buffer((ceildiv(n, 64), k, 64))
        W[i, j]                    W[j // 64, i, j % 64]
    """
    *outer, last = buffer.shape
    new = replace(buffer, shape=(ceildiv(last, width), *outer, as_expr(width, last.dtype)))

    def index(old: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (old[-1] // width, *old[:-1], old[-1] % width)

    def ranges(old: tuple[Range, ...]) -> tuple[Range, ...]:
        low, extent = old[-1].min, old[-1].extent
        if as_int(extent) == 1:
            return (Range(low // width, extent), *old[:-1], Range(low % width, extent))
        return (Range.of(new.shape[0]), *old[:-1], Range.of(new.shape[-1]))

    body = Reindexed(buffer, new, index, ranges).visit(func.body)
    params = {var: new if item is buffer else item for var, item in func.buffer_map.items()}
    return replace(func, buffer_map=params, body=body)


class Reindexed(StmtRewriter):
    """Reads of one buffer become reads of another at other places."""

    def __init__(
        self,
        old: Buffer,
        new: Buffer,
        index: Callable[[tuple[Expr, ...]], tuple[Expr, ...]],
        ranges: Callable[[tuple[Range, ...]], tuple[Range, ...]],
    ) -> None:
        self.old = old
        self.new = new
        self.index = index
        self.ranges = ranges
        self.memo: dict[Term, Term] = {}

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._term, self.memo)

    def _term(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is self.old:
            return BufferLoad(self.new, self.index(item.indices), item.predicate)
        if isinstance(item, BufferRegion) and item.buffer is self.old:
            return BufferRegion(self.new, self.ranges(item.ranges))
        return item


def to_panels(array: np.ndarray, order: Order, width: int) -> np.ndarray:
    """The array with its axes in `order`, then the last one in panels, filled up with zeros."""
    turned = array.transpose(order)
    *outer, last = turned.shape
    count = -(-last // width)
    packed = np.zeros((count, *outer, width), array.dtype)
    for panel in range(count):
        part = turned[..., panel * width : (panel + 1) * width]
        packed[panel, ..., : part.shape[-1]] = part
    return packed
