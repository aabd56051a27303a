"""Statements: stores, bindings, allocations, control flow, loops and blocks.

Bindings (`Bind`, `Allocate`, `AllocateConst`, `DeclBuffer`) are flat: what they define is visible
in the rest of the `SeqStmt` that holds them, nested statements included. `Block.alloc_buffers`
and `Block.match_buffers` are visible in the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Literal

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import Expr, Range, Var, true
from transect.ir.node import Node, node
from transect.support.span import Spans
from transect.tir.buffer import Buffer, BufferRegion


class Stmt(Node):
    """Base of statements."""

    __slots__ = ()


@node
class Evaluate(Stmt):
    """Evaluate for the effect; a PrimFunc that is called returns only whether it failed."""

    value: Expr
    span: Spans = ()


@node
class BufferStore(Stmt):
    """buffer[indices] = value; `predicate`: lanes to write, None for all."""

    buffer: Buffer
    value: Expr
    indices: tuple[Expr, ...]
    predicate: Expr | None = None
    span: Spans = ()


@node
class Bind(Stmt):
    """var = value, once."""

    binds: ClassVar[tuple[str, ...]] = ("var",)

    var: Var
    value: Expr
    span: Spans = ()


@node
class Allocate(Stmt):
    """Memory for `extents` elements, released at the end of the enclosing SeqStmt.

    The variable's Pointer says the scope. annotations: e.g. {"alignment": 1024}.
    """

    binds: ClassVar[tuple[str, ...]] = ("var",)

    var: Var
    dtype: DType
    extents: tuple[Expr, ...]
    annotations: Mapping[str, Any]
    span: Spans = ()


@node
class AllocateConst(Stmt):
    """Read-only memory that holds `data`."""

    binds: ClassVar[tuple[str, ...]] = ("var",)

    var: Var
    data: np.ndarray
    span: Spans = ()


@node
class DeclBuffer(Stmt):
    """A buffer over memory that exists already: its data variable is bound elsewhere."""

    binds: ClassVar[tuple[str, ...]] = ("buffer",)

    buffer: Buffer
    span: Spans = ()


@node
class AssertStmt(Stmt):
    """Fail the function with `message` (and the Python exception class `kind`) if not `condition`.

    message: parts joined without a separator; an expression among them is printed as a number.
    """

    condition: Expr
    message: tuple[str | Expr, ...]
    kind: str = "ValueError"
    span: Spans = ()


@node
class AttrStmt(Stmt):
    """`body` with an attribute: `key` of `node` is `value` (TVMScript's T.attr)."""

    node: Any
    key: str
    value: Any
    body: Stmt
    span: Spans = ()


@node
class SeqStmt(Stmt):
    """Statements in order; an item is itself a SeqStmt only to limit a scope. Build with `seq`."""

    stmts: tuple[Stmt, ...]
    span: Spans = ()


@node
class IfThenElse(Stmt):
    """if condition: then_case else: else_case."""

    condition: Expr
    then_case: Stmt
    else_case: Stmt | None = None
    span: Spans = ()


ForKind = Literal["serial", "parallel", "vectorized", "unrolled", "thread_binding"]


@node
class For(Stmt):
    """for var in range(min, min + extent).

    kind: "parallel" iterations are independent; "thread_binding" maps them to the thread axis
    named by `thread` ("blockIdx.x", "threadIdx.x", "vthread", …). annotations: hints to passes.
    """

    binds: ClassVar[tuple[str, ...]] = ("var",)

    var: Var
    min: Expr
    extent: Expr
    kind: ForKind
    body: Stmt
    thread: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])
    span: Spans = ()


@node
class While(Stmt):
    """while condition: body."""

    condition: Expr
    body: Stmt
    span: Spans = ()


IterKind = Literal["spatial", "reduce", "scan", "opaque"]


@node
class IterVar(Node):
    """A block's iteration variable, its domain, and what it may do.

    spatial: instances are independent; reduce: they accumulate; scan: in order; opaque: unknown.
    """

    binds: ClassVar[tuple[str, ...]] = ("var",)

    var: Var
    dom: Range
    kind: IterKind
    span: Spans = ()


@node
class MatchBufferRegion(Node):
    """Inside a block, `buffer` names the region `source`."""

    binds: ClassVar[tuple[str, ...]] = ("buffer",)

    buffer: Buffer
    source: BufferRegion
    span: Spans = ()


@node
class Block(Stmt):
    """A unit of computation, isolated from the loops around it by its iteration variables.

    reads, writes: the regions one instance touches. init: run before the first reduce iteration.
    Where a loop of the reduction has no iterations, init alone runs, so the result is its value.
    Always the `block` of a BlockRealize.
    """

    binds: ClassVar[tuple[str, ...]] = ("iter_vars", "alloc_buffers", "match_buffers")
    cosmetic: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    iter_vars: tuple[IterVar, ...]
    reads: tuple[BufferRegion, ...]
    writes: tuple[BufferRegion, ...]
    body: Stmt
    init: Stmt | None = None
    alloc_buffers: tuple[Buffer, ...] = ()
    match_buffers: tuple[MatchBufferRegion, ...] = ()
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])
    span: Spans = ()


@node
class BlockRealize(Stmt):
    """Run one instance of `block` with its iteration variables bound to `iter_values`, if
    `predicate` holds."""

    iter_values: tuple[Expr, ...]
    predicate: Expr
    block: Block
    span: Spans = ()


def seq(*stmts: Stmt) -> Stmt:
    """The statements in order: one alone stays as it is, nested sequences are joined.

    Joining widens the scope of what the inner sequences bind, which is safe as variables are
    bound once; where an allocation must end earlier, build the inner SeqStmt by hand.
    """
    flat: list[Stmt] = []
    for stmt in stmts:
        flat.extend(stmt.stmts if isinstance(stmt, SeqStmt) else (stmt,))
    return flat[0] if len(flat) == 1 else SeqStmt(tuple(flat))


def realize_root(body: Stmt, alloc_buffers: tuple[Buffer, ...] = (), **fields: Any) -> BlockRealize:
    """`body` as the root block of a function: no iteration variables, no declared regions."""
    root = Block("root", (), (), (), body, alloc_buffers=alloc_buffers, **fields)
    return BlockRealize((), true(), root)
