"""CompiledModel: a compiled entry as a Python callable.

The call itself is a function written for the signature (`call_source.py`); this file holds what
happens when an argument is not simply an array that fits: conversions, and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import tvm_ffi

from transect.runtime.arguments import Copies, convert, refuse_overlap
from transect.runtime.arrays import (
    as_numpy,
    as_sequence,
    empty_array,
    ffi_items,
    is_torch,
    numpy_dtype,
    to_numpy,
    to_tensor,
    torch_module,
)
from transect.runtime.call_source import NUMPY as NUMPY_KIND
from transect.runtime.call_source import array_call, shape_functions, torch_kind
from transect.runtime.functions import explained
from transect.runtime.signature import Output, Result, Signature, describe
from transect.support.errors import InputError, InputTypeError

NUMPY = "numpy"
TORCH = "torch"
FFI = "tvm_ffi"


class CompiledModel:
    """A compiled program: call it with arrays, by position or by name.

    Arguments: for a tensor a numpy array, a torch tensor, or anything that speaks DLPack, of the
    dtype and shape that `signature` says; for a scalar a number; for a shape a sequence of
    integers; for a tuple a tuple or list. Arrays are passed without a copy, except those that are
    not contiguous. A read-only array is fine unless the program writes to that parameter.

    Results: of the kind of the first array argument: torch tensors for torch, tvm_ffi tensors for
    tvm_ffi and other DLPack producers, else (or without one) numpy arrays. Each call
    gives new ones. Several results come as a tuple.

    Compiled code checks dtypes, ranks, shapes and devices and raises ValueError or TypeError. An
    exception of a registered function comes out as it was raised. Safe to call from several
    threads at once, and from within a registered function.
    """

    def __init__(self, entry: tvm_ffi.Function, signature: Signature) -> None:
        """entry: the function with tvm-ffi's calling convention. signature: what it takes."""
        signature.check()
        self.entry = entry
        self.signature = signature
        self._names = tuple(parameter.name for parameter in signature.parameters)
        self._count = len(self._names)
        self._shapes = shape_functions(signature)
        self._call = array_call(signature, NUMPY_KIND, entry, self._other, partial(_present, NUMPY))
        self._torch_call: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run the program once. Raises InputError or InputTypeError for arguments that cannot be
        passed, ValueError or TypeError from the checks of compiled code."""
        if named or len(args) != self._count:
            args = self._bind(args, named)
        try:
            return self._call(*args)
        except BaseException as error:
            raised = explained(error)
            if raised is error:
                raise
            raise raised from raised.__cause__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.signature}>"

    def _bind(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """All arguments in order."""
        takes = (
            f"it takes: {', '.join(f'{p.name}: {describe(p)}' for p in self.signature.parameters)}"
        )
        if len(args) > self._count:
            raise InputError(
                f"{self.signature.name} takes {self._count} inputs, got {len(args)}", notes=[takes]
            )
        unknown = [name for name in named if name not in self._names]
        if unknown:
            raise InputError(f"no input is named {', '.join(map(repr, unknown))}", notes=[takes])
        given = self._names[: len(args)]
        twice = [name for name in given if name in named]
        if twice:
            raise InputError(
                f"given by position and by name: {', '.join(map(repr, twice))}", notes=[takes]
            )
        missing = [name for name in self._names[len(args) :] if name not in named]
        if missing:
            raise InputError(f"missing inputs: {', '.join(map(repr, missing))}", notes=[takes])
        return (*args, *(named[name] for name in self._names[len(args) :]))

    def _other(self, *args: Any) -> Any:
        """The call for arguments that are not all numpy arrays that fit."""
        if not args or not is_torch(args[0]):
            return self._slow(*args)
        if self._torch_call is None:
            self._torch_call = array_call(
                self.signature,
                torch_kind(torch_module()),
                self.entry,
                self._slow,
                partial(_present, TORCH),
            )
        return self._torch_call(*args)

    def _slow(self, *args: Any) -> Any:
        """The call for arguments of any accepted kind."""
        kind = _result_kind(args) or NUMPY
        copies: Copies = []
        passed: list[Any] = []
        for parameter, value in zip(self.signature.parameters, args, strict=True):
            passed.append(convert(parameter, value, copies))
        refuse_overlap(self.signature.parameters, passed)
        destinations = [
            _allocate(kind, output, shape)
            for output, shape in zip(
                (o for o in self.signature.outputs if o.kind == "destination"),
                self._output_shapes(passed),
                strict=True,
            )
        ]
        handed = [to_tensor(item) if kind == NUMPY else item for item in destinations]
        returned = self.entry(*passed, *handed)
        for original, copy in copies:
            original[...] = copy
        return self._assemble(kind, destinations, returned)

    def _output_shapes(self, passed: list[Any]) -> list[tuple[int, ...]]:
        """The shape of each destination. Raises InputError if there is none for these inputs."""
        values: dict[str, int] = {}
        for name, (number, axis) in self.signature.dimensions().items():
            value = passed[number]
            parameter = self.signature.parameters[number]
            shape = value.shape if parameter.kind == "tensor" else value
            try:
                values[name] = int(shape if axis is None else shape[axis])
            except IndexError:
                raise InputError(
                    f"input {parameter.name!r} has {len(shape)} dimensions, expected "
                    f"{len(parameter.shape or ())}: {describe(parameter)}"
                ) from None
        shapes: list[tuple[int, ...]] = []
        for function in self._shapes:
            try:
                shape = function(**values)
            except ZeroDivisionError:
                shape = (-1,)
            if any(extent < 0 for extent in shape):
                sizes = ", ".join(f"{name}={value}" for name, value in values.items())
                raise InputError(f"an output would have a negative or undefined size for {sizes}")
            shapes.append(shape)
        return shapes

    def _assemble(self, kind: str, destinations: list[Any], returned: Any) -> Any:
        """The result, built of destinations and owned values."""
        owned = [output for output in self.signature.outputs if output.kind == "owned"]
        values = list(returned) if len(owned) > 1 else [returned]
        made, given = iter(destinations), iter(values)
        outputs = [
            next(made) if output.kind == "destination" else _present(kind, next(given))
            for output in self.signature.outputs
        ]
        return _structure(self.signature.result, outputs)


def _structure(result: Result, outputs: list[Any]) -> Any:
    if isinstance(result, int):
        return outputs[result]
    return tuple(_structure(item, outputs) for item in result)


def _result_kind(args: Sequence[Any]) -> str | None:
    """The kind of the first array, also within tuples; None without one."""
    for value in args:
        parts = as_sequence(value)
        kind = _array_kind(value) if parts is None else _result_kind(parts)
        if kind is not None:
            return kind
    return None


def _array_kind(value: Any) -> str | None:
    if is_torch(value):
        return TORCH
    if as_numpy(value) is not None:
        return NUMPY
    return FFI if hasattr(value, "__dlpack__") else None


def _allocate(kind: str, output: Output, shape: tuple[int, ...]) -> Any:
    """A new tensor for a destination output."""
    name = str(output.dtype)
    if kind == TORCH:
        dtype = getattr(torch_module(), name, None)
        if dtype is None:
            raise InputTypeError(
                f"torch has no dtype {name}, which this model returns", remedy="pass numpy arrays"
            )
        return torch_module().empty(shape, dtype=dtype)
    try:
        array = empty_array(shape, numpy_dtype(name))
    except ValueError:
        raise InputError(f"an output of shape {shape} and dtype {name} is too large") from None
    return array if kind == NUMPY else to_tensor(array)


def _present(kind: str, value: Any) -> Any:
    """An owned value as the caller gets it."""
    if isinstance(value, tvm_ffi.Tensor):
        if kind == FFI:
            return value
        return torch_module().from_dlpack(value) if kind == TORCH else to_numpy(value)
    items = ffi_items(value)
    return value if items is None else tuple(_present(kind, item) for item in items)
