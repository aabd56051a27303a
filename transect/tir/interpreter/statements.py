"""Statements as closures: loops in order or as grid axes, branches as masks, blocks, allocations.

Which loops may become axes is decided in `independence`; what an access does is in `memory_access`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import (
    EQ,
    LE,
    Add,
    Call,
    Div,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Mod,
    Mul,
    Var,
    as_expr,
    logical_and,
    true,
)
from transect.ir.term import Term
from transect.support.errors import ExecutionError, UnsupportedError
from transect.tir.affine import Affine
from transect.tir.buffer import Buffer
from transect.tir.interpreter.empty_reduction import when_empty
from transect.tir.interpreter.expressions import ExprCompiler
from transect.tir.interpreter.failing import require
from transect.tir.interpreter.frame import Frame
from transect.tir.interpreter.grid import IntRun, Value
from transect.tir.interpreter.independence import (
    Verdict,
    bind,
    is_frozen_integer,
    judge,
    loop_range,
)
from transect.tir.interpreter.linear import Axis, Scope, interval, linear
from transect.tir.interpreter.llvm import runnable
from transect.tir.interpreter.memory import Pointer, allocate, from_array
from transect.tir.interpreter.memory_access import compile_store
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
    IterVar,
    SeqStmt,
    Stmt,
    While,
)
from transect.tir.visit import own_terms, substitute_stmt, walk_terms

Do = Callable[[Frame], None]

_GRID_POINTS = 1 << 18
"""How many points a grid may have: arrays of this size still fit in a cache of a few megabytes."""
_ENOUGH_POINTS = 1 << 12
"""A grid with so many points gains nothing from reductions as further axes."""


class StmtCompiler:
    """Compiles the statements of one function for one set of sizes.

    vectorize: whether loops may become grid axes; without, every loop runs in order.
    """

    def __init__(self, *, vectorize: bool) -> None:
        self.vectorize = vectorize

    def compile(self, stmt: Stmt, scope: Scope) -> tuple[Do, Scope]:
        """The closure that runs `stmt`, and the scope of what follows it in its SeqStmt."""
        rule = _RULES.get(type(stmt))
        if rule is None:
            raise UnsupportedError(f"the interpreter cannot run {type(stmt).__name__}")
        return rule(self, stmt, scope)

    def body(self, stmt: Stmt, scope: Scope) -> Do:
        """The closure of a statement with a scope of its own."""
        return self.compile(stmt, scope)[0]


def _guarded(stmt: Stmt, do: Do) -> Do:
    """`do`, its errors placed at the statement."""
    if not stmt.span:
        return do

    def run(frame: Frame) -> None:
        try:
            do(frame)
        except ExecutionError as error:
            raise error.at(stmt.span) from None

    return run


def _expressions(stmt: Stmt, scope: Scope, *roots: Term) -> tuple[ExprCompiler, Callable[[Do], Do]]:
    """The compiler of a statement's expressions, and what makes its closure start afresh."""
    compiler = ExprCompiler(scope, roots)
    if not compiler.shared:
        return compiler, lambda do: _guarded(stmt, do)

    def fresh(do: Do) -> Do:
        def run(frame: Frame) -> None:
            saved, frame.cache = frame.cache, {}
            do(frame)
            frame.cache = saved

        return _guarded(stmt, run)

    return compiler, fresh


# --- leaves ---------------------------------------------------------------------------------


def _evaluate(owner: StmtCompiler, stmt: Evaluate, scope: Scope) -> tuple[Do, Scope]:
    compiler, fresh = _expressions(stmt, scope, stmt.value)
    value = compiler.compile(stmt.value)

    def run(frame: Frame) -> None:
        value(frame)

    return fresh(run), scope


def _store(owner: StmtCompiler, stmt: BufferStore, scope: Scope) -> tuple[Do, Scope]:
    compiler, fresh = _expressions(stmt, scope, *own_terms(stmt))
    return fresh(compile_store(compiler, stmt)), scope


def _bind(owner: StmtCompiler, stmt: Bind, scope: Scope) -> tuple[Do, Scope]:
    if is_frozen_integer(stmt.value):
        return _nothing, bind(stmt.var, stmt.value, scope)
    compiler, fresh = _expressions(stmt, scope, stmt.value)
    value, var = compiler.compile(stmt.value), stmt.var
    if scope.varies(stmt.value):

        def bind_array(frame: Frame) -> None:
            frame.vars[var] = _copied(value(frame))

        return fresh(bind_array), scope.with_varying(var)
    integral = var.dtype.is_integral and var.dtype.is_scalar
    is_object = var.dtype.is_handle

    def run(frame: Frame) -> None:
        new = value(frame)
        frame.vars[var] = new if is_object else _copied(new)
        if integral:
            frame.ints[var] = int(new)

    return fresh(run), scope


