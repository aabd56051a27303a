"""The profiled variant of a program: host functions whose calls are timed, and the work of each.

What is made of the numbers is in `profile`. The timed program takes one more buffer; the times go
there, so calls from several threads do not disturb each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from transect.ir.dtype import FLOAT32, HANDLE, INT32, INT64, DType, as_dtype
from transect.ir.expr import (
    LT,
    Call,
    Expr,
    GlobalVar,
    IntImm,
    Pointer,
    StringImm,
    Var,
    as_expr,
    cast,
    make,
    minimum,
)
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.traverse import free_vars, substitute
from transect.relax import expr as rx
from transect.relax.call import CallTIR, CallTIRInplace
from transect.relax.transform.lower_to_host import SIGNATURE
from transect.relax.visit import bindings, graph_functions
from transect.runtime import Parameter, Signature
from transect.support.span import Spans
from transect.tir.analysis import Features, find_contraction, function_features
from transect.tir.buffer import BufferLoad, buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Bind, BufferStore, Evaluate, IfThenElse, Stmt, seq
from transect.tir.transform.make_packed_api import ARGUMENTS
from transect.tir.visit import StmtRewriter, walk_stmts

RegionKind = Literal["model", "kernel", "library", "packed", "function", "copy"]

_CLOCK, EVENT_COUNT, _HEAD = 0, 2, 3
REGION_FIELDS, EVENT_FIELDS = 4, 3
EVENTS = 1 << 15
"""Events kept for the trace of one call; later ones are counted only."""

_MONOTONIC = 1
"""CLOCK_MONOTONIC of Linux, which `time.perf_counter` reads too."""

_FREE = frozenset({"cast", "select", "reinterpret", "likely", "if_then_else", "address_of"})
"""Kinds of operations that the counts leave out."""


@dataclass(frozen=True)
class TimedCall:
    """One place that is timed: what is called, where, and for which nodes of the model.

    kind: "model" is the whole entry, "function" another graph function (whose own calls are timed
    as well), "copy" a copy of memory. dtype: of the arithmetic.
    """

    kind: RegionKind
    callee: str
    function: str
    spans: Spans = ()
    dtype: DType = FLOAT32


@dataclass(frozen=True)
class Work:
    """What one call of a program computes and moves, over the program's own variables."""

    operations: Expr
    moved: Expr
    dtype: DType


@dataclass(frozen=True)
class Layout:
    """The buffer, in int64: two cells for the clock, the number of events, four numbers for each
    of `regions` regions (calls, nanoseconds, operations, bytes), then three for each event
    (region, begin, end in nanoseconds)."""

    regions: int

    @property
    def events(self) -> int:
        """Where the events begin."""
        return _HEAD + REGION_FIELDS * self.regions

    @property
    def size(self) -> int:
        """All of it."""
        return self.events + EVENT_FIELDS * EVENTS

    def region(self, number: int) -> slice:
        """Where the numbers of a region are."""
        start = _HEAD + REGION_FIELDS * number
        return slice(start, start + REGION_FIELDS)


# --- what programs do -----------------------------------------------------------------------


def program_work(func: PrimFunc) -> Work | None:
    """The work of a tensor program at the block level; None if its loops do not say.

    Moved: what is read and written of the parameters at all, each element once.
    """
    found = function_features(func)
    if not found:
        return None
    known = {*func.params, *symbolic_vars(func)}
    operations: Expr = IntImm(0)
    moved: Expr = IntImm(0)
    dtype = FLOAT32
    most = -1
    for features in found:
        count, kind = _operations(features)
        size = _moved(features, func)
        if any(var not in known for var in free_vars((count, size))):
            return None
        operations, moved = operations + count, moved + size
        rank = len(features.extents)
        if rank > most:
            most, dtype = rank, kind
    return Work(operations, moved, dtype)


def _operations(features: Features) -> tuple[Expr, DType]:
    contraction = find_contraction(features.site)
    if contraction is not None:
        return cast(contraction.operations, INT64), contraction.left.dtype.element
    total: Expr = IntImm(0)
    kinds: dict[str, int] = {}
    for (name, dtype), count in features.operations.items():
        if name not in _FREE:
            total = total + cast(count, INT64)
            kinds[dtype] = kinds.get(dtype, 0) + 1
    kinds.pop("bool", None)
    return total, as_dtype(max(kinds, key=lambda name: kinds[name])) if kinds else FLOAT32


