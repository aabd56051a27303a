"""A quick look at an edited function under TRANSECT_CHECK=1: faults that a primitive may leave.

The full rules of the level are the business of the verifier of `tir`.
"""

from __future__ import annotations

from collections.abc import Iterable

from transect.ir.expr import Var
from transect.ir.traverse import walk
from transect.support.errors import VerifyError
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.decisions import decision_vars
from transect.tir.function import PrimFunc, buffer_fields
from transect.tir.schedule.edit import Edit, snippet
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, Stmt
from transect.tir.visit import bound_buffers, bound_vars, child_stmts, own_terms, walk_stmts


def check_edit(primitive: str, before: PrimFunc, edit: Edit, options: Iterable[Var] = ()) -> None:
    """Raise VerifyError if the edit left a dangling handle, variable or buffer.

    options: the variables in the primitive's options, which may be new decisions.
    """
    old, new = set(walk_stmts(before.body)), set(walk_stmts(edit.func.body))
    for source, target in edit.forward.items():
        if source in old and target is not None and target not in new:
            _fault(primitive, "a handle is forwarded to what is not in the program", target)
    for result in edit.results:
        if result not in new:
            _fault(primitive, "a result is not in the program", result)
    for source in old:
        if isinstance(source, For | Block) and source not in new and source not in edit.forward:
            _fault(primitive, "a loop or block vanished without a word", source)
    _check_scopes(primitive, edit.func, {*decision_vars(before), *options})


def _check_scopes(primitive: str, func: PrimFunc, decisions: set[Var]) -> None:
    known: set[Var | Buffer] = {*func.params, *func.buffers, *decisions}
    for value in func.buffers:
        known |= {v for v in walk(value.data, *buffer_fields(value)) if isinstance(v, Var)}
    seen: set[Stmt] = set()
    # A flat statement list shares one set, as what it binds is visible in all that follows.
    stack: list[tuple[Stmt, set[Var | Buffer]]] = [(func.body, known)]
    bound: set[Var] = set()
    while stack:
        stmt, scope = stack.pop()
        if stmt in seen:
            _fault(primitive, "one statement stands in two places", stmt)
        seen.add(stmt)
        for var in bound_vars(stmt):
            if var in bound:
                _fault(primitive, f"variable {var.name!r} is bound twice", stmt)
            bound.add(var)
        inner = {*scope, *bound_vars(stmt), *bound_buffers(stmt)}
        for buffer in bound_buffers(stmt):
            inner.add(buffer.data)
            inner |= {v for v in walk(*buffer_fields(buffer)) if isinstance(v, Var)}
        if not isinstance(stmt, For | Block | BlockRealize):
            scope |= inner
        visible = inner if isinstance(stmt, Block) else scope
        for term in walk(*own_terms(stmt)):
            if isinstance(term, Var) and term not in visible:
                _fault(primitive, f"variable {term.name!r} is not bound here", stmt)
            if isinstance(term, BufferLoad | BufferRegion) and term.buffer not in visible:
                _fault(primitive, f"buffer {term.buffer.name!r} is not defined here", stmt)
        if isinstance(stmt, BufferStore) and stmt.buffer not in visible:
            _fault(primitive, f"buffer {stmt.buffer.name!r} is not defined here", stmt)
        nested = inner if isinstance(stmt, For | Block) else scope
        stack.extend((child, nested) for child in reversed(child_stmts(stmt)))


def _fault(primitive: str, what: str, stmt: Stmt) -> None:
    raise VerifyError(f"after {primitive}: {what}", span=stmt.span, notes=[snippet(stmt)])
