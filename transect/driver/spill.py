"""Spill: weights that the compiler computes go to disk as they come, and are mapped from there.

Otherwise a model that is packed anew as a whole would be in memory twice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from transect.runtime import release_pages
from transect.runtime.safetensors import Array

_LEAST = 1 << 18
"""Bytes from which an array is worth a file."""


class Spill:
    """Keeps arrays in files without names, which are gone when the last array is.

    folder: where, if it can be written; else where the system keeps temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, array: Array, *sources: Array) -> Array:
        """`array`, mapped from a file if it is large. The memory of `sources` that is mapped from
        files is given back; they can still be read."""
        kept = self._write(array) if array.nbytes >= _LEAST else array
        for source in sources:
            release_pages(source)
        return kept

    def _write(self, array: Array) -> Array:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        folder = self.folder if self.folder.is_dir() else None
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(flat.data)
                file.flush()
                mapped = np.memmap(file, np.uint8, mode="r")
        except OSError:  # No room, or no right to write: then it stays in memory.
            return array
        return mapped.view(array.dtype).reshape(array.shape)
