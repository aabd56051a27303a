"""Statements as functions: what the body of a hand-written block is made of."""

from __future__ import annotations

from collections.abc import Callable

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, ExprLike, Var, as_expr, cast
from transect.tir.buffer import Buffer
from transect.tir.stmt import Bind, BufferStore, For, IfThenElse, Stmt, While, seq


def store(buffer: Buffer, indices: tuple[ExprLike, ...], value: ExprLike) -> BufferStore:
    """buffer[indices] = value. A number takes the buffer's dtype; an expression must have it."""
    expr = value if isinstance(value, Expr) else cast(as_expr(value, buffer.dtype), buffer.dtype)
    return BufferStore(buffer, expr, tuple(as_expr(index, INDEX) for index in indices))


def when(condition: Expr, then_case: Stmt, else_case: Stmt | None = None) -> IfThenElse:
    """if condition: then_case else: else_case."""
    return IfThenElse(condition, then_case, else_case)


def serial(extent: ExprLike, body: Callable[[Var], Stmt], *, name: str = "k") -> For:
    """for k in range(extent): body(k), in order."""
    stop = as_expr(extent)
    var = Var(name, stop.dtype)
    return For(var, as_expr(0, stop.dtype), stop, "serial", body(var))


def repeat_while(condition: Expr, body: Stmt) -> While:
    """while condition: body."""
    return While(condition, body)


def assign(name: str, value: ExprLike, body: Callable[[Var], Stmt]) -> Stmt:
    """name = value; body(name): evaluated once, before the body changes what it read."""
    expr = as_expr(value)
    var = Var(name, expr.dtype)
    return seq(Bind(var, expr), body(var))
