"""Primitives that attach facts: annotations of loops and blocks, scope and alignment of buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transect.ir.dtype import as_dtype
from transect.ir.expr import Pointer, Var
from transect.ir.node import replace
from transect.ir.term import Term
from transect.support.errors import TransectError
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion, buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import is_transparent
from transect.tir.schedule.rewrite import AccessRewriter
from transect.tir.schedule.tree import ForwardingSubstitution, Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, Stmt


@dataclass(frozen=True)
class Annotate(Primitive):
    """A hint to later passes on a loop or block.

    for i in range(n): …   ->   for i in T.serial(n, annotations={"pragma": 1}): …
    """

    ann_key: str
    ann_val: Any
    name: ClassVar[str] = "annotate"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        (target,) = targets
        assert isinstance(target, For | Block)
        if self.ann_key in target.annotations:
            refuse(
                self.name,
                f"it has an annotation {self.ann_key!r} already",
                target,
                "sch.unannotate it first",
            )
        made = replace(target, annotations={**target.annotations, self.ann_key: self.ann_val})
        return edit(func, {target: made}, {target: made})


@dataclass(frozen=True)
class Unannotate(Primitive):
    """Remove a hint, the inverse of annotate.

    for i in T.serial(n, annotations={"pragma": 1}): …   ->   for i in range(n): …
    """

    ann_key: str
    name: ClassVar[str] = "unannotate"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        (target,) = targets
        assert isinstance(target, For | Block)
        if self.ann_key not in target.annotations:
            known = ", ".join(sorted(target.annotations)) or "none"
            refuse(
                self.name, f"no annotation {self.ann_key!r}", target, f"its annotations: {known}"
            )
        kept = {key: value for key, value in target.annotations.items() if key != self.ann_key}
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
    """The memory in which the buffer of a block's write `buffer_index` lies.

    B = T.alloc_buffer((n,))   ->   B = T.alloc_buffer((n,), scope="shared")
    """

    buffer_index: int
    storage_scope: str
    name: ClassVar[str] = "set_scope"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        old = written_buffer(self.name, func, block, self.buffer_index)
        data = Var(old.data.name, old.data.dtype, Pointer(old.dtype, self.storage_scope))
        return exchange_buffer(func, old, replace(old, data=data))


@dataclass(frozen=True)
class StorageAlign(Primitive):
    """Pad the rows of the buffer of a block's write, to keep columns out of the same bank.

        with T.block("B"):          with T.block("B"):
            B[vi, vj] = …     ->        T.block_attr({"buffer_dim_align": [(0, 0, 32, 8)]})
                                        B[vi, vj] = …

    The stride of dimension `axis` becomes the next number that is `offset` modulo `factor`; a
    pass that lays out memory reads it from the block's annotation "buffer_dim_align".
    """

    buffer_index: int
    axis: int
    factor: int
    offset: int
    name: ClassVar[str] = "storage_align"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found = written_buffer(self.name, func, block, self.buffer_index)
        axis = self.axis + found.ndim if self.axis < 0 else self.axis
        if not 0 <= axis < found.ndim or self.factor < 1:
            refuse(
                self.name,
                f"{found.name!r} has no dimension {self.axis}, or the factor is below 1",
                block,
                f"axis in [0, {found.ndim}), factor >= 1",
            )
        entry = (self.buffer_index, axis, self.factor, self.offset)
        kept = tuple(
            item
            for item in block.annotations.get("buffer_dim_align", ())
            if tuple(item[:2]) != entry[:2]
        )
        made = replace(block, annotations={**block.annotations, "buffer_dim_align": (*kept, entry)})
        tree = Tree(func)
        assert block in tree
        return edit(func, {block: made}, {block: made})


@dataclass(frozen=True)
class UnsafeSetDtype(Primitive):
    """The dtype in which the buffer of a block's write `buffer_index` is kept.

        B = T.alloc_buffer((n,), "float32")        B = T.alloc_buffer((n,), "float16")
        B[vi] = A[vi] * 2                     ->   B[vi] = T.Cast("float16", A[vi] * 2)
        C[vi] = B[vi] + 1                          C[vi] = T.Cast("float32", B[vi]) + 1

    Unsafe, as what is stored may be rounded, or may not fit: it is the only primitive that changes
    results other than by the order of a reduction.
    """

    buffer_index: int
    dtype: str
    name: ClassVar[str] = "unsafe_set_dtype"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        old = written_buffer(self.name, func, block, self.buffer_index)
        try:
            dtype = as_dtype(self.dtype)
        except TransectError as error:
            refuse(self.name, str(error), block, "such as 'float16'")
        if not dtype.is_scalar or dtype.is_handle or old.strides:
            refuse(
                self.name, f"{old.name!r} cannot be kept as {self.dtype}", block, "use a scalar one"
            )
        tree = Tree(func)
        for user in tree.all_blocks():
            if user is not tree.root and any(uses(user, old)) and not is_transparent(user):
                refuse(
                    self.name,
                    f"block {user.name!r} uses {old.name!r} by a pointer or an opaque call",
                    block,
                    "change dtypes before tensorize",
                )
        new = buffer(old.name, old.shape, dtype, scope=old.scope)
        rewriter = _Converting(old, new)
        body = rewriter.visit(func.body)
        assert isinstance(body, BlockRealize)
        return Edit(replace(func, body=body), rewriter.forward)


class _Converting(AccessRewriter):
    """Casts at the loads and stores of one buffer, which is another one now."""

    def __init__(self, old: Buffer, new: Buffer) -> None:
        super().__init__(self._term, {old: new})
        self.old = old
        self.new = new

    def _term(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is self.old:
            made = BufferLoad(self.new, item.indices, item.predicate)
            return made.astype(item.dtype)
        if isinstance(item, BufferRegion) and item.buffer is self.old:
            return BufferRegion(self.new, item.ranges)
        return item

    def bound_buffer(self, buffer: Buffer) -> Buffer:
        return self.new if buffer is self.old else buffer

    def visit_store(self, stmt: BufferStore) -> Stmt:
        made = super().visit_store(stmt)
        if stmt.buffer is not self.old or not isinstance(made, BufferStore):
            return made
        lanes = self.new.dtype.with_lanes(made.value.dtype.lanes)
        return replace(made, value=made.value.astype(lanes))
