"""Machine code, as the shared object that the linker made, into this process and out again.

Needs no compiler and no LLVM. How such an object is made is in `codegen.llvm.shared_object`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import tvm_ffi.libinfo

from transect.support.errors import InputError

IMPORTS = "__transect_imports"
"""The symbol of the table of addresses that code takes from elsewhere."""
CONSTANTS = "__transect_constants"
"""The symbol of the table of pointers to large constants."""
UNLOAD = "__transect_unload"
"""The symbol of the clean-up function: int32 () -> 0, or 1 if code must stay loaded."""

_UNIQUE = itertools.count(1)
_dl = ctypes.CDLL(None)
_dl.dlclose.argtypes = [ctypes.c_void_p]


class LoadedCode:
    """Machine code in memory, kept as long as this object lives, with what it refers to."""

    def __init__(self, library: ctypes.CDLL, entries: Sequence[str], keep: object) -> None:
        self.entries = tuple(entries)
        self._library = library
        self._finalizer = weakref.finalize(self, _unload, library, keep)

    def address(self, symbol: str, /) -> int:
        """The address of an entry. Raises InputError if there is none of that name."""
        if symbol not in self.entries:
            known = ", ".join(self.entries)
            raise InputError(f"no entry {symbol!r}", notes=[f"there are: {known}"])
        return _address(self._library, symbol)


def load_code(
    image: bytes | memoryview,
    entries: Sequence[str],
    imports: Sequence[str],
    constants: Sequence[np.ndarray[Any, Any]] = (),
    libraries: Iterable[ctypes.CDLL] = (),
    symbols: Mapping[str, int] | None = None,
) -> LoadedCode:
    """Load a shared object and fill its tables.

    imports: the symbols that its table IMPORTS is for. constants: what CONSTANTS points to.
    libraries: where imports are looked for before the process itself. symbols: further addresses.
    Raises InputError for an image that cannot be loaded, and naming every symbol nobody defines.
    """
    opened = tuple(libraries)
    places = (*opened, *_system())
    found = {name: (symbols or {}).get(name) or _find(name, places) for name in imports}
    missing = [name for name, address in found.items() if not address]
    if missing:
        raise InputError(
            f"the compiled code needs symbols that no library defines: {', '.join(missing)}",
            remedy="give the shared object that defines them in `libraries`",
        )
    library = _open(image)
    try:
        _fill(library, IMPORTS, list(found.values()))
        _fill(library, CONSTANTS, [array.ctypes.data for array in constants])
        for entry in entries:
            _address(library, entry)
    except AttributeError as error:
        _dl.dlclose(library._handle)
        raise InputError(f"not the code of a compiled model: {error}") from None
    return LoadedCode(library, entries, (opened, tuple(constants)))


@cache
def _system() -> tuple[ctypes.CDLL, ...]:
    """The libraries of every process that runs compiled code."""
    # tvm-ffi may have been loaded privately by its Python extension.
    ffi = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi(), mode=ctypes.RTLD_GLOBAL)
    return ffi, ctypes.CDLL(None), ctypes.CDLL("libm.so.6")


def _open(image: bytes | memoryview) -> ctypes.CDLL:
    """dlopen of an image in memory."""
    descriptor = os.memfd_create("transect", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(image)
        # The system takes a path that it has seen for the library that it loaded from there, and
        # numbers of descriptors come again. "." and an empty part spell the same path anew.
        spelling = "".join("./" if bit == "1" else "/" for bit in f"{next(_UNIQUE):b}")
        return ctypes.CDLL(f"/proc/self/{spelling}fd/{descriptor}")
    except OSError as error:
        raise InputError(f"the compiled code cannot be loaded: {error}") from None
    finally:
        os.close(descriptor)


def _fill(library: ctypes.CDLL, table: str, addresses: Sequence[int]) -> None:
    if addresses:
        kind = ctypes.c_void_p * len(addresses)
        kind.in_dll(library, table)[:] = addresses


def _address(library: ctypes.CDLL, symbol: str) -> int:
    return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0


def _find(name: str, libraries: Sequence[ctypes.CDLL]) -> int:
    for library in libraries:
        try:
            return _address(library, name)
        except AttributeError:
            continue
    return 0


_immortal: list[object] = []
"""What code that its own threads still run refers to."""


def _unload(library: ctypes.CDLL, keep: object) -> None:
    if library[UNLOAD]():
        _immortal.append((library, keep))
    else:
        _dl.dlclose(library._handle)
