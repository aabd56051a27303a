"""Contractions: blocks that sum products of two operands, such as matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Add, Cast, Expr, FloatImm, IntImm, Mul, Var
from transect.ir.sizes import product
from transect.ir.traverse import walk
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore, IterVar, SeqStmt


@dataclass(frozen=True)
class Contraction:
    """out[...] += left * right, summed over the reduce variables.

    site: the block. output: the store that accumulates. left, right: the operands, possibly
    behind a cast. batch: spatial variables in both operands; rows: only in the left one; columns:
    only in the right one; reduce: the summed ones.
    """

    site: BlockSite
    output: BufferStore
    left: BufferLoad
    right: BufferLoad
    batch: tuple[IterVar, ...]
    rows: tuple[IterVar, ...]
    columns: tuple[IterVar, ...]
    reduce: tuple[IterVar, ...]

    @property
    def is_plain(self) -> bool:
        """Whether every index is a single iteration variable, as in a matrix product."""
        return all(
            isinstance(index, Var)
            for access in (self.output, self.left, self.right)
            for index in access.indices
        )

    @property
    def operations(self) -> Expr:
        """Multiplications and additions, two per product."""
        return 2 * product(item.dom.extent for item in self.site.block.iter_vars)


def find_contraction(site: BlockSite) -> Contraction | None:
    """The contraction that a block is, or None.

    The left operand is the one whose own variables come first in the output.
    """
    store = site.only_store()
    init = site.block.init
    if isinstance(init, SeqStmt) and len(init.stmts) == 1:
        init = init.stmts[0]
    if store is None or not site.is_reduction or not isinstance(init, BufferStore):
        return None
    if init.buffer is not store.buffer or init.indices != store.indices or not _is_zero(init.value):
        return None
    operands = _product(store)
    if operands is None:
        return None
    left, right = operands
    if left.buffer is store.buffer or right.buffer is store.buffer:
        return None
    in_left, in_right = _vars(left), _vars(right)
    spatial = site.iter_vars("spatial")
    if any(item.kind not in ("spatial", "reduce") for item in site.block.iter_vars):
        return None
    batch = tuple(i for i in spatial if i.var in in_left and i.var in in_right)
    rows = tuple(i for i in spatial if i.var in in_left and i.var not in in_right)
    columns = tuple(i for i in spatial if i.var in in_right and i.var not in in_left)
    if len(batch) + len(rows) + len(columns) < len(spatial):
        return None
    order = [index for index in store.indices if isinstance(index, Var)]
    if rows and columns and _first(order, columns) < _first(order, rows):
        left, right, rows, columns = right, left, columns, rows
    return Contraction(site, store, left, right, batch, rows, columns, site.iter_vars("reduce"))


def sole_contraction(func: PrimFunc) -> Contraction | None:
    """The contraction that is all that `func` does, or None."""
    sites = block_sites(func)
    return find_contraction(sites[0]) if len(sites) == 1 else None


def _first(order: list[Var], items: tuple[IterVar, ...]) -> int:
    positions = [order.index(item.var) for item in items if item.var in order]
    return min(positions, default=len(order))


def _vars(load: BufferLoad) -> set[Var]:
    return {item for item in walk(*load.indices) if isinstance(item, Var)}


def _is_zero(value: Expr) -> bool:
    return isinstance(value, IntImm | FloatImm) and value.value == 0


def _product(store: BufferStore) -> tuple[BufferLoad, BufferLoad] | None:
    """The two loads of `buffer[i] = buffer[i] + a * b`, in any order, behind casts."""
    if not isinstance(store.value, Add):
        return None
    accumulator = BufferLoad(store.buffer, store.indices)
    for mine, other in ((store.value.a, store.value.b), (store.value.b, store.value.a)):
        if mine is accumulator and isinstance(other, Mul):
            a, b = _load(other.a), _load(other.b)
            return None if a is None or b is None else (a, b)
    return None


def _load(value: Expr) -> BufferLoad | None:
    while isinstance(value, Cast):
        value = value.value
    return value if isinstance(value, BufferLoad) else None
