"""Primitives that look and do not change: blocks by name, loops, neighbours in the data flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.support.errors import ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import readers, writers
from transect.tir.schedule.edit import Edit, Primitive, Target, expect_block, look
from transect.tir.schedule.tree import Tree


@dataclass(frozen=True)
class GetBlock(Primitive):
    """The block of a name. Raises ScheduleError if there is none, or more than one.

    func_name: of the function in the module; None: the one the schedule works on.
    """

    block: str
    func_name: str | None = None
    name: ClassVar[str] = "get_block"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        blocks = Tree(func).all_blocks()
        found = [block for block in blocks if block.name == self.block]
        if len(found) == 1:
            return look(func, found[0])
        names = ", ".join(dict.fromkeys(block.name for block in blocks))
        count = f"{len(found)} blocks are" if found else "no block is"
        raise ScheduleError(
            f"get_block: {count} named {self.block!r}",
            span=func.span if not found else found[0].span,
            notes=[f"the function has: {names}"],
            remedy="give each block a name of its own" if found else "use one of these names",
        )


@dataclass(frozen=True)
class GetLoops(Primitive):
    """The loops around a block (or loop) within the block that holds it, outermost first."""

    name: ClassVar[str] = "get_loops"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        return look(func, *Tree(func).loops(targets[0]))


@dataclass(frozen=True)
class GetChildBlocks(Primitive):
    """The blocks directly inside a block or loop, in program order."""

    name: ClassVar[str] = "get_child_blocks"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        return look(func, *Tree(func).blocks(targets[0]))


@dataclass(frozen=True)
class GetProducers(Primitive):
    """The blocks of the same scope that write what a block reads, in program order."""

    name: ClassVar[str] = "get_producers"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        tree = Tree(func)
        block = expect_block(self.name, targets[0])
        siblings = tree.blocks(tree.scope(block))
        buffers = [region.buffer for region in block.reads]
        found = {b for buffer in buffers for b in writers(siblings, buffer) if b is not block}
        return look(func, *sorted(found, key=tree.order.__getitem__))


@dataclass(frozen=True)
class GetConsumers(Primitive):
    """The blocks of the same scope that read what a block writes, in program order."""

    name: ClassVar[str] = "get_consumers"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        tree = Tree(func)
        block = expect_block(self.name, targets[0])
        siblings = tree.blocks(tree.scope(block))
        buffers = [region.buffer for region in block.writes]
        found = {b for buffer in buffers for b in readers(siblings, buffer) if b is not block}
        return look(func, *sorted(found, key=tree.order.__getitem__))


@dataclass(frozen=True)
class GetOutputBlocks(Primitive):
    """The blocks of a scope that write what is not allocated in it, in program order.

    The scope is a block, by default the root, whose output blocks write the function's parameters.
    """

    name: ClassVar[str] = "get_output_blocks"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        tree = Tree(func)
        scope = expect_block(self.name, targets[0]) if targets else tree.root
        own = set(scope.alloc_buffers)
        return look(
            func,
            *(
                block
                for block in tree.blocks(scope)
                if any(region.buffer not in own for region in block.writes)
            ),
        )
