"""OnnxFrontend: how `transect.compile` recognises and reads an ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from transect.frontend.onnx.importer import import_model
from transect.frontend.onnx.reader import check_model, read_model
from transect.ir.function import IRModule
from transect.support.errors import InputTypeError


@dataclass(frozen=True)
class OnnxFrontend:
    """Reads `.onnx` files and `onnx.ModelProto`s."""

    def load(self, model: Any) -> IRModule:
        """The model as a module whose `main` takes the graph's inputs.

        Dynamic dimensions become symbolic variables of their name. Raises InputError for a missing
        file, ImportModelError for a damaged one or for operators that are not covered, all of them
        at once.
        """
        if isinstance(model, str | Path):
            path = Path(model)
            return import_model(read_model(path), path.name, path.parent)
        if isinstance(model, onnx.ModelProto):
            name = model.graph.name or "the model"
            check_model(model, name)
            return import_model(model, name)
        raise InputTypeError(f"not an ONNX model: {type(model).__name__}")
