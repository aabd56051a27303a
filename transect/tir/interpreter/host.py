"""The intrinsics of host functions, on Python objects: slots of values, tensors, shapes, pointers.

A tensor is a numpy array, a shape a tuple of integers, an any-list an `AnyList`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm_ffi

from transect.ir.dtype import as_dtype
from transect.support.errors import ExecutionError
from transect.tir.interpreter.frame import Runner
from transect.tir.interpreter.grid import Value
from transect.tir.interpreter.memory import (
    Array,
    Pointer,
    allocate,
    from_array,
    tensor_of,
    whole_bytes,
)

_TYPE_INDEX: tuple[tuple[type[Any], int], ...] = (
    (bool, 2),
    (np.bool_, 2),
    (int, 1),
    (np.integer, 1),
    (float, 3),
    (np.floating, 3),
    (Pointer, 4),
    (np.ndarray, 70),
    (tvm_ffi.Tensor, 70),
    (str, 65),
    (tuple, 69),
    (list, 71),
    (tvm_ffi.Array, 71),
)
"""Python type -> type index of the tvm-ffi C ABI (TVMFFITypeIndex); a list is an ffi.Array."""


class AnyList:
    """Slots of owned values, as a host function has them, all None at first; or those of another
    function from one on."""

    def __init__(self, slots: list[Any], start: int = 0) -> None:
        self.slots = slots
        self.start = start

    def from_slot(self, index: int) -> AnyList:
        """The same slots, counted from `index`."""
        return AnyList(self.slots, self.start + index)

    def __len__(self) -> int:
        return len(self.slots)


def as_tensor(value: Value) -> Array:
    """A numpy array over the same data. Raises ExecutionError for what is no tensor."""
    if type(value) is np.ndarray:
        return value  # pyright: ignore[reportUnknownVariableType]
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    raise ExecutionError(f"expected a tensor, got {type(value).__name__}")


def as_pointer(value: Value, name: str = "tensor") -> Pointer:
    """The pointer to the data of a tensor; a pointer itself."""
    if isinstance(value, Pointer):
        return value
    array = as_tensor(value)
    return Pointer(from_array(array if array.flags.c_contiguous else whole_bytes(array), name))


def type_index(value: Value) -> int:
    """The tvm-ffi type index of a value; 0 for None, 64 for other objects."""
    if value is None:
        return 0
    return next((index for kind, index in _TYPE_INDEX if isinstance(value, kind)), 64)


def _integers(values: list[Value]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _any_list(runner: Runner, args: list[Value]) -> Value:
    return AnyList([None] * int(args[0]))


def _get(runner: Runner, args: list[Value]) -> Value:
    items: AnyList = args[0]
    return items.slots[items.start + int(args[1])]


def _put(args: list[Value], value: Value) -> None:
    items: AnyList = args[0]
    items.slots[items.start + int(args[1])] = value


def _reset(runner: Runner, args: list[Value]) -> Value:
    _put(args, None)


def _set_call(runner: Runner, args: list[Value]) -> Value:
    _put(args, runner.call_packed(args[2], args[3:]))


def _move(runner: Runner, args: list[Value]) -> Value:
    _put(args, _get(runner, args[2:]))


def _set(runner: Runner, args: list[Value]) -> Value:
    value = args[2]
    _put(args, value.item() if isinstance(value, np.generic) else value)


def _alloc_tensor(runner: Runner, args: list[Value]) -> Value:
    dtype, shape = as_dtype(args[2]), _integers(args[3:])
    if min(shape, default=0) < 0:
        raise ExecutionError(f"a tensor of shape {shape}")
    memory = allocate("tensor", dtype, math.prod(shape))
    _put(args, tensor_of(Pointer(memory), dtype, shape))


def _make_shape(runner: Runner, args: list[Value]) -> Value:
    _put(args, _integers(args[2:]))


def _make_tuple(runner: Runner, args: list[Value]) -> Value:
    _put(args, list(args[2:]))


def _tuple_get(runner: Runner, args: list[Value]) -> Value:
    items = _get(runner, args[2:])
    field = int(args[4])
    if not 0 <= field < len(items):
        raise ExecutionError(f"no item {field} in a tuple of {len(items)}")
    _put(args, items[field])


def _tensor_view(runner: Runner, args: list[Value]) -> Value:
    return tensor_of(as_pointer(args[0]), as_dtype(args[1]), _integers(args[2:]))


def _tensor_shape(runner: Runner, args: list[Value]) -> Value:
    return np.int64(as_tensor(args[0]).shape[int(args[1])])


def _is_compact(runner: Runner, args: list[Value]) -> Value:
    return np.bool_(as_tensor(args[0]).flags.c_contiguous)


def _dtype_is(runner: Runner, args: list[Value]) -> Value:
    return np.bool_(as_tensor(args[0]).dtype == as_dtype(args[1]).numpy)


def _shape_get(runner: Runner, args: list[Value]) -> Value:
    return np.int64(args[0][int(args[1])])


def _memory_copy(runner: Runner, args: list[Value]) -> Value:
    target, source, size = as_pointer(args[0]), as_pointer(args[1]), int(args[2])
    if size < 0 or any(
        side.offset < 0 or side.offset + size > side.memory.data.size for side in (target, source)
    ):
        raise ExecutionError(f"a copy of {size} bytes leaves its memory")
    data = source.memory.data[source.offset : source.offset + size].copy()
    target.memory.data[target.offset : target.offset + size] = data


def _is_null(runner: Runner, args: list[Value]) -> Value:
    return np.bool_(args[0] is None)


def _type_index(runner: Runner, args: list[Value]) -> Value:
    return np.int32(type_index(_get(runner, args)))


def _get_int(runner: Runner, args: list[Value]) -> Value:
    return np.int64(_get(runner, args))


def _get_float(runner: Runner, args: list[Value]) -> Value:
    return np.float64(_get(runner, args))


def _ndim(runner: Runner, args: list[Value]) -> Value:
    return np.int32(as_tensor(args[0]).ndim)


def _data(runner: Runner, args: list[Value]) -> Value:
    return as_pointer(args[0])


def _struct_get(runner: Runner, args: list[Value]) -> Value:
    """A field of a DLTensor, by the numbers of TVM's TVMStructFieldKind."""
    tensor, kind = as_tensor(args[0]), int(args[2])
    if int(args[1]) != 0 or kind not in _FIELDS:
        raise ExecutionError(f"no field {kind} of tensor {int(args[1])}")
    return _FIELDS[kind](tensor)


