"""Primitives about reductions: decompose_reduction, rfactor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import Add, Expr, Max, Min, Mul, Range, Var, const, true
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion, buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import mentions
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
from transect.tir.schedule.rewrite import nest, restated, with_allocation
from transect.tir.schedule.tree import ForwardingSubstitution, Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, IterVar, Stmt, seq
from transect.tir.visit import fresh_copy


@dataclass(frozen=True)
class DecomposeReduction(Primitive):
    """Move the init of a reduction to a block of its own, right before `loop`.

        for i, k in T.grid(n, d):            for i in range(n):
            with T.block("C"):                   with T.block("C_init"):
                vi, vk = …                           C[vi] = 0
                with T.init():           ->      for k in range(d):
                    C[vi] = 0                        with T.block("C"):
                C[vi] += A[vi, vk]                       C[vi] += A[vi, vk]

    The loop must be around all reduction loops of the block. The result is the init block.
    """

    name: ClassVar[str] = "decompose_reduction"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        loop = expect_loop(self.name, targets[1])
        tree = Tree(func)
        if block.init is None:
            refuse(self.name, "it has no init", block, "it is decomposed already, or no reduction")
        if loop not in tree.loops(block):
            refuse(
                self.name,
                f"loop {loop.var.name!r} is not around it",
                block,
                "pass one of sch.get_loops(block)",
            )
        realize = tree.realize(block)
        bound = list(zip(block.iter_vars, realize.iter_values, strict=True))
        loops = tree.loops(block)
        outside = loops[: loops.index(loop)]
        for item, value in bound:
            if item.kind == "spatial":
                continue
            for other in outside:
                if mentions(value, other.var):
                    refuse(
                        self.name,
                        f"loop {other.var.name!r} outside it also runs over the reduction, so the "
                        "sum would start anew in each of its iterations",
                        loop,
                        f"decompose at loop {other.var.name!r} or further out",
                    )
        if [item for item in tree.blocks(loop) if item is not block and self._shares(item, block)]:
            refuse(
                self.name,
                f"another block under the loop uses what {block.name!r} writes",
                loop,
                "decompose before moving blocks together",
            )
        init, stmt = self._init(func, tree, block, loop)
        new = replace(block, init=None)
        new = replace(new, reads=self._reads(block))
        first = edit(func, {block: new}, {block: new})
        inner = first.forward[loop]
        assert inner is not None
        second = edit(first.func, {inner: seq(stmt, inner)}, {inner: inner})
        return Edit(second.func, compose(dict(first.forward), dict(second.forward)), (init,))

    def _shares(self, other: Block, block: Block) -> bool:
        mine = {region.buffer for region in block.writes}
        return any(region.buffer in mine for region in (*other.reads, *other.writes))

    def _reads(self, block: Block) -> tuple[BufferRegion, ...]:
        known = {region.buffer for region in block.reads}
        return (*(r for r in block.writes if r.buffer not in known), *block.reads)

    def _init(self, func: PrimFunc, tree: Tree, block: Block, loop: For) -> tuple[Block, Stmt]:
        """The init block over copies of the loops inside `loop` that spatial variables use."""
        del func
        realize = tree.realize(block)
        spatial = [
            (item, value)
            for item, value in zip(block.iter_vars, realize.iter_values, strict=True)
            if item.kind == "spatial"
        ]
        inner = [item for item in tree.loops(block) if tree.is_inside(item, loop)]
        reduce_loops = {
            item.var
            for item in inner
            if any(
                mentions(value, item.var)
                for iter_var, value in zip(block.iter_vars, realize.iter_values, strict=True)
                if iter_var.kind != "spatial"
            )
        }
        used = [i for i in inner if any(mentions(value, i.var) for _, value in spatial)]
        predicate = realize.predicate
        shared = [item for item in used if item.var in reduce_loops]
        if shared:
            refuse(
                self.name,
                f"loop {shared[0].var.name!r} runs over spatial and reduction variables at once",
                shared[0],
                "do not fuse spatial with reduction loops before decomposing",
            )
        gone = [item.var for item in inner if item not in used]
        if any(mentions(predicate, var) for var in gone):
            predicate = _without(predicate, gone)
        fresh: dict[Var, Expr] = {
            item.var: Var(f"{item.var.name}_init", item.var.dtype) for item in used
        }
        iters: dict[Var, Expr] = {
            item.var: Var(f"{item.var.name}_init", item.var.dtype) for item, _ in spatial
        }
        swap = ForwardingSubstitution({**fresh, **iters})
        assert block.init is not None
        body = fresh_copy(block.init, iters)
        iter_vars = tuple(replace(item, var=iters[item.var]) for item, _ in spatial)
        made = Block(
            f"{block.name}_init",
            iter_vars,  # pyright: ignore[reportArgumentType]
            (),
            tuple(swap.expr(region) for region in block.writes),
            body,
            span=block.init.span or block.span,
        )
        made = restated(made)
        inside: Stmt = BlockRealize(
            tuple(swap.expr(value) for _, value in spatial), swap.expr(predicate), made
        )
        for item in reversed(used):
            var = fresh[item.var]
            assert isinstance(var, Var)
            kind = item.kind if item.kind in ("vectorized", "unrolled", "parallel") else "serial"
            inside = For(
                var,
                swap.expr(item.min),
                swap.expr(item.extent),
                kind,
                inside,
                annotations=item.annotations,
                span=item.span,
            )
        return made, inside


def _without(predicate: Expr, gone: list[Var]) -> Expr:
    """The parts of a conjunction that mention none of `gone`."""
    parts: list[Expr] = []
    stack = [predicate]
    while stack:
        item = stack.pop()
        if type(item).__name__ == "And":
            stack.extend(reversed(list(item.children())))  # pyright: ignore[reportArgumentType]
        elif not any(mentions(item, var) for var in gone):
            parts.append(item)
    result: Expr = true()
    for part in parts:
        result = part if result is true() else result & part
    return result


_IDENTITY: dict[type[Expr], int] = {Add: 0, Mul: 1}


@dataclass(frozen=True)
class Rfactor(Primitive):
    """Reduce in parts, one for each iteration of `loop`, then combine the parts.

        for i, k0, k1 in T.grid(n, 4, 8):        for i, k0, k1 in T.grid(n, 4, 8):
            C[i] += A[i, k0 * 8 + k1]      ->        C_rf[k1, i] += A[i, k0 * 8 + k1]
                                                 for i, k1 in T.grid(n, 8):
                                                     C[i] += C_rf[k1, i]

    factor_axis: where the new dimension stands in C_rf. The loop must run over the reduction
    alone, with one extent in all iterations of the loops around it; the combination must be a sum,
    product, minimum or maximum. The order of floating-point additions changes: that is what it is
    for. The result is the block of C_rf; the handle of the block stays with the combination.
    """

    factor_axis: int = 0
    name: ClassVar[str] = "rfactor"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        tree = Tree(func)
        blocks = tree.blocks(loop)
        if len(blocks) != 1:
            refuse(self.name, f"{len(blocks)} blocks are under it", loop, "one reduction only")
        block = blocks[0]
        realize = tree.realize(block)
        store, old, combined, operand = self._update(block)
        analyzer = analyzer_for(tree, realize)
        if realize.predicate is not true():
            refuse(
                self.name,
                f"block {block.name!r} has the predicate {realize.predicate!r}",
                loop,
                "split by a factor that divides the extent",
            )
        bound = list(zip(block.iter_vars, realize.iter_values, strict=True))
        reduced = [(item, value) for item, value in bound if mentions(value, loop.var)]
        if len(reduced) != 1 or reduced[0][0].kind != "reduce":
            refuse(
                self.name,
                "it does not run over one reduction variable alone",
                loop,
                "choose a loop of a reduction",
            )
        changing = [item for item in tree.loops(block) if mentions(loop.extent, item.var)]
        if changing:
            refuse(
                self.name,
                f"its extent {loop.extent!r} changes with loop {changing[0].var.name!r}: there is "
                "no size that all rows of parts have",
                loop,
                "split it by a constant and choose the outer or the inner loop",
            )
        del analyzer, combined
        home = tree.scope(block)
        extents = list(old.shape)
        axis = self.factor_axis + len(extents) + 1 if self.factor_axis < 0 else self.factor_axis
        if not 0 <= axis <= len(extents):
            refuse(
                self.name, f"axis {self.factor_axis} is none of the new buffer's", loop, "0 … ndim"
            )
        part = buffer(f"{old.name}_rf", (*extents[:axis], loop.extent, *extents[axis:]), old.dtype)
        partial = self._partial(tree, block, loop, part, axis, reduced[0])
        final, final_block = self._final(block, loop, part, axis, store, operand)
        anchor = tree.outermost(block, home)
        nest_of_parts = self._nest(tree, block, loop, partial, anchor)
        first = edit(
            func,
            {anchor: seq(nest_of_parts, final)},
            {**dict.fromkeys(tree.loops(block)), block: final_block},
        )
        new_home = first.forward[home]
        assert isinstance(new_home, Block)
        second = edit(first.func, {new_home: with_allocation(new_home, part)})
        forward = compose(dict(first.forward), dict(second.forward))
        return Edit(second.func, {**forward, block: final_block}, (partial.block,))

    def _update(self, block: Block) -> tuple[BufferStore, Buffer, Expr, Expr]:
        body = block.body
        if block.init is None or not isinstance(body, BufferStore):
            refuse(self.name, "it is no reduction of one store", block, "keep its init for rfactor")
        value = body.value
        current = BufferLoad(body.buffer, body.indices)
        if type(value) not in (Add, Mul, Min, Max) or current not in value.children():
            refuse(
                self.name,
                "it combines in a way that is not known to be associative",
                block,
                "only +, *, min, max",
            )
        a, b = value.children()
        operand = b if a is current else a
        assert isinstance(operand, Expr)
        if not isinstance(block.init, BufferStore):
            refuse(self.name, "its init is not one store", block, "only single reductions")
        if type(value) in _IDENTITY and block.init.value is not const(
            _IDENTITY[type(value)], body.buffer.dtype
        ):
            refuse(
                self.name,
                "its init is not the identity of the combination and would count several times",
                block,
                "initialise with 0 (sum) or 1 (product), and add the rest afterwards",
            )
        return body, body.buffer, value, operand

    def _partial(
        self,
        tree: Tree,
        block: Block,
        loop: For,
        part: Buffer,
        axis: int,
        reduced: tuple[IterVar, Expr],
    ) -> BlockRealize:
        """The block that makes the parts: the loop is spatial there."""
        realize = tree.realize(block)
        lane = Var(f"v{loop.var.name}", loop.var.dtype)
        rest = [
            item
            for item in tree.loops(block)
            if item is not loop and mentions(reduced[1], item.var)
        ]
        values: dict[Var, Expr] = {loop.var: lane}
        iter_vars: list[IterVar] = [IterVar(lane, Range(loop.min, loop.extent), "spatial")]
        bound: list[Expr] = [loop.var]
        inner: dict[Var, Expr] = {}
        for item, value in zip(block.iter_vars, realize.iter_values, strict=True):
            if item is reduced[0]:
                for outer in rest:
                    var = Var(f"v{outer.var.name}", outer.var.dtype)
                    values[outer.var] = var
                    iter_vars.append(IterVar(var, Range(outer.min, outer.extent), "reduce"))
                    bound.append(outer.var)
                inner[item.var] = ForwardingSubstitution(values).expr(value)
            else:
                var = Var(item.var.name, item.var.dtype)
                inner[item.var] = var
                iter_vars.append(replace(item, var=var))
                bound.append(value)

        def redirect(item: Term) -> Term:
            if isinstance(item, Var):
                return inner.get(item, item)
            if isinstance(item, BufferLoad) and item.buffer is block.writes[0].buffer:
                return BufferLoad(part, (*item.indices[:axis], lane, *item.indices[axis:]))
            return item

        def store(stmt: Stmt) -> BufferStore:
            assert isinstance(stmt, BufferStore)
            indices = tuple(rewrite(index, redirect) for index in stmt.indices)
            return BufferStore(
                part, rewrite(stmt.value, redirect), (*indices[:axis], lane, *indices[axis:]),
                span=stmt.span,
            )  # fmt: skip

        assert block.init is not None
        made = replace(
            block,
            name=f"{block.name}_rf",
            iter_vars=tuple(iter_vars),
            body=store(block.body),
            init=store(block.init),
        )
        return BlockRealize(tuple(bound), true(), restated(made), span=realize.span)

    def _final(
        self, block: Block, loop: For, part: Buffer, axis: int, store: BufferStore, operand: Expr
    ) -> tuple[Stmt, Block]:
        """Loops and the block that combines the parts."""
        del operand
        lane = Var(f"v{loop.var.name}", loop.var.dtype)
        spatial = [item for item in block.iter_vars if item.kind == "spatial"]
        used = set(free_vars(store.indices))
        fresh = {item.var: Var(item.var.name, item.var.dtype) for item in spatial}
        swap = ForwardingSubstitution(fresh)
        indices = tuple(swap.expr(index) for index in store.indices)
        current = BufferLoad(store.buffer, indices)
        partial = BufferLoad(part, (*indices[:axis], lane, *indices[axis:]))
        kind = type(store.value)
        value = kind(current, partial)  # pyright: ignore[reportCallIssue]
        assert block.init is not None
        kept = [item for item in spatial if item.var in used]
        made = Block(
            block.name,
            (
                *(replace(item, var=fresh[item.var]) for item in kept),
                IterVar(lane, Range(loop.min, loop.extent), "reduce"),
            ),
            (),
            (),
            replace(store, value=value, indices=indices),
            init=swap.visit(block.init),
            annotations=block.annotations,
            span=block.span,
        )
        reads_and_writes = restated(made)
        loops = [Var(f"ax{n}", item.var.dtype) for n, item in enumerate(kept)]
        last = Var(f"ax{len(kept)}", loop.var.dtype)
        values = [item.dom.min + var for item, var in zip(kept, loops, strict=True)]
        realize = BlockRealize((*values, loop.min + last), true(), reads_and_writes)
        extents = [*(item.dom.extent for item in kept), loop.extent]
        return nest(zip([*loops, last], extents, strict=True), realize), reads_and_writes

    def _nest(
        self, tree: Tree, block: Block, loop: For, partial: BlockRealize, anchor: Stmt
    ) -> Stmt:
        """The loops around the block with the new block inside them."""
        if tree.blocks(anchor) != [block] and not isinstance(anchor, BlockRealize):
            refuse(
                self.name,
                "other blocks share its loops",
                loop,
                "rfactor before moving blocks together",
            )
        body: Stmt = partial
        for item in reversed(tree.loops(block)):
            body = replace(item, body=body)
        return body
