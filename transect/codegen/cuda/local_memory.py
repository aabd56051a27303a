"""Per-thread memory: a buffer that a block's threads divide among them becomes each one's part."""

from __future__ import annotations

from collections.abc import Mapping

from transect.arith import Analyzer
from transect.ir.expr import Expr, Range, Var, as_int, const
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite, walk
from transect.tir.affine import affine
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.schedule.region import Interval, interval
from transect.tir.stmt import Allocate, BufferStore, DeclBuffer, For, Stmt
from transect.tir.visit import StmtRewriter, TermT, own_terms, walk_stmts


def shrink_local_buffers(body: Stmt, threads: Mapping[Var, Expr]) -> Stmt:
    """`body` with local buffers of the size that one thread uses.

    threads: the variables of the thread axes with their extents. A flat local buffer whose every
    index has the same part in those variables loses that part: no thread sees another's elements.
    """
    indices: dict[Var, list[Expr]] = {}
    domain: dict[Var, Interval] = {}
    for item in walk_stmts(body):
        if isinstance(item, For):
            domain[item.var] = (item.min, item.min + item.extent - 1)
        if isinstance(item, BufferStore) and _is_flat_local(item.buffer):
            indices.setdefault(item.buffer.data, []).append(item.indices[0])
        for term in walk(*own_terms(item)):
            if isinstance(term, BufferLoad) and _is_flat_local(term.buffer):
                indices.setdefault(term.buffer.data, []).append(term.indices[0])
    analyzer = Analyzer()
    for var, extent in threads.items():
        analyzer.bind(var, Range.of(extent))
    parts: dict[Var, tuple[Expr, Expr]] = {}
    for pointer, found in indices.items():
        share = {_thread_part(index, threads) for index in found}
        if len(share) != 1 or not (part := next(iter(share))):
            continue
        base: Expr = const(0, found[0].dtype)
        for var, coefficient in part:
            base = base + var.astype(base.dtype) * coefficient
        rest = [analyzer.simplify(index - base) for index in found]
        ends = [interval(index, domain, analyzer) for index in rest]
        last = [None if end is None else as_int(analyzer.simplify(end[1])) for end in ends]
        known = [value for value in last if value is not None]
        if len(known) == len(last):
            parts[pointer] = (base, const(max(known) + 1, base.dtype))
    return _Shrink(parts, analyzer).visit(body) if parts else body


def _is_flat_local(buffer: Buffer) -> bool:
    return buffer.scope == "local" and not buffer.axis_separators


def _thread_part(index: Expr, threads: Mapping[Var, Expr]) -> tuple[tuple[Var, int], ...] | None:
    """The terms of an affine index in the thread variables; None if they occur otherwise."""
    terms = affine(index).terms
    found: list[tuple[Var, int]] = []
    for atom, coefficient in terms.items():
        if isinstance(atom, Var):
            if atom in threads:
                found.append((atom, coefficient))
        elif any(item in threads for item in walk(atom) if isinstance(item, Var)):
            return None
    order = list(threads)
    return tuple(sorted(found, key=lambda item: order.index(item[0])))


class _Shrink(StmtRewriter):
    def __init__(self, parts: Mapping[Var, tuple[Expr, Expr]], analyzer: Analyzer) -> None:
        self.parts = parts
        self.analyzer = analyzer
        self.memo: dict[Term, Term] = {}
        self.small: dict[Buffer, Buffer] = {}

    def _index(self, pointer: Var, index: Expr) -> Expr:
        return self.analyzer.simplify(index - self.parts[pointer][0])

    def _replace(self, item: Term) -> Term:
        if isinstance(item, BufferLoad) and item.buffer.data in self.parts:
            index = self._index(item.buffer.data, item.indices[0])
            return BufferLoad(self.buffer(item.buffer), (index,), item.predicate)
        return item

    def expr(self, value: TermT) -> TermT:
        return rewrite(value, self._replace, self.memo)

    def buffer(self, value: Buffer) -> Buffer:
        if value.data not in self.parts:
            return value
        if value not in self.small:
            self.small[value] = replace(value, shape=(self.parts[value.data][1],))
        return self.small[value]

    def visit_store(self, stmt: BufferStore) -> Stmt:
        new = super().visit_store(stmt)
        if not isinstance(new, BufferStore) or stmt.buffer.data not in self.parts:
            return new
        return replace(new, indices=(self._index(stmt.buffer.data, new.indices[0]),))

    def visit_allocate(self, stmt: Allocate) -> Stmt:
        if stmt.var not in self.parts:
            return stmt
        return replace(stmt, extents=(self.parts[stmt.var][1],))

    def visit_decl_buffer(self, stmt: DeclBuffer) -> Stmt:
        return replace(stmt, buffer=self.buffer(stmt.buffer))
