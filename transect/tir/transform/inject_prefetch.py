"""InjectPrefetch: loops fetch ahead what they stream from beyond the first-level cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from transect.ir.dtype import VOID
from transect.ir.expr import Call, Expr, IntImm, Ramp, Var, as_int
from transect.ir.node import replace
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.affine import difference
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Evaluate, For, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, bound_vars, own_terms, walk_stmts
from transect.transform import Context

PREFETCH = "prefetch"
"""The annotation of a loop: how many iterations ahead it fetches."""

PREFETCH_NEXT = "prefetch_next"
"""The annotation of a loop: in how many parts what it reads next time is fetched, see below."""

PREFETCH_NEXT_ROWS = "prefetch_next_rows"
"""The annotation of a loop: the same of rows whose elements it reads one by one, see below."""

_ANNOTATIONS = {PREFETCH, PREFETCH_NEXT, PREFETCH_NEXT_ROWS}

_LINE = 64
"""Bytes of a cache line."""


@dataclass(frozen=True)
class InjectPrefetch(FunctionPass):
    """Ask for the cache lines that an annotated loop reads some iterations later.

    Requires flat buffers and vectors. Only loads in vectors that move on by whole cache lines from
    one iteration to the next are fetched: what moves more slowly the processor finds by itself.
    Before -> after, with {"prefetch": 8}:

        for k in range(n):                      for k in range(n):
            c[0:16] += a[k] * b[k * 16 + 0:16]      T.prefetch(b[k * 16 + 128])
                                                    c[0:16] += a[k] * b[k * 16 + 0:16]

    With {"prefetch_next": parts}, ask for what the loop reads in the next iteration of the
    innermost loop around that moves it, into the second-level cache; a part in each iteration of
    the loops between, which read the same again. Before -> after, with 2 parts:

        for j in range(m):                      for j in range(m):
            for i in range(n):                      for i in range(n):
                for k in range(8):                      for k in range(8):
                    c[0:16] += a[i, k] *                    T.prefetch(
                        b[j * 256 + k * 32 + 0:16]              b[j * 256 + k * 32 + i % 2 * 16
                    c[16:32] += a[i, k] *                         + 256], 2)
                        b[j * 256 + k * 32 + 16:32]         …

    More parts than lines are as many. With {"prefetch_next_rows": True}, so it is for elements of
    rows that lie equally far apart, as those of `a` would for a tile of several i: a line of one
    row or the other in each iteration.

    Fetching beyond the end of a buffer does nothing: a prefetch never faults.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with prefetches; the annotations are gone."""
        del context
        body = _Inject().visit(func.body)
        return func if body is func.body else replace(func, body=body)


class _Inject(StmtRewriter):
    def __init__(self) -> None:
        self.around: list[For] = []
        """The loops around, the outermost first."""

    def visit_for(self, stmt: For) -> Stmt:
        self.around.append(stmt)
        new = super().visit_for(stmt)
        self.around.pop()
        if not isinstance(new, For) or not _ANNOTATIONS & new.annotations.keys():
            return new
        left = {key: value for key, value in new.annotations.items() if key not in _ANNOTATIONS}
        fetches: list[Stmt] = []
        for stream in _streams(new):
            if PREFETCH in new.annotations:
                fetches += stream.ahead(new.var, int(new.annotations[PREFETCH]))
            if PREFETCH_NEXT in new.annotations:
                fetches += stream.next(self.around, int(new.annotations[PREFETCH_NEXT]))
        if new.annotations.get(PREFETCH_NEXT_ROWS):
            for rows in _rows(new):
                fetches += rows.next(self.around, new.var)
        return replace(new, annotations=left, body=seq(*fetches, new.body))


@dataclass(frozen=True)
class _Stream:
    """Vectors that a loop reads one after the other: the first index of each iteration, how many
    lines from there on, and how many elements a line has."""

    buffer: Buffer
    start: Expr
    lines: int
    line: int

    def ahead(self, var: Var, iterations: int) -> list[Stmt]:
        """Fetch what the loop over `var` reads some iterations later."""
        start = substitute(self.start, {var: var + iterations})
        return [_fetch(self.buffer, start + n * self.line) for n in range(self.lines)]

    def next(self, around: Sequence[For], parts: int) -> list[Stmt]:
        """Fetch what the next iteration of the innermost loop around that moves the stream reads,
        a part in each iteration of the loops inside of that one, which read the same again."""
        used = set(free_vars((self.start,)))
        place = max((n for n, loop in enumerate(around) if loop.var in used), default=-1)
        again = around[place + 1 :]
        if place < 0 or not again:
            return []
        mover = around[place].var
        start = substitute(self.start, {mover: mover + 1})
        parts = min(parts, self.lines)
        each = -(-self.lines // parts)
        turn: Expr = again[0].var
        for loop in again[1:]:
            turn = turn * loop.extent + loop.var
        first = turn % parts * each
        return [_fetch(self.buffer, start + (first + n) * self.line, 2) for n in range(each)]


@dataclass(frozen=True)
class _Rows:
    """Rows whose elements a loop reads one after the other: where the first one starts in each
    iteration, how far on that is in the next one, how many rows so many elements apart, and how
    many iterations there are to a line."""

    buffer: Buffer
    start: Expr
    step: int
    count: int
    apart: int
    turns: int

    def next(self, around: Sequence[For], var: Var) -> list[Stmt]:
        """Fetch what the next iteration of the innermost loop around that moves the rows reads,
        where those are others; `var` counts iterations."""
        used = set(free_vars((self.start,)))
        inside = (loop.var for loop in reversed(around))
        mover = next((item for item in inside if item is not var and item in used), None)
        if mover is None:
            return []
        start = substitute(self.start, {mover: mover + 1})
        moved = difference(start, self.start)
        if moved is None or abs(moved) < self.count * self.apart:
            return []
        turn = var % self.turns
        start = start + turn * (self.apart - self.step)
        return [
            _fetch(self.buffer, start + first * self.apart, 2)
            for first in range(0, self.count, self.turns)
        ]


def _fetch(buffer: Buffer, index: Expr, level: int | None = None) -> Stmt:
    load = BufferLoad(buffer, (index,))
    args = (load,) if level is None else (load, IntImm(level))
    return Evaluate(Call(INTRINSICS["prefetch"], args, VOID))


_Group = dict[int, tuple[Buffer, Expr, int, int]]
"""Loads whose distance is a constant, by the distance from the first that was found: the buffer,
the index of the first element, how many elements, and by how many they move on in an iteration."""


def _groups(loop: For, moving: Callable[[int, int, int], bool]) -> list[_Group]:
    """The loads in a loop of one element or one vector for which `moving` holds: of the bytes by
    which they move on from one iteration to the next, those of an element, and the lanes."""
    found: dict[tuple[Var, Expr], _Group] = {}
    # What loops inside move on by themselves is not known where an iteration starts.
    inner = {var for stmt in walk_stmts(loop.body) for var in bound_vars(stmt)}
    for stmt in walk_stmts(loop.body):
        for item in walk(*own_terms(stmt)):
            if not isinstance(item, BufferLoad) or len(item.indices) != 1:
                continue
            (index,) = item.indices
            base, lanes = index, 1
            if isinstance(index, Ramp) and as_int(index.stride) == 1:
                base, lanes = index.base, index.lanes
            if base.dtype.lanes != 1 or inner & set(free_vars((base,))):
                continue
            step = difference(substitute(base, {loop.var: loop.var + 1}), base)
            size = item.buffer.dtype.element.bytes
            if step is None or not moving(step * size, size, lanes):
                continue
            near = (
                (first, offset)
                for first in found
                if first[0] is item.buffer.data
                and (offset := difference(base, first[1])) is not None
            )
            first, offset = next(near, ((item.buffer.data, base), 0))
            found.setdefault(first, {}).setdefault(offset, (item.buffer, base, lanes, step))
    return list(found.values())


def _streams(loop: For) -> list[_Stream]:
    """What moves on by whole lines from one iteration to the next: vectors that follow each other,
    as many in every place."""
    streams: list[_Stream] = []
    for vectors in _groups(loop, lambda step, size, lanes: lanes > 1 and step >= _LINE):
        runs: list[tuple[int, int]] = []
        for offset in sorted(vectors):
            end = offset + vectors[offset][2]
            if runs and offset <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(runs[-1][1], end))
            else:
                runs.append((offset, end))
        if len({end - start for start, end in runs}) != 1:
            continue
        for start, end in runs:
            buffer, low, *_ = vectors[start]
            line = max(1, _LINE // buffer.dtype.element.bytes)
            streams.append(_Stream(buffer, low, -(-(end - start) // line), line))
    return streams


def _rows(loop: For) -> list[_Rows]:
    """Elements that move on by a part of a line from one iteration to the next."""
    rows: list[_Rows] = []
    for elements in _groups(loop, lambda step, size, lanes: lanes == 1 and size <= step < _LINE):
        buffer, start, _, step = elements[min(elements)]
        # One iteration may read several elements of a row.
        firsts = [place for place in sorted(elements) if place - 1 not in elements]
        gaps = {b - a for a, b in pairwise(firsts)}
        turns = _LINE // (step * buffer.dtype.element.bytes)
        if len(gaps) == 1 and turns * step * buffer.dtype.element.bytes == _LINE:
            rows.append(_Rows(buffer, start, step, len(firsts), gaps.pop(), turns))
    return rows
