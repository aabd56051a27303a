"""Chain: several primitives in a row as one edit. Knows nothing of any primitive."""

from __future__ import annotations

from transect.ir.node import replace
from transect.support.errors import ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.schedule.edit import Edit, Primitive, edit
from transect.tir.schedule.tree import Forward
from transect.tir.stmt import Block, For, Stmt


def compose(first: Forward, second: Forward) -> Forward:
    """What became of statements after two rewrites in a row."""
    joined: Forward = {old: second.get(new, new) if new else new for old, new in first.items()}
    return {**{old: new for old, new in second.items() if old not in joined}, **joined}


class Chain:
    """The function after the steps so far, and what became of its loops and blocks.

    name: of the primitive that is made of the steps; a refusal says it first.
    """

    def __init__(self, name: str, func: PrimFunc) -> None:
        self.name = name
        self.func = func
        self.forward: Forward = {}

    def loop(self, old: Stmt) -> For:
        """What a loop has become. It must still be there."""
        found = self.forward.get(old, old)
        assert isinstance(found, For)
        return found

    def block(self, old: Stmt) -> Block:
        """What a block has become. It must still be there."""
        found = self.forward.get(old, old)
        assert isinstance(found, Block)
        return found

    def run(self, primitive: Primitive, *targets: Stmt) -> tuple[Stmt, ...]:
        """One more step, on targets as they were when they were found; its results."""
        now = [self.forward.get(target, target) or target for target in targets]
        try:
            made = primitive.apply(self.func, *now)
        except ScheduleError as error:
            raise ScheduleError(
                f"{self.name}: {error.message}",
                span=error.span,
                remedy=error.remedy,
                notes=error.notes,
            ) from error
        self.add(made)
        return made.results

    def add(self, made: Edit) -> None:
        """One more edit of the function as it is now."""
        self.func = made.func
        self.forward = compose(self.forward, dict(made.forward))

    def annotate(self, block: Stmt, key: str, value: object) -> None:
        """Put an annotation on a block."""
        self.add(_annotated(self.func, self.block(block), key, value))

    def done(self, *results: Stmt) -> Edit:
        """All of it as one edit."""
        now = [self.forward.get(item, item) for item in results]
        return Edit(self.func, self.forward, tuple(item for item in now if item is not None))


def _annotated(func: PrimFunc, block: Block, key: str, value: object) -> Edit:
    made = replace(block, annotations={**block.annotations, key: value})
    return edit(func, {block: made}, {block: made})
