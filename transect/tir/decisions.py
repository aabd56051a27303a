"""Decision variables: sizes of tiles that are not chosen yet, as free variables of a program.

A variable that no parameter, loop or block binds stands for a number that somebody will choose:
a positive one. A program that has them can be scheduled and analysed, not run; `decide` puts the
numbers in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from transect.ir.expr import Binary, Expr, Var, as_expr, fold_binary
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite
from transect.support.errors import InputError
from transect.tir.function import PrimFunc, buffer_fields
from transect.tir.stmt import Block, BlockRealize, For
from transect.tir.visit import Substitution, bound_vars, walk_stmts

TermT = TypeVar("TermT", bound=Term)


def decision_vars(func: PrimFunc) -> tuple[Var, ...]:
    """The variables of extents, domains and shapes that nothing binds, in program order."""
    if not isinstance(func.body, BlockRealize):
        return ()
    known: set[Var] = set(func.params)
    known.update(free_vars(field for value in func.buffers for field in buffer_fields(value)))
    roots: list[Term] = []
    for stmt in walk_stmts(func.body):
        known.update(bound_vars(stmt))
        if isinstance(stmt, For):
            roots += (stmt.min, stmt.extent)
        elif isinstance(stmt, Block):
            roots += (item.dom for item in stmt.iter_vars)
            roots += (field for value in stmt.alloc_buffers for field in buffer_fields(value))
    return tuple(var for var in free_vars(roots) if var not in known)


def fresh_variables(func: PrimFunc, terms: Iterable[object]) -> tuple[Var, ...]:
    """The variables of a primitive's options that `func` does not bind: decisions, old or new."""
    found = free_vars(item for item in terms if isinstance(item, Expr))
    if not found:
        return ()
    known: set[Var] = set(func.params)
    known.update(free_vars(field for value in func.buffers for field in buffer_fields(value)))
    for stmt in walk_stmts(func.body):
        known.update(bound_vars(stmt))
    return tuple(var for var in found if var not in known)


def decide(func: PrimFunc, values: Mapping[Var, int]) -> PrimFunc:
    """`func` with a number for each decision variable.

    Raises InputError for a variable without a number, and for a number that is not positive.
    """
    for var in decision_vars(func):
        if var not in values:
            raise InputError(
                f"no number for the decision variable {var.name!r}",
                remedy=f"values has {', '.join(item.name for item in values) or 'nothing'}",
            )
    return replace(func, body=_Decide(numbers(values)).visit(func.body))


def numbers(values: Mapping[Var, int]) -> dict[Var, Expr]:
    """The numbers as constants. Raises InputError for one that is not positive."""
    for var, value in values.items():
        if value < 1:
            raise InputError(f"{var.name} = {value}: a decision is a positive number")
    return {var: as_expr(value, var.dtype) for var, value in values.items()}


class _Decide(Substitution):
    """Substitutes numbers and folds what they make constant."""

    def expr(self, value: TermT) -> TermT:
        made = super().expr(value)
        return made if made is value else folded(made)


def folded(term: TermT) -> TermT:
    """A term with what numbers make constant folded."""
    return rewrite(term, _folded)


def _folded(item: Term) -> Term:
    found = fold_binary(type(item), item.a, item.b) if isinstance(item, Binary) else None
    return item if found is None else found
