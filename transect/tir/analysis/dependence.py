"""Which blocks depend on which, and what a block may be scheduled as.

Complete and reduction blocks are those of TensorIR (Feng et al., ASPLOS 2023): the ones whose
instances may be reordered freely, or up to the order of accumulation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from transect.ir.expr import Var
from transect.ir.traverse import walk
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block

DependenceKind = Literal["flow", "anti", "output"]
"""flow: reads what was written; anti: overwrites what was read; output: overwrites."""


@dataclass(frozen=True)
class Dependence:
    """`target` must stay after `source`, because of `buffer`."""

    source: BlockSite
    target: BlockSite
    buffer: Buffer
    kind: DependenceKind


@dataclass(frozen=True)
class BlockGraph:
    """The innermost blocks of a function in program order, and the dependences between them."""

    sites: tuple[BlockSite, ...]
    dependences: tuple[Dependence, ...]

    def producers(self, site: BlockSite) -> tuple[BlockSite, ...]:
        """The blocks that write what `site` reads."""
        return _distinct(
            d.source for d in self.dependences if d.target is site and d.kind == "flow"
        )

    def consumers(self, site: BlockSite) -> tuple[BlockSite, ...]:
        """The blocks that read what `site` writes."""
        return _distinct(
            d.target for d in self.dependences if d.source is site and d.kind == "flow"
        )

    def writers(self, buffer: Buffer) -> tuple[BlockSite, ...]:
        """The blocks that write `buffer`."""
        return tuple(site for site in self.sites if buffer in written(site.block))

    def is_dominant(self, site: BlockSite) -> bool:
        """Whether `site` is the only block that writes each of its outputs."""
        return all(
            all(writer is site for writer in self.writers(buffer)) for buffer in written(site.block)
        )

    def is_complete(self, site: BlockSite) -> bool:
        """All spatial, the only writer of its outputs, none of which it reads."""
        block = site.block
        return (
            all(item.kind == "spatial" for item in block.iter_vars)
            and not written(block) & read(block)
            and bool(written(block))
            and self.is_dominant(site)
        )

    def is_reduction(self, site: BlockSite) -> bool:
        """Spatial and reduce only, with an init, the only writer of outputs whose place does not
        depend on what is reduced."""
        block = site.block
        reduced = {item.var for item in block.iter_vars if item.kind == "reduce"}
        places = [item for region in block.writes for item in region.ranges]
        return (
            all(item.kind in ("spatial", "reduce") for item in block.iter_vars)
            and block.init is not None
            and bool(reduced)
            and not any(isinstance(item, Var) and item in reduced for item in walk(*places))
            and self.is_dominant(site)
        )


def block_graph(func: PrimFunc) -> BlockGraph:
    """The dependences between the innermost blocks of `func`, by their declared regions; buffers
    over the same memory count as one."""
    sites = block_sites(func)
    found: list[Dependence] = []
    for number, source in enumerate(sites):
        reads, writes = _memory(read(source.block)), _memory(written(source.block))
        for target in sites[number + 1 :]:
            later = _ordered(target.block)
            pairs: tuple[tuple[DependenceKind, frozenset[Var], frozenset[Buffer]], ...] = (
                ("flow", writes, read(target.block)),
                ("anti", reads, written(target.block)),
                ("output", writes, written(target.block)),
            )
            for kind, first, second in pairs:
                found += [
                    Dependence(source, target, buffer, kind)
                    for buffer in later
                    if buffer in second and buffer.data in first
                ]
    return BlockGraph(sites, tuple(found))


def read(block: Block) -> frozenset[Buffer]:
    """The buffers that a block declares to read."""
    return frozenset(region.buffer for region in block.reads)


def written(block: Block) -> frozenset[Buffer]:
    """The buffers that a block declares to write."""
    return frozenset(region.buffer for region in block.writes)


def _memory(buffers: frozenset[Buffer]) -> frozenset[Var]:
    return frozenset(buffer.data for buffer in buffers)


def _ordered(block: Block) -> tuple[Buffer, ...]:
    """The buffers that a block declares, in order."""
    return tuple(dict.fromkeys(region.buffer for region in (*block.reads, *block.writes)))


def _distinct(sites: Iterable[BlockSite]) -> tuple[BlockSite, ...]:
    found: list[BlockSite] = []
    for site in sites:
        if not any(site is known for known in found):
            found.append(site)
    return tuple(found)
