"""Functions and the module that holds them: graph functions and tensor programs side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transect.ir.expr import GlobalVar
from transect.ir.node import Node, node, replace
from transect.support.errors import InputError
from transect.support.span import Spans

DIMS = "transect.dims"
"""The attribute of a graph function that bounds its symbolic dimensions, {"n": (least, most)},
both inclusive. Checked at every call, so the compiler may rely on it."""


class BaseFunc(Node):
    """Base of PrimFunc (tir), Function and ExternFunc (relax).

    attrs: values by name (str, int, float, bool, tuples of those, target names). Known keys:
    "global_symbol" (the exported name; a function without one is private to the module).
    """

    __slots__ = ()
    attrs: Mapping[str, Any]

    def with_attrs(self, **changes: Any) -> Any:
        """This function with attributes added or replaced; a value None removes the key."""
        attrs = {**self.attrs, **changes}
        return replace(
            self, attrs={key: value for key, value in attrs.items() if value is not None}
        )


@node
class IRModule(Node):
    """Functions by name, module attributes, and global information (virtual devices and such).

    Treated as immutable: `with_function`, `without` and `map_functions` give changed copies.
    """

    functions: Mapping[str, BaseFunc]
    attrs: Mapping[str, Any]
    global_infos: Mapping[str, tuple[Any, ...]]
    span: Spans = ()

    @staticmethod
    def of(**functions: BaseFunc) -> IRModule:
        """A module of these functions."""
        return IRModule(dict(functions), {}, {})

    def __getitem__(self, name: str | GlobalVar) -> BaseFunc:
        key = name.name if isinstance(name, GlobalVar) else name
        if key not in self.functions:
            raise InputError(
                f"the module has no function {key!r}",
                notes=[f"it has: {', '.join(self.functions)}"],
            )
        return self.functions[key]

    def __contains__(self, name: str) -> bool:
        return name in self.functions

    def __iter__(self) -> Iterator[str]:
        return iter(self.functions)

    def with_function(self, name: str, function: BaseFunc) -> IRModule:
        """A copy in which `name` is `function`, added at the end if it is new."""
        if self.functions.get(name) is function:
            return self
        return replace(self, functions={**self.functions, name: function})

    def without(self, *names: str) -> IRModule:
        """A copy without these functions."""
        return replace(self, functions={k: f for k, f in self.functions.items() if k not in names})

    def map_functions(self, function: Callable[[str, BaseFunc], BaseFunc]) -> IRModule:
        """A copy with `function(name, old)` in place of each; the module itself if none changed."""
        new = {name: function(name, old) for name, old in self.functions.items()}
        if all(new[name] is old for name, old in self.functions.items()):
            return self
        return replace(self, functions=new)

    def fresh_name(self, base: str) -> str:
        """A name not in the module: `base`, or `base_1`, `base_2`, …"""
        if base not in self.functions:
            return base
        number = 1
        while f"{base}_{number}" in self.functions:
            number += 1
        return f"{base}_{number}"
