"""Large constants of a program: text refers to them by name, an .npz file beside it holds them.

A name says dtype and shape and ends in a digest of the contents, so equal constants are stored
once, every stage of a compile can share one file, and a wrong file is noticed.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import numpy as np

from transect.ir.dtype import as_dtype
from transect.support.errors import InputError

INLINE_ELEMENTS = 16
"""Constants of up to this many elements are written into the text."""


def constant_name(data: np.ndarray) -> str:
    """The name of an array: "float32_64x10_" and twelve hexadecimal digits of its contents."""
    contiguous = np.ascontiguousarray(data)
    digest = hashlib.blake2b(contiguous.tobytes(), digest_size=6)
    shape = "x".join(map(str, data.shape)) or "scalar"
    return f"{as_dtype(data.dtype)}_{shape}_{digest.hexdigest()}"


class ConstantStore:
    """How constants print: small ones inline, others by name, kept in `constants` if given."""

    def __init__(self, constants: MutableMapping[str, np.ndarray] | None = None) -> None:
        self.constants = constants

    def reference(self, data: np.ndarray) -> tuple[str, str]:
        """The Python expression for the contents of `data`, and its dtype."""
        dtype = str(as_dtype(data.dtype))
        inline = inline_text(data)
        if inline is not None:
            return inline, dtype
        name = constant_name(data)
        if self.constants is not None:
            self.constants[name] = data
        return f'I.constant("{name}")', dtype


def inline_text(data: np.ndarray) -> str | None:
    """A literal that makes the same array again with the dtype given beside it, or None."""
    if data.size > INLINE_ELEMENTS:
        return None
    if data.size == 0:
        return "[]"  # The shape stands beside it.
    value: object = data.tolist() if data.dtype.kind in "biuf" else data.astype(np.float64).tolist()
    again = np.asarray(value, np.float64 if data.dtype.kind == "V" else None).astype(data.dtype)
    if again.shape != data.shape or again.tobytes() != data.tobytes():
        return None
    text = repr(value)
    return None if "nan" in text or "inf" in text else text


def save_constants(path: Path, constants: Mapping[str, np.ndarray]) -> None:
    """Write the constants that `script(module, constants=...)` collected to an .npz file."""
    raw = {
        name: np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        for name, data in constants.items()
    }
    with path.open("wb") as file:
        np.savez(file, **raw)  # pyright: ignore[reportArgumentType]


def load_constants(path: Path) -> dict[str, np.ndarray]:
    """The constants that `save_constants` wrote. Raises InputError for any other file."""
    if not path.is_file():
        raise InputError(
            f"no file of constants at {path}", remedy="copy it beside the script it belongs to"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: _restore(name, archive[name]) for name in archive.files}
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no file of constants: {error}") from error


def _restore(name: str, raw: np.ndarray) -> np.ndarray:
    dtype, shape = parse_constant_name(name)
    return raw.view(dtype).reshape(shape)


def parse_constant_name(name: str) -> tuple[np.dtype, tuple[int, ...]]:
    """The dtype and shape that a constant's name says. Raises InputError for other names."""
    parts = name.rsplit("_", 2)
    if len(parts) != 3:
        raise InputError(f"{name!r} is not the name of a constant")
    shape = () if parts[1] == "scalar" else tuple(map(int, parts[1].split("x")))
    return as_dtype(parts[0]).numpy, shape
