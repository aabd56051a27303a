"""SharedLibrary: where compiled code finds the C libraries that it calls, on any machine."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from transect.support.errors import InputError

_SPINS = "1000"
"""How often a thread of libgomp looks for work before it sleeps: about 50 us. Its own default is
milliseconds, in which a machine with other work to do stands still: a call of the demo model took
180 ms with that on two cores with a load of 4, 56 to 78 ms with this one at a load of 2.6."""


def _open_openmp() -> None:
    """Load libgomp, unless the process has it already, with threads that do not spin for long:
    libraries bring theirs, and compiled code shares it then.

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
        _open_openmp()
        library = ctypes.CDLL(str(path))
        for symbol, value in self.calls:
            library[symbol](value)
        return library