def _copied(value: Value) -> Value:
    """A value of its own: what a load gave is a view of memory that may change."""
    return np.array(value) if np.ndim(value) else value


def _nothing(frame: Frame) -> None:
    pass


def _pass_over(owner: StmtCompiler, stmt: Stmt, scope: Scope) -> tuple[Do, Scope]:
    return _nothing, scope


def _assert(owner: StmtCompiler, stmt: AssertStmt, scope: Scope) -> tuple[Do, Scope]:
    compiler = ExprCompiler(scope)
    condition = compiler.compile(stmt.condition)
    parts = [part if isinstance(part, str) else compiler.compile(part) for part in stmt.message]

    def run(frame: Frame) -> None:
        require(condition(frame), frame, stmt.kind, parts, span=stmt.span)

    return run, scope


# --- memory ---------------------------------------------------------------------------------


def _allocation(
    name: str, var: Var, dtype: DType, extents: list[IntRun], memory_scope: str, scope: Scope
) -> tuple[Do, Scope]:
    # Shared memory is one for all threads of a block, wherever it is allocated.
    shared = tuple(
        axis.thread is not None
        and axis.thread.startswith("threadIdx")
        and memory_scope.startswith("shared")
        for axis in scope.axes
    )

    def run(frame: Frame) -> None:
        count = math.prod(extent(frame) for extent in extents) * dtype.lanes
        frame.vars[var] = Pointer(
            allocate(name, dtype.element, count, tuple(frame.lengths), shared)
        )

    return run, scope.with_private(var)


def _pointer_scope(var: Var) -> str:
    return "global" if var.pointer is None else var.pointer.scope


def _allocate(owner: StmtCompiler, stmt: Allocate, scope: Scope) -> tuple[Do, Scope]:
    compiler = ExprCompiler(scope)
    extents = [compiler.integer(extent) for extent in stmt.extents]
    name, memory_scope = stmt.var.name, _pointer_scope(stmt.var)
    do, after = _allocation(name, stmt.var, stmt.dtype, extents, memory_scope, scope)
    return _guarded(stmt, do), after


def _allocate_const(owner: StmtCompiler, stmt: AllocateConst, scope: Scope) -> tuple[Do, Scope]:
    data = np.ascontiguousarray(stmt.data).view()
    data.flags.writeable = False
    pointer = Pointer(from_array(data, stmt.var.name))

    def run(frame: Frame) -> None:
        frame.vars[stmt.var] = pointer

    return run, scope


def _allocate_buffer(buffer: Buffer, scope: Scope) -> tuple[Do, Scope]:
    compiler = ExprCompiler(scope)
    extents = [compiler.integer(extent) for extent in buffer.shape]
    strides = [compiler.integer(stride) for stride in buffer.strides]
    start = compiler.integer(buffer.elem_offset)
    if not strides and isinstance(buffer.elem_offset, IntImm) and buffer.elem_offset.value == 0:
        return _allocation(buffer.name, buffer.data, buffer.dtype, extents, buffer.scope, scope)

    def reach(frame: Frame) -> int:
        lengths = [extent(frame) for extent in extents]
        if min(lengths, default=1) <= 0:
            return 0
        if not strides:
            return start(frame) + math.prod(lengths)
        steps = [stride(frame) for stride in strides]
        last = sum((n - 1) * step for n, step in zip(lengths, steps, strict=True))
        return start(frame) + last + 1

    return _allocation(buffer.name, buffer.data, buffer.dtype, [reach], buffer.scope, scope)


# --- control --------------------------------------------------------------------------------


def _sequence(owner: StmtCompiler, stmt: SeqStmt, scope: Scope) -> tuple[Do, Scope]:
    steps: list[Do] = []
    inside = scope
    for item in stmt.stmts:
        do, inside = owner.compile(item, inside)
        if do is not _nothing:
            steps.append(do)
    if len(steps) == 1:
        return steps[0], scope

    def run(frame: Frame) -> None:
        for step in steps:
            step(frame)

    return run, scope


