"""Primitives that move a block under a loop of its neighbours: compute_at, reverse_compute_at.

The moved block gets new loops, over the part of its domain that one iteration of the loop needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import Expr, Range, Var, as_int, logical_and, true
from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.schedule.chain import compose
from transect.tir.schedule.dependence import contains, mentions, readers, uses, writers
from transect.tir.schedule.edit import (
    Edit,
    Primitive,
    Target,
    edit,
    expect_block,
    expect_loop,
    refuse,
)
from transect.tir.schedule.region import (
    analyzer_for,
    at_loops,
    loop_domain,
    regions_of,
    relax,
)
from transect.tir.schedule.rewrite import (
    body_items,
    nest,
    require_bounds_predicate,
)
from transect.tir.schedule.tree import Forward, Tree
from transect.tir.stmt import Block, BlockRealize, For, Stmt, seq

Needed = dict[Var, Range]
"""The part of the domain of each iteration variable that is needed; those left out: all of it."""


def _same_scope(primitive: str, tree: Tree, block: Block, loop: For) -> Block:
    scope = tree.scope(block)
    if tree.scope(loop) is not scope:
        refuse(
            primitive,
            f"loop {loop.var.name!r} is in another block",
            block,
            "choose a loop of the same scope",
        )
    if tree.is_inside(block, loop):
        refuse(
            primitive,
            f"it is under loop {loop.var.name!r} already",
            block,
            "choose a loop of its neighbour",
        )
    return scope


def box_inside(
    tree: Tree, block: Block, region: BufferRegion, loop: For, analyzer: Analyzer
) -> BufferRegion:
    """What `block` touches of a region while `loop` runs one iteration."""
    inner = [item for item in tree.loops(block) if tree.is_inside(item, loop.body)]
    return relax(at_loops(region, tree.realize(block)), loop_domain(inner), analyzer)


def _own_axes(block: Block, indices: list[Expr]) -> dict[Var, int]:
    """Which index is which iteration variable, of those that are an index alone: what others do
    not read along that axis, as in the batches of a panel, these instances need not make."""
    own = {item.var for item in block.iter_vars}
    return {
        index: axis
        for axis, index in enumerate(indices)
        if isinstance(index, Var)
        and index in own
        and not any(index in free_vars([other]) for other in indices if other is not index)
    }


def join_boxes(boxes: list[BufferRegion], analyzer: Analyzer) -> list[Range | None]:
    """The box around boxes, per axis; None: the whole axis."""
    joined: list[Range | None] = list(boxes[0].ranges)
    for box in boxes[1:]:
        for axis, item in enumerate(box.ranges):
            known = joined[axis]
            if known is None or known is item:
                continue
            if analyzer.can_prove(known.min <= item.min) and analyzer.can_prove(
                item.min + item.extent <= known.min + known.extent
            ):
                continue
            if analyzer.can_prove(item.min <= known.min) and analyzer.can_prove(
                known.min + known.extent <= item.min + item.extent
            ):
                joined[axis] = item
                continue
            low = known.min if analyzer.can_prove(known.min <= item.min) else item.min
            high = known.min + known.extent
            if not analyzer.can_prove(item.min + item.extent <= high):
                high = item.min + item.extent
            sound = all(
                analyzer.can_prove(low <= each.min)
                and analyzer.can_prove(each.min + each.extent <= high)
                for each in (known, item)
            )
            joined[axis] = Range(low, analyzer.simplify(high - low)) if sound else None
    return joined


def _regenerate(
    tree: Tree, block: Block, needed: Needed, analyzer: Analyzer, *, unit_loops: bool
) -> Stmt:
    """New loops around `block` (itself, so that handles stay) for a part of its domain.

    unit_loops: also where there is one iteration.
    """
    loops: list[tuple[Var, Expr]] = []
    values: list[Expr] = []
    predicate: Expr = true()
    for number, item in enumerate(block.iter_vars):
        part = needed.get(item.var, item.dom)
        end = item.dom.min + item.dom.extent
        if as_int(part.extent) is None and analyzer.can_prove(part.extent >= item.dom.extent):
            part = item.dom
        loop = Var(f"ax{number}", item.dom.extent.dtype)
        if as_int(part.extent) == 1 and not unit_loops:
            value = part.min
        else:
            loops.append((loop, part.extent))
            if as_int(part.extent) != 1:
                # A loop of one iteration that is wanted is not to be simplified away.
                analyzer.bind(loop, Range.of(part.extent))
            value = analyzer.simplify(part.min + loop)
        values.append(value)
        reached = part.min if as_int(part.extent) == 1 else value
        if not analyzer.can_prove(reached >= item.dom.min):
            predicate = logical_and(predicate, analyzer.simplify(reached >= item.dom.min))
        if not analyzer.can_prove(reached < end):
            predicate = logical_and(predicate, analyzer.simplify(reached < end))
    realize = BlockRealize(tuple(values), predicate, block, span=tree.realize(block).span)
    return nest(loops, realize)


def _move(func: PrimFunc, block: Block, loop: For, stmt: Stmt, position: int) -> Edit:
    """`stmt`, which holds `block`, as item `position` of the body of `loop`; the old nest gone."""
    tree = Tree(func)
    items = list(body_items(loop.body))
    items.insert(position, stmt)
    made = replace(loop, body=seq(*items))
    forward: Forward = {block: block}
    changes: dict[Stmt, Stmt | None] = {loop: made}
    old = tree.realize(block)
    if not any(item is old for item in items):
        changes[old] = None
    first = edit(func, changes, {loop: made, **forward})
    return Edit(first.func, compose(dict(first.forward), forward) | forward)


def _item_of(tree: Tree, loop: For, inner: Stmt) -> int:
    """Which item of the body of `loop` a statement is in."""
    items = body_items(loop.body)
    return next(n for n, item in enumerate(items) if tree.is_inside(inner, item))


def _position(primitive: str, block: Block, index: int, first: int, last: int) -> int:
    """Where in the loop's body; `first` and `last` are the positions that are possible."""
    position = {-1: last, -2: first}.get(index, index)
    if not first <= position <= last:
        refuse(
            primitive,
            f"at position {index} it would come before what it needs or after what needs it",
            block,
            f"an index in [{first}, {last}], -1 for the last or -2 for the first of them",
        )
    return position


