"""Which operator calls may share one tensor program: the analysis, without deciding.

A pair that may be fused is an Edge; the plan says which edges are taken; `fusion_groups` joins
what they connect, and FuseTIR builds the programs. The rules are those of post-dominators: a value
joins the calls that use it only where all its uses join (Relay FuseOps, TVM).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from transect.ir.expr import Expr, Var, as_int
from transect.ir.function import IRModule
from transect.ir.types import ObjectType, TensorType
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import CallTIR, call_inputs
from transect.relax.effects import leaf_vars, mutable_vars
from transect.relax.legalize import flat_tensors, legalize
from transect.relax.shapes import same_shape
from transect.relax.visit import Rewriter, operands, use_counts, walk
from transect.tir.analysis import PatternKind, block_sites, pattern_kind
from transect.tir.buffer import BufferLoad
from transect.tir.function import SCHEDULED, PrimFunc
from transect.tir.stmt import BlockRealize

MOST_MEMBERS = 32
"""Of one group. Real networks chain ten; a program of thousands would be slow to schedule, and deep
beyond what the compiler's recursive parts can take."""


@dataclass(frozen=True)
class Member:
    """A call as a tensor program: what a group is made of.

    inputs: leaf values, tensors only. tir_vars: values of the program's scalars.
    """

    var: rx.Var
    name: str
    function: PrimFunc
    inputs: tuple[rx.Value, ...]
    out_type: TensorType
    tir_vars: tuple[Expr, ...]


@dataclass(frozen=True)
class Edge:
    """`producer` may be computed inside the program that computes `consumer`.

    consumer: the first call through which all uses of the producer pass. through: the calls on
    the way, which join as well. The kinds are those of the producer's and consumer's loops. rows:
    whether both are contractions, the second over rows that are made of the first's (see
    `row_chains`).
    """

    producer: rx.Var
    consumer: rx.Var
    through: tuple[rx.Var, ...]
    producer_kind: PatternKind
    consumer_kind: PatternKind
    rows: bool = False


@dataclass(frozen=True)
class FusionGroup:
    """Calls of one graph function to become one program, in program order; the last one's result
    is the only one that others use."""

    function: str
    members: tuple[rx.Var, ...]


def as_member(binding: rx.Binding, module: IRModule, *, scheduled: bool = False) -> Member | None:
    """A binding's call as a tensor program; None if it is not one that can be fused.

    A call of an operator that is kept as a view counts as the loops that it would be.
    scheduled: whether programs that are scheduled already count too.
    """
    call = binding.value
    if not isinstance(call, rx.Call) or not isinstance(call.type, TensorType):
        return None
    if isinstance(call.op, CallTIR) and isinstance(call.args[0], rx.GlobalFunc):
        name = call.args[0].name
        function = module[name]
        inputs = call_inputs(call)
        shape = call.args[2] if len(call.args) > 2 else None
        tir_vars = shape.values if isinstance(shape, rx.ShapeExpr) else ()
    elif isinstance(call.op, rx.Op) and call.op.is_view:
        found = legalize(call.op, [operand.type for operand in call.args])
        if found is None:
            return None
        name, function, tir_vars = call.op.name.replace(".", "_"), found.function, found.tir_vars
        inputs = tuple(operand for operand in call.args if any(flat_tensors(operand.type)))
    else:
        return None
    if not isinstance(function, PrimFunc) or not _can_be_inlined(function):
        return None
    if function.attrs.get(SCHEDULED) and not scheduled:
        return None
    if not all(isinstance(item.type, TensorType) for item in inputs):
        return None
    return Member(binding.var, name, function, inputs, call.type, tir_vars)


class ProgramRewriter(Rewriter, ABC):
    """Rewrites calls of tensor programs; what it adds to the module goes through `builder`.

    scheduled: whether it also takes those that are scheduled.
    """

    scheduled: ClassVar[bool] = False

    def __init__(self, builder: BlockBuilder) -> None:
        super().__init__()
        self.builder = builder

    def rewrite_binding(self, binding: rx.Binding) -> None:
        """See Rewriter."""
        if isinstance(binding, rx.VarBinding) and isinstance(binding.value, rx.Call):
            is_program = isinstance(binding.value.op, CallTIR)
            module, scheduled = self.builder.module, self.scheduled
            member = as_member(binding, module, scheduled=scheduled) if is_program else None
            if member is not None and self.rewrite_program(binding, member):
                return
        super().rewrite_binding(binding)

    @abstractmethod
    def rewrite_program(self, binding: rx.VarBinding, member: Member) -> bool:
        """Bind something else in place of the call; False if it stays as it is."""


def _can_be_inlined(function: PrimFunc) -> bool:
    root = function.body
    if not isinstance(root, BlockRealize) or root.block.iter_vars or root.block.match_buffers:
        return False
    if root.block.init is not None:
        return False
    return all(
        not buffer.strides and as_int(buffer.elem_offset) == 0 and buffer.scope == "global"
        for buffer in function.buffers
    )


# --- candidates -----------------------------------------------------------------------------


