"""A compiled model as bytes: machine code, constants, and what describes them. For the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from transect.codegen.llvm.compile import CompiledObject
from transect.ir.dtype import as_dtype
from transect.plan import Plan
from transect.runtime import Entry, Signature

_ALIGNMENT = 64


@dataclass(frozen=True)
class Artifact:
    """All that a process needs to run a model that another one compiled."""

    compiled: CompiledObject
    signature: Signature
    plan: Plan

    def pack(self) -> tuple[bytes, dict[str, Any]]:
        """The payload and the metadata of a cache entry."""
        payload = bytearray(self.compiled.code)
        arrays: list[dict[str, Any]] = []
        for array in self.compiled.constants:
            payload += b"\0" * (-len(payload) % _ALIGNMENT)
            record = {"dtype": str(as_dtype(array.dtype)), "shape": list(array.shape)}
            arrays.append({**record, "offset": len(payload)})
            payload += np.ascontiguousarray(array).tobytes()
        metadata = {
            "code": len(self.compiled.code),
            "entries": list(self.compiled.entries),
            "externs": list(self.compiled.externs),
            "constants": arrays,
            "signature": self.signature.to_json(),
            "plan": self.plan.to_json(),
        }
        return bytes(payload), metadata

    @staticmethod
    def unpack(entry: Entry) -> Artifact:
        """The artifact in a cache entry; its arrays share the entry's memory where aligned."""
        data, metadata = entry.data, entry.metadata
        arrays: list[np.ndarray] = []
        for record in metadata["constants"]:
            shape, dtype = tuple(record["shape"]), as_dtype(record["dtype"]).numpy
            count = int(np.prod(shape, dtype=np.int64))
            arrays.append(np.frombuffer(data, dtype, count, record["offset"]).reshape(shape))
        compiled = CompiledObject(
            data[: metadata["code"]],
            tuple(metadata["entries"]),
            tuple(arrays),
            tuple(metadata["externs"]),
        )
        signature = Signature.from_json(metadata["signature"])
        return Artifact(compiled, signature, Plan.from_json(metadata["plan"]))
