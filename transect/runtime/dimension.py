"""Shape expressions of a signature: integer formulas over named dimensions, as text.

Text may come from a file, so it is parsed and checked against a short list of forms; nothing else
can be evaluated. Where the formulas come from (terms of the compiler) is not known here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from transect.support.errors import InputError

_LONGEST = 10_000
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_FUNCTIONS = ("min", "max")


def check_formula(text: str, names: Iterable[str]) -> str:
    """`text` in a normal form, safe to compile, if it is a formula over `names`.

    Formulas are integers, names, + - * // % with Python's meaning, -a, min(a, b), max(a, b),
    comparisons, `and`, `or`, `not`, and `a if condition else b`. Raises InputError otherwise.
    """
    known = frozenset(names)
    if len(text) > _LONGEST:
        raise InputError(f"a shape formula of {len(text)} characters", remedy=f"at most {_LONGEST}")
    try:
        tree = ast.parse(text, mode="eval")
        _check(tree.body, known)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"not a shape formula: {text!r}", notes=[str(error)]) from None
    return ast.unparse(tree)


def _check(item: ast.expr, names: frozenset[str]) -> None:
    """Raise ValueError for anything but the forms of `check_formula`."""
    match item:
        case ast.Constant(value=int() as value) if type(value) is int:
            return
        case ast.Name(id=name):
            if name not in names:
                raise ValueError(f"unknown dimension {name!r}")
        case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, _OPERATORS):
            _check(left, names)
            _check(right, names)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            _check(operand, names)
        case ast.BoolOp(values=values):
            for value in values:
                _check(value, names)
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if isinstance(
            operator, _COMPARISONS
        ):
            _check(left, names)
            _check(right, names)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            for part in (test, body, orelse):
                _check(part, names)
        case ast.Call(func=ast.Name(id=name), args=[left, right], keywords=[]) if (
            name in _FUNCTIONS
        ):
            _check(left, names)
            _check(right, names)
        case _:
            raise ValueError(f"{ast.unparse(item)!r} is not allowed here")


class _Rename(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def rename(formula: str, names: Mapping[str, str]) -> str:
    """A checked formula with its dimensions renamed."""
    return ast.unparse(_Rename(names).visit(ast.parse(formula, mode="eval")))


def names_in(formula: str) -> set[str]:
    """The dimensions that a checked formula uses."""
    found = {
        item.id for item in ast.walk(ast.parse(formula, mode="eval")) if isinstance(item, ast.Name)
    }
    return found - set(_FUNCTIONS)
