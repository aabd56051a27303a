"""Object code -> callable addresses in this process, through LLVM's ORC.

Compiling is in `compile`. Loading checks every symbol and takes about a millisecond.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import tvm_ffi.libinfo

from transect.codegen.llvm.compile import CompiledObject, initialize
from transect.codegen.llvm.module import CONSTANT_TABLE
from transect.codegen.llvm.runtime import UNLOAD
from transect.support.errors import InputError

_UNIQUE = itertools.count()


@cache
def _engine() -> llvm.LLJIT:
    """The one JIT of this process; every object is a library of its own in it."""
    initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    _open_openmp()
    # The C ABI of tvm-ffi may have been loaded privately by its Python extension.
    ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi(), mode=ctypes.RTLD_GLOBAL)
    return llvm.create_lljit_compiler(use_jit_link=False)


_SPINS = "1000"
"""How often a thread of libgomp looks for work before it sleeps: about 50 us. Its own default is
milliseconds, in which a machine with other work to do stands still (measured: 180 ms a call of the
demo model against 20 ms, on two cores with a load of 4)."""


def _open_openmp() -> None:
    """Load libgomp, unless the process has it already, with threads that do not spin for long.

    It reads its settings while it is loaded; those that the user made stay as they are.
    """
    settings = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    if any(name in os.environ for name in settings) or os.environ.get("TRANSECT_OPENMP") == "0":
        return
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return  # The pool that compiled code brings along takes its place.
    finally:
        del os.environ["GOMP_SPINCOUNT"]


class LoadedModule:
    """Machine code in memory, kept as long as this object lives, with what it refers to."""

    def __init__(
        self, tracker: llvm.ResourceTracker, entries: Sequence[str], keep: Sequence[object]
    ) -> None:
        self.entries = tuple(entries)
        self._tracker = tracker
        self._keep = tuple(keep)
        self._finalizer = weakref.finalize(self, _unload, tracker, tracker[UNLOAD])

    def address(self, name: str) -> int:
        """The address of an entry. Raises InputError if there is none of that name."""
        if name not in self.entries:
            raise InputError(f"no entry {name!r}", notes=[f"there are: {', '.join(self.entries)}"])
        return int(self._tracker[name])


_immortal: list[llvm.ResourceTracker] = []
"""Modules whose own threads still run their code."""


def _unload(tracker: llvm.ResourceTracker, address: int) -> None:
    if ctypes.CFUNCTYPE(ctypes.c_int32)(address)():
        _immortal.append(tracker)


def load(
    compiled: CompiledObject,
    *,
    libraries: Mapping[str, Path] | Sequence[Path] = (),
    symbols: Mapping[str, int] | None = None,
) -> LoadedModule:
    """Link `compiled` into this process.

    libraries: shared objects that define some of its externs; they are kept open. symbols: further
    addresses by name. Raises InputError that names every symbol nobody defines.
    """
    engine = _engine()
    paths = list(libraries.values()) if isinstance(libraries, Mapping) else list(libraries)
    opened = [ctypes.CDLL(str(path)) for path in paths]
    process = ctypes.CDLL(None)
    found = {
        name: (symbols or {}).get(name) or _find(name, [*opened, process])
        for name in compiled.externs
    }
    missing = [name for name, address in found.items() if not address]
    if missing:
        raise InputError(
            f"the compiled code needs symbols that no library defines: {', '.join(missing)}",
            remedy="give the shared object that defines them in `libraries`",
        )
    # The process itself has what LLVM calls on its own account, such as memcpy.
    builder = llvm.JITLibraryBuilder().add_object_img(compiled.code).add_current_process()
    for name, address in found.items():
        builder.import_symbol(name, address)
    exports = [*compiled.entries, UNLOAD, *([CONSTANT_TABLE] if compiled.constants else [])]
    for name in exports:
        builder.export_symbol(name)
    try:
        tracker = builder.link(engine, f"transect.{next(_UNIQUE)}")
    except RuntimeError as error:
        raise InputError(f"the compiled code cannot be linked: {error}") from None
    if compiled.constants:
        table = (ctypes.c_void_p * len(compiled.constants)).from_address(tracker[CONSTANT_TABLE])
        for number, array in enumerate(compiled.constants):
            table[number] = array.ctypes.data
    return LoadedModule(tracker, compiled.entries, (opened, compiled.constants, engine))


def _find(name: str, libraries: Sequence[ctypes.CDLL]) -> int:
    for library in libraries:
        try:
            symbol = getattr(library, name)
        except AttributeError:
            continue
        return ctypes.cast(symbol, ctypes.c_void_p).value or 0
    return 0


def constant_bytes(constants: Sequence[np.ndarray]) -> int:
    """The memory that large constants take."""
    return sum(array.nbytes for array in constants)
