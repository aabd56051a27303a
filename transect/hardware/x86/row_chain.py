"""Chains of two contractions where the second sums over the rows of the first: found, not scheduled.

Between them, rows may go through elementwise functions and reductions over a whole row, such as a
softmax. How they are scheduled is in `attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.hardware.kernel import KernelInfo
from transect.hardware.x86.reduction import last_axis
from transect.ir.expr import Var
from transect.ir.traverse import walk
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.pattern import PatternKind
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.stmt import Block, BufferStore, IterVar


@dataclass(frozen=True)
class Chain:
    """results[…, i, e] += weights[…, i, j] * values[…, j, e], where the weights are made of the
    rows of scores[…, i, j] += …

    scores, results: the two contractions. between: the names of the blocks from the one to the
    other, in program order. rank: the dimensions of the scores: batches, rows i, columns j.
    """

    scores: Contraction
    results: Contraction
    between: tuple[str, ...]

    @property
    def batch(self) -> tuple[IterVar, ...]:
        """The variables of the results' batches."""
        return self.results.batch

    @property
    def row(self) -> IterVar:
        """The results' variable over rows."""
        return self.results.rows[0]

    @property
    def column(self) -> IterVar:
        """The results' variable over the columns of the values."""
        return self.results.columns[0]

    @property
    def length(self) -> IterVar:
        """The results' variable over a row of weights."""
        return self.results.reduce[0]


def find_chain(info: KernelInfo) -> Chain | None:
    """The first chain among the blocks not scheduled yet."""
    found = info.contractions()
    for results in found[1:]:
        for scores in found[: found.index(results)]:
            if _fits(scores) and _fits(results):
                between = _between(info, scores, results)
                if between is not None:
                    return Chain(scores, results, between)
    return None


def _fits(found: Contraction) -> bool:
    """Whether a contraction is a batched matrix product with its result in order."""
    order = (*found.batch, *found.rows, *found.columns)
    return (
        len(found.rows) == len(found.columns) == len(found.reduce) == 1
        and found.output.indices == tuple(item.var for item in order)
    )


def _between(info: KernelInfo, scores: Contraction, results: Contraction) -> tuple[str, ...] | None:
    """The blocks that make weights of scores, row by row; None if something else happens too."""
    start, weights = scores.output.buffer, results.left.buffer
    outer = (*results.batch, *results.rows)
    if results.left.indices != (*(item.var for item in outer), results.reduce[0].var):
        return None
    reached: set[Buffer] = {start}
    names: list[str] = []
    rows: dict[Buffer, int] = {start: len(outer) + 1}
    for block in info.blocks():
        if block in (scores.site.block, results.site.block):
            continue
        if not any(region.buffer in reached for region in block.reads):
            continue
        if weights in reached:
            break
        rank = _keeps_rows(info, block, reached, len(outer))
        if rank is None:
            return None
        names.append(block.name)
        output = block.writes[0].buffer
        reached.add(output)
        rows[output] = rank
    if weights not in reached or rows[weights] != len(outer) + 1:
        return None
    inside = {*names, results.site.block.name}
    if any(item in info.func.buffers for item in reached):
        return None
    for item in reached:
        if not {reader.name for reader in info.consumers(item)} <= inside | {scores.site.block.name}:
            return None
    return tuple(names)


def _keeps_rows(info: KernelInfo, block: Block, reached: set[Buffer], outer: int) -> int | None:
    """The dimensions of what a block makes of rows, those that it reads at its own variables in
    order; None if it mixes rows."""
    body = block.body
    kind = info.kind(block.name)
    if not isinstance(body, BufferStore) or len(block.writes) != 1:
        return None
    own = tuple(item.var for item in block.iter_vars)
    if len(own) not in (outer, outer + 1):
        return None
    if kind is PatternKind.REDUCTION:
        axis = last_axis(block)
        if axis is None or axis is not block.iter_vars[-1] or len(own) != outer + 1:
            return None
        if body.indices != own[:-1]:
            return None
    elif kind > PatternKind.INJECTIVE or body.indices != own:
        return None
    for load in walk(body.value):
        if isinstance(load, BufferLoad) and load.buffer in reached:
            if load.indices not in (own, own[:outer]) or any(
                not isinstance(index, Var) for index in load.indices
            ):
                return None
    return len(body.indices)
