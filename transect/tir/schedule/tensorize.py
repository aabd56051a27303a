"""Tensorize: a nest of loops becomes a call of an instruction that computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from transect.ir.expr import Expr, Pointer, Var, true
from transect.ir.node import replace
from transect.target import Target as Machine
from transect.tir.analysis.tensor_match import NoMatch, TensorMatch, match_block
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.schedule.blockize import blockize_loop, require_whole_domain
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, refuse
from transect.tir.schedule.region import analyzer_for
from transect.tir.schedule.tree import Forward, Tree, single_child
from transect.tir.stmt import Block, BlockRealize, For, MatchBufferRegion, Stmt
from transect.tir.tensor_intrin import ANNOTATION, TensorIntrin
from transect.tir.visit import fresh_copy, walk_stmts


@dataclass(frozen=True)
class Tensorize(Primitive):
    """The loops from one on inwards, or the inside of a blockized block, become an intrinsic.

    tensor_intrin: the name of a TensorIntrin; `Schedule.tensorize` takes one itself, too.
    preserve_unit_iters: as in `Blockize`. The block keeps its init; its annotation "tensor_intrin"
    tells the intrinsic's name.

        for i0 in range(8):                        for i0 in range(8):
            for i1, k in T.grid(16, 4):                with T.block("C_o"):
                with T.block("C"):             ->          …
                    vi = T.axis.spatial(                   c = T.match_buffer(C[vio * 16 : …
                        128, i0 * 16 + i1)                 c[0:16] = T.call_llvm_pure_intrin(…)
                    …

    Refuses, with the first difference, what the description does not fit.
    """

    tensor_intrin: str
    preserve_unit_iters: bool = True
    name: ClassVar[str] = "tensorize"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        (target,) = targets
        intrin = TensorIntrin.get(self.tensor_intrin)
        if isinstance(target, For):
            first = blockize_loop(func, self.name, target, keep_units=self.preserve_unit_iters)
            (outer,) = first.results
            assert isinstance(outer, Block)
            second = self._replace(first.func, outer, intrin, target)
            return _followed(first, second)
        if isinstance(target, Block):
            return self._replace(func, target, intrin, target)
        return refuse(self.name, "a block or loop is needed", target, "one of sch.get_loops(block)")

    def _replace(self, func: PrimFunc, block: Block, intrin: TensorIntrin, at: Stmt) -> Edit:
        tree = Tree(func)
        realize = _inner(block)
        if realize is None:
            refuse(
                self.name,
                "it is not loops around one block",
                at,
                "pass the outermost loop that the intrinsic stands for",
            )
        analyzer = analyzer_for(tree, realize)
        if isinstance(at, Block):
            require_whole_domain(self.name, realize, tree.loops(realize.block), analyzer)
        try:
            match = match_block(intrin, realize, analyzer)
        except NoMatch as error:
            self._refuse(intrin, error, at)
        made = call_block(block, intrin, match)
        gone: Forward = {
            stmt: None for stmt in walk_stmts(block.body) if isinstance(stmt, For | Block)
        }
        return edit(func, {block: made}, {**gone, block: made}, (made,))

    def _refuse(self, intrin: TensorIntrin, error: NoMatch, at: Stmt) -> NoReturn:
        refuse(
            self.name,
            f"{intrin.name} does not fit: {error.reason}",
            at,
            error.remedy,
            f"the description:\n{intrin.description!r}",
        )


def require_machine(intrin: TensorIntrin, machine: Machine, at: Stmt) -> None:
    """Refuse an intrinsic that `machine` lacks."""
    missing = intrin.missing(machine)
    if missing:
        refuse(
            Tensorize.name,
            f"{machine} lacks {', '.join(missing)}, which {intrin.name} needs",
            at,
            "schedule for a target that has it, Schedule(func, target=…), or use another intrinsic",
        )


def _inner(block: Block) -> BlockRealize | None:
    """The one block inside, if loops and nothing else are around it."""
    stmt: Stmt = block.body
    while isinstance(stmt, For):
        stmt = single_child(stmt)
    if isinstance(stmt, BlockRealize) and stmt.predicate is true() and not block.match_buffers:
        return stmt
    return None


def _followed(first: Edit, second: Edit) -> Edit:
    """Both edits as one."""
    forward: Forward = {}
    for old, new in first.forward.items():
        forward[old] = new if new is None else second.forward.get(new, new)
    for old, new in second.forward.items():
        forward.setdefault(old, new)
    return Edit(second.func, forward, second.results)


def call_block(block: Block, intrin: TensorIntrin, match: TensorMatch) -> Block:
    """`block` with the implementation of `intrin` as its body."""
    root = intrin.implementation.body
    assert isinstance(root, BlockRealize)
    buffers: dict[Buffer, Buffer] = {}
    values: dict[Var, Expr] = {}
    views: list[MatchBufferRegion] = []
    for old, region in zip(intrin.implementation.buffers, match.regions, strict=True):
        view = _view(old, region, values)
        buffers[old] = view
        values[old.data] = view.data
        views.append(MatchBufferRegion(view, region))
    inside = fresh_copy(root.block, values, buffers)
    assert isinstance(inside, Block)
    return replace(
        block,
        body=inside.body,
        alloc_buffers=(*block.alloc_buffers, *inside.alloc_buffers),
        match_buffers=(*views, *inside.match_buffers),
        annotations={**block.annotations, **inside.annotations, ANNOTATION: intrin.name},
    )


def _view(old: Buffer, region: BufferRegion, values: dict[Var, Expr]) -> Buffer:
    """A buffer of its own for a parameter: what is a variable in it becomes another one."""
    fields = (*old.strides, old.elem_offset)
    for item in fields:
        if isinstance(item, Var) and item not in values:
            values[item] = Var(item.name, item.dtype)

    def field(item: Expr) -> Expr:
        return values.get(item, item) if isinstance(item, Var) else item

    # Where the region begins is not known before it is.
    offset = field(old.elem_offset)
    if not isinstance(offset, Var):
        offset = Var(f"{old.name}_offset", offset.dtype)
    scope = region.buffer.scope
    return replace(
        old,
        data=Var(old.name, old.data.dtype, Pointer(old.dtype, scope)),
        strides=tuple(field(item) for item in old.strides),
        elem_offset=offset,
    )


__all__ = ["Tensorize", "call_block", "require_machine"]
