"""Cutting the text of one LLVM module into several that link to the same, for several processes.

It knows the form in which `module.ModuleText` writes: a global, a declaration or the head of a
function begins a line, a function ends with a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r'@(?:"([^"]*)"|([-\w.$]+))')
_LEAST = 1 << 14
"""Characters of functions that are worth a text of their own."""


@dataclass(frozen=True)
class _Item:
    """A global, a declaration or a function. uses: the names in it, its own left out."""

    name: str
    text: str
    uses: frozenset[str]

    @property
    def is_copied(self) -> bool:
        """Whether every text that uses it gets its own."""
        head = self.text.split("\n", 1)[0]
        return " = private " in head or " alwaysinline " in head or head.startswith("declare")


def partition(text: str, parts: int) -> list[str]:
    """At most `parts` texts which together define what `text` defines.

    A function stays with those that were cut out of it. What one text defines and another uses
    becomes hidden instead of internal.
    """
    functions, others, tail = _read(text)
    shared = [item for item in functions.values() if not item.is_copied]
    parts = min(parts, sum(len(item.text) for item in shared) // _LEAST)
    if parts < 2:
        return [text]
    groups: dict[str, list[_Item]] = {}
    for item in shared:
        groups.setdefault(_owner(item.name, functions), []).append(item)
    bins: list[list[_Item]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for group in sorted(groups.values(), key=lambda g: -sum(len(item.text) for item in g)):
        smallest = sizes.index(min(sizes))
        bins[smallest] += group
        sizes[smallest] += sum(len(item.text) for item in group)
    kept = [item for item in others.values() if not item.is_copied]
    known = {**others, **functions}
    texts: list[str] = []
    for number, own in enumerate(bins):
        defined = [*(kept if number == 0 else ()), *own]
        texts.append("\n".join([*_complete(defined, known), *tail, ""]))
    return texts


def _read(text: str) -> tuple[dict[str, _Item], dict[str, _Item], list[str]]:
    """The functions, the globals and declarations, and the metadata."""
    functions: dict[str, _Item] = {}
    others: dict[str, _Item] = {}
    tail: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith("!"):
            tail.append(line)
        elif line.startswith("define "):
            body = [line]
            while body[-1] != "}":
                body.append(next(lines))
            item = _item("\n".join(body))
            functions[item.name] = item
        elif line.startswith(("@", "declare ")):
            item = _item(line)
            others[item.name] = item
    return functions, others, tail


def _item(text: str) -> _Item:
    # The same name may be quoted in one place and plain in another.
    names = [quoted or plain for quoted, plain in _NAME.findall(text)]
    return _Item(names[0], text, frozenset(names) - {names[0]})


def _owner(name: str, functions: dict[str, _Item]) -> str:
    """The function that `name` was cut out of, or itself: "f.parallel1" belongs to "f"."""
    owner = name
    while "." in owner:
        owner = owner.rpartition(".")[0]
        if owner in functions:
            return _owner(owner, functions)
    return name


def _complete(defined: list[_Item], known: dict[str, _Item]) -> Iterable[str]:
    """What a text says: what it defines, copies of what it may copy, declarations of the rest."""
    own = {item.name: item for item in defined}
    copied: dict[str, _Item] = {}
    foreign: dict[str, _Item] = {}
    pending = list(own.values())
    while pending:
        for name in sorted(pending.pop().uses):
            item = known.get(name)
            if item is None or name in own or name in copied or name in foreign:
                continue
            if item.is_copied:
                copied[name] = item
                pending.append(item)
            else:
                foreign[name] = item
    for name, item in foreign.items():
        # The type is that of every use, not that of the declaration.
        if item.text.startswith("define"):
            yield f'declare hidden void @"{name}"()'
        else:
            yield f'@"{name}" = external hidden global i8'
    yield from (item.text for item in copied.values())
    for item in own.values():
        head, line, body = item.text.partition("\n")
        head = head.replace("define internal ", "define hidden ", 1)
        yield head.replace(" = internal ", " = hidden ", 1) + line + body
