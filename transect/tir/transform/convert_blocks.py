"""ConvertBlocksToOpaque: iteration variables of blocks become the expressions bound to them."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Call
from transect.ir.node import replace
from transect.ir.traverse import walk
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Block, BlockRealize, Stmt
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import Substitution, map_items, own_terms, walk_stmts
from transect.transform import Context


@dataclass(frozen=True)
class ConvertBlocksToOpaque(FunctionPass):
    """Substitute blocks' iteration variables.

    Requires blocks without init. Leaves blocks without iteration variables and without read and
    write regions, which later passes derive from the accesses; but a block that takes an address
    keeps its regions, as nothing else says what is done there.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with opaque blocks only."""
        return replace(func, body=_Convert().visit(func.body))


class _Convert(Substitution):
    def visit_block_realize(self, stmt: BlockRealize) -> Stmt:
        values = map_items(self.expr, stmt.iter_values)
        for item, value in zip(stmt.block.iter_vars, values, strict=True):
            self.define(item.var, value)
        block = self.visit(stmt.block)
        assert isinstance(block, Block)
        # The predicate is over the loops around the block, not over its variables.
        predicate = self.expr(stmt.predicate)
        return replace(stmt, iter_values=(), predicate=predicate, block=block)

    def visit_block(self, stmt: Block) -> Stmt:
        keep = _takes_address(stmt)
        return replace(
            stmt,
            iter_vars=(),
            reads=map_items(self.expr, stmt.reads) if keep else (),
            writes=map_items(self.expr, stmt.writes) if keep else (),
            alloc_buffers=map_items(self.bound_buffer, stmt.alloc_buffers),
            match_buffers=map_items(self.match_buffer, stmt.match_buffers),
            init=None if stmt.init is None else self.visit(stmt.init),
            body=self.visit(stmt.body),
            annotations=self.annotations(stmt.annotations),
        )


def _takes_address(block: Block) -> bool:
    """Whether an instruction in the block, which has none inside it, takes an address."""
    inside = list(walk_stmts(block.body))
    return not any(isinstance(item, Block) for item in inside) and any(
        isinstance(term, Call) and term.op is INTRINSICS["address_of"]
        for item in inside
        for term in walk(*own_terms(item))
    )
