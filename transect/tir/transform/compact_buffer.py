"""CompactBuffer: intermediate buffers move to where they live and shrink to what is used there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.arith import Analyzer
from transect.ir.expr import Expr, Range, Var, as_int, logical_and, true
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, walk
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.schedule.region import Interval, assume_sizes, interval, loop_domain
from transect.tir.stmt import Block, BlockRealize, BufferStore, For, IfThenElse, Stmt
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, TermT, child_stmts, own_terms
from transect.transform import Context


@dataclass(frozen=True)
class CompactBuffer(FunctionPass):
    """Allocate each intermediate buffer in the innermost loop that holds all of its uses, with the
    shape of what one iteration uses.

    Requires blocks without iteration variables. A buffer moves into a loop only if every iteration
    writes what it reads, so that nothing is carried from one to the next. Buffers that other
    threads share stay outside the loops over those threads. A buffer whose pointer is used
    directly stays as it is.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with small buffers."""
        body = func.body
        if not isinstance(body, BlockRealize):
            return func
        moves = _Planner(func).moves()
        if not moves:
            return func
        return replace(func, body=_Mover(func, moves).visit(body))


@dataclass(frozen=True)
class _Use:
    """One access: its place among all, the loops and conditions around it, its indices."""

    order: int
    path: tuple[Stmt, ...]
    indices: tuple[Expr, ...]
    store: bool


@dataclass(frozen=True)
class _Move:
    """A buffer's new home, its lower corner there, and what it becomes."""

    home: For
    corner: tuple[Expr, ...]
    buffer: Buffer


class _Planner:
    def __init__(self, func: PrimFunc) -> None:
        self.func = func
        self.uses: dict[Buffer, list[_Use]] = {}
        self.pointers: set[Term] = set()
        self.allocated: dict[Buffer, Block] = {}
        self._visit(func.body, ())

    def _visit(self, stmt: Stmt, path: tuple[Stmt, ...]) -> None:
        here = (*path, stmt)
        if isinstance(stmt, Block):
            self.allocated.update(dict.fromkeys(stmt.alloc_buffers, stmt))
        for item in walk(*own_terms(stmt)):
            if isinstance(item, BufferLoad):
                self._add(item.buffer, _Use(len(self.uses), here, item.indices, False))
            elif isinstance(item, Var) and item.dtype.is_handle:
                self.pointers.add(item)
        if isinstance(stmt, BufferStore):
            self._add(stmt.buffer, _Use(len(self.uses), here, stmt.indices, True))
        for child in child_stmts(stmt):
            self._visit(child, here)

    def _add(self, buffer: Buffer, use: _Use) -> None:
        self.uses.setdefault(buffer, []).append(use)

    def moves(self) -> dict[Buffer, _Move]:
        """Where each buffer goes; those that stay are left out."""
        found: dict[Buffer, _Move] = {}
        for buffer, block in self.allocated.items():
            uses = self.uses.get(buffer, [])
            shared = any(other.data is buffer.data for other in self.uses if other is not buffer)
            if not uses or buffer.data in self.pointers or shared or buffer.strides:
                continue
            for home in self._homes(buffer, block, uses):
                move = self._move(buffer, home, uses)
                if move is not None:
                    found[buffer] = move
                    break
        return found

    def _homes(self, buffer: Buffer, block: Block, uses: Sequence[_Use]) -> list[For]:
        """The loops inside `block` around all uses, innermost first, where it may live."""
        common = list(uses[0].path)
        for use in uses[1:]:
            length = 0
            for a, b in zip(common, use.path, strict=False):
                if a is not b:
                    break
                length += 1
            common = common[:length]
        if block not in common:
            return []
        inside = [s for s in common[common.index(block) :] if isinstance(s, For)]
        scope = buffer.scope
        allowed: list[For] = []
        for number, loop in enumerate(inside):
            if loop.kind in ("vectorized", "unrolled"):
                break
            if scope != "local" and any(_is_thread(each, scope) for each in inside[: number + 1]):
                break
            allowed.append(loop)
        # A loop over threads directly inside keeps its buffers: a home is a loop, not a thread.
        return allowed[::-1]

    def _move(self, buffer: Buffer, home: For, uses: Sequence[_Use]) -> _Move | None:
        analyzer = Analyzer()
        assume_sizes(analyzer, self.func)
        for item in uses[0].path[: uses[0].path.index(home) + 1]:
            if isinstance(item, For):
                analyzer.bind(item.var, Range(item.min, item.extent))
        boxes: list[list[Interval | None]] = []
        for use in uses:
            inner = [s for s in use.path[use.path.index(home) + 1 :] if isinstance(s, For)]
            domain = loop_domain(inner)
            boxes.append([interval(index, domain, analyzer) for index in use.indices])
        if not self._covered(buffer, home, uses, boxes, analyzer):
            return None
        return self._shrunk(buffer, home, boxes, analyzer)

    def _shrunk(
        self, buffer: Buffer, home: For, boxes: list[list[Interval | None]], analyzer: Analyzer
    ) -> _Move:
        corner: list[Expr] = []
        shape: list[Expr] = []
        for axis, size in enumerate(buffer.shape):
            part = _around([box[axis] for box in boxes], analyzer)
            if part is not None:
                extent = analyzer.simplify(part[1] - part[0] + 1)
                if as_int(extent) is not None or not free_vars([extent]):
                    corner.append(analyzer.simplify(part[0]))
                    shape.append(extent)
                    continue
                outside = {home.var}
                if not outside & set(free_vars([extent])) and analyzer.can_prove(extent <= size):
                    corner.append(analyzer.simplify(part[0]))
                    shape.append(extent)
                    continue
            corner.append(size - size)
            shape.append(size)
        # The pointer stays: a name for the same memory, with another shape.
        return _Move(home, tuple(corner), replace(buffer, shape=tuple(shape)))

    def _covered(
        self,
        buffer: Buffer,
        home: For,
        uses: Sequence[_Use],
        boxes: list[list[Interval | None]],
        analyzer: Analyzer,
    ) -> bool:
        """Whether every iteration of `home` writes all that it reads, before it reads it."""
        written: list[list[Interval]] = []
        # In program order a statement's loads come before its store.
        for use, box in zip(uses, boxes, strict=True):
            known = [part for part in box if part is not None]
            whole = len(known) == len(box)
            if use.store:
                if whole and self._unconditional(buffer, home, use):
                    written.append(known)
                continue
            if whole and any(_contains(each, known, analyzer) for each in written):
                continue
            return False
        return True

    def _unconditional(self, buffer: Buffer, home: For, use: _Use) -> bool:
        """Whether the conditions around a store leave out only elements that do not exist."""
        inside = use.path[use.path.index(home) + 1 :]
        conditions: list[Expr] = []
        for outer, inner in zip(inside, inside[1:], strict=False):
            if isinstance(outer, BlockRealize):
                conditions.append(outer.predicate)
            elif isinstance(outer, IfThenElse):
                if inner is not outer.then_case:
                    return False
                conditions.append(outer.condition)
            elif not isinstance(outer, For | Block) and len(child_stmts(outer)) == 1:
                return False
        analyzer = Analyzer()
        assume_sizes(analyzer, self.func)
        for item in use.path:
            if isinstance(item, For):
                analyzer.bind(item.var, Range(item.min, item.extent))
        exists = true()
        for index, size in zip(use.indices, buffer.shape, strict=True):
            exists = logical_and(exists, index < size)
        with analyzer.constraint(exists):
            return all(as_int(c) == 1 or analyzer.can_prove(c) for c in conditions)


