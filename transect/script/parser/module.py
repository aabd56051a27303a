"""A module: a class whose functions may refer to each other, in any order."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from transect.ir.expr import GlobalVar
from transect.ir.function import BaseFunc, IRModule
from transect.ir.types import Type
from transect.script import directives as d
from transect.script.parser.diagnostics import Diagnostics
from transect.script.parser.evaluate import Environment, ModuleName
from transect.script.parser.function import FunctionParser, decorator_name
from transect.script.parser.graph_func import parse_function, signature
from transect.script.parser.prim_func import parse_prim_func
from transect.script.parser.source import Source

ENDINGS = {
    "prim_func": "tir",
    "function": "relax",
    "pyfunc": "python",
    "ir_module": "module",
    "rewriter": "module",
}
"""What a decorator says of the definition below it, by the last part of its name."""


class ModuleParser(FunctionParser):
    """Parses a class, or several functions of one text, as an IRModule."""

    def __init__(
        self,
        source: Source,
        name: str,
        scopes: Iterable[Mapping[str, Any]],
        diagnostics: Diagnostics,
        constants: Mapping[str, np.ndarray] | None,
    ) -> None:
        own: dict[str, Any] = {"cls": ModuleName(), name: ModuleName()}
        super().__init__(
            source, Environment(own, *scopes, module=self, constants=constants), diagnostics
        )
        self.own = own
        self.definitions: dict[str, ast.FunctionDef] = {}
        self.functions: dict[str, BaseFunc] = {}
        self.added: dict[str, BaseFunc] = {}
        self.attrs: dict[str, Any] = {}
        self.infos: dict[str, tuple[Any, ...]] = {}
        self._tried: set[str] = set()
        self._types: dict[str, Type | None] = {}

    def parse(self, nodes: Iterable[ast.stmt], node: ast.AST) -> IRModule:
        """The module that a class body means."""
        for item in nodes:
            self.attempt(item, lambda item=item: self._item(item))
        self.own.update(self.scopes[0])
        for name in self.definitions:
            self.function(name)
        functions = {
            name: self.functions[name] for name in self.definitions if name in self.functions
        }
        everything = {**self.added, **functions}
        return IRModule(everything, self.attrs, self.infos, self.source.span(node))

    def _item(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            if not node.decorator_list:
                raise self.error(
                    f"the function {node.name!r} has no decorator",
                    node,
                    "write @T.prim_func or @R.function above it",
                )
            if node.name in self.definitions:
                raise self.error(
                    f"the module has a function {node.name!r} already",
                    node,
                    "give one of them another name",
                )
            self.definitions[node.name] = node
            self.own[node.name] = GlobalVar(node.name)
        elif isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant):
                return
            self._directive(self.eval(node.value), node)
        elif isinstance(node, ast.Assign):
            value = self.eval(node.value)
            for target in node.targets:
                self.unpack(target, value)
                self.own.update(self.scopes[0])
        elif not isinstance(node, ast.Pass):
            raise self.error(
                f"{type(node).__name__} statements have no meaning in a module",
                node,
                "a module holds functions",
            )

    def _directive(self, value: Any, node: ast.stmt) -> None:
        if isinstance(value, d.Attributes) and value.role == "module":
            self.attrs.update(value.values)
        elif isinstance(value, d.Attributes) and value.role == "global_infos":
            self.infos.update({key: tuple(items) for key, items in value.values.items()})
        else:
            raise self.error(
                "this has no meaning in a module", node, "I.module_attrs, I.module_global_infos"
            )

    # --- what the functions ask -------------------------------------------------------------

    def names(self) -> Iterable[str]:
        """The functions of the module."""
        return self.definitions

    def add(self, hint: str, function: BaseFunc) -> str:
        """Add a function that the text does not hold; the name it gets."""
        name, number = hint, 0
        while name in self.definitions or name in self.added:
            number += 1
            name = f"{hint}_{number}"
        self.added[name] = function
        return name

    def info(self, name: str) -> Any:
        """Global information by its key."""
        return self.infos.get(name)

    def function(self, name: str) -> BaseFunc | None:
        """A function by name, parsed on first use; None while it is being parsed itself."""
        if name in self.added:
            return self.added[name]
        if name in self._tried or name not in self.definitions:
            return self.functions.get(name)
        self._tried.add(name)
        node = self.definitions[name]
        made = self.attempt(node, lambda: self._parse(node))
        if made is not None:
            self.functions[name] = made
        return made

    def function_type(self, name: str) -> Type | None:
        """The type of a reference to a function: that of the function, or of its signature while
        it is being parsed. Raises ScriptError where a recursive function does not say its result.
        """
        node = self.definitions.get(name)
        if node is None or dialect(node) == "tir":
            return None
        made = self.function(name)
        if made is not None:
            return getattr(made, "type", None)
        if name not in self._types:
            self._types[name] = signature(
                self.source, node, self.environment, self.options(node), Diagnostics()
            )
        if self._types[name] is None:
            raise self.error(
                f"the type of {name!r} is needed before its body is known",
                node,
                "annotate the parameters and the result: -> R.Tensor(...)",
            )
        return self._types[name]

    def options(self, node: ast.FunctionDef) -> dict[str, Any]:
        """The arguments of the decorator."""
        call = node.decorator_list[-1]
        if not isinstance(call, ast.Call):
            return {}
        return {item.arg: self.eval(item.value) for item in call.keywords if item.arg is not None}

    def _parse(self, node: ast.FunctionDef) -> BaseFunc | None:
        return parse_definition(
            self, node, self.source, self.environment, self.options(node), self.diagnostics
        )


def dialect(node: ast.FunctionDef | ast.ClassDef) -> str | None:
    """What the decorators of a definition say it is."""
    for item in node.decorator_list:
        found = ENDINGS.get(decorator_name(item).split(".")[-1])
        if found is not None:
            return found
    return None


_DIALECTS: dict[str, Callable[..., BaseFunc | None]] = {
    "tir": parse_prim_func,
    "relax": parse_function,
}


def parse_definition(
    parser: FunctionParser,
    node: ast.FunctionDef,
    source: Source,
    environment: Environment,
    options: Mapping[str, Any],
    diagnostics: Diagnostics,
) -> BaseFunc | None:
    """One function of either dialect; None if it has errors, which are reported."""
    parse = _DIALECTS.get(dialect(node) or "")
    if parse is None:
        shown = ", ".join(f"@{ast.unparse(item)}" for item in node.decorator_list) or "no decorator"
        raise parser.error(
            f"{node.name!r} has {shown}, which makes no function of a module",
            node,
            "write @T.prim_func or @R.function above it",
        )
    return parse(source, node, environment, options, diagnostics)
