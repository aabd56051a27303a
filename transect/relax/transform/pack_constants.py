"""PackConstants: constant operands of products lie in memory as the register tiles read them.

Which widths of panels there are follows from the target; scheduling the product is another matter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from transect.ir.expr import Var, as_int
from transect.ir.function import IRModule
from transect.ir.structural import structural_hash
from transect.ir.traverse import free_vars
from transect.plan import Option, Problem, Site, SiteKey
from transect.plan.policy import site_seconds
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder, rewrite_functions
from transect.relax.call import call_tir
from transect.relax.transform.fusion import Member, ProgramRewriter
from transect.target import Target
from transect.tir.analysis.axes import is_loop_nests, loads_of
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction
from transect.tir.analysis.tensor_candidate import Tiling
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.layout import Order, in_memory_order, panel_axis, permute_axes, to_panels
from transect.tir.schedule.tiles import tile_axes, to_tiles
from transect.tir.schedule.winograd import to_winograd, transform_filters
from transect.transform.base import Context, Pass

_AS_STORED = "as stored"
_VECTORS = (1, 2, 3, 4, 8)
"""How many vectors a panel may be wide."""

Space = Callable[[PrimFunc, Target], Sequence[Site]]
"""The sites of a program's schedule."""

Tilings = Callable[[Contraction, Target], Sequence[tuple[Buffer, Tiling]]]
"""The operands of a product that instructions of a target would take in tiles, and which."""


@dataclass(frozen=True)
class Packing:
    """One way to store the constant operand of a product.

    buffer: the parameter. layout: how it is rearranged. function: the program over the packed
    constant.
    """

    buffer: Buffer
    layout: Layout
    function: PrimFunc


@dataclass(frozen=True)
class Panels:
    """Axes in an order, the last one in panels of a width. See `to_panels`."""

    order: Order
    width: int

    @property
    def name(self) -> str:
        return f"panels of {self.width}"

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """The array so."""
        return to_panels(array, self.order, self.width)


@dataclass(frozen=True)
class Tiles:
    """Tiles of an instruction. See `to_tiles`."""

    tiling: Tiling

    @property
    def name(self) -> str:
        return f"tiles of {'x'.join(map(str, self._sizes()))}"

    def _sizes(self) -> list[int]:
        sizes = {"columns": self.tiling.lanes, "reduce": self.tiling.group}
        return [sizes[name] for name in self.tiling.order]

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """The array so."""
        return to_tiles(array, self.tiling)


@dataclass(frozen=True)
class Filters:
    """Filters transformed for products of Winograd's, in panels of a width. See `to_winograd`."""

    order: Order
    width: int

    @property
    def name(self) -> str:
        return f"transformed, panels of {self.width}"

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """The array so."""
        made = transform_filters(array, self.order)
        return to_panels(made, tuple(range(made.ndim)), self.width)


Layout = Panels | Tiles | Filters


