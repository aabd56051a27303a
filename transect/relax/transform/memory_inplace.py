"""Whether a tensor program may be given one piece of memory as an input and its output."""

from __future__ import annotations

from transect.arith import Analyzer
from transect.ir.expr import EQ
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BufferStore
from transect.tir.visit import walk_stmts, walk_terms


def may_write_over(func: PrimFunc, index: int, inputs: int) -> bool:
    """Whether `func` computes the same when its first output lies over its input `index`.

    True only for a program that touches both in one block without reduction, reading the input
    where, and only where, it writes the output. inputs: the number of inputs.
    """
    buffers = func.buffers
    source, target = buffers[index], buffers[inputs]
    if func.attrs.get("tir.noalias") or source.dtype.bytes != target.dtype.bytes:
        return False
    if len(source.shape) != len(target.shape) or source.strides or target.strides:
        return False
    analyzer = Analyzer()
    equal = all(
        a is b or (a.dtype is b.dtype and analyzer.can_prove(EQ(a, b)))
        for a, b in zip(source.shape, target.shape, strict=True)
    )
    if not equal or _shares_data(func, source, target):
        return False
    users = [block for block in _leaf_blocks(func) if _touches(block, source, target)]
    if len(users) != 1:
        return False
    return _is_pointwise(users[0], source, target)


def _leaf_blocks(func: PrimFunc) -> list[Block]:
    """The blocks that hold no other; none are left out unless the program is not in blocks."""
    blocks = [stmt for stmt in walk_stmts(func.body) if isinstance(stmt, Block)]
    return [b for b in blocks if not any(isinstance(s, Block) for s in walk_stmts(b.body))]


def _shares_data(func: PrimFunc, source: Buffer, target: Buffer) -> bool:
    """Whether another buffer names the same memory, or the addresses are used in another way."""
    for term in walk_terms(func.body):
        if term is source.data or term is target.data:
            return True
    for stmt in walk_stmts(func.body):
        if isinstance(stmt, Block):
            for match in stmt.match_buffers:
                if match.source.buffer in (source, target):
                    return True
    return False


def _touches(block: Block, source: Buffer, target: Buffer) -> bool:
    regions = (*block.reads, *block.writes)
    return any(region.buffer in (source, target) for region in regions)


def _is_pointwise(block: Block, source: Buffer, target: Buffer) -> bool:
    if block.init is not None or any(var.kind != "spatial" for var in block.iter_vars):
        return False
    stores = [s for s in walk_stmts(block.body) if isinstance(s, BufferStore)]
    writes = [store for store in stores if store.buffer is target]
    if len(writes) != 1 or len(stores) != 1:
        return False
    where = writes[0].indices
    loads = [
        term
        for term in walk_terms(block.body)
        if isinstance(term, BufferLoad) and term.buffer in (source, target)
    ]
    return all(load.buffer is source and load.indices == where for load in loads)
