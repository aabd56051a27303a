"""Statement trees as the schedule primitives see them: parents, scopes, and edits by path copying.

Knows statements and nothing of what makes an edit legal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from transect.ir.expr import Expr, Var
from transect.ir.node import replace
from transect.support.errors import ScheduleError
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    AttrStmt,
    Block,
    BlockRealize,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    While,
    seq,
)
from transect.tir.visit import Substitution, TermT, child_stmts, fresh_copy, walk_stmts

Forward = dict[Stmt, Stmt | None]
"""What became of loops and blocks in an edit; None: gone. What is not in it stayed the same."""


def with_children(stmt: Stmt, new: Sequence[Stmt | None]) -> Stmt | None:
    """`stmt` around other statements; None if nothing is left inside it."""
    if isinstance(stmt, SeqStmt):
        left = [item for item in new if item is not None]
        return seq(*left) if left else None
    if not new:
        return stmt
    first, last = new[0], new[-1]
    if isinstance(stmt, For | While | AttrStmt):
        return None if first is None else replace(stmt, body=first)
    if isinstance(stmt, BlockRealize):
        return replace(stmt, block=first) if isinstance(first, Block) else None
    if isinstance(stmt, Block):
        if last is None:
            return None
        return replace(stmt, body=last, init=None if stmt.init is None else first)
    if isinstance(stmt, IfThenElse):
        otherwise = new[1] if len(new) > 1 else None
        return None if first is None else replace(stmt, then_case=first, else_case=otherwise)
    return stmt


def replace_statements(
    root: Stmt, changes: Mapping[Stmt, Stmt | None], forward: Forward
) -> Stmt | None:
    """`root` with statements replaced (None: removed, with the loops that it leaves empty).

    Loops and blocks on the way are copied; `forward` records what they became.
    """
    if root in changes:
        return changes[root]
    inside = child_stmts(root)
    new = tuple(replace_statements(item, changes, forward) for item in inside)
    if all(a is b for a, b in zip(new, inside, strict=True)):
        return root
    made = with_children(root, new)
    if isinstance(root, For | Block):
        forward[root] = made
    return made


class ForwardingSubstitution(Substitution):
    """A substitution that records what loops and blocks become.

    simplify: applied to every expression that changes.
    """

    def __init__(
        self,
        values: Mapping[Var, Expr] | None = None,
        buffers: Mapping[Buffer, Buffer] | None = None,
        simplify: Callable[[Expr], Expr] | None = None,
    ) -> None:
        pointers = {old.data: new.data for old, new in (buffers or {}).items()}
        super().__init__({**pointers, **(values or {})}, buffers)
        self.forward: Forward = {}
        self.simplify = simplify

    def expr(self, value: TermT) -> TermT:
        made = super().expr(value)
        if made is value or self.simplify is None or not isinstance(made, Expr):
            return made
        return self.simplify(made)  # pyright: ignore[reportReturnType]

    def visit(self, stmt: Stmt) -> Stmt:
        made = super().visit(stmt)
        if made is not stmt and isinstance(stmt, For | Block):
            self.forward[stmt] = made
        return made


def duplicate(stmt: Stmt, values: Mapping[Var, Expr] | None = None, *, suffix: str = "") -> Stmt:
    """A copy of `stmt` whose binders are all new, so that both can stand in one function.

    values: free variables to replace on the way. suffix: added to the names of blocks.
    """
    copy = fresh_copy(stmt, values)
    return rename_blocks(copy, suffix) if suffix else copy


def rename_blocks(stmt: Stmt, suffix: str) -> Stmt:
    """`stmt` with `suffix` at the end of the name of every block."""
    new = tuple(rename_blocks(item, suffix) for item in child_stmts(stmt))
    made = with_children(stmt, new)
    assert made is not None
    return replace(made, name=made.name + suffix) if isinstance(made, Block) else made


class Tree:
    """The statements of a function with their parents, for one look between two edits."""

    def __init__(self, func: PrimFunc) -> None:
        self.func = func
        self.parent: dict[Stmt, Stmt] = {}
        self.order: dict[Stmt, int] = {}
        for item in walk_stmts(func.body):
            self.order[item] = len(self.order)
            for child in child_stmts(item):
                self.parent[child] = item

    @property
    def root(self) -> Block:
        """The root block. Raises ScheduleError for a function that was lowered below blocks."""
        body = self.func.body
        if not isinstance(body, BlockRealize):
            raise ScheduleError(
                "the function has no blocks left to schedule",
                span=self.func.span,
                remedy="schedule before lowering",
            )
        return body.block

    def __contains__(self, stmt: Stmt) -> bool:
        return stmt in self.order

    def ancestors(self, stmt: Stmt) -> Iterator[Stmt]:
        """The statements around `stmt`, innermost first."""
        while stmt in self.parent:
            stmt = self.parent[stmt]
            yield stmt

    def is_inside(self, stmt: Stmt, outer: Stmt) -> bool:
        """Whether `stmt` is `outer` or inside it."""
        return stmt is outer or any(item is outer for item in self.ancestors(stmt))

    def realize(self, block: Block) -> BlockRealize:
        """The statement that runs `block`."""
        parent = self.parent[block]
        assert isinstance(parent, BlockRealize)
        return parent

    def scope(self, stmt: Stmt) -> Block:
        """The innermost block around `stmt` (around a block: not itself)."""
        for item in self.ancestors(stmt):
            if isinstance(item, Block):
                return item
        raise ScheduleError("the root block is in no other block", span=stmt.span)

    def loops(self, stmt: Stmt) -> list[For]:
        """The loops around `stmt` within its scope, outermost first."""
        found: list[For] = []
        for item in self.ancestors(stmt):
            if isinstance(item, Block):
                break
            if isinstance(item, For):
                found.append(item)
        return found[::-1]

    def blocks(self, stmt: Stmt) -> list[Block]:
        """The blocks inside `stmt` and in no other block there, in program order."""
        found: list[Block] = []
        stack = list(reversed(child_stmts(stmt)))
        while stack:
            item = stack.pop()
            if isinstance(item, Block):
                found.append(item)
            else:
                stack.extend(reversed(child_stmts(item)))
        return found

    def all_blocks(self) -> list[Block]:
        """Every block of the function, the root included, in program order."""
        return [item for item in self.order if isinstance(item, Block)]

    def outermost(self, stmt: Stmt, scope: Block) -> Stmt:
        """The ancestor of `stmt` (or itself) that is a direct item of the body of `scope`."""
        found = stmt
        for item in self.ancestors(stmt):
            if item is scope or (item is scope.body and isinstance(item, SeqStmt)):
                break
            found = item
        return found


def single_child(loop: For) -> Stmt:
    """The body of a loop, through sequences of one."""
    body = loop.body
    while isinstance(body, SeqStmt) and len(body.stmts) == 1:
        body = body.stmts[0]
    return body
