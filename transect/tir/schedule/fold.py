"""Primitive that writes a short reduction out as one expression: fold_reduction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import Add, Expr, Max, Min, Mul, Var, as_int, const
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite, substitute
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import mentions
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import analyzer_for
from transect.tir.schedule.rewrite import restated
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, For

_IDENTITY: dict[type[Expr], int] = {Add: 0, Mul: 1}


@dataclass(frozen=True)
class FoldReduction(Primitive):
    """Combine all that a short reduction reads in one expression, pairs first.

        for i, k in T.grid(n, 4):                for i in range(n):
            with T.block("C"):                       with T.block("C"):
                with T.init():            ->             C[i] = ((A[i, 0] + A[i, 1])
                    C[i] = 0                                     + (A[i, 2] + A[i, 3]))
                C[i] += A[i, k]

    The reduction loops must be the block's innermost ones, of constant extents with at most
    `limit` iterations together; the combination must be a sum, product, minimum or maximum. The
    block becomes spatial. The order of floating-point additions changes, and a sum of nothing but
    negative zeros is negative zero.
    """

    limit: int = 64
    name: ClassVar[str] = "fold_reduction"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        realize = tree.realize(block)
        store, operand = self._update(block)
        analyzer = analyzer_for(tree, realize)
        names, fixed = self._loops(tree, block, realize, analyzer)
        loops = [*names.values()]
        if any(mentions(realize.predicate, loop.var) for loop in loops):
            refuse(
                self.name,
                f"its predicate {realize.predicate!r} leaves out part of the reduction",
                block,
                "split by a factor that divides the extent",
            )

        def simplify(item: Term) -> Term:
            # Not whole terms: an index must stay within its buffer where a Select discards it too.
            if isinstance(item, BufferLoad):
                indices = tuple(analyzer.simplify(index) for index in item.indices)
                return BufferLoad(item.buffer, indices, item.predicate)
            return item

        terms: list[Expr] = []
        for place in product(*(range(_extent(loop)) for loop in loops)):
            at: dict[Var, Expr] = fixed | {
                var: loop.min + const(number, var.dtype)
                for (var, loop), number in zip(names.items(), place, strict=True)
            }
            terms.append(rewrite(substitute(operand, at), simplify))
        kind = type(store.value)
        while len(terms) > 1:
            pairs = [kind(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]  # pyright: ignore[reportCallIssue]
            terms = [*pairs, *terms[len(pairs) * 2 :]]
        spatial = [
            (item, value)
            for item, value in zip(block.iter_vars, realize.iter_values, strict=True)
            if item.kind == "spatial"
        ]
        made = restated(
            replace(
                block,
                iter_vars=tuple(item for item, _ in spatial),
                reads=(),
                writes=(),
                body=replace(store, value=terms[0]),
                init=None,
            )
        )
        new = replace(realize, iter_values=tuple(value for _, value in spatial), block=made)
        outermost = next(loop for loop in tree.loops(block) if loop in loops)
        return edit(func, {outermost: new}, {**dict.fromkeys(loops), block: made})

    def _update(self, block: Block) -> tuple[BufferStore, Expr]:
        """The store of a reduction with its init, and what it combines."""
        body, init = block.body, block.init
        if not isinstance(init, BufferStore) or not isinstance(body, BufferStore):
            refuse(self.name, "it is no reduction of one store", block, "keep its init")
        value = body.value
        current = BufferLoad(body.buffer, body.indices)
        children = value.children()
        if type(value) not in (Add, Mul, Min, Max) or current not in children:
            refuse(
                self.name,
                "it combines in a way that is not known to be associative",
                block,
                "only +, *, min, max",
            )
        if type(value) in _IDENTITY and init.value is not const(
            _IDENTITY[type(value)], body.buffer.dtype
        ):
            refuse(
                self.name,
                "its init is not the identity of the combination",
                block,
                "initialise with 0 (sum) or 1 (product), and add the rest afterwards",
            )
        operand = children[1] if children[0] is current else children[0]
        assert isinstance(operand, Expr)
        return body, operand

    def _loops(
        self, tree: Tree, block: Block, realize: BlockRealize, analyzer: Analyzer
    ) -> tuple[dict[Var, For], dict[Var, Expr]]:
        """The loop of each reduction variable; the value of each that has only one."""
        around = tree.loops(block)
        names: dict[Var, For] = {}
        fixed: dict[Var, Expr] = {}
        count = 1
        for item, value in zip(block.iter_vars, realize.iter_values, strict=True):
            if item.kind == "spatial":
                continue
            bound = analyzer.simplify(value)
            if as_int(bound) is not None:
                fixed[item.var] = bound
                continue
            loop = next((loop for loop in around if loop.var is bound), None)
            if loop is None or as_int(loop.extent) is None:
                refuse(
                    self.name,
                    f"reduction variable {item.var.name!r} is bound to {bound!r}, no loop of a "
                    "constant extent",
                    block,
                    "split it, and make partial results with sch.rfactor",
                )
            names[item.var] = loop
            count *= _extent(loop)
        found = [*names.values()]
        if not found:
            refuse(self.name, "it reduces nothing", block, "only reductions can be folded")
        inner = around[len(around) - len(found) :]
        if set(inner) != set(found) or tree.blocks(inner[0]) != [block]:
            refuse(
                self.name,
                "its reduction loops are not the innermost ones",
                block,
                "sch.reorder them inside of the others",
            )
        if count > self.limit:
            refuse(
                self.name,
                f"it reads {count} values, more than {self.limit}",
                block,
                "make partial results with sch.rfactor first",
            )
        return names, fixed


def _extent(loop: For) -> int:
    extent = as_int(loop.extent)
    assert extent is not None
    return extent
