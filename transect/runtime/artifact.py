"""Artifact: all that runs a compiled model, in this process or in a folder that can be deployed.

A folder holds `model.json` (what the model takes, and what it needs), `model.so` (its code) and
`weights.safetensors`. How code and weights come about is the compiler's business.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from transect.runtime.code import LoadedCode, load_code
from transect.runtime.libraries import SharedLibrary
from transect.runtime.loader import load_function
from transect.runtime.model import CompiledModel
from transect.runtime.safetensors import Array, pack_arrays, unpack_arrays
from transect.runtime.signature import Signature
from transect.support.errors import InputError

_VERSION = 1
_MODEL, _CODE, _WEIGHTS = "model.json", "model.so", "weights.safetensors"


@dataclass(frozen=True)
class Artifact:
    """A compiled model.

    image: a shared object. entries: its functions in tvm-ffi's calling convention. imports: the
    symbols that its table of imports is for, in order. libraries: where some of them are.
    constants: what its table of constants points to, in order; often mapped from a file.
    """

    image: bytes | memoryview
    entries: tuple[str, ...]
    imports: tuple[str, ...]
    libraries: tuple[SharedLibrary, ...]
    constants: tuple[Array, ...]
    signature: Signature

    def load(self) -> LoadedCode:
        """The code in this process. Raises InputError for a library or symbol that is missing."""
        opened = [library.open() for library in self.libraries]
        return load_code(self.image, self.entries, self.imports, self.constants, opened)

    def describe(self) -> dict[str, Any]:
        """What `Artifact.of` needs besides the code and the constants, for JSON."""
        return {
            "version": _VERSION,
            "entries": list(self.entries),
            "imports": list(self.imports),
            "libraries": [asdict(library) for library in self.libraries],
            "signature": self.signature.to_json(),
        }

    @staticmethod
    def of(
        description: Mapping[str, Any], image: bytes | memoryview, constants: tuple[Array, ...]
    ) -> Artifact:
        """The artifact that was described. Raises InputError for another version's."""
        if description.get("version") != _VERSION:
            raise InputError(
                f"a model of version {description.get('version')}; this runtime reads {_VERSION}",
                remedy="export the model again with this version",
            )
        return Artifact(
            image,
            tuple(description["entries"]),
            tuple(description["imports"]),
            tuple(
                SharedLibrary(x["package"], x["pattern"], tuple((n, v) for n, v in x["calls"]))
                for x in description["libraries"]
            ),
            constants,
            Signature.from_json(description["signature"]),
        )

    def save(self, folder: Path) -> None:
        """Write the artifact to `folder`, in place of a former one; the description last, so that
        a folder without it is not whole."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MODEL).unlink(missing_ok=True)
        names = [str(number) for number in range(len(self.constants))]
        kinds = [{"dtype": a.dtype.name, "shape": list(a.shape)} for a in self.constants]
        parts = pack_arrays(dict(zip(names, self.constants, strict=True)))
        # A new file each, as another process may have mapped an old one.
        for name, content in ((_WEIGHTS, parts), (_CODE, [self.image])):
            (folder / name).unlink(missing_ok=True)
            with (folder / name).open("wb") as file:
                for part in content:
                    file.write(part)
        text = json.dumps({**self.describe(), "constants": kinds}, indent=1)
        (folder / _MODEL).write_text(text, encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> Artifact:
        """The artifact in a folder, its weights mapped. Raises InputError if it is not whole."""
        try:
            description = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
            image = (folder / _CODE).read_bytes()
            with (folder / _WEIGHTS).open("rb") as file:
                weights = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            kinds = {
                str(number): (item["dtype"], item["shape"])
                for number, item in enumerate(description["constants"])
            }
            constants = unpack_arrays(weights, kinds)
            return Artifact.of(description, image, tuple(constants[name] for name in kinds))
        except (OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{folder} does not hold a compiled model: {error}",
                remedy="write it with CompiledModel.save(folder)",
            ) from None


def load_artifact(folder: str | Path) -> CompiledModel:
    """The model that `CompiledModel.save` wrote to a folder, ready to be called."""
    artifact = Artifact.read(Path(folder))
    return CompiledModel(
        load_function(artifact.load(), artifact.signature.name), artifact.signature
    )


def _mapping(array: Array) -> Any:
    """The mapped file, as a numpy.memmap, that has the memory of `array`; None if none does."""
    root: Any = array
    while isinstance(root, np.ndarray) and isinstance(root.base, np.ndarray):
        root = root.base
    return cast(Any, root) if isinstance(root, np.memmap) else None


def file_of(array: Array) -> tuple[Path, int] | None:
    """The file that the memory of `array` is mapped from, and where in it; None if it is not, or
    not in one piece, or the file has no name."""
    root = _mapping(array)
    if root is None or root.filename is None or not array.flags.c_contiguous:
        return None
    return Path(root.filename), array.ctypes.data - root.ctypes.data + root.offset


def release_pages(array: Array) -> None:
    """Let the system take the memory of `array` back, if it is mapped from a file and can be read
    from there again."""
    root = _mapping(array)
    if root is None or not array.flags.c_contiguous or not isinstance(root.base, mmap.mmap):
        return
    begin = array.ctypes.data - root.ctypes.data + root.offset % mmap.ALLOCATIONGRANULARITY
    first = begin + -begin % mmap.PAGESIZE
    size = (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if size > 0:
        root.base.madvise(mmap.MADV_DONTNEED, first, size)
