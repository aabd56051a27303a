"""Arrays over the open grid: lanes, axis counters, wrapped integers.

Also the protocol by which memory accesses compile their indices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import Expr
from transect.tir.interpreter.frame import Frame
from transect.tir.interpreter.linear import Scope

Value = Any
Run = Callable[[Frame], Value]
IntRun = Callable[[Frame], int]


class Compiler(Protocol):
    """What compiles the expressions of a statement."""

    scope: Scope

    def compile(self, expr: Expr) -> Run:
        """The closure that evaluates `expr` to a scalar, an array over the grid, or an object."""
        ...

    def integer(self, expr: Expr) -> IntRun:
        """The closure that evaluates an integer that does not vary along the grid."""
        ...

    def atom(self, atom: Expr) -> IntRun:
        """The closure for one atom of a sum, which does not vary along the grid."""
        ...


def lanes_of(value: Value) -> Value:
    """A scalar's array with an axis for lanes added."""
    return np.asarray(value)[..., None]


def full_lanes(value: Value, lanes: int) -> Value:
    """A vector's array with its last axis as long as it has lanes."""
    array = np.asarray(value)
    return np.broadcast_to(array, (*array.shape[:-1], lanes)) if array.shape[-1] != lanes else array


def axis_values(frame: Frame, number: int) -> Value:
    """The counter of grid axis `number` as an int64 array over the grid."""
    start, length = frame.starts[number], frame.lengths[number]
    return np.arange(start, start + length, dtype=np.int64).reshape((length,) + (1,) * number)


def wrap(value: int, dtype: DType) -> Value:
    """A numpy scalar of an integer dtype, wrapped around."""
    low, high = int(dtype.min_value), int(dtype.max_value)
    if not low <= value <= high:
        value = (value - low) % (1 << dtype.bits) + low
    return dtype.numpy.type(value)
