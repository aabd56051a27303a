"""PlanLayouts: in which order the axes of each intermediate tensor lie in memory.

What runs together in the loops of neighbouring calls (`tir.analysis.axes`) gets one answer. The
names of operators play no part; packing constants is the business of `pack_constants`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np

from transect.ir.expr import Expr, IntImm, as_int
from transect.ir.function import IRModule
from transect.ir.sizes import product
from transect.ir.structural import structural_hash
from transect.ir.types import TensorType, tensor_type
from transect.plan import Cost, Option, Site, SiteKey, typical_size
from transect.plan.cost import number
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import CallTIR, call_tir
from transect.relax.effects import mutable_vars
from transect.relax.legalize import legalize
from transect.relax.op.manipulate import PermuteDims, Reshape
from transect.relax.transform.fusion import Member, as_member
from transect.relax.transform.pack_constants import Space, best_seconds, constant_buffers, packings
from transect.relax.transform.rewrite_dataflow_reshape import is_reshape
from transect.relax.visit import Rewriter, bindings, graph_functions
from transect.tir.analysis.axes import axis_links, is_loop_nests, product_axes
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import find_contraction
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.schedule.layout import Order, permute_axes
from transect.tir.stmt import BlockRealize
from transect.transform.base import Context, Pass

_SMALL = 1 << 16
"""Elements of constants that are worth turning at compile time for every use."""

Place = Hashable
"""A tensor of the graph, or a buffer inside one call."""
Axis = tuple[Place, int]


@dataclass(frozen=True)
class PlanLayouts(Pass):
    """Move the axis that products with constants make (the channels) to the end, in all tensors
    where it runs, if that is predicted to pay for the copies at the borders.

    space: the sites of a program's schedule. Requires operators legalized; leaves parameters and
    results of the function as they are. Calls that copy between two such orders are gone.

        lv: (n, c, h, w) = conv(x, W)           lv: (n, h, w, c) = permute_dims(x, (0, 2, 3, 1))
        gv: (n, o, h, w) = conv(lv, W2)   ->    lv1: (n, h, w, o) = conv1(lv, W)
                                                lv2: (n, h, w, o) = conv1(lv1, W2)
                                                gv: (n, o, h, w) = permute_dims(lv2, (0, 3, 1, 2))
    """

    space: Space

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with such programs and the copies at the borders."""
        builder = BlockBuilder(module)
        for name, function in list(graph_functions(module)):
            graph = _Graph.of(function, module)
            orders = graph.solve(self.space, context)
            if orders:
                new = _Apply(graph, orders, builder).run(function)
                builder.module = builder.module.with_function(name, new)
        return builder.module


@dataclass
class _Classes:
    """Axes that run together."""

    parent: dict[Axis, Axis] = field(default_factory=dict[Axis, Axis])

    def find(self, axis: Axis) -> Axis:
        root = axis
        while (up := self.parent.get(root, root)) is not root:
            root = up
        while axis is not root:
            self.parent[axis], axis = root, self.parent.get(axis, root)
        return root

    def join(self, a: Axis, b: Axis) -> None:
        self.parent[self.find(a)] = self.find(b)


