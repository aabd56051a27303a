"""Primitives that keep what earlier iterations made: rolling_buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import (
    Expr,
    FloorMod,
    IntImm,
    Range,
    Var,
    as_int,
    equal,
    logical_and,
    logical_or,
)
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import substitute
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.schedule.annotate import written_buffer
from transect.tir.schedule.chain import compose
from transect.tir.schedule.compute_at import box_inside
from transect.tir.schedule.dependence import contains, mentions, readers, writers
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import analyzer_for, is_transparent, regions_of
from transect.tir.schedule.rewrite import (
    AccessRewriter,
    allocating_block,
    plain_axes,
    require_bounds_predicate,
)
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, SeqStmt, Stmt


@dataclass(frozen=True)
class _Roll:
    """One dimension in which the box of an iteration overlaps with that of the one before."""

    axis: int
    loop: For
    start: Expr
    extent: int
    step: int


@dataclass(frozen=True)
class RollingBuffer(Primitive):
    """Keep in a ring what consecutive iterations of a loop both need of a buffer.

        for i in range(n):                    for i in range(n):
            for ax0 in range(3):                  for ax0 in range(3):
                with T.block("B"):                    with T.block("B"):
                    vi = i + ax0                          vi = i + ax0
                    B[vi] = A[vi] * 2     ->              T.where(i < 1 or 2 <= ax0)
            C[i] = B[i] + B[i + 2]                        B[vi % 3] = A[vi] * 2
                                                  C[i] = B[i % 3] + B[(i + 2) % 3]

    The buffer is write `write_buffer_index` of the block, which was moved under the loop, as by
    compute_at. Of the dimensions in which iterations overlap the one with the outermost loop
    becomes the ring; what was made is not made again in any of them. The loop must then run in
    order.
    """

    write_buffer_index: int
    name: ClassVar[str] = "rolling_buffer"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found = written_buffer(self.name, func, block, self.write_buffer_index)
        tree = Tree(func)
        require_bounds_predicate(self.name, tree, block)
        if allocating_block(tree, found) is not tree.scope(block):
            refuse(self.name, f"{found.name!r} is of a block further out", block, "roll it there")
        path = self._path(tree, block, found)
        rough = next((loop for loop in path if loop.kind != "serial"), None)
        if rough is not None:
            refuse(
                self.name,
                f"loop {rough.var.name!r} around it is {rough.kind}, and all its iterations would "
                "use one ring",
                block,
                "roll first, then say how loops run",
            )
        analyzer = analyzer_for(tree, path[-1], inclusive=True)
        region = block.writes[self.write_buffer_index]
        if plain_axes(block, [item.min for item in region.ranges]) is None or any(
            as_int(item.extent) != 1 for item in region.ranges
        ):
            refuse(
                self.name,
                f"it is said to write more of {found.name!r} than an element at its iteration "
                "variables",
                block,
                "roll before blockize and annotate_buffer_access",
            )
        box = box_inside(tree, block, region, path[-1], analyzer)
        self._check(tree, block, found, path, box, analyzer)
        rolls = self._rolls(path, box, analyzer)
        if not rolls:
            refuse(
                self.name,
                f"consecutive iterations of no loop around it and its readers make overlapping "
                f"parts of {found.name!r}",
                block,
                "move it with sch.compute_at under a serial loop of a stencil first",
            )
        realize = tree.realize(block)
        values = dict(zip((item.var for item in block.iter_vars), realize.iter_values, strict=True))
        predicate = realize.predicate
        for roll in rolls:
            var = region.ranges[roll.axis].min
            assert isinstance(var, Var)
            first = equal(roll.loop.var, roll.loop.min)
            fresh = values[var] >= roll.start + (roll.extent - roll.step)
            inner = analyzer_for(tree, realize)
            predicate = logical_and(predicate, logical_or(first, inner.simplify(fresh)))
        ring = min(rolls, key=lambda roll: path.index(roll.loop))
        changed = replace(realize, predicate=predicate)
        one = edit(func, {realize: changed})
        size = as_int(found.shape[ring.axis])
        if size is not None and size <= ring.extent:
            return one
        two = _fold(one.func, found, ring)
        return Edit(two.func, compose(dict(one.forward), dict(two.forward)))

    def _path(self, tree: Tree, block: Block, found: Buffer) -> list[For]:
        """The loops around the block and all readers, outermost first."""
        siblings = tree.blocks(tree.scope(block))
        others = [item for item in writers(tree.all_blocks(), found) if item is not block]
        others = [item for item in others if not tree.is_inside(block, item)]
        if others:
            refuse(
                self.name,
                f"block {others[0].name!r} writes {found.name!r} too",
                block,
                "roll buffers that one block makes",
            )
        consumers = [item for item in readers(siblings, found) if item is not block]
        path = [
            loop
            for loop in tree.loops(block)
            if all(tree.is_inside(item, loop) for item in consumers)
        ]
        if not path or not consumers:
            refuse(
                self.name,
                f"no loop is around it and the blocks that read {found.name!r}",
                block,
                "move it with sch.compute_at first",
            )
        return path

    def _check(
        self,
        tree: Tree,
        block: Block,
        found: Buffer,
        path: list[For],
        box: BufferRegion,
        analyzer: Analyzer,
    ) -> None:
        inside = path[-1]
        for item in tree.ancestors(tree.realize(block)):
            if item is path[0]:
                break
            if not isinstance(item, For | SeqStmt):
                refuse(self.name, "it runs only under a condition", block, "use plain loops")
        for consumer in readers(tree.blocks(tree.scope(block)), found):
            if consumer is block:
                continue
            if tree.order[consumer] < tree.order[block] or not is_transparent(consumer):
                refuse(
                    self.name,
                    f"block {consumer.name!r} reads {found.name!r} before it or in an unknown way",
                    block,
                    "roll before tensorize",
                )
            for region in regions_of(consumer)[0]:
                if region.buffer is found and not contains(
                    box, box_inside(tree, consumer, region, inside, analyzer), analyzer
                ):
                    refuse(
                        self.name,
                        f"block {consumer.name!r} may read more of {found.name!r} than one "
                        "iteration makes",
                        block,
                        "move it with sch.compute_at",
                    )
        reason = _changes(tree, block, path[0], set())
        if reason is not None:
            refuse(self.name, reason, block, "roll only what depends on its index alone")

    def _rolls(self, path: list[For], box: BufferRegion, analyzer: Analyzer) -> list[_Roll]:
        found: list[_Roll] = []
        loops = {loop.var for loop in path}
        for axis, item in enumerate(box.ranges):
            moving = [loop for loop in path if mentions(item.min, loop.var)]
            extent = as_int(item.extent)
            if not moving or extent is None:
                continue
            loop = moving[-1]
            after = substitute(item.min, {loop.var: loop.var + 1})
            step = as_int(analyzer.simplify(after - item.min))
            others = [r for n, r in enumerate(box.ranges) if n != axis]
            alone = not any(mentions(term, loop.var) for r in others for term in (r.min, r.extent))
            # Every sweep of the loops inside covers the same.
            inner = path[path.index(loop) + 1 :]
            even = not any(
                mentions(term, var) for each in inner for term in (each.min, each.extent)
                for var in loops
            )  # fmt: skip
            if step is None or not 0 < step < extent or not alone or not even:
                continue
            found.append(_Roll(axis, loop, item.min, extent, step))
        return found


def _changes(tree: Tree, block: Block, loop: For, seen: set[Block]) -> str | None:
    """Why what `block` stores at an index may change while `loop` runs; None if it does not."""
    if block in seen:
        return None
    seen.add(block)
    if not is_transparent(block):
        return f"block {block.name!r} uses pointers or opaque calls"
    reads, writes = regions_of(block)
    needed = {item.var for item in block.iter_vars if item.kind == "spatial"}
    needed = {v.var for v in block.iter_vars if v.var in needed and as_int(v.dom.extent) != 1}
    for region in writes:
        points = [
            item.min.a if isinstance(item.min, FloorMod) else item.min for item in region.ranges
        ]
        axes = plain_axes(block, points)
        if axes is None or not needed <= set(axes):
            return f"block {block.name!r} stores {region.buffer.name!r} at places that repeat"
        if any(read.buffer is region.buffer for read in reads):
            return f"block {block.name!r} updates {region.buffer.name!r} in place"
    for region in reads:
        for maker in writers(tree.blocks(loop), region.buffer):
            reason = _changes(tree, maker, loop, seen)
            if reason is not None:
                return reason
    return None


def _fold(func: PrimFunc, found: Buffer, ring: _Roll) -> Edit:
    """`func` with one dimension of a buffer as a ring."""
    axis = ring.axis
    size = IntImm(ring.extent, found.shape[axis].dtype)
    shape = (*found.shape[:axis], size, *found.shape[axis + 1 :])
    rewriter = _Ring(found, replace(found, shape=shape, strides=()), axis, size)
    body = rewriter.visit(func.body)
    assert isinstance(body, BlockRealize)
    return Edit(replace(func, body=body), rewriter.forward)


class _Ring(AccessRewriter):
    def __init__(self, old: Buffer, new: Buffer, axis: int, size: IntImm) -> None:
        super().__init__(self._term, {old: new})
        self.old = old
        self.new = new
        self.axis = axis
        self.size = size

    def _indices(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(
            index % self.size if axis == self.axis else index for axis, index in enumerate(indices)
        )

    def _term(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is self.old:
            return BufferLoad(self.new, self._indices(item.indices), item.predicate)
        if isinstance(item, BufferRegion) and item.buffer is self.old:
            ranges = list(item.ranges)
            old = ranges[self.axis]
            single = as_int(old.extent) == 1
            ranges[self.axis] = (
                Range(old.min % self.size, old.extent) if single else Range.of(self.size)
            )
            return BufferRegion(self.new, tuple(ranges))
        return item

    def bound_buffer(self, buffer: Buffer) -> Buffer:
        return self.new if buffer is self.old else buffer

    def visit_store(self, stmt: BufferStore) -> Stmt:
        made = super().visit_store(stmt)
        if stmt.buffer is not self.old or not isinstance(made, BufferStore):
            return made
        return replace(made, indices=self._indices(made.indices))
