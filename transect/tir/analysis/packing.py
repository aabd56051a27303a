"""Packing: copies of parameters at the start of a program that depend on nothing else.

A schedule rule annotates their blocks; where the parameter is a constant, the copy is one too.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Var
from transect.ir.node import replace
from transect.tir.buffer import Buffer
from transect.tir.function import SCHEDULED, PrimFunc
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, SeqStmt, Stmt, seq
from transect.tir.visit import StmtRewriter, fresh_copy, walk_stmts

PACKING = "packs_operand"
"""The annotation of a block that rearranges a parameter, and does nothing else."""


@dataclass(frozen=True)
class SplitPacking:
    """A program in two: what packs one of its parameters, and the rest.

    source: the parameter. packing: a program of two parameters, the source and the packed buffer.
    rest: the program with the packed buffer in the place of the source.
    """

    source: Buffer
    packing: PrimFunc
    rest: PrimFunc


def split_packing(func: PrimFunc, source: Buffer) -> SplitPacking | None:
    """`func` without the packing of its parameter `source`; None if it does not pack it, or also
    uses it in another way."""
    root = func.body.block if isinstance(func.body, BlockRealize) else None
    if root is None or not isinstance(root.body, SeqStmt) or source not in func.buffers:
        return None
    for item in root.body.stmts:
        block = _only_block(item)
        if block is None or PACKING not in block.annotations:
            continue
        reads, writes = block.reads, block.writes
        if len(reads) != 1 or len(writes) != 1 or reads[0].buffer is not source:
            continue
        others = [stmt for stmt in root.body.stmts if stmt is not item]
        packed = writes[0].buffer
        if packed not in root.alloc_buffers or _uses(others, source):
            continue
        kept = tuple(buffer for buffer in root.alloc_buffers if buffer is not packed)
        body = replace(root, body=seq(*others), alloc_buffers=kept)
        handle = next(var for var, buffer in func.buffer_map.items() if buffer is source)
        params = {v: packed if b is source else b for v, b in func.buffer_map.items()}
        assert isinstance(func.body, BlockRealize)
        rest = replace(func, buffer_map=params, body=replace(func.body, block=body))
        return SplitPacking(source, _alone(func, root, handle, source, packed, item), rest)
    return None


def _only_block(stmt: Stmt) -> Block | None:
    while isinstance(stmt, For):
        stmt = stmt.body
    return stmt.block if isinstance(stmt, BlockRealize) else None


def _uses(stmts: list[Stmt], buffer: Buffer) -> bool:
    for stmt in stmts:
        for item in walk_stmts(stmt):
            if isinstance(item, Block):
                touched = (*item.reads, *item.writes)
                if any(region.buffer is buffer for region in touched):
                    return True
            if isinstance(item, BufferStore) and item.buffer is buffer:
                return True
    return False


class _Serial(StmtRewriter):
    """Every loop in order: what packs once need not be fast, and any evaluator runs it."""

    def visit_for(self, stmt: For) -> Stmt:
        new = super().visit_for(stmt)
        assert isinstance(new, For)
        return replace(new, kind="serial", annotations={})


def _alone(
    func: PrimFunc, root: Block, handle: Var, source: Buffer, packed: Buffer, nest: Stmt
) -> PrimFunc:
    target = Var(packed.name, handle.dtype)
    block = replace(root, body=_Serial().visit(nest), alloc_buffers=(), reads=(), writes=())
    assert isinstance(func.body, BlockRealize)
    made = replace(
        func,
        params=(handle, target),
        buffer_map={handle: source, target: packed},
        body=replace(func.body, block=block),
        attrs={SCHEDULED: True},
    )
    return replace(made, body=fresh_copy(made.body, {}))
