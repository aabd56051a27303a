"""Whether the iterations of a loop may run in lockstep: all of one statement, then all of the next.

They may if no iteration touches what another one writes. The proof is on indices as sums: two
iterations are apart if the loop's factor is larger than the reach of everything inside it, directly
or modulo the factor of another variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.condition import opposite
from transect.ir.expr import GE, GT, LE, LT, Call, Expr, GlobalVar, Intrinsic, Var
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.tir.affine import Affine
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.interpreter.linear import (
    LANE,
    Interval,
    Scope,
    interval,
    limited_interval,
    linear,
)
from transect.tir.interpreter.memory_access import accumulation
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    While,
)
from transect.tir.visit import child_stmts, own_terms

_HARMLESS = frozenset({"tvm_storage_sync", "prefetch", "assume"})
"""Intrinsics with an effect that does not order iterations."""


@dataclass(frozen=True, slots=True)
class _Use:
    """One access inside the loop. store: the statement that writes; init: it is in a block's init.
    current: a load of the element that the same statement accumulates into."""

    buffer: Buffer
    forms: tuple[Affine, ...]
    scope: Scope
    lanes: int
    store: BufferStore | None
    init: bool
    current: BufferStore | None = None


class _Opaque(Exception):
    """The body does something whose effects are not known here."""


class _Uses:
    """Collects the accesses of a loop's body, and which variables it binds."""

    def __init__(self) -> None:
        self.found: list[_Use] = []
        self.local: set[Var] = set()
        self.bound: set[Var] = set()
        self.inner: list[tuple[For, Scope]] = []
        self.asserts = 0

    def visit(self, stmt: Stmt, scope: Scope, *, init: bool = False) -> Scope:
        """Collect from `stmt`; the scope after it."""
        if isinstance(stmt, SeqStmt):
            inside = scope
            for item in stmt.stmts:
                inside = self.visit(item, inside, init=init)
            return scope
        if isinstance(stmt, BlockRealize):
            self.realize(stmt, scope)
            return scope
        if isinstance(stmt, While):
            raise _Opaque
        if isinstance(stmt, AssertStmt):
            self.asserts += 1
            if self.asserts > 1:
                raise _Opaque  # Which of them fails first depends on the order.
        self.terms(own_terms(stmt), scope, stmt if isinstance(stmt, BufferStore) else None)
        if isinstance(stmt, BufferStore):
            self.add(stmt.buffer, stmt.indices, _assuming(scope, stmt.predicate), stmt, init=init)
        elif isinstance(stmt, Bind):
            self.bound.add(stmt.var)
            if stmt.var.dtype.is_handle:
                raise _Opaque
            return bind(stmt.var, stmt.value, scope)
        elif isinstance(stmt, Allocate | AllocateConst):
            self.local.add(stmt.var)
        elif isinstance(stmt, For):
            self.bound.add(stmt.var)
            self.inner.append((stmt, scope))
            inside = scope.with_range(stmt.var, loop_range(stmt, scope))
            self.visit(stmt.body, inside, init=init)
        elif isinstance(stmt, IfThenElse):
            self.visit(stmt.then_case, scope.assuming(stmt.condition), init=init)
            if stmt.else_case is not None:
                self.visit(stmt.else_case, _failing(scope, stmt.condition), init=init)
        elif isinstance(stmt, AttrStmt):
            if stmt.key == "thread_extent":
                raise _Opaque
            for child in child_stmts(stmt):
                self.visit(child, scope, init=init)
        elif not isinstance(stmt, DeclBuffer | Evaluate) and child_stmts(stmt):
            raise _Opaque
        return scope

    def realize(self, stmt: BlockRealize, scope: Scope) -> None:
        block = stmt.block
        if block.match_buffers:
            raise _Opaque
        self.terms((stmt.predicate, *stmt.iter_values), scope, None)
        inside = scope.assuming(stmt.predicate)
        for iter_var, value in zip(block.iter_vars, stmt.iter_values, strict=True):
            self.bound.add(iter_var.var)
            inside = bind(iter_var.var, value, inside)
        self.local.update(buffer.data for buffer in block.alloc_buffers)
        if block.init is not None:
            self.visit(block.init, inside, init=True)
        self.visit(block.body, inside)

    def terms(self, roots: Iterable[Term], scope: Scope, store: BufferStore | None) -> None:
        accumulated = None
        if store is not None and accumulation(store) is not None:
            accumulated = BufferLoad(store.buffer, store.indices)
        for item in walk(*roots):
            if isinstance(item, BufferLoad):
                same = store if item is accumulated else None
                inside = _assuming(scope, item.predicate)
                self.add(item.buffer, item.indices, inside, None, current=same)
            elif isinstance(item, Call):
                harmless = isinstance(item.op, Intrinsic) and (
                    item.op.effect == "pure" or item.op.name in _HARMLESS
                )
                if isinstance(item.op, GlobalVar) or not harmless:
                    raise _Opaque

    def add(
        self,
        buffer: Buffer,
        indices: tuple[Expr, ...],
        scope: Scope,
        store: BufferStore | None,
        *,
        init: bool = False,
        current: BufferStore | None = None,
    ) -> None:
        forms = tuple(linear(index, scope) for index in indices)
        lanes = indices[-1].dtype.lanes if indices else 1
        self.found.append(_Use(buffer, forms, scope, lanes, store, init, current))