def _is_thread(loop: For, scope: str) -> bool:
    if loop.kind != "thread_binding":
        return False
    return scope == "global" or not (loop.thread or "").startswith("blockIdx")


def _around(parts: list[Interval | None], analyzer: Analyzer) -> Interval | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    low, high = known[0]
    for each in known[1:]:
        if not analyzer.can_prove(low <= each[0]):
            if not analyzer.can_prove(each[0] <= low):
                return None
            low = each[0]
        if not analyzer.can_prove(each[1] <= high):
            if not analyzer.can_prove(high <= each[1]):
                return None
            high = each[1]
    return (low, high)


def _contains(outer: list[Interval], inner: list[Interval], analyzer: Analyzer) -> bool:
    return all(
        analyzer.can_prove(a[0] <= b[0]) and analyzer.can_prove(b[1] <= a[1])
        for a, b in zip(outer, inner, strict=True)
    )


class _Mover(StmtRewriter):
    """Takes buffers from their blocks, allocates them in their homes and shifts their indices."""

    def __init__(self, func: PrimFunc, moves: dict[Buffer, _Move]) -> None:
        self.moves = moves
        self.homes: dict[For, list[Buffer]] = {}
        for move in moves.values():
            self.homes.setdefault(move.home, []).append(move.buffer)
        self.analyzer = Analyzer()
        assume_sizes(self.analyzer, func)
        self.memo: dict[Term, Term] = {}

    def _shifted(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        corner = self.moves[buffer].corner
        return tuple(
            self.analyzer.simplify(index - low) for index, low in zip(indices, corner, strict=True)
        )

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer in self.moves:
            indices = self._shifted(item.buffer, item.indices)
            return BufferLoad(self.moves[item.buffer].buffer, indices, item.predicate)
        return item

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo)

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        if not isinstance(new, BufferStore) or stmt.buffer not in self.moves:
            return new
        indices = self._shifted(stmt.buffer, new.indices)
        return replace(new, buffer=self.moves[stmt.buffer].buffer, indices=indices)

    def visit_for(self, stmt: For) -> Stmt:
        self.analyzer.bind(stmt.var, Range(stmt.min, stmt.extent))
        new = super().visit_for(stmt)
        inside = self.homes.get(stmt)
        if not inside or not isinstance(new, For):
            return new
        block = Block("", (), (), (), new.body, alloc_buffers=tuple(inside))
        return replace(new, body=BlockRealize((), true(), block))

    def visit_block(self, stmt: Block) -> Stmt:
        new = super().visit_block(stmt)
        kept = tuple(item for item in stmt.alloc_buffers if item not in self.moves)
        return replace(new, alloc_buffers=kept) if isinstance(new, Block) else new
