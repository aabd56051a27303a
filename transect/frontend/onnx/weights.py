"""Tensors stored in a model or beside it, as arrays: checked before anything is read, never copied
where their bytes can be used as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from transect.support.errors import ImportModelError

Array = np.ndarray[Any, Any]

LARGEST_DENSE = 1 << 31
"""Elements of a sparse tensor written out, at most."""


class Weights:
    """The stored tensors of one model.

    name: of the model, for messages. folder: where its external data lies; None for a model that
    does not come from a file.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        self.folder = folder
        self._files: dict[Path, Array] = {}

    def array(self, tensor: onnx.TensorProto, what: str) -> Array:
        """The elements of a stored tensor, a view of its bytes where they are kept raw.

        Raises ImportModelError if its data is not what its shape and dtype need, or lies outside
        of the model's folder.
        """
        dims = tuple(tensor.dims)
        if any(dim < 0 for dim in dims):
            raise self._damaged(what, f"it has the shape {dims}")
        if tensor.data_type == onnx.TensorProto.STRING:
            raise self._damaged(what, "it holds strings", "transect computes on numbers only")
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        except (KeyError, TypeError, ValueError):
            raise self._damaged(what, f"its element type {tensor.data_type} is unknown") from None
        bits = _BITS.get(tensor.data_type, dtype.itemsize * 8)
        needed = -(-math.prod(dims) * bits // 8)
        raw = self._raw(tensor, what, needed)
        if raw is None:
            return self._typed(tensor, what, math.prod(dims))
        if raw.size != needed:
            raise self._damaged(what, f"it has {raw.size} bytes, its shape {dims} needs {needed}")
        if bits < 8:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.ClearField("external_data")
            copy.ClearField("data_location")
            copy.raw_data = raw.tobytes()
            return onnx.numpy_helper.to_array(copy)
        # Exporters do not align weights. All processors that there is code for read them as they
        # are, and a copy would take memory that processes cannot share.
        return raw.view(dtype.newbyteorder("<")).view(dtype).reshape(dims)

    def _raw(self, tensor: onnx.TensorProto, what: str, needed: int) -> Array | None:
        """The bytes of a tensor, None if it keeps its elements as a list of numbers."""
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return self._external(tensor, what, needed)
        if tensor.HasField("raw_data"):
            return np.frombuffer(tensor.raw_data, np.uint8)
        return None

    def _typed(self, tensor: onnx.TensorProto, what: str, count: int) -> Array:
        stored = max(
            len(field)
            for field in (
                tensor.float_data,
                tensor.int32_data,
                tensor.int64_data,
                tensor.double_data,
                tensor.uint64_data,
            )
        )
        # Narrow types share a number, complex ones take two.
        if not count // 8 <= stored <= 2 * count:
            raise self._damaged(what, f"it has {stored} elements, its shape needs {count}")
        try:
            return onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._damaged(what, str(error)) from error

    # --- external data ----------------------------------------------------------------------

    def _external(self, tensor: onnx.TensorProto, what: str, needed: int) -> Array:
        # Protobuf's parser gives bytes for what is not UTF-8, whatever its types say.
        texts: list[object] = [t for item in tensor.external_data for t in (item.key, item.value)]
        if not all(isinstance(text, str) for text in texts):
            raise self._damaged(what, "where its data is is not UTF-8 text")
        fields = {item.key: item.value for item in tensor.external_data}
        location = fields.get("location", "")
        content = self._file(location, what)
        try:
            offset = int(fields.get("offset") or 0)
            length = int(fields.get("length") or content.size - offset)
        except ValueError:
            raise self._damaged(what, "the offset or length of its data is no number") from None
        if offset < 0 or length < 0 or offset + length > content.size:
            raise self._damaged(
                what,
                f"bytes {offset} to {offset + length} of {location!r} are asked for, which has "
                f"{content.size}",
                "keep the external data files beside the model, as it was exported",
            )
        if length != needed:
            raise self._damaged(what, f"it has {length} bytes, its shape needs {needed}")
        return content[offset : offset + length]

    def _file(self, location: str, what: str) -> Array:
        """An external file, mapped into memory. One outside of the folder is not even opened."""
        if self.folder is None:
            raise self._damaged(
                what, f"its data is in the file {location!r}", "give the model as a path"
            )
        folder = self.folder.resolve()
        try:
            path = (folder / location).resolve()
            # The model file may itself be a link to elsewhere; it has been opened already.
            inside = location == self.name or (
                path.is_relative_to(folder) and not Path(location).is_absolute()
            )
            exists = inside and path.is_file()
        except (OSError, ValueError, RuntimeError):
            path, inside, exists = folder, False, False
        if not location or not inside:
            raise self._damaged(
                what,
                f"its data is in {location!r}, which is not a file in the folder of the model",
                "keep the external data files beside the model, as it was exported",
            )
        if not exists:
            raise self._damaged(
                what,
                f"its data is in {location!r}, which does not exist",
                "keep the external data files beside the model, as it was exported",
            )
        if path not in self._files:
            empty = path.stat().st_size == 0
            self._files[path] = (
                np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, mode="r")
            )
        return self._files[path]

    # --- sparse -----------------------------------------------------------------------------

    def dense(self, sparse: onnx.SparseTensorProto, what: str) -> Array:
        """A sparse tensor written out."""
        dims, count = tuple(sparse.dims), math.prod(sparse.dims)
        if any(dim < 0 for dim in dims) or count > LARGEST_DENSE:
            raise self._damaged(what, f"a sparse tensor of shape {dims} is not covered")
        values = self.array(sparse.values, what)
        indices = self.array(sparse.indices, what)
        result = np.zeros(count, values.dtype)
        try:
            places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
            result[places] = values
        except (IndexError, ValueError) as error:
            raise self._damaged(what, str(error)) from error
        return result.reshape(dims)

    def _damaged(self, what: str, why: str, remedy: str | None = None) -> ImportModelError:
        return ImportModelError(
            f"{what} of {self.name} is damaged: {why}"
            if remedy is None
            else f"{what} of {self.name} cannot be used: {why}",
            remedy=remedy or "export or download the model again",
        )


_BITS = {
    getattr(onnx.TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(onnx.TensorProto, name)
}
"""Element types narrower than a byte, which share bytes."""


def stored_tensors(graph: onnx.GraphProto, weights: Weights) -> Sequence[tuple[str, Array]]:
    """The initializers of a graph, sparse ones written out."""
    found = [
        (item.name, weights.array(item, f"the weight {item.name!r}")) for item in graph.initializer
    ]
    for item in graph.sparse_initializer:
        name = item.values.name
        found.append((name, weights.dense(item, f"the sparse weight {name!r}")))
    return found
