"""Calls that may become one program because a contraction sums over the rows of another: attention.

Found from the loops of the program that they would be (`tir.analysis.row_chain`); the plan decides.
"""

from __future__ import annotations

from transect.ir.function import IRModule
from transect.relax import expr as rx
from transect.relax.effects import mutable_vars
from transect.relax.shapes import same_shape
from transect.relax.transform.fuse_tir import fuse_members
from transect.relax.transform.fusion import MOST_MEMBERS, Edge, Node, block_nodes, only_moves
from transect.relax.visit import use_counts, walk
from transect.tir.analysis import PatternKind, block_sites
from transect.tir.analysis.row_chain import find_row_chain


def row_chain_edges(function: rx.Function, module: IRModule) -> list[Edge]:
    """The pairs of contractions of `function` with functions of rows between them, and the calls
    that only move elements of what they read."""
    totals = use_counts(function)
    edges: list[Edge] = []
    for item in walk(function):
        if isinstance(item, rx.BindingBlock) and item.dataflow:
            nodes = block_nodes(item, module, mutable_vars(function, item), totals)
            edges.extend(_block_edges(nodes))
    return edges


def _block_edges(nodes: list[Node]) -> list[Edge]:
    made = {node.member.var: node for node in nodes}
    edges: list[Edge] = []
    for last in nodes:
        if last.kind is not PatternKind.CONTRACTION:
            continue
        chain = _chain_to(last, made)
        if chain is None:
            continue
        first, *through = chain[:-1]
        ways = tuple(item.member.var for item in through)
        edges.append(
            Edge(first.member.var, last.member.var, ways, first.kind, last.kind, rows=True)
        )
        edges.extend(
            Edge(node.member.var, user.member.var, (), node.kind, user.kind)
            for node in nodes
            for user in (first, last)
            if node.users == [user] and not node.escapes and only_moves(node.member.function)
        )
        edges.extend(
            Edge(last.member.var, user.member.var, (), last.kind, user.kind)
            for user in last.users
            if last.users == [user] and not last.escapes and only_moves(user.member.function)
        )
    return edges


def _chain_to(last: Node, made: dict[rx.Var, Node]) -> list[Node] | None:
    """The calls from a contraction to `last`, in program order, if they may be one program."""
    for start in last.member.inputs:
        node = made.get(start) if isinstance(start, rx.Var) else None
        found = _rows_before(node, last, made) if node is not None else None
        if found is not None:
            return found
    return None


def _rows_before(node: Node, last: Node, made: dict[rx.Var, Node]) -> list[Node] | None:
    """The calls that make what `node` makes, back to the nearest contraction, with `last`."""
    inside: dict[rx.Var, Node] = {}
    waiting = [node]
    shape = node.member.out_type.shape
    first: Node | None = None
    while waiting:
        item = waiting.pop()
        if item.member.var in inside:
            continue
        if item.kind is PatternKind.OPAQUE or len(inside) >= MOST_MEMBERS:
            return None
        inside[item.member.var] = item
        if item.kind is PatternKind.CONTRACTION:
            if first is not None:
                return None
            first = item
            continue
        for value in item.member.inputs:
            source = made.get(value) if isinstance(value, rx.Var) else None
            # Masks and the like, which are no rows of scores, stay outside.
            if source is not None and same_shape(source.member.out_type.shape, shape):
                waiting.append(source)
    if first is None or first is node:
        return None if first is None else _checked([first, last])
    return _checked([*sorted(inside.values(), key=lambda item: item.index), last])


def _checked(chain: list[Node]) -> list[Node] | None:
    inside = {node.member.var for node in chain}
    for node in chain[:-1]:
        if node.escapes or any(user.member.var not in inside for user in node.users):
            return None
    program = fuse_members([node.member for node in chain]).function
    return chain if find_row_chain(block_sites(program), program.buffers) is not None else None
