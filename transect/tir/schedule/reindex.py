"""Primitives that stage data at iteration variables: reindex, reindex_cache_read and _write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import INDEX
from transect.ir.expr import And, Call, Expr, Or, Select, Var, as_int, true
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.buffer import Buffer, BufferLoad, buffer
from transect.tir.function import PrimFunc
from transect.tir.index_image import image_of
from transect.tir.index_map import IndexMap
from transect.tir.intrinsics import INTRINSICS
from transect.tir.schedule.cache import check_used_alone, check_written_before, insert_copy
from transect.tir.schedule.dependence import uses
from transect.tir.schedule.edit import Edit, Primitive, Target, expect_block, refuse
from transect.tir.schedule.region import analyzer_for, is_transparent
from transect.tir.schedule.relayout import BufferName, named_buffer
from transect.tir.schedule.rewrite import (
    AccessRewriter,
    nest,
    predicate_is_bounds,
    require_whole_domain,
    restated,
)
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import (
    Block,
    BlockRealize,
    BufferStore,
    IfThenElse,
    IterVar,
    Stmt,
    While,
)
from transect.tir.visit import own_terms, walk_stmts


def _places(block: Block, found: Buffer) -> set[tuple[Expr, ...]]:
    """All indices at which a block loads and stores a buffer."""
    places: set[tuple[Expr, ...]] = set()
    for stmt in walk_stmts(block):
        if isinstance(stmt, Block):
            continue
        if isinstance(stmt, BufferStore) and stmt.buffer is found:
            places.add(stmt.indices)
        for item in walk(*own_terms(stmt)):
            if isinstance(item, BufferLoad) and item.buffer is found:
                places.add(item.indices)
    return places


def _only_place(primitive: str, block: Block, found: Buffer, verb: str) -> tuple[Expr, ...]:
    """The indices of the one place at which a block accesses a buffer."""
    places = _places(block, found)
    own = {item.var for item in block.iter_vars}
    inner = any(isinstance(stmt, Block) for stmt in walk_stmts(block) if stmt is not block)
    if len(places) != 1 or not is_transparent(block) or inner:
        refuse(
            primitive,
            f"it does not {verb} {found.name!r} at one place",
            block,
            f"use cache_{verb}",
        )
    (indices,) = places
    bound = {var for stmt in walk_stmts(block) for var in _bound(stmt)}
    loads = any(isinstance(item, BufferLoad) for item in walk(*indices))
    if loads or any(var in bound - own for var in free_vars(indices)):
        refuse(
            primitive,
            f"the indices of {found.name!r} are not made of iteration variables",
            block,
            f"use cache_{verb}",
        )
    return indices


def _check_inside(
    primitive: str, tree: Tree, block: Block, found: Buffer, indices: tuple[Expr, ...]
) -> None:
    """Refuse a read that only a condition keeps inside of the buffer: the copy has none."""
    conditional = not predicate_is_bounds(tree, block) or any(
        isinstance(stmt, IfThenElse | While)
        or any(
            isinstance(item, Select | And | Or)
            or (isinstance(item, Call) and item.op is INTRINSICS["if_then_else"])
            for item in walk(*own_terms(stmt))
        )
        for stmt in walk_stmts(block)
    )
    if not conditional:
        return
    analyzer = analyzer_for(tree, block, inclusive=True)
    for index, size in zip(indices, found.shape, strict=True):
        if not (analyzer.can_prove(index >= 0) and analyzer.can_prove(index < size)):
            refuse(
                primitive,
                f"it reads {found.name!r} at {index!r} under a condition, and without it that may "
                "be outside",
                block,
                f"use cache_read, or {primitive} before inlining what has the condition",
            )


def _bound(stmt: Stmt) -> list[Var]:
    var = getattr(stmt, "var", None)
    return [var] if isinstance(var, Var) else []


@dataclass(frozen=True)
class _Staging:
    """The buffer between a block and the one it touched, and the block that copies.

    places: where the block finds in the cache what it found at `indices`.
    """

    cache: Buffer
    places: tuple[Expr, ...]
    nest: Stmt
    copy: Block


def _staged(
    primitive: str,
    tree: Tree,
    block: Block,
    found: Buffer,
    indices: tuple[Expr, ...],
    index_map: IndexMap,
    name: str,
    scope: str,
    *,
    write: bool,
) -> _Staging:
    """A cache at index_map(iteration variables) and the loops that copy to it, or from it."""
    variables = [item.var for item in block.iter_vars]
    places = index_map.apply([var.astype(INDEX) for var in variables])
    wanted = free_vars(places)
    chosen = [item for item in block.iter_vars if item.var in wanted]
    # The cache is filled in the order in which it lies, as far as its indices tell.
    chosen.sort(key=lambda item: wanted.index(item.var))
    used = [var for var in free_vars(indices) if var in variables]
    missing = [var.name for var in used if var not in wanted]
    if missing:
        refuse(
            primitive,
            f"{found.name!r} is indexed by other iteration variables than the map: "
            f"{', '.join(missing)}",
            block,
            "use every iteration variable of the access in the map",
        )
    if write and any(item.kind != "spatial" for item in chosen):
        refuse(
            primitive,
            "the map uses a reduction variable, along which the result is not finished",
            block,
            "use spatial iteration variables",
        )
    if any(as_int(item.dom.min) != 0 for item in chosen):
        refuse(primitive, "its domain does not start at 0", block, "before loop_partition")
    analyzer = analyzer_for(tree, tree.scope(block), inclusive=True)
    by_variable = {item.var: Var(item.var.name, INDEX) for item in chosen}
    narrowed = IndexMap(
        tuple(by_variable.values()),
        tuple(substitute(item, _widened(by_variable)) for item in places),
    )
    image = image_of(narrowed, [item.dom.extent for item in chosen], analyzer)
    if isinstance(image, str):
        refuse(
            primitive,
            f"the map is not known to be one to one: {image}",
            block,
            "use splits and fusions of iteration variables",
            f"the map: {index_map!r}",
        )
    cache = buffer(name, image.shape, found.dtype, scope=scope)
    loops = [Var(f"ax{n}", item.var.dtype) for n, item in enumerate(chosen)]
    fresh = {item.var: Var(f"v{n}", item.var.dtype) for n, item in enumerate(chosen)}
    for item in chosen:
        analyzer.bind(fresh[item.var], item.dom)
        analyzer.bind(item.var, item.dom)
    outside = tuple(substitute(index, fresh) for index in indices)
    inside = tuple(
        analyzer.simplify(item)
        for item in index_map.apply([fresh.get(var, var).astype(INDEX) for var in variables])
    )
    if write:
        body = BufferStore(found, BufferLoad(cache, inside), outside)
    else:
        body = BufferStore(cache, BufferLoad(found, outside), inside)
    iter_vars = tuple(IterVar(fresh[item.var], item.dom, "spatial") for item in chosen)
    copy = restated(Block(cache.name, iter_vars, (), (), body))
    realize = BlockRealize(tuple(loops), true(), copy)
    extents = [item.dom.extent for item in chosen]
    return _Staging(
        cache,
        tuple(analyzer.simplify(item) for item in places),
        nest(zip(loops, extents, strict=True), realize),
        copy,
    )


def _widened(variables: dict[Var, Var]) -> dict[Var, Expr]:
    return {
        old: new if old.dtype is INDEX else new.astype(old.dtype) for old, new in variables.items()
    }


def _stage(
    func: PrimFunc, tree: Tree, block: Block, found: Buffer, staging: _Staging, *, write: bool
) -> Edit:
    """The edit that lets `block` use the cache, with the copy beside its nest."""
    cache, places = staging.cache, staging.places

    def elsewhere(item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is found:
            return BufferLoad(cache, places)
        return item

    rewriter = _ToCache(elsewhere, found, cache, places)
    new = rewriter.visit(block)
    assert isinstance(new, Block)
    new = restated(new)
    forward = {**rewriter.forward, block: new}
    done = insert_copy(func, block, new, forward, staging.nest, cache, after=write)
    return Edit(done.func, done.forward, (staging.copy,))


class _ToCache(AccessRewriter):
    """Accesses of one buffer, all at one place, become accesses of another."""

    def __init__(
        self,
        function: object,
        old: Buffer,
        new: Buffer,
        places: tuple[Expr, ...],
    ) -> None:
        super().__init__(function, {old: new})  # pyright: ignore[reportArgumentType]
        self.old = old
        self.places = places

    def visit_store(self, stmt: BufferStore) -> Stmt:
        made = super().visit_store(stmt)
        assert isinstance(made, BufferStore)
        return replace(made, indices=self.places) if stmt.buffer is self.old else made


def _read(
    primitive: str, func: PrimFunc, block: Block, found: Buffer, index_map: IndexMap | None,
    name: str, scope: str,
) -> Edit:  # fmt: skip
    tree = Tree(func)
    indices = _only_place(primitive, block, found, "read")
    if uses(block, found)[1]:
        refuse(primitive, f"it also writes {found.name!r}", block, "stage what is only read")
    check_written_before(primitive, tree, block, found)
    _check_inside(primitive, tree, block, found, indices)
    chosen = index_map or _plain_map(block, indices)
    staging = _staged(primitive, tree, block, found, indices, chosen, name, scope, write=False)
    return _stage(func, tree, block, found, staging, write=False)


def _write(
    primitive: str, func: PrimFunc, block: Block, found: Buffer, index_map: IndexMap | None,
    name: str, scope: str,
) -> Edit:  # fmt: skip
    tree = Tree(func)
    if uses(block, found)[0]:
        refuse(
            primitive,
            f"it also reads {found.name!r}, so the cache would start without its contents",
            block,
            "stage before decompose_reduction",
        )
    indices = _only_place(primitive, block, found, "write")
    require_whole_domain(primitive, tree, block)
    check_used_alone(primitive, tree, block, found)
    chosen = index_map or _plain_map(block, indices)
    staging = _staged(primitive, tree, block, found, indices, chosen, name, scope, write=True)
    return _stage(func, tree, block, found, staging, write=True)


def _plain_map(block: Block, indices: Sequence[Expr]) -> IndexMap:
    """The iteration variables that the indices use, in the block's order."""
    used = free_vars(indices)
    inputs = tuple(Var(item.var.name, INDEX) for item in block.iter_vars)
    chosen = [new for new, item in zip(inputs, block.iter_vars, strict=True) if item.var in used]
    return IndexMap(inputs, tuple(chosen))


