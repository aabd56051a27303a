"""CommReducer: how a reduction across threads joins values; of "reduce_scope" attributes."""

from __future__ import annotations

from typing import ClassVar

from transect.ir.expr import Expr, Var
from transect.ir.node import Node, node
from transect.support.span import Spans


@node
class CommReducer(Node):
    """result = combine(left, right), elementwise on tuples; `neutral` changes nothing.

    left, right: one variable for each value that is reduced together; result: expressions over
    them; neutral: constants of the same dtypes.
    """

    binds: ClassVar[tuple[str, ...]] = ("left", "right")

    left: tuple[Var, ...]
    right: tuple[Var, ...]
    result: tuple[Expr, ...]
    neutral: tuple[Expr, ...]
    span: Spans = ()
