"""The verifier accepts what the builder writes and names the fault of what is broken."""

from collections.abc import Callable

import pytest

from transect.ir.dtype import FLOAT32, INT32, VOID
from transect.ir.expr import Call, Expr, GlobalVar, IntImm, Ramp, Range, Var, true
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.support.errors import VerifyError
from transect.support.span import Span
from transect.tir import op
from transect.tir.buffer import Buffer, BufferRegion, buffer
from transect.tir.builder import ARGMAX, FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    SeqStmt,
    Stmt,
    realize_root,
)
from transect.tir.verify import verify_func, verify_module
from transect.tir.visit import map_stmt


def _matmul() -> PrimFunc:
    n, m, d = Var("n"), Var("m"), Var("d")
    b = FunctionBuilder("mm")
    x, w = b.input("x", (n, d)), b.input("w", (d, m))
    return b.finish(b.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y"))


def _function(body: Callable[[Buffer], Stmt]) -> PrimFunc:
    a, handle = buffer("A", (8,)), Var("A", "handle")
    return PrimFunc((handle,), {handle: a}, realize_root(body(a)))


def _loop(extent: int, body: Callable[[Var], Stmt], **fields: object) -> For:
    i = Var("i")
    return For(i, IntImm(0), IntImm(extent), fields.pop("kind", "serial"), body(i), **fields)


def test_builder_output_is_valid() -> None:
    verify_func(_matmul())
    b = FunctionBuilder()
    x = b.input("x", (3, 5))
    verify_func(b.finish(b.reduce_with(ARGMAX, (3,), (5,), lambda i, k: (k, x[i, k]))))


def _edit(func: PrimFunc, **changes: object) -> PrimFunc:
    """The function with fields of its first inner block changed."""

    def change(stmt: Stmt) -> Stmt:
        return replace(stmt, **changes) if isinstance(stmt, Block) and stmt.iter_vars else stmt

    return replace(func, body=map_stmt(func.body, change))


def _twice(a: Buffer) -> Stmt:
    x = Var("x")
    return SeqStmt((Bind(x, IntImm(1)), Bind(x, IntImm(2))))


def _branch_scope(a: Buffer) -> Stmt:
    x = Var("x")
    return SeqStmt(
        (IfThenElse(true(), Bind(x, IntImm(1))), BufferStore(a, IntImm(1).astype("float32"), (x,)))
    )


def _isolation(a: Buffer) -> Stmt:
    def body(i: Var) -> Stmt:
        v = Var("v")
        store = BufferStore(a, op.exp(1.0), (i,))
        block = Block("b", (IterVar(v, Range.of(8), "spatial"),), (), (), store)
        return BlockRealize((i,), true(), block)

    return _loop(8, body)


def _bindings(a: Buffer) -> Stmt:
    block = Block("b", (IterVar(Var("v"), Range.of(8), "spatial"),), (), (), Evaluate(IntImm(0)))
    return BlockRealize((), true(), block)


def _lane(a: Buffer) -> Stmt:
    return BufferStore(a, op.exp(1.0), (Ramp(IntImm(0), IntImm(1), 4),))


def _bad_call(a: Buffer) -> Stmt:
    return Evaluate(Call(op.INTRINSICS["exp"], (IntImm(3),), IntImm(3).dtype))


def _wrong_result(a: Buffer) -> Stmt:
    return Evaluate(Call(op.INTRINSICS["isnan"], (op.exp(1.0),), FLOAT32))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            lambda a: BufferStore(a, IntImm(1), (IntImm(0),)),
            "stored to A has dtype int64, not float32",
        ),
        (
            lambda a: BufferStore(a, op.exp(1.0), (IntImm(0), IntImm(0))),
            "has 1 dimensions and is indexed with 2",
        ),
        (lambda a: BufferStore(a, op.exp(1.0), (op.exp(1.0),)), "index 0 of A has dtype float32"),
        (
            lambda a: BufferStore(a, op.exp(1.0), (Var("j"),)),
            "variable j is used where it is not defined",
        ),
        (
            lambda a: BufferStore(buffer("B", (2,)), op.exp(1.0), (IntImm(0),)),
            "buffer B is used where",
        ),
        (_twice, "variable x is defined twice"),
        (_branch_scope, "variable x is used where it is not defined"),
        (_isolation, "variable i is used where it is not defined"),
        (_bindings, "has 1 iteration variables, 0 are bound"),
        (_lane, "not float32x4"),
        (_bad_call, "T.exp of int64, which is not a float"),
        (_wrong_result, "a test of float32 with dtype float32"),
        (
            lambda a: _loop(8, Evaluate, thread="threadIdx.x"),
            "a serial loop with the thread axis",
        ),
        (
            lambda a: _loop(
                8,
                lambda i: _loop(4, Evaluate, kind="thread_binding", thread="threadIdx.x"),
                kind="thread_binding",
                thread="threadIdx.x",
            ),
            "a loop over threadIdx.x inside another",
        ),
        (lambda a: IfThenElse(IntImm(1), Evaluate(IntImm(0))), "a condition of dtype int64"),
    ],
)
def test_fault_is_named(body: Callable[[Buffer], Stmt], message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_func(_function(body))


def test_error_shows_place_and_neighbours() -> None:
    span = Span("kernel.py", 7, 4, 7, 20, "    A[i] = missing")
    func = _function(
        lambda a: _loop(8, lambda i: BufferStore(a, op.exp(1.0), (Var("missing"),), span=(span,)))
    )
    with pytest.raises(VerifyError) as caught:
        verify_func(func)
    text = str(caught.value)
    assert "kernel.py:7" in text
    assert "at: " in text
    assert "inside: " in text


def test_undeclared_read_is_found() -> None:
    with pytest.raises(VerifyError, match="reads x and does not say so"):
        verify_func(_edit(_matmul(), reads=()))


def test_access_outside_the_declared_region_is_found() -> None:
    func = _matmul()
    y = func.buffers[-1]

    def move(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Block) and stmt.iter_vars:
            i, j, _ = (item.var for item in stmt.iter_vars)
            away = (Range(i + 1, IntImm(1)), Range(j, IntImm(1)))
            return replace(stmt, writes=(BufferRegion(y, away),))
        return stmt

    with pytest.raises(VerifyError, match="writes y outside the region it declares"):
        verify_func(replace(func, body=map_stmt(func.body, move)))


def test_init_that_depends_on_a_reduce_variable_is_found() -> None:
    func = _matmul()

    def spoil(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Block) and isinstance(stmt.init, BufferStore):
            i, _, k = (item.var for item in stmt.iter_vars)
            return replace(stmt, init=replace(stmt.init, indices=(i, k)))
        return stmt

    with pytest.raises(VerifyError, match="init of block y depends on a reduce"):
        verify_func(replace(func, body=map_stmt(func.body, spoil)))


def _caller(*args: Expr) -> PrimFunc:
    return PrimFunc((), {}, Evaluate(Call(GlobalVar("mm"), args, VOID)))


def test_call_checks_count_and_dtypes() -> None:
    module = IRModule.of(mm=_matmul())
    pointers = [Var(name, "handle") for name in "xwy"]
    sizes = [IntImm(2), IntImm(3), IntImm(4)]

    def caller(*args: Expr) -> PrimFunc:
        return replace(_caller(*args), params=tuple(pointers))

    verify_module(module.with_function("main", caller(*pointers, *sizes)))
    with pytest.raises(VerifyError, match="takes 6 arguments"):
        verify_module(module.with_function("main", caller(*pointers)))
    with pytest.raises(VerifyError, match="argument n of mm is int32, expected int64"):
        verify_module(module.with_function("main", caller(*pointers, IntImm(2, INT32), *sizes[1:])))
    with pytest.raises(VerifyError, match="which the module lacks"):
        verify_module(IRModule.of(main=caller(*pointers, *sizes)))


def test_unbound_symbol_of_a_buffer_is_found() -> None:
    n = Var("n")
    a, handle = buffer("A", (n * 2,)), Var("A", "handle")
    func = PrimFunc((handle,), {handle: a}, realize_root(Evaluate(IntImm(0))))
    with pytest.raises(VerifyError, match="nothing binds n"):
        verify_func(func)
