"""Arguments of a call, converted for the entry: arrays of every kind, scalars, shapes, tuples.

Only what compiled code cannot see is checked here; dtypes of numpy and torch arrays are, because
a name is clearer than a code. Where results go is in `model.py`.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import tvm_ffi

from transect.runtime.arrays import (
    as_numpy,
    as_sequence,
    is_torch,
    to_numpy,
    to_tensor,
    torch_module,
)
from transect.runtime.signature import Parameter, describe
from transect.support.errors import InputError, InputTypeError

_HOST_DEVICES = (1, 3)
"""DLPack's device types of memory that the CPU reads: its own, and pinned for CUDA."""

Copies = list[tuple[Any, Any]]
"""Arrays that the program writes to, each with the contiguous copy that it got instead."""


def convert(parameter: Parameter, value: Any, copies: Copies) -> Any:
    """`value` as the entry takes it. copies: filled with arrays to write back after the call."""
    match parameter.kind:
        case "tensor":
            return _tensor(parameter, value, copies)
        case "scalar":
            return _scalar(parameter, value)
        case "shape":
            return _shape(parameter, value)
        case "string":
            if not isinstance(value, str):
                raise _wrong(parameter, value, "a str")
            return value
        case "tuple":
            parts = as_sequence(value)
            if parts is None or len(parts) != len(parameter.items):
                raise _wrong(parameter, value, f"a tuple of {len(parameter.items)}")
            items = zip(parameter.items, parts, strict=True)
            return tvm_ffi.Array([convert(item, part, copies) for item, part in items])
        case "object":
            array = as_numpy(value)
            return value if array is None else to_tensor(np.asarray(array, order="C"))


def _tensor(parameter: Parameter, value: Any, copies: Copies) -> tvm_ffi.Tensor:
    """A tensor over `value`, or over a contiguous copy of it."""
    array = as_numpy(value)
    if array is not None:
        return _numpy_tensor(parameter, array, copies)
    if is_torch(value):
        return _torch_tensor(parameter, value, copies)
    if isinstance(value, tvm_ffi.Tensor):
        tensor = value
    elif hasattr(value, "__dlpack__"):
        try:
            tensor = tvm_ffi.from_dlpack(value)
        except (BufferError, TypeError, ValueError, RuntimeError) as error:
            raise InputTypeError(
                f"input {parameter.name!r}: a {type(value).__name__} that DLPack cannot pass",
                notes=[str(error)],
            ) from None
    else:
        raise _wrong(parameter, value, "an array (numpy, torch or DLPack)")
    _require_host(parameter, tensor)
    if not tensor.is_contiguous():
        return _numpy_tensor(parameter, to_numpy(tensor), copies)
    return tensor


def _require_host(parameter: Parameter, tensor: tvm_ffi.Tensor) -> None:
    if tensor.__dlpack_device__()[0] not in _HOST_DEVICES:
        _refuse_device(parameter, str(tensor.device))


def _refuse_device(parameter: Parameter, device: str) -> NoReturn:
    raise InputError(
        f"input {parameter.name!r} is on {device}, and this model runs on the CPU",
        remedy="copy it to host memory",
    )


def _numpy_tensor(
    parameter: Parameter, array: np.ndarray[Any, Any], copies: Copies
) -> tvm_ffi.Tensor:
    if array.dtype.name != parameter.dtype and parameter.dtype is not None:
        raise InputTypeError(
            f"input {parameter.name!r} has dtype {array.dtype}, expected {describe(parameter)}",
            remedy=f"{parameter.name}.astype({parameter.dtype!r})",
        )
    if not array.dtype.isnative:
        raise InputTypeError(
            f"input {parameter.name!r} is not in native byte order",
            remedy=f"{parameter.name}.astype({array.dtype.name!r})",
        )
    if parameter.mutated and not array.flags.writeable:
        raise InputError(
            f"input {parameter.name!r} is read-only, and the program writes to it",
            remedy="pass a copy",
        )
    if not (array.flags.c_contiguous and array.flags.aligned):
        copy = np.array(array, order="C", copy=True)
        if parameter.mutated:
            copies.append((array, copy))
        array = copy
    return to_tensor(array)


