"""IndexMap: how a layout maps the indices of one view of a buffer or block to those of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, ExprLike, Var, as_expr
from transect.ir.node import Node, node
from transect.ir.traverse import substitute
from transect.support.errors import InputTypeError
from transect.support.span import Spans


@node
class IndexMap(Node):
    """(inputs) -> (outputs); the outputs are expressions over the inputs."""

    binds: ClassVar[tuple[str, ...]] = ("inputs",)

    inputs: tuple[Var, ...]
    outputs: tuple[Expr, ...]
    span: Spans = ()

    def apply(self, indices: Sequence[ExprLike]) -> tuple[Expr, ...]:
        """The outputs for these indices. Raises InputTypeError for a wrong number of them."""
        if len(indices) != len(self.inputs):
            raise InputTypeError(
                f"an index map of {len(self.inputs)} indices applied to {len(indices)}"
            )
        values = {
            var: as_expr(index, var.dtype) for var, index in zip(self.inputs, indices, strict=True)
        }
        return tuple(substitute(item, values) for item in self.outputs)


def index_map(function: Callable[..., object], names: Sequence[str]) -> IndexMap:
    """The map that `function` computes on variables with these names; it returns one index or a
    sequence of them."""
    inputs = tuple(Var(name, INDEX) for name in names)
    result = function(*inputs)
    items: Sequence[ExprLike] = result if isinstance(result, list | tuple) else (result,)  # pyright: ignore[reportAssignmentType, reportUnknownVariableType]
    return IndexMap(inputs, tuple(as_expr(item, INDEX) for item in items))
