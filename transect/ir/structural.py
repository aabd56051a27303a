"""Equality and hash of IR up to the names of bound variables.

A variable matches another where both are bound at the same place; a free variable matches only
itself (or, with `map_free`, consistently one other). Spans and names do not count. The hash is
the same in every process. Both walk iteratively and visit what is shared once.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import Intrinsic, Var
from transect.ir.function import BaseFunc
from transect.ir.node import Node
from transect.ir.term import Term, attribute_key
from transect.support.errors import InputTypeError

_Array = np.ndarray[Any, np.dtype[Any]]
_Path = tuple[Any, ...] | None
"""A linked list of the steps from the root, the last step first."""


def structural_equal(a: object, b: object, *, map_free: bool = False) -> bool:
    """Whether `a` and `b` are the same program up to renaming of bound variables."""
    return structural_mismatch(a, b, map_free=map_free) is None


def structural_mismatch(a: object, b: object, *, map_free: bool = False) -> str | None:
    """Where `a` and `b` first differ, as a path such as `functions['main'].body.body: …`, or
    None."""
    return _Comparison(map_free).run(a, b)


@dataclass(slots=True)
class _Pair:
    """Two values still to be compared. binding: variables met here are bound to each other."""

    a: Any
    b: Any
    path: _Path
    binding: bool


class _Mismatch(Exception):
    """Ends a comparison; carries the path and the reason."""


@dataclass(slots=True)
class _Scope:
    """What is paired. Functions have their own: another may pair the same variable otherwise."""

    forward: dict[object, object]
    backward: dict[object, object]
    equal: set[tuple[object, object]]

    def copy(self) -> _Scope:
        return _Scope(dict(self.forward), dict(self.backward), set(self.equal))


class _Comparison:
    def __init__(self, map_free: bool) -> None:
        self.map_free = map_free
        self.scope = _Scope({}, {}, set())
        self.stack: list[_Pair | _Scope] = []

    def run(self, a: object, b: object) -> str | None:
        self.stack.append(_Pair(a, b, None, self.map_free))
        try:
            while self.stack:
                item = self.stack.pop()
                if isinstance(item, _Scope):
                    self.scope = item
                else:
                    self.compare(item)
        except _Mismatch as mismatch:
            return str(mismatch)
        return None

    def fail(self, path: _Path, what: str) -> _Mismatch:
        parts: list[str] = []
        while path is not None:
            parts.append(path[1])
            path = path[0]
        return _Mismatch(f"{''.join(reversed(parts)).lstrip('.') or 'the root'}: {what}")

    def push(self, pairs: Iterable[_Pair]) -> None:
        """Compare these next, in order."""
        self.stack.extend(reversed(list(pairs)))

    def compare(self, pair: _Pair) -> None:
        a, b = pair.a, pair.b
        if isinstance(a, Node) and isinstance(b, Node):
            self.nodes(a, b, pair)
        elif isinstance(a, Term) and isinstance(b, Term):
            self.terms(a, b, pair)
        elif isinstance(a, tuple | list) and isinstance(b, tuple | list):
            self.sequences(cast("Sequence[object]", a), cast("Sequence[object]", b), pair)
        elif isinstance(a, Mapping) and isinstance(b, Mapping):
            self.mappings(cast("Mapping[Any, object]", a), cast("Mapping[Any, object]", b), pair)
        elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if _array_key(pair.a) != _array_key(pair.b):
                raise self.fail(pair.path, "arrays differ")
        elif not _same_leaf(pair.a, pair.b):
            raise self.fail(pair.path, f"{pair.a!r} against {pair.b!r}")

    def sequences(self, a: Sequence[object], b: Sequence[object], pair: _Pair) -> None:
        if len(a) != len(b):
            raise self.fail(pair.path, f"{len(a)} items against {len(b)}")
        self.push(
            _Pair(x, y, (pair.path, f"[{i}]"), pair.binding)
            for i, (x, y) in enumerate(zip(a, b, strict=True))
        )

    def mappings(self, a: Mapping[Any, object], b: Mapping[Any, object], pair: _Pair) -> None:
        if any(isinstance(key, Term | Node) for key in a):
            # Keys that are variables match by position, as parameters do.
            self.sequences(tuple(a.items()), tuple(b.items()), pair)
            return
        if a.keys() != b.keys():
            odd = sorted(map(str, a.keys() ^ b.keys()))
            raise self.fail(pair.path, f"only one side has {', '.join(odd)}")
        self.push(_Pair(a[k], b[k], (pair.path, f"[{k!r}]"), pair.binding) for k in a)

    def paired(self, a: object, b: object) -> bool | None:
        """Whether two binders are bound to each other; None if neither is bound yet."""
        scope = self.scope
        if a in scope.forward or b in scope.backward:
            return scope.forward.get(a) is b and scope.backward.get(b) is a
        return None

    def bind(self, a: object, b: object) -> None:
        self.scope.forward[a] = b
        self.scope.backward[b] = a

    def terms(self, a: Term, b: Term, pair: _Pair) -> None:
        if isinstance(a, Var) and isinstance(b, Var):
            self.variables(a, b, pair)
        elif type(a) is not type(b):
            raise self.fail(pair.path, f"{a!r} against {b!r}")
        elif (a, b) not in self.scope.equal:
            # Entered before it is known: if it turns out different, nothing is asked any more.
            self.scope.equal.add((a, b))
            self.push(self.fields(a, b, pair))

    def variables(self, a: Var, b: Var, pair: _Pair) -> None:
        known = self.paired(a, b)
        if known is None:
            if a is b:
                return
            may_bind = pair.binding or self.map_free
            if may_bind and a.dtype is b.dtype and a.pointer is b.pointer:
                self.bind(a, b)
                return
        if not known:
            raise self.fail(
                pair.path, f"variable {a.name} ({a.dtype}) against {b.name} ({b.dtype})"
            )

    def nodes(self, a: Node, b: Node, pair: _Pair) -> None:
        if type(a) is not type(b):
            raise self.fail(pair.path, f"{type(a).__name__} against {type(b).__name__}")
        if type(a).identity:
            known = self.paired(a, b)
            if known is False:
                raise self.fail(pair.path, f"{a!r} against {b!r}, which is bound elsewhere")
            if known:
                return
            self.bind(a, b)
        elif (a, b) in self.scope.equal:
            return
        if isinstance(a, BaseFunc):
            self.stack.append(self.scope.copy())
        else:
            self.scope.equal.add((a, b))
        self.push(self.fields(a, b, pair))

    def fields(self, a: Term | Node, b: Term | Node, pair: _Pair) -> list[_Pair]:
        binds = type(a).binds if isinstance(a, Node) else ()
        return [
            _Pair(getattr(a, n), getattr(b, n), (pair.path, f".{n}"), pair.binding or n in binds)
            for n in _compared_fields(type(a))
        ]


def _compared_fields(kind: type[Term] | type[Node]) -> tuple[str, ...]:
    if issubclass(kind, Node) and kind.cosmetic:
        return tuple(name for name in kind.fields if name not in kind.cosmetic)
    return kind.fields


def _same_leaf(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and attribute_key(a) == attribute_key(b))


def _array_key(array: _Array) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, np.ascontiguousarray(array).tobytes()


def structural_hash(value: object) -> str:
    """A hexadecimal digest of `value` that ignores variable names and spans, equal for
    structurally equal values and in every process. Free variables count by order of appearance.

    Raises InputTypeError for a leaf whose text would differ between processes.
    """
    return _Hasher().run(value)


@dataclass(slots=True)
class _EndOfNode:
    """Where a node's own digest is complete. again: the node had been visited before."""

    node: Node
    again: bool
    functions: int


