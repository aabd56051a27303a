"""Terms compiled to one numpy function, to evaluate them for a whole population at once.

What the terms share is computed once. Integers are taken to fit in 64 bits, as indices do;
`evaluate` is the careful way for single terms of any dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.ir.dtype import INDEX
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
from transect.ir.term import Term
from transect.support.errors import InputError, UnsupportedError

Array = Any
"""A numpy array of int64, or of bool for a condition."""

_INFIX: dict[type[Expr], str] = {
    Add: "+", Sub: "-", Mul: "*", FloorDiv: "//", FloorMod: "%", EQ: "==", NE: "!=", LT: "<",
    LE: "<=", GT: ">", GE: ">=", And: "&", Or: "|",
}  # fmt: skip
_CALLS: dict[type[Expr], str] = {Min: "minimum", Max: "maximum"}


@dataclass(frozen=True)
class Population:
    """Terms as a function of their variables.

    variables: what it takes, in order. operations: how many numpy calls one evaluation makes.
    """

    variables: tuple[Var, ...]
    operations: int
    function: Callable[..., tuple[Array, ...]]

    def __call__(self, values: Mapping[Var, Array]) -> tuple[Array, ...]:
        """The values of the terms, one array (or number, of a constant) each.

        values: of each variable, arrays that broadcast against each other. A division by zero
        gives 0. Raises InputError for a variable without values.
        """
        missing = [var.name for var in self.variables if var not in values]
        if missing:
            raise InputError(f"no values for {', '.join(missing)}")
        columns = [np.asarray(values[var], np.int64) for var in self.variables]
        with np.errstate(all="ignore"):
            return self.function(*columns)


def compile_terms(terms: Iterable[Expr]) -> Population:
    """One function for integer terms and conditions.

    Raises UnsupportedError for a term that is no arithmetic of indices: a load, a call, a float.
    """
    wanted = tuple(terms)
    lines: list[str] = []
    names: dict[Term, str] = {}
    variables: list[Var] = []
    for root in wanted:
        for item in _in_order(root, names):
            if isinstance(item, Var):
                _require_index(item)
                names[item] = f"x{len(variables)}"
                variables.append(item)
            elif isinstance(item, IntImm):
                names[item] = repr(bool(item.value) if item.dtype.is_bool else item.value)
            else:
                names[item] = f"t{len(lines)}"
                lines.append(f"    {names[item]} = {_code(item, names)}")
    results = "".join(f"{names[root]}, " for root in wanted)
    head = f"def function({', '.join(names[var] for var in variables)}):"
    scope: dict[str, Any] = {"minimum": np.minimum, "maximum": np.maximum, "where": np.where}
    scope["logical_not"] = np.logical_not
    source = "\n".join([head, *lines, f"    return ({results})"])
    exec(compile(source, "<population>", "exec"), scope)
    return Population(tuple(variables), len(lines), scope["function"])


def _in_order(root: Term, done: Mapping[Term, str]) -> Iterable[Term]:
    """The subterms that have no name yet, each after what it needs."""
    stack: list[Term] = [root]
    seen: set[Term] = set()
    while stack:
        item = stack[-1]
        if item in done or item in seen:
            stack.pop()
            continue
        waiting = [c for c in item.children() if c not in done and c not in seen]
        if waiting:
            stack += waiting
            continue
        seen.add(item)
        stack.pop()
        yield item


def _code(item: Term, names: Mapping[Term, str]) -> str:
    if isinstance(item, Binary | And | Or):
        a, b = names[item.a], names[item.b]
        if type(item) in _INFIX:
            return f"({a}) {_INFIX[type(item)]} ({b})"
        if type(item) in _CALLS:
            return f"{_CALLS[type(item)]}({a}, {b})"
    if isinstance(item, Select):
        parts = (item.condition, item.true_value, item.false_value)
        return f"where({', '.join(names[part] for part in parts)})"
    if isinstance(item, Not):
        return f"logical_not({names[item.a]})"
    if isinstance(item, Cast) and item.to is INDEX and item.value.dtype.is_integral:
        return names[item.value]
    raise UnsupportedError(f"{type(item).__name__} has no meaning for a population: {item!r}")


def _require_index(var: Var) -> None:
    if not var.dtype.is_integral:
        raise UnsupportedError(f"variable {var.name!r} is a {var.dtype}, no index")


def grid(choices: Mapping[Var, Sequence[int]]) -> dict[Var, Array]:
    """Every combination of the choices: one array for each variable, the last varying fastest."""
    axes = np.meshgrid(*(np.asarray(c, np.int64) for c in choices.values()), indexing="ij")
    return {var: axis.ravel() for var, axis in zip(choices, axes, strict=True)}