@dataclass(frozen=True)
class ComputeAt(Primitive):
    """Move a producer under a loop of its consumers, to make there only what is needed there.

    preserve_unit_loops: also make loops of one iteration. index: where in the loop's body, counted
    in statements; -1: as late as possible, right before the first consumer; -2: first of all.

        for i in range(n):                 for i in range(n):
            B[i] = A[i] * 2                    B[i] = A[i] * 2
        for i in range(n):           ->        C[i] = B[i] + 1
            C[i] = B[i] + 1

    All readers of what it writes must be under the loop. What several iterations need is made
    several times.
    """

    preserve_unit_loops: bool = False
    index: int = -1
    name: ClassVar[str] = "compute_at"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        loop = expect_loop(self.name, targets[1])
        tree = Tree(func)
        scope = _same_scope(self.name, tree, block, loop)
        require_bounds_predicate(self.name, tree, block)
        siblings = tree.blocks(scope)
        consumers = self._consumers(tree, block, loop, siblings)
        last = min(_item_of(tree, loop, item) for item in consumers)
        position = _position(self.name, block, self.index, 0, last)
        self._check_inputs(tree, block, loop, siblings)
        _check_kept(self.name, tree, block, loop, siblings)
        analyzer = analyzer_for(tree, loop, inclusive=True)
        needed: Needed = {}
        for region in block.writes:
            boxes = [
                box_inside(tree, consumer, read, loop, analyzer)
                for consumer in consumers
                for read in regions_of(consumer)[0]
                if read.buffer is region.buffer
            ]
            if not boxes:
                continue
            axes = _own_axes(block, [item.min for item in region.ranges])
            parts = join_boxes(boxes, analyzer)
            kinds = {item.var: item.kind for item in block.iter_vars}
            for var, axis in axes.items():
                part = parts[axis]
                if kinds[var] == "spatial" and part is not None and len(block.writes) == 1:
                    needed[var] = part
        stmt = _regenerate(tree, block, needed, analyzer, unit_loops=self.preserve_unit_loops)
        return _move(func, block, loop, stmt, position)

    def _consumers(self, tree: Tree, block: Block, loop: For, siblings: list[Block]) -> list[Block]:
        found: list[Block] = []
        for region in block.writes:
            if region.buffer in tree.func.buffers:
                refuse(
                    self.name,
                    f"it writes the parameter {region.buffer.name!r}, all of which the caller sees",
                    block,
                    "use sch.cache_write first, or reverse_compute_at on its readers",
                )
            others = [item for item in writers(siblings, region.buffer) if item is not block]
            if others:
                refuse(
                    self.name,
                    f"block {others[0].name!r} writes {region.buffer.name!r} too",
                    block,
                    "move it before decompose_reduction or loop_partition",
                )
            if block.init is None and uses(block, region.buffer)[0]:
                refuse(
                    self.name,
                    f"it reads {region.buffer.name!r} that it writes, so it may run only once",
                    block,
                    "leave it in place",
                )
            for item in readers(siblings, region.buffer):
                if item is block:
                    continue
                if not tree.is_inside(item, loop):
                    refuse(
                        self.name,
                        f"block {item.name!r} reads {region.buffer.name!r} outside loop "
                        f"{loop.var.name!r}",
                        block,
                        "move that reader under the loop first, or choose a loop around both",
                    )
                found.append(item)
        if not found:
            refuse(self.name, "nothing under the loop reads it", block, "choose a consumer's loop")
        return found

    def _check_inputs(self, tree: Tree, block: Block, loop: For, siblings: list[Block]) -> None:
        for region in block.reads:
            for item in writers(siblings, region.buffer):
                if item is block or tree.order[item] < tree.order[block]:
                    continue
                refuse(
                    self.name,
                    f"block {item.name!r} overwrites its input {region.buffer.name!r} later",
                    block,
                    "leave it in place",
                )
            for item in writers(siblings, region.buffer):
                if item is not block and tree.is_inside(item, loop):
                    refuse(
                        self.name,
                        f"its input {region.buffer.name!r} is made under loop {loop.var.name!r}",
                        block,
                        "move consumers before their producers",
                    )