def _moved(features: Features, func: PrimFunc) -> Expr:
    sizes = [
        cast(size, INT64)
        for part in (features.bytes_read, features.bytes_written)
        for item, size in part.items()
        if item in func.buffers
    ]
    total = reduce(lambda a, b: a + b, sizes, as_expr(0))
    # Of a table only the rows that are looked up are read.
    return minimum(total, cast(features.accessed, INT64))


def work_by_name(before: IRModule, planned: IRModule) -> dict[str, Work]:
    """The work of each tensor program of `planned`; what a library computes is taken from the
    program that it stands for in `before`."""
    result: dict[str, Work] = {}
    originals = {var: callee for _, var, callee in _calls(before)}
    for _, var, name in _calls(planned):
        func = planned[name]
        if isinstance(func, PrimFunc) and "library" in func.attrs and var in originals:
            func = before[originals[var]]
        if name not in result and isinstance(func, PrimFunc):
            found = program_work(func)
            if found is not None:
                result[name] = _renamed(found, func, planned[name])
    return result


def _calls(module: IRModule) -> list[tuple[str, rx.Var, str]]:
    found: list[tuple[str, rx.Var, str]] = []
    for name, function in graph_functions(module):
        for binding in bindings(function):
            call = binding.value
            if isinstance(call, rx.Call) and isinstance(call.op, CallTIR | CallTIRInplace):
                callee = call.args[0]
                if isinstance(callee, rx.GlobalFunc):
                    found.append((name, binding.var, callee.name))
    return found


def _renamed(work: Work, func: PrimFunc, other: object) -> Work:
    """The work over the variables of a program with the same interface."""
    if func is other or not isinstance(other, PrimFunc):
        return work
    values: dict[Var, Expr] = dict(zip(symbolic_vars(func), symbolic_vars(other), strict=False))
    return Work(substitute(work.operations, values), substitute(work.moved, values), work.dtype)


# --- timing ---------------------------------------------------------------------------------


def time_calls(
    module: IRModule, entry: str, programs: Mapping[str, tuple[PrimFunc, Work]]
) -> tuple[IRModule, tuple[TimedCall, ...], Layout]:
    """The module, with host functions, in which every call of a host function is timed.

    Each host function gets a buffer parameter `profile` behind those of its signature. programs:
    the work of tensor programs, over the variables of the form given with it. The first of the
    timed calls is the whole of the entry; region i of the buffer is timed call i.
    """
    hosts = {
        name: func
        for name, func in module.functions.items()
        if isinstance(func, PrimFunc) and SIGNATURE in func.attrs
    }
    places = {name: _place(func) for name, func in hosts.items()}
    most = sum(isinstance(s, Evaluate) for f in hosts.values() for s in walk_stmts(f.body))
    record = Layout(1 + most)
    regions = [TimedCall("model", entry, entry)]
    for name, func in hosts.items():
        timer = _Timer(module, name, programs, places, record, regions)
        module = module.with_function(name, timer.function(func, is_entry=name == entry))
    return module, tuple(regions), record


def _place(func: PrimFunc) -> int:
    """Where the buffer stands among the parameters of a host function."""
    return len(Signature.from_json(func.attrs[SIGNATURE]).parameters)


