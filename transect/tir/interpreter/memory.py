"""Memory as the interpreter sees it: bytes, pointers into them, and typed views.

Which part of it a statement may touch is checked where accesses are compiled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.support.errors import ExecutionError, InputError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(eq=False, slots=True)
class Memory:
    """A block of bytes.

    data: one-dimensional uint8, contiguous. steps: bytes between the instances of private memory
    along each grid axis that was open when it was allocated, outermost first; () if there is one.
    size: bytes of one instance.
    """

    name: str
    data: Array
    steps: tuple[int, ...] = ()
    size: int = 0
    views: dict[np.dtype[Any], Array] = field(default_factory=dict[np.dtype[Any], Array])

    def __post_init__(self) -> None:
        if not self.steps:
            self.size = self.data.size

    def typed(self, dtype: np.dtype[Any]) -> Array:
        """All of the memory as a one-dimensional array of `dtype`, a partial last item left out."""
        view = self.views.get(dtype)
        if view is None:
            whole = self.data.size // dtype.itemsize * dtype.itemsize
            view = self.views[dtype] = self.data[:whole].view(dtype)
        return view

    @property
    def writable(self) -> bool:
        return bool(self.data.flags.writeable)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place in memory: `offset` bytes from its start."""

    memory: Memory
    offset: int = 0


def _garbage(dtype: DType) -> int:
    """The byte that uninitialised memory of `dtype` is filled with: NaN for every float format."""
    if dtype.is_float:
        return 0xFF
    if dtype.is_bool:
        return 1
    return 0xCD if dtype.bits >= 8 else 5


def allocate(
    name: str, dtype: DType, count: int, grid: tuple[int, ...] = (), shared: tuple[bool, ...] = ()
) -> Memory:
    """Uninitialised memory of `count` elements, one instance per point of `grid`.

    shared: for each axis, whether its points have the same instance. Raises ExecutionError for a
    negative count.
    """
    if count < 0:
        raise ExecutionError(f"{name} is allocated with {count} elements")
    size = count * dtype.bytes
    lengths = tuple(
        1 if both else length
        for length, both in zip(grid, shared or (False,) * len(grid), strict=True)
    )
    data = np.full(size * math.prod(lengths), _garbage(dtype), np.uint8)
    steps: list[int] = []
    step = size
    for length, original in zip(reversed(lengths), reversed(grid), strict=True):
        steps.insert(0, step if length == original else 0)
        step *= length
    return Memory(name, data, tuple(steps), size)


def from_array(array: Array, name: str) -> Memory:
    """The memory of a C-contiguous array, not copied. Raises InputError for another layout."""
    if not array.flags.c_contiguous:
        raise InputError(f"{name} is not contiguous", remedy="pass numpy.ascontiguousarray(...)")
    return Memory(name, array.reshape(-1).view(np.uint8))


def whole_bytes(array: Array) -> Array:
    """The contiguous bytes from the first to the last element of an array of positive strides."""
    if not array.size:
        return np.empty(0, np.uint8)
    reach = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True))
    first = array[tuple(slice(0, 1) for _ in array.shape)].view(np.uint8)
    return np.lib.stride_tricks.as_strided(first, (reach + array.itemsize,), (1,))


def tensor_of(pointer: Pointer, dtype: DType, shape: tuple[int, ...]) -> Array:
    """A compact array over memory, from `pointer` on. Raises ExecutionError if it does not fit."""
    kind = dtype.numpy
    end = pointer.offset + math.prod(shape) * kind.itemsize
    if pointer.offset < 0 or end > pointer.memory.data.size:
        raise ExecutionError(
            f"a tensor of shape {shape} of {dtype} does not fit in {pointer.memory.name}"
        )
    if not math.prod(shape):
        return np.empty(shape, kind)
    return np.ndarray(shape, kind, pointer.memory.data, pointer.offset)
