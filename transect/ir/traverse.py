"""Walking and rewriting terms: iterative, each shared subterm visited once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from transect.ir.expr import Expr, Var
from transect.ir.term import Term

TermT = TypeVar("TermT", bound=Term)


def walk(*roots: Term) -> Iterator[Term]:
    """Every distinct subterm of `roots`, parents before children, left to right."""
    seen: set[Term] = set()
    stack = list(reversed(roots))
    while stack:
        item = stack.pop()
        if item in seen:
            continue
        seen.add(item)
        yield item
        inner = item.children()
        if inner:
            stack += inner[::-1]


def free_vars(roots: Iterable[Term]) -> list[Var]:
    """The distinct variables in `roots`, in order of first appearance."""
    return [item for item in walk(*roots) if isinstance(item, Var)]


def rewrite(
    root: TermT, function: Callable[[Term], Term], memo: dict[Term, Term] | None = None
) -> TermT:
    """`root` rebuilt from the leaves up, `function` applied to each subterm after its children.

    memo: results by subterm, shared between calls with the same `function`. A term that does not
    change stays the same object.
    """
    done: dict[Term, Term] = {} if memo is None else memo
    stack: list[Term] = [root]
    while stack:
        item = stack[-1]
        if item in done:
            stack.pop()
            continue
        waiting = [child for child in item.children() if child not in done]
        if waiting:
            stack += waiting
            continue
        done[item] = function(item.map_children(done.__getitem__))
        stack.pop()
    return done[root]  # pyright: ignore[reportReturnType]


def substitute(root: TermT, values: Mapping[Var, Expr]) -> TermT:
    """`root` with variables replaced. Folds nothing: simplify afterwards where that matters."""
    if not values:
        return root

    def visit(item: Term) -> Term:
        return values.get(item, item) if isinstance(item, Var) else item

    return rewrite(root, visit)
