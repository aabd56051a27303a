"""Which iterations of a loop touch the same memory: the question behind parallel and reorder.

Answers are sound: "independent" is only said when it is proved, from the accesses or from what a
block declares of its iteration variables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.arith import Analyzer
from transect.arith.iter_map import detect_iter_map
from transect.ir.expr import Add, Expr, FloorDiv, FloorMod, Mul, Range, Sub, Var, as_int
from transect.ir.traverse import substitute, walk
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.schedule.region import (
    analyzer_for,
    at_loops,
    loop_domain,
    predicate_is_bounds,
    regions_of,
    relax,
)
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, For, Stmt
from transect.tir.visit import driving_vars, walk_stmts


@dataclass(frozen=True)
class Touch:
    """What one block touches of one buffer in one iteration of a loop.

    point: the indices of a single element, before the loops inside were relaxed; None for a box.
    """

    block: Block
    region: BufferRegion
    store: bool
    point: tuple[Expr, ...] | None = None


def mentions(expr: Expr, var: Var) -> bool:
    """Whether `var` occurs in `expr`."""
    return any(item is var for item in walk(expr))


def touches(tree: Tree, stmt: Stmt, analyzer: Analyzer) -> list[Touch]:
    """What the blocks inside `stmt` touch, in program order, while `stmt` runs once."""
    found: list[Touch] = []
    for block in tree.blocks(stmt):
        realize = tree.realize(block)
        inner = [loop for loop in tree.loops(block) if tree.is_inside(loop, stmt)]
        domain = loop_domain(inner)
        reads, writes = regions_of(block)
        reduces = block.init is not None
        for store, regions in ((False, reads), (True, writes)):
            for region in regions:
                exact = at_loops(region, realize)
                single = all(as_int(item.extent) == 1 for item in exact.ranges)
                point = tuple(item.min for item in exact.ranges) if single else None
                box = relax(exact, domain, analyzer)
                found.append(Touch(block, box, store, point))
                if store and reduces:
                    found.append(Touch(block, box, False, point))
    return found


def loose_statements(tree: Tree, stmt: Stmt) -> bool:
    """Whether something inside `stmt` happens outside any block there."""
    inside = {s for block in tree.blocks(stmt) for s in walk_stmts(tree.realize(block))}
    loops = (s for s in walk_stmts(stmt) if s not in inside)
    return any(type(s).__name__ not in ("For", "SeqStmt", "AttrStmt") for s in loops)


def conflict(tree: Tree, loop: For) -> str | None:
    """Why iterations of `loop` cannot run at once or in another order; None if they can."""
    if loose_statements(tree, loop):
        return "its body does more than run blocks, so its iterations may depend on each other"
    for block in tree.blocks(loop):
        kinds = {
            iter_var.kind
            for iter_var, value in zip(
                block.iter_vars, tree.realize(block).iter_values, strict=True
            )
            if mentions(value, loop.var)
        }
        if kinds - {"spatial"}:
            kind = min(kinds - {"spatial"})
            return f"block {block.name!r} accumulates over it: its iteration variable is {kind!r}"
        if not kinds and as_int(loop.extent) != 1 and not _private_block(tree, loop, block):
            return f"block {block.name!r} does not depend on it, so all iterations write the same"
    return shared_memory_conflict(tree, loop)


def _private_block(tree: Tree, loop: For, block: Block) -> bool:
    buffers = [region.buffer for region in block.writes]
    return bool(buffers) and all(only_used_inside(tree, loop, buffer) for buffer in buffers)


def shared_memory_conflict(tree: Tree, loop: For) -> str | None:
    """Two blocks (or one) that meet in memory in different iterations of `loop`, or None."""
    analyzer = analyzer_for(tree, loop, inclusive=True)
    by_buffer: dict[Buffer, list[Touch]] = {}
    for touch in touches(tree, loop.body, analyzer):
        by_buffer.setdefault(touch.region.buffer, []).append(touch)
    for buffer, found in by_buffer.items():
        if not any(touch.store for touch in found):
            continue
        if only_used_inside(tree, loop, buffer) and covered(tree, loop, found, analyzer):
            continue
        if _disjoint(loop, [touch.region for touch in found], analyzer):
            continue
        if _one_element_each(tree, loop, found):
            continue
        blocks = list(dict.fromkeys(touch.block for touch in found))
        if len(blocks) == 1 and _trusted(tree, loop, blocks[0], found):
            continue
        names = " and ".join(repr(block.name) for block in blocks)
        return f"different iterations may touch the same elements of {buffer.name!r}, in {names}"
    return None


def only_used_inside(tree: Tree, stmt: Stmt, buffer: Buffer) -> bool:
    """Whether `buffer` is allocated by the function and every access is inside `stmt`."""
    if buffer in tree.func.buffers:
        return False
    return all(
        tree.is_inside(block, stmt)
        for block in tree.all_blocks()
        if any(region.buffer is buffer for region in (*block.reads, *block.writes))
    )


def contains(outer: BufferRegion, inner: BufferRegion, analyzer: Analyzer) -> bool:
    """Whether the box `outer` surely holds the box `inner`."""
    return all(
        a is b
        or (
            analyzer.can_prove(a.min <= b.min)
            and analyzer.can_prove(b.min + b.extent <= a.min + a.extent)
        )
        for a, b in zip(outer.ranges, inner.ranges, strict=True)
    )


def covered(tree: Tree, loop: For, found: Iterable[Touch], analyzer: Analyzer) -> bool:
    """Whether every read is of elements that an earlier block wrote in the same iteration of
    `loop`, to their end: a reduction over the loop goes on with what earlier iterations left."""
    written: list[Touch] = []
    for touch in sorted(found, key=lambda item: (tree.order[item.block], not item.store)):
        if touch.store:
            # A block that leaves out instances relies on what earlier iterations left.
            reduces = loop.var in driving_vars(tree.realize(touch.block), "reduce")
            if predicate_is_bounds(tree, touch.block) and not reduces:
                written.append(touch)
        elif not any(contains(w.region, touch.region, analyzer) for w in written):
            return False
    return True


def _disjoint(loop: For, regions: list[BufferRegion], analyzer: Analyzer) -> bool:
    """Whether the boxes of one iteration surely miss those of every other."""
    if as_int(loop.extent) == 1:
        return True
    following: dict[Var, Expr] = {loop.var: loop.var + 1}
    for axis in range(regions[0].buffer.ndim):
        ranges = [region.ranges[axis] for region in regions]
        # max over this iteration < min over the next, for every pair: then by induction for all.
        if all(
            analyzer.can_prove(a.min + a.extent - 1 < substitute(b.min, following))
            for a in dict.fromkeys(ranges)
            for b in dict.fromkeys(ranges)
        ):
            return True
    same = [
        {region.ranges[axis].min for region in regions}
        for axis in range(regions[0].buffer.ndim)
        if all(as_int(region.ranges[axis].extent) == 1 for region in regions)
    ]
    points = [next(iter(group)) for group in same if len(group) == 1]
    return injective(points, loop.var, analyzer)


def _one_element_each(tree: Tree, loop: For, found: list[Touch]) -> bool:
    """Whether all blocks touch the same single element, another one in each iteration."""
    points = {touch.point for touch in found}
    if len(points) != 1 or None in points:
        return False
    (point,) = points
    assert point is not None
    predicates = {tree.realize(touch.block).predicate for touch in found}
    predicate = predicates.pop() if len(predicates) == 1 else None
    return _tells_apart(tree, loop, found[0].block, point, predicate)


def _tells_apart(
    tree: Tree, loop: For, block: Block, values: Iterable[Expr], predicate: Expr | None
) -> bool:
    """Whether `values` differ between all iterations of `loop` and the loops inside it that they
    depend on."""
    wanted = list(values)
    nest = tree.loops(block)
    # With the loops around it too, a fused and split loop is whole again; if all of them are told
    # apart, so are the iterations of this one alone.
    for loops in (nest, nest[nest.index(loop) :]):
        used = [item for item in loops if any(mentions(value, item.var) for value in wanted)]
        if loop not in used:
            return False
        ranges = {item.var: Range(item.min, item.extent) for item in used}
        parts = [value for value in wanted if any(mentions(value, item.var) for item in used)]
        known = analyzer_for(tree, loops[0])
        if detect_iter_map(parts, ranges, predicate, level="injective", analyzer=known).found:
            return True
    return False


def injective(points: Iterable[Expr], var: Var, analyzer: Analyzer) -> bool:
    """Whether the values of `points` together surely tell the value of `var`."""
    pieces = [_piece(analyzer.simplify(point), var) for point in points]
    found = [piece for piece in pieces if piece is not None]
    if any(scale == 1 and limit is None for scale, limit in found):
        return True
    # Mixed radix: var // a with var % a (or (var // b) % c with b * c = a) tell var together.
    known: Expr | int | None = None
    for scale, limit in found:
        if limit is None:
            known = scale
    while known is not None and known != 1:
        step = None
        for scale, limit in found:
            if limit is not None and _equal(scale * limit, known, analyzer):
                step = scale
        if step is None:
            return False
        known = step
    return known is not None


def _equal(a: Expr | int, b: Expr | int, analyzer: Analyzer) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a is b or analyzer.simplify(a - b) is analyzer.simplify(_zero(a, b))


def _zero(a: Expr | int, b: Expr | int) -> Expr:
    one = a if isinstance(a, Expr) else b
    assert isinstance(one, Expr)
    return one - one


def _piece(point: Expr, var: Var) -> tuple[Expr | int, Expr | int | None] | None:
    """(scale, limit) if `point` is injective in (var // scale) % limit; limit None: no modulo."""
    while isinstance(point, Add | Sub | Mul):
        a_has, b_has = mentions(point.a, var), mentions(point.b, var)
        if a_has == b_has:
            return None
        if isinstance(point, Mul) and as_int(point.b if a_has else point.a) in (None, 0):
            return None
        point = point.a if a_has else point.b
    limit: Expr | int | None = None
    if isinstance(point, FloorMod) and not mentions(point.b, var):
        limit = _number(point.b)
        point = point.a
    scale: Expr | int = 1
    if isinstance(point, FloorDiv) and not mentions(point.b, var):
        scale = _number(point.b)
        point = point.a
    return (scale, limit) if point is var else None


def _number(expr: Expr) -> Expr | int:
    value = as_int(expr)
    return expr if value is None else value


def _trusted(tree: Tree, loop: For, block: Block, found: list[Touch]) -> bool:
    """Whether the block's word that instances are independent settles it.

    It does when different iterations run different instances, or when an instance that runs twice
    stores the same again (it reads nothing that it writes).
    """
    if all(touch.store for touch in found):
        return True
    spatial = [
        value
        for iter_var, value in zip(block.iter_vars, tree.realize(block).iter_values, strict=True)
        if iter_var.kind == "spatial"
    ]
    return _tells_apart(tree, loop, block, spatial, tree.realize(block).predicate)


def uses(block: Block, buffer: Buffer) -> tuple[bool, bool]:
    """Whether `block` reads and whether it writes `buffer`, by its declared regions."""
    reads = any(region.buffer is buffer for region in block.reads)
    return reads, any(region.buffer is buffer for region in block.writes)


def writers(blocks: Iterable[Block], buffer: Buffer) -> list[Block]:
    """The blocks that write `buffer`."""
    return [block for block in blocks if uses(block, buffer)[1]]


def readers(blocks: Iterable[Block], buffer: Buffer) -> list[Block]:
    """The blocks that read `buffer`."""
    return [block for block in blocks if uses(block, buffer)[0]]
