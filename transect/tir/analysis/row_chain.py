"""Chains of two contractions, the second of which sums over the rows of the first.

Between them, rows go through elementwise functions and reductions over a whole row, such as a
softmax: what is known as attention. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from transect.ir.traverse import walk
from transect.tir.analysis.blocks import BlockSite
from transect.tir.analysis.contraction import Contraction, find_contraction
from transect.tir.analysis.pattern import PatternKind, block_kind
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.stmt import BufferStore


@dataclass(frozen=True)
class RowChain:
    """results[…, i, e] += weights[…, i, j] * values[…, j, e], where row i of the weights is made of
    row i of scores[…, i, j] += queries[…, i, k] * keys[…, j, k].

    scores, results: the two contractions, with one variable each over rows, columns and what is
    summed. between: the names of the blocks that make weights of scores, in program order.
    """

    scores: Contraction
    results: Contraction
    between: tuple[str, ...]


def find_row_chain(sites: Sequence[BlockSite], outputs: Collection[Buffer]) -> RowChain | None:
    """The first chain among some blocks of a program, in program order. outputs: buffers that
    others see, so that they must be written as a whole."""
    found = [item for item in map(find_contraction, sites) if item is not None]
    fitting = [item for item in found if _is_batched_product(item)]
    for place, results in enumerate(fitting):
        for scores in fitting[:place]:
            between = _between(sites, scores, results, outputs)
            if between is not None:
                return RowChain(scores, results, between)
    return None


def _is_batched_product(found: Contraction) -> bool:
    order = (*found.batch, *found.rows, *found.columns)
    return len(found.rows) == len(found.columns) == len(
        found.reduce
    ) == 1 and found.output.indices == tuple(item.var for item in order)


def _between(
    sites: Sequence[BlockSite],
    scores: Contraction,
    results: Contraction,
    outputs: Collection[Buffer],
) -> tuple[str, ...] | None:
    """The blocks that make weights of scores row by row; None if something else happens too."""
    weights = results.left.buffer
    outer = (*results.batch, *results.rows)
    if results.left.indices != (*(item.var for item in outer), results.reduce[0].var):
        return None
    ranks: dict[Buffer, int] = {scores.output.buffer: len(outer) + 1}
    names: list[str] = []
    for site in sites:
        if site is scores.site or not any(r.buffer in ranks for r in site.block.reads):
            continue
        if site is results.site:
            break
        rank = _rank_of_rows(site, ranks, len(outer))
        if rank is None:
            return None
        names.append(site.block.name)
        ranks[site.block.writes[0].buffer] = rank
    if ranks.get(weights) != len(outer) + 1 or any(item in outputs for item in ranks):
        return None
    if len(outer) not in ranks.values():
        return None  # Nothing looks at whole rows, as in two layers of a network.
    if results.right.buffer in ranks:
        return None
    inside = {*names, scores.site.block.name, results.site.block.name}
    for site in sites:
        uses_rows = any(
            region.buffer in ranks for region in (*site.block.reads, *site.block.writes)
        )
        if uses_rows and site.block.name not in inside:
            return None
    return tuple(names)


def _rank_of_rows(site: BlockSite, ranks: dict[Buffer, int], outer: int) -> int | None:
    """The dimensions of what a block makes of rows, or of one number for each row, those that it
    reads at its own variables in order; None if it does anything else with them."""
    store = site.only_store()
    own = tuple(item.var for item in site.block.iter_vars)
    if store is None or not isinstance(site.block.body, BufferStore) or store.buffer in ranks:
        return None
    if len(own) not in (outer, outer + 1) or len(site.block.writes) != 1:
        return None
    kind = block_kind(site)
    reduced = [item.var for item in site.block.iter_vars if item.kind == "reduce"]
    if kind is PatternKind.REDUCTION:
        if reduced != [own[-1]] or len(own) != outer + 1 or store.indices != own[:-1]:
            return None
    elif kind > PatternKind.INJECTIVE or store.indices != own:
        return None
    loads = [item for item in walk(store.value) if isinstance(item, BufferLoad)]
    if any(load.indices != own[: ranks[load.buffer]] for load in loads if load.buffer in ranks):
        return None
    return len(store.indices)