@dataclass(frozen=True)
class ReverseComputeAt(Primitive):
    """Move a consumer under a loop of its producers, to use there what was just made.

    preserve_unit_loops: also make loops of one iteration. index: where in the loop's body, counted
    in statements; -1: as late as possible, at the end; -2: as early, right after the producers.

        for i in range(n):                 for i in range(n):
            B[i] = A[i] * 2                    B[i] = A[i] * 2
        for i in range(n):           ->        C[i] = B[i] + 1
            C[i] = B[i] + 1

    One iteration of the loop must finish what it makes: a loop that a reduction runs over, or one
    inside such a loop, is refused.
    """

    preserve_unit_loops: bool = False
    index: int = -1
    name: ClassVar[str] = "reverse_compute_at"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        loop = expect_loop(self.name, targets[1])
        tree = Tree(func)
        scope = _same_scope(self.name, tree, block, loop)
        require_bounds_predicate(self.name, tree, block)
        siblings = tree.blocks(scope)
        producers = self._producers(tree, block, loop, siblings)
        self._check_order(tree, block, loop, siblings)
        analyzer = analyzer_for(tree, loop, inclusive=True)
        made: dict[Buffer, BufferRegion] = {}
        for producer in producers:
            self._check_finished(tree, producer, loop, block)
            require_bounds_predicate(self.name, tree, producer)
            for region in regions_of(producer)[1]:
                if any(read.buffer is region.buffer for read in block.reads):
                    made[region.buffer] = box_inside(tree, producer, region, loop, analyzer)
        needed = self._needed(block, made)
        stmt = _regenerate(tree, block, needed, analyzer, unit_loops=self.preserve_unit_loops)
        self._check_contained(block, made, needed, analyzer)
        first = max(_item_of(tree, loop, item) for item in producers) + 1
        last = len(body_items(loop.body))
        position = _position(self.name, block, self.index, first, last)
        return _move(func, block, loop, stmt, position)

    def _producers(self, tree: Tree, block: Block, loop: For, siblings: list[Block]) -> list[Block]:
        found: list[Block] = []
        for region in block.reads:
            made_by = [item for item in writers(siblings, region.buffer) if item is not block]
            inside = [item for item in made_by if tree.is_inside(item, loop)]
            if not inside:
                continue
            if len(made_by) > 1:
                refuse(
                    self.name,
                    f"its input {region.buffer.name!r} is written by "
                    f"{' and '.join(repr(item.name) for item in made_by)}",
                    block,
                    "move it before decompose_reduction or loop_partition",
                )
            found.extend(inside)
        if not found:
            refuse(
                self.name,
                f"nothing under loop {loop.var.name!r} makes what it reads",
                block,
                "choose a loop of one of its producers",
            )
        return list(dict.fromkeys(found))

    def _check_order(self, tree: Tree, block: Block, loop: For, siblings: list[Block]) -> None:
        inputs = [region.buffer for region in block.reads]
        outputs = [region.buffer for region in block.writes]
        start = tree.order[loop]
        for item in siblings:
            if item is block or tree.order[item] < start:
                continue
            after = not tree.is_inside(item, loop)
            if after and tree.order[item] < tree.order[block]:
                for value in inputs:
                    if uses(item, value)[1]:
                        refuse(
                            self.name,
                            f"block {item.name!r} makes its input {value.name!r} after loop "
                            f"{loop.var.name!r}",
                            block,
                            "choose a loop of that block",
                        )
            if tree.order[item] < tree.order[block]:
                for value in outputs:
                    if any(uses(item, value)):
                        refuse(
                            self.name,
                            f"block {item.name!r} uses its output {value.name!r} before it",
                            block,
                            "leave it in place",
                        )
        for value in outputs:
            if block.init is None and uses(block, value)[0]:
                refuse(
                    self.name,
                    f"it reads {value.name!r} that it writes, so it may run only once",
                    block,
                    "leave it in place",
                )

    def _check_finished(self, tree: Tree, producer: Block, loop: For, block: Block) -> None:
        around = [item.var for item in tree.loops(loop)] + [loop.var]
        for item, value in zip(producer.iter_vars, tree.realize(producer).iter_values, strict=True):
            if item.kind == "spatial":
                continue
            for var in around:
                if mentions(value, var):
                    refuse(
                        self.name,
                        f"loop {var.name!r} runs over the reduction of block {producer.name!r}, "
                        "whose result is not complete inside",
                        block,
                        "choose a loop outside all reduction loops",
                    )

    def _needed(self, block: Block, made: dict[Buffer, BufferRegion]) -> Needed:
        spatial = {item.var for item in block.iter_vars if item.kind == "spatial"}
        needed: Needed = {}
        for region in regions_of(block)[0]:
            box = made.get(region.buffer)
            if box is None:
                continue
            for item, part in zip(region.ranges, box.ranges, strict=True):
                if isinstance(item.min, Var) and item.min in spatial and as_int(item.extent) == 1:
                    needed.setdefault(item.min, part)
        return needed

    def _check_contained(
        self,
        block: Block,
        made: dict[Buffer, BufferRegion],
        needed: Needed,
        analyzer: Analyzer,
    ) -> None:
        bounds = {
            item.var: (part.min, part.min + part.extent - 1)
            for item in block.iter_vars
            for part in [needed.get(item.var, item.dom)]
        }
        for region in regions_of(block)[0]:
            box = made.get(region.buffer)
            if box is None:
                continue
            read = relax(region, bounds, analyzer)
            if not contains(box, _clipped(read, box, analyzer), analyzer):
                refuse(
                    self.name,
                    f"it needs more of {region.buffer.name!r} than one iteration makes "
                    f"({_shown(read)} of {_shown(box)})",
                    block,
                    "choose an outer loop",
                )


