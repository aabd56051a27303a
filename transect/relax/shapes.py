"""Symbolic dimensions inside graph types: which are defined, substituting, erasing, proving equal.

Matching parameter types against argument types lives in `unify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from transect.arith import Analyzer
from transect.ir.dtype import INDEX
from transect.ir.expr import NE, Binary, Expr, IntImm, Var, cast, fold_binary
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, substitute
from transect.ir.types import (
    CallableType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)

ProveEqual = Callable[[Expr, Expr], bool]
"""Whether two dimensions are always equal."""


def shape_analyzer(*exprs: Expr) -> Analyzer:
    """An Analyzer that knows that the variables in `exprs`, being dimensions, are not negative."""
    analyzer = Analyzer()
    for var in free_vars(exprs):
        analyzer.bind(var, (0, None))
    return analyzer


def _same_dtype(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    return (a, b) if a.dtype is b.dtype else (cast(a, INDEX), cast(b, INDEX))


@lru_cache(maxsize=1 << 14)
def _is_equal(a: Expr, b: Expr) -> bool:
    return shape_analyzer(a, b).can_prove_equal(a, b)


@lru_cache(maxsize=1 << 14)
def _is_different(a: Expr, b: Expr) -> bool:
    return shape_analyzer(a, b).can_prove(NE(a, b))


def prove_equal(a: Expr, b: Expr) -> bool:
    """Whether two dimensions are provably the same number, whatever their integer dtypes."""
    if a is b:
        return True
    a, b = _same_dtype(a, b)
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        return a.value == b.value
    return _is_equal(a, b)


def prove_different(a: Expr, b: Expr) -> bool:
    """Whether two dimensions are provably never the same number."""
    if a is b:
        return False
    a, b = _same_dtype(a, b)
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        return a.value != b.value
    return _is_different(a, b)


def show(dim: Expr) -> str:
    """A dimension in a message: a number or a name where it is one."""
    if isinstance(dim, Var):
        return dim.name
    return str(dim.value) if isinstance(dim, IntImm) else repr(dim)


def same_shape(a: tuple[Expr, ...] | None, b: tuple[Expr, ...] | None) -> bool:
    """Whether two shapes are known and provably equal."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(prove_equal(x, y) for x, y in zip(a, b, strict=True))


def dimensions(kind: Type) -> Iterator[Expr]:
    """The dimensions and known scalar values in a type, tuples included, functions not."""
    if isinstance(kind, TensorType):
        yield from kind.shape or ()
    elif isinstance(kind, ShapeType):
        yield from kind.values or ()
    elif isinstance(kind, PrimType):
        if kind.value is not None:
            yield kind.value
    elif isinstance(kind, TupleType):
        for item in kind.items:
            yield from dimensions(item)


def plain_vars(kinds: Iterable[Type]) -> list[Var]:
    """The variables that stand alone as a dimension: those that a parameter of this type binds."""
    found = (dim for kind in kinds for dim in dimensions(kind))
    return list(dict.fromkeys(dim for dim in found if isinstance(dim, Var)))


def type_vars(kind: Type) -> list[Var]:
    """The distinct variables free in a type; what a CallableType binds itself is not free."""
    if isinstance(kind, CallableType):
        bound = set(plain_vars(kind.params or ()))
        inner = [var for part in (*(kind.params or ()), kind.ret) for var in type_vars(part)]
        return list(dict.fromkeys(var for var in inner if var not in bound))
    if isinstance(kind, TupleType):
        return list(dict.fromkeys(var for item in kind.items for var in type_vars(item)))
    return free_vars(dimensions(kind))


def fold_constants(item: Term) -> Term:
    """`item` as a constant if its operands are; for `rewrite` after a substitution."""
    if isinstance(item, Binary):
        folded = fold_binary(type(item), item.a, item.b)
        return item if folded is None else folded
    return item


def substitute_expr(value: Expr, values: Mapping[Var, Expr]) -> Expr:
    """`value` with variables replaced, and what became constant folded."""
    if not values:
        return value
    replaced = substitute(value, values)
    return value if replaced is value else rewrite(replaced, fold_constants)


def substitute_type(kind: Type, values: Mapping[Var, Expr]) -> Type:
    """`kind` with symbolic variables replaced, and what became constant folded."""
    if not values:
        return kind
    replaced = substitute(kind, values)
    return kind if replaced is kind else rewrite(replaced, fold_constants)


def erase(kind: Type, unknown: Iterable[Var]) -> Type:
    """`kind` without what depends on the variables `unknown`: shapes become unknown, ranks stay."""
    hidden = set(unknown)

    def depends(values: Iterable[Expr]) -> bool:
        return any(var in hidden for var in free_vars(values))

    def visit(item: Type) -> Type:
        if isinstance(item, TensorType) and item.shape is not None and depends(item.shape):
            return tensor_type(None, item.dtype, item.ndim, item.device)
        if isinstance(item, ShapeType) and item.values is not None and depends(item.values):
            return ShapeType(None, item.ndim)
        if isinstance(item, PrimType) and item.value is not None and depends((item.value,)):
            return PrimType(item.dtype)
        if isinstance(item, TupleType):
            return TupleType(tuple(visit(part) for part in item.items))
        return item

    return visit(kind) if hidden else kind
