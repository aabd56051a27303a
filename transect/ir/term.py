"""The `@term` decorator: immutable, interned values that make up scalar expressions and types.

Two terms with the same fields are the same object, so equality is `is` and the hash is the
identity. Variables are the exception: they compare by identity and are never interned.
Statements and bindings, which carry spans and bind variables, are nodes (`node.py`), not terms.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

TermT = TypeVar("TermT", bound="Term")

_LEAF_TYPES = frozenset({"int", "float", "str", "bool", "DType", "object", "Buffer"})
_lock = threading.RLock()
_table: dict[Any, _Entry] = {}


class _Entry(weakref.ref["Term"]):
    """A weak table entry that knows its key, so that it can remove itself."""

    __slots__ = ("key",)
    key: Any


def _forget(entry: _Entry) -> None:
    # RLock: the collector may run this inside _intern on the same thread.
    with _lock:
        if _table.get(entry.key) is entry:
            del _table[entry.key]


def attribute_key(value: object) -> object:
    """A hashable key of a field value that tells True from 1, 1 from 1.0 and 0.0 from -0.0."""
    if isinstance(value, float):
        return ("float", struct.pack("<d", value))
    if isinstance(value, tuple):
        return tuple(attribute_key(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bool | int | str):
        return (type(value).__name__, value)
    return value


class Term:
    """Base of all interned values. Fields are the annotations of the class that `@term` made."""

    __slots__ = ("__weakref__",)
    __match_args__: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[tuple[str, ...]] = ()
    """All field names, in order."""
    term_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that hold a term, a tuple of terms, or None."""

    def _derive(self) -> None:
        """Check the fields and fill the derived slots; runs once, before the term is shared."""

    def map_children(self, function: Callable[[Any], Any]) -> Self:
        """This term with `function` applied to each child term; itself if none changed."""
        changed = False
        values: list[Any] = []
        for name in type(self).fields:
            old: Any = getattr(self, name)
            new: Any = old
            if name in type(self).term_fields:
                if isinstance(old, tuple):
                    new = map_tuple(function, old)  # pyright: ignore[reportUnknownArgumentType]
                elif old is not None:
                    new = function(old)
            changed = changed or new is not old
            values.append(new)
        return type(self)(*values) if changed else self

    def children(self) -> Iterator[Term]:
        """The child terms, in field order."""
        for name in type(self).term_fields:
            value: Any = getattr(self, name)
            if isinstance(value, tuple):
                yield from (item for item in value if item is not None)  # pyright: ignore[reportUnknownVariableType]
            elif value is not None:
                yield value

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), tuple(getattr(self, name) for name in type(self).fields))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def map_tuple(function: Callable[[Any], Any], items: tuple[Any, ...]) -> tuple[Any, ...]:
    """`tuple(map(function, items))`, but `items` itself if nothing changed. None stays None."""
    mapped = tuple(None if item is None else function(item) for item in items)
    return items if all(a is b for a, b in zip(mapped, items, strict=True)) else mapped


def _is_leaf(annotation: str) -> bool:
    inner = annotation.removesuffix(" | None")
    if inner.startswith("tuple["):
        inner = inner[len("tuple[") :].split(",")[0].removesuffix("]").removesuffix(" | None")
    return inner in _LEAF_TYPES


def _make_new(cls: type[Any], names: tuple[str, ...], annotations: dict[str, str]) -> Callable[..., Any]:
    """The interning `__new__`, written out per class: a loop over fields would cost twice as much."""
    defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    parameters = ", ".join(f"{name}=_default_{name}" if name in defaults else name for name in names)
    keys = ", ".join(
        name if not _is_leaf(annotations[name]) or annotations[name] in ("DType", "Buffer") else f"_key({name})"
        for name in names
    )
    stores = "".join(f"    _set_{name}(self, {name})\n" for name in names)
    source = (
        f"def __new__(cls, {parameters}):\n"
        f"    key = (cls, {keys})\n"
        "    entry = _table.get(key)\n"
        "    if entry is not None:\n"
        "        found = entry()\n"
        "        if found is not None:\n"
        "            return found\n"
        "    self = _object_new(cls)\n"
        f"{stores}"
        "    self._derive()\n"
        "    return _intern(key, self)\n"
    )
    scope: dict[str, Any] = {
        "_table": _table,
        "_key": attribute_key,
        "_intern": _intern,
        "_object_new": object.__new__,
        **{f"_default_{name}": value for name, value in defaults.items()},
    }
    # Slot descriptors do not exist before the class does, so they are filled in by `term`.
    code = compile(source, f"<term {cls.__name__}>", "exec")
    exec(code, scope)
    return scope["__new__"]


def _intern(key: Any, fresh: Any) -> Any:
    with _lock:
        entry = _table.get(key)
        if entry is not None:
            found = entry()
            if found is not None:
                return found
        entry = _Entry(fresh, _forget)
        entry.key = key
        _table[key] = entry
    return fresh


def _frozen(self: object, name: str, value: object) -> None:
    raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")


@dataclass_transform(frozen_default=True)
def term(cls: type[TermT]) -> type[TermT]:
    """Make an interned term class of `cls`, whose annotations are its fields.

    A field annotated int, float, str, bool, DType, Buffer or object (or a tuple of those) is a leaf: it
    takes part in the identity but is not a child. Derived slots, declared by an undecorated base
    class, are filled by `_derive` through `set_derived` and take no part in the identity.
    """
    annotations: dict[str, str] = {
        name: kind
        for name, kind in cls.__dict__.get("__annotations__", {}).items()
        if not kind.startswith("ClassVar")
    }
    names = tuple(annotations)
    new = _make_new(cls, names, annotations)
    body = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in ("__dict__", "__weakref__", "__slots__", *names)
    }
    body |= {
        "__slots__": names,
        "__match_args__": names,
        "__new__": new,
        "__setattr__": _frozen,
        "__delattr__": _frozen,
        "fields": names,
        "term_fields": tuple(name for name in names if not _is_leaf(annotations[name])),
    }
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    for name in names:
        new.__globals__[f"_set_{name}"] = made.__dict__[name].__set__
    return made


set_derived = object.__setattr__
"""Fill a derived slot inside `_derive`."""


def live_terms() -> int:
    """How many interned terms are alive (for tests and benchmarks)."""
    return len(_table)
