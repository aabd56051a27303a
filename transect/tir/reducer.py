"""CommReducer: how a reduction across threads joins values, the node of a "reduce_scope" attribute."""

from __future__ import annotations

from typing import ClassVar

from transect.ir.expr import Expr, Var
from transect.ir.node import Node, node
from transect.support.span import Spans


@node
class CommReducer(Node):
    """result = combine(left, right), elementwise on tuples; `identity` changes nothing.

    left, right: one variable for each value that is reduced together; result: expressions over
    them; identity: constants of the same dtypes.
    """

    binds: ClassVar[tuple[str, ...]] = ("left", "right")

    left: tuple[Var, ...]
    right: tuple[Var, ...]
    result: tuple[Expr, ...]
    identity: tuple[Expr, ...]
    span: Spans = ()