class _Timer(StmtRewriter):
    """Brackets the calls of one host function. places: of the buffer in each host function."""

    def __init__(
        self,
        module: IRModule,
        name: str,
        programs: Mapping[str, tuple[PrimFunc, Work]],
        places: Mapping[str, int],
        record: Layout,
        regions: list[TimedCall],
    ) -> None:
        self.module = module
        self.name = name
        self.programs = programs
        self.places = places
        self.record = record
        self.regions = regions
        self.handle = Var("profile", HANDLE, Pointer(INT64))
        size = (record.size,)
        self.cells = buffer("profile", size, INT64, data=self.handle, alignment=8)

    def function(self, func: PrimFunc, *, is_entry: bool) -> PrimFunc:
        """The function with the buffer as a parameter and its calls bracketed."""
        place = self.places[self.name]
        signature = Signature.from_json(func.attrs[SIGNATURE])
        extra = Parameter("profile", "tensor", "int64", (self.record.size,), 1, mutated=True)
        signature = dataclasses.replace(signature, parameters=(*signature.parameters, extra))
        roles = _inserted(func.attrs[ARGUMENTS], place, "buffer")
        body = self.visit(func.body)
        if is_entry:
            body = self.timed(body, 0)
        return replace(
            func,
            params=_inserted(func.params, place, self.handle),
            buffer_map={**func.buffer_map, self.handle: self.cells},
            body=body,
            attrs={**func.attrs, SIGNATURE: signature.to_json(), ARGUMENTS: roles},
        )

    def visit_evaluate(self, stmt: Evaluate) -> Stmt:
        call = stmt.value
        if not isinstance(call, Call):
            return stmt
        if isinstance(call.op, GlobalVar):
            return self._native(stmt, call, call.op.name)
        if call.op is INTRINSICS["anylist_setitem_call_packed"]:
            name = call.args[2]
            callee = name.value if isinstance(name, StringImm) else "a packed function"
            return self._region(stmt, TimedCall("packed", callee, self.name, stmt.span))
        if call.op is INTRINSICS["memory_copy"]:
            moved = cast(call.args[2], INT64) * 2
            return self._region(stmt, TimedCall("copy", "copy", self.name, stmt.span), moved=moved)
        return stmt

    def _native(self, stmt: Evaluate, call: Call, name: str) -> Stmt:
        callee = self.module[name]
        if name in self.places:
            args = _inserted(call.args, self.places[name], self.handle)
            stmt = replace(stmt, value=Call(call.op, args, call.dtype))
            return self._region(stmt, TimedCall("function", name, self.name, stmt.span))
        kind: RegionKind = "library" if "library" in callee.attrs else "kernel"
        title = str(callee.attrs.get("library", name))
        if name not in self.programs:
            return self._region(stmt, TimedCall(kind, title, self.name, stmt.span))
        func, work = self.programs[name]
        variables = (*func.params, *symbolic_vars(func))
        values = {
            var: cast(value, var.dtype)
            for var, value in zip(variables, call.args, strict=False)
            if not var.dtype.is_handle
        }
        region = TimedCall(kind, title, self.name, stmt.span, work.dtype)
        operations, moved = (substitute(item, values) for item in (work.operations, work.moved))
        return self._region(stmt, region, operations, moved)

    def _region(
        self,
        stmt: Stmt,
        region: TimedCall,
        operations: Expr | None = None,
        moved: Expr | None = None,
    ) -> Stmt:
        self.regions.append(region)
        return self.timed(stmt, len(self.regions) - 1, operations, moved)

    def timed(
        self, stmt: Stmt, number: int, operations: Expr | None = None, moved: Expr | None = None
    ) -> Stmt:
        """`stmt` between two looks at the clock, which go to the record of region `number`."""
        begin, end = Var("begin", INT64), Var("end", INT64)
        start = self.record.region(number).start
        count = self._cell(EVENT_COUNT)
        place = count * EVENT_FIELDS + self.record.events
        event = seq(
            *(
                self._store(place + i, value)
                for i, value in enumerate((as_expr(number), begin, end))
            ),
            self._store(EVENT_COUNT, count + 1),
        )
        amounts = (as_expr(1), end - begin, operations, moved)
        return seq(
            *self._now(begin),
            stmt,
            *self._now(end),
            *(
                self._store(start + i, self._cell(start + i) + cast(amount, INT64))
                for i, amount in enumerate(amounts)
                if amount is not None
            ),
            IfThenElse(make(LT, count, as_expr(EVENTS)), event),
        )

    def _now(self, var: Var) -> tuple[Stmt, Stmt]:
        """The time in nanoseconds as `var`."""
        address = INTRINSICS["address_of"](self._cell(_CLOCK))
        clock = as_expr(_MONOTONIC, INT32)
        read = INTRINSICS["call_extern"]("clock_gettime", clock, address, dtype=INT32)
        now = self._cell(_CLOCK) * 1_000_000_000 + self._cell(_CLOCK + 1)
        return Evaluate(read), Bind(var, now)

    def _cell(self, index: int) -> BufferLoad:
        return BufferLoad(self.cells, (as_expr(index),))

    def _store(self, index: int | Expr, value: Expr) -> Stmt:
        return BufferStore(self.cells, value, (as_expr(index),))


def _inserted(items: Sequence[Any], place: int, item: Any) -> tuple[Any, ...]:
    return (*items[:place], item, *items[place:])