@dataclass
class _Graph:
    """The calls of one function whose buffers may lie otherwise, and their axes."""

    members: dict[rx.Var, Member]
    classes: _Classes
    wanted: list[Axis]
    """The axes that products with constants make, those of the largest products first."""

    @staticmethod
    def of(function: rx.Function, module: IRModule) -> _Graph:
        changing = mutable_vars(function)
        members: dict[rx.Var, Member] = {}
        classes = _Classes()
        votes: list[tuple[float, Axis]] = []
        for binding in bindings(function):
            member = _flexible(binding, module)
            if member is None or changing.intersection((*_inputs(member), member.var)):
                continue
            members[member.var] = member
            func = member.function
            constants = constant_buffers(member)
            for a, b in axis_links(func, constants):
                classes.join(_axis(member, *a), _axis(member, *b))
            for site in block_sites(func):
                found = product_axes(site, constants)
                product = find_contraction(site)
                if found is not None and product is not None:
                    weight = number(product.operations, typical_size)
                    votes.append((weight, _axis(member, *found[1])))
        votes.sort(key=lambda vote: -vote[0])
        return _Graph(members, classes, [axis for _, axis in votes])

    def solve(self, space: Space, context: Context) -> dict[Place, Order]:
        """The orders of all tensors that get another one than their own."""
        by_class: dict[Axis, list[Axis]] = {}
        for place, rank in self._places().items():
            for axis in range(rank):
                by_class.setdefault(self.classes.find((place, axis)), []).append((place, axis))
        ranks = self._places()
        orders: dict[Place, Order] = {}
        for root in dict.fromkeys(map(self.classes.find, self.wanted)):
            axes = by_class.get(root, [])
            places = [place for place, _ in axes]
            if len(set(places)) < len(places) or any(place in orders for place in places):
                continue
            new = {place: _with_last(ranks[place], axis) for place, axis in axes}
            if all(order == tuple(range(len(order))) for order in new.values()):
                continue
            if self._pays(new, space, context):
                orders |= new
        return orders

    def _places(self) -> dict[Place, int]:
        found: dict[Place, int] = {}
        for member in self.members.values():
            for buffer in _buffers(member.function):
                found[_place(member, buffer)] = buffer.ndim
        return found

    def _pays(self, new: dict[Place, Order], space: Space, context: Context) -> bool:
        """Ask the plan whether the calls with these orders are worth the copies at the borders."""
        concerned = [
            member
            for member in self.members.values()
            if any(_place(member, buffer) in new for buffer in _buffers(member.function))
        ]
        before = after = 0.0
        seen: dict[object, tuple[float, float]] = {}
        for member in concerned:
            if not any(find_contraction(site) for site in block_sites(member.function)):
                continue
            local = local_orders(member, new)
            key = (member.function, tuple(local.items()), tuple(constant_buffers(member)))
            if key not in seen:
                seen[key] = self._seconds(member, local, space, context)
            before += seen[key][0]
            after += seen[key][1]
        moved = self._copied(concerned, new)
        subject = structural_hash(tuple(dict.fromkeys(m.function for m in concerned)))
        key = SiteKey("layout", subject, str(context.target))
        options = (
            Option("as given", cost=Cost(calls=before)),
            Option("channels last", cost=Cost(traffic={"L2": moved}, calls=after)),
        )
        site = Site(key, options, f"of {len(concerned)} calls from {concerned[0].var.name}")
        return context.planner.choose(site).name == "channels last"

    def _seconds(
        self, member: Member, local: dict[Buffer, Order], space: Space, context: Context
    ) -> tuple[float, float]:
        turned = permute_axes(member.function, local)
        renamed = dict(zip(member.function.buffers, turned.buffers, strict=True))
        constants = [renamed[item] for item in constant_buffers(member)]
        packed = packings(turned, constants, context.target)
        programs = [turned, *(item.function for item in packed)]
        return (
            best_seconds(space, member.function, context),
            min(best_seconds(space, program, context) for program in programs),
        )

    def _copied(self, concerned: list[Member], new: dict[Place, Order]) -> Expr:
        """Bytes read and written where a tensor is made in one order and used in another."""
        total: Expr = IntImm(0)
        seen: set[rx.Value] = set()
        for member in concerned:
            for value in member.inputs:
                if isinstance(value, rx.Var) and value in new and value not in self.members:
                    total = total if value in seen else total + _bytes(value) * 2
                    seen.add(value)
        return total


