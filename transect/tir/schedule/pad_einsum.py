"""Primitives that pad sums of products with zeros: pad_einsum."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import (
    Add,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Max,
    Min,
    Mul,
    Range,
    Sub,
    Var,
    as_int,
    const,
    logical_and,
    true,
)
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, walk
from transect.tir.buffer import BufferLoad, buffer
from transect.tir.function import PrimFunc
from transect.tir.op import if_then_else
from transect.tir.schedule.cache import CacheWrite, check_written_before, insert_copy
from transect.tir.schedule.edit import Edit, Primitive, Target, expect_block, refuse
from transect.tir.schedule.loops import compose
from transect.tir.schedule.pad import combined, grow, masked, recombined, rounded_up
from transect.tir.schedule.region import analyzer_for
from transect.tir.schedule.rewrite import nest, restated
from transect.tir.schedule.tree import Forward, Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, IterVar, Stmt

ALLOWED = (Add, Sub, Mul, Min, Max, Cast, IntImm, FloatImm, Var, BufferLoad)
"""What may compute with zeros without failing."""


@dataclass(frozen=True)
class PadEinsum(Primitive):
    """Round the domain of a block's iteration variables up to multiples, reading zeros there.

    padding: one multiple for each iteration variable; 1 leaves it. The block must index what it
    reads and writes by plain iteration variables and constants. Each buffer that it reads along a
    variable that grows is copied to a larger one first; a parameter that it writes is copied out
    of a larger buffer afterwards, and an intermediate buffer grows.

        for i, j, k in T.grid(n, m, d):           for ax0, ax1 in T.grid((n + 3) // 4 * 4, d):
            with T.block("C"):                        A_pad[ax0, ax1] = T.if_then_else(
                vi, vj, vk = …                ->          ax0 < n, A[ax0, ax1], 0)
                C[vi, vj] += A[vi, vk] * …        for i, j, k in T.grid((n + 3) // 4 * 4, m, d):
                                                      with T.block("C"):
                                                          vi, vj, vk = …
                                                          C_global[vi, vj] += A_pad[vi, vk] * …
                                                  for ax0, ax1 in T.grid(n, m):
                                                      C[ax0, ax1] = C_global[ax0, ax1]

    is pad_einsum(C, [4, 1, 1]). What the block computes stays as it is, which tensor intrinsics
    need; where the padding of a reduction could change the result, as infinity times zero would,
    the operand is masked there. pad_domain needs no copies, but reads at cut-off indices.
    """

    padding: tuple[int, ...]
    name: ClassVar[str] = "pad_einsum"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        analyzer = analyzer_for(tree, block)
        grown = rounded_up(self.name, block, self.padding, analyzer)
        store = self._store(tree, block)
        loads = self._loads(block, store)
        if not grown:
            return Edit(func)
        forward: Forward = {block: block}
        now = func
        spatial = any(item.var in grown and item.kind != "reduce" for item in block.iter_vars)
        if store.buffer in func.buffers and spatial:
            staged = CacheWrite(0, "global").apply(func, block)
            now, forward = staged.func, dict(staged.forward)
        for load in loads:
            if not any(index in grown for index in load.indices):
                continue
            current = forward[block]
            assert isinstance(current, Block)
            step = self._padded(now, current, load, grown)
            now, forward = step.func, compose(forward, dict(step.forward))
        current = forward[block]
        assert isinstance(current, Block)
        body = current.body
        assert isinstance(body, BufferStore)
        value = self._value(current, body, grown, analyzer)
        last = grow(self.name, now, current, grown, value)
        return Edit(last.func, compose(forward, dict(last.forward)))

    def _store(self, tree: Tree, block: Block) -> BufferStore:
        body = block.body
        if not isinstance(body, BufferStore) or block.alloc_buffers or block.match_buffers:
            refuse(self.name, "it is more than one store", block, "pad simple blocks")
        if tree.realize(block).predicate is not true():
            refuse(self.name, "it has a predicate", block, "pad before splitting")
        for item in walk(body.value):
            if isinstance(item, Expr) and not isinstance(item, ALLOWED):
                refuse(
                    self.name,
                    f"it computes {item!r}, which is no sum of products",
                    block,
                    "use pad_domain, which computes with elements that are there",
                )
        return body

    def _loads(self, block: Block, store: BufferStore) -> list[BufferLoad]:
        """The distinct loads of other buffers. Refuses indices that are computed."""
        domains = {item.var: item.dom for item in block.iter_vars}
        loads = [item for item in walk(store.value) if isinstance(item, BufferLoad)]
        for access in (store, *loads):
            for index in access.indices:
                plain = isinstance(index, Var) and as_int(domains[index].min) == 0
                if not plain and as_int(index) is None:
                    refuse(
                        self.name,
                        f"the index {index!r} of {access.buffer.name!r} is no iteration variable "
                        "that starts at 0",
                        block,
                        "use sch.reindex first, or pad_domain",
                    )
        return [item for item in loads if item.buffer is not store.buffer]

    def _padded(
        self,
        func: PrimFunc,
        block: Block,
        load: BufferLoad,
        grown: dict[Var, Expr],
    ) -> Edit:
        """The program in which the block reads a copy of what it reads at `load`, with zeros."""
        tree = Tree(func)
        check_written_before(self.name, tree, block, load.buffer)
        domains = {item.var: item.dom.extent for item in block.iter_vars}
        shape: list[Expr] = []
        places: list[Expr] = []
        source: list[Expr] = []
        iter_vars: list[IterVar] = []
        inside = true()
        for axis, index in enumerate(load.indices):
            if not isinstance(index, Var):
                shape.append(const(1, index.dtype))
                places.append(const(0, index.dtype))
                source.append(index)
                continue
            extent = grown.get(index, domains[index])
            var = Var(f"v{axis}", index.dtype)
            if index in grown:
                inside = logical_and(inside, var < domains[index])
            shape.append(extent)
            places.append(index)
            source.append(var)
            iter_vars.append(IterVar(var, Range.of(extent), "spatial"))
        name, taken = f"{load.buffer.name}_pad", {item.name for item in tree.all_blocks()}
        while name in taken:
            name += "_pad"
        copy = buffer(name, tuple(shape), load.buffer.dtype)
        zero = const(0, load.buffer.dtype)
        at = [
            place if not isinstance(place, Var) else origin
            for place, origin in zip(places, source, strict=True)
        ]
        value = if_then_else(inside, BufferLoad(load.buffer, tuple(source)), zero)
        filled = restated(
            Block(copy.name, tuple(iter_vars), (), (), BufferStore(copy, value, tuple(at)))
        )
        loops = [Var(f"ax{n}", item.var.dtype) for n, item in enumerate(iter_vars)]
        extents = [item.dom.extent for item in iter_vars]
        stmt: Stmt = BlockRealize(tuple(loops), true(), filled)
        stmt = nest(zip(loops, extents, strict=True), stmt)

        def elsewhere(item: Term) -> Term:
            return BufferLoad(copy, tuple(places)) if item is load else item

        store = block.body
        assert isinstance(store, BufferStore)
        made = restated(replace(block, body=replace(store, value=rewrite(store.value, elsewhere))))
        return insert_copy(func, block, made, {block: made}, stmt, copy, after=False)

    def _value(
        self, block: Block, store: BufferStore, grown: dict[Var, Expr], analyzer: Analyzer
    ) -> Expr:
        """What the block stores, also right for the new instances."""
        reduced = {v.var for v in block.iter_vars if v.var in grown and v.kind == "reduce"}
        if not reduced:
            return store.value
        operand = combined(self.name, block, store)
        if isinstance(store.value, Add) and _vanishes(operand, reduced):
            return store.value
        return recombined(store, masked(self.name, block, store, operand, grown, analyzer))


def _finite(expr: Expr) -> bool:
    """Whether `expr` is a finite constant."""
    return isinstance(expr, IntImm) or (isinstance(expr, FloatImm) and isfinite(expr.value))


def _vanishes(operand: Expr, reduced: set[Var]) -> bool:
    """Whether `operand` is zero for sure where one of the variables is in the padding."""
    if isinstance(operand, BufferLoad):
        # One that stands still along a variable may be infinite, which no zero takes away.
        return reduced <= set(free_vars(operand.indices))
    if isinstance(operand, Cast):
        return _vanishes(operand.value, reduced)
    if isinstance(operand, Add | Sub):
        return _vanishes(operand.a, reduced) and _vanishes(operand.b, reduced)
    if isinstance(operand, Mul):
        sides = (operand.a, operand.b)
        sure = [_vanishes(side, reduced) for side in sides]
        return any(sure) and all(
            known or _finite(side) for known, side in zip(sure, sides, strict=True)
        )
    return False
