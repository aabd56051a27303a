"""Loads and stores as closures, checked against the bounds of the buffer.

Where every index is a sum of grid counters an access is one strided view of memory, without a copy;
otherwise, and at points where a mask must keep it inside the buffer, it gathers or scatters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import (
    Add,
    And,
    Binary,
    Call,
    Expr,
    FloatImm,
    IntImm,
    Max,
    Min,
    Mul,
    Or,
    Var,
)
from transect.ir.traverse import walk
from transect.support.errors import ExecutionError, UnsupportedError
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.interpreter.frame import Frame
from transect.tir.interpreter.grid import Compiler, IntRun, Run, Value, lanes_of
from transect.tir.interpreter.linear import LANE, Scope, linear
from transect.tir.interpreter.memory import Memory, Pointer
from transect.tir.op import highest, lowest
from transect.tir.stmt import BufferStore


@dataclass(frozen=True, slots=True)
class _Dimension:
    """One index as a sum: const + fixed (atoms that do not vary) + along (factor, axis) + lane."""

    const: int
    fixed: tuple[tuple[int, IntRun], ...]
    along: tuple[tuple[int, int], ...]
    lane: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A strided set of elements: byte offset and byte strides per grid axis and lane."""

    memory: Memory
    offset: int
    strides: list[int]
    lane: int


