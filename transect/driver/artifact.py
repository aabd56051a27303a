"""A compiled model as an entry of the cache. Weights that a model's file has stay there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transect import runtime
from transect.codegen.llvm.compile import CompiledObject
from transect.codegen.llvm.loader import link_module
from transect.driver.cache import Entry
from transect.ir.dtype import as_dtype
from transect.library import shared_libraries
from transect.plan import Plan
from transect.runtime import Signature, file_of
from transect.runtime.safetensors import Array, pack_arrays, unpack_arrays

_LEFT_IN_FILE = 1 << 16
"""Bytes from which a weight stays in the model's file. Smaller ones are close together in ours."""

_ALIGNMENT = 64


@dataclass(frozen=True)
class Artifact:
    """All that a process needs to run a model that another one compiled, and its plan."""

    model: runtime.Artifact
    plan: Plan

    @staticmethod
    def of(compiled: CompiledObject, signature: Signature, plan: Plan) -> Artifact:
        """What the back end made, linked."""
        linked = link_module(compiled)
        libraries = shared_libraries(linked.imports)
        model = runtime.Artifact(
            linked.image,
            compiled.entries,
            linked.imports,
            libraries,
            compiled.constants,
            signature,
        )
        return Artifact(model, plan)

    def pack(
        self, name: str, files: Sequence[Path] = ()
    ) -> tuple[list[bytes | memoryview], dict[str, Any]]:
        """The payload and the metadata of a cache entry.

        name: what a listing calls it. files: those that the model is made of; whoever unpacks the
        entry has files of the same content.
        """
        numbers = {file.resolve(): number for number, file in enumerate(files)}
        stored: dict[str, Array] = {}
        records: list[dict[str, Any]] = []
        for number, array in enumerate(self.model.constants):
            record: dict[str, Any] = {
                "dtype": str(as_dtype(array.dtype)),
                "shape": list(array.shape),
            }
            place = file_of(array) if array.nbytes >= _LEFT_IN_FILE else None
            if place is not None and place[0].resolve() in numbers:
                record |= {"file": numbers[place[0].resolve()], "offset": place[1]}
            else:
                stored[str(number)] = array
            records.append(record)
        padding = bytes(-len(self.model.image) % _ALIGNMENT)
        metadata = {
            "model": name,
            "code": len(self.model.image),
            "constants": records,
            "plan": self.plan.to_json(),
            **self.model.describe(),
        }
        return [self.model.image, padding, *pack_arrays(stored)], metadata

    @staticmethod
    def unpack(entry: Entry, files: Sequence[Path] = ()) -> Artifact:
        """The artifact in a cache entry; its arrays share the memory of the entry and of `files`.

        Raises InputError for an entry that another version wrote, OSError for a missing file.
        """
        data, metadata = entry.data, entry.metadata
        size: int = metadata["code"]
        records: list[dict[str, Any]] = metadata["constants"]
        kinds = {
            str(number): (record["dtype"], record["shape"])
            for number, record in enumerate(records)
            if "file" not in record
        }
        arrays = unpack_arrays(data[size + -size % _ALIGNMENT :], kinds)
        used: set[int] = {record["file"] for record in records if "file" in record}
        mapped = {number: np.memmap(files[number], np.uint8, mode="r") for number in used}
        for number, record in enumerate(records):
            if "file" in record:
                dtype, shape = as_dtype(record["dtype"]).numpy, tuple(record["shape"])
                count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                raw = mapped[record["file"]][record["offset"] : record["offset"] + count]
                arrays[str(number)] = raw.view(dtype).reshape(shape)
        constants = tuple(arrays[str(number)] for number in range(len(records)))
        model = runtime.Artifact.of(metadata, data[:size], constants)
        return Artifact(model, Plan.from_json(metadata["plan"]))