def _branch(condition: Callable[[Frame], Value], then_case: Do, else_case: Do | None) -> Do:
    """if condition: then_case else: else_case, at each point of the grid."""

    def run(frame: Frame) -> None:
        chosen = condition(frame)
        if np.ndim(chosen) == 0:
            if chosen:
                then_case(frame)
            elif else_case is not None:
                else_case(frame)
            return
        mask = frame.mask
        active = chosen if mask is None else mask & chosen
        if np.any(active):
            frame.mask = None if mask is None and np.all(active) else active
            then_case(frame)
        if else_case is not None:
            active = ~chosen if mask is None else mask & ~chosen
            if np.any(active):
                frame.mask = None if mask is None and np.all(active) else active
                else_case(frame)
        frame.mask = mask

    return run


def _if(owner: StmtCompiler, stmt: IfThenElse, scope: Scope) -> tuple[Do, Scope]:
    compiler, _ = _expressions(stmt, scope)
    then_case = owner.body(stmt.then_case, scope.assuming(stmt.condition))
    else_case = None if stmt.else_case is None else owner.body(stmt.else_case, scope)
    return _branch(compiler.compile(stmt.condition), then_case, else_case), scope


def _while(owner: StmtCompiler, stmt: While, scope: Scope) -> tuple[Do, Scope]:
    condition = ExprCompiler(scope).compile(stmt.condition)
    body = owner.body(stmt.body, scope)

    def run(frame: Frame) -> None:
        while condition(frame):
            body(frame)

    return run, scope


def _attribute(owner: StmtCompiler, stmt: AttrStmt, scope: Scope) -> tuple[Do, Scope]:
    if stmt.key == "thread_extent" and isinstance(stmt.node, IterVar):
        extent = as_expr(stmt.value, stmt.node.var.dtype)
        thread = stmt.node.var.name
        zero = as_expr(0, extent.dtype)
        loop = For(stmt.node.var, zero, extent, "thread_binding", stmt.body, thread)
        return owner.compile(loop, scope)
    return owner.body(stmt.body, scope), scope


# --- blocks ---------------------------------------------------------------------------------


def _realize(owner: StmtCompiler, stmt: BlockRealize, scope: Scope) -> tuple[Do, Scope]:
    block = runnable(stmt.block)
    inside = scope.assuming(stmt.predicate)
    steps: list[Do] = []
    for iter_var, value in zip(block.iter_vars, stmt.iter_values, strict=True):
        do, inside = _bind(owner, Bind(iter_var.var, value), inside)
        if do is not _nothing:
            steps.append(do)
    for buffer in block.alloc_buffers:
        do, inside = _allocate_buffer(buffer, inside)
        steps.append(do)
    body, init = block.body, block.init
    for match in block.match_buffers:
        do, inside, loads = _match(owner, match.buffer, match.source, inside)
        steps.append(do)
        body = loads(body)
        init = None if init is None else loads(init)
    if init is not None:
        started = [EQ(item.var, item.dom.min) for item in block.iter_vars if item.kind == "reduce"]
        first = ExprCompiler(inside).compile(logical_and(*started))
        steps.append(_branch(first, owner.body(init, inside), None))
    steps.append(owner.body(body, inside))

    def run(frame: Frame) -> None:
        for step in steps:
            step(frame)

    do = steps[0] if len(steps) == 1 else run
    if stmt.predicate is true():
        return do, scope
    return _branch(ExprCompiler(scope).compile(stmt.predicate), do, None), scope


def _match(
    owner: StmtCompiler, view: Buffer, source: Any, scope: Scope
) -> tuple[Do, Scope, Callable[[Stmt], Stmt]]:
    """A buffer that names a region: its pointer, strides and offset become those of the source."""
    compiler = ExprCompiler(scope)
    target: Buffer = source.buffer
    mins = [compiler.integer(item.min) for item in source.ranges]
    lengths = [compiler.integer(item.extent) for item in source.ranges]
    extents = [compiler.integer(extent) for extent in target.shape]
    given = [compiler.integer(stride) for stride in target.strides]
    start = compiler.integer(target.elem_offset)
    skipped = target.ndim - view.ndim
    fields = (*view.shape, *view.strides, view.elem_offset)
    new = [item for item in dict.fromkeys(fields) if isinstance(item, Var)]
    fresh = [item for item in new if item not in scope.forms and item not in scope.ranges]
    checker = ExprCompiler(scope)
    # A view without strides of its own has those of the source, which need not be compact.
    strides = view.strides or tuple(
        Var(f"{view.name}_stride{axis}", view.elem_offset.dtype) for axis in range(view.ndim)
    )
    plain = Buffer(
        view.name, view.data, view.dtype, view.shape, strides, as_expr(0, view.elem_offset.dtype)
    )

    def run(frame: Frame) -> None:
        sizes = [run(frame) for run in extents]
        steps = [run(frame) for run in given]
        if not steps:
            steps = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
        low = [run(frame) for run in mins]
        offset = start(frame) + sum(a * b for a, b in zip(low, steps, strict=True))
        values = [*(run(frame) for run in lengths[skipped:]), *steps[skipped:]]
        for field, value in zip((*view.shape, *strides), values, strict=True):
            if isinstance(field, Var) and (field in fresh or field not in view.strides):
                frame.ints.setdefault(field, value)
                frame.ints[field] = value
        if isinstance(view.elem_offset, Var):
            frame.ints[view.elem_offset] = offset
        for field, value in zip(view.shape, values, strict=False):
            if not isinstance(field, Var) and checker.integer(field)(frame) != value:
                raise ExecutionError(
                    f"{view.name} matches a region whose extent is {value}, not {field!r}"
                )
        pointer = frame.vars[target.data]
        size = view.dtype.bytes
        frame.vars[view.data] = Pointer(pointer.memory, pointer.offset + offset * size)

    def replace(stmt: Stmt) -> Stmt:
        return substitute_stmt(stmt, None, {view: plain})

    return run, scope, replace


