"""A graph function as a whole."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from transect.ir.types import Type
from transect.relax.expr import Function
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.evaluate import Environment
from transect.script.parser.source import Source


def parse_function(
    source: Source,
    node: ast.FunctionDef,
    environment: Environment,
    options: Mapping[str, Any],
    diagnostics: Diagnostics,
) -> Function:
    raise NotImplementedError


def signature(
    source: Source,
    node: ast.FunctionDef,
    environment: Environment,
    options: Mapping[str, Any],
    diagnostics: Diagnostics,
) -> Type | None:
    raise NotImplementedError
