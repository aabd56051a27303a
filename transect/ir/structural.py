"""Equality and hash of IR up to the names of bound variables.

A variable matches another where both are bound at the same place; a free variable matches only
itself (or, with `map_free`, consistently one other). Spans and names do not count. The hash is
the same in every process.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import Intrinsic, Var
from transect.ir.function import BaseFunc
from transect.ir.node import Node
from transect.ir.term import Term, attribute_key

_Path = tuple[Any, ...] | None


def structural_equal(a: object, b: object, *, map_free: bool = False) -> bool:
    """Whether `a` and `b` are the same program up to renaming of bound variables."""
    return structural_mismatch(a, b, map_free=map_free) is None


def structural_mismatch(a: object, b: object, *, map_free: bool = False) -> str | None:
    """Where `a` and `b` first differ, as a path such as `functions['main'].body.body: …`, or None."""
    comparison = _Comparison(map_free)
    comparison.compare(a, b, None, binding=map_free)
    return comparison.mismatch


class _Comparison:
    def __init__(self, map_free: bool) -> None:
        self.map_free = map_free
        self.forward: dict[object, object] = {}
        self.backward: dict[object, object] = {}
        self.equal_terms: set[tuple[Term, Term]] = set()
        self.mismatch: str | None = None

    def fail(self, path: _Path, what: str) -> bool:
        if self.mismatch is None:
            parts: list[str] = []
            while path is not None:
                parts.append(path[1])
                path = path[0]
            self.mismatch = f"{''.join(reversed(parts)).lstrip('.') or 'the root'}: {what}"
        return False

    def compare(self, a: Any, b: Any, path: _Path, *, binding: bool) -> bool:
        if isinstance(a, Node) and isinstance(b, Node):
            return self.nodes(a, b, path, binding=binding)
        if isinstance(a, Term) and isinstance(b, Term):
            return self.terms(a, b, path, binding=binding)
        if isinstance(a, tuple | list) and isinstance(b, tuple | list):
            if len(a) != len(b):  # pyright: ignore[reportUnknownArgumentType]
                return self.fail(path, f"{len(a)} items against {len(b)}")  # pyright: ignore[reportUnknownArgumentType]
            return all(
                self.compare(x, y, (path, f"[{i}]"), binding=binding)
                for i, (x, y) in enumerate(zip(a, b, strict=True))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            )
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return self.mappings(a, b, path, binding=binding)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes():
                return True
            return self.fail(path, "arrays differ")
        if a is b or (type(a) is type(b) and _leaf_key(a) == _leaf_key(b)):
            return True
        return self.fail(path, f"{a!r} against {b!r}")

    def mappings(self, a: Mapping[Any, Any], b: Mapping[Any, Any], path: _Path, *, binding: bool) -> bool:
        if any(isinstance(key, Term | Node) for key in a):
            return self.compare(tuple(a.items()), tuple(b.items()), path, binding=binding)
        if a.keys() != b.keys():
            odd = sorted(map(str, a.keys() ^ b.keys()))
            return self.fail(path, f"only one side has {', '.join(odd)}")
        return all(self.compare(a[k], b[k], (path, f"[{k!r}]"), binding=binding) for k in a)

    def bind(self, a: object, b: object) -> None:
        self.forward[a] = b
        self.backward[b] = a

    def paired(self, a: object, b: object) -> bool | None:
        """Whether two binders are bound to each other; None if neither is bound yet."""
        if a in self.forward or b in self.backward:
            return self.forward.get(a) is b and self.backward.get(b) is a
        return None

    def terms(self, a: Term, b: Term, path: _Path, *, binding: bool) -> bool:
        if isinstance(a, Var) or isinstance(b, Var):
            if not (isinstance(a, Var) and isinstance(b, Var)):
                return self.fail(path, f"{a!r} against {b!r}")
            known = self.paired(a, b)
            if known is not None:
                return known or self.fail(path, f"variable {a.name} against {b.name}")
            if a is b:
                return True
            if not (binding or self.map_free) or a.dtype is not b.dtype or a.pointer is not b.pointer:
                return self.fail(path, f"variable {a.name} ({a.dtype}) against {b.name} ({b.dtype})")
            self.bind(a, b)
            return True
        if (a, b) in self.equal_terms:
            return True
        if type(a) is not type(b):
            return self.fail(path, f"{type(a).__name__} against {type(b).__name__}")
        for name in type(a).fields:
            if not self.compare(getattr(a, name), getattr(b, name), (path, f".{name}"), binding=binding):
                return False
        self.equal_terms.add((a, b))
        return True

    def functions(self, a: BaseFunc, b: BaseFunc, path: _Path, *, binding: bool) -> bool:
        # Variables are scoped to a function: another one may bind the same Var to another partner.
        outer = dict(self.forward), dict(self.backward), set(self.equal_terms)
        equal = self.fields(a, b, path, binding=binding)
        self.forward, self.backward, self.equal_terms = outer
        return equal

    def nodes(self, a: Node, b: Node, path: _Path, *, binding: bool) -> bool:
        if type(a) is not type(b):
            return self.fail(path, f"{type(a).__name__} against {type(b).__name__}")
        if isinstance(a, BaseFunc) and isinstance(b, BaseFunc):
            return self.functions(a, b, path, binding=binding)
        if type(a).identity:
            known = self.paired(a, b)
            if known is not None:
                return known or self.fail(path, f"{a!r} against {b!r}, which is bound elsewhere")
            self.bind(a, b)
        return self.fields(a, b, path, binding=binding)

    def fields(self, a: Node, b: Node, path: _Path, *, binding: bool) -> bool:
        for name in type(a).fields:
            if name in type(a).cosmetic:
                continue
            inner = binding or name in type(a).binds
            if not self.compare(getattr(a, name), getattr(b, name), (path, f".{name}"), binding=inner):
                return False
        return True


def _leaf_key(value: object) -> object:
    return attribute_key(value)


def structural_hash(value: object) -> str:
    """A hexadecimal digest of `value` that ignores variable names and spans, equal for
    structurally equal values and in every process. Free variables count by order of appearance."""
    hasher = _Hasher()
    hasher.visit(value)
    return hasher.digest.hexdigest()


class _EndOfFunction:
    """Where the numbers that a function gave to its variables are forgotten again."""

    def __init__(self, numbers: dict[object, int]) -> None:
        self.numbers = numbers


class _Hasher:
    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self.numbers: dict[object, int] = {}

    def put(self, text: str) -> None:
        data = text.encode()
        self.digest.update(struct.pack("<I", len(data)))
        self.digest.update(data)

    def parts(self, value: Term | Node) -> list[Any]:
        skipped = type(value).cosmetic if isinstance(value, Node) else ()
        return [getattr(value, name) for name in reversed(type(value).fields) if name not in skipped]

    def visit(self, root: Any) -> None:
        stack: list[Any] = [root]
        while stack:
            value = stack.pop()
            if isinstance(value, _EndOfFunction):
                self.numbers = value.numbers
            elif isinstance(value, DType):
                self.put(str(value))
            elif isinstance(value, Node) and not type(value).identity:
                self.put(type(value).__name__)
                if isinstance(value, BaseFunc):
                    stack.append(_EndOfFunction(dict(self.numbers)))
                stack.extend(self.parts(value))
            elif isinstance(value, Term | Node):
                number = self.numbers.get(value)
                if number is not None:
                    self.put(f"#{number}")
                    continue
                self.numbers[value] = len(self.numbers)
                self.put(type(value).__name__)
                if isinstance(value, Var):
                    self.put(f"{value.dtype} {value.pointer is not None}")
                    continue
                stack.extend(self.parts(value))
            elif isinstance(value, tuple | list):
                self.put(f"({len(value)}")  # pyright: ignore[reportUnknownArgumentType]
                stack.extend(reversed(value))  # pyright: ignore[reportUnknownArgumentType]
            elif isinstance(value, Mapping):
                self.put("{" + str(len(value)))  # pyright: ignore[reportUnknownArgumentType]
                named = all(isinstance(key, str) for key in value)  # pyright: ignore[reportUnknownVariableType]
                items = sorted(value.items()) if named else list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                stack.extend(reversed([part for item in items for part in item]))  # pyright: ignore[reportUnknownVariableType]
            elif isinstance(value, np.ndarray):
                self.put(f"{value.dtype}{value.shape}")
                self.digest.update(np.ascontiguousarray(value).tobytes())
            elif isinstance(value, float):
                self.put(value.hex())
            elif isinstance(value, Intrinsic):
                self.put(f"T.{value.name}")
            else:
                self.put(f"{type(value).__name__}:{value!r}")
