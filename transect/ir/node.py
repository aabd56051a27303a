"""The `@node` decorator: statements, blocks, bindings and functions.

Nodes have identity, carry spans and are the only things that bind variables. They are treated as
immutable; with TRANSECT_CHECK=1 assigning to a field raises. Build a changed copy with `replace`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar, dataclass_transform

from transect.ir.printing import render
from transect.support import flags
from transect.support.span import Spans

NodeT = TypeVar("NodeT", bound="Node")


class Node:
    """Base of all nodes.

    `binds` names the fields whose variables (or buffers) this node defines, and `cosmetic` those
    that do not count, for comparison and hashing up to renaming. `identity`: the node is itself a
    variable (a buffer, a graph variable): every use of it must match the same partner.
    `fields` lists all fields but `span`.
    """

    __slots__ = ("__weakref__",)
    binds: ClassVar[tuple[str, ...]] = ()
    cosmetic: ClassVar[tuple[str, ...]] = ()
    identity: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ()
    span: Spans

    def __repr__(self) -> str:
        return render(self)

    def field_items(self) -> Iterator[tuple[str, Any]]:
        """Field names and values, without the span."""
        for name in type(self).fields:
            yield name, getattr(self, name)


def _guard(self: Any, name: str, value: object) -> None:
    if hasattr(self, name):
        raise AttributeError(
            f"{type(self).__name__} is immutable: cannot set {name!r}; use replace()"
        )
    object.__setattr__(self, name, value)


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(dataclasses.field,))
def node(cls: type[NodeT]) -> type[NodeT]:
    """Make a node class: slots, no generated equality, fields from the annotations."""
    made: Any = dataclasses.dataclass(eq=False, repr=False, slots=True)(cls)
    made.fields = tuple(f.name for f in dataclasses.fields(made) if f.name != "span")
    if flags.check():
        made.__setattr__ = _guard
    return made


def replace(node: NodeT, **changes: Any) -> NodeT:
    """A copy of `node` with some fields changed; `node` itself if each new value is the old one."""
    if all(getattr(node, name) is value for name, value in changes.items()):
        return node
    return dataclasses.replace(node, **changes)  # pyright: ignore[reportArgumentType, reportUnknownVariableType, reportCallIssue, reportGeneralTypeIssues]