def _failing(scope: Scope, condition: Expr) -> Scope:
    """The scope where a comparison does not hold; any other condition tells nothing."""
    if not isinstance(condition, LT | LE | GT | GE):
        return scope
    return scope.assuming(opposite(condition))


def _assuming(scope: Scope, predicate: Expr | None) -> Scope:
    """The scope for the lanes that take part in an access."""
    return scope if predicate is None else scope.assuming(predicate)


def loop_range(loop: For, scope: Scope) -> Interval | None:
    """The values that the loop's variable may take, None if they are not known."""
    low = interval(linear(loop.min, scope), scope)
    extent = interval(linear(loop.extent, scope), scope)
    if low is None or extent is None:
        return None
    return low[0], max(low[1] + extent[1] - 1, low[0])


def bind(var: Var, value: Expr, scope: Scope) -> Scope:
    """The scope in which `var` is `value`: as a sum where nothing in it can change."""
    if not is_frozen_integer(value):
        return scope
    return scope.with_form(var, linear(value, scope))


def is_frozen_integer(value: Expr) -> bool:
    """Whether an expression is an index-like integer that reads nothing that may change."""
    if not (value.dtype.is_int and value.dtype.is_scalar and value.dtype.bits >= 32):
        return False
    return not any(isinstance(item, BufferLoad | Call) for item in walk(value))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What lockstep may do with a loop: "independent", "accumulates" or "ordered". lanes: for
    accumulations, how many points the loops inside have at most."""

    kind: str
    lanes: int = 1


_ORDERED = Verdict("ordered")


def judge(loop: For, scope: Scope) -> Verdict:
    """Whether the iterations of `loop` may run in lockstep.

    "accumulates": only if accumulations are done in order over this loop and all loops inside,
    which then must all be open at once.
    """
    uses = _Uses()
    own = scope.with_range(loop.var, loop_range(loop, scope))
    try:
        uses.visit(loop.body, own)
    except _Opaque:
        return _ORDERED
    groups: dict[Var, list[_Use]] = {}
    for use in uses.found:
        if use.buffer.data not in uses.local:
            groups.setdefault(use.buffer.data, []).append(use)
    clashing = [
        group
        for group in groups.values()
        if any(use.store is not None for use in group) and not _apart(loop.var, group, uses.bound)
    ]
    if not clashing:
        return Verdict("independent")
    if not all(_accumulates(loop.var, group, uses.bound) for group in clashing):
        return _ORDERED
    lanes = 1
    for inner, inside in uses.inner:
        ends = interval(linear(inner.extent, inside), inside)
        if ends is None or judge(inner, inside).kind == "ordered":
            return _ORDERED
        lanes *= max(ends[1], 1)
    return Verdict("accumulates", lanes)


def _accumulates(var: Var, group: list[_Use], bound: set[Var]) -> bool:
    """All uses are one accumulation into one element per iteration of the other loops, and stores
    of a block's init."""
    updates = {use.current for use in group if use.current is not None}
    if len(updates) != 1:
        return False
    (update,) = updates
    for use in group:
        if use.current is not update and use.store is not update and not use.init:
            return False
        if use.forms != group[0].forms:
            return False
    return all(
        isinstance(atom, Var) and atom is not var for form in group[0].forms for atom in form.terms
    )


