"""Primitives that compute once what is computed more often: cache_common, factor_out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import Add, Div, Expr, Mul, Range, Var, const, equal
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion, buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.cache import insert_copy
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.loops import compose
from transect.tir.schedule.region import analyzer_for, is_transparent
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
from transect.tir.stmt import Block, BufferStore, IterVar, Stmt, seq


def _sole_store(primitive: str, block: Block) -> BufferStore:
    if not isinstance(block.body, BufferStore) or not is_transparent(block):
        refuse(primitive, "it is more than one store", block, "use blocks of one store")
    return block.body


@dataclass(frozen=True)
class CacheCommon(Primitive):
    """Compute the largest value that two blocks have in common in a block before both.

        for i, j in T.grid(n, m):              for i, j in T.grid(n, m):
            S[i] += T.exp(A[i, j] - M[i])          E[i, j] = T.exp(A[i, j] - M[i])
        for i, j in T.grid(n, m):         ->   for i, j in T.grid(n, m):
            B[i, j] = T.exp(A[i, j] - M[i])        S[i] += E[i, j]
                                               for i, j in T.grid(n, m):
                                                   B[i, j] = E[i, j]

    The first target is the block that comes first. The result is the new block.
    """

    scope: str = "global"
    name: ClassVar[str] = "cache_common"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        first, second = (expect_block(self.name, item) for item in targets[:2])
        tree = Tree(func)
        scope = tree.scope(first)
        if tree.scope(second) is not scope or tree.order[first] >= tree.order[second]:
            refuse(
                self.name,
                f"block {second.name!r} does not come after it in the same block",
                first,
                "name the block that comes first first",
            )
        stores = [_sole_store(self.name, block) for block in (first, second)]
        for block in (first, second):
            require_bounds_predicate(self.name, tree, block)
        analyzer = analyzer_for(tree, scope, inclusive=True)
        names = self._correspondence(first, second, stores, analyzer)
        value = self._largest(first, second, stores, names)
        own = set(free_vars([value]))
        chosen = [item for item in first.iter_vars if item.var in own]
        self._check_unchanged(tree, first, second, value)
        cache = buffer(
            f"{stores[1].buffer.name}_common",
            tuple(item.dom.extent for item in chosen),
            value.dtype,
            scope=self.scope,
        )
        nest, made = self._nest(cache, value, chosen)
        back: dict[Var, Expr] = {new: old for old, new in names.items() if isinstance(new, Var)}
        swaps = (
            (first, value, tuple(item.var for item in chosen)),
            (second, substitute(value, back), tuple(back[item.var] for item in chosen)),
        )
        now: PrimFunc = func
        forward: Forward = {}
        for block, old, indices in swaps:
            step = _with_value(now, block, old, BufferLoad(cache, indices))
            now, forward = step.func, compose(forward, dict(step.forward))
        tree = Tree(now)
        current = forward.get(first, first)
        assert isinstance(current, Block)
        around = tree.outermost(current, tree.scope(current))
        step = edit(now, {around: seq(nest, around)})
        now, forward = step.func, compose(forward, dict(step.forward))
        home = forward.get(scope, scope)
        assert isinstance(home, Block)
        last = edit(now, {home: with_allocation(home, cache)})
        return Edit(last.func, compose(forward, dict(last.forward)), (made,))

    def _correspondence(
        self, first: Block, second: Block, stores: list[BufferStore], analyzer: Analyzer
    ) -> dict[Var, Expr]:
        """For variables of the second block those of the first, as equal loads tell."""
        domains = {item.var: item.dom for block in (first, second) for item in block.iter_vars}
        mine, others = (
            {load.buffer: load for load in walk(store.value) if isinstance(load, BufferLoad)}
            for store in stores
        )
        names: dict[Var, Expr] = {}
        for found, load in mine.items():
            other = others.get(found)
            for a, b in zip(load.indices, () if other is None else other.indices, strict=False):
                if not isinstance(a, Var) or not isinstance(b, Var):
                    continue
                if a not in domains or b not in domains or names.get(b, a) is not a:
                    continue
                same = analyzer.can_prove(
                    equal(domains[a].extent, domains[b].extent)
                ) and analyzer.can_prove(equal(domains[a].min, 0))
                if same and analyzer.can_prove(equal(domains[b].min, 0)):
                    names[b] = a
        return names

    def _largest(
        self, first: Block, second: Block, stores: list[BufferStore], names: dict[Var, Expr]
    ) -> Expr:
        others = set(walk(substitute(stores[1].value, names)))
        foreign = {item.var for item in second.iter_vars}
        best: Expr | None = None
        size = 0
        for item in walk(stores[0].value):
            if not isinstance(item, Expr) or isinstance(item, BufferLoad | Var):
                continue
            inside = list(walk(item))
            loads = [part for part in inside if isinstance(part, BufferLoad)]
            fine = item in others and loads and not foreign.intersection(free_vars([item]))
            own = any(load.buffer is stores[0].buffer for load in loads)
            if fine and not own and len(inside) > size:
                best, size = item, len(inside)
        if best is None:
            refuse(
                self.name,
                f"it computes nothing that block {second.name!r} computes from the same elements",
                first,
                "name two blocks with a common expression",
            )
        return best

    def _check_unchanged(self, tree: Tree, first: Block, second: Block, value: Expr) -> None:
        used = {item.buffer for item in walk(value) if isinstance(item, BufferLoad)}
        start = tree.order[tree.outermost(first, tree.scope(first))]
        end = tree.order[second]
        for block in tree.blocks(tree.scope(first)):
            if not start <= tree.order[block] <= end:
                continue
            for found in used:
                if uses(block, found)[1]:
                    refuse(
                        self.name,
                        f"block {block.name!r} writes {found.name!r} in the same nest or later",
                        first,
                        "do it before moving the producer there",
                    )

    def _nest(self, cache: Buffer, value: Expr, chosen: list[IterVar]) -> tuple[Stmt, Block]:
        copy, made = copy_nest(cache.name, cache, cache, cache.region)
        fresh: dict[Var, Expr] = {
            item.var: new.var for item, new in zip(chosen, made.iter_vars, strict=True)
        }
        indices = tuple(item.var for item in made.iter_vars)
        filled = restated(replace(made, body=BufferStore(cache, substitute(value, fresh), indices)))
        nest = replace_statements(copy, {made: filled}, {})
        assert nest is not None
        return nest, filled


def _with_value(func: PrimFunc, block: Block, old: Expr, new: Expr) -> Edit:
    def swap(item: Term) -> Term:
        return new if item is old else item

    rewriter = AccessRewriter(swap)
    made = rewriter.visit(block)
    return edit(func, {block: made}, rewriter.forward)


@dataclass(frozen=True)
class FactorOut(Primitive):
    """Take a factor or divisor that is the same for all terms of a sum out of it.

        for i, j, k in T.grid(n, m, d):        for i, j, k in T.grid(n, m, d):
            C[i, j] += A[i, k] / S[i] * B[k, j]    C_sum[i, j] += A[i, k] * B[k, j]
                                          ->   for i, j in T.grid(n, m):
                                                   C[i, j] = C_sum[i, j] / S[i]

    The float result rounds less often. It differs in kind only where the terms with the factor
    are finite and their sum without it is not, or the other way round. The result is the block
    that multiplies or divides.
    """

    scope: str = "global"
    name: ClassVar[str] = "factor_out"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        store = _sole_store(self.name, block)
        require_bounds_predicate(self.name, tree, block)
        own = BufferLoad(store.buffer, store.indices)
        value = store.value
        if not isinstance(value, Add) or own not in (value.a, value.b) or block.init is None:
            refuse(self.name, "it does not sum", block, "use a reduction by +")
        if not store.buffer.dtype.is_float:
            refuse(self.name, f"it sums {store.buffer.dtype!r}", block, "only floats divide")
        term = value.b if value.a is own else value.a
        reduced = {item.var for item in block.iter_vars if item.kind != "spatial"}
        found = _split_factor(term, reduced)
        if found is None:
            refuse(
                self.name,
                f"no factor of {term!r} is the same for all of a sum",
                block,
                "inline the producer that multiplies or divides by it",
            )
        rest, factor, divides = found
        axes = plain_axes(block, store.indices)
        spatial = [item for item in block.iter_vars if item.kind == "spatial"]
        if axes is None or set(axes) != {item.var for item in spatial}:
            refuse(
                self.name,
                f"it does not store {store.buffer.name!r} at its own variables, each once",
                block,
                "store at plain spatial iteration variables",
            )
        total = scoped_buffer(store.buffer, self.scope, "sum")
        self._check_factor(tree, block, factor, store.buffer)
        domains = {item.var: item.dom for item in spatial}
        by_axis = {axis: domains[var] for var, axis in axes.items()}
        box = BufferRegion(
            total,
            tuple(
                by_axis.get(axis, Range(index, const(1, index.dtype)))
                for axis, index in enumerate(store.indices)
            ),
        )
        copy, made = copy_nest(f"{store.buffer.name}_scaled", total, store.buffer, box)
        values: dict[Var, Expr] = {var: made.iter_vars[axis].var for var, axis in axes.items()}
        indices = tuple(item.var for item in made.iter_vars)
        load, scale = BufferLoad(total, indices), substitute(factor, values)
        scaled = Div(load, scale) if divides else Mul(load, scale)
        filled = restated(
            replace(made, body=BufferStore(store.buffer, scaled, indices, span=store.span))
        )
        nest = replace_statements(copy, {made: filled}, {})
        assert nest is not None

        def elsewhere(item: Term) -> Term:
            return BufferLoad(total, own.indices) if item is own else item

        rewriter = AccessRewriter(elsewhere, {store.buffer: total})
        inner = Add(own, rest) if value.a is own else Add(rest, own)
        made_sum = rewriter.visit(replace(block, body=replace(store, value=inner)))
        assert isinstance(made_sum, Block)
        new = restated(made_sum)
        done = insert_copy(func, block, new, {block: new}, nest, total, after=True)
        return Edit(done.func, done.forward, (filled,))

    def _check_factor(self, tree: Tree, block: Block, factor: Expr, result: Buffer) -> None:
        """Afterwards, the factor must be what it was; and nobody may use the result before."""
        used = {item.buffer for item in walk(factor) if isinstance(item, BufferLoad)}
        for other in tree.blocks(tree.outermost(block, tree.scope(block))):
            if other is not block and any(uses(other, result)):
                refuse(
                    self.name,
                    f"block {other.name!r} of the same nest uses {result.name!r}",
                    block,
                    "do it before moving blocks together",
                )
            for found in used:
                if uses(other, found)[1]:
                    refuse(
                        self.name,
                        f"block {other.name!r} of the same nest writes {found.name!r}",
                        block,
                        "do it before moving blocks together",
                    )


def _split_factor(term: Expr, reduced: set[Var]) -> tuple[Expr, Expr, bool] | None:
    """What is left of a product without a factor or divisor that `reduced` do not change, that
    factor, and whether it divides."""
    if isinstance(term, Div) and not reduced.intersection(free_vars([term.b])):
        return term.a, term.b, True
    if isinstance(term, Mul):
        for mine, other in ((term.a, term.b), (term.b, term.a)):
            if not reduced.intersection(free_vars([mine])):
                return other, mine, False
        for mine, other, first in ((term.a, term.b, True), (term.b, term.a, False)):
            found = _split_factor(mine, reduced)
            if found is not None:
                rest, factor, divides = found
                return (Mul(rest, other) if first else Mul(other, rest)), factor, divides
    return None
