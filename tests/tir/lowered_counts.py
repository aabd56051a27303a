"""Counting what lowered code does, by running its loops with constant extents.

Each function becomes Python that counts instead of computing. What a mask turns off counts as an
instruction, but not as lanes. Conditions may not depend on data.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from transect.arith.evaluate import evaluate
from transect.ir.expr import (
    Add,
    And,
    Binary,
    Broadcast,
    Comparison,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Ramp,
    Select,
    Sub,
    Var,
    as_int,
)
from transect.ir.function import IRModule
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.target import Target
from transect.tir.analysis.instructions import is_data, operation_name
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    Allocate,
    AttrStmt,
    Bind,
    BufferStore,
    DeclBuffer,
    For,
    IfThenElse,
    SeqStmt,
    Stmt,
)
from transect.tir.transform import lowering
from transect.tir.transform.hoist_checks import HoistChecks
from transect.transform import Context

_OPERATORS = {
    Add: "+", Sub: "-", Mul: "*", FloorDiv: "//", FloorMod: "%", Div: "//", Mod: "%",
}  # fmt: skip
"""Indices are not negative, so that quotients rounded down and toward zero are the same."""
_COMPARISONS = {"EQ": "==", "NE": "!=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}


def lowered(func: PrimFunc, target: Target) -> PrimFunc:
    """`func` after the passes up to vectors, copies of unrolled loops and simple indices."""
    module, context = IRModule.of(main=func), Context(target=target)
    for each in lowering(target):
        if isinstance(each, HoistChecks):
            break
        module = each(module, context)
    found = module["main"]
    assert isinstance(found, PrimFunc)
    return found


def count_lowered(func: PrimFunc, target: Target) -> Counter[tuple[str, ...]]:
    """The keys of `ProgramFeatures.counts`, counted."""
    code = _Code()
    code.stmt(lowered(func, target).body)
    counts: Counter[tuple[str, ...]] = Counter()
    scope: dict[str, Any] = {"counts": counts, "masked": _masked, "terms": code.terms}
    text = "def run():\n    pass\n" + "\n".join(code.lines) + "\nrun()\n"
    exec(compile(text, "<counting>", "exec"), scope)
    return Counter({key: number for key, number in counts.items() if number})


def _masked(mask: Expr, values: dict[Var, int]) -> int:
    return int(np.count_nonzero(evaluate(mask, values)))


class _Code:
    """Writes the Python that counts."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self.terms: list[Any] = []
        self.scope: dict[Var, str] = {}

    def write(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def name(self, var: Var) -> str:
        return self.scope.setdefault(var, f"v{len(self.scope)}")

    def count(self, key: tuple[str, ...], number: int | str = 1) -> None:
        self.write(f"counts[{key!r}] += {number}")

    def stmt(self, stmt: Stmt) -> None:
        if isinstance(stmt, SeqStmt):
            for item in stmt.stmts:
                self.stmt(item)
        elif isinstance(stmt, For):
            assert stmt.kind in ("serial", "parallel"), stmt.kind
            low, extent = self.index(stmt.min), self.index(stmt.extent)
            steps = self.name(Var("steps"))
            self.write(f"{steps} = {extent}")
            self.count(("steps", stmt.kind), f"{steps} if {steps} > 1 else 0")
            self.write(f"for {self.name(stmt.var)} in range({low}, {low} + {steps}):")
            self.depth += 1
            self.write("pass")
            self.stmt(stmt.body)
            self.depth -= 1
        elif isinstance(stmt, IfThenElse):
            self.write(f"if {self.index(stmt.condition)}:")
            self.branch(stmt.then_case)
            if stmt.else_case is not None:
                self.write("else:")
                self.branch(stmt.else_case)
        elif isinstance(stmt, Bind):
            self.write(f"{self.name(stmt.var)} = {self.index(stmt.value)}")
        elif isinstance(stmt, AttrStmt):
            self.stmt(stmt.body)
        elif isinstance(stmt, BufferStore):
            self.store(stmt)
        else:
            assert isinstance(stmt, Allocate | DeclBuffer), stmt

    def branch(self, stmt: Stmt) -> None:
        self.depth += 1
        self.write("pass")
        self.stmt(stmt)
        self.depth -= 1

    def store(self, stmt: BufferStore) -> None:
        lanes = self.lanes(stmt.predicate, stmt.value.dtype.lanes)
        self.access("store", stmt.buffer.name, stmt.indices[0], lanes)
        inside = set(walk(*stmt.indices))
        skipped: set[Term] = set()
        for item in walk(stmt.value):
            if isinstance(item, BufferLoad):
                inside.update(walk(*item.indices, *_terms(item.predicate)))
            elif _is_cut_off(item):
                # One vector load, the end of the buffer where lanes would be beyond it.
                assert isinstance(item, Select)
                assert isinstance(item.false_value, Broadcast)
                skipped.update((item, item.false_value.value))
                inside.update(walk(item.condition))
        for item in walk(stmt.value):
            if item in skipped:
                continue
            if isinstance(item, BufferLoad):
                wide = item.dtype.lanes
                own = f"{wide}" if stmt.predicate is None else lanes if wide > 1 else "1"
                self.access("load", item.buffer.name, item.indices[0], own)
                continue
            kind = None if item in inside else operation_name(item)
            if kind is None or not isinstance(item, Expr) or not is_data(item):
                continue
            dtype = item.a.dtype if isinstance(item, Binary) else item.dtype
            if dtype.lanes > 1:
                self.count(("vector", kind, str(dtype.element)))
                self.count(("lanes", kind, str(dtype.element)), lanes)
            else:
                self.count(("scalar", kind, str(dtype)))
                self.count(("lanes", kind, str(dtype)))

    def access(self, side: str, buffer: str, index: Expr, lanes: str) -> None:
        pattern = "scalar"
        if index.dtype.lanes > 1:
            near = isinstance(index, Ramp) and as_int(index.stride) == 1
            pattern = "contiguous" if near else "strided"
        self.count((side, pattern, buffer))
        self.count(("elements", side, buffer), lanes)

    def lanes(self, mask: Expr | None, lanes: int) -> str:
        if mask is None:
            return str(lanes)
        self.terms.append(mask)
        own = [item for item in walk(mask) if isinstance(item, Var)]
        keys = []
        for var in own:
            self.terms.append(var)
            keys.append(f"terms[{len(self.terms) - 1}]: {self.name(var)}")
        place = len(self.terms) - 1 - len(own)
        return f"masked(terms[{place}], {{{', '.join(keys)}}})"

    def index(self, expr: Expr) -> str:
        if isinstance(expr, Var):
            return self.name(expr)
        if isinstance(expr, IntImm):
            return str(expr.value)
        if isinstance(expr, Min | Max):
            kind = "min" if isinstance(expr, Min) else "max"
            return f"{kind}({self.index(expr.a)}, {self.index(expr.b)})"
        if isinstance(expr, Comparison):
            sign = _COMPARISONS[type(expr).__name__]
            return f"({self.index(expr.a)} {sign} {self.index(expr.b)})"
        if isinstance(expr, And | Or):
            word = "and" if isinstance(expr, And) else "or"
            return f"({self.index(expr.a)} {word} {self.index(expr.b)})"
        if isinstance(expr, Not):
            return f"(not {self.index(expr.a)})"
        if isinstance(expr, Select):
            true, false = self.index(expr.true_value), self.index(expr.false_value)
            return f"({true} if {self.index(expr.condition)} else {false})"
        assert type(expr) in _OPERATORS, expr
        assert isinstance(expr, Binary)
        return f"({self.index(expr.a)} {_OPERATORS[type(expr)]} {self.index(expr.b)})"


def _terms(predicate: Expr | None) -> tuple[Expr, ...]:
    return () if predicate is None else (predicate,)


def _is_cut_off(item: Term) -> bool:
    """Whether a term is what the vectorizer makes of a load at `min(i, last)`."""
    return (
        isinstance(item, Select)
        and isinstance(item.true_value, BufferLoad)
        and item.true_value.predicate is not None
        and isinstance(item.false_value, Broadcast)
        and isinstance(item.false_value.value, BufferLoad)
    )
