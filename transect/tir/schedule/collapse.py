"""Programs over fewer axes: those that every block runs over side by side become one.

The rows of two images are rows of one product, and no tile need end where an image does. The caller
views the arrays so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TypeVar

from transect.ir.expr import Expr, IntImm, Range, Var, as_int
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, substitute
from transect.tir.affine import difference
from transect.tir.analysis.axes import is_loop_nests
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.stmt import BlockRealize, BufferStore, For, IterVar, Stmt
from transect.tir.visit import StmtRewriter

TermT = TypeVar("TermT", bound=Term)

Links = Mapping[Buffer, set[int]]
"""Of each buffer the axes that become one with the next axis."""

Groups = tuple[tuple[int, ...], ...]
"""The axes of a buffer by the axis that they become."""


@dataclass(frozen=True)
class Collapsed:
    """A program over fewer axes. groups: of each parameter the axes that each of its axes was."""

    function: PrimFunc
    groups: tuple[Groups, ...]

    def shape(self, parameter: int, shape: Sequence[Expr]) -> tuple[Expr, ...]:
        """What the shape of an argument becomes."""
        return tuple(_extent([shape[n] for n in group]) for group in self.groups[parameter])


def collapse_axes(func: PrimFunc) -> Collapsed | None:
    """`func` with axes as one that lie side by side in memory wherever a variable runs over them;
    None if there are none.

    Only axes of constant size, of programs that are `is_loop_nests`. Parameters stay in order and
    change their shapes alone.

        for n, h, w, f, c in T.grid(2, 56, 56, 64, 256):     for i, f, c in T.grid(6272, 64, 256):
            Y[n, h, w, f] += X[n, h, w, c] * W[c, f]     ->      Y[i, f] += X[i, c] * W[c, f]
    """
    if not is_loop_nests(func):
        return None
    nests = [_Nest(site, _Uses.of(site)) for site in block_sites(func)]
    links = _links([nest.uses for nest in nests])
    if not links:
        return None
    rewriter = _Collapse(links, nests)
    body = rewriter.visit(func.body)
    params = {var: rewriter.buffer(item) for var, item in func.buffer_map.items()}
    groups = tuple(_groups(len(item.shape), links.get(item, set())) for item in func.buffers)
    return Collapsed(replace(func, buffer_map=params, body=body), groups)


@dataclass(frozen=True)
class _Uses:
    """How a block uses its iteration variables.

    variables: those of constant extent from 0. accesses: each buffer with the variable alone that
    an index is, or None. plain: the variables that indices are. others: variables that something
    else than such an index depends on.
    """

    variables: Mapping[Var, IterVar]
    accesses: Sequence[tuple[Buffer, tuple[Var | None, ...]]]
    plain: Mapping[Expr, Var]
    others: set[Var]

    @staticmethod
    def of(site: BlockSite) -> _Uses:
        """The uses in a block of one store."""
        block, store = site.block, site.only_store()
        assert store is not None
        known = [i for i in block.iter_vars if as_int(i.dom.min) == 0 and as_int(i.dom.extent)]
        # A sum over one element moves nothing.
        ones: dict[Var, Expr] = {i.var: IntImm(0) for i in known if as_int(i.dom.extent) == 1}
        accesses: list[tuple[Buffer, tuple[Var | None, ...]]] = []
        plain: dict[Expr, Var] = {}
        others: set[Var] = set()
        stores = [item for item in (block.init, store) if isinstance(item, BufferStore)]
        stack: list[Term] = [*block.reads, *block.writes, *(item.value for item in stores)]

        def access(buffer: Buffer, indices: Sequence[Expr]) -> None:
            found = [_variable(index, ones) for index in indices]
            accesses.append((buffer, tuple(found)))
            for index, var in zip(indices, found, strict=True):
                if var is None:
                    stack.append(index)
                else:
                    plain[index] = var
                    others.update(item for item in free_vars((index,)) if item is not var)

        for item in stores:
            access(item.buffer, item.indices)
        seen: set[Term] = set()
        while stack:
            item = stack.pop()
            if item in seen:
                continue
            seen.add(item)
            if isinstance(item, BufferLoad):
                access(item.buffer, item.indices)
            elif isinstance(item, BufferRegion) and all(as_int(r.extent) == 1 for r in item.ranges):
                access(item.buffer, [r.min for r in item.ranges])
            elif isinstance(item, Var):
                others.add(item)
            else:
                stack += item.children()
        return _Uses({item.var: item for item in known}, accesses, plain, others)

    def pairs(self, links: Links) -> set[tuple[Var, Var]]:
        """Two variables, the second one running over the next axis wherever either is used."""
        after: dict[Var, set[Var | None]] = {var: set() for var in self.variables}
        before: dict[Var, set[Var | None]] = {var: set() for var in self.variables}
        for buffer, indices in self.accesses:
            for axis, (a, b) in enumerate(pairwise((None, *indices, None)), -1):
                linked = axis in links.get(buffer, ()) and self._side_by_side(buffer, axis, a, b)
                if a in after:
                    after[a].add(b if linked else None)
                if b in before:
                    before[b].add(a if linked else None)
        return {
            (a, b)
            for a, following in after.items()
            for b in following
            if b is not None and len(following) == 1 and before[b] == {a}
            if not {a, b} & self.others
        }

    def _side_by_side(self, buffer: Buffer, axis: int, a: Var | None, b: Var | None) -> bool:
        if a is None or b is None or a is b:
            return False
        first, second = self.variables.get(a), self.variables.get(b)
        if first is None or second is None or first.kind != second.kind:
            return False
        whole = zip((first, second), buffer.shape[axis : axis + 2], strict=True)
        return all(as_int(item.dom.extent) == as_int(extent) for item, extent in whole)


@dataclass(frozen=True)
class _Nest:
    """A block in its loops, and how it uses its variables."""

    site: BlockSite
    uses: _Uses


def _variable(index: Expr, ones: Mapping[Var, Expr]) -> Var | None:
    """The variable that an index is, whatever is added to it and can only be 0."""
    if isinstance(index, Var):
        return index
    inside = [var for var in free_vars((index,)) if var not in ones]
    alone = len(inside) == 1 and difference(substitute(index, ones), inside[0]) == 0
    return inside[0] if alone else None


def _links(blocks: Sequence[_Uses]) -> dict[Buffer, set[int]]:
    """The axes that all blocks agree on."""
    accesses = [(uses, buffer, found) for uses in blocks for buffer, found in uses.accesses]
    links = {buffer: set(range(len(buffer.shape) - 1)) for _, buffer, _ in accesses}
    while True:
        pairs = {id(uses): uses.pairs(links) for uses in blocks}
        left = {buffer: set(axes) for buffer, axes in links.items()}
        for uses, buffer, found in accesses:
            left[buffer] &= {n for n, pair in enumerate(pairwise(found)) if pair in pairs[id(uses)]}
        if left == links:
            return {buffer: axes for buffer, axes in links.items() if axes}
        links = left


def _groups(count: int, axes: set[int]) -> Groups:
    groups: list[list[int]] = []
    for axis in range(count):
        if axis - 1 in axes:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return tuple(map(tuple, groups))


def _extent(extents: Sequence[Expr]) -> Expr:
    if len(extents) == 1:
        return extents[0]
    return IntImm(prod(as_int(item) or 0 for item in extents), extents[0].dtype)


class _Collapse(StmtRewriter):
    def __init__(self, links: Links, nests: Sequence[_Nest]) -> None:
        self.links = links
        self.nests = {nest.site.loops[0]: nest for nest in nests if nest.site.loops}
        self.groups = {buffer: _groups(buffer.ndim, axes) for buffer, axes in links.items()}
        self.buffers = {
            buffer: replace(
                buffer, shape=tuple(_extent([buffer.shape[n] for n in g]) for g in groups)
            )
            for buffer, groups in self.groups.items()
        }
        self.memo: dict[Term, Term] = {}
        self.plain: Mapping[Expr, Var] = {}
        self.fused: dict[Var, IterVar] = {}
        """Of the block around: what becomes of the first of several variables."""

    def buffer(self, value: Buffer) -> Buffer:
        return self.buffers.get(value, value)

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._term, self.memo)

    def _term(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer in self.buffers:
            indices = self._merged(item.buffer, item.indices)
            return BufferLoad(self.buffers[item.buffer], indices, item.predicate)
        if isinstance(item, BufferRegion) and item.buffer in self.buffers:
            groups = self.groups[item.buffer]
            indices = self._merged(item.buffer, [r.min for r in item.ranges])
            ranges = [
                item.ranges[group[0]] if len(group) == 1 else Range(index, IntImm(1, index.dtype))
                for group, index in zip(groups, indices, strict=True)
            ]
            return BufferRegion(self.buffers[item.buffer], tuple(ranges))
        return item

    def _merged(self, buffer: Buffer, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(
            indices[group[0]] if len(group) == 1 else self.fused[self.plain[indices[group[0]]]].var
            for group in self.groups[buffer]
        )

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        assert isinstance(new, BufferStore)
        if stmt.buffer not in self.buffers:
            return new
        return replace(new, indices=self._merged(stmt.buffer, new.indices))

    def visit_for(self, stmt: For) -> Stmt:
        site, uses = self.nests[stmt].site, self.nests[stmt].uses
        over = list(zip(site.loops, site.block.iter_vars, strict=True))
        following = dict(uses.pairs(self.links))
        starts = [var for var in following if var not in following.values()]
        chains = {var: _chain(var, following) for var in starts}
        self.memo, self.plain = {}, uses.plain
        self.fused = {var: _fuse([uses.variables[v] for v in chains[var]]) for var in starts}
        names = {item.var: loop.var.name for loop, item in over}
        kept: list[tuple[For, IterVar]] = []
        for loop, item in over:
            if item.var in following.values():
                continue
            new = self.fused.get(item.var)
            if new is not None:
                last = chains[item.var][-1]
                var = Var(f"{loop.var.name}_{names[last]}", loop.var.dtype)
                loop = replace(loop, var=var, extent=new.dom.extent)
            kept.append((loop, new or item))
        realize = self.visit(site.realize)
        assert isinstance(realize, BlockRealize)
        block = replace(realize.block, iter_vars=tuple(item for _, item in kept))
        values = tuple(loop.var for loop, _ in kept)
        result: Stmt = replace(realize, iter_values=values, block=block)
        for loop, _ in reversed(kept):
            result = replace(loop, body=result)
        return result


def _chain(var: Var, following: Mapping[Var, Var]) -> list[Var]:
    chain = [var]
    while chain[-1] in following:
        chain.append(following[chain[-1]])
    return chain


def _fuse(items: Sequence[IterVar]) -> IterVar:
    """One variable over what several run over."""
    first, last = items[0], items[-1]
    name = f"{first.var.name}_{last.var.name}"
    dom = Range(first.dom.min, _extent([item.dom.extent for item in items]))
    return replace(first, var=Var(name, first.var.dtype), dom=dom)
