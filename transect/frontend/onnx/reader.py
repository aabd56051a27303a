"""Reading an ONNX file: the protobuf and what is wrong with it as a whole.

Its tensors are read in `weights`, its nodes in `graph`.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.defs
from google.protobuf.message import DecodeError

from transect.frontend.onnx.wire import WireError, outline
from transect.support.errors import ImportModelError, InputError

NEWEST_OPSET = onnx.defs.onnx_opset_version()
OLDEST_OPSET = 7
"""What converters know; `lift` brings older models to it."""
LARGEST_FILE = 1 << 31
"""Bytes that protobuf takes at most."""


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file. Raises InputError, or ImportModelError if it is damaged."""
    if not path.is_file():
        raise InputError(f"no such model file: {path}", remedy="give the path of an .onnx file")
    if path.stat().st_size >= LARGEST_FILE:
        raise ImportModelError(
            f"{path} has {path.stat().st_size} bytes, a model file has less than {LARGEST_FILE}",
            remedy="save it with external data: onnx.save(model, path, save_as_external_data=True)",
        )
    try:
        model = onnx.ModelProto.FromString(_without_weights(path))
    except DecodeError as error:
        if "depth" in str(error).lower():
            raise ImportModelError(
                f"{path} has graphs in graphs deeper than protobuf reads: {error}",
                remedy="branches and loops can be nested some 30 deep",
            ) from error
        raise ImportModelError(
            f"{path} is not a complete ONNX file: {error}",
            remedy="export or download it again; its size on disk may tell that it was cut off",
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    check_model(model, str(path))
    return model


def _without_weights(path: Path) -> bytes:
    """The model in a file, its large weights external data in that file itself."""
    try:
        return outline(path)
    except WireError:
        return path.read_bytes()  # protobuf says what is wrong with it


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Raise ImportModelError if the model has no graph, or an opset that is not covered."""
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ImportModelError(
            f"{name} holds no graph", remedy="check that it is an ONNX file and complete"
        )
    opset = opset_of(model)
    if not 1 <= opset <= NEWEST_OPSET:
        raise ImportModelError(
            f"{name} uses opset {opset}; covered are 1 to {NEWEST_OPSET}",
            remedy="convert it with onnx.version_converter, or install a newer onnx",
        )


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model uses; 1 if it does not say, the newest if
    it uses none."""
    versions = [item.version for item in model.opset_import if is_standard(item.domain)]
    uses = any(is_standard(item.domain) for item in model.graph.node)
    return max(versions, default=1 if uses else NEWEST_OPSET)


def is_standard(domain: str) -> bool:
    """Whether a domain is that of ONNX's own operators."""
    return domain in ("", "ai.onnx")
