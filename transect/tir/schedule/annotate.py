"""Primitives that attach facts: annotations of loops and blocks, scope and alignment of buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transect.ir.expr import Pointer, Var
from transect.ir.node import replace
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.tree import ForwardingSubstitution, Tree
from transect.tir.stmt import Block, BlockRealize, For


@dataclass(frozen=True)
class Annotate(Primitive):
    """A hint to later passes on a loop or block.

    for i in range(n): …   ->   for i in T.serial(n, annotations={"pragma": 1}): …
    """

    key: str
    value: Any
    name: ClassVar[str] = "annotate"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        (target,) = targets
        assert isinstance(target, For | Block)
        if self.key in target.annotations:
            refuse(
                self.name,
                f"it has an annotation {self.key!r} already",
                target,
                "sch.unannotate it first",
            )
        made = replace(target, annotations={**target.annotations, self.key: self.value})
        return edit(func, {target: made}, {target: made})


@dataclass(frozen=True)
class Unannotate(Primitive):
    """The inverse of annotate."""

    key: str
    name: ClassVar[str] = "unannotate"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        (target,) = targets
        assert isinstance(target, For | Block)
        if self.key not in target.annotations:
            known = ", ".join(sorted(target.annotations)) or "none"
            refuse(self.name, f"no annotation {self.key!r}", target, f"its annotations: {known}")
        kept = {key: value for key, value in target.annotations.items() if key != self.key}
        made = replace(target, annotations=kept)
        return edit(func, {target: made}, {target: made})


def written_buffer(primitive: str, func: PrimFunc, block: Block, index: int) -> Buffer:
    """The buffer of a block's write `index`. Refuses parameters of the function."""
    if not 0 <= index < len(block.writes):
        refuse(primitive, f"it has no write {index}", block, f"it has {len(block.writes)}")
    found = block.writes[index].buffer
    if found in func.buffers:
        refuse(
            primitive,
            f"{found.name!r} is a parameter of the function, which the caller made",
            block,
            "use sch.cache_write, and change the buffer that it makes",
        )
    return found


def exchange_buffer(func: PrimFunc, old: Buffer, new: Buffer) -> Edit:
    """`new` for `old` everywhere, its allocation included."""
    rewritten = ForwardingSubstitution(buffers={old: new})
    body = rewritten.visit(func.body)
    assert isinstance(body, BlockRealize)
    return Edit(replace(func, body=body), rewritten.forward)


@dataclass(frozen=True)
class SetScope(Primitive):
    """The memory in which the buffer of a block's write `index` lies.

    B = T.alloc_buffer((n,))   ->   B = T.alloc_buffer((n,), scope="shared")
    """

    index: int
    scope: str
    name: ClassVar[str] = "set_scope"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        old = written_buffer(self.name, func, block, self.index)
        data = Var(old.data.name, old.data.dtype, Pointer(old.dtype, self.scope))
        return exchange_buffer(func, old, replace(old, data=data))


@dataclass(frozen=True)
class StorageAlign(Primitive):
    """Pad the rows of the buffer of a block's write, to keep columns out of the same bank.

    The stride of dimension `axis` becomes the next number that is `offset` modulo `factor`; a
    pass that lays out memory reads it from the block's annotation "buffer_dim_align".
    """

    index: int
    axis: int
    factor: int
    offset: int
    name: ClassVar[str] = "storage_align"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found = written_buffer(self.name, func, block, self.index)
        axis = self.axis + found.ndim if self.axis < 0 else self.axis
        if not 0 <= axis < found.ndim or self.factor < 1:
            refuse(
                self.name,
                f"{found.name!r} has no dimension {self.axis}, or the factor is below 1",
                block,
                f"axis in [0, {found.ndim}), factor >= 1",
            )
        entry = (self.index, axis, self.factor, self.offset)
        kept = tuple(
            item
            for item in block.annotations.get("buffer_dim_align", ())
            if tuple(item[:2]) != entry[:2]
        )
        made = replace(block, annotations={**block.annotations, "buffer_dim_align": (*kept, entry)})
        tree = Tree(func)
        assert block in tree
        return edit(func, {block: made}, {block: made})
