"""Random small kernels: compiled code and the interpreter agree at every element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.codegen.support import assert_same, compiled
from transect.ir.dtype import HANDLE
from transect.ir.expr import Expr, IntImm, Var, as_expr, cast, maximum, minimum, select
from transect.tir.buffer import Buffer, buffer
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import (
    Allocate,
    Bind,
    BufferStore,
    DeclBuffer,
    For,
    ForKind,
    IfThenElse,
    Stmt,
    seq,
)

OPERATIONS: tuple[Callable[[Expr, Expr], Expr], ...] = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    minimum,
    maximum,
    lambda a, b: select(a < b, a, b + 1),
)
KINDS: tuple[ForKind, ...] = ("serial", "vectorized", "unrolled", "parallel")


class Kernel:
    """Draws a kernel over x, y: (n, 8) of one dtype, for loops over n and 8."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.dtype = draw(
            st.sampled_from(["int32", "float32", "int64", "uint8", "float64", "int8"])
        )
        self.n = Var("n")
        self.x = buffer("x", (self.n, 8), self.dtype)
        self.y = buffer("y", (self.n, 8), self.dtype)
        self.count = 0

    def index(self, low: Expr, width: int) -> Expr:
        """An index of an axis of 8, from a variable of [0, width)."""
        kind = self.draw(st.integers(0, 4))
        if kind == 0:
            return low
        if kind == 1:
            return (low + self.draw(st.integers(0, 9))) % 8
        if kind == 2:
            return as_expr(width - 1) - low
        if kind == 3:
            return (low * self.draw(st.integers(1, 5)) + 3) // 4 % 8
        return as_expr(self.draw(st.integers(0, 7)))

    def value(self, sources: list[Buffer], i: Expr, j: Expr, depth: int) -> Expr:
        """A random expression of the kernel's dtype."""
        if depth == 0 or self.draw(st.integers(0, 3)) == 0:
            choice = self.draw(st.integers(0, len(sources) + 1))
            if choice < len(sources):
                return sources[choice][i, self.index(j, 8)]
            if choice == len(sources):
                return cast(i + j, self.dtype)
            return as_expr(self.draw(st.integers(0, 5))).astype(self.dtype)
        a = self.value(sources, i, j, depth - 1)
        b = self.value(sources, i, j, depth - 1)
        if self.draw(st.integers(0, 5)) == 0:
            guard = self.draw(st.sampled_from([j < 5, i < self.n - 1, (j + i) % 2 < 1]))
            inside = self.x[i, self.index(j, 8)]
            return INTRINSICS["if_then_else"](guard, inside, a, dtype=a.dtype)
        return self.draw(st.sampled_from(OPERATIONS))(a, b)

    def statement(self, target: Buffer, sources: list[Buffer], i: Expr, j: Expr) -> Stmt:
        """A store into column j of row i, perhaps under a condition or through a binding."""
        value = self.value(sources, i, j, 2)
        store: Stmt = BufferStore(target, value, (i, j))
        kind = self.draw(st.integers(0, 4))
        if kind == 0:
            other = BufferStore(target, value + 1, (i, j)) if self.draw(st.booleans()) else None
            return IfThenElse(
                self.draw(st.sampled_from([j < 3, i * 8 + j < 13, j >= i])), store, other
            )
        if kind == 1:
            var = Var("v", value.dtype)
            return seq(Bind(var, value), BufferStore(target, var + var, (i, j)))
        if kind == 2:
            update = target[i, j] + value
            return seq(store, BufferStore(target, update, (i, j)))
        return store

    def nest(self, target: Buffer, sources: list[Buffer], i: Expr) -> Stmt:
        """The loop over the columns of row i."""
        j = Var("j")
        return For(
            j,
            IntImm(0),
            IntImm(8),
            self.draw(st.sampled_from(KINDS[:3])),
            self.statement(target, sources, i, j),
        )

    def build(self) -> PrimFunc:
        """The kernel: rows outside, one or two nests inside, perhaps a temporary row."""
        i = Var("i")
        stmts: list[Stmt] = []
        sources = [self.x]
        if self.draw(st.booleans()):
            data = buffer("t", (self.n, 8), self.dtype).data
            t = buffer("t", (self.n, 8), self.dtype, data=data)
            j = Var("j")
            stmts += [Allocate(data, t.dtype, (self.n, as_expr(8)), {}), DeclBuffer(t)]
            first = For(
                j, IntImm(0), IntImm(8), "vectorized", BufferStore(t, self.x[i, j] + 2, (i, j))
            )
            stmts += [first, self.nest(self.y, [self.x, t], i)]
        else:
            stmts.append(self.nest(self.y, sources, i))
        kind = self.draw(st.sampled_from(["serial", "parallel"]))
        body = For(i, IntImm(0), self.n, kind, seq(*stmts))
        a, b = Var("a", HANDLE), Var("b", HANDLE)
        return PrimFunc((a, b), {a: self.x, b: self.y}, body)


@st.composite
def kernels(draw: st.DrawFn) -> PrimFunc:
    """Random kernels."""
    return Kernel(draw).build()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(kernels(), st.sampled_from([0, 1, 3, 20]))
def test_compiled_kernels_agree_with_the_interpreter(program: PrimFunc, n: int) -> None:
    dtype = program.buffers[0].dtype.numpy
    x = np.random.default_rng(n).integers(0, 100, (n, 8)).astype(dtype)
    ours, theirs = np.zeros((n, 8), dtype), np.zeros((n, 8), dtype)
    compiled(program)(x, ours)
    Interpreter().run(program, x.copy(), theirs)
    assert_same(ours, theirs, rtol=1e-5 if np.dtype(dtype).kind == "f" else 0.0)
