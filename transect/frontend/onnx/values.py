"""What the importer knows of an ONNX value: the graph value, and its elements where it is a shape.

Exported models compute shapes with tensor operators (Shape, Gather, Concat, Slice, Cast, …). Such
a value is held as its elements, integer expressions over the model's dimensions, so that a shape
stays a shape and never becomes a tensor that is computed at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transect.ir.dtype import INT64, DType, as_dtype
from transect.ir.expr import Expr, IntImm, cast
from transect.relax.expr import Constant, Value, constant

# Larger integer tensors are data (token ids, tables), not shapes.
MOST_ELEMENTS = 64


@dataclass(frozen=True)
class Elements:
    """An integer or bool tensor of rank 0 or 1, known element by element.

    values: int64 expressions (0 or 1 for bool); rank: 0 for a scalar; dtype: what it is in the
    model.
    """

    values: tuple[Expr, ...]
    rank: int
    dtype: DType = INT64

    def constant(self) -> np.ndarray | None:
        """The elements as an array if none depends on a dimension, else None."""
        if not all(isinstance(value, IntImm) for value in self.values):
            return None
        numbers = [value.value for value in self.values if isinstance(value, IntImm)]
        array = np.asarray(numbers, np.int64).astype(self.dtype.numpy)
        return array.reshape(()) if self.rank == 0 else array


@dataclass(frozen=True)
class Operand:
    """A value of the model: as a graph value, as known elements, or both."""

    value: Value | None
    elements: Elements | None = None


def known_elements(array: np.ndarray, dtype: DType) -> Elements | None:
    """The elements of a constant that may be a shape or part of one, else None."""
    if array.ndim > 1 or array.size > MOST_ELEMENTS or not (dtype.is_integral or dtype.is_bool):
        return None
    values = tuple(IntImm(int(item)) for item in array.reshape(-1) if -(2**63) <= int(item) < 2**63)
    return Elements(values, array.ndim, dtype) if len(values) == array.size else None


def constant_array(operand: Operand) -> np.ndarray | None:
    """The array of a value that is known while importing, else None."""
    if isinstance(operand.value, Constant):
        return operand.value.data
    return None if operand.elements is None else operand.elements.constant()


def constant_operand(array: np.ndarray) -> Operand:
    """A constant, with its elements if it may be a shape or part of one."""
    return Operand(constant(array), known_elements(array, as_dtype(array.dtype)))


def aligned(items: Sequence[Elements]) -> list[tuple[Expr, ...]] | None:
    """The elements of several operands broadcast against each other, row by row; None if their
    lengths do not fit."""
    size = max(len(item.values) for item in items)
    if size > 1 and any(len(item.values) == 0 for item in items):
        return None
    size = min([size, *(len(item.values) for item in items if len(item.values) == 0)])
    if any(len(item.values) not in (1, size) for item in items):
        return None
    columns = [item.values if len(item.values) == size else item.values * size for item in items]
    return list(zip(*columns, strict=True))


def as_dimension(value: Expr) -> Expr:
    """An element as a dimension: an int64 expression."""
    return cast(value, INT64)
