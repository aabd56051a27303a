"""A nest of its own for one row, where the number of a product's rows is known only at run time.

A product of one row takes as long as reading the matrix; what is good for many, packing the matrix
above all, takes several times that.
"""

from __future__ import annotations

from collections.abc import Callable

from transect.hardware.kernel import KernelInfo
from transect.ir.expr import IntImm, Var, equal
from transect.ir.node import replace
from transect.ir.structural import structural_hash
from transect.plan import Cost, Option, Planner, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.contraction import Contraction
from transect.tir.analysis.regions import buffer_bytes
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.stmt import BlockRealize, IfThenElse, realize_root
from transect.tir.visit import Substitution, fresh_copy


def with_single_row(
    func: PrimFunc,
    scheduled: PrimFunc,
    schedule: Callable[[PrimFunc], PrimFunc],
    planner: Planner,
    target: Target,
) -> PrimFunc:
    """`scheduled`, with another schedule of `func` for the case of one row where the plan says so.

    for j, i in T.grid(…, m): …   ->   if m == 1: for j in …: … else: for j, i in T.grid(…, m): …
    """
    info = KernelInfo.of(func)
    found = None if info is None else _rows(func, info)
    if found is None or scheduled is func:
        return scheduled
    rows, contraction = found
    if planner.choose(_site(contraction, rows, target)).name != _APART:
        return scheduled
    single = _of_one(func, rows)
    other = schedule(single)
    if other is single:
        return scheduled
    buffers = dict(zip(single.buffers, func.buffers, strict=True))
    assert isinstance(scheduled.body, BlockRealize)
    assert isinstance(other.body, BlockRealize)
    root = Substitution(buffers=buffers).visit(fresh_copy(other.body))
    assert isinstance(root, BlockRealize)
    general = scheduled.body.block
    body = IfThenElse(equal(rows, IntImm(1)), root.block.body, general.body)
    allocated = dict.fromkeys((*root.block.alloc_buffers, *general.alloc_buffers))
    return replace(scheduled, body=realize_root(body, tuple(allocated), span=general.span))


_APART, _TOGETHER = "apart", "as any other"


def _site(found: Contraction, rows: Var, target: Target) -> Site:
    """The choice whether a single row has a nest of its own. Together, it computes the rest of a
    tile for nothing and packs what it reads once."""
    name = found.site.block.name
    key = SiteKey("schedule", structural_hash(found.site.block), str(target), "single row")
    moved = buffer_bytes(found.right.buffer)
    options = (Option(_APART), Option(_TOGETHER, cost=Cost(traffic={"L2": 2 * moved})))
    return Site(key, options, f"{name} single row")


def _rows(func: PrimFunc, info: KernelInfo) -> tuple[Var, Contraction] | None:
    """The number of rows of the first product, if it is one symbolic size."""
    found = next(iter(info.contractions()), None)
    if found is None or found.batch or len(found.rows) != 1 or not found.columns:
        return None
    extent = found.rows[0].dom.extent
    if not isinstance(extent, Var) or extent not in symbolic_vars(func):
        return None
    return extent, found


def _of_one(func: PrimFunc, rows: Var) -> PrimFunc:
    """The program where a size is 1."""
    swap = Substitution({rows: IntImm(1)})
    buffers = {param: swap.buffer(item) for param, item in func.buffer_map.items()}
    return replace(func, buffer_map=buffers, body=swap.visit(func.body))