def _check_kept(primitive: str, tree: Tree, block: Block, loop: For, siblings: list[Block]) -> None:
    """What `block` reads must still be there outside of the loops that it leaves: a rolling buffer
    keeps only the last rows."""
    stays = [*tree.loops(loop), loop]
    left = [item for item in tree.loops(block) if item not in stays]
    for region in block.reads:
        for writer in writers(siblings, region.buffer):
            shared = [item.var for item in tree.loops(writer) if item in left]
            if writer is block or not shared:
                continue
            written = next(item for item in writer.writes if item.buffer is region.buffer)
            apart = {item.min for item in written.ranges if isinstance(item.min, Var)}
            values = tree.realize(writer).iter_values
            for item, value in zip(writer.iter_vars, values, strict=True):
                moves = any(mentions(value, var) for var in shared)
                if moves and item.kind == "spatial" and item.var not in apart:
                    refuse(
                        primitive,
                        f"block {writer.name!r} writes the same elements of "
                        f"{region.buffer.name!r} again in later iterations of a loop that it would "
                        "leave",
                        block,
                        "move it before sch.rolling_buffer",
                    )


def _clipped(read: BufferRegion, box: BufferRegion, analyzer: Analyzer) -> BufferRegion:
    """What is read of the dimensions of which less than all is made: nothing is read outside of a
    buffer, though that cannot be told of indices that are cut off, as in min(i, n - 1)."""
    whole = [
        part
        if analyzer.can_prove(part.min <= 0) and analyzer.can_prove(part.min + part.extent >= size)
        else item
        for item, part, size in zip(read.ranges, box.ranges, box.buffer.shape, strict=True)
    ]
    return BufferRegion(read.buffer, tuple(whole))


def _shown(region: BufferRegion) -> str:
    parts = ", ".join(f"{item.min!r}:+{item.extent!r}" for item in region.ranges)
    return f"{region.buffer.name}[{parts}]"
