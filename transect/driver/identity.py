"""The cache key of a compile: what the model is, before it is parsed, and all else that counts."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from blake3 import blake3

from transect.ir.function import BaseFunc, IRModule
from transect.ir.structural import structural_hash
from transect.script import script

_PACKAGES = (
    "transect",
    "llvmlite",
    "apache-tvm-ffi",
    "numpy",
    "ml-dtypes",
    "scipy-openblas32",
    "onnx",
)


def cache_key(model: Any, options: Iterable[object]) -> str | None:
    """A key that is equal only for the same raw model, options, versions and machine; None if the
    model cannot be told by its bytes before it is read (external weights, an object in memory
    that is none of ours)."""
    digest = _model_digest(model)
    if digest is None:
        return None
    hasher = blake3(digest)
    for part in (*options, _environment()):
        hasher.update(_text(part).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()


def _model_digest(model: Any) -> bytes | None:
    if isinstance(model, str | Path):
        path = Path(model)
        return _digest(path.read_bytes()) if path.is_file() else None
    if isinstance(model, IRModule | BaseFunc):
        # Names are no part of the structure, but they are of the interface: parameters, dimensions.
        return blake3(f"{structural_hash(model)}\n{script(model)}".encode()).digest()
    if hasattr(model, "SerializeToString"):
        return _digest(model.SerializeToString(deterministic=True))
    return None


_EXTERNAL_DATA = b"location"
"""The key under which an ONNX file names the files that hold its weights."""


def _digest(data: bytes) -> bytes | None:
    # Weights in other files may change while these bytes stay the same.
    return None if _EXTERNAL_DATA in data else blake3(data).digest()


@cache
def _environment() -> str:
    """Versions of all that takes part, and the sources of transect itself."""
    versions: list[str] = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    newest = max(path.stat().st_mtime_ns for path in _sources())
    return f"{versions} {platform.platform()} {platform.processor()} {newest}"


def _sources() -> list[Path]:
    return sorted(Path(__file__).resolve().parents[1].rglob("*.py"))


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
