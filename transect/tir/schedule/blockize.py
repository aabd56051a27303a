"""Blockize: a nest of loops around a block becomes a block of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.condition import conjuncts
from transect.ir.expr import (
    Expr,
    FloorDiv,
    FloorMod,
    Range,
    Var,
    as_int,
    const,
    logical_and,
    maximum,
    minimum,
    true,
)
from transect.ir.node import replace
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.affine import Affine, affine
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import conflict, touches
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import analyzer_for, regions_of, relax
from transect.tir.schedule.rewrite import nest, restated
from transect.tir.schedule.tree import (
    Forward,
    ForwardingSubstitution,
    Tree,
    duplicate,
    single_child,
)
from transect.tir.stmt import Block, BlockRealize, For, IterVar, SeqStmt, Stmt, seq


@dataclass(frozen=True)
class Blockize(Primitive):
    """The loops from one on inwards, with their block, become one block.

    preserve_unit_iters: whether iteration variables of one value stay in the two blocks. The init
    of a reduction moves to the new block. Gives the new block, named after the old one with "_o".

        for i0, i1 in T.grid(8, 16):           for i0 in range(8):
            with T.block("B"):                     with T.block("B_o"):
                vi = T.axis.spatial(               ->      vio = T.axis.spatial(8, i0)
                    128, i0 * 16 + i1)                 for i1 in range(16):
                B[vi] = A[vi]                              with T.block("B"):
                                                               vi = T.axis.spatial(16, i1)
                                                               B[vio * 16 + vi] = A[vio * 16 + vi]

    Several blocks, neighbours under the same loops, become one as well, with an iteration variable
    for each loop around them.
    """

    preserve_unit_iters: bool = True
    name: ClassVar[str] = "blockize"

    def written(self, inputs: Sequence[str]) -> list[str]:
        return list(inputs) if len(inputs) == 1 else [f"[{', '.join(inputs)}]"]

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        if len(targets) == 1 and isinstance(targets[0], For):
            return blockize_loop(func, self.name, targets[0], keep_units=self.preserve_unit_iters)
        return _blockize_blocks(func, self.name, [expect_block(self.name, b) for b in targets])


@dataclass(frozen=True)
class _Part:
    """An iteration variable as outer * step + inner."""

    old: IterVar
    outer: Expr
    count: Expr
    inner: Expr
    step: Expr


def blockize_loop(func: PrimFunc, primitive: str, loop: For, *, keep_units: bool) -> Edit:
    """The edit of `Blockize` on a loop; `primitive` is who refuses."""
    tree = Tree(func)
    realize = _only_block(primitive, tree, loop)
    block = realize.block
    inner = [item for item in tree.loops(block) if tree.is_inside(item, loop)]
    analyzer = analyzer_for(tree, loop)
    for item in inner:
        if item.kind in ("parallel", "thread_binding"):
            refuse(primitive, f"it is {item.kind}", item, "blockize loops that run in order")
        analyzer.bind(item.var, Range(item.min, item.extent))
    parts = [
        _divide(primitive, block, iter_var, value, inner, analyzer)
        for iter_var, value in zip(block.iter_vars, realize.iter_values, strict=True)
    ]
    _require_all_used(primitive, parts, inner)
    outside = _outer_predicate(primitive, realize, inner, analyzer, loop)
    made = _build(block, parts, inner, analyzer, keep_units=keep_units)
    new_realize = BlockRealize(
        tuple(p.outer for p, v in zip(parts, made.outer, strict=True) if v is not None),
        outside,
        made.block,
        span=realize.span,
    )
    forward: Forward = {block: made.inner, **dict(zip(inner, made.loops, strict=True))}
    return edit(func, {loop: new_realize}, forward, (made.block,))


def _only_block(primitive: str, tree: Tree, loop: For) -> BlockRealize:
    stmt: Stmt = loop
    while isinstance(stmt, For):
        stmt = single_child(stmt)
    if isinstance(stmt, BlockRealize):
        return stmt
    names = ", ".join(block.name for block in tree.blocks(loop)) or "none"
    return refuse(
        primitive,
        f"inside it is more than one nest of loops around one block (its blocks: {names})",
        loop,
        "move the others out, or give their blocks together: sch.blockize([block, block])",
    )


def _divide(
    primitive: str,
    block: Block,
    iter_var: IterVar,
    value: Expr,
    loops: Sequence[For],
    analyzer: Analyzer,
) -> _Part:
    """`value` as outer * step + inner, where inner takes every value below step once."""
    kind = iter_var.var.dtype
    own = {loop.var: loop for loop in loops}
    form = affine(value)
    inside = {atom: k for atom, k in form.terms.items() if set(free_vars([atom])) & set(own)}
    one, zero = const(1, kind), const(0, kind)
    name = iter_var.var.name
    if not inside:
        return _Part(iter_var, value, iter_var.dom.extent, zero, one)
    rest = Affine(form.const, {a: k for a, k in form.terms.items() if a not in inside})
    step: Expr = one
    for atom, factor in sorted(inside.items(), key=lambda pair: pair[1]):
        loop = own.get(atom) if isinstance(atom, Var) else None
        if loop is None or as_int(loop.min) != 0 or as_int(step) != factor:
            refuse(
                primitive,
                f"iteration variable {name!r} is {value!r}, which is not a multiple of what the "
                "loops inside run over plus each of their values once",
                block,
                "split the loops so that those inside count from 0 without gaps, the innermost "
                "in steps of 1",
            )
        step = analyzer.simplify(step * loop.extent)
    inner = Affine(0, inside).to_expr(kind)
    size = as_int(step)
    domain = iter_var.dom
    if not rest.terms and rest.const == 0:
        if as_int(domain.min) != 0:
            refuse(primitive, f"{name!r} begins at {domain.min!r}", block, "let it begin at 0")
        if not analyzer.can_prove_equal(domain.extent, step):
            refuse(
                primitive,
                f"the loops inside run over {step!r} values of {name!r}, whose domain is "
                f"{domain.extent!r}",
                block,
                "pad the domain with sch.pad_domain, or split a loop to leave the rest outside",
            )
        return _Part(iter_var, zero, one, inner, step)
    whole = size is not None and all(k % size == 0 for k in (rest.const, *rest.terms.values()))
    if size is None or not whole:
        refuse(
            primitive,
            f"iteration variable {name!r} is {value!r}: what the loops outside give, "
            f"{rest.to_expr(kind)!r}, is not known to be a multiple of {step!r}, what those inside "
            "run over",
            block,
            "split by a constant factor; blockize the inner loop",
        )
    count = analyzer.simplify(domain.extent // size)
    exact = as_int(domain.min) == 0 and analyzer.can_prove_equal(count * size, domain.extent)
    if not exact:
        refuse(
            primitive,
            f"the domain of {name!r}, {domain.extent!r} values from {domain.min!r}, is not made of "
            f"whole tiles of {size}",
            block,
            f"round it up: sch.pad_domain(block, multiples) with {size} for {name!r}",
        )
    outer = Affine(rest.const // size, {a: k // size for a, k in rest.terms.items()}).to_expr(kind)
    return _Part(iter_var, outer, count, inner, step)


def require_whole_domain(
    primitive: str, realize: BlockRealize, loops: Sequence[For], analyzer: Analyzer
) -> None:
    """Refuse a block that `loops`, all those around it in the block that holds it, do not run once
    for each point of its domain."""
    for loop in loops:
        analyzer.bind(loop.var, Range(loop.min, loop.extent))
    values = zip(realize.block.iter_vars, realize.iter_values, strict=True)
    parts = [_divide(primitive, realize.block, var, e, loops, analyzer) for var, e in values]
    for part in parts:
        if as_int(part.outer) != 0 or as_int(part.count) != 1:
            refuse(
                primitive,
                f"its loops run over a part of the domain of {part.old.var.name!r} alone",
                realize.block,
                "pass the outermost loop that the instruction stands for",
            )
    _require_all_used(primitive, parts, loops)


def _require_all_used(primitive: str, parts: Sequence[_Part], loops: Sequence[For]) -> None:
    seen: list[Var] = [var for part in parts for var in free_vars([part.inner])]
    for loop in loops:
        if as_int(loop.extent) != 1 and seen.count(loop.var) != 1:
            how = "no" if loop.var not in seen else "more than one"
            refuse(
                primitive,
                f"{how} iteration variable of the block depends on it",
                loop,
                "each loop inside must drive one iteration variable",
            )


def _outer_predicate(
    primitive: str, realize: BlockRealize, loops: Sequence[For], analyzer: Analyzer, loop: For
) -> Expr:
    own = {item.var for item in loops}
    kept: list[Expr] = []
    for part in conjuncts(realize.predicate):
        if not set(free_vars([part])) & own:
            kept.append(part)
        elif not analyzer.can_prove(part):
            refuse(
                primitive,
                f"the block runs only where {part!r}, which changes inside",
                loop,
                "round the domain up with sch.pad_domain before splitting, so that nothing is "
                "left out",
            )
    return logical_and(*kept)


@dataclass(frozen=True)
class _Made:
    block: Block
    inner: Block
    loops: tuple[For, ...]
    outer: tuple[Var | None, ...]


def _build(
    block: Block,
    parts: Sequence[_Part],
    loops: Sequence[For],
    analyzer: Analyzer,
    *,
    keep_units: bool,
) -> _Made:
    values: dict[Var, Expr] = {}
    outer_vars: list[IterVar] = []
    inner_vars: list[IterVar] = []
    inner_values: list[Expr] = []
    domain: dict[Var, tuple[Expr, Expr]] = {}
    kept: list[Var | None] = []
    for part in parts:
        old, kind = part.old, part.old.var.dtype
        zero, one = const(0, kind), const(1, kind)
        tiled = as_int(part.step) != 1
        # An init asks its reduction variables whether this is the first time.
        needed = keep_units or (block.init is not None and old.kind == "reduce")
        outer: Expr = zero
        if needed or as_int(part.count) != 1 or not tiled:
            var = Var(f"{old.var.name}_o", kind)
            low = zero if tiled else old.dom.min
            outer_vars.append(IterVar(var, Range(low, part.count), old.kind, span=old.span))
            outer = var
            kept.append(var)
        else:
            kept.append(None)
        value = outer * part.step if tiled else outer
        if tiled or keep_units:
            var = Var(old.var.name, kind)
            inner_vars.append(IterVar(var, Range(zero, part.step), old.kind, span=old.span))
            inner_values.append(part.inner)
            domain[var] = (zero, part.step - one)
            value = value + var if as_int(part.count) != 1 or not tiled else var
        values[old.var] = value
    for var, (low, high) in domain.items():
        analyzer.bind(var, Range(low, high - low + const(1, var.dtype)))
    for item in outer_vars:
        analyzer.bind(item.var, item.dom)
    # A quotient of a tile and what is inside often is the tile.
    rewritten = ForwardingSubstitution(
        values, simplify=lambda e: analyzer.simplify(e) if _divides(e) else e
    )
    inner = rewritten.visit(replace(block, iter_vars=(), init=None))
    assert isinstance(inner, Block)
    inner = restated(replace(inner, iter_vars=tuple(inner_vars)))
    reads, writes = regions_of(block)

    def around(regions: tuple[BufferRegion, ...]) -> tuple[BufferRegion, ...]:
        return tuple(relax(substitute(r, values), domain, analyzer) for r in regions)

    body: Stmt = BlockRealize(tuple(inner_values), true(), inner)
    made: list[For] = []
    for loop in reversed(loops):
        body = replace(loop, body=body)
        made.append(body)
    init = None if block.init is None else _init(block, values, inner_vars)
    outer_block = Block(
        f"{block.name}_o",
        tuple(outer_vars),
        around(reads),
        around(writes),
        body,
        init,
        span=block.span,
    )
    return _Made(outer_block, inner, tuple(reversed(made)), tuple(kept))


def _divides(expr: Expr) -> bool:
    return any(isinstance(item, FloorDiv | FloorMod) for item in walk(expr))


def _init(block: Block, values: dict[Var, Expr], inner: Sequence[IterVar]) -> Stmt:
    """What a block starts with, for the whole tile."""
    assert block.init is not None
    fresh: dict[Var, Expr] = {}
    loops: list[tuple[Var, Expr]] = []
    iter_vars: list[IterVar] = []
    for item in inner:
        if item.kind == "reduce" or as_int(item.dom.extent) == 1:
            # Nothing that is initialised depends on the one, the other has one value.
            fresh[item.var] = const(0, item.var.dtype)
            continue
        loop = Var(item.var.name, item.var.dtype)
        var = Var(f"{item.var.name}_init", item.var.dtype)
        loops.append((loop, item.dom.extent))
        iter_vars.append(IterVar(var, item.dom, item.kind))
        fresh[item.var] = var
    body = duplicate(
        block.init,
        {old: affine(substitute(v, fresh)).to_expr(old.dtype) for old, v in values.items()},
    )
    regions = regions_of(replace(block, init=None, body=body, reads=(), writes=()))
    start = Block(f"{block.name}_init", tuple(iter_vars), *regions, body)
    return nest(loops, BlockRealize(tuple(loop for loop, _ in loops), true(), start))


def _blockize_blocks(func: PrimFunc, primitive: str, blocks: Sequence[Block]) -> Edit:
    tree = Tree(func)
    realizes: list[Stmt] = [tree.realize(block) for block in blocks]
    if any(tree.scope(block) is not tree.scope(blocks[0]) for block in blocks):
        refuse(primitive, "the blocks are not in the same block", blocks[0], "give neighbours")
    around = next(
        item
        for item in (realizes[0], *tree.ancestors(realizes[0]))
        if all(tree.is_inside(realize, item) for realize in realizes)
    )
    items = around.stmts if isinstance(around, SeqStmt) else (around,)
    inside = [n for n, item in enumerate(items) if any(tree.is_inside(r, item) for r in realizes)]
    first, last = inside[0], inside[-1] + 1
    taken = items[first:last]
    strangers = [b for item in taken for b in tree.blocks(item) if b not in blocks]
    if strangers:
        refuse(
            primitive,
            f"block {strangers[0].name!r} runs between them",
            blocks[0],
            "give all blocks of the stretch, or move this one away",
        )
    analyzer = analyzer_for(tree, taken[0])
    loops = tree.loops(taken[0])
    iter_vars: list[IterVar] = []
    values: dict[Var, Expr] = {}
    for loop in loops:
        kind = "spatial" if conflict(tree, loop) is None else "opaque"
        var = Var(f"v{loop.var.name}", loop.var.dtype)
        iter_vars.append(IterVar(var, Range(loop.min, loop.extent), kind))
        values[loop.var] = var
    moved = ForwardingSubstitution(values)
    body = moved.visit(seq(*taken))
    found = [touch for item in taken for touch in touches(tree, item, analyzer)]
    reads, writes = (
        _joined([t.region for t in found if t.store is store], values, analyzer)
        for store in (False, True)
    )
    made = Block(f"{blocks[0].name}_o", tuple(iter_vars), reads, writes, body)
    realize = BlockRealize(tuple(loop.var for loop in loops), true(), made)
    new = seq(*items[:first], realize, *items[last:])
    return edit(func, {around: new}, moved.forward, (made,))


def _joined(
    regions: Sequence[BufferRegion], values: dict[Var, Expr], analyzer: Analyzer
) -> tuple[BufferRegion, ...]:
    """One box for each buffer."""
    boxes: dict[Buffer, BufferRegion] = {}
    for region in regions:
        known = boxes.get(region.buffer)
        if known is None or known is region:
            boxes[region.buffer] = region
            continue
        ranges = tuple(
            a if a.min is b.min and a.extent is b.extent else _hull(a, b, analyzer)
            for a, b in zip(known.ranges, region.ranges, strict=True)
        )
        boxes[region.buffer] = BufferRegion(region.buffer, ranges)
    return tuple(substitute(region, values) for region in boxes.values())


def _hull(a: Range, b: Range, analyzer: Analyzer) -> Range:
    low = analyzer.simplify(minimum(a.min, b.min))
    high = analyzer.simplify(maximum(a.min + a.extent, b.min + b.extent))
    return Range(low, analyzer.simplify(high - low))
