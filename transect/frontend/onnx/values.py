"""What the importer knows of an ONNX value: the graph value, and its elements where it is a shape.

Exported models compute shapes with tensor operators (Shape, Gather, Concat, Slice, Cast, …). Such
a value is held as its elements, integer expressions over the model's dimensions, so that a shape
stays a shape and never becomes a tensor that is computed at run time. How operators compute on
such values is in `operators.known`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from transect.ir.dtype import INT64, DType, as_dtype
from transect.ir.expr import Expr, IntImm, as_int, cast
from transect.relax.expr import Constant, Value, constant

# Larger integer tensors are data (token ids, tables), not shapes.
MOST_ELEMENTS = 64
# Floats of a model that take part in shapes: halves and thirds of sizes, not weights.
_MOST_FLOATS = 16
_LARGEST_FACTOR = 256

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Ratio:
    """A float that is known as a quotient of integers.

    exact: the float is the quotient. Otherwise it is the quotient rounded once, of which only the
    integer part is known for sure. Sizes are taken to be below 2**24, where float32 holds them.
    """

    top: Expr
    bottom: Expr
    exact: bool = True


Element = Expr | Ratio


@dataclass(frozen=True)
class Elements:
    """An integer or bool tensor of rank 0 or 1, known element by element.

    values: int64 expressions (0 or 1 for bool); rank: 0 for a scalar; dtype: what it is in the
    model.
    """

    values: tuple[Expr, ...]
    rank: int
    dtype: DType = INT64

    def constant(self) -> Array | None:
        """The elements as an array if none depends on a dimension, else None."""
        return Known.of(self).constant()


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor of any rank that is known element by element.

    array: of int64 expressions for an integer or bool tensor, of `Ratio`s for a float one.
    """

    array: Array
    dtype: DType

    @staticmethod
    def of(elements: Elements) -> Known:
        """Elements as an array."""
        shape = (len(elements.values),) if elements.rank else ()
        return known_array(elements.values, shape, elements.dtype)

    def elements(self) -> Elements | None:
        """The vector or scalar of integers that this is, else None."""
        if self.array.ndim > 1 or self.dtype.is_float:
            return None
        return Elements(tuple(self.array.reshape(-1)), self.array.ndim, self.dtype)

    def constant(self) -> Array | None:
        """The elements as numbers if none depends on a dimension, else None."""
        numbers = [_number(item) for item in self.array.reshape(-1)]
        if any(number is None for number in numbers):
            return None
        kind = np.float64 if self.dtype.is_float else np.int64
        return np.asarray(numbers, kind).astype(self.dtype.numpy).reshape(self.array.shape)


def known_array(items: Iterable[Element], shape: tuple[int, ...], dtype: DType) -> Known:
    """Elements in row-major order as a tensor of this shape."""
    values = list(items)
    array = np.empty(len(values), object)
    array[:] = values
    return Known(array.reshape(shape), dtype)


def _number(item: Element) -> float | int | None:
    if isinstance(item, Ratio):
        top, bottom = as_int(item.top), as_int(item.bottom)
        return None if top is None or not bottom else top / bottom
    return as_int(item)


@dataclass(frozen=True)
class Operand:
    """A value of the model: as a graph value, as known elements, or both; or as a sequence.

    elements: of a vector or scalar of integers. wide: what is known of any other tensor. items: of
    a sequence, whose length is known while importing. Without any of them, it is the optional that
    holds nothing.
    """

    value: Value | None
    elements: Elements | None = None
    wide: Known | None = None
    items: tuple[Operand, ...] | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether it is an optional without a value."""
        return (self.value, self.elements, self.wide, self.items) == (None,) * 4

    @property
    def known(self) -> Known | None:
        """The elements, whatever the tensor is, or None if they are not known."""
        return self.wide if self.elements is None else Known.of(self.elements)


def known_operand(known: Known, value: Value | None = None) -> Operand:
    """A value that is known element by element."""
    elements = known.elements()
    return Operand(value, elements, known if elements is None else None)


def constant_array(operand: Operand) -> Array | None:
    """The array of a value that is known while importing, else None."""
    if isinstance(operand.value, Constant):
        return operand.value.data
    return None if operand.known is None else operand.known.constant()


def constant_operand(array: Array) -> Operand:
    """A constant, with its elements if it may be a shape or part of one."""
    known = _known_constant(array, as_dtype(array.dtype))
    value = constant(array)
    return Operand(value) if known is None else known_operand(known, value)


def _known_constant(array: Array, dtype: DType) -> Known | None:
    items: list[Element | None]
    if dtype.is_float and array.size <= _MOST_FLOATS:
        items = [_ratio(float(item)) for item in array.reshape(-1)]
    elif array.size <= MOST_ELEMENTS and (dtype.is_integral or dtype.is_bool):
        items = [_integer(int(item)) for item in array.reshape(-1)]
    else:
        return None
    found = [item for item in items if item is not None]
    return known_array(found, array.shape, dtype) if len(found) == len(items) else None


def _integer(value: int) -> Expr | None:
    return IntImm(value) if -(2**63) <= value < 2**63 else None


def _ratio(value: float) -> Ratio | None:
    """A float as a quotient of small integers, with which products of sizes stay exact."""
    if not np.isfinite(value) or (value == 0 and np.signbit(value)):
        return None
    fraction = Fraction(value)
    if max(abs(fraction.numerator), fraction.denominator) > _LARGEST_FACTOR:
        return None
    return Ratio(IntImm(fraction.numerator), IntImm(fraction.denominator))


def as_dimension(value: Expr) -> Expr:
    """An element as a dimension: an int64 expression."""
    return cast(value, INT64)
