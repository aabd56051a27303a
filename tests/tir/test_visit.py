"""Walking, rewriting and copying statements."""

from transect.ir.expr import IntImm, Range, Var, true
from transect.ir.structural import structural_equal
from transect.support.span import Span
from transect.tir.buffer import Buffer, buffer
from transect.tir.stmt import (
    Allocate,
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    For,
    IterVar,
    SeqStmt,
    Stmt,
)
from transect.tir.visit import (
    fresh_copy,
    map_stmt,
    map_terms,
    substitute_stmt,
    used_buffers,
    walk_stmts,
    with_span,
)

SPAN = Span("model.py", 3, 0, 3, 5)


def _nest(source: Buffer, target: Buffer) -> For:
    i, vi = Var("i"), Var("vi")
    store = BufferStore(target, source[vi] + 1.0, (vi,), span=(SPAN,))
    block = Block(
        "b", (IterVar(vi, Range.of(8), "spatial"),), (source.region,), (target.region,), store
    )
    return For(i, IntImm(0), IntImm(8), "serial", BlockRealize((i,), true(), block))


def test_walk_visits_parents_first() -> None:
    a, b = buffer("a", (8,)), buffer("b", (8,))
    kinds = [type(stmt).__name__ for stmt in walk_stmts(_nest(a, b))]
    assert kinds == ["For", "BlockRealize", "Block", "BufferStore"]


def test_used_buffers_in_order() -> None:
    a, b = buffer("a", (8,)), buffer("b", (8,))
    assert used_buffers(_nest(a, b)) == [a, b]


def test_unchanged_statement_is_the_same_object() -> None:
    nest = _nest(buffer("a", (8,)), buffer("b", (8,)))
    assert map_stmt(nest, lambda stmt: stmt) is nest
    assert map_terms(nest, lambda term: term) is nest
    assert substitute_stmt(nest, {Var("unused"): IntImm(1)}) is nest


def test_replacement_inherits_the_span() -> None:
    a, b = buffer("a", (8,)), buffer("b", (8,))

    def rewrite(stmt: Stmt) -> Stmt:
        if isinstance(stmt, BufferStore):
            return BufferStore(stmt.buffer, stmt.value * 2.0, stmt.indices)
        return stmt

    stores = [s for s in walk_stmts(map_stmt(_nest(a, b), rewrite)) if isinstance(s, BufferStore)]
    assert stores[0].span == (SPAN,)


def test_substitute_replaces_buffers_in_loads_stores_and_regions() -> None:
    a, b, c, d = (buffer(name, (8,)) for name in "abcd")
    assert structural_equal(substitute_stmt(_nest(a, b), {}, {a: c, b: d}), _nest(c, d))


def test_substitute_rebuilds_a_buffer_whose_shape_changes_once() -> None:
    n = Var("n")
    a, b = buffer("a", (n,)), buffer("b", (n,))
    new = substitute_stmt(_nest(a, b), {n: IntImm(8)})
    used = used_buffers(new)
    assert [item.shape for item in used] == [(IntImm(8),), (IntImm(8),)]
    assert len(used) == 2


def test_fresh_copy_renames_every_binder() -> None:
    a, b = buffer("a", (8,)), buffer("b", (8,))
    nest = _nest(a, b)
    copy = fresh_copy(nest)
    assert structural_equal(nest, copy)
    old = {stmt.var for stmt in walk_stmts(nest) if isinstance(stmt, For)}
    new = {stmt.var for stmt in walk_stmts(copy) if isinstance(stmt, For)}
    assert not old & new


def test_fresh_copy_follows_bindings_and_allocations() -> None:
    pointer = buffer("t", (4,)).data
    scratch = buffer("t", (4,), data=pointer)
    x = Var("x")
    body = SeqStmt(
        (
            Bind(x, IntImm(2)),
            Allocate(pointer, scratch.dtype, (IntImm(4),), {}),
            DeclBuffer(scratch),
            BufferStore(scratch, scratch[x], (x,)),
        )
    )
    copy = fresh_copy(body)
    assert structural_equal(body, copy)
    (store,) = (stmt for stmt in walk_stmts(copy) if isinstance(stmt, BufferStore))
    assert store.buffer is not scratch
    assert store.indices[0] is not x


def test_with_span_joins_without_repeating() -> None:
    nest = _nest(buffer("a", (8,)), buffer("b", (8,)))
    other = Span("model.py", 9, 0, 9, 1)
    assert with_span(nest, (SPAN, other), (SPAN,)).span == (SPAN, other)
