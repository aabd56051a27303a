"""A graph function as a whole: parameters, body, result, attributes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from transect.ir.types import Type
from transect.relax import expr as rx
from transect.relax.block_builder import make_function
from transect.relax.inference import function_type, is_pure, is_subtype
from transect.relax.visit import bindings as all_bindings
from transect.relax.visit import free_vars
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.evaluate import Environment
from transect.script.parser.function import check_plain_parameters
from transect.script.parser.graph_emit import EmitParser
from transect.script.parser.source import Source


class FunctionBodyParser(EmitParser):
    """Parses graph functions, those inside others included.

    itself: the variable of a function inside another, by which it may call itself.
    """

    itself: rx.Var | None = None

    def parse(
        self, node: ast.FunctionDef, options: Mapping[str, Any], *, local: bool
    ) -> rx.Function | None:
        """The function that a definition means; None if it has errors, which are reported."""
        errors = len(self.diagnostics.errors)
        check_plain_parameters(self, node)
        params, declared = self.parameters(node)
        if local and declared is not None and node.name not in self.scopes[-1]:
            kind = function_type(params, declared, pure=bool(options.get("pure", True)))
            self.itself = rx.Var(node.name, kind, span=self.source.span(node))
            self.define(node.name, self.itself)
        self.scopes.append({})
        self.loads = [
            ((item.lineno, item.col_offset), item.id)
            for item in ast.walk(node)
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load)
        ]
        self.suite(node.body)
        if len(self.diagnostics.errors) > errors:
            return None
        if self.result is None:
            raise self.error(f"{node.name!r} has no result", node, "end it with: return value")
        span = self.source.span(node)
        body = self.bindings.finish(self.result, span)
        if declared is not None and not is_subtype(body.type, declared):
            raise self.error(
                f"the result is {body.type!r}, the function is declared to give {declared!r}",
                self.returned or node,
                "R.match_cast(value, type) checks at run time what is not known here",
            )
        attrs = dict(self.attrs)
        if not local and not options.get("private", False):
            attrs.setdefault("global_symbol", node.name)
        pure = options.get("pure")
        if pure is None:
            pure = all(
                not isinstance(item, rx.VarBinding) or is_pure(item.value)
                for item in all_bindings(body)
            )
        return make_function(
            params, body, pure=bool(pure), attrs=attrs, ret_type=declared, span=span
        )

    def local_function(self, node: ast.FunctionDef) -> tuple[rx.Function, rx.Var | None]:
        inner = FunctionBodyParser(self.source, self.environment, self.diagnostics)
        inner.scopes = [*self.scopes, {}]
        inner.base = len(inner.scopes) - 1
        inner.localized = self.localized
        call = node.decorator_list[0]
        keywords = call.keywords if isinstance(call, ast.Call) else []
        options = {item.arg: self.eval(item.value) for item in keywords if item.arg is not None}
        made = inner.parse(node, options, local=True)
        if made is None:
            raise inner.poisoned()
        itself = inner.itself if inner.itself in free_vars(made) else None
        return made, itself


def parse_function(
    source: Source,
    node: ast.FunctionDef,
    environment: Environment,
    options: Mapping[str, Any],
    diagnostics: Diagnostics,
) -> rx.Function | None:
    """The graph function that a definition means; None if it has errors, which are reported."""
    return FunctionBodyParser(source, environment, diagnostics).parse(node, options, local=False)


def signature(
    source: Source,
    node: ast.FunctionDef,
    environment: Environment,
    options: Mapping[str, Any],
    diagnostics: Diagnostics,
) -> Type | None:
    """The type that the signature alone gives; None if it does not say the result's."""
    parser = FunctionBodyParser(source, environment, diagnostics)
    params, declared = parser.parameters(node)
    if declared is None or diagnostics.errors:
        return None
    return function_type(params, declared, pure=bool(options.get("pure", True)))
