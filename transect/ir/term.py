"""The `@term` decorator: immutable, interned values that make up scalar expressions and types.

Two terms with the same fields are the same object, so equality is `is` and the hash is the
identity. Variables are the exception: they compare by identity and are never interned.
Statements and bindings, which carry spans and bind variables, are nodes (`node.py`), not terms.
"""

from __future__ import annotations

import inspect
import struct
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

TermT = TypeVar("TermT", bound="Term")

_LEAF_TYPES = frozenset({"int", "float", "str", "bool", "DType", "object", "Buffer"})
_lock = threading.RLock()
_table: dict[Any, _Entry] = {}


class _Entry(weakref.ref["Term"]):
    """A weak table entry that knows its key, so that it can remove itself."""

    __slots__ = ("key",)
    key: Any


def _forget(
    entry: _Entry,
    lock: threading.RLock = _lock,
    table: dict[Any, _Entry] = _table,
) -> None:
    # RLock: the collector may run this inside _intern on the same thread. As defaults, because
    # module globals are gone when the last terms die at exit.
    with lock:
        if table.get(entry.key) is entry:
            del table[entry.key]


def attribute_key(value: object) -> object:
    """A hashable key of a field value that tells True from 1, 1 from 1.0 and 0.0 from -0.0."""
    if isinstance(value, float):
        return ("float", struct.pack("<d", value))
    if isinstance(value, tuple):
        return tuple(attribute_key(item) for item in cast("tuple[object, ...]", value))
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
        return self

    def children(self) -> tuple[Term, ...]:
        """The child terms, in field order."""
        return ()

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


def _compile(cls: type[Any], method: str, source: str, scope: dict[str, Any]) -> Any:
    """The method that `source` defines. Methods are written out per class, because a loop over the
    fields costs several times as much (benchmarks/ir.py)."""
    exec(compile(source, f"<{method} of term {cls.__name__}>", "exec"), scope)
    return scope[method]


_EXACT = ("int", "str", "bool")
"""Leaves that the value and its class tell apart; bits of floats and items of tuples do not."""


def _key_of(name: str, annotation: str) -> str:
    """The part of the interning key that a field makes."""
    if annotation in _EXACT:
        return f"{name}, {name}.__class__"
    if not _is_leaf(annotation) or annotation in ("DType", "Buffer"):
        return name
    return f"_key({name})"


def _make_new(cls: type[Any], names: tuple[str, ...], annotations: dict[str, str]) -> Any:
    """The interning `__new__`."""
    defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    parameters = ", ".join(f"{n}=_default_{n}" if n in defaults else n for n in names)
    keys = ", ".join(_key_of(name, annotations[name]) for name in names)
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
    return _compile(cls, "__new__", source, scope)


def _make_children(cls: type[Any], fields: Mapping[str, str]) -> Any:
    """`children`, for the term fields with their annotations."""
    if all("None" not in kind for kind in fields.values()):
        parts = [f"*self.{n}" if k.startswith("tuple[") else f"self.{n}" for n, k in fields.items()]
        body = f"    return ({', '.join(parts)},)\n" if parts else "    return ()\n"
    else:
        body = "    found = []\n"
        for name, kind in fields.items():
            body += f"    value = self.{name}\n    if value is not None:\n"
            if kind.startswith("tuple["):
                body += "        found += [item for item in value if item is not None]\n"
            else:
                body += "        found.append(value)\n"
        body += "    return tuple(found)\n"
    return _compile(cls, "children", f"def children(self):\n{body}", {})


def _make_map(
    cls: type[Any], names: tuple[str, ...], fields: Mapping[str, str]
) -> tuple[Any, dict[str, Any]]:
    """`map_children`, and its globals, in which `term` puts the finished class as `_cls`."""
    scope: dict[str, Any] = {"_map_tuple": map_tuple}
    if not fields:
        return _compile(
            cls, "map_children", "def map_children(self, function):\n    return self\n", scope
        ), scope
    body = ""
    for name, kind in fields.items():
        call = (
            f"_map_tuple(function, self.{name})"
            if kind.startswith("tuple[")
            else f"function(self.{name})"
        )
        if kind.endswith("| None"):
            call += f" if self.{name} is not None else None"
        body += f"    new_{name} = {call}\n"
    same = " and ".join(f"new_{name} is self.{name}" for name in fields)
    values = ", ".join(f"new_{name}" if name in fields else f"self.{name}" for name in names)
    body += f"    if {same}:\n        return self\n    return _cls({values})\n"
    return _compile(cls, "map_children", f"def map_children(self, function):\n{body}", scope), scope


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

    A field annotated int, float, str, bool, DType, Buffer or object (or a tuple of those) is a
    leaf: it takes part in the identity but is not a child. Derived slots, declared by an
    undecorated base class, are filled by `_derive` through `set_derived` and take no part in the
    identity.
    """
    annotations: dict[str, str] = {
        name: kind
        for name, kind in inspect.get_annotations(cls).items()
        if not kind.startswith("ClassVar")
    }
    names = tuple(annotations)
    new = _make_new(cls, names, annotations)
    body = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in ("__dict__", "__weakref__", "__slots__", *names)
    }
    terms = {name: annotations[name] for name in names if not _is_leaf(annotations[name])}
    mapper, mapper_scope = _make_map(cls, names, terms)
    body = {"children": _make_children(cls, terms), "map_children": mapper} | body
    body |= {
        "__slots__": names,
        "__match_args__": names,
        "__new__": new,
        "__setattr__": _frozen,
        "__delattr__": _frozen,
        "fields": names,
        "term_fields": tuple(terms),
    }
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    mapper_scope["_cls"] = made
    for name in names:
        new.__globals__[f"_set_{name}"] = made.__dict__[name].__set__
    return made


set_derived = object.__setattr__
"""Fill a derived slot inside `_derive`."""


def live_terms() -> int:
    """How many interned terms are alive (for tests and benchmarks)."""
    return len(_table)
