"""Primitives that stage data through a buffer of another scope: cache_read, cache_write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import Expr, Range, Var, as_int
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion, buffer
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
    require_bounds_predicate,
    restated,
    scoped_buffer,
    with_allocation,
)
from transect.tir.schedule.tree import Forward, Tree, replace_statements
from transect.tir.stmt import Block, BufferStore, Stmt, seq
from transect.tir.visit import own_terms, walk_stmts


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
        anchor = tree.outermost(first, scope)
        for other in tree.blocks(scope):
            if uses(other, found)[1] and tree.order[other] >= tree.order[anchor]:
                refuse(
                    self.name,
                    f"block {other.name!r} writes {found.name!r} in the same nest or later",
                    first,
                    "cache before moving the producer there",
                )
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
class ReindexCacheRead(Primitive):
    """Like cache_read, with one dimension of the cache for each of some iteration variables.

    axes: which iteration variables index the cache, in order: with the block's (vi, vj, vk),

        C[vi, vj] += A[vi, vk] * B[vj, vk]

    reindex_cache_read(block, 1, "global", (2, 1)) ->

        for ax0, ax1 in T.grid(d, m):
            B_global[ax0, ax1] = B[ax1, ax0]
        …
        C[vi, vj] += A[vi, vk] * B_global[vk, vj]

    The indices of the read may use no other iteration variables.
    """

    index: int
    scope: str
    axes: tuple[int, ...]
    name: ClassVar[str] = "reindex_cache_read"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        load = self._load(tree, block)
        if not all(0 <= axis < len(block.iter_vars) for axis in self.axes):
            refuse(self.name, f"axes {self.axes} are not its variables", block, "positions from 0")
        chosen = [block.iter_vars[axis] for axis in self.axes]
        own = {item.var for item in block.iter_vars}
        used = [var for var in free_vars(load.indices) if var in own]
        if len(set(self.axes)) != len(self.axes) or not set(used) <= {c.var for c in chosen}:
            refuse(
                self.name,
                f"{load.buffer.name!r} is indexed by other iteration variables than {self.axes}",
                block,
                "name every iteration variable of the read once",
            )
        if any(as_int(item.dom.min) != 0 for item in chosen):
            refuse(self.name, "its domain does not start at 0", block, "before loop_partition")
        shape = tuple(item.dom.extent for item in chosen)
        cache = buffer(
            f"{load.buffer.name}_{self.scope.replace('.', '_')}",
            shape,
            load.buffer.dtype,
            scope=self.scope,
        )
        copy, made = copy_nest(cache.name, cache, cache, cache.region)
        inner: dict[Var, Expr] = {
            item.var: fresh.var for item, fresh in zip(chosen, made.iter_vars, strict=True)
        }
        indices = tuple(item.var for item in made.iter_vars)
        source = BufferLoad(load.buffer, tuple(substitute(i, inner) for i in load.indices))
        filled = restated(replace(made, body=BufferStore(cache, source, indices)))
        copy = replace_statements(copy, {made: filled}, {})
        assert copy is not None

        def elsewhere(item: Term) -> Term:
            if item is load:
                return BufferLoad(cache, tuple(each.var for each in chosen))
            return item

        rewriter = AccessRewriter(elsewhere)
        new = rewriter.visit(block)
        assert isinstance(new, Block)
        done = insert_copy(func, block, new, rewriter.forward, copy, cache, after=False)
        return Edit(done.func, done.forward, (filled,))

    def _load(self, tree: Tree, block: Block) -> BufferLoad:
        if not 0 <= self.index < len(block.reads):
            refuse(self.name, f"it has no read {self.index}", block, f"it has {len(block.reads)}")
        found = block.reads[self.index].buffer
        loads = {
            item
            for stmt in walk_stmts(block)
            if not isinstance(stmt, Block)
            for item in walk(*own_terms(stmt))
            if isinstance(item, BufferLoad) and item.buffer is found
        }
        if len(loads) != 1 or not is_transparent(block) or uses(block, found)[1]:
            refuse(
                self.name,
                f"it does not read {found.name!r} at one place",
                block,
                "use cache_read",
            )
        scope = tree.scope(block)
        anchor = tree.outermost(block, scope)
        for other in tree.blocks(scope):
            if uses(other, found)[1] and tree.order[other] >= tree.order[anchor]:
                refuse(
                    self.name,
                    f"block {other.name!r} writes {found.name!r} in the same nest or later",
                    block,
                    "cache before moving the producer there",
                )
        return loads.pop()


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
        require_bounds_predicate(self.name, tree, block)
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
        self._check_others(tree, block, found)
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

    def _check_others(self, tree: Tree, block: Block, found: Buffer) -> None:
        anchor = tree.outermost(block, tree.scope(block))
        for other in tree.blocks(anchor):
            if other is not block and any(uses(other, found)):
                refuse(
                    self.name,
                    f"block {other.name!r} of the same nest uses {found.name!r} before the copy",
                    block,
                    "cache before moving blocks together",
                )
