"""The values in sight of a node: those of its graph, then those of the graphs around it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable

from transect.frontend.onnx.values import Elements, Operand
from transect.relax.expr import Value


class Scope:
    """The operands of one graph by name.

    outer: the graph around a subgraph, whose names are in sight. numbers: the elements that were
    read from tensors at run time, in this sequence of bindings or one around it.
    """

    def __init__(
        self, outer: Scope | None = None, numbers: ChainMap[Value, Elements] | None = None
    ) -> None:
        self._outer = outer
        self._operands: dict[str, Operand] = {}
        self.numbers: ChainMap[Value, Elements] = ChainMap() if numbers is None else numbers

    def branch(self) -> Scope:
        """The scope of a subgraph, which sees these names and emits into a sequence of its own."""
        return Scope(self, self.numbers.new_child())

    def inline(self) -> Scope:
        """The scope of a subgraph that is put where its node stands."""
        return Scope(self, self.numbers)

    def function(self) -> Scope:
        """The scope of a function's body, which sees no names and emits where its call stands."""
        return Scope(None, self.numbers)

    def find(self, name: str) -> Operand | None:
        """The value of a name, None if nothing before defines it."""
        scope: Scope | None = self
        while scope is not None:
            found = scope._operands.get(name)
            if found is not None:
                return found
            scope = scope._outer
        return None

    def defines(self, name: str) -> bool:
        """Whether this graph itself defines a name."""
        return name in self._operands

    def define(self, name: str, operand: Operand) -> None:
        """Give a name its value."""
        self._operands[name] = operand

    def names(self) -> Iterable[str]:
        """The names that this graph itself defines."""
        return self._operands
