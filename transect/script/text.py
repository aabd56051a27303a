"""`parse(text)`: script given as a string or a file. The names of T, R and I are there unasked.

Decorated definitions in a Python program that runs come through `entry` instead.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from transect.ir.function import BaseFunc, IRModule
from transect.script import directives as d
from transect.script import ir as names_of_i
from transect.script import relax as names_of_r
from transect.script import tir as names_of_t
from transect.script.constants import load_constants
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.module import ModuleParser, dialect
from transect.script.parser.source import Source
from transect.support.errors import InputError, ScriptError

_MODULES: dict[str, Any] = {"ir": names_of_i, "relax": names_of_r, "tir": names_of_t}
_IMPORTS: dict[str, Any] = {
    "transect.script": _MODULES,
    "tvm.script": _MODULES,
    "math": vars(math),
    "numpy": vars(np),
}
"""What the text may import. Whatever else it uses is given to `parse` as keyword arguments."""


def parse(
    text: str,
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    file: str = "<script>",
    **names: Any,
) -> IRModule | BaseFunc:
    """The IRModule or function that `text` defines; several functions make a module.

    constants: large arrays by the names under which the text refers to them (see `script`).
    file: what errors call the text. names: further names that the text may use. Expressions in
    the text are evaluated: do not parse text that you would not run.
    Raises ScriptError, which lists every error found.
    """
    return _parse(Source.of_text(text, file), constants, None, names)


from_source = parse


def parse_file(
    path: str | Path, *, constants: Mapping[str, np.ndarray] | None = None, **names: Any
) -> IRModule | BaseFunc:
    """As `parse`, of a file. `I.constants("constants.npz")` in it is read from the same folder."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no script at {file}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text: {error}") from None
    source = Source(str(file), text, False, text.splitlines())
    return _parse(source, constants, file.parent, names)


def _parse(
    source: Source,
    constants: Mapping[str, np.ndarray] | None,
    folder: Path | None,
    names: Mapping[str, Any],
) -> IRModule | BaseFunc:
    diagnostics = Diagnostics()
    scope: dict[str, Any] = {
        "I": names_of_i,
        "R": names_of_r,
        "T": names_of_t,
        "math": math,
        **names,
    }
    arrays: dict[str, np.ndarray] = dict(constants or {})
    tree = source.parse()
    parser = ModuleParser(source, "Module", [scope], diagnostics, arrays)
    functions: list[ast.stmt] = []
    classes: list[ast.ClassDef] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            classes.append(node)
        elif isinstance(node, ast.FunctionDef):
            functions.append(node)
        else:
            parser.attempt(node, lambda node=node: _statement(parser, node, scope, arrays, folder))
            scope.update(parser.scopes[0])
    if len(classes) + bool(functions) != 1:
        diagnostics.add(_not_one(source, tree, len(classes)))
        diagnostics.check()
    if classes:
        return _module(source, classes[0], scope, arrays, diagnostics)
    module = parser.parse(functions, tree)
    diagnostics.check()
    return next(iter(module.functions.values())) if len(module.functions) == 1 else module


def _not_one(source: Source, tree: ast.Module, classes: int) -> ScriptError:
    what = "no definition" if classes == 0 else "several modules"
    span = source.span(tree.body[0]) if tree.body else ()
    return ScriptError(
        f"the text holds {what}",
        span=span,
        remedy="write one class with @I.ir_module, or functions",
    )


def _module(
    source: Source,
    node: ast.ClassDef,
    scope: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    diagnostics: Diagnostics,
) -> IRModule:
    if dialect(node) != "module":
        diagnostics.add(
            ScriptError(
                f"the class {node.name!r} is not decorated",
                span=source.span(node),
                remedy="write @I.ir_module above it",
            )
        )
    module = ModuleParser(source, node.name, [scope], diagnostics, arrays).parse(node.body, node)
    diagnostics.check()
    return module


def _statement(
    parser: ModuleParser,
    node: ast.stmt,
    scope: dict[str, Any],
    arrays: dict[str, np.ndarray],
    folder: Path | None,
) -> None:
    """A statement beside the definitions: an import, a name, the file of constants."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        scope.update(_imported(parser, node))
    elif isinstance(node, ast.Assign):
        value = parser.eval(node.value)
        for target in node.targets:
            parser.unpack(target, value)
    elif isinstance(node, ast.Expr):
        value = None if isinstance(node.value, ast.Constant) else parser.eval(node.value)
        # Text without a file has no folder to look in: its constants are given, or missed later.
        if isinstance(value, d.ConstantsFile) and folder is not None:
            arrays.update(load_constants(folder / value.path))
    else:
        raise parser.error(
            f"{type(node).__name__} statements have no meaning beside definitions",
            node,
            "beside definitions stand imports and names of Python values",
        )


def _imported(parser: ModuleParser, node: ast.Import | ast.ImportFrom) -> dict[str, Any]:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return {}
    found: dict[str, Any] = {}
    for item in node.names:
        label = item.asname or item.name
        if isinstance(node, ast.ImportFrom):
            known = _IMPORTS.get(node.module or "", {})
            if item.name not in known:
                raise parser.error(
                    f"the text cannot import {item.name!r} from {node.module!r}",
                    node,
                    f"give it to the parser: parse(text, {label}=...)",
                )
            found[label] = known[item.name]
        else:
            whole: dict[str, ModuleType] = {"math": math, "numpy": np}
            if item.name not in whole:
                raise parser.error(
                    f"the text cannot import {item.name!r}",
                    node,
                    f"give it to the parser: parse(text, {label}=...)",
                )
            found[label] = whole[item.name]
    return found
