"""Primitives that stage data through a buffer of another scope: cache_read, cache_write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import Range
from transect.ir.term import Term
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.schedule.chain import compose
from transect.tir.schedule.compute_at import join_boxes
from transect.tir.schedule.dependence import contains, readers, uses, writers
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
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
from transect.tir.visit import walk_stmts


def redirect(block: Block, old: Buffer, new: Buffer) -> tuple[Block, Forward]:
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


def redirect_all(
    block: Block, more: Iterable[Block], old: Buffer, new: Buffer
) -> tuple[Block, dict[Stmt, Stmt | None], Forward]:
    """`redirect` for a block and for others: the block, the others, what became of what."""
    made, forward = redirect(block, old, new)
    others: dict[Stmt, Stmt | None] = {}
    for item in more:
        if item is not block:
            others[item], told = redirect(item, old, new)
            forward |= told
    return made, others, forward


def insert_copy(
    func: PrimFunc,
    block: Block,
    new: Block,
    forward: Forward,
    copy: Stmt,
    *caches: Buffer,
    after: bool,
    others: Mapping[Stmt, Stmt | None] | None = None,
) -> Edit:
    """Put the changed block in its place, the copy beside its nest and the caches in its scope.

    others: what becomes of other blocks.
    """
    tree = Tree(func)
    scope = tree.scope(block)
    first = edit(func, {block: new, **(others or {})}, forward)
    home = first.forward[scope]
    assert isinstance(home, Block)
    moved = Tree(first.func).outermost(new, home)
    second = edit(first.func, {moved: seq(moved, copy) if after else seq(copy, moved)})
    now = second.forward.get(home, home)
    assert isinstance(now, Block)
    third = edit(second.func, {now: with_allocation(now, *caches)})
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


class _WithConsumers(Primitive):
    """The block comes first, then those given as `consumer_blocks`."""

    def written(self, inputs: Sequence[str]) -> list[str]:
        more = [f"consumer_blocks=[{', '.join(inputs[1:])}]"] if len(inputs) > 1 else []
        return [*inputs[:1], *more]


@dataclass(frozen=True)
class CacheRead(_WithConsumers):
    """Copy what blocks read of a buffer to one in `storage_scope` first, and read that.

        for i in range(n):                 for ax0 in range(n):
            C[i] = A[i] * 2          ->        A_shared[ax0] = A[ax0]
                                           for i in range(n):
                                               C[i] = A_shared[i] * 2

    The buffer is read `read_buffer_index` of the block. Blocks after it say which read the copy;
    by default all of the scope that read the buffer as the block finds it. The copy can then be
    moved with compute_at. The result is the block that copies.
    """

    read_buffer_index: int
    storage_scope: str
    name: ClassVar[str] = "cache_read"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block, *given = [expect_block(self.name, target) for target in targets]
        tree = Tree(func)
        region = read_region(self.name, block, self.read_buffer_index)
        found = region.buffer
        scope = tree.scope(block)
        consumers = self._consumers(tree, block, found, given)
        for consumer in consumers:
            if not is_transparent(consumer):
                refuse(
                    self.name,
                    "it uses pointers or opaque calls",
                    consumer,
                    "cache before tensorize",
                )
            if uses(consumer, found)[1]:
                refuse(
                    self.name, f"it also writes {found.name!r}", consumer, "use sch.cache_inplace"
                )
        first = min(consumers, key=tree.order.__getitem__)
        check_written_before(self.name, tree, first, found)
        analyzer = analyzer_for(tree, scope, inclusive=True)
        boxes = [
            touched_box(consumer, item, analyzer)
            for consumer in consumers
            for item in consumer.reads
            if item.buffer is found
        ]
        ranges = [
            Range.of(size) if item is None else item
            for item, size in zip(join_boxes(boxes, analyzer), found.shape, strict=True)
        ]
        cache = scoped_buffer(found, self.storage_scope)
        copy, copy_block = copy_nest(cache.name, found, cache, BufferRegion(found, tuple(ranges)))
        new, others, forward = redirect_all(first, consumers, found, cache)
        done = insert_copy(func, first, new, forward, copy, cache, after=False, others=others)
        return Edit(done.func, done.forward, (copy_block,))

    def _consumers(
        self, tree: Tree, block: Block, found: Buffer, given: list[Block]
    ) -> list[Block]:
        scope = tree.scope(block)
        siblings = tree.blocks(scope)
        for other in given:
            if other not in siblings or not uses(other, found)[0]:
                refuse(
                    self.name,
                    f"it does not read {found.name!r} beside block {block.name!r}",
                    other,
                    "name blocks of the same scope that read it",
                )
        if given:
            return given
        # Of the other readers those that see what this block does, and in nests where it is made
        # already.
        anchor = tree.outermost(block, scope)
        made = [item for item in writers(siblings, found) if tree.order[item] < tree.order[anchor]]
        last = max((tree.order[item] for item in made), default=-1)
        return [
            item
            for item in readers(siblings, found)
            if item is block or tree.order[tree.outermost(item, scope)] > last
        ]


def read_region(primitive: str, block: Block, index: int) -> BufferRegion:
    """Read `index` of a block. Refuses other numbers."""
    if not 0 <= index < len(block.reads):
        refuse(primitive, f"it has no read {index}", block, f"it has {len(block.reads)}")
    return block.reads[index]


def touched_box(block: Block, region: BufferRegion, analyzer: Analyzer) -> BufferRegion:
    """What all instances of a block touch of a region of theirs, cut to the buffer."""
    domain = {
        item.var: (item.dom.min, item.dom.min + item.dom.extent - 1) for item in block.iter_vars
    }
    box = relax(region, domain, analyzer)
    ranges = tuple(
        item
        if analyzer.can_prove(item.min >= 0) and analyzer.can_prove(item.min + item.extent <= size)
        else Range.of(size)
        for item, size in zip(box.ranges, region.buffer.shape, strict=True)
    )
    return BufferRegion(region.buffer, ranges)


@dataclass(frozen=True)
class CacheWrite(_WithConsumers):
    """Let a block store an output to a buffer in `storage_scope`, and copy that out afterwards.

        for i in range(n):                 for i in range(n):
            C[i] = A[i] * 2          ->        C_local[i] = A[i] * 2
                                           for ax0 in range(n):
                                               C[ax0] = C_local[ax0]

    The buffer is write `write_buffer_index` of the block. Blocks after it say which readers of the
    buffer take their input from the cache; by default none. The copy can then be moved with
    reverse_compute_at. The result is the block that copies.
    """

    write_buffer_index: int
    storage_scope: str
    name: ClassVar[str] = "cache_write"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block, *consumers = [expect_block(self.name, target) for target in targets]
        tree = Tree(func)
        number = self.write_buffer_index
        if not 0 <= number < len(block.writes):
            refuse(self.name, f"it has no write {number}", block, f"it has {len(block.writes)}")
        region = block.writes[number]
        found = region.buffer
        if not is_transparent(block):
            refuse(self.name, "it uses pointers or opaque calls", block, "cache before tensorize")
        if uses(block, found)[0]:
            refuse(
                self.name,
                f"it also reads {found.name!r}, so the cache would start without its contents",
                block,
                "cache before decompose_reduction, or use sch.cache_inplace",
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
        cache = scoped_buffer(found, self.storage_scope)
        copy, copy_block = copy_nest(cache.name, cache, found, box)
        for item in consumers:
            self._check_consumer(tree, block, item, box)
        new, others, forward = redirect_all(block, consumers, found, cache)
        done = insert_copy(func, block, new, forward, copy, cache, after=True, others=others)
        return Edit(done.func, done.forward, (copy_block,))

    def _check_consumer(self, tree: Tree, block: Block, consumer: Block, box: BufferRegion) -> None:
        """Refuse a reader of the buffer that finds something else there than what is cached."""
        found = box.buffer
        siblings = tree.blocks(tree.scope(block))
        start, end = tree.order[block], tree.order.get(consumer, -1)
        reads, writes = uses(consumer, found)
        if consumer not in siblings or not reads or writes or end <= start:
            refuse(
                self.name,
                f"it does not just read {found.name!r} after block {block.name!r}, in its scope",
                consumer,
                "name later readers",
            )
        if not is_transparent(consumer):
            refuse(self.name, "it uses pointers or opaque calls", consumer, "cache first")
        # What is in a loop with the reader may also run before it.
        end = max(
            end, *(tree.order[s] for s in walk_stmts(tree.outermost(consumer, tree.scope(block))))
        )
        for other in writers(siblings, found):
            if other is not block and start < tree.order[other] <= end:
                refuse(
                    self.name,
                    f"block {other.name!r} writes {found.name!r} too before it reads",
                    consumer,
                    "let it read the buffer itself",
                )
        analyzer = analyzer_for(tree, tree.scope(block), inclusive=True)
        for item in consumer.reads:
            if item.buffer is found and not contains(
                box, touched_box(consumer, item, analyzer), analyzer
            ):
                refuse(
                    self.name,
                    f"it may read more of {found.name!r} than block {block.name!r} writes",
                    consumer,
                    "let it read the buffer itself",
                )
