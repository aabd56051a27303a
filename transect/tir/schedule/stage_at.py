"""Primitives that stage data at a loop in one step: read_at, write_at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.tir.function import PrimFunc
from transect.tir.schedule.cache import CacheRead, CacheWrite, read_region
from transect.tir.schedule.chain import Chain
from transect.tir.schedule.compute_at import ComputeAt, ReverseComputeAt
from transect.tir.schedule.dependence import readers
from transect.tir.schedule.edit import Edit, Primitive, Target, expect_block, expect_loop, refuse
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, For

AUTO_COPY = "auto_copy"
"""The annotation of the copies: a pass may choose how they are done."""


def _under(primitive: str, tree: Tree, loop: For, block: Block) -> None:
    if loop not in tree.loops(block):
        refuse(
            primitive,
            f"loop {loop.var.name!r} is not around it",
            block,
            "pass one of sch.get_loops(block)",
        )


@dataclass(frozen=True)
class ReadAt(Primitive):
    """Copy what one iteration of a loop reads of a buffer where the iteration starts.

        for i0 in range(8):                 for i0 in range(8):
            for i1 in range(16):                for ax0 in range(16):
                C(A[i0 * 16 + i1])    ->            A_shared[i0 * 16 + ax0] = A[i0 * 16 + ax0]
                                                for i1 in range(16):
                                                    C(A_shared[i0 * 16 + i1])

    The buffer is read `read_buffer_index` of the block, and all blocks under the loop read the
    copy. The result is the block that copies, annotated with "auto_copy".
    """

    read_buffer_index: int
    storage_scope: str
    name: ClassVar[str] = "read_at"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop, block = expect_loop(self.name, targets[0]), expect_block(self.name, targets[1])
        tree = Tree(func)
        _under(self.name, tree, loop, block)
        found = read_region(self.name, block, self.read_buffer_index).buffer
        others = [item for item in readers(tree.blocks(loop), found) if item is not block]
        chain = Chain(self.name, func)
        cache = CacheRead(self.read_buffer_index, self.storage_scope)
        # The block is named as a consumer too, so that readers outside of the loop are left alone.
        (copy,) = chain.run(cache, block, block, *others)
        chain.run(ComputeAt(), copy, loop)
        chain.annotate(copy, AUTO_COPY, 1)
        return chain.done(copy)


@dataclass(frozen=True)
class WriteAt(Primitive):
    """Copy what one iteration of a loop has written to a buffer where the iteration ends.

        for i0 in range(8):                 for i0 in range(8):
            for i1 in range(16):                for i1 in range(16):
                C[i0 * 16 + i1] = …   ->            C_local[i0 * 16 + i1] = …
                                                for ax0 in range(16):
                                                    C[i0 * 16 + ax0] = C_local[i0 * 16 + ax0]

    The buffer is write `write_buffer_index` of the block. The result is the block that copies,
    annotated with "auto_copy".
    """

    write_buffer_index: int
    storage_scope: str
    name: ClassVar[str] = "write_at"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop, block = expect_loop(self.name, targets[0]), expect_block(self.name, targets[1])
        _under(self.name, Tree(func), loop, block)
        chain = Chain(self.name, func)
        (copy,) = chain.run(CacheWrite(self.write_buffer_index, self.storage_scope), block)
        chain.run(ReverseComputeAt(), copy, loop)
        chain.annotate(copy, AUTO_COPY, 1)
        return chain.done(copy)
