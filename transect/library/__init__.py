"""One file per library: what it can do and how it is called. Named in one table.

A user's package adds its own under the entry-point group "transect.libraries".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from transect.library.base import Library, Offer, Routine
from transect.runtime import SharedLibrary

__all__ = [
    "LIBRARIES",
    "Library",
    "Offer",
    "Routine",
    "libraries",
    "library_paths",
    "shared_libraries",
]

LIBRARIES: dict[str, str] = {
    "openblas": "transect.library.openblas:OpenBLAS",
}
"""Loaders of the libraries that transect knows, by name."""


@cache
def libraries() -> tuple[Library, ...]:
    """Every known library, installed or not, in the order of the table."""
    loaders = dict(LIBRARIES)
    loaders |= {point.name: point.value for point in entry_points(group="transect.libraries")}
    found: list[Library] = []
    for loader in loaders.values():
        module, name = loader.split(":")
        found.append(getattr(import_module(module), name)())
    return tuple(found)


def shared_libraries(symbols: Iterable[str]) -> tuple[SharedLibrary, ...]:
    """What a deployed model needs to know of the libraries that define some of these C symbols."""
    names = list(symbols)
    return tuple(
        library.shared()
        for library in libraries()
        if any(symbol.startswith(library.prefix) for symbol in names)
    )


def library_paths(symbols: Iterable[str]) -> list[Path]:
    """The shared objects that define some of these C symbols, ready to be called.

    Raises InputError, with the remedy, for a library that is not installed.
    """
    names = list(symbols)
    paths: list[Path] = []
    for library in libraries():
        if any(symbol.startswith(library.prefix) for symbol in names):
            path = library.path()
            library.prepare(path)
            paths.append(path)
    return paths