def _apart(var: Var, group: list[_Use], bound: set[Var]) -> bool:
    """Whether different values of `var` never touch the same element through these uses."""
    first = group[0].buffer
    if all(use.buffer is first for use in group):
        for axis in range(first.ndim):
            if _separates(var, [(use.forms[axis], use) for use in group], bound):
                return True
    addresses = [_address(use) for use in group]
    same_kind = all(
        use.buffer.dtype is first.dtype and use.buffer.elem_offset is first.elem_offset
        for use in group
    )
    if not same_kind or any(address is None for address in addresses):
        return False
    pairs = [
        (address, use) for address, use in zip(addresses, group, strict=True) if address is not None
    ]
    return _separates(var, pairs, bound)


def _address(use: _Use) -> Affine | None:
    """The element that is touched, counted from the start of the buffer."""
    total = Affine(0, {})
    stride = 1
    strides: list[int] = []
    for extent in reversed(use.buffer.shape):
        strides.insert(0, stride)
        size = linear(extent, use.scope)
        if not size.is_const:
            return None
        stride *= size.const
    if use.buffer.strides:
        given = [linear(item, use.scope) for item in use.buffer.strides]
        if not all(item.is_const for item in given):
            return None
        strides = [item.const for item in given]
    for form, step in zip(use.forms, strides, strict=True):
        total = total + form.scaled(step)
    return total


def _separates(var: Var, uses: list[tuple[Affine, _Use]], bound: set[Var]) -> bool:
    factors = {form.terms.get(var, 0) for form, _ in uses} - {0}
    if len(factors) != 1:
        return False
    (factor,) = factors
    outer: dict[Expr, int] | None = None
    inner: list[tuple[Affine, _Use]] = []
    for given, use in uses:
        form = given if var in given.terms else _spelled_out(given, var, factor, use.scope)
        if form is None:
            return False
        fixed: dict[Expr, int] = {}
        moving: dict[Expr, int] = {}
        for atom, k in form.terms.items():
            if atom is LANE or any(item is var or item in bound for item in walk(atom)):
                if not isinstance(atom, Var):
                    return False
                moving[atom] = k
            elif any(isinstance(item, BufferLoad) for item in walk(atom)):
                return False
            else:
                fixed[atom] = k
        if outer is not None and fixed != outer:
            return False
        outer = fixed
        inner.append((Affine(form.const, moving), use))
    moduli = {abs(k) for form, _ in inner for k in form.terms.values() if abs(k) > abs(factor)}
    return any(_apart_modulo(var, factor, inner, modulus) for modulus in (0, *sorted(moduli)))


def _spelled_out(form: Affine, var: Var, factor: int, scope: Scope) -> Affine | None:
    """A sum without `var`, where only one value of it gets here (in the tail of a split, say), as
    one in which `var` has this factor. None where it may have several values."""
    most, least = (limited_interval(Affine(0, {var: sign}), scope) for sign in (1, -1))
    if most is None or least is None or most[1] != -least[1]:
        return None
    return form + Affine(-factor * most[1], {var: factor})


def _nearest(value: int, goal: int, modulus: int) -> int:
    """The number closest to `goal` that is `value`, counting modulo `modulus`."""
    half = modulus // 2
    return goal + (value - goal + half) % modulus - half


def _apart_modulo(var: Var, factor: int, uses: list[tuple[Affine, _Use]], modulus: int) -> bool:
    """Whether, counting modulo `modulus` (0: not at all), equal elements have equal `var`."""
    ends: list[Interval] = []
    whole: list[Interval] = []
    start = uses[0][0].const
    for form, use in uses:
        low = form
        if modulus:
            kept = {atom: k for atom, k in form.terms.items() if k % modulus}
            low = Affine(_nearest(form.const, start, modulus), kept)
        total = limited_interval(low, use.scope, use.lanes)
        kept = {atom: k for atom, k in low.terms.items() if atom is not var}
        rest = limited_interval(Affine(low.const, kept), use.scope, use.lanes)
        if total is None or rest is None:
            return False
        whole.append(total)
        ends.append(rest)
    reach = max(high for _, high in ends) - min(low for low, _ in ends)
    if reach >= abs(factor):
        return False
    span = max(high for _, high in whole) - min(low for low, _ in whole)
    return not modulus or span < modulus
