"""Importers of models from other frameworks, one folder each, named in one table."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from transect.ir.function import IRModule
from transect.support.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Frontend:
    """A way in. loader: "module:Class" of an object with `load(model) -> IRModule`.

    suffixes: of the files it reads. types: full names of the classes of objects it takes, so that
    the framework itself need not be imported to tell. files: "module:function" that gives all files
    of the model in a file, or None if that cannot be told; it imports nothing of the framework.
    """

    loader: str
    suffixes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    files: str | None = None

    def load(self, model: Any) -> IRModule:
        """The model as a module."""
        return _find(self.loader)().load(model)


def _find(loader: str) -> Any:
    module, name = loader.split(":")
    return getattr(import_module(module), name)


FRONTENDS: dict[str, Frontend] = {
    "onnx": Frontend(
        "transect.frontend.onnx.frontend:OnnxFrontend",
        (".onnx",),
        ("onnx.onnx_ml_pb2.ModelProto",),
        "transect.frontend.onnx.wire:model_files",
    ),
}
"""All front ends by name."""


def model_files(path: Path) -> list[Path] | None:
    """All files that the model in a file is made of, that one first; None if there is no telling.

    Parses no more than it needs, and imports no framework.
    """
    suffix = path.suffix.lower()
    for frontend in FRONTENDS.values():
        if suffix in frontend.suffixes and frontend.files is not None and path.is_file():
            return _find(frontend.files)(path)
    return None


def load_model_file(model: Any) -> IRModule:
    """A model of another framework as a module.

    model: a path, or an object of the framework. Raises InputError for a file that no front end
    reads, InputTypeError for an object that none takes.
    """
    if isinstance(model, str | Path):
        suffix = Path(model).suffix.lower()
        for frontend in FRONTENDS.values():
            if suffix in frontend.suffixes:
                return frontend.load(model)
        known = ", ".join(s for frontend in FRONTENDS.values() for s in frontend.suffixes)
        raise InputError(f"cannot tell what {str(model)!r} is", remedy=f"known suffixes: {known}")
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    for frontend in FRONTENDS.values():
        if names & set(frontend.types):
            return frontend.load(model)
    raise InputTypeError(
        f"cannot compile a {type(model).__module__}.{type(model).__qualname__}",
        remedy="give a path, an onnx.ModelProto, an IRModule, or a function written in script",
    )