class _Apply(Rewriter):
    """Rewrites calls over tensors in other orders, and copies where one order meets another."""

    def __init__(self, graph: _Graph, orders: dict[Place, Order], builder: BlockBuilder) -> None:
        super().__init__()
        self.graph = graph
        self.orders = orders
        self.builder = builder
        self.lies: dict[rx.Var, Order] = {}
        """How the tensors that stand for variables of the original lie, those not as given."""
        self.copies: dict[tuple[rx.Value, Order], rx.Value] = {}
        self.turned: dict[object, PrimFunc] = {}

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        self.copies.clear()
        super().rewrite_block(block)
        self.copies.clear()

    def rewrite_seq(self, seq: rx.SeqExpr, params: Iterable[rx.Var] = ()) -> rx.SeqExpr:
        outer = self.copies
        self.copies = {}
        result = super().rewrite_seq(seq, params)
        self.copies = outer
        return result

    def rewrite(self, value: rx.Value) -> rx.Value:
        """A use that is not one of the calls takes the tensor as it was given."""
        if isinstance(value, rx.Var) and value in self.lies:
            return self.in_order(value, tuple(range(len(self.lies[value]))))
        return super().rewrite(value)

    def in_order(self, value: rx.Value, order: Order) -> rx.Value:
        """What stands for `value` of the original, its axes in the given order."""
        if isinstance(value, rx.Constant):
            return _turned_constant(value, order)
        assert isinstance(value, rx.Var)
        now = self.lies.get(value, tuple(range(len(order))))
        current = super().rewrite(value)
        if now == order:
            return current
        if (value, order) not in self.copies:
            axes = tuple(now.index(axis) for axis in order)
            self.copies[value, order] = self.emit(self._permuted(current, axes), "turned")
        return self.copies[value, order]

    def _permuted(self, value: rx.Value, axes: Order) -> rx.Value:
        assert isinstance(value.type, TensorType)
        shape = value.type.shape or ()
        big = [axis for axis in axes if as_int(shape[axis]) != 1]
        if big == sorted(big):
            return Reshape()(value, rx.shape_expr(*(shape[axis] for axis in axes)))
        op = PermuteDims(axes)
        found = legalize(op, (value.type,))
        assert found is not None
        assert isinstance(found.out_type, TensorType)
        callee = self.builder.add_function(found.function, "permute_dims")
        return call_tir(callee, (value,), found.out_type, found.tir_vars)

    def rewrite_binding(self, binding: rx.Binding) -> None:
        member = self.graph.members.get(binding.var)
        local = {} if member is None else local_orders(member, self.orders)
        if member is None or isinstance(binding, rx.MatchCast) or not local:
            super().rewrite_binding(binding)
            return
        key = (member.function, tuple(local.items()))
        if key not in self.turned:
            self.turned[key] = permute_axes(member.function, local)
        turned = self.turned[key]
        inputs = [
            self.in_order(value, local.get(buffer, tuple(range(buffer.ndim))))
            for value, buffer in zip(member.inputs, member.function.buffers, strict=False)
        ]
        kind = member.out_type
        order = local.get(member.function.buffers[-1], tuple(range(kind.ndim)))
        assert kind.shape is not None
        shape = tuple(kind.shape[axis] for axis in order)
        if len(inputs) == 1 and is_reshape(turned) and _shape(inputs[0]) == shape:
            self.variables[binding.var] = inputs[0]
        else:
            callee = self.builder.add_function(turned, member.name)
            out = tensor_type(shape, kind.dtype, device=kind.device)
            self.bind(binding, call_tir(callee, inputs, out, member.tir_vars))
        if order != tuple(range(kind.ndim)):
            self.lies[binding.var] = order


def local_orders(member: Member, orders: dict[Place, Order]) -> dict[Buffer, Order]:
    """The orders of the buffers of one call. Large constants stay: they are packed later."""
    found: dict[Buffer, Order] = {}
    values = dict(zip(member.function.buffers, member.inputs, strict=False))
    for buffer in _buffers(member.function):
        order = orders.get(_place(member, buffer))
        value = values.get(buffer)
        if order is None or order == tuple(range(len(order))):
            continue
        if not isinstance(value, rx.Constant) or value.data.size <= _SMALL:
            found[buffer] = order
    return found


def _flexible(binding: rx.Binding, module: IRModule) -> Member | None:
    """The call of a binding, if its tensors may lie otherwise."""
    if not isinstance(binding.value, rx.Call) or not isinstance(binding.value.op, CallTIR):
        return None
    member = as_member(binding, module)
    if member is None or not is_loop_nests(member.function):
        return None
    return member if all(isinstance(v, rx.Var | rx.Constant) for v in member.inputs) else None


def _buffers(function: PrimFunc) -> tuple[Buffer, ...]:
    return (*function.buffers, *_allocated(function))


def _allocated(function: PrimFunc) -> tuple[Buffer, ...]:
    root = function.body
    return root.block.alloc_buffers if isinstance(root, BlockRealize) else ()


def _place(member: Member, buffer: Buffer) -> Place:
    """The tensor that a buffer is: one of the graph, or one of the call's own."""
    buffers = member.function.buffers
    if buffer is buffers[-1]:
        return member.var
    if buffer in buffers:
        value = member.inputs[buffers.index(buffer)]
        if isinstance(value, rx.Var):
            return value
    return (member.var, buffer)


def _axis(member: Member, buffer: Buffer, axis: int) -> Axis:
    return (_place(member, buffer), axis)


def _inputs(member: Member) -> list[rx.Var]:
    return [value for value in member.inputs if isinstance(value, rx.Var)]


def _with_last(rank: int, last: int) -> Order:
    return (*(axis for axis in range(rank) if axis != last), last)


def _turned_constant(value: rx.Constant, order: Order) -> rx.Constant:
    if order == tuple(range(len(order))):
        return value
    return rx.constant(np.ascontiguousarray(value.data.transpose(order)))


def _shape(value: rx.Value) -> tuple[Expr, ...] | None:
    return value.type.shape if isinstance(value.type, TensorType) else None


def _bytes(value: rx.Value) -> Expr:
    kind = value.type
    assert isinstance(kind, TensorType)
    size = IntImm(1 if kind.dtype is None else kind.dtype.bytes)
    return size * product(kind.shape or ())
