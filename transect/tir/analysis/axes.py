"""Which axes of a program's buffers run together.

A convolution's data and result share batch, height and width, and their channels belong together
although one is summed. Programs over other orders of axes are made in `tir.schedule.layout`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from transect.ir.expr import as_int
from transect.ir.traverse import free_vars, walk
from transect.tir.analysis.blocks import BlockSite, block_sites
from transect.tir.analysis.contraction import find_contraction
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import BlockRealize, BufferStore, SeqStmt, Stmt

Axis = tuple[Buffer, int]


def is_loop_nests(func: PrimFunc) -> bool:
    """Whether a program is nothing but serial loops around blocks of one store each, one loop for
    each iteration variable, over compact buffers."""
    if not isinstance(func.body, BlockRealize) or func.body.block.match_buffers:
        return False
    inner = func.body.block.body
    nests = inner.stmts if isinstance(inner, SeqStmt) else (inner,)
    sites = block_sites(func)
    buffers = (*func.buffers, *func.body.block.alloc_buffers)
    return (
        len(sites) == len(nests)
        and all(map(_is_nest, sites, nests))
        and not any(item.strides or as_int(item.elem_offset) != 0 for item in buffers)
    )


def _is_nest(site: BlockSite, nest: Stmt) -> bool:
    stmt = nest
    for loop in site.loops:
        if stmt is not loop or loop.kind != "serial" or loop.annotations:
            return False
        stmt = loop.body
    values = tuple(loop.var for loop in site.loops)
    init = site.block.init
    return (
        stmt is site.realize
        and site.realize.iter_values == values
        and as_int(site.realize.predicate) == 1
        and site.only_store() is not None
        and (init is None or isinstance(init, BufferStore))
    )


def axis_links(func: PrimFunc, constants: Collection[Buffer] = ()) -> Iterator[tuple[Axis, Axis]]:
    """Pairs of axes (of what is read, of what is written) that one iteration variable runs over,
    or that a product with a constant takes to each other."""
    for site in block_sites(func):
        store = site.only_store()
        assert store is not None
        own = {item.var for item in site.iter_vars("spatial")}
        place = {index: axis for axis, index in enumerate(store.indices) if index in own}
        for load in loads_of(store):
            for axis, index in enumerate(load.indices):
                inside = [var for var in free_vars((index,)) if var in own]
                if len(inside) == 1 and inside[0] in place:
                    yield (load.buffer, axis), (store.buffer, place[inside[0]])
        found = product_axes(site, constants)
        if found is not None and found[0] is not None:
            yield found[0], found[1]


def product_axes(site: BlockSite, constants: Collection[Buffer]) -> tuple[Axis | None, Axis] | None:
    """Of a product with a constant: the axis of the other operand that is summed, if one is, and
    the axis of the result that the constant's own variable, or one of both, runs over."""
    found = find_contraction(site)
    if found is None:
        return None
    known = [load for load in (found.left, found.right) if load.buffer in constants]
    if len(known) != 1:
        return None
    (constant,) = known
    data = found.right if constant is found.left else found.left
    mine = found.left is constant
    candidates = (found.rows if mine else found.columns) or found.batch
    results = [
        axis
        for axis, index in enumerate(found.output.indices)
        if any(index is item.var for item in candidates)
    ]
    if len(results) != 1:
        return None
    result = (found.output.buffer, results[0])
    summed = {item.var for item in found.reduce} & set(free_vars(constant.indices))
    axes = [axis for axis, index in enumerate(data.indices) if index in summed]
    return ((data.buffer, axes[0]) if len(axes) == 1 else None), result


def loads_of(store: BufferStore) -> list[BufferLoad]:
    """What a store reads, other than what it accumulates into."""
    found = [item for item in walk(store.value) if isinstance(item, BufferLoad)]
    return [load for load in found if load.buffer is not store.buffer]
