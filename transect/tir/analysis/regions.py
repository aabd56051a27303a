"""What a statement reads and writes while the loops around it run: regions and their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transect.ir.expr import Expr
from transect.ir.sizes import product
from transect.tir.access import Access, accesses, to_regions
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.stmt import For, Stmt


@dataclass(frozen=True)
class Regions:
    """The boxes that are read and written, one per buffer, in order of first access."""

    reads: tuple[BufferRegion, ...]
    writes: tuple[BufferRegion, ...]


def touched_regions(stmt: Stmt, loops: Sequence[For] = ()) -> Regions:
    """The regions of `stmt` while `loops`, from the outermost, run through all their iterations.

    Boxes: an index that cannot be bounded makes its axis whole. Buffers that `stmt` defines are
    left out. A block counts by the regions it declares.
    """
    for loop in reversed(loops):
        stmt = For(loop.var, loop.min, loop.extent, "serial", stmt)
    found = accesses(stmt)
    return Regions(_boxes(found, write=False), _boxes(found, write=True))


def _boxes(found: Iterable[Access], *, write: bool) -> tuple[BufferRegion, ...]:
    return to_regions(item for item in found if item.write is write)


def buffer_bytes(buffer: Buffer) -> Expr:
    """The bytes of storage of a buffer's elements."""
    return product(buffer.shape) * buffer.dtype.bytes


def region_elements(region: BufferRegion) -> Expr:
    """How many elements a region has: the product of its extents."""
    return product(item.extent for item in region.ranges)


def region_bytes(region: BufferRegion) -> Expr:
    """The bytes of storage of a region's elements."""
    return region_elements(region) * region.buffer.dtype.bytes
