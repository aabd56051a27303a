"""InjectPrefetch: loops fetch ahead what they stream from beyond the first-level cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.dtype import VOID
from transect.ir.expr import Call, Expr, Ramp, Var, as_int
from transect.ir.node import replace
from transect.ir.traverse import substitute, walk
from transect.tir.affine import difference
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Evaluate, For, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, own_terms, walk_stmts
from transect.transform import Context

PREFETCH = "prefetch"
"""The annotation of a loop: how many iterations ahead it fetches."""

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

    Fetching beyond the end of a buffer does nothing: a prefetch never faults.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with prefetches; the annotations are gone."""
        del context
        body = _Inject().visit(func.body)
        return func if body is func.body else replace(func, body=body)


class _Inject(StmtRewriter):
    def visit_for(self, stmt: For) -> Stmt:
        new = super().visit_for(stmt)
        if not isinstance(new, For) or PREFETCH not in new.annotations:
            return new
        left = {key: value for key, value in new.annotations.items() if key != PREFETCH}
        distance = int(new.annotations[PREFETCH])
        fetches = [Evaluate(call) for call in _fetches(new, distance)]
        return replace(new, annotations=left, body=seq(*fetches, new.body))


def _fetches(loop: For, distance: int) -> Iterable[Call]:
    """A prefetch of each line that an iteration reads, `distance` iterations later."""
    lines: dict[tuple[Var, Expr], Call] = {}
    for stmt in walk_stmts(loop.body):
        for item in walk(*own_terms(stmt)):
            if not isinstance(item, BufferLoad) or len(item.indices) != 1:
                continue
            (index,) = item.indices
            if not isinstance(index, Ramp) or as_int(index.stride) != 1:
                continue
            later = substitute(index.base, {loop.var: loop.var + distance})
            step = difference(later, index.base)
            size = item.buffer.dtype.element.bytes
            if step is None or step % distance or step // distance * size < _LINE:
                continue
            for offset in range(0, index.lanes, max(1, _LINE // size)):
                place = BufferLoad(item.buffer, (later + offset,))
                call = Call(INTRINSICS["prefetch"], (place,), VOID)
                lines.setdefault((item.buffer.data, index.base + offset), call)
    return lines.values()
