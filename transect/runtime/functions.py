"""Registered functions: Python callables that compiled programs call by name, and their errors.

A thin layer over tvm-ffi's global functions. Everyone in the process shares one table of names.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm_ffi

from transect.runtime.arrays import (
    as_numpy,
    as_sequence,
    ffi_items,
    is_borrowed,
    numpy_dtype,
    to_numpy,
    to_tensor,
)
from transect.support.errors import InputError, InputTypeError


def register_function(
    name: str,
    function: Callable[..., Any] | None = None,
    *,
    raw: bool = False,
    override: bool = False,
) -> Any:
    """Make `function` callable from compiled programs as `name`; without it, a decorator.

    Tensor arguments arrive as numpy arrays over the program's memory, so that an update in place
    is seen by the program, and stay valid after the call; constants of the program arrive as
    read-only copies. Tuples arrive as tuples, shapes as tvm_ffi.Shape (a tuple of int). Results:
    arrays (made contiguous; scalars of numpy become arrays of rank 0), numbers, strings, shapes,
    None, and tuples of those. raw: pass and return tvm_ffi values as they are.

    An exception reaches the caller of the model as the same object.

    Returns `function`. Raises InputError for a name that is taken, unless `override`,
    and InputTypeError for what cannot be called.
    """
    if function is None:
        return functools.partial(register_function, name, raw=raw, override=override)
    if not callable(function):
        raise InputTypeError(f"{name!r}: a {type(function).__name__} cannot be called")
    if not override and tvm_ffi.get_global_func(name, allow_missing=True) is not None:
        raise InputError(
            f"a function {name!r} is registered already", remedy="pass override=True to replace it"
        )
    tvm_ffi.register_global_func(name, _guarded(function, raw=raw), override=override)
    return function


def get_function(name: str) -> Callable[..., Any]:
    """The registered function `name`, whoever registered it, as a tvm_ffi.Function.

    Raises InputError if there is none.
    """
    found = tvm_ffi.get_global_func(name, allow_missing=True)
    if found is None:
        raise InputError(
            f"no function {name!r} is registered",
            remedy=f"transect.runtime.register_function({name!r}, …)",
        )
    return found


def remove_function(name: str) -> None:
    """Forget the registered function `name`. Programs that looked it up already keep it."""
    get_function(name)
    tvm_ffi.registry.remove_global_func(name)


def print_values(template: str, *values: Any) -> None:
    """Write values to standard output, put into `template` if that is not empty."""
    text = template.format(*values) if template else " ".join(map(str, values))
    sys.stdout.write(text + "\n")


BUILTIN: dict[str, Callable[..., Any]] = {"transect.print": print_values}
"""What compiled programs call without anyone having registered it."""


def provide_builtin() -> None:
    """Register the functions of BUILTIN that nobody has registered. Safe to repeat."""
    for name, function in BUILTIN.items():
        if tvm_ffi.get_global_func(name, allow_missing=True) is None:
            register_function(name, function, override=True)


# --- values -----------------------------------------------------------------------------------


def from_ffi(value: Any) -> Any:
    """A value of tvm-ffi in Python's terms: arrays, tuples, numbers, strings, None."""
    if isinstance(value, tvm_ffi.Tensor):
        if not is_borrowed(value):
            return to_numpy(value)
        array = _copy_borrowed(value)
        array.flags.writeable = False
        return array
    if isinstance(value, tvm_ffi.Shape):  # a tuple already, told apart from other tuples
        return value
    items = ffi_items(value)
    return value if items is None else tuple(map(from_ffi, items))


def to_ffi(value: Any) -> Any:
    """A Python value as tvm-ffi takes it; arrays that DLPack would refuse are wrapped."""
    if isinstance(value, tvm_ffi.Shape):
        return value
    parts = as_sequence(value)
    if parts is not None:
        return tuple(map(to_ffi, parts))
    array = as_numpy(value)
    return value if array is None else to_tensor(np.asarray(array, order="C"))


def _copy_borrowed(tensor: tvm_ffi.Tensor) -> np.ndarray[Any, Any]:
    """The elements of a bare, compact view, which has no object that DLPack could keep alive."""
    array = np.empty(tensor.shape, numpy_dtype(str(tensor.dtype)))
    ctypes.memmove(array.ctypes.data, tensor.data_ptr(), array.nbytes)
    return array


def _guarded(function: Callable[..., Any], *, raw: bool) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            if raw:
                return function(*args)
            return to_ffi(function(*map(from_ffi, args)))
        except BaseException as error:
            _errors.keep(error)
            raise

    return functools.update_wrapper(call, function, assigned=("__name__", "__doc__"), updated=())


# --- errors -----------------------------------------------------------------------------------


class _Errors(threading.local):
    """The exception that is on its way through compiled code, which carries only its text."""

    error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        """Remember `error` and give it the identity by which it is recognised on the other side."""
        if not hasattr(error, "__tvm_ffi_error__"):
            mark: Any = error
            mark.__tvm_ffi_error__ = tvm_ffi.core.Error(type(error).__name__, str(error), "")
        self.error = error


_errors = _Errors()


# Compiled code names the class of its errors; tvm-ffi knows all but this one that kernels raise.
tvm_ffi.register_error("ZeroDivisionError", ZeroDivisionError)

_PLACE = re.compile(r'File ".+?", line \d+, in transect: (.+)')
_MOST_PLACES = 8


def explained(error: BaseException) -> BaseException:
    """The exception to show for one that came out of compiled code.

    What a registered function raised is given back as the same object. Either way a note says
    which layers of the model, or lines of the program, were running, the innermost first.
    """
    passed: Any = getattr(error, "__tvm_ffi_error__", None)
    if passed is None:
        return error
    kept = _errors.error
    if kept is not None and passed.same_as(getattr(kept, "__tvm_ffi_error__", None)):
        error, _errors.error = kept, None
    for place in list(dict.fromkeys(_PLACE.findall(passed.backtrace)))[:_MOST_PLACES]:
        note = f"while running {place}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    return error
