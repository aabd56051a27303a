"""Primitives that stage data through a buffer of another scope: cache_read, cache_write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import Range
from transect.ir.term import Term
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.loops import compose
from transect.tir.schedule.region import analyzer_for, is_transparent, relax
from transect.tir.schedule.rewrite import (
    AccessRewriter,
    copy_nest,
    plain_axes,
    require_whole_domain,
    scoped_buffer,
    with_allocation,
)
from transect.tir.schedule.tree import Forward, Tree
from transect.tir.stmt import Block, Stmt, seq


def _redirect(block: Block, old: Buffer, new: Buffer) -> tuple[Block, Forward]:
    """`block` with `new` in place of `old`, inside it and in its regions."""

    def elsewhere(item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is old:
            return BufferLoad(new, item.indices, item.predicate)
        if isinstance(item, BufferRegion) and item.buffer is old:
            return BufferRegion(new, item.ranges)
        return item

    rewriter = AccessRewriter(elsewhere, {old: new})
    made = rewriter.visit(block)
    assert isinstance(made, Block)
    return made, rewriter.forward


def insert_copy(
    func: PrimFunc,
    block: Block,
    new: Block,
    forward: Forward,
    copy: Stmt,
    cache: Buffer,
    *,
    after: bool,
) -> Edit:
    """Put the changed block in its place, the copy beside its nest and the cache in its scope."""
    tree = Tree(func)
    scope = tree.scope(block)
    first = edit(func, {block: new}, forward)
    home = first.forward[scope]
    assert isinstance(home, Block)
    moved = Tree(first.func).outermost(new, home)
    second = edit(first.func, {moved: seq(moved, copy) if after else seq(copy, moved)})
    now = second.forward.get(home, home)
    assert isinstance(now, Block)
    third = edit(second.func, {now: with_allocation(now, cache)})
    joined = compose(dict(first.forward), dict(second.forward))
    return Edit(third.func, compose(joined, dict(third.forward)))


def check_written_before(primitive: str, tree: Tree, block: Block, found: Buffer) -> None:
    """Refuse a buffer that is written in the nest of `block` or after it."""
    scope = tree.scope(block)
    anchor = tree.outermost(block, scope)
    for other in tree.blocks(scope):
        if uses(other, found)[1] and tree.order[other] >= tree.order[anchor]:
            refuse(
                primitive,
                f"block {other.name!r} writes {found.name!r} in the same nest or later",
                block,
                "cache before moving the producer there",
            )


def check_used_alone(primitive: str, tree: Tree, block: Block, found: Buffer) -> None:
    """Refuse a buffer that others use before a copy behind the nest of `block`."""
    anchor = tree.outermost(block, tree.scope(block))
    for other in tree.blocks(anchor):
        if other is not block and any(uses(other, found)):
            refuse(
                primitive,
                f"block {other.name!r} of the same nest uses {found.name!r} before the copy",
                block,
                "cache before moving blocks together",
            )


@dataclass(frozen=True)
class CacheRead(Primitive):
    """Copy what a block reads of its input `index` to a buffer in `scope` first, and read that.

        for i in range(n):                 for ax0 in range(n):
            C[i] = A[i] * 2          ->        A_shared[ax0] = A[ax0]
                                           for i in range(n):
                                               C[i] = A_shared[i] * 2

    The copy can then be moved with compute_at. The result is the block that copies.
    """

    index: int
    scope: str
    name: ClassVar[str] = "cache_read"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        if not 0 <= self.index < len(block.reads):
            refuse(self.name, f"it has no read {self.index}", block, f"it has {len(block.reads)}")
        region = block.reads[self.index]
        found = region.buffer
        if not is_transparent(block):
            refuse(self.name, "it uses pointers or opaque calls", block, "cache before tensorize")
        if uses(block, found)[1]:
            refuse(self.name, f"it also writes {found.name!r}", block, "cache what is only read")
        check_written_before(self.name, tree, block, found)
        scope = tree.scope(block)
        analyzer = analyzer_for(tree, scope, inclusive=True)
        domain = {
            item.var: (item.dom.min, item.dom.min + item.dom.extent - 1) for item in block.iter_vars
        }
        box = relax(region, domain, analyzer)
        ranges = tuple(
            item
            if analyzer.can_prove(item.min >= 0)
            and analyzer.can_prove(item.min + item.extent <= size)
            else Range.of(size)
            for item, size in zip(box.ranges, found.shape, strict=True)
        )
        cache = scoped_buffer(found, self.scope)
        copy, copy_block = copy_nest(cache.name, found, cache, BufferRegion(found, ranges))
        new, forward = _redirect(block, found, cache)
        done = insert_copy(func, block, new, forward, copy, cache, after=False)
        return Edit(done.func, done.forward, (copy_block,))


@dataclass(frozen=True)
class CacheWrite(Primitive):
    """Let a block store its output `index` to a buffer in `scope`, and copy that out afterwards.

        for i in range(n):                 for i in range(n):
            C[i] = A[i] * 2          ->        C_local[i] = A[i] * 2
                                           for ax0 in range(n):
                                               C[ax0] = C_local[ax0]

    The copy can then be moved with reverse_compute_at. The result is the block that copies.
    """

    index: int
    scope: str
    name: ClassVar[str] = "cache_write"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        if not 0 <= self.index < len(block.writes):
            refuse(self.name, f"it has no write {self.index}", block, f"it has {len(block.writes)}")
        region = block.writes[self.index]
        found = region.buffer
        if not is_transparent(block):
            refuse(self.name, "it uses pointers or opaque calls", block, "cache before tensorize")
        if uses(block, found)[0]:
            refuse(
                self.name,
                f"it also reads {found.name!r}, so the cache would start without its contents",
                block,
                "cache before decompose_reduction",
            )
        require_whole_domain(self.name, tree, block)
        points = [item.min for item in region.ranges]
        axes = plain_axes(block, points)
        spatial = {item.var: item.dom for item in block.iter_vars if item.kind == "spatial"}
        if axes is None or not set(axes) <= set(spatial):
            refuse(
                self.name,
                f"it may leave holes in what it writes of {found.name!r}, which a copy would fill",
                block,
                "store at plain spatial iteration variables, each once",
            )
        by_axis = {axis: spatial[var] for var, axis in axes.items()}
        box = BufferRegion(
            found, tuple(by_axis.get(axis, item) for axis, item in enumerate(region.ranges))
        )
        check_used_alone(self.name, tree, block, found)
        cache = scoped_buffer(found, self.scope)
        copy, copy_block = copy_nest(cache.name, cache, found, box)
        new, forward = _redirect(block, found, cache)
        done = insert_copy(func, block, new, forward, copy, cache, after=True)
        return Edit(done.func, done.forward, (copy_block,))
