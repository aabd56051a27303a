"""LowerInit: the `init` of reduction blocks becomes statements of its own."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import And, Expr, Var, as_int, equal, logical_and
from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize, For, IfThenElse, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, fresh_copy
from transect.transform import Context


@dataclass(frozen=True)
class LowerInit(FunctionPass):
    """Lower `init` of blocks.

    Requires blocks. Leaves no block with an init: where the loops around a block are either of
    its spatial or of its reduction variables, the init runs in loops of its own before the
    outermost reduction loop, so also when that loop is empty; elsewhere it runs inside the block if
    every reduction variable is at its start.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function without inits."""
        return replace(func, body=_LowerInit().visit(func.body))


class _LowerInit(StmtRewriter):
    def visit_for(self, stmt: For) -> Stmt:
        loops: list[For] = [stmt]
        while isinstance(loops[-1].body, For):
            loops.append(loops[-1].body)
        inner = loops[-1].body
        if isinstance(inner, BlockRealize) and inner.block.init is not None:
            hoisted = _hoist(loops, inner)
            if hoisted is not None:
                return self.visit(hoisted)
        return super().visit_for(stmt)

    def visit_block(self, stmt: Block) -> Stmt:
        stmt = _with_body(super().visit_block(stmt))
        if stmt.init is None:
            return stmt
        at_start = [
            equal(item.var, item.dom.min)
            for item in stmt.iter_vars
            if item.kind == "reduce" and as_int(item.dom.extent) != 1
        ]
        init = IfThenElse(logical_and(*at_start), stmt.init) if at_start else stmt.init
        return replace(stmt, init=None, body=seq(init, stmt.body))


def _with_body(stmt: Stmt) -> Block:
    assert isinstance(stmt, Block)
    return stmt


def conjuncts(condition: Expr) -> list[Expr]:
    """The conditions that a conjunction joins."""
    if isinstance(condition, And):
        return [*conjuncts(condition.a), *conjuncts(condition.b)]
    return [] if as_int(condition) == 1 else [condition]


def _hoist(loops: list[For], realize: BlockRealize) -> Stmt | None:
    """The nest with the init before its outermost reduction loop, or None if that cannot be."""
    block = realize.block
    spatial: set[Var] = set()
    reduction: set[Var] = set()
    for item, value in zip(block.iter_vars, realize.iter_values, strict=True):
        if item.kind not in ("spatial", "reduce"):
            return None
        (spatial if item.kind == "spatial" else reduction).update(free_vars([value]))
    places = [number for number, loop in enumerate(loops) if loop.var in reduction]
    if not places or block.init is None:
        return None
    first = places[0]
    inside = loops[first:]
    own = {loop.var for loop in inside}
    reduced = own & reduction
    if reduced & spatial or own - spatial - reduction:
        return None
    if any(loop.kind == "thread_binding" for loop in inside):
        return None
    kept: list[Expr] = []
    for condition in conjuncts(realize.predicate):
        used = set(free_vars([condition]))
        if not used & reduced:
            kept.append(condition)
        elif used & (own - reduced):
            return None
    again = [loop for loop in inside if loop.var not in reduced]
    if any(set(free_vars([loop.min, loop.extent])) & reduced for loop in again):
        return None
    pairs = [
        (item, value)
        for item, value in zip(block.iter_vars, realize.iter_values, strict=True)
        if item.kind == "spatial"
    ]
    init_block = Block(
        f"{block.name}_init",
        tuple(item for item, _ in pairs),
        (),
        block.writes,
        block.init,
        match_buffers=block.match_buffers,
        span=block.span,
    )
    init: Stmt = BlockRealize(
        tuple(value for _, value in pairs), logical_and(*kept), init_block, realize.span
    )
    if set(free_vars(region for region in block.writes)) & {
        item.var for item in block.iter_vars if item.kind == "reduce"
    }:
        return None
    for loop in reversed(again):
        init = replace(loop, body=init)
    update: Stmt = replace(realize, block=replace(block, init=None))
    for loop in reversed(inside):
        update = replace(loop, body=update)
    result = seq(fresh_copy(init), update)
    for loop in reversed(loops[:first]):
        result = replace(loop, body=result)
    return result
