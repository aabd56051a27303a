"""Arithmetic on constants, by the name of the operation: what `expr` folds as it builds.

Integers are exact here; whoever builds the result wraps them to their dtype.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from transect.ir.dtype import DType


def truncated_quotient(a: int, b: int) -> int:
    """a / b rounded toward zero. Raises ZeroDivisionError."""
    return abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)


def _truncated_remainder(a: int, b: int) -> int:
    return a - b * truncated_quotient(a, b)


def _both(a: int, b: int) -> bool:
    return bool(a) and bool(b)


def _either(a: int, b: int) -> bool:
    return bool(a) or bool(b)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}
INTEGER: dict[str, Callable[[int, int], int]] = {
    "Add": int.__add__,
    "Sub": int.__sub__,
    "Mul": int.__mul__,
    "Div": truncated_quotient,
    "Mod": _truncated_remainder,
    "FloorDiv": int.__floordiv__,
    "FloorMod": int.__mod__,
    "Min": min,
    "Max": max,
    "And": _both,
    "Or": _either,
    **_COMPARE,
}
"""Operations on two integers or truth values."""

_ROUNDED: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": np.true_divide,
    "Min": np.minimum,
    "Max": np.maximum,
}
BITS: dict[str, Callable[..., int]] = {
    "bitwise_and": int.__and__,
    "bitwise_or": int.__or__,
    "bitwise_xor": int.__xor__,
    "bitwise_not": int.__invert__,
    "shift_left": int.__lshift__,
    "shift_right": int.__rshift__,
}
"""Bit operations on integers. Shifts by less than the width only."""


def fold_float(name: str, a: float, b: float, dtype: DType) -> float | bool | None:
    """The operation on two floats, rounded to `dtype` as the machine does; None if it is not of
    floats."""
    compare = _COMPARE.get(name)
    if compare is not None:
        return compare(a, b)
    operation = _ROUNDED.get(name)
    if operation is None:
        return None
    kind = dtype.numpy
    with np.errstate(all="ignore"):
        return float(operation(np.asarray(a, kind)[()], np.asarray(b, kind)[()]))


def round_float(value: float, dtype: DType) -> float:
    """The nearest value of a float dtype, an infinity where it is too large."""
    if dtype.bits == 64:
        return value
    with np.errstate(all="ignore"):
        return float(np.asarray(value, np.float64).astype(dtype.numpy))
