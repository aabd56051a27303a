"""What a loop of a reduction means when it has no iterations: the init of the block inside it.

Found on blocks; passes that lower blocks keep this meaning in their own way.
"""

from __future__ import annotations

from transect.ir.condition import conjuncts
from transect.ir.expr import EQ, Expr, Var, logical_and
from transect.ir.node import replace
from transect.ir.traverse import free_vars, substitute
from transect.tir.stmt import BlockRealize, For, SeqStmt, Stmt, seq
from transect.tir.visit import fresh_copy


def when_empty(loop: For) -> Stmt | None:
    """What runs in the place of `loop` where its extent is 0, None if nothing does: the inits of
    the blocks whose reduction it is part of, in the other loops around them."""
    found: list[Stmt] = []
    _look(loop, loop, [], found)
    return seq(*found) if found else None


def _look(loop: For, stmt: Stmt, path: list[For], found: list[Stmt]) -> None:
    if isinstance(stmt, For):
        _look(loop, stmt.body, [*path, stmt], found)
    elif isinstance(stmt, SeqStmt):
        for item in stmt.stmts:
            _look(loop, item, path, found)
    elif isinstance(stmt, BlockRealize) and stmt.block.init is not None:
        init = _init_alone(loop, path, stmt)
        if init is not None:
            found.append(init)


def _init_alone(loop: For, path: list[For], realize: BlockRealize) -> Stmt | None:
    block = realize.block
    reduced: set[Var] = set()
    spatial: set[Var] = set()
    for axis, value in zip(block.iter_vars, realize.iter_values, strict=True):
        (reduced if axis.kind == "reduce" else spatial).update(free_vars([value]))
    if loop.var not in reduced or reduced & spatial or block.init is None:
        return None
    start: dict[Var, Expr] = {item.var: item.min for item in path if item.var in reduced}
    values = tuple(substitute(value, start) for value in realize.iter_values)
    # Loops of the reduction further out are in their first iteration, or the init has run.
    conditions = [
        EQ(value, axis.dom.min)
        for axis, value in zip(block.iter_vars, values, strict=True)
        if axis.kind == "reduce"
    ]
    conditions += [
        condition
        for condition in conjuncts(realize.predicate)
        if not set(free_vars([condition])) & set(start)
    ]
    alone = replace(block, body=block.init, init=None, reads=())
    result: Stmt = BlockRealize(values, logical_and(*conditions), alone, realize.span)
    for item in reversed(path):
        if item.var not in start:
            low, extent = substitute(item.min, start), substitute(item.extent, start)
            result = replace(item, min=low, extent=extent, body=result)
    return fresh_copy(result)