@dataclass(slots=True)
class _EndOfFunction:
    """Where the numbers that a function gave to its variables are forgotten again."""

    numbers: dict[object, int]
    visited: set[Node]
    digests: dict[Node, bytes]


class _Hasher:
    """Each statement has a digest of its own inside that of its parent. What it is on a second
    visit, when everything in it has its number, does not change any more and is kept: a shared
    statement and a copy of it hash alike, and sharing stays linear."""

    def __init__(self) -> None:
        self.open = [hashlib.blake2b(digest_size=16)]
        self.numbers: dict[object, int] = {}
        self.visited: set[Node] = set()
        self.digests: dict[Node, bytes] = {}
        self.functions = 0
        self.stack: list[Any] = []

    def run(self, root: object) -> str:
        self.stack.append(root)
        while self.stack:
            self.visit(self.stack.pop())
        return self.open[0].hexdigest()

    def put(self, data: bytes) -> None:
        self.open[-1].update(_framed(data))

    def text(self, text: str) -> None:
        self.open[-1].update(_framed_text(text))

    def visit(self, value: Any) -> None:
        if isinstance(value, Term):
            self.term(value)
        elif isinstance(value, Node):
            self.node(value)
        elif isinstance(value, _EndOfNode):
            self.end_of_node(value)
        elif isinstance(value, _EndOfFunction):
            self.functions += 1
            self.numbers, self.visited, self.digests = value.numbers, value.visited, value.digests
        elif isinstance(value, tuple | list):
            items = cast("Sequence[object]", value)
            self.text(f"({len(items)}")
            self.stack.extend(reversed(items))
        elif isinstance(value, Mapping):
            self.mapping(cast("Mapping[Any, object]", value))
        elif isinstance(value, np.ndarray):
            self.array(cast("_Array", value))
        elif isinstance(value, DType):
            self.text(value.name)
        else:
            self.text(_leaf_text(value))

    def array(self, value: _Array) -> None:
        kind, shape, data = _array_key(value)
        self.text(f"{kind}{shape}")
        self.put(data)

    def mapping(self, value: Mapping[Any, object]) -> None:
        self.text("{" + str(len(value)))
        named = all(isinstance(key, str) for key in value)
        items = sorted(value.items(), key=_first) if named else list(value.items())
        self.stack.extend(reversed([part for item in items for part in item]))

    def numbered(self, value: Term | Node) -> bool:
        """Whether `value` was met before; then its number stands for it."""
        number = self.numbers.get(value)
        if number is not None:
            self.text(f"#{number}")
            return True
        self.numbers[value] = len(self.numbers)
        self.text(type(value).__name__)
        return False

    def push_fields(self, value: Term | Node) -> None:
        names = _compared_fields(type(value))
        self.stack.extend(getattr(value, name) for name in reversed(names))

    def term(self, value: Term) -> None:
        if self.numbered(value):
            return
        if isinstance(value, Var):
            self.text(f"{value.dtype} {value.pointer is not None}")
        else:
            self.push_fields(value)

    def node(self, value: Node) -> None:
        if type(value).identity:
            if not self.numbered(value):
                self.push_fields(value)
            return
        known = self.digests.get(value)
        if known is not None:
            self.put(known)
            return
        self.stack.append(_EndOfNode(value, value in self.visited, self.functions))
        self.visited.add(value)
        if isinstance(value, BaseFunc):
            self.stack.append(
                _EndOfFunction(dict(self.numbers), set(self.visited), dict(self.digests))
            )
        self.open.append(hashlib.blake2b(digest_size=16))
        self.text(type(value).__name__)
        self.push_fields(value)

    def end_of_node(self, end: _EndOfNode) -> None:
        digest = self.open.pop().digest()
        self.put(digest)
        # A function inside counts its variables from the outer ones, so it differs every time.
        if end.again and end.functions == self.functions:
            self.digests[end.node] = digest


def _framed(data: bytes) -> bytes:
    """`data` after its length, so that what follows cannot be taken for a part of it."""
    return struct.pack("<I", len(data)) + data


@lru_cache(maxsize=1 << 12)
def _framed_text(text: str) -> bytes:
    # Few texts are most of a program: names of classes, small numbers.
    return _framed(text.encode())


def _first(item: tuple[Any, object]) -> str:
    return item[0]


def _leaf_text(value: object) -> str:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Intrinsic):
        return f"T.{value.name}"
    if isinstance(value, set | frozenset):
        members = cast("frozenset[object]", value)
        return f"set:{sorted(map(_leaf_text, members))}"
    if type(value).__repr__ is object.__repr__:
        raise InputTypeError(
            f"a {type(value).__name__} has no text that is the same in every process",
            remedy="give the class a __repr__, or keep such objects out of the IR",
        )
    return f"{type(value).__name__}:{value!r}"