# --- loops ----------------------------------------------------------------------------------


def _loop(owner: StmtCompiler, stmt: For, scope: Scope) -> tuple[Do, Scope]:
    extent = interval(linear(stmt.extent, scope), scope)
    instead = when_empty(stmt) if extent is None or extent[0] <= 0 else None
    if instead is None:
        return _nonempty_loop(owner, stmt, scope)
    compiler = ExprCompiler(scope)
    is_empty = compiler.compile(LE(stmt.extent, as_expr(0, stmt.extent.dtype)))
    otherwise = _branch(is_empty, owner.body(instead, scope), None)
    do, _ = _nonempty_loop(owner, stmt, scope)

    def run(frame: Frame) -> None:
        otherwise(frame)
        do(frame)

    return run, scope


def _nonempty_loop(owner: StmtCompiler, stmt: For, scope: Scope) -> tuple[Do, Scope]:
    """The loop alone: nothing where it has no iterations."""
    verdict = Verdict("ordered")
    lockstep = _needs_lockstep(stmt)
    ends = loop_range(stmt, scope)
    if lockstep:
        verdict = Verdict("independent")
    elif owner.vectorize and (ends is None or ends[1] > ends[0]):
        verdict = judge(stmt, scope)
        if verdict.kind == "independent":
            split = _digits(stmt, scope)
            if split is not None:
                return owner.compile(split, scope)
    if verdict.kind == "accumulates" and _points(scope) * verdict.lanes >= _ENOUGH_POINTS:
        verdict = Verdict("ordered")
    if verdict.kind == "ordered" or scope.varies(stmt.min):
        return _ordered_loop(owner, stmt, scope), scope
    return _axis_loop(owner, stmt, scope, verdict, chunked=not lockstep), scope


def _needs_lockstep(stmt: For) -> bool:
    """Threads that wait for each other cannot run one after the other."""
    if stmt.kind != "thread_binding" or not (stmt.thread or "").startswith("threadIdx"):
        return False
    return any(
        isinstance(item, Call)
        and isinstance(item.op, Intrinsic)
        and item.op.name == "tvm_storage_sync"
        for item in walk_terms(stmt.body)
    )


def _points(scope: Scope) -> int:
    """How many points the open grid has at most."""
    total = 1
    for axis in scope.axes:
        ends = scope.ranges.get(axis.var)
        total *= _GRID_POINTS if ends is None else ends[1] - ends[0] + 1
    return total


def _ordered_loop(owner: StmtCompiler, stmt: For, scope: Scope) -> Do:
    compiler = ExprCompiler(scope)
    var = stmt.var
    if scope.varies(stmt.min) or scope.varies(stmt.extent):
        return _uneven_loop(owner, stmt, scope, compiler)
    low, extent = compiler.integer(stmt.min), compiler.integer(stmt.extent)
    body = owner.body(stmt.body, scope.with_range(var, loop_range(stmt, scope)))

    def run(frame: Frame) -> None:
        ints = frame.ints
        start = low(frame)
        for value in range(start, start + extent(frame)):
            ints[var] = value
            body(frame)

    return run


