"""Object code -> callable addresses in this process.

Compiling is in `compile`, linking in `shared_object`, and loading in `runtime.code`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

from transect.codegen.llvm.compile import CompiledObject
from transect.codegen.llvm.shared_object import Linked, link
from transect.runtime.code import CONSTANTS, UNLOAD, LoadedCode, load_code


def link_module(compiled: CompiledObject) -> Linked:
    """The shared object of a compiled module."""
    tables = [CONSTANTS] if compiled.constants else []
    return link(compiled.objects, [*compiled.entries, UNLOAD, *tables])


def load(
    compiled: CompiledObject,
    *,
    libraries: Mapping[str, Path] | Sequence[Path] = (),
    symbols: Mapping[str, int] | None = None,
) -> LoadedCode:
    """Link `compiled` into this process.

    libraries: shared objects that define some of its externs; they are kept open. symbols: further
    addresses by name. Raises InputError that names every symbol nobody defines.
    """
    linked = link_module(compiled)
    paths = libraries.values() if isinstance(libraries, Mapping) else libraries
    opened = [ctypes.CDLL(str(path)) for path in paths]
    return load_code(
        linked.image, compiled.entries, linked.imports, compiled.constants, opened, symbols
    )