def _integers_in_memory(values: tuple[int, ...], name: str) -> Pointer:
    return Pointer(from_array(np.array(values, np.int64), name))


def _strides(tensor: Array) -> Pointer:
    return _integers_in_memory(tuple(s // tensor.itemsize for s in tensor.strides), "strides")


def _code(tensor: Array) -> Value:
    return np.int32(as_dtype(tensor.dtype).dlpack_code or 0)


_FIELDS: dict[int, Callable[[Array], Value]] = {
    1: as_pointer,
    2: lambda tensor: _integers_in_memory(tensor.shape, "shape"),
    3: _strides,
    4: lambda tensor: np.int32(tensor.ndim),
    5: _code,
    6: lambda tensor: np.int32(tensor.itemsize * 8),
    7: lambda tensor: np.int32(1),
    8: lambda tensor: np.int64(0),
    9: lambda tensor: np.int32(0),
    10: lambda tensor: np.int32(1),
}
"""Field number -> its value: data, shape, strides, ndim, dtype code, bits, lanes, byte offset,
device id, device type (1: the CPU)."""

HOST_CALLS: dict[str, Callable[[Runner, list[Value]], Value]] = {
    "any_list": _any_list,
    "anylist_getitem": _get,
    "anylist_resetitem": _reset,
    "anylist_setitem_call_packed": _set_call,
    "anylist_move": _move,
    "anylist_set": _set,
    "anylist_type_index": _type_index,
    "anylist_get_int": _get_int,
    "anylist_get_float": _get_float,
    "alloc_tensor": _alloc_tensor,
    "make_shape": _make_shape,
    "make_tuple": _make_tuple,
    "tuple_get": _tuple_get,
    "tensor_view": _tensor_view,
    "tensor_ndim": _ndim,
    "tensor_shape": _tensor_shape,
    "tensor_data": _data,
    "tensor_dtype_is": _dtype_is,
    "tensor_is_compact": _is_compact,
    "shape_get": _shape_get,
    "memory_copy": _memory_copy,
    "isnullptr": _is_null,
    "tvm_struct_get": _struct_get,
}
"""Name -> what it does with the values of its arguments, in the order of tir.intrinsics."""
