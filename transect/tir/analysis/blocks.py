"""The blocks of a tensor program with the loops around them."""

from __future__ import annotations

from dataclasses import dataclass

from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, IterVar, SeqStmt, Stmt
from transect.tir.visit import child_stmts


@dataclass(frozen=True)
class BlockSite:
    """A block where it stands: its realization, and the loops around it from the outermost."""

    realize: BlockRealize
    loops: tuple[For, ...]

    @property
    def block(self) -> Block:
        return self.realize.block

    def iter_vars(self, kind: str) -> tuple[IterVar, ...]:
        """The iteration variables of one kind, in order."""
        return tuple(item for item in self.block.iter_vars if item.kind == kind)

    @property
    def is_reduction(self) -> bool:
        """Whether any iteration variable accumulates."""
        return any(item.kind == "reduce" for item in self.block.iter_vars)

    def only_store(self) -> BufferStore | None:
        """The store that is all of the block's body, else None."""
        body = self.block.body
        if isinstance(body, SeqStmt) and len(body.stmts) == 1:
            body = body.stmts[0]
        return body if isinstance(body, BufferStore) and body.predicate is None else None


def block_sites(func: PrimFunc) -> tuple[BlockSite, ...]:
    """The innermost blocks of `func` in program order: those that hold no other block."""
    found: list[BlockSite] = []

    def visit(stmt: Stmt, loops: tuple[For, ...]) -> bool:
        """Whether `stmt` holds a block."""
        if isinstance(stmt, For):
            loops = (*loops, stmt)
        children = stmt.block if isinstance(stmt, BlockRealize) else stmt
        inner = [visit(child, loops) for child in child_stmts(children)]
        if isinstance(stmt, BlockRealize):
            if not any(inner):
                found.append(BlockSite(stmt, loops))
            return True
        return any(inner)

    visit(func.body, ())
    return tuple(found)
