"""Arrays at the boundary: numpy, torch and anything DLPack to and from `tvm_ffi.Tensor`.

DLPack as numpy speaks it refuses read-only arrays in its old form and the dtypes of ml_dtypes in
every form; both are handled here without a copy. What a model accepts is in `call.py`.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tvm_ffi

from transect.support.errors import InputTypeError

_DLPACK_VERSION: Final = (1, 0)
# struct DLManagedTensorVersioned { version (2 x 4), context, deleter, flags (8 each),
# DLTensor { data (8), device (2 x 4), ndim (4), dtype (4), ... } }
_DTYPE_OFFSET: Final = 52

_get_pointer: Any = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

_LINE: Final = 64
"""Bytes of a cache line."""
LARGE: Final = 1 << 15
"""Bytes from which on the start of an array is worth choosing: about a first-level cache."""

_DLPACK_CODES: Final = {
    "bfloat16": (4, 16),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
    "float4_e2m1fn": (17, 4),
    "int4": (0, 4),
    "uint4": (1, 4),
    "int2": (0, 2),
    "uint2": (1, 2),
}
"""Type code and bits in DLPack of the dtypes that numpy itself does not have. Those narrower than a
byte are not packed: an element takes a byte, as in ml_dtypes."""

_CARRIERS: Final = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a dtype's name. Raises InputTypeError if it needs ml_dtypes, which is not
    there."""
    try:
        return np.dtype(name)
    except TypeError:
        raise InputTypeError(
            f"numpy does not know the dtype {name}", remedy="pip install ml-dtypes, and import it"
        ) from None


def to_tensor(array: np.ndarray[Any, Any]) -> tvm_ffi.Tensor:
    """A tensor over the memory of `array`, read-only arrays and ml_dtypes included.

    The tensor keeps the array alive. It carries no read-only mark: writing through it is up to
    the caller. Raises InputTypeError for a dtype or byte order that no tensor can have.
    """
    special = _DLPACK_CODES.get(array.dtype.name)
    try:
        if special is None:
            return tvm_ffi.from_dlpack(array.__dlpack__(max_version=_DLPACK_VERSION))
        code, bits = special
        view = array.view(_CARRIERS[array.dtype.itemsize])
        capsule: Any = view.__dlpack__(max_version=_DLPACK_VERSION)
    except (BufferError, ValueError) as error:
        raise InputTypeError(
            f"an array of dtype {array.dtype} cannot be passed",
            notes=[str(error)],
            remedy="convert it with astype() to a numeric dtype in native byte order",
        ) from None
    _set_dtype(capsule, code, bits)
    return tvm_ffi.from_dlpack(capsule)


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """An array over the memory of a tensor in host memory (tvm_ffi, or any DLPack producer)."""
    name = str(tensor.dtype)
    special = _DLPACK_CODES.get(name)
    if special is None:
        return np.from_dlpack(tensor)
    dtype = numpy_dtype(name)
    capsule = tensor.__dlpack__(max_version=_DLPACK_VERSION)
    _set_dtype(capsule, 1, 8 * dtype.itemsize)
    return np.from_dlpack(_Capsule(capsule, tensor.__dlpack_device__())).view(dtype)


class _Capsule:
    """A DLPack capsule as a producer, the form that numpy takes."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self.capsule = capsule
        self.device = device

    def __dlpack__(self, **_options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def _set_dtype(capsule: Any, code: int, bits: int) -> None:
    """Change the dtype in a capsule that nobody has consumed yet; its memory is its own."""
    address: int = _get_pointer(capsule, b"dltensor_versioned")
    ctypes.c_uint32.from_address(address + _DTYPE_OFFSET).value = code | bits << 8 | 1 << 16


def torch_module() -> Any:
    """The torch package if this process has loaded it, else None. Never imports it."""
    return sys.modules.get("torch")


def is_torch(value: object) -> bool:
    """Whether `value` is a torch tensor."""
    torch = torch_module()
    return torch is not None and isinstance(value, torch.Tensor)


def _is_instance(value: Any, classes: tuple[type[Any], ...]) -> bool:
    """isinstance, without narrowing to classes whose type parameters are then unknown."""
    return isinstance(value, classes)


def as_numpy(value: Any) -> np.ndarray[Any, Any] | None:
    """`value` if it is a numpy array (a scalar of numpy becomes one of rank 0), else None."""
    known: Any = np.asarray(value) if _is_instance(value, (np.ndarray, np.generic)) else None
    return known


def as_sequence(value: Any) -> Sequence[Any] | None:
    """`value` if it is a tuple or list, else None."""
    return value if _is_instance(value, (tuple, list)) else None


def ffi_items(value: Any) -> tuple[Any, ...] | None:
    """The items of a tvm_ffi Array or Shape, else None."""
    return tuple(value) if _is_instance(value, (tvm_ffi.Array, tvm_ffi.Shape)) else None


def is_borrowed(tensor: tvm_ffi.Tensor) -> bool:
    """Whether the tensor is a bare view, valid only during the call that passed it."""
    return tensor.__chandle__() == 0


def empty_array(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """numpy.empty, but a large one is aligned. Raises what numpy.empty does."""
    large = math.prod(shape) * dtype.itemsize >= LARGE and min(shape) >= 0
    return aligned_array(shape, dtype) if large else np.empty(shape, dtype)


def aligned_array(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An empty array at the start of a cache line: numpy's own start 16 bytes after one, and every
    vector that is written touches two lines."""
    nbytes = math.prod(shape) * dtype.itemsize
    room = np.empty(nbytes + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + nbytes].view(dtype).reshape(shape)
