"""Primitives that take padding out of a block: decompose_padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.condition import conjuncts
from transect.ir.expr import (
    GE,
    GT,
    LE,
    LT,
    Call,
    Expr,
    Range,
    Select,
    Var,
    as_int,
    const,
    equal,
    logical_and,
    maximum,
    minimum,
    true,
)
from transect.ir.node import replace
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import (
    Edit,
    Primitive,
    Target,
    edit,
    expect_block,
    expect_loop,
    refuse,
)
from transect.tir.schedule.loops import compose
from transect.tir.schedule.region import analyzer_for
from transect.tir.schedule.relayout import IndexSubstitution
from transect.tir.schedule.rewrite import require_spatial, require_store, restated
from transect.tir.schedule.tree import Forward, Tree, duplicate, replace_statements
from transect.tir.stmt import Block, BufferStore, For, IterVar, Stmt, seq
from transect.tir.visit import StmtRewriter, walk_stmts


@dataclass(frozen=True)
class DecomposePadding(Primitive):
    """Fill all that a loop writes with the padding first, then write the rest over it.

        for i in range(140):                       for i in range(140):
            with T.block("B"):                         with T.block("B_pad_const"):
                vi = T.axis.spatial(140, i)                vi = T.axis.spatial(140, i)
                B[vi] = T.if_then_else(       ->           B[vi] = 0
                    6 <= vi and vi < 134,          for i in range(128):
                    A[vi - 6], 0)                      with T.block("B"):
                                                           vi = T.axis.spatial(128, i)
                                                           B[vi + 6] = A[vi]

    The block stores one conditional value whose other side is a constant. Bounds of a variable
    whose loop is `loop` or inside it shorten that loop; others become a predicate of the block.
    The result is the block that fills, which stands before `loop`.
    """

    name: ClassVar[str] = "decompose_padding"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        loop = expect_loop(self.name, targets[1])
        tree = Tree(func)
        if not tree.is_inside(block, loop) or tree.scope(block) is not tree.scope(loop):
            refuse(
                self.name,
                f"loop {loop.var.name!r} is not around it",
                block,
                "pass one of sch.get_loops(block)",
            )
        if tree.blocks(loop) != [block]:
            other = next(item for item in tree.blocks(loop) if item is not block)
            refuse(
                self.name,
                f"block {other.name!r} is in loop {loop.var.name!r} as well",
                block,
                "choose a loop around this block alone",
            )
        require_spatial(self.name, block)
        store = require_store(self.name, block)
        if uses(block, store.buffer)[0]:
            refuse(self.name, f"it reads {store.buffer.name!r} that it writes", block, "keep it")
        condition, value, pad = self._padding(block, store)
        filling, fill = self._filling(loop, block, store, pad)
        rest, forward = self._rest(tree, loop, block, store, condition, value)
        return edit(func, {loop: seq(filling, rest)}, forward, (fill,))

    def _padding(self, block: Block, store: BufferStore) -> tuple[Expr, Expr, Expr]:
        """Where the stored value is no padding, that value, and the padding."""
        found = store.value
        parts: tuple[Expr, ...] = ()
        if isinstance(found, Select):
            parts = (found.condition, found.true_value, found.false_value)
        elif isinstance(found, Call) and found.op is INTRINSICS["if_then_else"]:
            parts = found.args
        if not parts:
            refuse(
                self.name,
                f"it stores {found!r}, which is no choice between a value and padding",
                block,
                "a block that stores T.if_then_else(inside, value, constant)",
            )
        condition, value, pad = parts
        own = {item.var for item in block.iter_vars}
        varies = any(
            isinstance(item, BufferLoad | Call) or (isinstance(item, Var) and item in own)
            for item in walk(pad)
        )
        if varies:
            refuse(
                self.name,
                f"its padding {pad!r} is not the same everywhere",
                block,
                "a block that stores T.if_then_else(inside, value, constant)",
            )
        loads = any(isinstance(item, BufferLoad | Call) for item in walk(condition))
        if loads:
            refuse(
                self.name,
                f"the condition {condition!r} depends on data",
                block,
                "conditions on iteration variables",
            )
        return condition, value, pad

    def _filling(
        self, loop: For, block: Block, store: BufferStore, pad: Expr
    ) -> tuple[Stmt, Block]:
        """A copy of the nest that stores the padding everywhere."""
        made = restated(replace(block, body=replace(store, value=pad)))
        changed = replace_statements(loop, {block: made}, {})
        assert changed is not None
        copy = duplicate(changed, suffix="_pad_const")
        return copy, next(item for item in walk_stmts(copy) if isinstance(item, Block))

    def _rest(
        self, tree: Tree, loop: For, block: Block, store: BufferStore, condition: Expr, value: Expr
    ) -> tuple[Stmt, Forward]:
        """The nest without the padding, and what became of its parts."""
        analyzer = analyzer_for(tree, block, inclusive=True)
        outside = analyzer_for(tree, loop)
        bounds, others = self._bounds(tree, loop, block, condition, analyzer)
        realize = tree.realize(block)
        iter_vars: list[IterVar] = []
        values: dict[Var, Expr] = {}
        at_loops: dict[Var, Expr] = {}
        extents: dict[Var, Expr] = {}
        for item, bound in zip(block.iter_vars, realize.iter_values, strict=True):
            low, high = bounds.get(item.var, (None, None))
            if low is None or high is None:
                iter_vars.append(item)
                at_loops[item.var] = bound
                continue
            # The variable counts from its lower bound now.
            some = outside.can_prove(high >= low)
            extent = outside.simplify(high - low if some else maximum(high - low, 0))
            var = Var(item.var.name, item.var.dtype)
            analyzer.bind(var, Range.of(extent))
            iter_vars.append(replace(item, var=var, dom=Range.of(extent)))
            values[item.var] = var + low
            at_loops[item.var] = bound + low
            assert isinstance(bound, Var)
            extents[bound] = extent
        visitor = IndexSubstitution(values, analyzer)
        moved = visitor.visit(replace(block, body=replace(store, value=value)))
        assert isinstance(moved, Block)
        made = restated(replace(moved, iter_vars=tuple(iter_vars)))
        predicate = logical_and(realize.predicate, substitute(others, at_loops))
        inner = analyzer_for(tree, tree.realize(block))
        new = replace(realize, predicate=inner.simplify(predicate), block=made)
        forward: Forward = {block: made}
        body = replace_statements(loop, {realize: new}, forward)
        assert body is not None
        shorter = _Shorter(extents)
        rest = shorter.visit(body)
        return rest, compose(forward, shorter.forward)

    def _bounds(
        self, tree: Tree, loop: For, block: Block, condition: Expr, analyzer: Analyzer
    ) -> tuple[dict[Var, tuple[Expr, Expr]], Expr]:
        """Lower ends and upper ends (exclusive) of variables with a loop of their own in `loop`,
        and what else must hold."""
        inner = [each for each in tree.loops(block) if tree.is_inside(each, loop)]
        realize = tree.realize(block)
        free: dict[Var, IterVar] = {}
        for item, value in zip(block.iter_vars, realize.iter_values, strict=True):
            each = next((x for x in inner if x.var is value), None)
            if (
                each is not None
                and each.kind != "thread_binding"
                and as_int(each.min) == 0
                and as_int(item.dom.min) == 0
                and realize.predicate is true()
                and analyzer.can_prove(equal(each.extent, item.dom.extent))
                and not any(each.var in free_vars([o.extent, o.min]) for o in inner)
                and sum(each.var in free_vars([v]) for v in realize.iter_values) == 1
            ):
                free[item.var] = item
        bounds: dict[Var, tuple[Expr, Expr]] = {}
        others: Expr = true()
        for part in conjuncts(condition):
            alone = sum(item.var in free_vars([part]) for item in block.iter_vars) == 1
            found = _bound(part, free, analyzer) if alone else None
            if found is None:
                others = logical_and(others, part)
                continue
            var, low, high = found
            first, last = bounds.get(var, (const(0, var.dtype), free[var].dom.extent))
            if low is not None:
                first = analyzer.simplify(_larger(first, low, analyzer))
            if high is not None:
                last = analyzer.simplify(_smaller(last, high, analyzer))
            bounds[var] = (first, last)
        return bounds, others


def _larger(a: Expr, b: Expr, analyzer: Analyzer) -> Expr:
    if analyzer.can_prove(a <= b):
        return b
    return a if analyzer.can_prove(b <= a) else maximum(a, b)


def _smaller(a: Expr, b: Expr, analyzer: Analyzer) -> Expr:
    if analyzer.can_prove(a <= b):
        return a
    return b if analyzer.can_prove(b <= a) else minimum(a, b)


def _bound(
    part: Expr, free: dict[Var, IterVar], analyzer: Analyzer
) -> tuple[Var, Expr | None, Expr | None] | None:
    """(variable, lower end, upper end exclusive) if `part` bounds one of the variables alone."""
    if not isinstance(part, LT | LE | GT | GE):
        return None
    used = [var for var in free_vars([part]) if var in free]
    if len(used) != 1:
        return None
    (var,) = used
    # small <= large (or <), with the variable on one side after moving all to the left.
    small, large = (part.a, part.b) if isinstance(part, LT | LE) else (part.b, part.a)
    strict = isinstance(part, LT | GT)
    gap = analyzer.simplify(small - large)
    rest = analyzer.simplify(gap - var)
    if var not in free_vars([rest]):
        # var + rest < 0, or <= 0.
        return var, None, analyzer.simplify((0 if strict else 1) - rest)
    rest = analyzer.simplify(gap + var)
    if var not in free_vars([rest]):
        # rest - var < 0, or <= 0.
        return var, analyzer.simplify(rest + (1 if strict else 0)), None
    return None


class _Shorter(StmtRewriter):
    """Gives loops other extents. forward: what the loops became."""

    def __init__(self, extents: Mapping[Var, Expr]) -> None:
        self.extents = extents
        self.forward: Forward = {}

    def visit_for(self, stmt: For) -> Stmt:
        made = super().visit_for(stmt)
        assert isinstance(made, For)
        made = replace(made, extent=self.extents.get(stmt.var, made.extent))
        self.forward[stmt] = made
        return made
