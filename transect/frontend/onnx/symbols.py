"""The symbolic variables of a model: its named dimensions, and numbers that only a run knows.

Graph inference takes every variable of a shape to be a dimension, which is never negative. Numbers
that may be negative (a begin of a slice, the -1 of a Reshape) are therefore held as the difference
of two variables. How their values are read at run time is in `data_shapes`.
"""

from __future__ import annotations

from transect.arith.analyzer import Analyzer
from transect.ir.expr import Expr, Var
from transect.ir.traverse import free_vars
from transect.relax.emit import Names

LARGEST_DIMENSION = 10**9 - 1
"""The bound that dynamic dimensions get where the user gives none: exporters write "to the end" of
a slice as any large number from here on. A compiled model checks it at every call."""


class Symbols:
    """The variables of one model, each with a name of its own, and what is known of them."""

    def __init__(self) -> None:
        self.analyzer = Analyzer()
        self.dimensions: dict[str, Var] = {}
        self._names = Names()
        self._negative: set[Var] = set()

    def dimension(self, key: str) -> Var:
        """The dynamic dimension that the model calls `key`, made when first asked for."""
        if key not in self.dimensions:
            self.dimensions[key] = self._new(key, LARGEST_DIMENSION)
        return self.dimensions[key]

    def size(self, hint: str) -> Var:
        """A new variable for a number that is not negative."""
        return self._new(hint, None)

    def signed(self, hint: str) -> tuple[Var, Var]:
        """Two new variables, whose difference is a number of any sign."""
        positive, negative = self._new(hint, None), self._new(f"minus_{hint}", None)
        self._negative.add(negative)
        return positive, negative

    def may_be_negative(self, expr: Expr) -> bool:
        """Whether an expression depends on data such that its sign is not known."""
        return self.is_signed(expr) and not self.analyzer.can_prove(expr >= 0)

    def is_signed(self, expr: Expr) -> bool:
        """Whether an expression has a number of any sign in it."""
        return not self._negative.isdisjoint(free_vars((expr,)))

    def _new(self, hint: str, most: int | None) -> Var:
        var = Var(self._names.fresh(identifier(hint)))
        self.analyzer.bind(var, (0, most))
        return var


def identifier(name: str) -> str:
    """`name` as a Python identifier, for the printed program."""
    text = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return text if text[:1].isalpha() or text[:1] == "_" else f"_{text}"
