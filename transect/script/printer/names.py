"""Names of variables and buffers in printed script: unique in a function, valid in Python.

How the things that are named print lives in the other files.
"""

from __future__ import annotations

import builtins
import keyword
import re

_RESERVED = frozenset({*keyword.kwlist, *dir(builtins), "I", "R", "T", "cls", "Module"})
_NOT_IDENTIFIER = re.compile(r"\W", re.ASCII)


def identifier(text: str) -> str:
    """The Python name nearest to `text`: "a.b" becomes "a_b", keywords and builtins get a "_"."""
    name = _NOT_IDENTIFIER.sub("_", text) or "v"
    if name[0].isdigit():
        name = f"v{name}"
    return f"{name}_" if name in _RESERVED else name


def quote(text: str) -> str:
    """A string literal, in double quotes where nothing has to be escaped."""
    plain = repr(text)
    return f'"{text}"' if plain == f"'{text}'" and '"' not in text else plain


class Names:
    """The names of one scope: a function, or a statement or expression printed alone.

    An object keeps the name it got first. The order of `define` calls decides who gets the plain
    name and who gets `name_1`, so equal programs print equal.
    """

    def __init__(self, parent: Names | None = None) -> None:
        self._text: dict[object, str] = dict(parent._text) if parent is not None else {}
        self._used: set[str] = set(parent._used) if parent is not None else set()
        self._next: dict[str, int] = {}

    def __contains__(self, item: object) -> bool:
        return item in self._text

    def define(self, item: object, hint: str) -> str:
        """The name of `item`, a fresh one like `hint` if it has none yet."""
        known = self._text.get(item)
        if known is not None:
            return known
        name = self.fresh(hint)
        self._text[item] = name
        return name

    def alias(self, item: object, text: str) -> None:
        """Print `item` as `text`, an expression such as "A.data", unless it has a name."""
        self._text.setdefault(item, text)

    def get(self, item: object) -> str | None:
        """The name of `item` if it has one."""
        return self._text.get(item)

    def fresh(self, hint: str) -> str:
        """A name like `hint` that nothing in this scope has, reserved from now on."""
        base = identifier(hint)
        name = base
        number = self._next.get(base, 0)
        while name in self._used:
            number += 1
            name = f"{base}_{number}"
        self._next[base] = number
        self._used.add(name)
        return name
