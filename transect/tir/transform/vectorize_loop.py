"""VectorizeLoop: vectorized loops become vector statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transect.arith import Analyzer
from transect.ir.condition import conjuncts, opposite
from transect.ir.dtype import DType
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Broadcast,
    Call,
    Cast,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Ramp,
    Select,
    StringImm,
    Sub,
    Var,
    as_expr,
    as_int,
    const,
    logical_and,
    logical_not,
    make,
)  # fmt: skip
from transect.ir.node import replace
from transect.ir.term import Term
from transect.ir.traverse import rewrite, substitute, walk
from transect.tir.analysis.iterations import for_all
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.op import is_checked
from transect.tir.stmt import (
    AttrStmt,
    Bind,
    BufferStore,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
    seq,
)  # fmt: skip
from transect.tir.transform.function_pass import FunctionPass
from transect.tir.visit import StmtRewriter, fresh_copy, own_terms, substitute_stmt, walk_stmts
from transect.transform import Context


@dataclass(frozen=True)
class VectorizeLoop(FunctionPass):
    """Replace vectorized loops.

    lanes: for loops whose extent is not a constant, how many elements of the widest dtype one
    vector holds (0: what the target says); the rest of such a loop runs in a serial loop.

    Requires flat accesses. Leaves no vectorized loop. A condition inside that holds for all lanes
    or none is tested once, with the vector code where it holds and a serial loop elsewhere.
    What cannot be a vector (a loop or call that depends on the variable, a store to one place
    from several lanes) becomes a serial loop.
    """

    lanes: int = 0

    def rewrite(self, func: PrimFunc, context: Context) -> PrimFunc:
        """The function with vector statements."""
        return replace(func, body=_Vectorize(self.lanes, context).visit(func.body))


class _Vectorize(StmtRewriter):
    def __init__(self, lanes: int, context: Context) -> None:
        self.lanes = lanes
        self.target = context.target

    def visit_for(self, stmt: For) -> Stmt:
        if stmt.kind != "vectorized":
            return super().visit_for(stmt)
        lanes = as_int(stmt.extent)
        if lanes is None:
            return self._split(stmt)
        if lanes == 1:
            return self.visit(substitute_stmt(stmt.body, {stmt.var: stmt.min}))
        serial = replace(stmt, kind="serial", body=super().visit(stmt.body))
        # Shift to start at zero, so that indices are base + ramp.
        zero = as_expr(0, stmt.var.dtype)
        body = serial.body
        if as_int(stmt.min) != 0:
            body = substitute_stmt(body, {stmt.var: stmt.min + stmt.var})
        return _split_conditions(stmt.var, zero, lanes, body) or serial

    def _split(self, stmt: For) -> Stmt:
        """A loop of unknown extent: vectors, then what is left one by one."""
        count = self.lanes or self.target.lanes(_widest(stmt.body))
        kind = stmt.var.dtype
        width = as_expr(count, kind)
        whole = stmt.extent // width
        outer = Var(f"{stmt.var.name}_vector", kind)
        lane = Var(stmt.var.name, kind)
        body = substitute_stmt(stmt.body, {stmt.var: stmt.min + (outer * width + lane)})
        inner = For(lane, as_expr(0, kind), width, "vectorized", body, span=stmt.span)
        main = For(outer, as_expr(0, kind), whole, "serial", inner, span=stmt.span)
        tail = replace(
            stmt, kind="serial", min=stmt.min + whole * width, extent=stmt.extent - whole * width
        )
        return seq(self.visit(main), self.visit(fresh_copy(tail)))


def _widest(stmt: Stmt) -> DType:
    stores = [item.buffer.dtype for item in walk_stmts(stmt) if isinstance(item, BufferStore)]
    loads = [
        item.buffer.dtype
        for inner in walk_stmts(stmt)
        for item in walk(*own_terms(inner))
        if isinstance(item, BufferLoad)
    ]
    return max([*stores, *loads], key=lambda kind: kind.bits)


# --- conditions -----------------------------------------------------------------------------


def _split_conditions(var: Var, start: Expr, lanes: int, body: Stmt) -> Stmt | None:
    """The vector form of `body` for lanes 0 … lanes - 1; None if there is none."""
    if not (
        isinstance(body, IfThenElse) and body.else_case is None and _mentions(body.condition, var)
    ):
        return _LaneCode(var, lanes).code(body)
    condition = _for_all_lanes(body.condition, var, lanes)
    if condition is None:
        return _LaneCode(var, lanes).code(body)
    vector = _LaneCode(var, lanes).code(body.then_case)
    if vector is None:
        return None
    rest = _some_lanes(var, lanes, body)
    if rest is None:
        rest = For(var, start, as_expr(lanes, var.dtype), "serial", fresh_copy(body))
    return IfThenElse(condition, vector, rest)


def _some_lanes(var: Var, lanes: int, body: IfThenElse) -> Stmt | None:
    """The masked form of `body`, run if its condition holds for any lane; None if there is none."""
    parts = conjuncts(body.condition)
    varying = [item for item in parts if _mentions(item, var)]
    if len(varying) != 1 or not isinstance(varying[0], LT | LE | GT | GE):
        return None
    nowhere = for_all(opposite(varying[0]), {var: lanes})
    if nowhere is None:
        return None
    uniform = [item for item in parts if item is not varying[0]]
    code = _LaneCode(var, lanes)
    mask = code.wide(code.expr(varying[0]))
    masked = _LaneCode(var, lanes, mask=mask, runs=True).code(fresh_copy(body.then_case))
    if masked is None:
        return None
    return IfThenElse(logical_and(*uniform, logical_not(nowhere)), masked)


def _for_all_lanes(condition: Expr, var: Var, lanes: int) -> Expr | None:
    """A condition without `var` that implies `condition` for every lane, or None."""
    parts: list[Expr] = []
    for item in conjuncts(condition):
        worst = for_all(item, {var: lanes}) if _mentions(item, var) else item
        if worst is None:
            return None
        parts.append(worst)
    return logical_and(*parts)


def _mentions(expr: Term, var: Var) -> bool:
    return any(item is var for item in walk(expr))


# --- lanes ----------------------------------------------------------------------------------


class _NotAVectorError(Exception):
    """A statement that has no vector form."""


@dataclass
class _LaneCode:
    """Rewrites statements of one iteration into statements of all lanes at once."""

    var: Var
    lanes: int
    widened: dict[Var, Var] = field(default_factory=dict[Var, Var])
    memo: dict[Term, Expr] = field(default_factory=dict[Term, Expr])
    mask: Expr | None = None
    runs: bool = False
    """Whether some lane is known to run where there is a mask: it reads what all lanes share."""

    def code(self, stmt: Stmt) -> Stmt | None:
        """The vector form, or None."""
        try:
            return self.stmt(stmt)
        except _NotAVectorError:
            return None

    # --- statements ---

    def stmt(self, stmt: Stmt) -> Stmt:
        """The vector form of a statement."""
        if not self.depends(stmt):
            if self.mask is not None:
                raise _NotAVectorError
            return self.uniform(stmt)
        handler = _STATEMENTS.get(type(stmt))
        if handler is None:
            raise _NotAVectorError
        return handler(self, stmt)

    def depends(self, stmt: Stmt) -> bool:
        """Whether anything in `stmt` differs between lanes."""
        return any(self.varies(item) for inner in walk_stmts(stmt) for item in own_terms(inner))

    def uniform(self, stmt: Stmt) -> Stmt:
        """A statement that is the same in every lane: once will do, if it is idempotent."""
        for inner in walk_stmts(stmt):
            terms = [item for root in own_terms(inner) for item in walk(root)]
            if any(isinstance(item, Call) and item.effect == "write" for item in terms):
                raise _NotAVectorError
            if isinstance(inner, BufferStore) and any(
                isinstance(item, BufferLoad) and item.buffer.data is inner.buffer.data
                for item in terms
            ):
                raise _NotAVectorError
        return stmt

    def varies(self, expr: Term) -> bool:
        """Whether a term differs between lanes."""
        return any(item is self.var or item in self.widened for item in walk(expr))

    def seq(self, stmt: SeqStmt) -> Stmt:
        return replace(stmt, stmts=tuple(self.stmt(item) for item in stmt.stmts))

    def bind(self, stmt: Bind) -> Stmt:
        if self.mask is not None:
            raise _NotAVectorError
        value = self.expr(stmt.value)
        wide = Var(stmt.var.name, value.dtype)
        self.widened[stmt.var] = wide
        self.memo.clear()
        return replace(stmt, var=wide, value=value)

    def store(self, stmt: BufferStore) -> Stmt:
        if stmt.predicate is not None or len(stmt.indices) != 1 or not self.varies(stmt.indices[0]):
            # Several lanes would write one place: the order matters.
            raise _NotAVectorError
        if not stmt.buffer.dtype.is_scalar:
            raise _NotAVectorError
        index = self.expr(stmt.indices[0])
        if index.dtype.lanes != self.lanes:
            raise _NotAVectorError
        return replace(
            stmt, value=self.wide(self.expr(stmt.value)), indices=(index,), predicate=self.mask
        )

    def condition(self, stmt: IfThenElse) -> Stmt:
        if not self.varies(stmt.condition):
            return replace(
                stmt,
                then_case=self.stmt(stmt.then_case),
                else_case=None if stmt.else_case is None else self.stmt(stmt.else_case),
            )
        condition = self.wide(self.expr(stmt.condition))
        outer = self.mask
        then = self._masked(stmt.then_case, condition, outer)
        if stmt.else_case is None:
            return then
        return seq(then, self._masked(stmt.else_case, make_not(condition), outer))

    def _masked(self, stmt: Stmt, condition: Expr, outer: Expr | None) -> Stmt:
        # Loads inside are masked, so nothing is read that the condition guards.
        inner = _LaneCode(self.var, self.lanes, self.widened)
        inner.mask = condition if outer is None else And(outer, condition)
        return inner.stmt(stmt)

    def loop(self, stmt: For) -> Stmt:
        if (
            self.varies(stmt.min)
            or self.varies(stmt.extent)
            or stmt.kind not in ("serial", "unrolled")
        ):
            raise _NotAVectorError
        return replace(stmt, body=self.stmt(stmt.body))

    def attribute(self, stmt: AttrStmt) -> Stmt:
        return replace(stmt, body=self.stmt(stmt.body))

    # --- expressions ---

    def wide(self, value: Expr) -> Expr:
        """The value with all lanes."""
        return Broadcast(value, self.lanes) if value.dtype.is_scalar else value

    def expr(self, value: Expr) -> Expr:
        """The value of all lanes; a scalar if they agree."""
        if value is self.var:
            return Ramp(as_expr(0, value.dtype), as_expr(1, value.dtype), self.lanes)
        if value in self.widened:
            return self.widened[value]  # pyright: ignore[reportArgumentType]
        if not self.varies(value):
            guarded = self.mask is not None and not self.runs
            if guarded and any(isinstance(i, BufferLoad) or is_checked(i) for i in walk(value)):
                # Reading it, or failing, might be what the condition guards.
                raise _NotAVectorError
            return value
        known = self.memo.get(value)
        if known is None:
            handler = _EXPRESSIONS.get(type(value))
            if handler is None or not value.dtype.is_scalar:
                raise _NotAVectorError
            known = self.memo[value] = handler(self, value)
        return known

    def binary(self, value: Binary) -> Expr:
        a, b = self.expr(value.a), self.expr(value.b)
        kind = type(value)
        divides = kind in (Div, Mod, FloorDiv, FloorMod) and not value.dtype.is_float
        if divides and self.mask is not None and as_int(b) is None:
            # Lanes without a divisor would divide by zero.
            raise _NotAVectorError
        if isinstance(a, Ramp) or isinstance(b, Ramp):
            folded = _ramp(kind, a, b)
            if folded is not None:
                return folded
        return kind(self.wide(a), self.wide(b))  # pyright: ignore[reportCallIssue]

    def negation(self, value: Not) -> Expr:
        return Not(self.wide(self.expr(value.a)))

    def select(self, value: Select) -> Expr:
        condition = self.expr(value.condition)
        # One condition per lane; a scalar condition selects whole vectors.
        return Select(
            condition,
            self.wide(self.expr(value.true_value)),
            self.wide(self.expr(value.false_value)),
        )

    def cast(self, value: Cast) -> Expr:
        inner = self.expr(value.value)
        if (
            isinstance(inner, Ramp)
            and value.to.is_int
            and value.to.bits >= inner.dtype.bits
            and inner.dtype.is_int
        ):
            return Ramp(Cast(value.to, inner.base), Cast(value.to, inner.stride), self.lanes)
        return Cast(value.to.with_lanes(self.lanes), inner)

    def load(self, value: BufferLoad) -> Expr:
        if value.predicate is not None or not value.buffer.dtype.is_scalar:
            raise _NotAVectorError
        index = value.indices[0]
        cut_off = self.cut_off_load(value.buffer, index)
        if cut_off is not None:
            return cut_off
        return BufferLoad(value.buffer, (self.wide(self.expr(index)),), self.mask)

    def cut_off_load(self, buffer: Buffer, index: Expr) -> Expr | None:
        """A load at an index such as `min(i, last)` as neighbours with a mask, and the element at
        the end elsewhere, which is faster than a gather; None if it is no such load."""
        cuts = [item for item in walk(index) if isinstance(item, Min) and self.varies(item)]
        if len(cuts) != 1 or not cuts[0].dtype.is_int or self.mask is not None:
            return None
        (cut,) = cuts
        moving, end = (cut.a, cut.b) if self.varies(cut.a) else (cut.b, cut.a)

        def with_cut(new: Expr) -> Expr:
            return rewrite(index, lambda item: new if item is cut else item)

        if self.varies(with_cut(end)):
            return None
        lane, own = self.expr(with_cut(moving)), self.expr(moving)
        if not all(isinstance(item, Ramp) and as_int(item.stride) == 1 for item in (lane, own)):
            return None
        # The last lane is the one that is cut off if any is: what it reads is read in any case.
        last = substitute(index, {self.var: as_expr(self.lanes - 1, self.var.dtype)})
        if self.varies(last):
            return None
        inside = self.wide(self.expr(LE(moving, end)))
        return Select(
            inside,
            BufferLoad(buffer, (lane,), inside),
            Broadcast(BufferLoad(buffer, (last,)), self.lanes),
        )

    def call(self, value: Call) -> Expr:
        if not isinstance(value.op, Intrinsic) or value.op.name in _SCALAR_ONLY:
            raise _NotAVectorError
        if value.op.name == "if_then_else":
            return self.choice(value)
        if value.op.name == "checked":
            return self.checked(value)
        if value.effect != "pure" or value.op.name.startswith("call_"):
            raise _NotAVectorError
        args = tuple(self.wide(self.expr(arg)) for arg in value.args)
        return Call(value.op, args, value.kind.with_lanes(self.lanes))

    def checked(self, value: Call) -> Expr:
        """T.checked: the lanes that run must hold."""
        result, condition, kind, *message = value.args
        held = self.wide(self.expr(condition))
        if self.mask is not None:
            held = Or(make_not(self.mask), held)
        parts = (part if isinstance(part, StringImm) else self.expr(part) for part in message)
        args = (self.wide(self.expr(result)), held, kind, *parts)
        return Call(value.op, args, value.kind.with_lanes(self.lanes))

    def choice(self, value: Call) -> Expr:
        """if_then_else: each side reads only in the lanes that take it."""
        condition = self.expr(value.args[0])
        if condition.dtype.is_scalar:
            sides = tuple(self.wide(self.expr(arg)) for arg in value.args[1:])
            return Call(value.op, (condition, *sides), value.kind.with_lanes(self.lanes))
        sides: tuple[Expr, ...] = ()
        for side, mask in zip(value.args[1:], (condition, make_not(condition)), strict=True):
            inner = _LaneCode(self.var, self.lanes, self.widened)
            inner.mask = mask if self.mask is None else And(self.mask, mask)
            sides = (*sides, self.wide(inner.expr(side)))
        return Select(condition, *sides)


def make_not(condition: Expr) -> Expr:
    """The lanes that a condition leaves."""
    return logical_not(condition)


def _ramp(kind: type[Binary], a: Expr, b: Expr) -> Expr | None:
    """Arithmetic on ramps and scalars that gives a ramp."""
    if isinstance(a, Ramp) and isinstance(b, Ramp):
        if kind in (Add, Sub):
            return Ramp(make(kind, a.base, b.base), make(kind, a.stride, b.stride), a.lanes)
        return None
    if isinstance(a, Ramp) and b.dtype.is_scalar:
        if kind in (Add, Sub):
            return Ramp(make(kind, a.base, b), a.stride, a.lanes)
        if kind is Mul:
            return Ramp(make(kind, a.base, b), make(kind, a.stride, b), a.lanes)
        return _ramp_division(kind, a, b)
    if isinstance(b, Ramp) and a.dtype.is_scalar:
        if kind is Add:
            return Ramp(make(kind, a, b.base), b.stride, b.lanes)
        if kind is Sub:
            return Ramp(
                make(kind, a, b.base), make(Sub, const(0, b.stride.dtype), b.stride), b.lanes
            )
        if kind is Mul:
            return Ramp(make(kind, a, b.base), make(kind, a, b.stride), b.lanes)
    return None


def _ramp_division(kind: type[Binary], a: Ramp, b: Expr) -> Expr | None:
    """(c * q + r + [0 … lanes)) divided by q, where the lanes do not cross a multiple of q."""
    divisor, stride = as_int(b), as_int(a.stride)
    if (
        kind not in (FloorDiv, FloorMod)
        or divisor is None
        or stride is None
        or divisor <= 0
        or stride < 0
    ):
        return None
    rest = Analyzer().simplify(a.base % divisor)
    first = as_int(rest)
    if first is None:
        bounds = Analyzer().bounds(rest)
        first = bounds.max
    if first is None or first + stride * (a.lanes - 1) >= divisor:
        return None
    if kind is FloorDiv:
        return make(FloorDiv, a.base, b)
    return Ramp(make(FloorMod, a.base, b), a.stride, a.lanes)


_SCALAR_ONLY = frozenset(
    {"tvm_access_ptr", "address_of", "reinterpret", "ldexp", "q_multiply_shift_per_axis", "undef"}
)

_STATEMENTS: dict[type[Stmt], Callable[[_LaneCode, Any], Stmt]] = {
    SeqStmt: _LaneCode.seq,
    Bind: _LaneCode.bind,
    BufferStore: _LaneCode.store,
    IfThenElse: _LaneCode.condition,
    For: _LaneCode.loop,
    AttrStmt: _LaneCode.attribute,
}

_EXPRESSIONS: dict[type[Expr], Callable[[_LaneCode, Any], Expr]] = {
    **dict.fromkeys(
        (Add, Sub, Mul, Div, Mod, FloorDiv, FloorMod, Min, Max, EQ, NE, LT, LE, GT, GE, And, Or),
        _LaneCode.binary,
    ),
    Not: _LaneCode.negation,
    Select: _LaneCode.select,
    Cast: _LaneCode.cast,
    BufferLoad: _LaneCode.load,
    Call: _LaneCode.call,
}
