"""More primitives that stage data: cache_inplace for what is updated, cache_index for indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import Div, Expr, FloorDiv, FloorMod, Mod, Range, Var, as_int, not_equal
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion, buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.cache import insert_copy, read_region, redirect, touched_box
from transect.tir.schedule.chain import compose
from transect.tir.schedule.compute_at import join_boxes
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import analyzer_for, is_transparent
from transect.tir.schedule.rewrite import AccessRewriter, copy_nest, restated, scoped_buffer
from transect.tir.schedule.tree import Tree, replace_statements
from transect.tir.stmt import Block, BufferStore, Stmt, seq
from transect.tir.visit import own_terms, walk_stmts


@dataclass(frozen=True)
class CacheInplace(Primitive):
    """Update a copy in `storage_scope` of a buffer that a block both reads and writes.

        for i in range(n):                 for ax0 in range(n):
            A[i] = A[i] * 2          ->        A_local[ax0] = A[ax0]
                                           for i in range(n):
                                               A_local[i] = A_local[i] * 2
                                           for ax0 in range(n):
                                               A[ax0] = A_local[ax0]

    The buffer is read `read_buffer_index` of the block. The results are the blocks that copy, in
    and out.
    """

    read_buffer_index: int
    storage_scope: str
    name: ClassVar[str] = "cache_inplace"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        found = read_region(self.name, block, self.read_buffer_index).buffer
        if not uses(block, found)[1]:
            refuse(self.name, f"it does not write {found.name!r}", block, "use sch.cache_read")
        if not is_transparent(block):
            refuse(self.name, "it uses pointers or opaque calls", block, "cache before tensorize")
        scope = tree.scope(block)
        for other in tree.blocks(tree.outermost(block, scope)):
            if other is not block and any(uses(other, found)):
                refuse(
                    self.name,
                    f"block {other.name!r} of the same nest uses {found.name!r} too",
                    block,
                    "cache before moving blocks together",
                )
        analyzer = analyzer_for(tree, scope, inclusive=True)
        boxes = [
            touched_box(block, region, analyzer)
            for region in (*block.reads, *block.writes)
            if region.buffer is found
        ]
        ranges = tuple(
            Range.of(size) if item is None else item
            for item, size in zip(join_boxes(boxes, analyzer), found.shape, strict=True)
        )
        cache = scoped_buffer(found, self.storage_scope)
        box = BufferRegion(found, ranges)
        before, copy_in = copy_nest(cache.name, found, cache, box)
        after, copy_out = copy_nest(f"{cache.name}_out", cache, found, box)
        new, forward = redirect(block, found, cache)
        first = insert_copy(func, block, new, forward, before, cache, after=False)
        now = Tree(first.func)
        moved = now.outermost(new, now.scope(new))
        second = edit(first.func, {moved: seq(moved, after)})
        joined = compose(dict(first.forward), dict(second.forward))
        return Edit(second.func, joined, (copy_in, copy_out))


@dataclass(frozen=True)
class CacheIndex(Primitive):
    """Compute the indices at which a block reads in advance, to a buffer in `storage_scope`.

        for i, j in T.grid(n, 8):               for i in range(n):
            B[i, j] = A[i // 4 % 2, j]    ->        B_index_0[i] = i // 4 % 2
                                                for i, j in T.grid(n, 8):
                                                    B[i, j] = A[B_index_0[i], j]

    Each index that is neither an iteration variable nor a constant gets a buffer over the
    iteration variables in it, if it occurs more than `cse_thresh` times. The results are the
    blocks that compute the indices.
    """

    storage_scope: str
    cse_thresh: int = 0
    name: ClassVar[str] = "cache_index"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        if not is_transparent(block):
            refuse(self.name, "it uses pointers or opaque calls", block, "cache before tensorize")
        counts = self._indices(block)
        chosen = [index for index, count in counts.items() if count > self.cse_thresh]
        if not chosen:
            refuse(
                self.name,
                f"no index that it computes from its variables occurs more than "
                f"{self.cse_thresh} times",
                block,
                "leave it as it is",
            )
        tree = Tree(func)
        scope = tree.scope(block)
        for item in block.iter_vars:
            inner = {v for loop in tree.loops(block) for v in (loop.var,)}
            if as_int(item.dom.min) != 0 or set(free_vars([item.dom.extent])) & inner:
                refuse(self.name, "its domain does not start at 0", block, "before loop_partition")
        analyzer = analyzer_for(tree, block, inclusive=True)
        for index in chosen:
            for item in walk(index):
                if not isinstance(item, Div | Mod | FloorDiv | FloorMod):
                    continue
                if not analyzer.can_prove(not_equal(item.b, 0)):
                    refuse(
                        self.name,
                        f"its index {index!r} may divide by zero where the block does not run",
                        block,
                        "leave it as it is",
                    )
        table: dict[Expr, BufferLoad] = {}
        copies: list[Stmt] = []
        made: list[Block] = []
        for number, index in enumerate(chosen):
            cached, copy, maker = self._computed(block, index, number)
            table[index] = cached
            copies.append(copy)
            made.append(maker)

        def looked_up(item: Term) -> Term:
            if isinstance(item, BufferLoad) and any(index in table for index in item.indices):
                indices = tuple(table.get(index, index) for index in item.indices)
                return BufferLoad(item.buffer, indices, item.predicate)
            return item

        rewriter = AccessRewriter(looked_up)
        new = rewriter.visit(block)
        assert isinstance(new, Block)
        caches = [load.buffer for load in table.values()]
        assert scope in tree
        done = insert_copy(func, block, new, rewriter.forward, seq(*copies), *caches, after=False)
        return Edit(done.func, done.forward, tuple(made))

    def _indices(self, block: Block) -> dict[Expr, int]:
        """The indices that the block computes from its own variables, how often each."""
        own = {item.var for item in block.iter_vars}
        local = {
            item.var
            for stmt in walk_stmts(block)
            if stmt is not block and isinstance(stmt, Block)
            for item in stmt.iter_vars
        }
        counts: dict[Expr, int] = {}
        for stmt in walk_stmts(block):
            if isinstance(stmt, Block):
                continue
            for item in walk(*own_terms(stmt)):
                if not isinstance(item, BufferLoad):
                    continue
                for index in item.indices:
                    used = set(free_vars([index]))
                    plain = isinstance(index, Var) or not used & own or used & local
                    loads = any(isinstance(part, BufferLoad) for part in walk(index))
                    if not plain and not loads and self._bound_outside(block, used):
                        counts[index] = counts.get(index, 0) + 1
        return counts

    def _bound_outside(self, block: Block, used: set[Var]) -> bool:
        """Whether none of the variables is bound by a statement inside the block."""
        inside = {
            var
            for stmt in walk_stmts(block)
            if stmt is not block
            for var in (getattr(stmt, "var", None),)
            if isinstance(var, Var)
        }
        return not used & inside

    def _computed(self, block: Block, index: Expr, number: int) -> tuple[BufferLoad, Stmt, Block]:
        used = set(free_vars([index]))
        chosen = [item for item in block.iter_vars if item.var in used]
        name = f"{block.name}_index_{number}"
        shape = tuple(item.dom.extent for item in chosen)
        cache: Buffer = buffer(name, shape, index.dtype, scope=self.storage_scope)
        copy, maker = copy_nest(name, cache, cache, cache.region)
        inner: dict[Var, Expr] = {
            item.var: fresh.var for item, fresh in zip(chosen, maker.iter_vars, strict=True)
        }
        points = tuple(item.var for item in maker.iter_vars)
        value = BufferStore(cache, substitute(index, inner), points)
        filled = restated(replace(maker, body=value))
        stmt = replace_statements(copy, {maker: filled}, {})
        assert stmt is not None
        return BufferLoad(cache, tuple(item.var for item in chosen)), stmt, filled
