"""Primitives on a block's iteration variables: transform_block_layout, reorder_block_iter_var."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.tir.function import PrimFunc
from transect.tir.index_image import image_of
from transect.tir.index_map import IndexMap
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_block, refuse
from transect.tir.schedule.region import analyzer_for
from transect.tir.schedule.relayout import named_for, over_new_axes, own_nest
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block


@dataclass(frozen=True)
class TransformBlockLayout(Primitive):
    """Let a block run over other iteration variables: index_map of the ones it has.

        for i, j in T.grid(n, m):                   for i_j in range(n * m):
            with T.block("B"):                          with T.block("B"):
                vi, vj = T.axis.remap("SS", …)   ->         v = T.axis.spatial(n * m, i_j)
                B[vi, vj] = A[vi, vj]                       B[v // m, v % m] = A[v // m, v % m]

    with lambda i, j: (i * m + j,). The block must have a loop for each of its variables, and gets
    a new nest; loops of variables that stay keep their handles. Where sizes are not known to
    divide, they are rounded up and the block gets a predicate. A new variable must be made of
    spatial ones alone or of reduction ones alone.
    """

    index_map: IndexMap
    name: ClassVar[str] = "transform_block_layout"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        tree = Tree(func)
        around = own_nest(self.name, tree, block)
        names = [loop.var.name if loop else "unit" for loop in around.loops]
        index_map = named_for(self.index_map, names)
        kinds = self._kinds(block, index_map)
        analyzer = analyzer_for(tree, around.top)
        image = image_of(index_map, [item.dom.extent for item in block.iter_vars], analyzer)
        if isinstance(image, str):
            refuse(
                self.name,
                f"the map of its variables is not known to be one to one: {image}",
                block,
                "use splits and fusions of variables",
                f"the map: {self.index_map!r}",
            )
        if image.starts_late and "reduce" in kinds:
            refuse(
                self.name,
                "the first instances of its reduction would lie in the padding",
                block,
                "do not add to indices before dividing them",
            )
        made = over_new_axes(
            block, around, image, kinds, analyzer, lambda new, _: new, predicate=True
        )
        return edit(func, {around.top: made.stmt}, made.forward)

    def _kinds(self, block: Block, index_map: IndexMap) -> list[str]:
        """The kind of each new iteration variable."""
        kinds = {v: item.kind for v, item in zip(index_map.inputs, block.iter_vars, strict=True)}
        for item in block.iter_vars:
            if item.kind not in ("spatial", "reduce"):
                refuse(
                    self.name,
                    f"iteration variable {item.var.name!r} is {item.kind!r}, so its order counts",
                    block,
                    "only spatial and reduction variables",
                )
        found: list[str] = []
        for output in index_map.outputs:
            joined = sorted({kinds[var] for var in free_vars([output]) if var in kinds})
            if len(joined) > 1:
                refuse(
                    self.name,
                    f"the index {output!r} would be spatial and of the reduction at once",
                    block,
                    "join variables of one kind",
                )
            found.append(joined[0] if joined else "spatial")
        return found


@dataclass(frozen=True)
class ReorderBlockIterVar(Primitive):
    """The iteration variables of a block in another order: new_order[n] is the old position.

        with T.block("B"):                       with T.block("B"):
            vi, vj = T.axis.remap("SS", [i, j])  ->  vj, vi = T.axis.remap("SS", [j, i])

    Loops stay as they are.
    """

    new_order: tuple[int, ...]
    name: ClassVar[str] = "reorder_block_iter_var"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        if sorted(self.new_order) != list(range(len(block.iter_vars))):
            refuse(
                self.name,
                f"{self.new_order} is no order of its {len(block.iter_vars)} iteration variables",
                block,
                f"name each position from 0 to {len(block.iter_vars) - 1} once",
            )
        realize = Tree(func).realize(block)
        iter_vars = tuple(block.iter_vars[position] for position in self.new_order)
        values = tuple(realize.iter_values[position] for position in self.new_order)
        made = replace(block, iter_vars=iter_vars)
        new = replace(realize, iter_values=values, block=made)
        return edit(func, {realize: new}, {block: made})
