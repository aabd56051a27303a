"""Reading an ONNX file: the protobuf, its weights, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
from google.protobuf.message import DecodeError

from transect.support.errors import ImportModelError, InputError

NEWEST_OPSET = onnx.defs.onnx_opset_version()
OLDEST_OPSET = 7


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file. Raises InputError, or ImportModelError if it is damaged."""
    if not path.is_file():
        raise InputError(f"no such model file: {path}", remedy="give the path of an .onnx file")
    try:
        model = onnx.load(str(path))  # pyright: ignore[reportUnknownMemberType]
    except DecodeError as error:
        raise ImportModelError(
            f"{path} is not a complete ONNX file: {error}",
            remedy="export or download it again; its size on disk may tell that it was cut off",
        ) from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ImportModelError(
            f"the weights that {path} refers to cannot be read: {error}",
            remedy="keep the external data files beside the model, as it was exported",
        ) from error
    check_model(model, str(path))
    return model


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Raise ImportModelError if the model has no graph, or an opset that is not covered."""
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ImportModelError(
            f"{name} holds no graph", remedy="check that it is an ONNX file and complete"
        )
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ImportModelError(
            f"{name} uses opset {opset}; covered are {OLDEST_OPSET} to {NEWEST_OPSET}",
            remedy="convert it with onnx.version_converter, or install a newer onnx",
        )


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model uses; 1 if it does not say."""
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return max(versions, default=1)


def weights(graph: onnx.GraphProto, name: str) -> dict[str, np.ndarray]:
    """The initializers by name. Raises ImportModelError for one that is damaged."""
    arrays: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        try:
            arrays[tensor.name] = onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ImportModelError(
                f"the weight {tensor.name!r} of {name} is damaged: {error}",
                remedy="export or download the model again",
            ) from error
    return arrays


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values: numbers, strings, arrays, graphs, and lists of them."""
    return {item.name: _plain(onnx.helper.get_attribute_value(item)) for item in node.attribute}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
