"""Who fills the padding of a buffer that is laid out anew: its writer, or a block before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transect.arith import Analyzer
from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, Range, Var, logical_not
from transect.ir.node import replace
from transect.support.errors import ScheduleError
from transect.tir.buffer import Buffer
from transect.tir.index_image import IndexImage, image_of
from transect.tir.index_map import IndexMap
from transect.tir.op import if_then_else
from transect.tir.schedule.dependence import uses, writers
from transect.tir.schedule.edit import Edit, edit, refuse
from transect.tir.schedule.region import assume_sizes, is_leaf
from transect.tir.schedule.relayout import OwnNest, over_new_axes, own_nest
from transect.tir.schedule.rewrite import allocating_block, nest, restated
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, IterVar, seq

Padding = Callable[[Sequence[Expr]], Expr]
"""The value of the padding at indices of the new buffer."""


def fill_padding(
    primitive: str,
    tree: Tree,
    found: Buffer,
    new: Buffer,
    index_map: IndexMap,
    image: IndexImage,
    pad: Padding,
) -> Edit:
    """The program that stores `pad` wherever no element of `found` goes in `new`.

    A single writer that is a map over all of the buffer stores to `new` afterwards; all other
    accesses are still of `found`. A buffer that nobody writes is the caller's to fill.
    """
    stored = [item for item in writers(tree.all_blocks(), found) if is_leaf(item)]
    if not stored:
        return Edit(tree.func)
    around = _map_over(primitive, tree, stored[0], found) if len(stored) == 1 else None
    if around is not None:
        return _by_writer(tree, stored[0], around, new, index_map, pad)
    return _before(primitive, tree, found, new, image, pad)


def _map_over(primitive: str, tree: Tree, block: Block, found: Buffer) -> OwnNest | None:
    """The nest of a block that stores each element once, at its iteration variables."""
    body = block.body
    if (
        not isinstance(body, BufferStore)
        or block.init is not None
        or block.alloc_buffers
        or uses(block, found)[0]
        or any(item.kind != "spatial" for item in block.iter_vars)
        or len(set(body.indices)) != len(block.iter_vars)
        or set(body.indices) != {item.var for item in block.iter_vars}
    ):
        return None
    analyzer = Analyzer()
    domain = {item.var: item.dom.extent for item in block.iter_vars}
    for index, size in zip(body.indices, found.shape, strict=True):
        if not isinstance(index, Var) or not analyzer.can_prove_equal(domain[index], size):
            return None
    try:
        return own_nest(primitive, tree, block)
    except ScheduleError:
        return None


def _by_writer(
    tree: Tree, block: Block, around: OwnNest, new: Buffer, index_map: IndexMap, pad: Padding
) -> Edit:
    """The only writer, over the new indices, padding included."""
    body = block.body
    assert isinstance(body, BufferStore)
    order = [item.var for item in block.iter_vars]
    variables = tuple(Var(loop.var.name if loop else "unit") for loop in around.loops)
    # From the iteration variables, in the order in which the block has them.
    places = [variables[order.index(var)] for var in body.indices if isinstance(var, Var)]
    inputs = IndexMap(variables, index_map.apply(places))
    analyzer = Analyzer()
    assume_sizes(analyzer, tree.func)
    image = image_of(inputs, [item.dom.extent for item in block.iter_vars], analyzer)
    assert not isinstance(image, str)

    def rebuild(made: Block, inside: Expr) -> Block:
        store = made.body
        assert isinstance(store, BufferStore)
        indices = tuple(item.var for item in made.iter_vars)
        value = if_then_else(analyzer.simplify(inside), store.value, pad(indices))
        return replace(made, body=replace(store, buffer=new, indices=indices, value=value))

    kinds = ["spatial"] * len(image.shape)
    made = over_new_axes(block, around, image, kinds, analyzer, rebuild, predicate=False)
    return edit(tree.func, {around.top: made.stmt}, made.forward)


def _before(
    primitive: str, tree: Tree, found: Buffer, new: Buffer, image: IndexImage, pad: Padding
) -> Edit:
    """A block that fills the padding, before everything that touches the buffer."""
    home = allocating_block(tree, found) or tree.root
    touching = next(
        item
        for item in tree.all_blocks()
        if item is not home and tree.is_inside(item, home) and any(uses(item, found))
    )
    first = tree.outermost(tree.realize(touching), home)
    for loop in tree.ancestors(touching):
        bound = isinstance(loop, For) and loop.kind == "thread_binding"
        if bound and tree.is_inside(loop, first):
            refuse(
                primitive,
                f"the padding of {found.name!r} would be filled outside its threads",
                touching,
                f"{primitive} before binding loops",
            )
    loops = [Var(var.name, INDEX) for var in image.inverse.inputs]
    iter_vars = tuple(
        IterVar(Var(f"v_{var.name}", INDEX), Range.of(extent), "spatial")
        for var, extent in zip(image.inverse.inputs, image.shape, strict=True)
    )
    indices = tuple(item.var for item in iter_vars)
    inside = IndexMap(image.inverse.inputs, (image.inside,)).apply(loops)[0]
    body = BufferStore(new, pad(indices), indices)
    block = restated(Block(f"{found.name}_padding", iter_vars, (), (), body))
    realize = BlockRealize(tuple(loops), logical_not(inside), block)
    stmt = nest(zip(loops, image.shape, strict=True), realize)
    return edit(tree.func, {first: seq(stmt, first)})
