"""Blocks: what the statements of a block's head declare, and the block that they make."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from transect.ir.expr import Expr, Range, Var, as_expr, true
from transect.ir.traverse import substitute
from transect.script import directives as d
from transect.script.axes import make_range
from transect.script.parser.function import FunctionParser
from transect.support.span import Spans
from transect.tir.access import block_regions
from transect.tir.buffer import Buffer, BufferRegion
from transect.tir.stmt import Block, BlockRealize, IterVar, MatchBufferRegion, Stmt


@dataclass
class BlockState:
    """What is known of the block that is being parsed. explicit: the root, written out."""

    name: str
    no_realize: bool = False
    is_root: bool = False
    explicit: bool = False
    iter_vars: list[IterVar] = field(default_factory=list[IterVar])
    values: list[Expr] = field(default_factory=list[Expr])
    predicate: Expr | None = None
    reads: tuple[BufferRegion, ...] | None = None
    writes: tuple[BufferRegion, ...] | None = None
    annotations: dict[str, Any] = field(default_factory=dict[str, Any])
    init: Stmt | None = None
    alloc_buffers: list[Buffer] = field(default_factory=list[Buffer])
    match_buffers: list[MatchBufferRegion] = field(default_factory=list[MatchBufferRegion])

    def declare(
        self, value: d.Regions | d.Where | d.Attributes, parser: FunctionParser, node: ast.stmt
    ) -> None:
        """`T.reads`, `T.writes`, `T.where`, `T.block_attr`."""
        if self.is_root and not self.explicit:
            raise parser.error("this stands in a block", node, 'open one: with T.block("name"):')
        if isinstance(value, d.Where):
            predicate = as_expr(value.condition)
            if not predicate.dtype.is_bool:
                raise parser.error(
                    f"a condition must be a bool, got {predicate.dtype}",
                    node,
                    "write a comparison, such as i < n",
                )
            self.predicate = predicate
        elif isinstance(value, d.Attributes):
            if value.role != "block":
                raise parser.error(
                    "attributes of a module stand in its class",
                    node,
                    "move the line out of the function",
                )
            self.annotations.update(value.values)
        else:
            if getattr(self, value.role) is not None:
                raise parser.error(
                    f"T.{value.role} stands once in a block", node, "give all regions in one call"
                )
            setattr(self, value.role, value.regions)


def bind_axis(
    state: BlockState, name: str, value: d.Axis, parser: FunctionParser, node: ast.stmt
) -> Var:
    """Add an iteration variable to the block."""
    domain = value.domain
    if isinstance(domain, Range):
        interval = domain
    elif isinstance(domain, tuple) and len(domain) == 2:  # pyright: ignore[reportUnknownArgumentType]
        interval = make_range(domain[0], domain[1])  # pyright: ignore[reportUnknownArgumentType]
    else:
        interval = make_range(0, parser.dimension(domain, node))
    var = Var(name, value.dtype or interval.extent.dtype)
    state.iter_vars.append(IterVar(var, interval, value.kind, parser.source.span(node)))
    if value.value is not None:
        shown = as_expr(value.value, var.dtype)
        if not shown.dtype.is_integral:
            raise parser.error(
                f"the value of an axis must be an integer, got {shown.dtype}",
                node,
                'T.Cast("int64", ...) makes it one',
            )
        state.values.append(shown)
    elif not state.no_realize:
        raise parser.error("an axis needs a value", node, "T.axis.spatial(extent, value)")
    return var


def finish_block(state: BlockState, body: Stmt, span: Spans) -> Stmt:
    """The block, its regions filled in where the script does not give them."""
    reads, writes = state.reads, state.writes
    if reads is None or writes is None:
        if state.is_root or state.name == "root":
            found: tuple[tuple[BufferRegion, ...], tuple[BufferRegion, ...]] = ((), ())
        else:
            parts = (body,) if state.init is None else (state.init, body)
            local = {*state.alloc_buffers, *(match.buffer for match in state.match_buffers)}
            all_reads, all_writes = block_regions(*parts)
            found = (
                tuple(region for region in all_reads if region.buffer not in local),
                tuple(region for region in all_writes if region.buffer not in local),
            )
        reads = found[0] if reads is None else reads
        writes = found[1] if writes is None else writes
    block = Block(
        state.name,
        tuple(state.iter_vars),
        reads,
        writes,
        body,
        state.init,
        tuple(state.alloc_buffers),
        tuple(state.match_buffers),
        state.annotations,
        span,
    )
    if state.no_realize:
        return block
    # The predicate is evaluated outside of the block, in terms of the loops.
    values = {item.var: value for item, value in zip(state.iter_vars, state.values, strict=True)}
    predicate = true() if state.predicate is None else substitute(state.predicate, values)
    return BlockRealize(tuple(state.values), predicate, block, span)
