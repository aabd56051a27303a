"""The cache key of a compile: what the model is, before it is parsed, and all else that counts."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, cast

from blake3 import blake3

from transect.frontend import model_files
from transect.ir.function import BaseFunc, IRModule
from transect.ir.structural import structural_hash
from transect.script import script
from transect.target.host import processor

_PACKAGES = (
    "transect",
    "llvmlite",
    "apache-tvm-ffi",
    "numpy",
    "ml-dtypes",
    "scipy-openblas32",
    "onnx",
)


@dataclass(frozen=True)
class Identity:
    """What a model is, before it is parsed.

    digest: of all its bytes. name: for listings. files: those that it is in, if it is in files.
    stamps: when each was changed, and its size, so that a change meanwhile does not go unseen.
    """

    digest: bytes
    name: str
    files: tuple[Path, ...] = ()
    stamps: tuple[tuple[int, int, int], ...] = ()

    def key(self, options: Iterable[object]) -> str:
        """A key that is equal only for the same model, options, versions and machine."""
        hasher = blake3(self.digest)
        for part in (*options, _environment()):
            hasher.update(_text(part).encode())
            hasher.update(b"\0")
        return hasher.hexdigest()

    def is_current(self) -> bool:
        """Whether the files are still those that were read."""
        try:
            return tuple(map(_stamp, self.files)) == self.stamps
        except OSError:
            return False


def identify(model: Any) -> Identity | None:
    """The identity of a model; None if it cannot be told by its bytes before it is read (weights
    that are missing or outside of its folder, an object in memory that is none of ours)."""
    if isinstance(model, str | Path):
        return _identify_files(Path(model))
    if isinstance(model, IRModule | BaseFunc):
        # Names are no part of the structure, but they are of the interface: parameters, dimensions.
        text = f"{structural_hash(model)}\n{script(model)}"
        return Identity(blake3(text.encode()).digest(), "a module")
    if hasattr(model, "SerializeToString"):
        data = model.SerializeToString(deterministic=True)
        return Identity(blake3(data).digest(), type(model).__name__)
    return None


def _identify_files(path: Path) -> Identity | None:
    try:
        files = model_files(path)
        if files is None:
            return None
        stamps = tuple(map(_stamp, files))
        digest = blake3(b"".join(map(_digest, files))).digest()
    except OSError:
        return None
    return Identity(digest, str(path), tuple(files), stamps)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


_CHUNK = 1 << 22


def _digest(path: Path) -> bytes:
    """Of the bytes of a file, read piece by piece: mapped pages would count as memory in use."""
    hasher = blake3()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.digest()


@cache
def _environment() -> str:
    """Versions of all that takes part, the machine, and the sources of transect itself."""
    versions: list[str] = []
    for package in (*_PACKAGES, *_plugins()):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    return f"{versions} {platform.platform()} {processor()} {_sources().hex()}"


def _plugins() -> list[str]:
    """The packages that add operators, libraries or targets."""
    points = entry_points()
    groups = [group for group in points.groups if group.startswith("transect.")]
    found = {p.dist.name for group in groups for p in points.select(group=group) if p.dist}
    return sorted(found)


def _sources() -> bytes:
    """A digest of the sources: neither versions nor times of files tell an edit, an older version
    put back, and a package that was built reproducibly apart."""
    hasher = blake3()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        hasher.update(f"{path.relative_to(root)}\0".encode())
        hasher.update(blake3(path.read_bytes()).digest())
    return hasher.digest()


def _text(value: Any) -> str:
    """A text of an option that is the same in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        inside = ",".join(f"{f.name}={_text(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__module__}.{type(value).__qualname__}({inside})"
    if isinstance(value, frozenset | tuple | list):
        items = [_text(item) for item in cast(Iterable[Any], value)]
        ordered = sorted(items) if isinstance(value, frozenset) else items
        return f"({','.join(ordered)})"
    if isinstance(value, Mapping):
        pairs: list[str] = [f"{_text(k)}:{_text(v)}" for k, v in value.items()]  # pyright: ignore[reportUnknownVariableType]
        return f"{{{','.join(sorted(pairs))}}}"
    return repr(value)