@dataclass(frozen=True)
class PackConstants(Pass):
    """Store constant operands of products in panels of the columns that a register tile takes.

    The last axis of the result runs within a panel, so that neighbouring results read neighbours
    and a tile reads the whole panel in order. space: the sites of a program's schedule.

        y[i, j] += x[i, k] * W[j, k]   ->   y[i, j] += x[i, k] * W1[j // 64, k, j % 64]

    tilings: the tiles in which instructions of the target would take the operand, another way.
    transforms: whether a target has schedules for products between transforms, which some
    convolutions can become.
    """

    space: Space
    tilings: Tilings | None = None
    transforms: Callable[[Target], bool] = lambda target: False

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with such constants packed; constants that nobody else uses are gone."""

        def rewriter(builder: BlockBuilder, name: str, function: rx.Function) -> _Pack:
            del name, function
            return _Pack(self, builder, context)

        return rewrite_functions(module, rewriter)


class _Pack(ProgramRewriter):
    def __init__(self, options: PackConstants, builder: BlockBuilder, context: Context) -> None:
        super().__init__(builder)
        self.options = options
        self.context = context
        self.packed: dict[tuple[int, Layout], rx.Constant] = {}
        self.choices: dict[tuple[PrimFunc, tuple[Buffer, ...]], Packing | None] = {}

    def rewrite_program(self, binding: rx.VarBinding, member: Member) -> bool:
        choice = self._choice(member)
        if choice is None:
            return False
        position = member.function.buffers.index(choice.buffer)
        inputs = [self.rewrite(value) for value in member.inputs]
        inputs[position] = self._constant(member.inputs[position], choice)
        callee = self.builder.add_function(choice.function, member.name)
        self.bind(binding, call_tir(callee, inputs, member.out_type, member.tir_vars))
        return True

    def _choice(self, member: Member) -> Packing | None:
        constants = constant_buffers(member)
        key = (member.function, tuple(constants))
        if key not in self.choices:
            self.choices[key] = self._choose(member, constants)
        return self.choices[key]

    def _choose(self, member: Member, constants: list[Buffer]) -> Packing | None:
        target, space = self.context.target, self.options.space
        found = packings(member.function, constants, target)
        if self.options.tilings is not None:
            found += tile_packings(member.function, constants, target, self.options.tilings)
        if self.options.transforms(target):
            found += filter_packings(member.function, constants, target)
        if not found:
            return None
        options: list[Option] = []
        by_name: dict[str, Packing] = {}
        for item in found:
            name = item.layout.name
            by_name[name] = item
            options.append(Option(name, children=tuple(space(item.function, target))))
        options.append(Option(_AS_STORED, children=tuple(space(member.function, target))))
        key = SiteKey("packing", structural_hash(member.function), str(target))
        site = Site(key, tuple(options), member.name, member.function.span)
        return by_name.get(self.context.planner.choose(site).name)

    def _constant(self, value: rx.Value, packing: Packing) -> rx.Constant:
        assert isinstance(value, rx.Constant)
        key = (id(value.data), packing.layout)
        if key not in self.packed:
            data = packing.layout.arrange(value.data)
            data.setflags(write=False)
            self.packed[key] = rx.constant(self.context.keep(data, value.data))
        return self.packed[key]


def constant_buffers(member: Member) -> list[Buffer]:
    """The parameters that a call gives constants, as the loops see them."""
    pairs = zip(member.inputs, member.function.buffers, strict=False)
    return [buffer for value, buffer in pairs if isinstance(value, rx.Constant)]


def packings(function: PrimFunc, constants: Collection[Buffer], target: Target) -> list[Packing]:
    """The ways to pack the constant operand of the only product of a program."""
    if not constants or not is_loop_nests(function):
        return []
    function = in_memory_order(function)
    sites = block_sites(function)
    products = [(s, c) for s in sites if (c := find_contraction(s)) is not None]
    if len(products) != 1:
        return []
    ((site, found),) = products
    column = found.output.indices[-1] if found.output.indices else None
    known = [load for load in (found.left, found.right) if load.buffer in constants]
    if len(known) != 1 or not isinstance(column, Var):
        return []
    (load,) = known
    readers = [
        s for s in sites if (t := s.only_store()) and load.buffer in {x.buffer for x in loads_of(t)}
    ]
    axes = [axis for axis, index in enumerate(load.indices) if column in free_vars((index,))]
    if len(readers) != 1 or len(axes) != 1 or load.indices[axes[0]] is not column:
        return []
    position = {item.var: number for number, item in enumerate(site.block.iter_vars)}

    def place(axis: int) -> int:
        inside = [position[v] for v in free_vars((load.indices[axis],)) if v in position]
        return min(inside, default=-1)

    rest = sorted((axis for axis in range(len(load.indices)) if axis != axes[0]), key=place)
    order = (*rest, axes[0])
    turned = permute_axes(function, {load.buffer: order})
    buffer = turned.buffers[function.buffers.index(load.buffer)]
    lanes = target.lanes(found.output.buffer.dtype)
    extent = as_int(buffer.shape[-1]) or 0
    widths = [n * lanes for n in _VECTORS if n == 1 or (n - 1) * lanes < extent]
    return [
        Packing(load.buffer, Panels(order, width), panel_axis(turned, buffer, width))
        for width in widths
    ]


def tile_packings(
    function: PrimFunc, constants: Collection[Buffer], target: Target, tilings: Tilings
) -> list[Packing]:
    """The ways to lay the constant operand of the only product out for an instruction."""
    if not constants or not is_loop_nests(function):
        return []
    products = [c for s in block_sites(function) if (c := find_contraction(s)) is not None]
    if len(products) != 1:
        return []
    made: list[Packing] = []
    for buffer, tiling in tilings(products[0], target):
        readers = [
            s
            for s in block_sites(function)
            if (t := s.only_store()) and buffer in {x.buffer for x in loads_of(t)}
        ]
        if buffer in constants and len(readers) == 1:
            made.append(Packing(buffer, Tiles(tiling), tile_axes(function, buffer, tiling)))
    return made


def filter_packings(
    function: PrimFunc, constants: Collection[Buffer], target: Target
) -> list[Packing]:
    """The ways to transform constant filters and to lay them out in whole panels."""
    made: list[Packing] = []
    for buffer in constants:
        found = to_winograd(function, buffer)
        if found is None:
            continue
        lanes, extent = target.lanes(buffer.dtype), as_int(found.buffer.shape[-1]) or 0
        made += [
            Packing(
                buffer,
                Filters(found.order, count * lanes),
                panel_axis(found.function, found.buffer, count * lanes),
            )
            for count in _VECTORS
            if extent % (count * lanes) == 0
        ]
    return made


def best_seconds(space: Space, function: PrimFunc, context: Context) -> float:
    """The predicted time of a program's schedule, best answers throughout."""
    problem = Problem((), target=context.target, sizes=context.planner.sizes)
    sites = space(function, context.target)
    return sum(min(site_seconds(problem, site).values()) for site in sites)
