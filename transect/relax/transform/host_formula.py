"""Dimensions of a graph function as formulas of the runtime (`runtime.dimension`)."""

from __future__ import annotations

import keyword
from collections.abc import Iterable

from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Cast,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    Var,
)

_SYMBOLS: dict[type[Binary], str] = {
    Add: "+", Sub: "-", Mul: "*", FloorDiv: "//", FloorMod: "%", EQ: "==", NE: "!=", LT: "<",
    LE: "<=", GT: ">", GE: ">=", And: "and", Or: "or",
}  # fmt: skip
_FUNCTIONS: dict[type[Binary], str] = {Min: "min", Max: "max"}
_RESERVED = frozenset({"min", "max", *keyword.kwlist})


class Names:
    """A distinct identifier for each symbolic variable, in the order given."""

    def __init__(self, variables: Iterable[Var]) -> None:
        self._names: dict[Var, str] = {}
        taken: set[str] = set(_RESERVED)
        ordered = (
            sorted(variables, key=lambda var: var.name) if isinstance(variables, set) else variables
        )
        for var in ordered:
            base = var.name if var.name.isidentifier() else "dim"
            name, number = base, 0
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            taken.add(name)
            self._names[var] = name

    def get(self, var: Var) -> str | None:
        """The name of `var`, None if it is none of the variables."""
        return self._names.get(var)


def formula(value: Expr, names: Names) -> int | str | None:
    """`value` as a number or a formula text; None if the runtime could not evaluate it."""
    if isinstance(value, IntImm):
        return value.value
    return _text(value, names)


def _text(value: Expr, names: Names) -> str | None:
    if isinstance(value, IntImm):
        return str(value.value) if value.value >= 0 else f"({value.value})"
    if isinstance(value, Var):
        return names.get(value)
    if isinstance(value, Cast):
        # Dimensions are not negative and fit in either type, so a conversion changes nothing.
        both = value.to.is_integral and value.value.dtype.is_integral
        return _text(value.value, names) if both else None
    if isinstance(value, Not):
        inner = _text(value.a, names)
        return None if inner is None else f"(not {inner})"
    if isinstance(value, Select):
        parts = [
            _text(part, names) for part in (value.true_value, value.condition, value.false_value)
        ]
        return None if None in parts else f"({parts[0]} if {parts[1]} else {parts[2]})"
    if isinstance(value, Binary):
        left, right = _text(value.a, names), _text(value.b, names)
        if left is None or right is None:
            return None
        if type(value) in _FUNCTIONS:
            return f"{_FUNCTIONS[type(value)]}({left}, {right})"
        if type(value) in _SYMBOLS:
            return f"({left} {_SYMBOLS[type(value)]} {right})"
    return None
