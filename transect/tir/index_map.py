"""IndexMap: how a layout maps the indices of one view of a buffer or block to those of another.

Shapes and inverses of maps are found in `index_image`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, ExprLike, Var, as_expr
from transect.ir.node import Node, node
from transect.ir.traverse import substitute
from transect.support.errors import InputTypeError
from transect.support.span import Spans


@node
class IndexMap(Node):
    """(inputs) -> (outputs); the outputs are expressions over the inputs.

    AXIS_SEPARATOR: among the outputs of a function given to `Schedule.transform_layout`, where the
    axes of the new buffer are cut into groups.
    """

    binds: ClassVar[tuple[str, ...]] = ("inputs",)
    AXIS_SEPARATOR: ClassVar[str] = "axis_separator"

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


def index_map_of(function: Callable[..., object], rank: int) -> tuple[IndexMap, tuple[int, ...]]:
    """The map that a function of `rank` indices computes, and the axes before which it put
    IndexMap.AXIS_SEPARATOR. Raises InputTypeError if it takes another number of indices."""
    names: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"i{number}" for number in range(len(names), rank)]
        else:
            names.append(name)
    if len(names) != rank:
        raise InputTypeError(f"an index map of {len(names)} indices where there are {rank}")
    separators: list[int] = []

    def without(*inputs: Var) -> object:
        result = function(*inputs)
        if not isinstance(result, list | tuple):
            return result
        kept: list[object] = []
        for item in cast(Sequence[object], result):
            if item is IndexMap.AXIS_SEPARATOR:
                separators.append(len(kept))
            else:
                kept.append(item)
        return kept

    return index_map(without, names), tuple(separators)
