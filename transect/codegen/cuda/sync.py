"""Barriers between the threads of a block, where one statement needs what another has written."""

from __future__ import annotations

from transect.ir.expr import Call, Intrinsic, StringImm, Var
from transect.ir.node import replace
from transect.ir.traverse import walk
from transect.support.errors import UnsupportedError
from transect.tir.buffer import BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import BufferStore, Evaluate, For, SeqStmt, Stmt, seq
from transect.tir.visit import StmtRewriter, own_terms, walk_stmts

_SYNC = INTRINSICS["tvm_storage_sync"]


def barrier() -> Stmt:
    """All threads of the block wait for each other; what they wrote is visible to all."""
    return Evaluate(_SYNC("shared"))


def insert_barriers(stmt: Stmt) -> Stmt:
    """The kernel's statement with barriers between thread loops that share memory.

    Requires the loops over threads around each statement that they run (`split_host_device` makes
    one of them later). Raises UnsupportedError where threads share memory inside one such loop and
    the program has no barrier of its own there.
    """
    return _Barriers().visit(stmt)


def is_thread_loop(stmt: Stmt) -> bool:
    """Whether `stmt` is a loop over the threads of a block."""
    return (
        isinstance(stmt, For)
        and stmt.kind == "thread_binding"
        and (stmt.thread or "").startswith("threadIdx")
    )


def _shared_accesses(stmt: Stmt) -> tuple[set[Var], set[Var]]:
    """The pointers of memory that other threads see, read and written inside `stmt`."""
    reads: set[Var] = set()
    writes: set[Var] = set()
    for item in walk_stmts(stmt):
        if isinstance(item, BufferStore) and item.buffer.scope != "local":
            writes.add(item.buffer.data)
        for term in walk(*own_terms(item)):
            if isinstance(term, BufferLoad) and term.buffer.scope != "local":
                reads.add(term.buffer.data)
    return reads, writes


def _is_barrier(stmt: Stmt) -> bool:
    return (
        isinstance(stmt, Evaluate)
        and isinstance(stmt.value, Call)
        and isinstance(stmt.value.op, Intrinsic)
        and stmt.value.op is _SYNC
        and stmt.value.args[0] is not StringImm("warp")
    )


class _Barriers(StmtRewriter):
    def visit_for(self, stmt: For) -> Stmt:
        if is_thread_loop(stmt):
            self._check_inside(stmt)
            return stmt
        new = super().visit_for(stmt)
        if stmt.kind == "thread_binding" or not isinstance(new, For):
            return new
        reads, writes = _shared_accesses(stmt.body)
        if reads & writes and _has_thread_loops(stmt.body):
            # The next iteration may overwrite what slower threads still read.
            return replace(new, body=seq(new.body, barrier()))
        return new

    def visit_seq(self, stmt: SeqStmt) -> Stmt:
        items: list[Stmt] = []
        read: set[Var] = set()
        written: set[Var] = set()
        for old in stmt.stmts:
            item = self.visit(old)
            if _is_barrier(item):
                read, written = set(), set()
            reads, writes = _shared_accesses(item)
            if written & (reads | writes) or read & writes:
                items.append(barrier())
                read, written = set(), set()
            read |= reads
            written |= writes
            items.append(item)
        same = len(items) == len(stmt.stmts) and all(
            a is b for a, b in zip(items, stmt.stmts, strict=True)
        )
        return stmt if same else replace(stmt, stmts=tuple(items))

    def _check_inside(self, stmt: For) -> None:
        reads, writes = _shared_accesses(stmt)
        both = [var for var in reads & writes if var.pointer and var.pointer.scope != "global"]
        if both and not any(_is_barrier(item) for item in walk_stmts(stmt)):
            raise UnsupportedError(
                f"threads share {both[0].name!r} inside one loop over {stmt.thread}",
                span=stmt.span,
                remedy="give the part that writes and the part that reads thread loops of their "
                "own, or place T.tvm_storage_sync between them",
            )


def _has_thread_loops(stmt: Stmt) -> bool:
    return any(is_thread_loop(item) for item in walk_stmts(stmt))