@dataclass(frozen=True)
class Reindex(Primitive):
    """Let a block touch a buffer through a copy indexed by its iteration variables alone.

    buffer: ("read", n), ("write", n) or a name; the block must touch it at one place. The copy
    has one dimension for each iteration variable that the indices use, in the block's order.

        for i, j, k in T.grid(n, m, 3):           for ax0, ax1 in T.grid(n, 3):
            with T.block("C"):                        A_reindex[ax0, ax1] = A[ax0 * 2 + ax1]
                vi, vj, vk = …               ->   …
                C[vi, vj] += A[vi * 2 + vk]               C[vi, vj] += A_reindex[vi, vk]

    Indices of the block are plain then, as tensor intrinsics need them. The result is the block
    that copies: before the nest for a read, after it for a write.
    """

    buffer: BufferName
    name: ClassVar[str] = "reindex"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found, side, _ = named_buffer(self.name, block, self.buffer)
        stage = _read if side == "read" else _write
        name = f"{found.name}_reindex"
        return stage(self.name, func, block, found, None, name, found.scope)


@dataclass(frozen=True)
class ReindexCacheRead(Primitive):
    """Like cache_read, with the cache at index_map(the block's iteration variables).

    With the block's (vi, vj, vk),

        C[vi, vj] += A[vi, vk] * B[vj, vk]

    reindex_cache_read(block, 1, "global", lambda i, j, k: (k, j // 8, j % 8)) ->

        for ax0, ax1 in T.grid(d, m):
            B_global[ax0, ax1 // 8, ax1 % 8] = B[ax1, ax0]
        …
        C[vi, vj] += A[vi, vk] * B_global[vk, vj // 8, vj % 8]

    The block must read the buffer at one place; the map uses all variables of that, perhaps
    others. Where sizes do not divide, the cache has room for more, which nobody touches. The
    copy's loops are in the order in which their variables appear in the map.
    """

    read_buffer_index: int
    storage_scope: str
    index_map: IndexMap
    name: ClassVar[str] = "reindex_cache_read"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found, _, _ = named_buffer(self.name, block, ("read", self.read_buffer_index))
        name = f"{found.name}_{self.storage_scope.replace('.', '_')}"
        return _read(self.name, func, block, found, self.index_map, name, self.storage_scope)


@dataclass(frozen=True)
class ReindexCacheWrite(Primitive):
    """Like cache_write, with the cache at index_map(the block's iteration variables).

        for i, j in T.grid(n, m):             for i, j in T.grid(n, m):
            C[i, j] = A[i, j] * 2        ->       C_local[j, i] = A[i, j] * 2
                                              for ax0, ax1 in T.grid(m, n):
                                                  C[ax1, ax0] = C_local[ax0, ax1]

    is reindex_cache_write(block, 0, "local", lambda i, j: (j, i)). The rules are those of
    reindex_cache_read; the map uses spatial variables only.
    """

    write_buffer_index: int
    storage_scope: str
    index_map: IndexMap
    name: ClassVar[str] = "reindex_cache_write"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found, _, _ = named_buffer(self.name, block, ("write", self.write_buffer_index))
        name = f"{found.name}_{self.storage_scope.replace('.', '_')}"
        return _write(self.name, func, block, found, self.index_map, name, self.storage_scope)
