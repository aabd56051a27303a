"""TransposeTiles: square tiles that are copied across are turned in registers."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Expr, Ramp, Shuffle, Var, as_int, const
from transect.ir.node import replace
from transect.ir.traverse import substitute, walk
from transect.tir.affine import difference
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import Bind, BufferStore, For, SeqStmt, Stmt, seq
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter
from transect.transform import Context

TRANSPOSE = "transpose"
"""The annotation of a loop whose iterations copy the columns of a square tile to vectors."""


@dataclass(frozen=True)
class TransposeTiles(FunctionPass):
    """Turn the tiles of annotated loops in registers.

    Requires flat buffers and vectors. A tile is of floats and has as many columns as a vector has
    lanes; loops over anything else stay, without the annotation. Before -> after, with
    {"transpose": True}:

        for k in range(16):                     row_0: T.float32x16 = a[i * 64 + 0:16]
            b[k * 16 + 0:16] = (                … 15 more rows, and four times 16 shuffles
                a[i * 64 + k:… + 1024:64]   ->  b[0:16] = …
            )                                   … 15 more columns

    A gather takes about a cycle an element, four shuffles a quarter of it.
    """

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with tiles turned; the annotations are gone."""
        del context
        body = _Turn().visit(func.body)
        return func if body is func.body else replace(func, body=body)


class _Turn(StmtRewriter):
    def visit_for(self, stmt: For) -> Stmt:
        new = super().visit_for(stmt)
        if not isinstance(new, For) or TRANSPOSE not in new.annotations:
            return new
        left = {key: value for key, value in new.annotations.items() if key != TRANSPOSE}
        turned = _turned(new)
        return replace(new, annotations=left) if turned is None else turned


def _turned(loop: For) -> Stmt | None:
    """The loop's tile copied by vectors; None if its body is not the copy of a column."""
    store = loop.body
    if isinstance(store, SeqStmt) and len(store.stmts) == 1:
        store = store.stmts[0]
    if not isinstance(store, BufferStore) or not isinstance(store.value, BufferLoad):
        return None
    load = store.value
    if store.predicate is not None or load.predicate is not None or not load.dtype.is_float:
        return None
    if load.buffer.data is store.buffer.data or len(load.indices) != 1 or len(store.indices) != 1:
        return None
    source, target = load.indices[0], store.indices[0]
    if not isinstance(source, Ramp) or not isinstance(target, Ramp):
        return None
    lanes = source.lanes
    if as_int(loop.extent) != lanes or lanes & (lanes - 1) or as_int(target.stride) != 1:
        return None
    step = difference(substitute(source.base, {loop.var: loop.var + 1}), source.base)
    if step != 1 or any(item is loop.var for item in walk(source.stride)):
        return None
    first = substitute(source.base, {loop.var: loop.min})
    binds: list[Stmt] = []

    def bound(name: str, value: Expr) -> Expr:
        var = Var(name, value.dtype)
        binds.append(Bind(var, value, span=store.span))
        return var

    one = const(1, first.dtype)
    rows = [
        bound(f"row_{n}", BufferLoad(load.buffer, (Ramp(first + source.stride * n, one, lanes),)))
        for n in range(lanes)
    ]
    # Neighbouring blocks of `distance` lanes change places between rows `distance` apart.
    distance = lanes // 2
    while distance:
        for n in range(lanes):
            if not n & distance:
                a, b = rows[n], rows[n + distance]
                low = [k if not k & distance else lanes + k - distance for k in range(lanes)]
                high = [k + distance if not k & distance else lanes + k for k in range(lanes)]
                rows[n] = bound("turned", _shuffle(a, b, low))
                rows[n + distance] = bound("turned", _shuffle(a, b, high))
        distance //= 2
    stores = [
        replace(
            store,
            value=row,
            indices=(substitute(target, {loop.var: loop.min + n}),),
        )
        for n, row in enumerate(rows)
    ]
    return seq(*binds, *stores)


def _shuffle(a: Expr, b: Expr, lanes: list[int]) -> Expr:
    return Shuffle((a, b), tuple(const(lane, "int32") for lane in lanes))