@dataclass
class Node:
    """A call of a dataflow block with those that use its result."""

    member: Member
    kind: PatternKind
    index: int
    users: list[Node] = field(default_factory=list["Node"])
    escapes: bool = False
    """Whether something else than a node uses the value."""
    dominator: Node | None = None
    """The first node through which all uses pass."""
    depth: int = 0


def fusion_candidates(function: rx.Function, module: IRModule) -> list[Edge]:
    """The pairs of calls of `function` that may be fused, in program order of the producers."""
    totals = use_counts(function)
    edges: list[Edge] = []
    for item in walk(function):
        if isinstance(item, rx.BindingBlock) and item.dataflow:
            # Calls move within their block only, so changes outside of it do not matter.
            changing = mutable_vars(function, item)
            edges.extend(_block_candidates(item, module, changing, totals))
    return edges


def _block_candidates(
    block: rx.BindingBlock, module: IRModule, changing: set[rx.Var], totals: dict[rx.Var, int]
) -> list[Edge]:
    nodes = block_nodes(block, module, changing, totals)
    _find_dominators(nodes)
    edges: list[Edge] = []
    for node in nodes:
        sink = node.dominator
        if sink is None:
            continue
        through = _between(node, sink)
        if _may_fuse(node, through, sink):
            ways = tuple(item.member.var for item in through)
            edges.append(Edge(node.member.var, sink.member.var, ways, node.kind, sink.kind))
    return edges


def block_nodes(
    block: rx.BindingBlock, module: IRModule, changing: set[rx.Var], totals: dict[rx.Var, int]
) -> list[Node]:
    """The calls of a block that are tensor programs over values that do not change. totals: how
    often each value is used in the function; the uses by nodes are taken away."""
    nodes: dict[rx.Var, Node] = {}
    for index, binding in enumerate(block.bindings):
        member = as_member(binding, module)
        inputs = [var for operand in operands(binding.value) for var in leaf_vars(operand)]
        if member is not None and not changing.intersection((*inputs, binding.var)):
            nodes[binding.var] = Node(member, pattern_kind(member.function), index)
    for node in nodes.values():
        used = [var for value in node.member.inputs for var in leaf_vars(value)]
        for var in dict.fromkeys(used):
            producer = nodes.get(var)
            if producer is not None:
                producer.users.append(node)
                totals[var] = totals.get(var, 0) - used.count(var)
    for var, node in nodes.items():
        node.escapes = totals.get(var, 0) > 0 or not var.dataflow
    return list(nodes.values())


def _find_dominators(nodes: Sequence[Node]) -> None:
    """Immediate post-dominators, from the last node back (users come after what they use)."""
    for node in reversed(nodes):
        if node.escapes or not node.users:
            continue
        common: Node | None = node.users[0]
        for user in node.users[1:]:
            common = _common(common, user)
        node.dominator = common
        node.depth = 0 if common is None else common.depth + 1


def _common(a: Node | None, b: Node | None) -> Node | None:
    """The nearest node that both pass through, each counting as passing through itself."""
    while a is not b:
        if a is None or b is None:
            return None
        if a.depth >= b.depth:
            a = a.dominator
        else:
            b = b.dominator
    return a


def _between(node: Node, sink: Node) -> list[Node]:
    """The nodes on the ways from `node` to `sink`, in program order, without these two."""
    found: dict[rx.Var, Node] = {}
    waiting = list(node.users)
    while waiting:
        item = waiting.pop()
        if item is not sink and item.member.var not in found:
            found[item.member.var] = item
            waiting.extend(item.users)
    return sorted(found.values(), key=lambda item: item.index)


def _may_fuse(node: Node, through: Sequence[Node], sink: Node) -> bool:
    if node.kind is PatternKind.CONTRACTION:
        # An epilogue: what follows computes element by element where the contraction stores.
        shape = node.member.out_type.shape
        return all(
            item.kind <= PatternKind.BROADCAST and same_shape(item.member.out_type.shape, shape)
            for item in (*through, sink)
        )
    if node.kind > PatternKind.INJECTIVE:
        return False
    if any(item.kind > PatternKind.INJECTIVE for item in through):
        return False
    return sink.kind <= PatternKind.INJECTIVE or sink.kind is PatternKind.REDUCTION


# --- groups ---------------------------------------------------------------------------------


def fusion_groups(
    name: str, function: rx.Function, module: IRModule, edges: Iterable[Edge]
) -> list[FusionGroup]:
    """The groups that `edges` of function `name` connect, in program order of their last call.

    An edge that would give a group two contractions or reductions, or something else than an
    element-by-element epilogue after them, is left out: the first edges come first. Those that
    edges over rows connect count as one contraction.
    """
    edges = list(edges)
    chains = [frozenset((e.producer, *e.through, e.consumer)) for e in edges if e.rows]
    order, parts = _positions(function, module)
    groups: dict[rx.Var, tuple[rx.Var, ...]] = {}
    users = _users(function)
    for edge in edges:
        joined: dict[rx.Var, None] = {}
        for var in (edge.producer, *edge.through, edge.consumer):
            joined.update(dict.fromkeys(groups.get(var, (var,))))
        members = tuple(sorted(joined, key=order.__getitem__))
        if len(members) <= MOST_MEMBERS and _is_valid(members, parts, users, chains):
            groups.update(dict.fromkeys(members, members))
    distinct = {members[-1]: members for members in groups.values()}
    return [FusionGroup(name, distinct[last]) for last in sorted(distinct, key=order.__getitem__)]


