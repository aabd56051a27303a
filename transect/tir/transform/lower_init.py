"""LowerInit: the `init` of reduction blocks becomes statements of its own."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.condition import conjuncts
from transect.ir.expr import Expr, as_int, equal, logical_and
from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    seq,
)
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, driving_vars, fresh_copy, walk_stmts, walk_terms
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
        inits: list[Stmt] = []
        for path, realize in _reduction_blocks(stmt):
            init = _hoisted(path, realize)
            if init is not None:
                inits.append(init)
                lowered = replace(realize, block=replace(realize.block, init=None))
                stmt = _loop(_Replace(realize, lowered).visit(stmt))
        update = super().visit_for(stmt)
        return seq(*inits, update) if inits else update

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


def _reduction_blocks(loop: For) -> list[tuple[list[For], BlockRealize]]:
    """The blocks with an init whose reduction `loop` is part of, and the loops down to each."""
    found: list[tuple[list[For], BlockRealize]] = []

    def look(stmt: Stmt, path: list[For], before: list[Stmt]) -> None:
        """`before`: the statements of the loops that an earlier init would pass."""
        if isinstance(stmt, For):
            look(stmt.body, [*path, stmt], before)
        elif isinstance(stmt, SeqStmt):
            for number, item in enumerate(stmt.stmts):
                look(item, path, [*before, *stmt.stmts[:number]])
        elif (
            isinstance(stmt, BlockRealize)
            and stmt.block.init is not None
            and loop.var in driving_vars(stmt, "reduce")
            and _may_pass(stmt.block, before)
        ):
            found.append((path, stmt))

    look(loop, [], [])
    return found


def _may_pass(block: Block, earlier: list[Stmt]) -> bool:
    """Whether the init of `block` may run before the statements `earlier`."""
    assert block.init is not None
    touched = {region.buffer.data for region in block.writes}
    touched |= {item.buffer.data for item in walk_terms(block.init) if isinstance(item, BufferLoad)}
    for stmt in earlier:
        for item in walk_stmts(stmt):
            if isinstance(item, Bind | Allocate | AllocateConst | DeclBuffer | Evaluate):
                return False
            if isinstance(item, BufferStore) and item.buffer.data in touched:
                return False
    return True


def _hoisted(path: list[For], realize: BlockRealize) -> Stmt | None:
    """The init in loops of its own, to run before the first loop of `path`; None if that cannot be.

    path: the loops from the outermost one of the reduction to the block.
    """
    block = realize.block
    pairs = list(zip(block.iter_vars, realize.iter_values, strict=True))
    if block.init is None or any(item.kind not in ("spatial", "reduce") for item, _ in pairs):
        return None
    spatial, reduction = (driving_vars(realize, kind) for kind in ("spatial", "reduce"))
    # A loop of one iteration that no variable follows runs the init once, too.
    follow = spatial | reduction
    own = {loop.var for loop in path if loop.var in follow or as_int(loop.extent) != 1}
    # A reduction loop further out would run the init again.
    if reduction - own or reduction & spatial or own - spatial - reduction:
        return None
    if any(loop.kind == "thread_binding" for loop in path):
        return None
    kept: list[Expr] = []
    for condition in conjuncts(realize.predicate):
        used = set(free_vars([condition]))
        if not used & reduction:
            kept.append(condition)
        elif used & (own - reduction):
            return None
    again = [loop for loop in path if loop.var not in reduction]
    if any(set(free_vars([loop.min, loop.extent])) & reduction for loop in again):
        return None
    axes = {item.var for item in block.iter_vars if item.kind == "reduce"}
    if set(free_vars(region for region in block.writes)) & axes:
        return None
    init_block = Block(
        f"{block.name}_init",
        tuple(item for item, _ in pairs if item.kind == "spatial"),
        (),
        block.writes,
        block.init,
        match_buffers=block.match_buffers,
        span=block.span,
    )
    values = tuple(value for item, value in pairs if item.kind == "spatial")
    init: Stmt = BlockRealize(values, logical_and(*kept), init_block, realize.span)
    for loop in reversed(again):
        init = replace(loop, body=init)
    return fresh_copy(init)


class _Replace(StmtRewriter):
    """Replaces one block."""

    def __init__(self, old: BlockRealize, new: BlockRealize) -> None:
        super().__init__()
        self.old = old
        self.new = new

    def visit(self, stmt: Stmt) -> Stmt:
        return self.new if stmt is self.old else super().visit(stmt)


def _loop(stmt: Stmt) -> For:
    assert isinstance(stmt, For)
    return stmt
