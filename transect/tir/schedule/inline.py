"""Primitives that dissolve a block into its neighbours: compute_inline, reverse_compute_inline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import Expr, Var, as_int, equal
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, substitute, walk
from transect.support.span import merge_spans
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import readers, uses, writers
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.loops import compose
from transect.tir.schedule.region import analyzer_for, is_transparent
from transect.tir.schedule.rewrite import (
    AccessRewriter,
    allocating_block,
    later_writer,
    plain_axes,
    require_bounds_predicate,
    require_spatial,
    require_store,
    restated,
    with_allocation,
    with_body,
)
from transect.tir.schedule.tree import Forward, Tree
from transect.tir.stmt import Block, BufferStore
from transect.tir.visit import own_terms


def _drop(func: PrimFunc, block: Block, found: Buffer, forward: Forward) -> Edit:
    """Remove a block with its loops, and the allocation of its buffer."""
    tree = Tree(func)
    done = edit(func, {tree.realize(block): None}, {block: None})
    home = allocating_block(Tree(done.func), found)
    assert home is not None
    freed = edit(done.func, {home: with_allocation(home, without=[found])})
    first = compose(forward, dict(done.forward))
    return Edit(freed.func, compose(first, dict(freed.forward)))


@dataclass(frozen=True)
class ComputeInline(Primitive):
    """Compute what a block stores where it is read, and drop the block with its buffer.

    for i in range(n):                     for i in range(n):
        B[i] = A[i] * 2               ->       C[i] = A[i] * 2 + 1
    for i in range(n):
        C[i] = B[i] + 1
    """

    name: ClassVar[str] = "compute_inline"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        require_spatial(self.name, block)
        store = require_store(self.name, block)
        found = store.buffer
        if found in func.buffers:
            refuse(
                self.name,
                f"{found.name!r} is a parameter of the function, so it must be stored",
                block,
                "inline producers into their readers; outputs stay",
            )
        axes = plain_axes(block, store.indices)
        if axes is None or set(free_vars([store.value])) & {
            item.var for item in block.iter_vars if item.var not in axes
        }:
            refuse(
                self.name,
                f"it stores {found.name!r} at indices that do not tell its iteration variables",
                block,
                "store at plain iteration variables, each once",
            )
        self._check_neighbours(tree, block, found)
        variables = {store.indices[axis]: axis for axis in axes.values()}

        def inlined(item: Term) -> Term:
            if isinstance(item, BufferLoad) and item.buffer is found:
                values = {var: item.indices[axis] for var, axis in variables.items()}
                return substitute(store.value, values)  # pyright: ignore[reportArgumentType]
            return item

        rewriter = AccessRewriter(inlined)
        body = rewriter.visit(func.body)
        forward = {**rewriter.forward}
        now = forward.get(block, block)
        assert isinstance(now, Block)
        return _drop(with_body(func, body), now, found, forward)

    def _check_neighbours(self, tree: Tree, block: Block, found: Buffer) -> None:
        blocks = tree.all_blocks()
        others = [item for item in writers(blocks, found) if item is not block]
        if any(not tree.is_inside(block, item) for item in others):
            refuse(
                self.name,
                f"{found.name!r} is also written by block {others[0].name!r}",
                block,
                "inline buffers that one block writes",
            )
        if uses(block, found)[0]:
            refuse(self.name, f"it reads {found.name!r} that it writes", block, "it must stay")
        for reader in readers(blocks, found):
            if not is_transparent(reader):
                refuse(
                    self.name,
                    f"block {reader.name!r} reads {found.name!r} by a pointer or an opaque call",
                    block,
                    "keep the buffer",
                )
        sources = [region.buffer for region in block.reads]
        around = [item for item in tree.ancestors(block) if isinstance(item, Block)]
        later = later_writer(tree, block, sources, *around)
        if later is not None:
            refuse(
                self.name,
                f"block {later.name!r} overwrites what it reads before all readers have run",
                block,
                "keep the buffer",
            )


@dataclass(frozen=True)
class ReverseComputeInline(Primitive):
    """Do what a block does where its input is stored, and drop the block with that buffer.

        for i in range(n):                     for i in range(n):
            B[i] = A[i] * 2               ->       C[i] = A[i] * 2 + 1
        for i in range(n):
            C[i] = B[i] + 1

    The other way round than compute_inline: the producer stays, in its place. A reduction cannot
    take its consumer so, as only its last step has the result: use reverse_compute_at.
    """

    name: ClassVar[str] = "reverse_compute_inline"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        require_spatial(self.name, block)
        store = require_store(self.name, block)
        producer, load = self._producer(tree, block, store)
        require_spatial(self.name, producer)
        origin = require_store(self.name, producer)
        require_bounds_predicate(self.name, tree, block)
        self._check_domain(tree, block, load)
        self._check_order(tree, block, producer, load.buffer)
        values: dict[Var, Expr] = {
            index: origin.indices[axis]
            for axis, index in enumerate(load.indices)
            if isinstance(index, Var)
        }
        for item in block.iter_vars:
            values.setdefault(item.var, item.dom.min)

        def computed(item: Term) -> Term:
            if isinstance(item, BufferLoad) and item.buffer is load.buffer:
                return origin.value
            return values.get(item, item) if isinstance(item, Var) else item

        made = BufferStore(
            store.buffer,
            rewrite(store.value, computed),
            tuple(rewrite(index, computed) for index in store.indices),
            span=merge_spans(origin.span, store.span),
        )
        span = merge_spans(producer.span, block.span)
        new = restated(replace(producer, body=made, span=span))
        done = edit(func, {producer: new}, {producer: new})
        return _drop(done.func, block, load.buffer, {**done.forward, block: block})

    def _producer(self, tree: Tree, block: Block, store: BufferStore) -> tuple[Block, BufferLoad]:
        loads = [
            item
            for item in walk(*own_terms(store))
            if isinstance(item, BufferLoad) and item.buffer not in tree.func.buffers
        ]
        siblings = tree.blocks(tree.scope(block))
        for load in loads:
            made_by = writers(siblings, load.buffer)
            if len(made_by) != 1 or readers(siblings, load.buffer) != [block]:
                continue
            if any(item.buffer is load.buffer and item is not load for item in loads):
                continue
            axes = plain_axes(block, load.indices)
            if axes is not None and all(
                iter_var.var in axes or as_int(iter_var.dom.extent) == 1
                for iter_var in block.iter_vars
            ):
                return made_by[0], load
        return refuse(
            self.name,
            "none of its inputs is a buffer that one block makes for it alone and that it reads "
            "once, at its iteration variables",
            block,
            "use reverse_compute_at, or compute_inline on the producer",
        )

    def _check_domain(self, tree: Tree, block: Block, load: BufferLoad) -> None:
        analyzer = analyzer_for(tree, block)
        domain = {item.var: item.dom for item in block.iter_vars}
        for index, size in zip(load.indices, load.buffer.shape, strict=True):
            if not isinstance(index, Var):
                whole = analyzer.can_prove(equal(size, 1))
            else:
                dom = domain[index]
                whole = as_int(dom.min) == 0 and analyzer.can_prove(equal(dom.extent, size))
            if not whole:
                refuse(
                    self.name,
                    f"it reads only a part of {load.buffer.name!r}, and its producer would store "
                    "beyond that",
                    block,
                    "use reverse_compute_at",
                )

    def _check_order(self, tree: Tree, block: Block, producer: Block, found: Buffer) -> None:
        between = [
            item
            for item in tree.blocks(tree.scope(block))
            if item is not block and tree.order[item] >= tree.order[producer]
        ]
        reads = [r.buffer for r in block.reads if r.buffer is not found]
        outputs = [region.buffer for region in block.writes]
        for item in between:
            if any(uses(item, buffer)[1] for buffer in reads):
                refuse(
                    self.name,
                    f"block {item.name!r} writes what it reads after {producer.name!r} has begun",
                    block,
                    "use reverse_compute_at",
                )
            if tree.order[item] < tree.order[block] and any(
                any(uses(item, buffer)) for buffer in outputs
            ):
                refuse(
                    self.name,
                    f"block {item.name!r} uses its output before it",
                    block,
                    "use a buffer of its own for the output",
                )
