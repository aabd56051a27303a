"""Primitives about what a block declares to read and write: annotate_buffer_access,
unsafe_hide_buffer_access."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transect.ir.expr import Range
from transect.ir.node import replace
from transect.tir.access import EXPLICIT_READ, EXPLICIT_WRITE, HIDDEN, block_regions
from transect.tir.buffer import BufferRegion
from transect.tir.function import PrimFunc
from transect.tir.index_map import IndexMap
from transect.tir.schedule.dependence import contains
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import analyzer_for, is_transparent
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block
from transect.tir.visit import child_stmts

Kind = Literal["read", "write"]


def _regions(primitive: str, block: Block, kind: str) -> tuple[BufferRegion, ...]:
    if kind not in ("read", "write"):
        refuse(primitive, f"{kind!r} is no kind of access", block, "'read' or 'write'")
    return block.reads if kind == "read" else block.writes


def _chosen(primitive: str, block: Block, kind: str, index: int) -> BufferRegion:
    regions = _regions(primitive, block, kind)
    if not 0 <= index < len(regions):
        refuse(primitive, f"it has no {kind} {index}", block, f"it has {len(regions)}")
    return regions[index]


def _with(block: Block, kind: str, regions: tuple[BufferRegion, ...]) -> Block:
    return replace(block, reads=regions) if kind == "read" else replace(block, writes=regions)


@dataclass(frozen=True)
class AnnotateBufferAccess(Primitive):
    """State a larger region for read or write `buffer_index` of a block.

        with T.block("C"):                        with T.block("C"):
            vi = …                                    vi = …
            T.reads(A[vi - 1 : vi + 2])       ->      T.reads(A[vi - 2 : vi + 2])
            …                                         T.block_attr({"explicit_read_region": [0]})

    gen_new_ranges: from the block's iteration variables to (begin, end) of each dimension, here
    lambda vi: [(vi - 2, vi + 2)]; as a map, its outputs are begins and ends in turn. What the
    block touches must surely be inside. The region stays until a primitive changes the accesses.
    """

    buffer_index: int
    buf_type: Kind
    gen_new_ranges: IndexMap
    name: ClassVar[str] = "annotate_buffer_access"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        old = _chosen(self.name, block, self.buf_type, self.buffer_index)
        ends = self.gen_new_ranges.apply([item.var for item in block.iter_vars])
        if len(ends) != 2 * old.buffer.ndim:
            refuse(
                self.name,
                f"{len(ends)} ends for the {old.buffer.ndim} dimensions of {old.buffer.name!r}",
                block,
                "give (begin, end) of each dimension",
            )
        tree = Tree(func)
        analyzer = analyzer_for(tree, block, inclusive=True)
        ranges = tuple(
            Range(low, analyzer.simplify(high - low))
            for low, high in zip(ends[::2], ends[1::2], strict=True)
        )
        new = BufferRegion(old.buffer, ranges)
        inside = old
        if is_transparent(block):
            reads, writes = block_regions(*child_stmts(block))
            actual = reads if self.buf_type == "read" else writes
            inside = next((item for item in actual if item.buffer is old.buffer), old)
        if not contains(new, inside, analyzer):
            refuse(
                self.name,
                f"it may touch more of {old.buffer.name!r} than the region {new!r}",
                block,
                "state a region that holds all it touches",
            )
        regions = tuple(
            new if item is old else item for item in _regions(self.name, block, self.buf_type)
        )
        key = EXPLICIT_READ if self.buf_type == "read" else EXPLICIT_WRITE
        known = tuple(item for item in block.annotations.get(key, ()) if item != self.buffer_index)
        annotations = {**block.annotations, key: (*known, self.buffer_index)}
        made = replace(_with(block, self.buf_type, regions), annotations=annotations)
        return edit(func, {block: made}, {block: made})


@dataclass(frozen=True)
class UnsafeHideBufferAccess(Primitive):
    """Leave out some of what a block declares to read or write.

        with T.block("C"):                        with T.block("C"):
            T.reads(A[vi], B[vi])           ->        T.reads(A[vi])
            …                                         T.block_attr({"hidden_buffers": ["B"]})

    buf_index_array: positions among the reads or writes. Unsafe: later primitives do not see the
    dependence any more and may break it. Of the rest at least one read or write must stay, as a
    block that declares nothing is taken to declare all.
    """

    buf_type: Kind
    buf_index_array: tuple[int, ...]
    name: ClassVar[str] = "unsafe_hide_buffer_access"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        gone = [_chosen(self.name, block, self.buf_type, n) for n in self.buf_index_array]
        regions = _regions(self.name, block, self.buf_type)
        kept = tuple(item for item in regions if item not in gone)
        made = _with(block, self.buf_type, kept)
        if not made.reads and not made.writes:
            refuse(self.name, "nothing that it declares would be left", block, "hide fewer")
        names = dict.fromkeys((*block.annotations.get(HIDDEN, ()), *(r.buffer.name for r in gone)))
        made = replace(made, annotations={**block.annotations, HIDDEN: tuple(names)})
        return edit(func, {block: made}, {block: made})
