"""Primitives that lay buffers out anew: transform_layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.arith import Analyzer
from transect.ir.dtype import INDEX
from transect.ir.expr import (
    Call,
    Expr,
    IntImm,
    Range,
    as_int,
    cast,
    const,
    true,
)
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc, buffer_fields, symbolic_vars
from transect.tir.index_image import IndexImage, image_of
from transect.tir.index_map import IndexMap
from transect.tir.intrinsics import INTRINSICS
from transect.tir.schedule.edit import Edit, Primitive, Target, expect_block, refuse
from transect.tir.schedule.layout_padding import Padding, fill_padding
from transect.tir.schedule.loops import compose
from transect.tir.schedule.region import assume_sizes
from transect.tir.schedule.relayout import (
    BufferName,
    box_of,
    named_buffer,
    with_parameter,
)
from transect.tir.schedule.rewrite import AccessRewriter, allocating_block
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import (
    Block,
    BufferStore,
    For,
    Stmt,
)
from transect.tir.visit import bound_buffers, own_terms, walk_stmts

Pad = IndexMap | float | None


@dataclass(frozen=True)
class TransformLayout(Primitive):
    """Lay a buffer out anew: element i of it is at index_map(i) from now on, for all blocks.

    buffer: of the block, ("read", n), ("write", n) or a name. index_map: must be known to be one
    to one; assume_injective_transform: take the caller's word for it where it is not known, then
    without padding. pad_value: what the new buffer holds where no element goes, a constant or a
    map from the new indices; needed where sizes are not known to divide.

        for i in range(14):                  for i_0, i_1 in T.grid(4, 4):
            with T.block("B"):                   with T.block("B"):
                vi = T.axis.spatial(14, i)           v0, v1 = T.axis.remap("SS", [i_0, i_1])
                B[vi] = A[vi]           ->           B[v0, v1] = T.if_then_else(
                                                         v0 * 4 + v1 < 14, A[v0 * 4 + v1], 0)
        …                                    …
            C[vi] = B[vi] + 1                    C[vi] = B[vi // 4, vi % 4] + 1

    is transform_layout(B, ("write", 0), lambda i: (i // 4, i % 4), pad_value=0). A writer that is
    no plain map over the buffer keeps its domain, as one without padding does, and a block of its
    own before it fills the padding: "B_padding". To let a block run along the new axes, use
    transform_block_layout.

    A parameter is laid out anew, too: the signature changes, so the callers must change with it
    (`tir.index_image.arrange` does it to an array). What lies in the padding of a parameter that
    the function only reads is the caller's promise; the function does not look at it.
    """

    buffer: BufferName
    index_map: IndexMap
    pad_value: Pad = None
    assume_injective_transform: bool = False
    name: ClassVar[str] = "transform_layout"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found, _, _ = named_buffer(self.name, block, self.buffer)
        tree = Tree(func)
        self._check_uses(tree, block, found)
        analyzer = Analyzer()
        assume_sizes(analyzer, func)
        image = self._image(block, found, analyzer)
        new = self._laid_out(block, found, image)
        self._check_signature(func, block, found, new)
        pad = self._pad(block, found, image)
        done = Edit(func)
        if pad is not None:
            done = fill_padding(self.name, tree, found, new, self.index_map, image, pad)
        moved = self._redirect(done.func, found, new)
        return Edit(moved.func, compose(dict(done.forward), dict(moved.forward)))

    # --- what is refused --------------------------------------------------------------------

    def _check_uses(self, tree: Tree, block: Block, found: Buffer) -> None:
        """Refuse a buffer that is used in another way than by its indices."""
        if found.strides or as_int(found.elem_offset) != 0:
            refuse(
                self.name,
                f"{found.name!r} has strides or an offset of its own",
                block,
                "transform compact buffers",
            )
        for other in tree.all_blocks():
            if any(match.source.buffer is found for match in other.match_buffers):
                refuse(
                    self.name,
                    f"block {other.name!r} matches a region of {found.name!r}",
                    block,
                    "transform before tensorize",
                )
        owned = found in tree.func.buffers or allocating_block(tree, found) is not None
        for stmt in tree.order:
            inner = own_terms(stmt)
            aliased = any(
                item is not found and item.data is found.data for item in bound_buffers(stmt)
            )
            lanes: list[BufferStore | BufferLoad] = []
            if isinstance(stmt, BufferStore) and stmt.buffer is found:
                lanes.append(stmt)
            for item in walk(*inner):
                if item is found.data or (
                    isinstance(item, Call)
                    and item.op is INTRINSICS["address_of"]
                    and isinstance(item.args[0], BufferLoad)
                    and item.args[0].buffer is found
                ):
                    aliased = True
                if isinstance(item, BufferLoad) and item.buffer is found:
                    lanes.append(item)
            if aliased or not owned:
                refuse(
                    self.name,
                    f"{found.name!r} is used through a pointer",
                    block,
                    "transform before tensorize, and buffers of a function or a block alone",
                )
            for access in lanes:
                if access.predicate is not None or any(
                    not index.dtype.is_scalar for index in access.indices
                ):
                    refuse(
                        self.name,
                        f"{found.name!r} is accessed by vectors",
                        block,
                        "transform before vectorizing",
                    )

    def _image(self, block: Block, found: Buffer, analyzer: Analyzer) -> IndexImage:
        image = image_of(self.index_map, found.shape, analyzer)
        if not isinstance(image, str):
            return image
        if not self.assume_injective_transform:
            refuse(
                self.name,
                f"the map of {found.name!r} is not known to be one to one: {image}",
                block,
                "use splits and fusions of indices, or assume_injective_transform=True",
                f"the map: {self.index_map!r}",
            )
        over = {
            var: Range.of(extent.astype(INDEX))
            for var, extent in zip(self.index_map.inputs, found.shape, strict=True)
        }
        shape: list[Expr] = []
        for item in self.index_map.outputs:
            ends = analyzer.symbolic_bounds(item, over)
            if ends is None or not analyzer.can_prove(ends[0] >= 0):
                refuse(
                    self.name,
                    f"the index {item!r} of {found.name!r} is not known to be in a box from 0",
                    block,
                    "use a map whose bounds are known",
                )
            shape.append(analyzer.simplify(ends[1] + 1))
        # The way back is not known, so neither is what is padding.
        return IndexImage(tuple(shape), IndexMap((), ()), true())

    def _laid_out(self, block: Block, found: Buffer, image: IndexImage) -> Buffer:
        if not image.shape:
            refuse(self.name, "the map has no outputs", block, "give at least one index")
        return replace(found, shape=image.shape, axis_separators=())

    def _check_signature(self, func: PrimFunc, block: Block, found: Buffer, new: Buffer) -> None:
        """Refuse a parameter whose sizes the function could not tell from its arguments."""
        if found not in func.buffers:
            return
        after = with_parameter(func, found, new)
        plain = {field for item in after.buffers for field in buffer_fields(item)}
        for var in symbolic_vars(func):
            if var not in plain and var not in after.params:
                refuse(
                    self.name,
                    f"no parameter would tell the size {var.name}: {found.name!r} would have the "
                    f"shape {new.shape!r}",
                    block,
                    f"add a scalar parameter {var.name} to the function, or use sch.cache_read or "
                    "sch.cache_write and transform the cache",
                )

    def _pad(self, block: Block, found: Buffer, image: IndexImage) -> Padding | None:
        """The value of the padding at new indices; None if there is nothing to fill."""
        given = self.pad_value
        if given is None:
            if image.pads:
                refuse(
                    self.name,
                    f"the new shape {image.shape!r} of {found.name!r} has padding, as its sizes "
                    "are not known to divide",
                    block,
                    "give a pad_value",
                )
            return None
        if isinstance(given, IndexMap):
            single = len(given.outputs) == 1 and len(given.inputs) == len(image.shape)
            loads = any(isinstance(item, BufferLoad) for item in walk(*given.outputs))
            if not single or loads:
                refuse(
                    self.name,
                    f"the pad value {given!r} is not one number at {len(image.shape)} new indices",
                    block,
                    "a constant, or a map from the new indices to one value without loads",
                )
        elif isinstance(exact := const(given, found.dtype), IntImm) and exact.value != given:
            refuse(
                self.name,
                f"the pad value {given} is not of the dtype {found.dtype} of {found.name!r}",
                block,
                "a value of the buffer's dtype",
            )
        if not image.inverse.inputs:
            refuse(
                self.name,
                "where the padding is cannot be told from a map that is only assumed to be one to "
                "one",
                block,
                "leave pad_value out",
            )
        if not image.pads:
            return None

        def value(indices: Sequence[Expr]) -> Expr:
            if isinstance(given, IndexMap):
                return cast(given.apply(indices)[0], found.dtype)
            return const(given, found.dtype)

        return value

    # --- moving the accesses ----------------------------------------------------------------

    def _redirect(self, func: PrimFunc, found: Buffer, new: Buffer) -> Edit:
        """The program with every access of `found` at its new place."""
        analyzer = Analyzer()
        assume_sizes(analyzer, func)
        for stmt in walk_stmts(func.body):
            if isinstance(stmt, For):
                analyzer.bind(stmt.var, Range(stmt.min, stmt.extent))
            elif isinstance(stmt, Block):
                for item in stmt.iter_vars:
                    analyzer.bind(item.var, item.dom)
        rewriter = _Redirect(found, new, self.index_map, analyzer)
        body = rewriter.visit(func.body)
        return Edit(replace(with_parameter(func, found, new), body=body), rewriter.forward)


class _Redirect(AccessRewriter):
    """Accesses of one buffer become accesses of another at other places."""

    def __init__(self, old: Buffer, new: Buffer, index_map: IndexMap, analyzer: Analyzer) -> None:
        super().__init__(self._term, {old: new})
        self.old = old
        self.index_map = index_map
        self.analyzer = analyzer

    def _places(self, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        wide = [index.astype(INDEX) for index in indices]
        return tuple(self.analyzer.simplify(item) for item in self.index_map.apply(wide))

    def _term(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is self.old:
            return BufferLoad(self.buffers[self.old], self._places(item.indices), item.predicate)
        if isinstance(item, BufferRegion) and item.buffer is self.old:
            return box_of(item, self.index_map, self.buffers[self.old], self.analyzer)
        return item

    def bound_buffer(self, buffer: Buffer) -> Buffer:
        return self.buffer(buffer)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        made = super().visit_store(stmt)
        assert isinstance(made, BufferStore)
        if stmt.buffer is not self.old:
            return made
        return replace(made, indices=self._places(made.indices))