class Access:
    """How one buffer is indexed at one place of the program."""

    def __init__(self, compiler: Compiler, buffer: Buffer, indices: tuple[Expr, ...]) -> None:
        self.buffer = buffer
        self.dtype = buffer.dtype.numpy
        self.inner = buffer.dtype.lanes
        self.lanes = indices[-1].dtype.lanes if indices else 1
        if self.inner > 1 and self.lanes > 1:
            raise UnsupportedError(f"a vector of the vectors in {buffer.name}")
        self.vector = (
            self.inner > 1 or self.lanes > 1 or not (not indices or indices[-1].dtype.is_scalar)
        )
        self.depth = len(compiler.scope.axes)
        self.extents = [compiler.integer(extent) for extent in buffer.shape]
        self.strides = [compiler.integer(stride) for stride in buffer.strides]
        self.start = compiler.integer(buffer.elem_offset)
        self.indices = [compiler.compile(index) for index in indices]
        self.scalar_index = [index.dtype.is_scalar for index in indices]
        self.dimensions = _dimensions(compiler, indices)

    def pointer(self, frame: Frame) -> Pointer:
        pointer = frame.vars.get(self.buffer.data)
        if not isinstance(pointer, Pointer):
            raise ExecutionError(f"buffer {self.buffer.name} has no memory")
        return pointer

    def element_strides(self, frame: Frame, extents: list[int]) -> list[int]:
        """Strides in elements of the buffer, compact unless the buffer says otherwise."""
        if self.strides:
            return [run(frame) for run in self.strides]
        strides = [1] * len(extents)
        for axis in range(len(extents) - 2, -1, -1):
            strides[axis] = strides[axis + 1] * extents[axis + 1]
        return strides

    def locate(self, frame: Frame) -> _Place | None:
        """The elements as a strided set; None if an index is no sum or may leave the buffer."""
        if self.dimensions is None:
            return None
        extents = [run(frame) for run in self.extents]
        element_strides = self.element_strides(frame, extents)
        starts, lengths = frame.starts, frame.lengths
        strides = [0] * self.depth
        lane = 0
        address = self.start(frame)
        for dimension, extent, stride in zip(
            self.dimensions, extents, element_strides, strict=True
        ):
            low = dimension.const
            for factor, run in dimension.fixed:
                low += factor * run(frame)
            high = low
            first = low
            for factor, axis in dimension.along:
                begin = factor * starts[axis]
                reach = factor * (lengths[axis] - 1)
                first += begin
                low += begin + min(reach, 0)
                high += begin + max(reach, 0)
                strides[axis] += factor * stride
            if dimension.lane:
                reach = dimension.lane * (self.lanes - 1)
                low += min(reach, 0)
                high += max(reach, 0)
                lane += dimension.lane * stride
            if low < 0 or high >= extent:
                return None
            address += first * stride
        pointer = self.pointer(frame)
        size = self.dtype.itemsize * self.inner
        strides = [stride * size for stride in strides]
        for axis, step in enumerate(pointer.memory.steps):
            strides[axis] += step
        lane_bytes = self.dtype.itemsize if self.inner > 1 else lane * size
        return _Place(pointer.memory, pointer.offset + address * size, strides, lane_bytes)

    def view(self, frame: Frame, place: _Place, *, full: bool) -> Value:
        """The array over the place. full: with every axis at its length, also where it repeats."""
        shape: list[int] = []
        strides: list[int] = []
        for length, stride in zip(reversed(frame.lengths), reversed(place.strides), strict=True):
            shape.append(length if stride or full else 1)
            strides.append(stride)
        if self.vector:
            shape.append(self.inner if self.inner > 1 else self.lanes)
            strides.append(place.lane)
        try:
            return np.ndarray(shape, self.dtype, place.memory.data, place.offset, strides)
        except (ValueError, TypeError):
            raise ExecutionError(
                f"buffer {self.buffer.name} reaches outside the memory of {place.memory.name}"
            ) from None

    def scatter(self, frame: Frame, predicate: Value | None) -> tuple[Memory, Value, Value | None]:
        """Memory, addresses in elements of its dtype, and the active points (None for all).

        Raises ExecutionError if an active point is outside the buffer.
        """
        active = frame.mask
        if self.vector and active is not None:
            active = lanes_of(active)
        if predicate is not None:
            active = predicate if active is None else active & predicate
        extents = [run(frame) for run in self.extents]
        strides = self.element_strides(frame, extents)
        total: Value = np.int64(self.start(frame))
        for axis, (run, extent, stride) in enumerate(
            zip(self.indices, extents, strides, strict=True)
        ):
            index = np.asarray(run(frame)).astype(np.int64)
            if self.vector and self.scalar_index[axis]:
                index = index[..., None]
            outside = (index < 0) | (index >= extent)
            wrong = outside if active is None else outside & active
            if np.any(wrong):
                self.out_of_bounds(axis, index, wrong, extent)
            if active is not None and np.any(outside):
                index = np.where(outside, 0, index)
            total = total + index * stride
        pointer = self.pointer(frame)
        if self.inner > 1:
            total = total * self.inner + np.arange(self.inner)
        item = self.dtype.itemsize
        total = total + pointer.offset // item
        if pointer.offset % item:
            raise ExecutionError(f"buffer {self.buffer.name} starts at an unaligned offset")
        for axis, step in enumerate(pointer.memory.steps):
            instance = np.arange(frame.lengths[axis]).reshape((-1,) + (1,) * axis)
            if self.vector:
                instance = instance[..., None]
            total = total + instance * (step // item)
        return pointer.memory, total, active

    def out_of_bounds(self, axis: int, index: Value, wrong: Value, extent: int) -> None:
        """Raise the error that names the buffer and the first index outside."""
        full, where = np.broadcast_arrays(index, wrong)
        value = int(full[where].reshape(-1)[0])
        raise ExecutionError(
            f"index {value} of axis {axis} of {self.buffer.name} is outside [0, {extent})"
        )


def _dimensions(compiler: Compiler, indices: tuple[Expr, ...]) -> list[_Dimension] | None:
    """Every index as a sum, or None if one of them is not."""
    scope = compiler.scope
    axes = {axis.var: number for number, axis in enumerate(scope.axes)}
    result: list[_Dimension] = []
    for index in indices:
        form = linear(index, scope)
        fixed: list[tuple[int, IntRun]] = []
        along: list[tuple[int, int]] = []
        lane = 0
        for atom, factor in form.terms.items():
            if atom is LANE:
                lane = factor
            elif isinstance(atom, Var) and atom in axes:
                along.append((factor, axes[atom]))
            elif scope.varies(atom) or not atom.dtype.is_scalar:
                return None
            else:
                fixed.append((factor, compiler.atom(atom)))
        result.append(_Dimension(form.const, tuple(fixed), tuple(along), lane))
    return result


# --- loads ----------------------------------------------------------------------------------


def compile_load(compiler: Compiler, expr: BufferLoad) -> Run:
    """The closure of a load. Raises ExecutionError when it runs outside the buffer."""
    access = Access(compiler, expr.buffer, expr.indices)
    predicate = None if expr.predicate is None else compiler.compile(expr.predicate)
    plain = not access.vector and not access.depth

    def evaluate(frame: Frame) -> Value:
        place = access.locate(frame) if predicate is None else None
        if place is not None:
            if plain and place.offset % access.dtype.itemsize == 0:
                items = place.memory.typed(access.dtype)
                position = place.offset // access.dtype.itemsize
                if 0 <= position < items.size:
                    return items[position]
            view = access.view(frame, place, full=False)
            return view[()] if plain else view
        lanes = None if predicate is None else predicate(frame)
        memory, address, active = access.scatter(frame, lanes)
        items = memory.typed(access.dtype)
        if active is None:
            return _take(access, memory, items, address)
        values = np.full(np.broadcast_shapes(np.shape(address), np.shape(active)), 0, items.dtype)
        address, chosen = np.broadcast_arrays(address, active)
        values[chosen] = _take(access, memory, items, address[chosen])
        return values

    return evaluate


def _take(access: Access, memory: Memory, items: Value, address: Value) -> Value:
    if np.size(address) and (np.min(address) < 0 or np.max(address) >= items.size):
        raise ExecutionError(f"{access.buffer.name} reaches outside the memory of {memory.name}")
    return items[address]


def compile_address(compiler: Compiler, expr: Call) -> Run:
    """The closure of address_of: a pointer to one element, which may be one past the end."""
    load = expr.args[0]
    if not isinstance(load, BufferLoad):
        raise UnsupportedError("T.address_of of what is no load")
    access = Access(compiler, load.buffer, load.indices)
    indices = [compiler.integer(index) for index in load.indices]

    def evaluate(frame: Frame) -> Value:
        extents = [run(frame) for run in access.extents]
        strides = access.element_strides(frame, extents)
        place = access.start(frame) + sum(
            run(frame) * stride for run, stride in zip(indices, strides, strict=True)
        )
        pointer = access.pointer(frame)
        return Pointer(
            pointer.memory, pointer.offset + place * access.dtype.itemsize * access.inner
        )

    return evaluate


# --- stores ---------------------------------------------------------------------------------


def compile_store(compiler: Compiler, stmt: BufferStore) -> Callable[[Frame], None]:
    """The closure of a store, or of an ordered accumulation where the grid has axes that the
    store does not depend on."""
    access = Access(compiler, stmt.buffer, stmt.indices)
    update = accumulation(stmt)
    if update is not None:
        axes = repeated_axes(compiler.scope, stmt)
        if axes:
            return _accumulate(compiler, access, update, axes)
    value = compiler.compile(stmt.value)
    predicate = None if stmt.predicate is None else compiler.compile(stmt.predicate)
    plain = not access.vector and not access.depth

    def run(frame: Frame) -> None:
        new = value(frame)
        place = access.locate(frame) if predicate is None else None
        if place is not None:
            _check_writable(access, place.memory)
            if plain and place.offset % access.dtype.itemsize == 0:
                items = place.memory.typed(access.dtype)
                position = place.offset // access.dtype.itemsize
                if 0 <= position < items.size:
                    items[position] = new
                    return
            view = access.view(frame, place, full=True)
            if frame.mask is None:
                view[...] = new
            else:
                np.copyto(view, new, where=lanes_of(frame.mask) if access.vector else frame.mask)
            return
        lanes = None if predicate is None else predicate(frame)
        memory, address, active = access.scatter(frame, lanes)
        _check_writable(access, memory)
        items = memory.typed(access.dtype)
        points = () if active is None else np.shape(active)
        shape = np.broadcast_shapes(np.shape(address), np.shape(new), points)
        address, new = np.broadcast_to(address, shape), np.broadcast_to(new, shape)
        if active is not None:
            chosen = np.broadcast_to(active, shape)
            address, new = address[chosen], new[chosen]
        if address.size and (address.min() < 0 or address.max() >= items.size):
            raise ExecutionError(
                f"{access.buffer.name} reaches outside the memory of {memory.name}"
            )
        items[address] = new

    return run


def _check_writable(access: Access, memory: Memory) -> None:
    if not memory.writable:
        raise ExecutionError(f"{access.buffer.name} is written, but {memory.name} is read-only")


@dataclass(frozen=True, slots=True)
class Accumulation:
    """A store B[i] = B[i] op value, in which `value` does not read B."""

    kind: type[Binary]
    value: Expr


_ACCUMULATE: dict[type[Binary], Any] = {
    Add: np.add,
    Mul: np.multiply,
    Min: np.minimum,
    Max: np.maximum,
    And: np.logical_and,
    Or: np.logical_or,
}


def accumulation(stmt: BufferStore) -> Accumulation | None:
    """The store as an accumulation, if it is one."""
    value = stmt.value
    if not isinstance(value, Add | Mul | Min | Max | And | Or) or stmt.predicate is not None:
        return None
    current = BufferLoad(stmt.buffer, stmt.indices)
    if value.a is current:
        added = value.b
    elif value.b is current:
        added = value.a
    else:
        return None
    for item in walk(added):
        if isinstance(item, BufferLoad) and item.buffer.data is stmt.buffer.data:
            return None
    return Accumulation(type(value), added)


def repeated_axes(scope: Scope, stmt: BufferStore) -> list[int]:
    """The open grid axes along which the store goes to one and the same element."""
    private = scope.private.get(stmt.buffer.data, 0)
    moved: set[Expr] = set()
    for index in stmt.indices:
        moved.update(linear(index, scope).terms)
    for atom in moved:
        if not isinstance(atom, Var) and scope.varies(atom):
            return []
    return [
        number
        for number, axis in enumerate(scope.axes)
        if number >= private and axis.var not in moved and axis.thread is None
    ]


def _neutral(kind: type[Binary], dtype: DType) -> Value:
    """The value that changes nothing. x + -0.0 is x for every x; x + 0.0 is not, for -0.0."""
    if kind in (Min, Max):
        limit = highest(dtype) if kind is Min else lowest(dtype)
        number = limit.value if isinstance(limit, FloatImm | IntImm) else 0
    elif kind is Add:
        number = -0.0 if dtype.is_float else 0
    else:
        number = 0 if kind is Or else 1
    return np.asarray(number).astype(dtype.numpy)[()]


def _accumulate(
    compiler: Compiler, access: Access, update: Accumulation, axes: list[int]
) -> Callable[[Frame], None]:
    """Accumulation over `axes` in the order of the loops: bit for bit what they would give."""
    value = compiler.compile(update.value)
    operation = _ACCUMULATE[update.kind]
    neutral = _neutral(update.kind, access.buffer.dtype.element)
    # Axis a of the grid is dimension depth - 1 - a; the outer loops come first in order.
    front = [access.depth - 1 - axis for axis in axes]

    def run(frame: Frame) -> None:
        lanes = (access.lanes * access.inner,) if access.vector else ()
        shape = frame.shape + lanes
        new = np.broadcast_to(value(frame), shape)
        mask, lengths = frame.mask, frame.lengths
        if mask is not None:
            new = np.where(lanes_of(mask) if access.vector else mask, new, neutral)
        rest = [number for number in range(len(shape)) if number not in front]
        rows = np.transpose(new, (*front, *rest)).reshape((-1, *(shape[number] for number in rest)))
        # The target has one point along the repeated axes; where all of them are masked, the
        # neutral value is added, but the target may be outside the buffer.
        frame.mask = None if mask is None else _any_along(mask, front, access.depth)
        frame.lengths = [1 if axis in axes else n for axis, n in enumerate(lengths)]
        place = access.locate(frame)
        if place is not None:
            _check_writable(access, place.memory)
            view = _squeezed(access.view(frame, place, full=True), front)
            view[...] = _total(operation, view, rows)
        else:
            memory, address, active = access.scatter(frame, None)
            _check_writable(access, memory)
            items = memory.typed(access.dtype)
            target = frame.shape + lanes
            address = _squeezed(np.broadcast_to(address, target), front)
            if active is not None:
                chosen = _squeezed(np.broadcast_to(active, target), front)
                rows, address = rows[:, chosen], address[chosen]
            items[address] = _total(operation, items[address], rows)
        frame.mask, frame.lengths = mask, lengths

    return run


def _total(operation: Any, start: Value, rows: Value) -> Value:
    joined = np.concatenate([np.asarray(start)[None], rows])
    return operation.accumulate(joined, axis=0)[-1].astype(rows.dtype, copy=False)


def _squeezed(view: Value, front: list[int]) -> Value:
    # The ellipsis keeps what has no axes left an array.
    return view[(*(0 if axis in front else slice(None) for axis in range(view.ndim)), ...)]


def _any_along(mask: Value, front: list[int], depth: int) -> Value:
    full = np.asarray(mask)
    full = full.reshape((1,) * (depth - full.ndim) + full.shape)
    return np.any(full, axis=tuple(front), keepdims=True)
