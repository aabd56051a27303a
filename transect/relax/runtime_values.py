"""Values while a graph program is interpreted: arrays, numbers, shapes, tuples; matching them
against types, which binds symbolic variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transect.arith import Analyzer
from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, FloatImm, IntImm, Var, as_expr, const
from transect.ir.types import (
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax.shapes import substitute_expr
from transect.runtime.arrays import as_numpy, as_sequence
from transect.runtime.functions import from_ffi
from transect.support.errors import ExecutionError

Symbols = dict[Var, int | float | bool]
"""Values of symbolic variables."""


class ShapeValue(tuple[int, ...]):
    """A shape, told apart from a tuple of values."""

    __slots__ = ()


def as_value(value: Any) -> Any:
    """A value from outside in the interpreter's terms: anything array-like becomes an array."""
    value = from_ffi(value)
    if isinstance(value, ShapeValue):
        return value
    array = as_numpy(value)
    if array is not None:
        return array
    items = as_sequence(value)
    if items is not None:
        return tuple(as_value(item) for item in items)
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else value


def evaluate(expr: Expr, symbols: Mapping[Var, int | float | bool]) -> int | float | bool:
    """The number that `expr` is. Raises ExecutionError if a variable in it has no value."""
    values = {var: const(value, var.dtype) for var, value in symbols.items()}
    result = substitute_expr(expr, values)
    if not isinstance(result, IntImm | FloatImm):
        result = Analyzer().simplify(result)
    if isinstance(result, IntImm | FloatImm):
        return bool(result.value) if result.dtype.is_bool else result.value
    raise ExecutionError(f"{expr!r} has no value: a symbolic variable in it is not bound")


def describe(value: Any) -> str:
    """A value in a message: its shape and dtype, or its Python type."""
    array = as_numpy(value)
    if array is not None:
        return f"a tensor of shape {array.shape} and dtype {array.dtype}"
    items = as_sequence(value)
    if items is None:
        return type(value).__name__
    return (
        f"the shape {tuple(items)}" if isinstance(value, ShapeValue) else f"a tuple of {len(items)}"
    )


class Match:
    """Matches values against types, binding `symbols` by the dimensions that are plain variables.

    Raises ExecutionError, which names what does not fit: the declared and the actual value.
    """

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self._pending: list[tuple[Expr, int | float | bool, str]] = []

    def value(self, kind: Type, value: Any, what: str) -> None:
        """Match one value; its dimensions that are not plain are compared by `finish`."""
        if isinstance(kind, TensorType):
            self._tensor(kind, value, what)
        elif isinstance(kind, ShapeType):
            dims = self._shape(value, kind, what)
            if kind.values is not None:
                self._dims(kind.values, dims, what)
        elif isinstance(kind, PrimType):
            if not isinstance(value, bool | int | float):
                raise ExecutionError(f"{what} must be a scalar, got {describe(value)}")
            if kind.value is not None:
                self._dim(kind.value, value, what)
        elif isinstance(kind, TupleType):
            items = as_sequence(value)
            if items is None or len(items) != len(kind.items):
                raise ExecutionError(
                    f"{what} must be a tuple of {len(kind.items)}, got {describe(value)}"
                )
            for index, (part, item) in enumerate(zip(kind.items, items, strict=True)):
                self.value(part, item, f"item {index} of {what}")

    def finish(self) -> None:
        """Compare the dimensions that are expressions, now that their variables are bound."""
        for declared, actual, what in self._pending:
            expected = evaluate(declared, self.symbols)
            if expected != actual:
                meaning = "" if isinstance(declared, IntImm) else f" = {declared!r}"
                raise ExecutionError(f"{what} must be {expected}{meaning}, got {actual}")
        self._pending.clear()

    def _tensor(self, kind: TensorType, value: Any, what: str) -> None:
        array = as_numpy(value)
        if array is None:
            raise ExecutionError(f"{what} must be a tensor, got {describe(value)}")
        if kind.dtype is not None and as_dtype(array.dtype) is not kind.dtype:
            raise ExecutionError(f"{what} must have dtype {kind.dtype}, got {array.dtype}")
        if kind.ndim not in (-1, array.ndim):
            raise ExecutionError(f"{what} must have {kind.ndim} dimensions, got {array.ndim}")
        if kind.shape is not None:
            self._dims(kind.shape, array.shape, what)

    def _shape(self, value: Any, kind: ShapeType, what: str) -> Sequence[int]:
        dims = as_sequence(value)
        if dims is None:
            raise ExecutionError(f"{what} must be a shape, got {describe(value)}")
        if kind.ndim not in (-1, len(dims)):
            raise ExecutionError(f"{what} must have {kind.ndim} dimensions, got {len(dims)}")
        return dims

    def _dims(self, declared: Sequence[Expr], actual: Sequence[int], what: str) -> None:
        for axis, (dim, size) in enumerate(zip(declared, actual, strict=True)):
            self._dim(dim, size, f"dimension {axis} of {what}")

    def _dim(self, declared: Expr, actual: int | float | bool, what: str) -> None:
        if isinstance(declared, Var) and declared not in self.symbols:
            self.symbols[declared] = actual
        else:
            self._pending.append((declared, actual, what))


def concrete_type(kind: Type, value: Any) -> Type:
    """The type of a value, every dimension a number; `kind` says what it was declared as."""
    array = as_numpy(value)
    if array is not None:
        return tensor_type(tuple(as_expr(n) for n in array.shape), as_dtype(array.dtype))
    if isinstance(value, ShapeValue):
        return ShapeType(tuple(as_expr(n) for n in value), len(value))
    if isinstance(value, bool | int | float):
        dtype = kind.dtype if isinstance(kind, PrimType) else as_expr(value).dtype
        return PrimType(dtype, const(value, dtype))
    items = as_sequence(value)
    if items is not None:
        if isinstance(kind, ShapeType):
            return ShapeType(tuple(as_expr(int(n)) for n in items), len(items))
        parts = kind.items if isinstance(kind, TupleType) else (ObjectType(),) * len(items)
        return TupleType(tuple(map(concrete_type, parts, items)))
    return ObjectType()
