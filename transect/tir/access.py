"""Which part of each buffer a statement reads and writes, as boxes over the variables around it.

Variables bound inside the statement are relaxed to their ranges. What cannot be bounded, such as
an index read from memory, becomes the whole axis. Regions over chosen loops, with proofs, are in
`tir.analysis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from transect.ir.expr import (
    Add,
    Broadcast,
    Call,
    Cast,
    Expr,
    FloorDiv,
    IntImm,
    Max,
    Min,
    Mul,
    Ramp,
    Range,
    Sub,
    Var,
    as_expr,
    as_int,
    maximum,
    minimum,
)
from transect.ir.term import Term
from transect.ir.traverse import substitute, walk
from transect.tir.affine import Affine, affine, difference
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import (
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    For,
    SeqStmt,
    Stmt,
)
from transect.tir.tiles import OPERANDS
from transect.tir.visit import bound_buffers, child_stmts, own_terms

HIDDEN = "hidden_buffers"
"""The annotation of a block that names buffers which it touches and does not declare."""

EXPLICIT_READ, EXPLICIT_WRITE = "explicit_read_region", "explicit_write_region"
"""The annotations of a block that number regions which a person stated: they may be too large."""

Interval = tuple[Expr, Expr]
"""Inclusive lower and upper end."""

Ranges = Mapping[Var, Interval | None]
"""What variables range over; None: not known."""


def relax(expr: Expr, ranges: Ranges) -> Interval | None:
    """The interval of an integer expression while each variable takes any value of its interval.

    None if a part that varies is not monotone in a way that is known here.
    """
    if isinstance(expr, Var):
        return ranges.get(expr, (expr, expr))
    # Of a vector, ends are those of its lanes.
    if expr.dtype.is_scalar and not any(_varies(item, ranges) for item in walk(expr)):
        return expr, expr
    rule = _RELAX.get(type(expr))
    return None if rule is None else rule(expr, ranges)


def _varies(item: Term, ranges: Ranges) -> bool:
    if isinstance(item, Call):
        return item.effect != "pure"
    return item in ranges or isinstance(item, BufferLoad | Ramp)


def _pair(expr: Add | Sub | Min | Max, ranges: Ranges) -> tuple[Interval, Interval] | None:
    a = relax(expr.a, ranges)
    b = None if a is None else relax(expr.b, ranges)
    return None if a is None or b is None else (a, b)


def _relax_add(expr: Add, ranges: Ranges) -> Interval | None:
    pair = _pair(expr, ranges)
    return None if pair is None else (pair[0][0] + pair[1][0], pair[0][1] + pair[1][1])


def _relax_sub(expr: Sub, ranges: Ranges) -> Interval | None:
    pair = _pair(expr, ranges)
    return None if pair is None else (pair[0][0] - pair[1][1], pair[0][1] - pair[1][0])


def _relax_min(expr: Min, ranges: Ranges) -> Interval | None:
    pair = _pair(expr, ranges)
    return (
        None if pair is None else (minimum(pair[0][0], pair[1][0]), minimum(pair[0][1], pair[1][1]))
    )


def _relax_max(expr: Max, ranges: Ranges) -> Interval | None:
    pair = _pair(expr, ranges)
    return (
        None if pair is None else (maximum(pair[0][0], pair[1][0]), maximum(pair[0][1], pair[1][1]))
    )


def _relax_mul(expr: Mul, ranges: Ranges) -> Interval | None:
    value, factor = (expr.b, expr.a) if isinstance(expr.a, IntImm) else (expr.a, expr.b)
    inner = relax(value, ranges)
    if inner is None:
        return None
    known = as_int(factor)
    if known is not None:
        low, high = inner if known >= 0 else inner[::-1]
        return low * factor, high * factor
    # A symbolic factor is a stride or a dimension, which is not negative, if it does not vary.
    if relax(factor, ranges) == (factor, factor) and isinstance(factor, Var):
        return inner[0] * factor, inner[1] * factor
    return None


def _relax_floordiv(expr: FloorDiv, ranges: Ranges) -> Interval | None:
    inner, divisor = relax(expr.a, ranges), as_int(expr.b)
    if inner is None or divisor is None or divisor <= 0:
        return None
    return _quotient(inner[0], divisor), _quotient(inner[1], divisor)


def _quotient(expr: Expr, divisor: int) -> Expr:
    """expr // divisor, with the multiples of the divisor taken out, so that ends compare."""
    form = affine(expr)
    whole = {atom: k // divisor for atom, k in form.terms.items() if k % divisor == 0}
    rest = Affine(form.const, {atom: k for atom, k in form.terms.items() if k % divisor})
    if not whole:
        return expr // divisor
    outside = Affine(0, whole).to_expr(expr.dtype)
    if rest.is_const:
        return Affine(rest.const // divisor, whole).to_expr(expr.dtype)
    return outside + rest.to_expr(expr.dtype) // divisor


def _relax_cast(expr: Cast, ranges: Ranges) -> Interval | None:
    inner = relax(expr.value, ranges)
    if inner is None or not (expr.to.is_int and expr.value.dtype.is_int):
        return None
    return inner[0].astype(expr.to), inner[1].astype(expr.to)


def _relax_ramp(expr: Ramp, ranges: Ranges) -> Interval | None:
    base, stride = relax(expr.base, ranges), as_int(expr.stride)
    if base is None or stride is None or expr.scalable:
        return None
    reach = stride * (expr.lanes - 1)
    return base[0] + min(reach, 0), base[1] + max(reach, 0)


def _relax_broadcast(expr: Broadcast, ranges: Ranges) -> Interval | None:
    return relax(expr.value, ranges)


_RELAX: dict[type[Expr], Callable[..., Interval | None]] = {
    Add: _relax_add,
    Sub: _relax_sub,
    Mul: _relax_mul,
    Min: _relax_min,
    Max: _relax_max,
    FloorDiv: _relax_floordiv,
    Cast: _relax_cast,
    Ramp: _relax_ramp,
    Broadcast: _relax_broadcast,
}


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store, or one region of a nested block.

    ranges: per axis its interval once all that is bound inside is relaxed; None: the whole axis.
    repeats: of a write, if it touches every element of that box wherever no condition skips it, how
    often the loops run that its place does not depend on, so far as these counts are not constant;
    None if it may leave elements of the box alone.
    """

    buffer: Buffer
    write: bool
    ranges: tuple[Interval | None, ...]
    repeats: tuple[Expr, ...] | None = None


def accesses(stmt: Stmt) -> list[Access]:
    """Every access of `stmt`, in order, relaxed over the variables that `stmt` binds inside.

    A nested block that declares regions counts by them. Buffers defined inside are left out. An
    `address_of` counts as a read and a write of the whole buffer: what is done there is unknown,
    unless an intrinsic on tiles takes it.
    """
    collector = _Collector()
    collector.visit(stmt, {}, {})
    return [item for item in collector.found if item.buffer not in collector.local]


class _Collector:
    def __init__(self) -> None:
        self.found: list[Access] = []
        self.local: set[Buffer] = set()
        self.uneven: set[Var] = set()

    def visit(
        self, stmt: Stmt, ranges: dict[Var, Interval | None], values: dict[Var, Expr]
    ) -> None:
        """`values`: of the bindings in scope; a SeqStmt's are shared by what follows in it."""
        self.local.update(bound_buffers(stmt))
        if isinstance(stmt, BlockRealize):
            self.realize(stmt, ranges, values)
            return
        if not isinstance(stmt, Block):
            self.loads(own_terms(stmt), ranges, values)
        if isinstance(stmt, BufferStore):
            self.add(stmt.buffer, stmt.indices, ranges, values, write=True)
        elif isinstance(stmt, For):
            ends = [substitute(item, values) for item in (stmt.min, stmt.extent)]
            if any(_varies(item, ranges) for item in walk(*ends)):
                self.uneven.add(stmt.var)
            ranges = {
                **ranges,
                stmt.var: self.interval(Range(stmt.min, stmt.extent), ranges, values),
            }
        elif isinstance(stmt, Bind):
            values[stmt.var] = substitute(stmt.value, values)
        inner = values if isinstance(stmt, SeqStmt) else dict(values)
        for child in child_stmts(stmt):
            self.visit(child, ranges, inner)

    def realize(
        self, stmt: BlockRealize, ranges: dict[Var, Interval | None], values: dict[Var, Expr]
    ) -> None:
        block = stmt.block
        self.loads((stmt.predicate, *stmt.iter_values), ranges, values)
        self.local.update(bound_buffers(block))
        inner = dict(values)
        for iter_var, value in zip(block.iter_vars, stmt.iter_values, strict=True):
            inner[iter_var.var] = substitute(value, values)
        if not block.reads and not block.writes:
            for child in child_stmts(block):
                self.visit(child, ranges, inner)
            return
        for regions, write in ((block.reads, False), (block.writes, True)):
            for region in regions:
                boxes = tuple(self.interval(item, ranges, inner) for item in region.ranges)
                repeats = self.repeats(region.ranges, boxes, ranges, inner) if write else None
                self.found.append(Access(region.buffer, write, boxes, repeats))

    def interval(self, item: Range, ranges: Ranges, values: Mapping[Var, Expr]) -> Interval | None:
        low = relax(substitute(item.min, values), ranges)
        last = affine(substitute(item.min + item.extent, values)).plus(-1).to_expr(item.min.dtype)
        high = relax(last, ranges)
        return None if low is None or high is None else (low[0], high[1])

    def loads(self, terms: Iterable[Term], ranges: Ranges, values: Mapping[Var, Expr]) -> None:
        known = _tile_operands(terms)
        # The load in an address names a place; nothing is loaded.
        places = {child for item in known for child in item.children()}
        for item in walk(*terms):
            if isinstance(item, BufferLoad) and item not in places:
                self.add(item.buffer, item.indices, ranges, values, write=False)
            elif isinstance(item, Call) and item.op is INTRINSICS["address_of"]:
                (target,) = item.args
                if isinstance(target, BufferLoad):
                    whole = (None,) * target.buffer.ndim
                    does = known.get(item, "rw")
                    self.found += [Access(target.buffer, kind == "w", whole) for kind in does]

    def add(
        self,
        buffer: Buffer,
        indices: tuple[Expr, ...],
        ranges: Ranges,
        values: Mapping[Var, Expr],
        *,
        write: bool,
    ) -> None:
        relaxed = tuple(relax(substitute(index, values), ranges) for index in indices)
        repeats = None
        if write:
            places = [_lanes(index) for index in indices]
            repeats = self.repeats(places, relaxed, ranges, values)
        self.found.append(Access(buffer, write, relaxed, repeats))

    def repeats(
        self,
        places: Sequence[Range | None],
        box: tuple[Interval | None, ...],
        ranges: Ranges,
        values: Mapping[Var, Expr],
    ) -> tuple[Expr, ...] | None:
        """`Access.repeats` of a write of one index or some per axis. Loops fill a box if each moves
        along one axis, and goes no further in one step than the faster ones reach."""
        used: set[Var] = set()
        for place, interval in zip(places, box, strict=True):
            if place is None or interval is None:
                return None
            if any(_varies(item, ranges) for item in walk(substitute(place.extent, values))):
                return None
            reach = as_int(place.extent)
            steps: list[tuple[int, int | None]] = []
            for atom, factor in affine(substitute(place.min, values)).terms.items():
                if isinstance(atom, Var) and atom in ranges:
                    if atom in used or atom in self.uneven:
                        return None
                    used.add(atom)
                    steps.append((abs(factor), as_int(_count(ranges[atom]))))
                elif any(_varies(item, ranges) for item in walk(atom)):
                    return None
            for step, count in sorted(steps, key=lambda item: item[0]):
                # A loop that may have no iterations fills nothing then: nor is there a box, if
                # it is the last and goes just as far as the faster ones reach.
                if reach is None or step > reach or (step < reach and not count):
                    return None
                reach = reach + step * (count - 1) if count else None
        others = [var for var in ranges if var not in used]
        if any(var in self.uneven or ranges[var] is None for var in others):
            return None
        counts = [_count(ranges[var]) for var in others]
        return tuple(item for item in counts if (as_int(item) or 0) < 1)


def _lanes(index: Expr) -> Range | None:
    """The indices that the lanes of an index are."""
    if isinstance(index, Ramp):
        dense = as_int(index.stride) == 1 and not index.scalable
        return Range(index.base, as_expr(index.lanes, index.base.dtype)) if dense else None
    return Range(index, as_expr(1, index.dtype)) if index.dtype.is_scalar else None


def _count(interval: Interval | None) -> Expr:
    """How many integers there are from one end of an interval to the other."""
    assert interval is not None
    low, high = interval
    return (affine(high) - affine(low)).plus(1).to_expr(low.dtype)


def _tile_operands(terms: Iterable[Term]) -> dict[Term, str]:
    """What intrinsics on tiles do with the addresses that they get: "r", "w" or "rw"."""
    found: dict[Term, str] = {}
    for item in terms:
        # They have no results, so they are statements of their own.
        does = OPERANDS.get(getattr(item.op, "name", "")) if isinstance(item, Call) else None
        if isinstance(item, Call) and does is not None:
            for operand, kinds in zip(item.args, does, strict=True):
                found[operand] = "".join(k for k in "rw" if k in found.get(operand, "") + kinds)
    return found


def to_regions(found: Iterable[Access]) -> tuple[BufferRegion, ...]:
    """The accesses joined to one box per buffer, buffers in order of first appearance."""
    boxes: dict[Buffer, list[Interval | None]] = {}
    for item in found:
        known = boxes.get(item.buffer)
        if known is None:
            boxes[item.buffer] = list(item.ranges)
        else:
            boxes[item.buffer] = [_hull(a, b) for a, b in zip(known, item.ranges, strict=True)]
    return tuple(
        BufferRegion(
            buffer,
            tuple(
                Range.of(extent) if box is None else _range(box)
                for box, extent in zip(ranges, buffer.shape, strict=True)
            ),
        )
        for buffer, ranges in boxes.items()
    )


def block_regions(*parts: Stmt) -> tuple[tuple[BufferRegion, ...], tuple[BufferRegion, ...]]:
    """The regions that a block of these statements (init and body) reads and writes.

    What only an update's own init needs, the buffer that a reduction accumulates into, is not
    among the reads, as in TensorIR.
    """
    found = [item for part in parts for item in accesses(part)]
    writes = to_regions(item for item in found if item.write)
    reads = to_regions(item for item in found if not item.write)
    if len(parts) > 1:
        written = {region.buffer for region in writes}
        reads = tuple(region for region in reads if region.buffer not in written)
    return reads, writes


def _hull(a: Interval | None, b: Interval | None) -> Interval | None:
    if a is None or b is None:
        return None
    low, high = difference(b[0], a[0]), difference(b[1], a[1])
    if low is None or high is None:
        return None
    return (a[0] if low >= 0 else b[0]), (a[1] if high <= 0 else b[1])


def _range(box: Interval) -> Range:
    low, high = box
    if low is high:
        return Range(low, as_expr(1, low.dtype))
    return Range(low, _count(box))