def _torch_tensor(parameter: Parameter, value: Any, copies: Copies) -> tvm_ffi.Tensor:
    torch = torch_module()
    name = type(value).__name__
    if value.device.type == "meta" or name in ("FakeTensor", "FunctionalTensor"):
        raise InputTypeError(
            f"input {parameter.name!r} is a {name} without data",
            remedy="call the model on real tensors; inside torch.compile use a custom op",
        )
    if value.layout is not torch.strided:
        raise InputTypeError(
            f"input {parameter.name!r} has layout {value.layout}", remedy="pass x.to_dense()"
        )
    dtype = str(value.dtype).removeprefix("torch.")
    if parameter.dtype is not None and dtype != parameter.dtype:
        raise InputTypeError(
            f"input {parameter.name!r} has dtype {dtype}, expected {describe(parameter)}",
            remedy=f"{parameter.name}.to(torch.{parameter.dtype})",
        )
    if value.requires_grad:
        if torch.is_grad_enabled():
            raise InputError(
                f"input {parameter.name!r} requires a gradient, which compiled models do not give",
                remedy="pass x.detach(), or call under torch.no_grad()",
            )
        value = value.detach()
    if value.device.type != "cpu":
        _refuse_device(parameter, str(value.device))
    plain = value.resolve_conj().resolve_neg().contiguous()
    if plain is not value and parameter.mutated:
        copies.append((value, plain))
    return tvm_ffi.from_dlpack(plain)


def _scalar(parameter: Parameter, given: Any) -> int | float | bool:
    kind = str(parameter.dtype)
    # A scalar of numpy or an array of rank 0 holds one number.
    value: Any = given.item() if getattr(given, "ndim", None) == 0 else given
    if kind == "bool":
        accepted = isinstance(value, bool)
    elif "float" in kind:
        accepted = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        accepted = isinstance(value, int) and not isinstance(value, bool)
    if not accepted:
        raise _wrong(parameter, value, f"a number for {kind}")
    if "int" in kind:
        bits = int(kind.lstrip("uint"))
        low, high = (0, 1 << bits) if kind.startswith("u") else (-(1 << bits - 1), 1 << bits - 1)
        if not low <= value < high:
            raise InputError(f"input {parameter.name!r}: {value} does not fit in {kind}")
        # The convention has one integer type, of 64 bits.
        return value if value < 1 << 63 else value - (1 << 64)
    return float(value) if "float" in kind else value


def _shape(parameter: Parameter, value: Any) -> tvm_ffi.Shape:
    try:
        values = [int(item) for item in value]
    except (TypeError, ValueError):
        raise _wrong(parameter, value, "a sequence of integers") from None
    if parameter.shape is not None and len(values) != len(parameter.shape):
        raise InputError(
            f"input {parameter.name!r} has {len(values)} values, expected {describe(parameter)}"
        )
    if any(not -(1 << 63) <= item < 1 << 63 for item in values):
        raise InputError(f"input {parameter.name!r}: a dimension does not fit in 64 bits")
    return tvm_ffi.Shape(tuple(values))


def _wrong(parameter: Parameter, value: Any, wanted: str) -> InputTypeError:
    return InputTypeError(
        f"input {parameter.name!r} is a {type(value).__name__}, expected {wanted}",
        notes=[f"{parameter.name}: {describe(parameter)}"],
        remedy=f"np.asarray({parameter.name}, {parameter.dtype!r})"
        if parameter.kind == "tensor"
        else None,
    )


def refuse_overlap(parameters: tuple[Parameter, ...], passed: list[Any]) -> None:
    """Raise InputError if memory that the program writes to is passed as another input too."""
    if not any(parameter.mutated for parameter in parameters):
        return
    spans: list[tuple[int, int, Parameter]] = []
    for parameter, value in zip(parameters, passed, strict=True):
        if isinstance(value, tvm_ffi.Tensor) and value.numel() and value.device.type == "cpu":
            start = value.data_ptr()
            spans.append((start, start + value.numel() * max(1, value.dtype.itemsize), parameter))
    for low, high, parameter in spans:
        for other_low, other_high, other in spans:
            if (
                parameter.mutated
                and other is not parameter
                and low < other_high
                and other_low < high
            ):
                raise InputError(
                    f"inputs {parameter.name!r} and {other.name!r} share memory, and the program "
                    f"writes to {parameter.name!r}",
                    remedy="pass a copy",
                )
