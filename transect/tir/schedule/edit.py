"""Primitive and Edit: the form of every schedule primitive, and how one refuses.

A primitive is a frozen dataclass whose fields are its options. The primitives themselves live in
the files beside this one, one for each family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

from transect.ir.node import replace
from transect.support.errors import ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.schedule.tree import Forward, Tree, replace_statements
from transect.tir.stmt import Block, BlockRealize, For, Stmt

Target = Stmt
"""What a primitive is applied to: a loop (For) or a block (Block) of the function."""


@dataclass(frozen=True)
class Edit:
    """What a primitive did.

    func: the new function. forward: what loops and blocks of the old function became (None:
    gone); those not in it are unchanged. results: the loops and blocks the primitive returns.
    """

    func: PrimFunc
    forward: Mapping[Stmt, Stmt | None] = field(default_factory=dict[Stmt, "Stmt | None"])
    results: tuple[Stmt, ...] = ()


class Primitive(ABC):
    """An edit of a tensor program that keeps its meaning, or a look at it.

    Subclasses are frozen dataclasses; the fields are the options. name: as on Schedule, in
    traces and in messages.
    """

    name: ClassVar[str] = ""

    @abstractmethod
    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        """The edited function. Raises ScheduleError if that would change what it computes."""

    def written(self, inputs: Sequence[str]) -> list[str]:
        """How a printed trace passes the handles `inputs` to the method of Schedule."""
        return list(inputs)


def edit(
    func: PrimFunc,
    changes: Mapping[Stmt, Stmt | None],
    forward: Forward | None = None,
    results: tuple[Stmt, ...] = (),
) -> Edit:
    """The edit that replaces statements of `func`; `forward` tells of loops and blocks in them."""
    told: Forward = dict(forward or {})
    around: Forward = {}
    body = replace_statements(func.body, changes, around)
    assert isinstance(body, BlockRealize)
    for old, new in changes.items():
        if isinstance(old, For | Block):
            # In place of it, or something around it in which it still is.
            told.setdefault(old, new if new is None or isinstance(new, For | Block) else old)
    return Edit(replace(func, body=body), {**around, **told}, results)


def snippet(stmt: Stmt, limit: int = 12) -> str:
    """The statement as printed, cut after `limit` lines."""
    lines = repr(stmt).splitlines()
    more = [f"… {len(lines) - limit} more lines"] if len(lines) > limit else []
    return "\n".join("    " + line for line in [*lines[:limit], *more])


def refuse(primitive: str, why: str, at: Stmt, remedy: str, *notes: str) -> NoReturn:
    """Raise the ScheduleError of a primitive that does not apply to `at`."""
    kind = f"loop {at.var.name!r}" if isinstance(at, For) else "block"
    if isinstance(at, Block):
        kind = f"block {at.name!r}"
    raise ScheduleError(
        f"{primitive}: {kind}: {why}",
        span=at.span,
        remedy=remedy,
        notes=[*notes, f"here:\n{snippet(at)}"],
    )


def expect_loop(primitive: str, target: Target) -> For:
    """`target` as a loop."""
    if isinstance(target, For):
        return target
    refuse(primitive, "a loop is needed", target, "pass one of sch.get_loops(block)")


def expect_block(primitive: str, target: Target) -> Block:
    """`target` as a block."""
    if isinstance(target, Block):
        return target
    refuse(primitive, "a block is needed", target, "pass the result of sch.get_block(name)")


def look(func: PrimFunc, *results: Stmt) -> Edit:
    """The edit that changes nothing."""
    return Edit(func, {}, results)


__all__ = [
    "Edit",
    "Primitive",
    "Target",
    "Tree",
    "edit",
    "expect_block",
    "expect_loop",
    "look",
    "refuse",
    "snippet",
]
