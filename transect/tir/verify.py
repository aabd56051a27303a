"""The verifier of tensor programs: scopes, definitions, dtypes, blocks and calls.

It holds at every stage, from blocks to flat loops. Rules of single terms are in `verify_expr`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, NoReturn

from transect.ir.dtype import VOID, DType, as_dtype
from transect.ir.expr import Call, Expr, GlobalVar, Var
from transect.ir.function import IRModule
from transect.ir.node import Node
from transect.ir.term import Term
from transect.ir.traverse import walk
from transect.support.errors import InputTypeError, VerifyError
from transect.tir.access import HIDDEN, Access, accesses
from transect.tir.affine import difference
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion
from transect.tir.function import PrimFunc, buffer_fields, symbolic_vars
from transect.tir.stmt import (
    Allocate,
    AllocateConst,
    AssertStmt,
    AttrStmt,
    Bind,
    Block,
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
from transect.tir.verify_expr import index_fault, predicate_fault, term_fault

_CALL_REMEDY = "pass one value per parameter, then one per symbolic variable"


def verify_module(module: IRModule) -> None:
    """Verify every PrimFunc of `module`; functions of other kinds are left to their own room.

    Raises VerifyError at the first fault, with its place and the statements around it.
    """
    for name, function in module.functions.items():
        if isinstance(function, PrimFunc):
            verify_func(function, module, name=name)


def verify_func(func: PrimFunc, module: IRModule | None = None, *, name: str | None = None) -> None:
    """Verify one tensor program; calls of other functions only if the module is given.

    Raises VerifyError at the first fault, with its place and the statements around it.
    """
    _Verifier(module, name or str(func.attrs.get("global_symbol", "a function"))).func(func)


class _Verifier:
    def __init__(self, module: IRModule | None, name: str) -> None:
        self.module = module
        self.name = name
        self.defined: set[Var] = set()
        """Variables in scope."""
        self.ever: set[Var] = set()
        """Variables defined anywhere so far: each may be defined once."""
        self.buffers: set[Buffer] = set()
        self.memory: set[Var] = set()
        """Pointers in scope whose memory exists, so that buffers over them need no declaration."""
        self.loop_vars: list[Var] = []
        self.threads: list[str] = []
        self.path: list[Stmt] = []
        self.checked: set[Term] = set()

    # --- reporting

    def fail(self, message: str, where: Node | None = None, remedy: str | None = None) -> NoReturn:
        chain = [*self.path, *([where] if where is not None and where not in self.path else [])]
        span = next((item.span for item in reversed(chain) if item.span), ())
        notes = [f"in {self.name}"]
        notes += [f"inside: {_first_line(item)}" for item in self.path[-4:-1]]
        if chain:
            notes.append(f"at: {_first_line(chain[-1])}")
        raise VerifyError(message, span=span, notes=notes, remedy=remedy)

    # --- scopes

    @contextmanager
    def scope(self) -> Generator[None]:
        saved = self.defined, self.buffers, self.memory
        self.defined, self.buffers, self.memory = set(saved[0]), set(saved[1]), set(saved[2])
        yield
        self.defined, self.buffers, self.memory = saved

    def define(self, var: Var) -> None:
        if var in self.ever:
            self.fail(
                f"variable {var.name} is defined twice", remedy="copy a statement with fresh_copy"
            )
        self.ever.add(var)
        self.defined.add(var)

    def define_buffer(self, buffer: Buffer) -> None:
        if buffer in self.buffers:
            self.fail(f"buffer {buffer.name} is defined twice")
        self.buffers.add(buffer)
        self.describe(buffer)

    def describe(self, buffer: Buffer) -> None:
        """Check the fields of a buffer that is defined."""
        if not buffer.data.dtype.is_handle:
            self.fail(f"the data of buffer {buffer.name} is {buffer.data.dtype}, not a handle")
        if buffer.strides and len(buffer.strides) != buffer.ndim:
            self.fail(
                f"buffer {buffer.name} has {buffer.ndim} axes but {len(buffer.strides)} strides"
            )
        for field in buffer_fields(buffer):
            if not field.dtype.is_integral or not field.dtype.is_scalar:
                self.fail(f"a dimension, stride or offset of {buffer.name} has dtype {field.dtype}")
        self.terms(buffer_fields(buffer))

    # --- terms

    def terms(self, roots: Iterable[Term | None]) -> None:
        for item in walk(*(root for root in roots if root is not None)):
            if isinstance(item, Var):
                if item not in self.defined:
                    self.fail(
                        f"variable {item.name} is used where it is not defined",
                        remedy="bind it, or give a decision variable its number with "
                        "sch.decide_sizes",
                    )
            elif isinstance(item, BufferLoad | BufferRegion):
                self.use_buffer(item.buffer)
            elif isinstance(item, Call) and isinstance(item.op, GlobalVar):
                self.call(item, item.op)
            if item not in self.checked:
                fault = term_fault(item)
                if fault is not None:
                    self.fail(fault)
                self.checked.add(item)

    def use_buffer(self, buffer: Buffer) -> None:
        if buffer in self.buffers:
            return
        if buffer.data not in self.memory:
            self.fail(
                f"buffer {buffer.name} is used where it is not defined",
                remedy="allocate it in a block, declare it with DeclBuffer, or make it a parameter",
            )
        # Memory of this pointer exists, so a view of it needs no declaration of its own.
        self.buffers.add(buffer)
        self.describe(buffer)

    def expect(self, expr: Expr, dtype: DType, what: str) -> None:
        if expr.dtype is not dtype:
            self.fail(f"{what} has dtype {expr.dtype}, not {dtype}")

    def call(self, call: Call, callee: GlobalVar) -> None:
        if self.module is None:
            return
        if callee.name not in self.module:
            known = ", ".join(self.module.functions)
            self.fail(f"a call of {callee.name}, which the module lacks; it has: {known}")
        function = self.module[callee.name]
        if not isinstance(function, PrimFunc):
            self.fail(f"a call of {callee.name}, which is no tensor program")
        expected = [*function.params, *symbolic_vars(function)]
        if len(call.args) != len(expected):
            names = ", ".join(var.name for var in expected)
            self.fail(
                f"{callee.name} takes {len(expected)} arguments ({names}), got {len(call.args)}",
                remedy=_CALL_REMEDY,
            )
        for arg, var in zip(call.args, expected, strict=True):
            if arg.dtype is not var.dtype:
                self.fail(
                    f"argument {var.name} of {callee.name} is {arg.dtype}, expected {var.dtype}",
                    remedy=_CALL_REMEDY,
                )

    # --- functions

    def func(self, func: PrimFunc) -> None:
        for var in func.params:
            self.define(var)
            if var.dtype.is_handle:
                self.memory.add(var)
        for var, buffer in func.buffer_map.items():
            if var not in func.params or not var.dtype.is_handle:
                self.fail(f"buffer_map has {var.name}, which is not a handle parameter", func)
            if buffer.data not in self.ever:
                self.define(buffer.data)
        symbols = symbolic_vars(func)
        fields = [field for buffer in func.buffers for field in buffer_fields(buffer)]
        for var in symbols:
            if var not in fields:
                self.fail(
                    f"nothing binds {var.name}: it only occurs inside other expressions",
                    func,
                    f"use {var.name} alone as a dimension, or add a scalar parameter {var.name}",
                )
            self.define(var)
        for buffer in func.buffers:
            self.define_buffer(buffer)
        symbol = func.attrs.get("global_symbol", "")
        if not isinstance(symbol, str):
            self.fail(f"global_symbol is {symbol!r}, not a string", func)
        self.stmt(func.body)

    # --- statements

    def stmt(self, stmt: Stmt) -> None:
        self.path.append(stmt)
        rule = _STATEMENTS.get(type(stmt))
        if rule is None:
            self.fail(f"{type(stmt).__name__} is not a statement")
        rule(self, stmt)
        self.path.pop()

    def evaluate(self, stmt: Evaluate) -> None:
        self.terms((stmt.value,))

    def store(self, stmt: BufferStore) -> None:
        self.use_buffer(stmt.buffer)
        self.terms((*stmt.indices, stmt.value, stmt.predicate))
        fault = index_fault(stmt.buffer.name, stmt.indices, stmt.buffer.ndim)
        if fault is not None:
            self.fail(fault)
        lanes = stmt.indices[-1].dtype.lanes if stmt.indices else 1
        fault = predicate_fault(stmt.predicate, lanes)
        if fault is not None:
            self.fail(fault)
        kind = stmt.buffer.dtype
        if lanes > 1:
            kind = kind.element.with_lanes(
                kind.lanes * lanes, scalable=stmt.indices[-1].dtype.scalable
            )
        self.expect(stmt.value, kind, f"the value stored to {stmt.buffer.name}")

    def bind(self, stmt: Bind) -> None:
        self.terms((stmt.value,))
        self.expect(stmt.value, stmt.var.dtype, f"the value of {stmt.var.name}")
        if stmt.value.dtype is VOID:
            self.fail(f"{stmt.var.name} is bound to nothing (void)")
        self.define(stmt.var)
        if stmt.var.dtype.is_handle:
            self.memory.add(stmt.var)

    def allocate(self, stmt: Allocate) -> None:
        self.terms(stmt.extents)
        self.pointer(stmt.var, stmt.dtype)
        for extent in stmt.extents:
            if not extent.dtype.is_integral:
                self.fail(f"an extent of {stmt.var.name} has dtype {extent.dtype}")

    def allocate_const(self, stmt: AllocateConst) -> None:
        self.pointer(stmt.var, as_dtype(stmt.data.dtype))

    def pointer(self, var: Var, dtype: DType) -> None:
        self.define(var)
        self.memory.add(var)
        if not var.dtype.is_handle:
            self.fail(f"the variable {var.name} of an allocation is {var.dtype}, not a handle")
        if var.pointer is not None and var.pointer.element is not dtype:
            self.fail(f"{var.name} points to {var.pointer.element} and gets memory of {dtype}")

    def decl_buffer(self, stmt: DeclBuffer) -> None:
        if stmt.buffer.data not in self.defined:
            self.fail(f"buffer {stmt.buffer.name} is declared over memory that is not in scope")
        self.define_buffer(stmt.buffer)

    def assert_stmt(self, stmt: AssertStmt) -> None:
        self.terms((stmt.condition, *(part for part in stmt.message if isinstance(part, Expr))))
        self.condition(stmt.condition)

    def condition(self, expr: Expr) -> None:
        if not (expr.dtype.is_bool and expr.dtype.is_scalar):
            self.fail(f"a condition of dtype {expr.dtype}, not a scalar bool")

    def attr(self, stmt: AttrStmt) -> None:
        with self.scope():
            subject = stmt.node
            if isinstance(subject, IterVar):
                self.terms((subject.dom,))
                if subject.var not in self.ever:
                    self.define(subject.var)
            elif isinstance(subject, Buffer):
                self.use_buffer(subject)
            self.terms(item for item in (stmt.value,) if isinstance(item, Term))
            self.stmt(stmt.body)

    def seq(self, stmt: SeqStmt) -> None:
        with self.scope():
            for item in stmt.stmts:
                self.stmt(item)

    def inner(self, stmt: Stmt | None) -> None:
        if stmt is not None:
            with self.scope():
                self.stmt(stmt)

    def if_then_else(self, stmt: IfThenElse) -> None:
        self.terms((stmt.condition,))
        self.condition(stmt.condition)
        self.inner(stmt.then_case)
        self.inner(stmt.else_case)

    def while_loop(self, stmt: While) -> None:
        self.terms((stmt.condition,))
        self.condition(stmt.condition)
        self.inner(stmt.body)

    def for_loop(self, stmt: For) -> None:
        self.terms((stmt.min, stmt.extent))
        if not (stmt.var.dtype.is_integral and stmt.var.dtype.is_scalar):
            self.fail(f"the loop variable {stmt.var.name} is {stmt.var.dtype}, not an integer")
        self.expect(stmt.min, stmt.var.dtype, f"the start of the loop over {stmt.var.name}")
        self.expect(stmt.extent, stmt.var.dtype, f"the extent of the loop over {stmt.var.name}")
        if (stmt.kind == "thread_binding") is (stmt.thread is None):
            self.fail(f"a {stmt.kind} loop with the thread axis {stmt.thread}")
        # Virtual threads nest; a hardware axis cannot mean two things at once.
        thread = None if stmt.thread in (None, "vthread") else stmt.thread
        if thread is not None and thread in self.threads:
            self.fail(f"a loop over {thread} inside another one", remedy="bind each axis once")
        if thread is not None:
            self.threads.append(thread)
        with self.scope():
            self.define(stmt.var)
            self.loop_vars.append(stmt.var)
            self.stmt(stmt.body)
            self.loop_vars.pop()
        if thread is not None:
            self.threads.pop()

    def block(self, stmt: Block) -> None:
        self.fail(f"block {stmt.name} stands outside a BlockRealize")

    def realize(self, stmt: BlockRealize) -> None:
        block = stmt.block
        self.terms((*stmt.iter_values, stmt.predicate))
        self.condition(stmt.predicate)
        if len(stmt.iter_values) != len(block.iter_vars):
            self.fail(
                f"block {block.name} has {len(block.iter_vars)} iteration variables, "
                f"{len(stmt.iter_values)} are bound"
            )
        self.path.append(block)
        loops, outside = self.loop_vars, set(self.loop_vars)
        with self.scope():
            for iter_var, value in zip(block.iter_vars, stmt.iter_values, strict=True):
                self.terms((iter_var.dom,))
                self.expect(value, iter_var.var.dtype, f"the binding of {iter_var.var.name}")
                self.expect(
                    iter_var.dom.extent, iter_var.var.dtype, f"the domain of {iter_var.var.name}"
                )
            if block.iter_vars:
                # A block with iteration variables sees the loops around it only through them.
                self.defined -= outside
                self.loop_vars = []
            for iter_var in block.iter_vars:
                self.define(iter_var.var)
            self.block_scope(block)
        self.loop_vars = loops
        self.path.pop()

    def block_scope(self, block: Block) -> None:
        for buffer in block.alloc_buffers:
            self.define(buffer.data)
            self.define_buffer(buffer)
        for match in block.match_buffers:
            self.terms((match.source,))
            if match.source.buffer.dtype is not match.buffer.dtype:
                self.fail(f"{match.buffer.name} matches a region of {match.source.buffer.dtype}")
            for var in (match.buffer.data, *buffer_fields(match.buffer)):
                if isinstance(var, Var) and var not in self.ever:
                    self.define(var)
            self.define_buffer(match.buffer)
        self.terms((*block.reads, *block.writes))
        _reduction_rules(self, block)
        self.inner(block.init)
        self.inner(block.body)
        _region_rules(self, block)


def _reduction_rules(verifier: _Verifier, block: Block) -> None:
    if block.init is None:
        return
    reduced = {item.var for item in block.iter_vars if item.kind == "reduce"}
    for access in accesses(block.init):
        ends = [end for pair in access.ranges if pair is not None for end in pair]
        if any(item in reduced for item in walk(*ends)):
            verifier.fail(
                f"the init of block {block.name} depends on a reduce iteration variable",
                remedy="init runs once per spatial instance, before the first reduce iteration",
            )
    for region in block.writes:
        if any(item in reduced for item in walk(*region.ranges)):
            verifier.fail(
                f"block {block.name} has an init and writes {region.buffer.name} at a place that "
                "depends on a reduce iteration variable"
            )


def _region_rules(verifier: _Verifier, block: Block) -> None:
    """The declared regions hold what the block does, as far as that can be refuted."""
    if not block.reads and not block.writes:
        return  # A block that declares nothing is opaque.
    parts = [block.body] if block.init is None else [block.init, block.body]
    matched = {match.buffer for match in block.match_buffers}
    inner = matched | set(block.alloc_buffers)
    hidden = block.annotations.get(HIDDEN, ())
    written = {region.buffer for region in block.writes}
    for access in (item for part in parts for item in accesses(part)):
        if access.buffer in inner or access.buffer.name in hidden:
            continue
        if not access.write and access.buffer in written:
            continue  # A reduction reads what it accumulates into.
        declared = [
            region
            for region in (block.writes if access.write else block.reads)
            if region.buffer.data is access.buffer.data
        ]
        verb = "writes" if access.write else "reads"
        if not declared:
            verifier.fail(
                f"block {block.name} {verb} {access.buffer.name} and does not say so",
                remedy=f"add it to T.{verb}(...)",
            )
        if all(_outside(access, region) for region in declared):
            verifier.fail(
                f"block {block.name} {verb} {access.buffer.name} outside the region it declares"
            )


def _outside(access: Access, region: BufferRegion) -> bool:
    """Whether the access certainly leaves the region on some axis."""
    if region.buffer is not access.buffer:
        return False
    for ends, declared in zip(access.ranges, region.ranges, strict=True):
        if ends is None:
            continue
        below = difference(ends[0], declared.min)
        above = difference(ends[1], declared.min + declared.extent)
        if (below is not None and below < 0) or (above is not None and above >= 0):
            return True
    return False


def _first_line(item: Node) -> str:
    try:
        text = repr(item).strip().split("\n", 1)[0]
    except InputTypeError:  # A node too broken to print still has a kind.
        text = type(item).__name__
    return text if len(text) <= 100 else f"{text[:97]}..."


_STATEMENTS: dict[type[Any], Callable[[_Verifier, Any], None]] = {
    Evaluate: _Verifier.evaluate,
    BufferStore: _Verifier.store,
    Bind: _Verifier.bind,
    Allocate: _Verifier.allocate,
    AllocateConst: _Verifier.allocate_const,
    DeclBuffer: _Verifier.decl_buffer,
    AssertStmt: _Verifier.assert_stmt,
    AttrStmt: _Verifier.attr,
    SeqStmt: _Verifier.seq,
    IfThenElse: _Verifier.if_then_else,
    For: _Verifier.for_loop,
    While: _Verifier.while_loop,
    Block: _Verifier.block,
    BlockRealize: _Verifier.realize,
}
