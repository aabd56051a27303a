"""PlanAllocations: temporary buffers move to where they are used and shrink to what is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from transect.arith import Analyzer
from transect.ir.condition import conjuncts
from transect.ir.expr import LT, Call, Expr, IntImm, Var, as_int, true
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import free_vars, rewrite, walk
from transect.tir.access import EXPLICIT_WRITE, HIDDEN, Access, Interval, accesses
from transect.tir.affine import affine, difference
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.stmt import (
    Block,
    BlockRealize,
    BufferStore,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    While,
)
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, child_stmts, own_terms, substitute_stmt, walk_stmts
from transect.transform import Context

TermT = TypeVar("TermT", bound=Term)


@dataclass(frozen=True)
class PlanAllocations(FunctionPass):
    """Place alloc_buffers at the innermost statement that contains all their accesses and in which
    whatever is read has been written before, and shrink them to the box accessed there. Nests that
    follow each other and each read only what they have written themselves get a buffer each.

    Requires opaque blocks without match_buffers. Leaves the same, with new opaque blocks that hold
    the allocations. A buffer that carries values from one iteration of a loop to the next stays
    outside of that loop; shared memory stays outside of thread loops, global memory outside of all
    loops bound to a GPU; buffers used through their pointer, or with strides, stay as they are. An
    address that a block takes, which declares what it touches there, counts by that region.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with allocations placed."""
        return replace(func, body=_Plan(func).visit(_UnitLoops().visit(func.body)))


class _UnitLoops(StmtRewriter):
    """Writes the only value of a loop's variable in its place: then accesses compare, of which
    some are at that variable and others at the value."""

    def visit_for(self, stmt: For) -> Stmt:
        new = super().visit_for(stmt)
        assert isinstance(new, For)
        if as_int(new.extent) != 1 or new.kind == "thread_binding":
            return new
        return replace(new, body=substitute_stmt(new.body, {new.var: new.min}))


class Reach:
    """`accesses`, which remembers: the same statements are looked at for many buffers and places.

    fixed: variables with one value for the whole run of the function.
    """

    def __init__(self, fixed: frozenset[Var]) -> None:
        self.fixed = fixed
        self.known: dict[Stmt, list[Access]] = {}

    def __call__(self, stmt: Stmt) -> list[Access]:
        """The accesses of a statement."""
        found = self.known.get(stmt)
        if found is None:
            found = self.known[stmt] = accesses(stmt)
        return found

    def fills(self, item: Access) -> bool:
        """Whether a write reaches every element of its box, if any run of it does."""
        return item.repeats is not None and self.fixed.issuperset(free_vars(item.repeats))


class _Plan(StmtRewriter):
    def __init__(self, func: PrimFunc) -> None:
        self.reach = Reach(frozenset((*symbolic_vars(func), *func.params)))

    def visit_block(self, stmt: Block) -> Stmt:
        new = super().visit_block(stmt)
        assert isinstance(new, Block)
        kept: list[Buffer] = []
        body = new.body
        for buffer in new.alloc_buffers:
            places = [] if _is_opaque(body, buffer) else _places(body, buffer, self.reach)
            if not places:
                kept.append(buffer)
                continue
            copies = [buffer, *(_another(buffer) for _ in places[1:])]
            moves = (
                _Move(place, buffer, own, self.reach)
                for place, own in zip(places, copies, strict=True)
            )
            body = _Moves({move.place: move for move in moves}).visit(body)
        return replace(new, body=body, alloc_buffers=tuple(kept))


def _is_opaque(body: Stmt, buffer: Buffer) -> bool:
    """Whether the buffer is reached in another way than by element, by code that does not declare
    which part of it that is, or in blocks that hide it."""
    if buffer.strides or buffer.layout is not None:
        return True
    declared = {item for block in _declaring(body, buffer) for item in walk_stmts(block)}
    for stmt in walk_stmts(body):
        if isinstance(stmt, Block) and buffer.name in stmt.annotations.get(HIDDEN, ()):
            return True
        if stmt in declared:
            continue
        for item in walk(*own_terms(stmt)):
            if item is buffer.data:
                return True
            if isinstance(item, Call) and any(
                isinstance(arg, BufferLoad) and arg.buffer is buffer for arg in item.args
            ):
                # An argument by value is harmless; address_of and its like are not.
                name = getattr(item.op, "name", "")
                if name in ("address_of", "prefetch", "tvm_access_ptr"):
                    return True
    return False


def _declaring(body: Stmt, buffer: Buffer) -> list[Block]:
    """The innermost blocks that declare regions of the buffer."""
    found: list[Block] = []
    for stmt in walk_stmts(body):
        if not isinstance(stmt, Block) or not _regions(stmt, buffer):
            continue
        if not any(isinstance(item, Block) for item in walk_stmts(stmt.body)):
            found.append(stmt)
    return found


def _regions(block: Block, buffer: Buffer) -> list[BufferRegion]:
    return [region for region in (*block.reads, *block.writes) if region.buffer is buffer]


def _fixed_axes(body: Stmt, buffer: Buffer) -> set[int]:
    """The axes that stay whole, as instructions that take addresses know how far apart the rows
    of what they touch are."""
    fixed: set[int] = set()
    for block in _declaring(body, buffer):
        takes = any(
            isinstance(item, Call) and getattr(item.op, "name", "") == "address_of"
            for stmt in walk_stmts(block.body)
            for item in walk(*own_terms(stmt))
        )
        for region in _regions(block, buffer) if takes else ():
            wide = [n for n, item in enumerate(region.ranges) if as_int(item.extent) != 1]
            fixed.update(range(wide[0] + 1, buffer.ndim) if wide else ())
    return fixed


def _touches(stmt: Stmt, buffer: Buffer) -> bool:
    return any(_touches_itself(item, buffer) for item in walk_stmts(stmt))


def _touches_itself(stmt: Stmt, buffer: Buffer) -> bool:
    if isinstance(stmt, BufferStore) and stmt.buffer is buffer:
        return True
    return any(
        isinstance(item, BufferLoad) and item.buffer is buffer for item in walk(*own_terms(stmt))
    )


def _places(body: Stmt, buffer: Buffer, reach: Reach, loops: int = 0) -> list[Stmt]:
    """The statements to wrap with an allocation each; none for where it is now. There are several
    if each of them writes itself what it reads. loops: how many there are around `body`."""
    candidates: list[tuple[Stmt, int]] = []
    stmt = body
    while True:
        inside = [child for child in child_stmts(stmt) if _touches(child, buffer)]
        if len(inside) != 1 or _touches_itself(stmt, buffer):
            break
        if isinstance(stmt, For) and _is_fence(stmt, buffer):
            break
        loops += isinstance(stmt, For | While)
        stmt = inside[0]
        if not isinstance(stmt, Block):
            candidates.append((stmt, loops))
    if isinstance(stmt, SeqStmt) and len(inside) > 1:
        parts = [_places(part, buffer, reach, loops) for part in inside]
        if all(parts):
            return [place for places in parts for place in places]
    for stmt, crossed in reversed(candidates):
        if not crossed:
            return []
        if _writes_first(stmt, buffer, [], reach):
            return [stmt]
    return []


def _another(buffer: Buffer) -> Buffer:
    """A buffer like this one, with memory of its own."""
    pointer = buffer.data
    return replace(buffer, data=Var(pointer.name, pointer.dtype, pointer.pointer))


def _is_fence(loop: For, buffer: Buffer) -> bool:
    if loop.kind != "thread_binding" or buffer.scope.startswith(("local", "wmma", "warp")):
        return False
    thread = loop.thread or ""
    return not (buffer.scope.startswith("shared") and thread.startswith("blockIdx"))


Box = Sequence[Interval | None]


def _writes_first(stmt: Stmt, buffer: Buffer, written: list[Box], reach: Reach) -> bool:
    """Whether everything that `stmt` reads from `buffer` is in a box of `written`, or written by
    itself before. What is certainly written is appended to `written`."""
    if isinstance(stmt, SeqStmt):
        return all(_writes_first(child, buffer, written, reach) for child in stmt.stmts)
    found = [item for item in reach(stmt) if item.buffer is buffer]
    if not found:
        return True
    reads = [item.ranges for item in found if not item.write]
    fine = all(any(_covers(box, read, buffer) for box in written) for read in reads)
    if not fine:
        if isinstance(stmt, BufferStore):
            return False
        children = child_stmts(stmt)
        if not children or _touches_itself(stmt, buffer):
            return False
        for child in children:
            if not _writes_first(child, buffer, list(written), reach):
                return False
    for item in _certain_writes(stmt, buffer, reach):
        written.append(item.ranges)
        joined = [box for old in written[:-1] if (box := _joined(old, item.ranges)) is not None]
        written.extend(joined)
    return True


def _joined(a: Box, b: Box) -> Box | None:
    """Two boxes as one, if they are next to each other along one axis and alike in the others."""
    result: list[Interval] = []
    apart = 0
    for one, other in zip(a, b, strict=True):
        if one is None or other is None:
            return None
        if difference(one[0], other[0]) == 0 and difference(one[1], other[1]) == 0:
            result.append(one)
        elif difference(other[0], one[1]) == 1:
            result.append((one[0], other[1]))
            apart += 1
        else:
            return None
    return result if apart == 1 else None


def _certain_writes(stmt: Stmt, buffer: Buffer, reach: Reach) -> list[Access]:
    """The writes of `stmt` that fill their box and that no condition can skip, but for those that
    only keep accesses within the buffer."""
    stores = [
        item for item in walk_stmts(stmt) if isinstance(item, BufferStore) and item.buffer is buffer
    ]
    conditions = [condition for item in walk_stmts(stmt) for condition in _conditions(item)]
    if any(isinstance(item, While) for item in walk_stmts(stmt)):
        return []
    # A region that was stated by hand may be larger than what is written.
    if any(isinstance(s, Block) and EXPLICIT_WRITE in s.annotations for s in walk_stmts(stmt)):
        return []
    for condition in conditions:
        if not any(_keeps_inside(condition, store) for store in stores):
            return []
    found = (item for item in reach(stmt) if item.buffer is buffer and item.write)
    return [item for item in found if reach.fills(item)]


def _conditions(stmt: Stmt) -> Iterator[Expr]:
    if isinstance(stmt, IfThenElse):
        yield from conjuncts(stmt.condition)
    elif isinstance(stmt, BlockRealize):
        yield from conjuncts(stmt.predicate)
    elif isinstance(stmt, BufferStore) and stmt.predicate is not None:
        yield stmt.predicate


def _keeps_inside(condition: Expr, store: BufferStore) -> bool:
    # index < extent, perhaps with something taken from both sides.
    return isinstance(condition, LT) and any(
        difference(condition.a + extent, condition.b + index) == 0
        for index, extent in zip(store.indices, store.buffer.shape, strict=True)
        if index.dtype is condition.a.dtype
    )


def _covers(outer: Box, inner: Box, buffer: Buffer) -> bool:
    for a, b, extent in zip(outer, inner, buffer.shape, strict=True):
        if a is None:
            # The whole axis: but an unknown write is not a write of all of it.
            return False
        if _is_whole(a, extent):
            # Nothing is read beyond the axis.
            continue
        if b is None:
            return False
        low, high = difference(b[0], a[0]), difference(a[1], b[1])
        if low is None or high is None or low < 0 or high < 0:
            return False
    return True


def _is_whole(interval: Interval, extent: Expr) -> bool:
    """Whether an interval holds all indices of an axis."""
    low, high = interval
    analyzer = Analyzer()
    return analyzer.can_prove(low <= 0) and analyzer.can_prove(high >= extent - 1)


def _box(found: list[Access], buffer: Buffer) -> list[tuple[Expr, int] | None]:
    """Per axis the first index and the constant number of indices used, or None for all."""
    analyzer = Analyzer()
    result: list[tuple[Expr, int] | None] = []
    for axis, extent in enumerate(buffer.shape):
        intervals = [item.ranges[axis] for item in found]
        hull = intervals[0] if intervals else None
        for other in intervals[1:]:
            if hull is None or other is None:
                hull = None
                break
            low, high = difference(other[0], hull[0]), difference(other[1], hull[1])
            if low is None or high is None:
                hull = None
                break
            hull = (hull[0] if low >= 0 else other[0], hull[1] if high <= 0 else other[1])
        size = None
        if hull is not None:
            size = as_int(
                analyzer.simplify((affine(hull[1]) - affine(hull[0])).plus(1).to_expr(extent.dtype))
            )
        whole = as_int(extent)
        if hull is None or size is None or size <= 0 or (whole is not None and whole <= size):
            result.append(None)
        else:
            result.append((hull[0], size))
    return result


class _Move(StmtRewriter):
    """Wraps `place` in a block that allocates `own`, shrunk, and uses it in place of `buffer`."""

    def __init__(self, place: Stmt, buffer: Buffer, own: Buffer, reach: Reach) -> None:
        self.place = place
        self.old = buffer
        fixed = _fixed_axes(place, buffer)
        boxes = _box([item for item in reach(place) if item.buffer is buffer], buffer)
        self.boxes = [None if axis in fixed else box for axis, box in enumerate(boxes)]
        shape = tuple(
            extent if box is None else IntImm(box[1], extent.dtype)
            for box, extent in zip(self.boxes, buffer.shape, strict=True)
        )
        self.new = replace(own, shape=shape) if any(self.boxes) else own
        self.memo: dict[Term, Term] = {}
        self.inside = False

    def visit(self, stmt: Stmt) -> Stmt:
        if stmt is not self.place:
            return super().visit(stmt)
        self.inside = True
        body = super().visit(stmt)
        self.inside = False
        block = Block(
            f"{self.old.name}_scope", (), (), (), body, alloc_buffers=(self.new,), span=stmt.span
        )
        return BlockRealize((), true(), block, stmt.span)

    def _shift(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(
            index if box is None else (affine(index) - affine(box[0])).to_expr(index.dtype)
            for index, box in zip(indices, self.boxes, strict=True)
        )

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer is self.old:
            return BufferLoad(self.new, self._shift(item.indices), item.predicate)
        return item

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo) if self.inside else value

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        if isinstance(new, BufferStore) and stmt.buffer is self.old:
            return replace(new, buffer=self.new, indices=self._shift(new.indices))
        return new


class _Moves(StmtRewriter):
    """Several moves, at places beside each other."""

    def __init__(self, moves: Mapping[Stmt, _Move]) -> None:
        self.moves = moves

    def visit(self, stmt: Stmt) -> Stmt:
        move = self.moves.get(stmt)
        return super().visit(stmt) if move is None else move.visit(stmt)
