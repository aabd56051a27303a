"""The state of one running function, and what closures may ask of the interpreter around it."""

from __future__ import annotations

import math
from typing import Any, Protocol

from transect.ir.expr import Var
from transect.ir.term import Term

Value = Any


class Runner(Protocol):
    """The interpreter, as seen from inside a function that it runs."""

    vectorize: bool

    def call_native(self, name: str, args: list[Value]) -> None:
        """Call a PrimFunc of the module: one value per parameter, then the symbolic variables."""
        ...

    def call_packed(self, name: str, args: list[Value]) -> Value:
        """Call a registered packed function."""
        ...

    def call_extern(self, symbol: str, args: list[Value]) -> Value:
        """Call a C function, by the table of Python equivalents."""
        ...


class Frame:
    """Variables and the open grid.

    vars: values of variables; of pointers a `Pointer`. ints: Python integers of loop variables and
    integer bindings that do not vary along the grid. starts, lengths: of the open grid axes,
    outermost first: axis a runs its counter over [starts[a], starts[a] + lengths[a]). mask: the
    active points, None for all. cache: values of subterms shared within one statement.
    """

    __slots__ = ("cache", "ints", "lengths", "mask", "runner", "starts", "vars")

    def __init__(self, runner: Runner) -> None:
        self.vars: dict[Var, Value] = {}
        self.ints: dict[Var, int] = {}
        self.starts: list[int] = []
        self.lengths: list[int] = []
        self.mask: Value = None
        self.cache: dict[Term, Value] = {}
        self.runner = runner

    @property
    def points(self) -> int:
        """How many points the open grid has."""
        return math.prod(self.lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a full array over the grid: the innermost axis first."""
        return tuple(reversed(self.lengths))


class ReturnSignal(Exception):
    """A `ret` was reached."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value