def _uneven_loop(owner: StmtCompiler, stmt: For, scope: Scope, compiler: ExprCompiler) -> Do:
    """A loop in order whose bounds differ along the grid: as long as any point still has turns."""
    low, extent = compiler.compile(stmt.min), compiler.compile(stmt.extent)
    var = stmt.var
    body = owner.body(stmt.body, scope.with_range(var, loop_range(stmt, scope)).with_varying(var))

    def run(frame: Frame) -> None:
        start, count, mask = low(frame), extent(frame), frame.mask
        turns = count if mask is None else np.where(mask, count, 0)
        for turn in range(int(np.max(turns, initial=0))):
            frame.vars[var] = (start + count.dtype.type(turn)).astype(var.dtype.numpy)
            active = turn < turns
            frame.mask = None if mask is None and np.all(active) else active
            body(frame)
        frame.mask = mask

    return run


def _axis_loop(
    owner: StmtCompiler, stmt: For, scope: Scope, verdict: Verdict, *, chunked: bool
) -> Do:
    """A loop as an axis of the grid, in chunks that keep arrays small."""
    compiler = ExprCompiler(scope)
    number = len(scope.axes)
    low_form = linear(stmt.min, scope)
    counter = Var(stmt.var.name, stmt.var.dtype)
    ends = interval(linear(stmt.extent, scope), scope)
    inside = scope.with_axis(Axis(counter, stmt.thread))
    inside = inside.with_range(counter, None if ends is None else (0, max(ends[1] - 1, 0)))
    inside = inside.with_form(stmt.var, low_form + Affine(0, {counter: 1}))
    body = owner.body(stmt.body, inside)
    uneven = scope.varies(stmt.extent)
    extent = compiler.compile(stmt.extent)
    fixed = None if uneven else compiler.integer(stmt.extent)
    # Accumulations in order need all inner loops open at once.
    inner = verdict.lanes if verdict.kind == "accumulates" else 1

    def run(frame: Frame) -> None:
        counts: Value = None
        if fixed is not None:
            total = fixed(frame)
        else:
            counts = extent(frame)
            total = int(np.max(counts, initial=0))
        chunk = max(1, _GRID_POINTS // max(1, frame.points * inner)) if chunked else total
        mask = frame.mask
        for start in range(0, total, max(chunk, 1)):
            length = min(chunk, total - start)
            frame.starts.append(start)
            frame.lengths.append(length)
            if counts is not None:
                numbers = np.arange(start, start + length).reshape((length,) + (1,) * number)
                active = numbers < counts
                frame.mask = active if mask is None else mask & active
            body(frame)
            frame.starts.pop()
            frame.lengths.pop()
        frame.mask = mask

    return run


def _digits(stmt: For, scope: Scope) -> For | None:
    """The loop as a nest of two, where its variable is only used through quotients and remainders
    by a divisor of its extent, as after a fusion; then their indices are sums."""
    extent = linear(stmt.extent, scope)
    if not extent.is_const or not (isinstance(stmt.min, IntImm) and stmt.min.value == 0):
        return None
    divisors: set[int] = set()
    inside = scope.with_range(stmt.var, loop_range(stmt, scope))
    for item in walk_terms(stmt.body):
        if not isinstance(item, FloorDiv | FloorMod | Div | Mod) or not item.dtype.is_int:
            continue
        top, bottom = linear(item.a, inside), linear(item.b, inside)
        factor = top.terms.get(stmt.var, 0)
        if bottom.is_const and factor > 0 and bottom.const % factor == 0:
            divisors.add(bottom.const // factor)
    fitting = [d for d in divisors if 1 < d < extent.const and extent.const % d == 0]
    if not fitting:
        return None
    divisor = max(fitting)
    dtype = stmt.var.dtype
    size = as_expr(divisor, dtype)
    outer, inner = Var(f"{stmt.var.name}_0", dtype), Var(f"{stmt.var.name}_1", dtype)
    joined = Bind(stmt.var, Add(Mul(outer, size), inner))
    zero = as_expr(0, dtype)
    body = SeqStmt((joined, stmt.body))
    nested = For(inner, zero, size, stmt.kind, body, stmt.thread, span=stmt.span)
    count = as_expr(extent.const // divisor, dtype)
    return For(outer, zero, count, stmt.kind, nested, stmt.thread, span=stmt.span)


_RULES: dict[type[Any], Callable[[StmtCompiler, Any, Scope], tuple[Do, Scope]]] = {
    Evaluate: _evaluate,
    BufferStore: _store,
    Bind: _bind,
    Allocate: _allocate,
    AllocateConst: _allocate_const,
    DeclBuffer: _pass_over,
    AssertStmt: _assert,
    AttrStmt: _attribute,
    SeqStmt: _sequence,
    IfThenElse: _if,
    For: _loop,
    While: _while,
    BlockRealize: _realize,
}
