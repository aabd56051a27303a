"""Parallel loops: the body becomes a function of a range of iterations that several threads run.

How threads are found and started is in `runtime`.
"""

from __future__ import annotations

from collections.abc import Callable

from transect.codegen.llvm import amx
from transect.codegen.llvm.builder import FunctionText
from transect.codegen.llvm.statement import StatementEmitter
from transect.codegen.llvm.types import register_type
from transect.ir.dtype import INT64
from transect.ir.expr import Call, Expr, IntImm, Var, as_int, cast, maximum
from transect.ir.traverse import free_vars, walk
from transect.tir.buffer import BufferLoad
from transect.tir.op import without_checks
from transect.tir.stmt import BufferStore, Evaluate, For, SeqStmt, Stmt
from transect.tir.visit import child_stmts, own_terms, walk_stmts

WORK_PER_THREAD = 1 << 14
"""Scalar operations, roughly, that a thread must have to be worth waking (a few microseconds)."""

_UNKNOWN_EXTENT = 16
_CALL_WORK = 8


def captured(loop: For, bound: dict[Var, str]) -> list[Var]:
    """The variables of the enclosing function that the loop's body uses, in order."""
    found: dict[Var, None] = {}
    for stmt in walk_stmts(loop.body):
        for item in walk(*own_terms(stmt)):
            if isinstance(item, Var):
                found[item] = None
            elif isinstance(item, BufferLoad):
                found[item.buffer.data] = None
        if isinstance(stmt, BufferStore):
            found[stmt.buffer.data] = None
    return [var for var in found if var in bound and var is not loop.var]


def work(stmt: Stmt, bound: dict[Var, str]) -> Expr:
    """Scalar operations of `stmt`, roughly, over the variables that are bound outside of it."""
    if isinstance(stmt, For):
        extent: Expr = IntImm(_UNKNOWN_EXTENT)
        known = as_int(stmt.extent)
        if known is not None:
            extent = IntImm(known)
        elif all(var in bound for var in free_vars([stmt.extent])) and not any(
            isinstance(item, BufferLoad | Call) for item in walk(stmt.extent)
        ):
            extent = maximum(cast(stmt.extent, INT64), 0)
        return extent * work(stmt.body, bound)
    if isinstance(stmt, BufferStore):
        calls = sum(isinstance(item, Call) for item in walk(without_checks(stmt.value)))
        return IntImm(stmt.value.dtype.lanes * (2 + _CALL_WORK * calls))
    if isinstance(stmt, Evaluate) and isinstance(stmt.value, Call):
        # A function of the module or a library: whoever calls it in parallel knows why.
        return IntImm(WORK_PER_THREAD if stmt.value.effect == "write" else 1)
    parts = [work(child, bound) for child in child_stmts(stmt)]
    if isinstance(stmt, SeqStmt) or len(parts) > 1:
        total: Expr = IntImm(0)
        for item in parts:
            total = total + item
        return total
    return parts[0] if parts else IntImm(1)


def emit_parallel(parent: StatementEmitter, loop: For) -> None:
    """Emit `loop` as a call of the parallel helper on an outlined function."""
    text = parent.text
    amx.check_parallel(parent, loop)
    variables = captured(loop, parent.variables)
    fields = ["ptr", *(register_type(var.dtype) for var in variables)]
    context_type = "{" + ", ".join(fields) + "}"

    name = f"{text.identifier.removeprefix('@').strip(chr(34))}.{text.label('parallel')}"
    inner = FunctionText(text.module, name, ["ptr %context", "i64 %begin", "i64 %end"])
    child = StatementEmitter(parent.unit, inner, parent.intrinsics, parallel=serial)
    for number, var in enumerate(variables, 1):
        place = inner.define(f"getelementptr {context_type}, ptr %context, i32 0, i32 {number}")
        child.bind(var, inner.define(f"load {fields[number]}, ptr {place}"))
        if var in parent.handles:
            child.handles[var] = parent.handles[var]
    kind = loop.var.dtype
    amx.begin(child, loop.body, whole=True)
    child.loop(
        loop.var,
        child.convert("%begin", INT64, kind),
        child.convert("%end", INT64, kind),
        loop.body,
        never_empty=True,
    )
    text.module.functions.append(inner.finish())

    context = text.allocate(context_type, 64)
    text.emit(f"store ptr null, ptr {context}")
    for number, var in enumerate(variables, 1):
        place = text.define(f"getelementptr {context_type}, ptr {context}, i32 0, i32 {number}")
        text.emit(f"store {fields[number]} {parent.variables[var]}, ptr {place}")
    first, count = parent.index(loop.min), parent.index(loop.extent)
    each = parent.emit(maximum(work(loop.body, parent.variables), 1))
    enough = text.define(f"add i64 {each}, {WORK_PER_THREAD - 1}")
    # The quotient is 1 or more, as the work of one iteration is.
    grain = text.define(f"udiv i64 {enough}, {each}")
    text.emit(
        f"call void {text.module.helper('transect.parallel')}"
        f"(ptr {inner.identifier}, ptr {context}, i64 {first}, i64 {count}, i64 {grain})"
    )
    error = text.define(f"load ptr, ptr {context}")
    good, bad = text.label("ok"), text.label("failed")
    text.branch_if(text.define(f"icmp eq ptr {error}, null"), good, bad, likely=True)
    text.begin(bad)
    setter = text.module.declare("TVMFFIErrorSetRaised", "void", ["ptr"])
    text.emit(f"call void {setter}(ptr {error})")
    text.define(
        f"call i32 {text.module.declare('TVMFFIObjectDecRef', 'i32', ['ptr'])}(ptr {error})"
    )
    text.fail()
    text.begin(good)
    amx.resume(parent)
    parent.forget_reads()


def serial(emitter: StatementEmitter, loop: For) -> None:
    """A parallel loop inside a parallel loop: its iterations in order."""
    kind = loop.var.dtype
    first = emitter.emit(loop.min)
    end = emitter.arithmetic_add(first, emitter.emit(loop.extent), kind)
    emitter.loop(loop.var, first, end, loop.body)


ParallelEmitter = Callable[[StatementEmitter, For], None]
