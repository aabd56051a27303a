"""KernelInfo: what a schedule rule sees of a tensor program before it decides."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Call
from transect.ir.traverse import walk
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction
from transect.tir.analysis.pattern import PatternKind, block_kind
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize, For, SeqStmt
from transect.tir.visit import child_stmts, own_terms, walk_stmts


@dataclass(frozen=True)
class KernelInfo:
    """A PrimFunc of plain loop nests with one block each, and the blocks not scheduled yet.

    func: the program as it is now. sites: its blocks in program order. pending: the names of
    those that no rule has scheduled.
    """

    func: PrimFunc
    sites: tuple[BlockSite, ...]
    pending: tuple[str, ...]

    @staticmethod
    def of(func: PrimFunc) -> KernelInfo | None:
        """What is known of `func`, or None if rules must leave it alone: it is not at the block
        level, its blocks nest or repeat names, or something else happens in it."""
        if not isinstance(func.body, BlockRealize):
            return None
        root = func.body.block
        sites = block_sites(func)
        names = [site.block.name for site in sites]
        if len(set(names)) < len(names) or not names:
            return None
        own = {site.realize for site in sites}
        stack = list(child_stmts(root))
        while stack:
            item = stack.pop()
            if item in own:
                continue
            if not isinstance(item, For | SeqStmt) or (
                isinstance(item, For) and (item.kind != "serial" or item.annotations)
            ):
                return None
            stack.extend(child_stmts(item))
        for stmt in walk_stmts(func.body):
            if any(isinstance(t, Call) and t.effect == "write" for t in walk(*own_terms(stmt))):
                return None
        return KernelInfo(func, sites, tuple(names))

    def site(self, name: str) -> BlockSite:
        """The block of a name."""
        return next(site for site in self.sites if site.block.name == name)

    def blocks(self) -> tuple[Block, ...]:
        """The blocks not scheduled yet, in program order."""
        return tuple(site.block for site in self.sites if site.block.name in self.pending)

    def kind(self, name: str) -> PatternKind:
        """The pattern kind of one block."""
        return block_kind(self.site(name))

    def contractions(self) -> tuple[Contraction, ...]:
        """The contractions among the blocks not scheduled yet."""
        found = (find_contraction(s) for s in self.sites if s.block.name in self.pending)
        return tuple(item for item in found if item is not None)

    def producer(self, buffer: Buffer) -> Block | None:
        """The only block that writes a buffer of the function's own, or None."""
        if buffer in self.func.buffers:
            return None
        made = [s.block for s in self.sites if any(r.buffer is buffer for r in s.block.writes)]
        return made[0] if len(made) == 1 else None

    def consumers(self, buffer: Buffer) -> tuple[Block, ...]:
        """The blocks that read a buffer."""
        return tuple(s.block for s in self.sites if any(r.buffer is buffer for r in s.block.reads))
