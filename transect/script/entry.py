"""From decorators and text to IR: `@T.prim_func`, `@R.function`, `@I.ir_module` and `parse`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Literal

from transect.ir.function import IRModule
from transect.script import directives as d
from transect.script.parser.capture import enclosing_locals, function_scopes, in_class_body
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.evaluate import Environment
from transect.script.parser.function import FunctionParser
from transect.script.parser.module import ModuleParser, parse_definition
from transect.script.parser.source import locate, locate_function
from transect.support.errors import InputTypeError

Dialect = Literal["tir", "relax", "python"]


def decorate(
    kind: Dialect,
    function: Callable[..., Any] | None,
    options: Mapping[str, Any],
    frame: FrameType | None,
) -> Any:
    """What `@T.prim_func` and `@R.function` do: parse now, or leave it to the class around."""
    if function is None:

        def later(actual: Callable[..., Any]) -> Any:
            return decorate(kind, actual, options, frame)

        return later
    if not hasattr(function, "__code__"):
        raise InputTypeError(
            f"cannot parse a {type(function).__name__}", remedy="decorate a Python function"
        )
    if in_class_body(frame):
        return d.ScriptFunction(kind, function, dict(options))
    source, node = locate_function(function)
    diagnostics = Diagnostics()
    environment = Environment(*function_scopes(function, frame))
    parser = FunctionParser(source, environment, diagnostics)
    made = parser.attempt(
        node, lambda: parse_definition(parser, node, source, environment, options, diagnostics)
    )
    diagnostics.check()
    return made


def decorate_module(cls: type, frame: FrameType | None) -> IRModule:
    """What `@I.ir_module` does: parse the class that `cls` was made from."""
    functions = [item for item in vars(cls).values() if isinstance(item, d.ScriptFunction)]
    code = functions[0].function.__code__ if functions else None
    outer = frame.f_globals if frame is not None else {}
    file = code.co_filename if code is not None else str(outer.get("__file__", "<unknown>"))
    source, node = locate(
        cls.__name__, file, code.co_firstlineno if code is not None else None, outer
    )
    assert isinstance(node, ast.ClassDef)
    scopes: list[Mapping[str, Any]] = []
    for item in functions:
        scopes += function_scopes(item.function, None)[:1]
    scopes += [*enclosing_locals(frame, file), outer]
    diagnostics = Diagnostics()
    module = ModuleParser(source, node.name, scopes, diagnostics, None).parse(node.body, node)
    diagnostics.check()
    return module
