"""SharedLibrary: where compiled code finds the C libraries that it calls, on any machine."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from transect.support.errors import InputError


@dataclass(frozen=True)
class SharedLibrary:
    """A shared object that a Python package carries.

    package: an importable name, which is looked up and not imported. pattern: of the file, relative
    to the package's folder; a whole path if the package is "". calls: C functions of one int to
    call once it is loaded.
    """

    package: str
    pattern: str
    calls: tuple[tuple[str, int], ...] = ()

    def find(self) -> Path | None:
        """The file, None if it is not installed."""
        if not self.package:
            return Path(self.pattern) if Path(self.pattern).is_file() else None
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        return next(iter(sorted(Path(spec.origin).parent.glob(self.pattern))), None)

    def open(self) -> ctypes.CDLL:
        """The library, loaded and set up. Raises InputError if it is not installed."""
        path = self.find()
        if path is None:
            raise InputError(
                f"compiled code calls {self.pattern} of {self.package or 'this machine'}, which is "
                "not installed",
                remedy=f"pip install {self.package.replace('_', '-')}"
                if self.package
                else "install the library where it was when the model was compiled",
            )
        library = ctypes.CDLL(str(path))
        for symbol, value in self.calls:
            library[symbol](value)
        return library
