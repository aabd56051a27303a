"""InjectPrefetch: loops fetch ahead what they stream from beyond the first-level cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    Fetching beyond the end of a buffer does nothing: a prefetch never faults.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with prefetches; the annotations are gone."""
        del context
        body = _Inject().visit(func.body)
        return func if body is func.body else replace(func, body=body)


class _Inject(StmtRewriter):
    def __init__(self) -> None:
        self.around: list[Var] = []
        """The variables of the loops around, the outermost first."""

    def visit_for(self, stmt: For) -> Stmt:
        self.around.append(stmt.var)
        new = super().visit_for(stmt)
        self.around.pop()
        if not isinstance(new, For) or not {PREFETCH, PREFETCH_NEXT} & new.annotations.keys():
            return new
        left = {
            key: value
            for key, value in new.annotations.items()
            if key not in (PREFETCH, PREFETCH_NEXT)
        }
        fetches: list[Stmt] = []
        for stream in _streams(new):
            if PREFETCH in new.annotations:
                fetches += stream.ahead(new.var, int(new.annotations[PREFETCH]))
            if PREFETCH_NEXT in new.annotations:
                fetches += stream.next(self.around, int(new.annotations[PREFETCH_NEXT]))
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
        return [self._fetch(start + number * self.line) for number in range(self.lines)]

    def next(self, around: Sequence[Var], parts: int) -> list[Stmt]:
        """Fetch what the next iteration of the innermost loop around that moves the stream reads,
        a part in each iteration of the loops inside of that one, which read the same again."""
        used = set(free_vars((self.start,)))
        place = max((n for n, var in enumerate(around) if var in used), default=-1)
        again = around[place + 1 :]
        if place < 0 or not again:
            return []
        start = substitute(self.start, {around[place]: around[place] + 1})
        each = -(-self.lines // parts)
        first = again[-1] % parts * each
        return [self._fetch(start + (first + number) * self.line, 2) for number in range(each)]

    def _fetch(self, index: Expr, level: int | None = None) -> Stmt:
        load = BufferLoad(self.buffer, (index,))
        args = (load,) if level is None else (load, IntImm(level))
        return Evaluate(Call(INTRINSICS["prefetch"], args, VOID))


def _streams(loop: For) -> list[_Stream]:
    """What moves on by whole lines from one iteration to the next."""
    found: dict[tuple[Var, Expr], dict[int, tuple[Buffer, Ramp]]] = {}
    # What loops inside move on by themselves is not known where an iteration starts.
    inner = {var for stmt in walk_stmts(loop.body) for var in bound_vars(stmt)}
    for stmt in walk_stmts(loop.body):
        for item in walk(*own_terms(stmt)):
            if not isinstance(item, BufferLoad) or len(item.indices) != 1:
                continue
            (index,) = item.indices
            if not isinstance(index, Ramp) or as_int(index.stride) != 1:
                continue
            if inner & set(free_vars((index.base,))):
                continue
            step = difference(substitute(index.base, {loop.var: loop.var + 1}), index.base)
            if step is None or step * item.buffer.dtype.element.bytes < _LINE:
                continue
            # Vectors whose distance is a constant are one stream.
            near = (
                (first, offset)
                for first in found
                if first[0] is item.buffer.data
                and (offset := difference(index.base, first[1])) is not None
            )
            first, offset = next(near, ((item.buffer.data, index.base), 0))
            found.setdefault(first, {}).setdefault(offset, (item.buffer, index))
    streams: list[_Stream] = []
    for vectors in found.values():
        (buffer, low), last = vectors[min(vectors)], vectors[max(vectors)][1]
        line = max(1, _LINE // buffer.dtype.element.bytes)
        length = max(vectors) - min(vectors) + last.lanes
        if length <= sum(ramp.lanes for _, ramp in vectors.values()):
            streams.append(_Stream(buffer, low.base, -(-length // line), line))
    return streams
