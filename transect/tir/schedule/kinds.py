"""Primitives that say how a loop runs: parallel, vectorize, unroll, bind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import as_int
from transect.ir.node import replace
from transect.ir.traverse import free_vars
from transect.tir.decisions import decision_vars
from transect.tir.function import PrimFunc
from transect.tir.schedule.dependence import conflict
from transect.tir.schedule.edit import Edit, Primitive, Target, edit, expect_loop, refuse
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import For, ForKind
from transect.tir.visit import walk_stmts

THREADS = frozenset(
    f"{space}.{axis}" for space in ("blockIdx", "threadIdx", "vthread") for axis in "xyz"
) | {"vthread"}
"""The thread axes a loop can be bound to."""


def _set_kind(
    func: PrimFunc, primitive: str, loop: For, kind: ForKind, thread: str | None = None
) -> Edit:
    if loop.kind != "serial":
        refuse(primitive, f"it is already {loop.kind}", loop, "choose one way to run it")
    made = replace(loop, kind=kind, thread=thread)
    return edit(func, {loop: made}, {loop: made})


def _require_independent(func: PrimFunc, primitive: str, loop: For) -> None:
    reason = conflict(Tree(func), loop)
    if reason is not None:
        remedy = "choose a spatial loop"
        if "accumulates" in reason:
            remedy = "choose a spatial loop, or make partial results with sch.rfactor"
        refuse(primitive, reason, loop, remedy)


def _require_constant(func: PrimFunc, primitive: str, loop: For) -> None:
    """A constant, or what will be one once the decision variables are numbers."""
    variables = set(free_vars([loop.extent]))
    if as_int(loop.extent) is None and not variables <= set(decision_vars(func)):
        refuse(
            primitive,
            f"its extent {loop.extent!r} is not a constant",
            loop,
            "split it by a constant factor and take the inner loop",
        )


@dataclass(frozen=True)
class Parallel(Primitive):
    """Iterations run on different cores.

    for i in range(n): …   ->   for i in T.parallel(n): …
    """

    name: ClassVar[str] = "parallel"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        _require_independent(func, self.name, loop)
        return _set_kind(func, self.name, loop, "parallel")


@dataclass(frozen=True)
class Vectorize(Primitive):
    """Iterations become the lanes of vectors.

    for j in range(16): …   ->   for j in T.vectorized(16): …
    """

    name: ClassVar[str] = "vectorize"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        _require_constant(func, self.name, loop)
        for inner in walk_stmts(loop.body):
            if isinstance(inner, For) and inner.kind not in ("serial", "unrolled"):
                refuse(
                    self.name,
                    f"loop {inner.var.name!r} inside it is {inner.kind}",
                    loop,
                    "vectorize an innermost loop",
                )
        _require_independent(func, self.name, loop)
        return _set_kind(func, self.name, loop, "vectorized")


@dataclass(frozen=True)
class Unroll(Primitive):
    """The body is repeated in the code, once for each iteration.

    for i in range(4): …   ->   for i in T.unroll(4): …
    """

    name: ClassVar[str] = "unroll"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        _require_constant(func, self.name, loop)
        return _set_kind(func, self.name, loop, "unrolled")


@dataclass(frozen=True)
class Bind(Primitive):
    """Iterations run on different threads of a grid.

    for i in range(n): …   ->   for i in T.thread_binding(n, thread="blockIdx.x"): …
    """

    thread_axis: str
    name: ClassVar[str] = "bind"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        loop = expect_loop(self.name, targets[0])
        if self.thread_axis not in THREADS:
            refuse(
                self.name,
                f"there is no thread axis {self.thread_axis!r}",
                loop,
                f"one of {', '.join(sorted(THREADS))}",
            )
        tree = Tree(func)
        for other in [*tree.ancestors(loop), *walk_stmts(loop.body)]:
            if isinstance(other, For) and other.thread == self.thread_axis:
                refuse(
                    self.name,
                    f"loop {other.var.name!r} of the same nest is bound to {other.thread} already",
                    loop,
                    "use another axis, or fuse the two loops",
                )
        _require_independent(func, self.name, loop)
        return _set_kind(func, self.name, loop, "thread_binding", self.thread_axis)
