"""PatternKind: how a tensor program may be fused with its neighbours, inferred from its loops."""

from __future__ import annotations

from enum import IntEnum

from transect.ir.expr import Call, Expr, Var
from transect.ir.traverse import walk
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.contraction import find_contraction
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore


class PatternKind(IntEnum):
    """From the easiest to fuse to what cannot be fused.

    ELEMENTWISE: every operand is read where the result is written. BROADCAST: operands may lack
    dimensions. INJECTIVE: each element of the result comes from elements at computed places
    (transpose, slice, gather). REDUCTION: results accumulate; CONTRACTION: they accumulate
    products of two operands. OPAQUE: anything else.
    """

    ELEMENTWISE = 0
    BROADCAST = 1
    INJECTIVE = 2
    REDUCTION = 3
    CONTRACTION = 4
    OPAQUE = 5


def pattern_kind(func: PrimFunc) -> PatternKind:
    """The kind of a function: the largest of its blocks'. OPAQUE without any block, or with
    effects besides its stores."""
    sites = block_sites(func)
    if not sites or (len(sites) == 1 and not sites[0].block.iter_vars and func_rank(func) > 0):
        return PatternKind.OPAQUE
    return max(block_kind(site) for site in sites)


def func_rank(func: PrimFunc) -> int:
    """The largest number of dimensions of a buffer parameter."""
    return max((value.ndim for value in func.buffers), default=0)


def block_kind(site: BlockSite) -> PatternKind:
    """The kind of one block."""
    store = site.only_store()
    if store is None or any(item.kind in ("scan", "opaque") for item in site.block.iter_vars):
        return PatternKind.OPAQUE
    if any(isinstance(t, Call) and t.effect == "write" for t in walk(store.value, *store.indices)):
        return PatternKind.OPAQUE
    if site.is_reduction:
        if site.block.init is None:
            return PatternKind.OPAQUE
        found = find_contraction(site)
        return PatternKind.REDUCTION if found is None else PatternKind.CONTRACTION
    if not _writes_each_once(site, store):
        return PatternKind.OPAQUE
    loads = [term for term in walk(store.value) if isinstance(term, BufferLoad)]
    return max((_load_kind(load, store) for load in loads), default=PatternKind.ELEMENTWISE)


def _writes_each_once(site: BlockSite, store: BufferStore) -> bool:
    """Whether the store's indices are the spatial variables, each once, and constants."""
    own = {item.var for item in site.block.iter_vars}
    used = [index for index in store.indices if index in own]
    fixed = [index for index in store.indices if index not in own]
    return (
        len(used) == len(set(used))
        and set(used) == own
        and not any(isinstance(item, Var) and item in own for item in walk(*fixed))
    )


def _load_kind(load: BufferLoad, store: BufferStore) -> PatternKind:
    if load.buffer is store.buffer:
        return PatternKind.OPAQUE
    if load.indices == store.indices and load.buffer.shape == store.buffer.shape:
        return PatternKind.ELEMENTWISE
    if _is_subsequence([i for i in load.indices if isinstance(i, Var)], store.indices) and all(
        isinstance(index, Var) or not any(isinstance(t, Var) for t in walk(index))
        for index in load.indices
    ):
        return PatternKind.BROADCAST
    return PatternKind.INJECTIVE


def _is_subsequence(part: list[Var], whole: tuple[Expr, ...]) -> bool:
    rest = iter(whole)
    return all(any(index is item for item in rest) for index in part)
