"""Cost features of a tensor program as terms over its sizes: operations, bytes, loop extents.

Numbers for a machine come from evaluating them; weighing them is the business of a cost model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transect.ir.expr import Binary, Call, Comparison, Expr, IntImm, Intrinsic
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.operations import OPERATION_NAMES
from transect.tir.analysis.regions import region_bytes, touched_regions
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore, For, Stmt
from transect.tir.visit import child_stmts, own_terms


@dataclass(frozen=True)
class Features:
    """What one block costs, over all its instances.

    operations: by kind ("add", "mul", "div", "compare", "select", "cast", or the name of an
    intrinsic) and dtype, how many; index arithmetic is left out. bytes_read, bytes_written: the
    size of the region of each buffer that is touched at all; accessed: bytes of all single loads
    and stores. extents: of the loops around the block, from the outermost.
    """

    site: BlockSite
    operations: Mapping[tuple[str, str], Expr]
    bytes_read: Mapping[Buffer, Expr]
    bytes_written: Mapping[Buffer, Expr]
    accessed: Expr
    extents: tuple[Expr, ...]

    def total(self, *kinds: str) -> Expr:
        """All operations of these kinds (of every kind if none is named)."""
        total: Expr = IntImm(0)
        for (kind, _), count in self.operations.items():
            if not kinds or kind in kinds:
                total = total + count
        return total


def function_features(func: PrimFunc) -> tuple[Features, ...]:
    """The features of the innermost blocks of `func`, in program order."""
    return tuple(block_features(site) for site in block_sites(func))


def block_features(site: BlockSite) -> Features:
    """The features of one block, where it stands.

    An init counts once per spatial instance. Loops inside count with their extents; of a branch
    both sides count.
    """
    counter = _Counter()
    runs: Expr = IntImm(1)
    starts: Expr = IntImm(1)
    for item in site.block.iter_vars:
        runs = runs * item.dom.extent
        if item.kind != "reduce":
            starts = starts * item.dom.extent
    counter.visit(site.block.body, runs)
    if site.block.init is not None:
        counter.visit(site.block.init, starts)
    regions = touched_regions(site.realize, site.loops)
    return Features(
        site,
        counter.operations,
        {region.buffer: region_bytes(region) for region in regions.reads},
        {region.buffer: region_bytes(region) for region in regions.writes},
        counter.accessed,
        tuple(loop.extent for loop in site.loops),
    )


class _Counter:
    def __init__(self) -> None:
        self.operations: dict[tuple[str, str], Expr] = {}
        self.accessed: Expr = IntImm(0)

    def visit(self, stmt: Stmt, runs: Expr) -> None:
        indices: set[Term] = set()
        terms = own_terms(stmt)
        if isinstance(stmt, BufferStore):
            indices.update(walk(*stmt.indices))
            self.accessed = self.accessed + runs * stmt.buffer.dtype.bytes
        if isinstance(stmt, For):
            runs = runs * stmt.extent
            terms = ()
        for item in walk(*terms):
            if isinstance(item, BufferLoad):
                indices.update(walk(*item.indices))
        for item in walk(*terms):
            if isinstance(item, BufferLoad):
                self.accessed = self.accessed + runs * item.buffer.dtype.bytes
            elif item not in indices:
                self.count(item, runs)
        for child in child_stmts(stmt):
            self.visit(child, runs)

    def count(self, item: Term, runs: Expr) -> None:
        name = _operation(item)
        if name is None or not isinstance(item, Expr):
            return
        dtype = item.a.dtype if isinstance(item, Binary) else item.dtype
        key = (name, str(dtype.element))
        lanes = runs * dtype.lanes
        self.operations[key] = self.operations[key] + lanes if key in self.operations else lanes


def _operation(item: Term) -> str | None:
    if isinstance(item, Comparison):
        return "compare"
    if isinstance(item, Call) and isinstance(item.op, Intrinsic):
        return item.op.name
    return OPERATION_NAMES.get(type(item))