@dataclass(frozen=True)
class _Part:
    kind: PatternKind
    shape: tuple[Expr, ...] | None
    moves: bool
    """Whether it only puts elements to other places, each to one."""


def _positions(
    function: rx.Function, module: IRModule
) -> tuple[dict[rx.Var, int], dict[rx.Var, _Part]]:
    order: dict[rx.Var, int] = {}
    parts: dict[rx.Var, _Part] = {}
    for item in walk(function):
        if isinstance(item, rx.VarBinding):
            order[item.var] = len(order)
            member = as_member(item, module)
            if member is not None:
                kind, moves = pattern_kind(member.function), only_moves(member.function)
                parts[item.var] = _Part(kind, member.out_type.shape, moves)
    return order, parts


_OUTSIDE = rx.Var("outside", ObjectType())
"""Stands for whatever uses a value without being a binding of its own."""


def _users(function: rx.Function) -> dict[rx.Var, set[rx.Var]]:
    users: dict[rx.Var, set[rx.Var]] = {}
    for item in walk(function):
        if isinstance(item, rx.VarBinding):
            for value in operands(item.value):
                for var in leaf_vars(value):
                    users.setdefault(var, set()).add(item.var)
        elif isinstance(item, rx.MatchCast | rx.SeqExpr):
            for var in leaf_vars(item.value if isinstance(item, rx.MatchCast) else item.body):
                users.setdefault(var, set()).add(_OUTSIDE)
    return users


def _is_valid(
    members: Sequence[rx.Var],
    parts: dict[rx.Var, _Part],
    users: dict[rx.Var, set[rx.Var]],
    chains: Sequence[frozenset[rx.Var]],
) -> bool:
    inside = set(members)
    # Only the last result may be used outside, so nothing outside lies between two members.
    if any(not users.get(var, set()) <= inside for var in members[:-1]):
        return False
    if any(var not in parts or parts[var].kind is PatternKind.OPAQUE for var in members):
        return False
    anchors = [var for var in members if parts[var].kind > PatternKind.INJECTIVE]
    chain = next((item for item in chains if item <= inside and {*anchors} <= item), None)
    if chain is not None:
        return _is_valid_chain(chain, anchors, members, parts, users)
    if len(anchors) != 1:
        return not anchors
    (anchor,) = anchors
    after = _reached(anchor, users, inside)
    if parts[anchor].kind is PatternKind.REDUCTION:
        return not after
    return all(
        parts[var].kind <= PatternKind.BROADCAST
        and same_shape(parts[var].shape, parts[anchor].shape)
        for var in after
    )


def _is_valid_chain(
    chain: frozenset[rx.Var],
    anchors: Sequence[rx.Var],
    members: Sequence[rx.Var],
    parts: dict[rx.Var, _Part],
    users: dict[rx.Var, set[rx.Var]],
) -> bool:
    """Whether what joins a chain of contractions over rows is an element-by-element epilogue,
    after which elements may go to other places, or moves elements before it."""
    inside = set(members)
    first, last = anchors[0], anchors[-1]
    after = _reached(last, users, inside)
    operands: set[rx.Var] = {first, last}
    for var in reversed(members):
        if var in chain or var in after:
            continue
        feeds = not operands.isdisjoint(users.get(var, set()))
        if var in _reached(first, users, inside) or (feeds and not parts[var].moves):
            return False
        if feeds:
            operands.add(var)
    shape = parts[last].shape
    return all(
        (parts[var].kind <= PatternKind.BROADCAST and same_shape(parts[var].shape, shape))
        or (var is members[-1] and parts[var].moves)
        for var in after
    )


def only_moves(function: PrimFunc) -> bool:
    """Whether a program copies each element of its only input to one place, as a transpose does."""
    sites = block_sites(function)
    store = sites[0].only_store() if len(sites) == 1 else None
    if store is None or not isinstance(store.value, BufferLoad) or sites[0].is_reduction:
        return False
    used = [index for index in store.value.indices if as_int(index) is None]
    own = {item.var for item in sites[0].block.iter_vars if as_int(item.dom.extent) != 1}
    return (
        all(isinstance(index, Var) for index in (*used, *store.indices))
        and len(set(used)) == len(used)
        and own <= set(used)
    )


def _reached(start: rx.Var, users: dict[rx.Var, set[rx.Var]], inside: set[rx.Var]) -> set[rx.Var]:
    found: set[rx.Var] = set()
    waiting = [start]
    while waiting:
        for user in users.get(waiting.pop(), set()):
            if user in inside and user not in found:
                found.add(user)
                waiting.append(user)
    return found
