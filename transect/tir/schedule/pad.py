"""Primitives that round domains up to multiples: pad_domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.expr import (
    Add,
    Expr,
    Max,
    Min,
    Mul,
    Range,
    Select,
    Var,
    as_expr,
    as_int,
    const,
    equal,
    logical_and,
    minimum,
    true,
)
from transect.ir.node import replace
from transect.ir.sizes import ceildiv
from transect.ir.term import Term
from transect.ir.traverse import rewrite, substitute
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import writers
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.loops import compose
from transect.tir.schedule.region import analyzer_for, assume_options, interval
from transect.tir.schedule.rewrite import restated
from transect.tir.schedule.tree import Forward, ForwardingSubstitution, Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, Stmt

IDENTITY: dict[type[Expr], int] = {Add: 0, Mul: 1}
"""What changes nothing in a sum and in a product."""


@dataclass(frozen=True)
class PadDomain(Primitive):
    """Round the domain of a block's iteration variables up to multiples.

    multiples: one for each iteration variable, a number or a term over decision variables; 1
    leaves it. The buffer that the block writes, an
    intermediate one, grows with the spatial variables; what the new instances put there nobody
    reads. Reads stay inside their buffers: indices are cut off at the last one of the old domain.
    New instances of a reduction combine with the identity.

        for i, k in T.grid(n, d):              for i, k in T.grid((n + 7) // 8 * 8, d):
            with T.block("B"):                     with T.block("B"):
                vi, vk = …                   ->        vi, vk = …
                B[vi] += A[vi, vk]                     B[vi] += A[T.min(vi, n - 1), vk]

    Splitting by the multiples then needs no predicate, so register tiles run at full speed for
    symbolic and odd extents.
    """

    multiples: tuple[Expr | int, ...]
    name: ClassVar[str] = "pad_domain"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        analyzer = analyzer_for(Tree(func), block)
        assume_options(analyzer, func, self.multiples)
        grown = rounded_up(self.name, block, self.multiples, analyzer)
        if not grown:
            return Edit(func)
        store = grown_store(self.name, func, block, grown)
        return grow(self.name, func, block, grown, self._value(block, store, grown, analyzer))

    def _value(
        self, block: Block, store: BufferStore, grown: dict[Var, Expr], analyzer: Analyzer
    ) -> Expr:
        last: dict[Var, Expr] = {}
        reach: dict[Var, tuple[Expr, Expr]] = {}
        for item in block.iter_vars:
            if item.var in grown:
                end = item.dom.min + item.dom.extent - 1
                last[item.var] = minimum(item.var, analyzer.simplify(end))
                reach[item.var] = (item.dom.min, item.dom.min + grown[item.var] - 1)

        def cut(item: Term) -> Term:
            if not isinstance(item, BufferLoad):
                return item
            # An index that stays inside anyway, as in a cache that was padded too, is left alone.
            indices: list[Expr] = []
            for index, size in zip(item.indices, item.buffer.shape, strict=True):
                box = interval(index, reach, analyzer)
                # An index that goes backwards leaves at the beginning.
                fits = (
                    box is not None
                    and analyzer.can_prove(box[0] >= 0)
                    and analyzer.can_prove(box[1] < size)
                )
                indices.append(index if fits else substitute(index, last))
            return BufferLoad(item.buffer, tuple(indices), item.predicate)

        reduced = any(v.var in grown and v.kind == "reduce" for v in block.iter_vars)
        if not reduced and block.init is None:
            return rewrite(store.value, cut)
        operand = rewrite(combined(self.name, block, store), cut)
        if reduced:
            operand = masked(self.name, block, store, operand, grown, analyzer)
        return recombined(store, operand)


def rounded_up(
    primitive: str, block: Block, multiples: Sequence[Expr | int], analyzer: Analyzer
) -> dict[Var, Expr]:
    """The new extents of the iteration variables whose old ones are not known to be multiples."""
    positive = all(analyzer.can_prove(as_expr(multiple) >= 1) for multiple in multiples)
    if len(multiples) != len(block.iter_vars) or not positive:
        refuse(
            primitive,
            f"{multiples} are not {len(block.iter_vars)} positive numbers",
            block,
            "give one multiple for each iteration variable",
        )
    return {
        item.var: analyzer.simplify(ceildiv(item.dom.extent, multiple) * multiple)
        for item, multiple in zip(block.iter_vars, multiples, strict=True)
        if not analyzer.can_prove(equal(item.dom.extent % multiple, 0))
    }


def grow(primitive: str, func: PrimFunc, block: Block, grown: dict[Var, Expr], value: Expr) -> Edit:
    """Longer domains of some iteration variables, with their loops and the buffer it writes.

    value: what the block stores, also right for the new instances.
    """
    tree = Tree(func)
    analyzer = analyzer_for(tree, block)
    store = grown_store(primitive, func, block, grown)
    loops = _loops(primitive, tree, block, grown, analyzer)
    wider = _wider(primitive, block, store, store.buffer, grown, analyzer)
    body = replace(store, value=value)
    iter_vars = tuple(
        replace(item, dom=Range(item.dom.min, grown.get(item.var, item.dom.extent)))
        for item in block.iter_vars
    )
    made = restated(replace(block, body=body, iter_vars=iter_vars))
    first = edit(func, {block: made}, {block: made})
    forward: Forward = dict(first.forward)
    now = first.func
    for old, extent in loops:
        current = forward.get(old, old)
        assert isinstance(current, For)
        longer = replace(current, extent=extent)
        step = edit(now, {current: longer}, {current: longer})
        now, forward = step.func, compose(forward, dict(step.forward))
    if wider is store.buffer:
        return Edit(now, forward)
    swap = ForwardingSubstitution(buffers={store.buffer: wider})
    root = swap.visit(now.body)
    assert isinstance(root, BlockRealize)
    return Edit(replace(now, body=root), compose(forward, swap.forward))


def grown_store(
    primitive: str, func: PrimFunc, block: Block, grown: dict[Var, Expr]
) -> BufferStore:
    """The one store of a block whose buffer can grow. Refuses other blocks."""
    tree = Tree(func)
    body = block.body
    if not isinstance(body, BufferStore):
        refuse(primitive, "it is more than one store", block, "pad simple blocks")
    found = body.buffer
    spatial = any(item.var in grown and item.kind != "reduce" for item in block.iter_vars)
    if found in tree.func.buffers and spatial:
        refuse(
            primitive,
            f"it writes the parameter {found.name!r}, which cannot grow",
            block,
            "use sch.cache_write first",
        )
    if writers(tree.all_blocks(), found) != [block]:
        refuse(primitive, f"{found.name!r} has other writers", block, "pad it alone")
    if tree.realize(block).predicate is not true():
        refuse(primitive, "it has a predicate", block, "pad before splitting")
    return body


def _loops(
    primitive: str, tree: Tree, block: Block, grown: dict[Var, Expr], analyzer: Analyzer
) -> list[tuple[For, Expr]]:
    found: list[tuple[For, Expr]] = []
    realize = tree.realize(block)
    for item, value in zip(block.iter_vars, realize.iter_values, strict=True):
        if item.var not in grown:
            continue
        loop = next((each for each in tree.loops(block) if each.var is value), None)
        fits = loop is not None and analyzer.can_prove(equal(loop.extent, item.dom.extent))
        if loop is None or not fits or tree.blocks(loop) != [block] or as_int(loop.min) != 0:
            refuse(
                primitive,
                f"iteration variable {item.var.name!r} does not have a loop of its own",
                block,
                "pad before splitting and fusing",
            )
        found.append((loop, grown[item.var]))
    return found


def _wider(
    primitive: str,
    block: Block,
    store: BufferStore,
    found: Buffer,
    grown: dict[Var, Expr],
    analyzer: Analyzer,
) -> Buffer:
    kinds = {item.var: item for item in block.iter_vars}
    shape = list(found.shape)
    for var, extent in grown.items():
        if kinds[var].kind == "reduce":
            continue
        axes = [axis for axis, index in enumerate(store.indices) if index is var]
        dom = kinds[var].dom
        plain = (
            len(axes) == 1
            and as_int(dom.min) == 0
            and analyzer.can_prove(equal(dom.extent, shape[axes[0]]))
        )
        if kinds[var].kind != "spatial" or not plain:
            refuse(
                primitive,
                f"{found.name!r} is not stored over all of its dimension at {var.name!r} alone",
                block,
                "pad blocks that store at plain iteration variables",
            )
        shape[axes[0]] = extent
    if tuple(shape) == found.shape:
        return found
    return replace(found, shape=tuple(shape), strides=())


def combined(primitive: str, block: Block, store: BufferStore) -> Expr:
    """What a reduction combines with the value so far. Refuses other blocks."""
    own = BufferLoad(store.buffer, store.indices)
    value = store.value
    if type(value) not in (Add, Mul, Min, Max) or own not in value.children():
        refuse(
            primitive,
            "it combines in a way that is not known to have an identity",
            block,
            "only +, *, min, max",
        )
    a, b = (side for side in value.children() if isinstance(side, Expr))
    return b if a is own else a


def recombined(store: BufferStore, operand: Expr) -> Expr:
    """The value that a reduction stores, with another operand."""
    own = BufferLoad(store.buffer, store.indices)
    kind = type(store.value)
    pair = (own, operand) if store.value.children()[0] is own else (operand, own)
    return kind(*pair)  # pyright: ignore[reportCallIssue]


def masked(
    primitive: str,
    block: Block,
    store: BufferStore,
    operand: Expr,
    grown: dict[Var, Expr],
    analyzer: Analyzer,
) -> Expr:
    """`operand` in the old domain of the reduction, what changes nothing in the new part."""
    reduced = [v for v in block.iter_vars if v.var in grown and v.kind == "reduce"]
    ends = [analyzer.simplify(v.dom.min + v.dom.extent) for v in reduced]
    inside = logical_and(*(v.var < end for v, end in zip(reduced, ends, strict=True)))
    return Select(inside, operand, _identity(primitive, block, store.value))


def _identity(primitive: str, block: Block, value: Expr) -> Expr:
    init: Stmt | None = block.init
    if not isinstance(init, BufferStore):
        refuse(primitive, "it has no init to start from", block, "pad before decomposing")
    kind = type(value)
    if kind in IDENTITY:
        return const(IDENTITY[kind], value.dtype)
    return init.value  # Taking the start value into a minimum or maximum again is harmless.
