"""Random small tensor programs, and the arguments to run them with.

A program is a few pieces in a row: maps, tiles, reductions, scans, while loops, gathers, scatters,
temporaries, branches, assertions, calls. Each fills a buffer of its own from the inputs and from
what earlier pieces filled. Values are such that every operation is exact or insensitive to
contraction, and undefined behaviour does not occur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.values import DTYPES, FLOATS, Values
from transect.ir.dtype import HANDLE, INT64, DType, as_dtype
from transect.ir.expr import (
    LT,
    Add,
    And,
    Binary,
    Expr,
    IntImm,
    Max,
    Min,
    Mul,
    Or,
    Range,
    Sub,
    Var,
    as_expr,
    cast,
    const,
    make,
    true,
)
from transect.ir.function import IRModule
from transect.tir import op
from transect.tir.access import block_regions
from transect.tir.buffer import Buffer, buffer
from transect.tir.builder import store
from transect.tir.function import PrimFunc
from transect.tir.stmt import (
    Allocate,
    AssertStmt,
    Bind,
    Block,
    BlockRealize,
    DeclBuffer,
    For,
    IfThenElse,
    IterKind,
    IterVar,
    SeqStmt,
    Stmt,
    While,
    realize_root,
    seq,
)

_KINDS = ("serial", "parallel", "unrolled", "vectorized")
MIX = "transect.test.mix"
"""A packed function of two integers; see `mix`."""


def mix(a: int, b: int) -> int:
    """What the packed function `MIX` computes. Raises ValueError if a is 7."""
    if a == 7:
        raise ValueError(f"mix of {a} and {b}")
    return 3 * a - b


class Program:
    """A module with the function "main", and what to call it with. Shows as script."""

    def __init__(
        self,
        module: IRModule,
        arguments: list[np.ndarray],
        inexact: frozenset[int] = frozenset(),
    ) -> None:
        self.module = module
        self.arguments = arguments
        self.inexact = inexact
        """Numbers of the arguments that are accurate to some units in the last place."""

    def __repr__(self) -> str:
        return f"{self.module!r}\n\n{self.arguments!r}"


@dataclass
class _State(Values):
    n: Var = field(default_factory=lambda: Var("n", INT64))
    m: Var = field(default_factory=lambda: Var("m", INT64))
    outputs: list[Buffer] = field(default_factory=list)
    inexact_outputs: list[Buffer] = field(default_factory=list)
    steps: list[Stmt] = field(default_factory=list)
    names: int = 0
    empty: Buffer | None = None
    """A buffer of shape (z, n), where z may be 0."""

    def name(self, base: str) -> str:
        self.names += 1
        return f"{base}{self.names}"

    def output(self, shape: tuple[Expr, ...], dtype: DType) -> Buffer:
        made = buffer(self.name("out"), shape, dtype)
        self.outputs.append(made)
        return made

    # --- statements

    def loops(
        self, extents: list[Expr], body: Callable[[list[Var]], Stmt], *, free: bool = True
    ) -> Stmt:
        """Loops around `body(variables)`; free: any kind that runs iterations in any order."""
        variables = [Var(self.name("i"), INT64) for _ in extents]
        stmt = body(variables)
        for var, extent in reversed(list(zip(variables, extents, strict=True))):
            kind = self.pick(_KINDS) if free else self.pick(("serial", "unrolled"))
            if kind in ("unrolled", "vectorized") and not isinstance(extent, IntImm):
                kind = "serial"
            if kind == "vectorized" and any(True for _ in _inner_loops(stmt)):
                kind = "serial"
            stmt = For(var, IntImm(0), extent, kind, stmt)
        return stmt

    def block(
        self,
        values: list[Expr],
        domains: list[Expr],
        kinds: list[IterKind],
        body: Callable[[list[Var]], Stmt],
        init: Callable[[list[Var]], Stmt] | None = None,
        predicate: Expr | None = None,
    ) -> Stmt:
        axes = [
            IterVar(Var(self.name("v"), INT64), Range(IntImm(0), as_expr(extent)), kind)
            for extent, kind in zip(domains, kinds, strict=True)
        ]
        variables = [axis.var for axis in axes]
        inner = body(variables)
        start = None if init is None else init(variables)
        parts = (inner,) if start is None else (start, inner)
        reads, writes = block_regions(*parts)
        made = Block(self.name("block"), tuple(axes), reads, writes, inner, start)
        return BlockRealize(tuple(values), true() if predicate is None else predicate, made)

    def shape(self) -> tuple[Expr, ...]:
        return self.pick(
            [
                *[(self.n,), (self.n, self.m), (self.m,), (IntImm(8),), (self.n, IntImm(4))],
                *[(IntImm(6), self.m), (self.n, IntImm(16)), (IntImm(2), IntImm(3), self.n)],
            ]
        )

    def map_piece(self) -> None:
        shape, dtype = self.shape(), self.dtype()
        out = self.output(shape, dtype)

        def body(variables: list[Var]) -> Stmt:
            if self.chance():
                return store(out, tuple(variables), self.expr(dtype, variables))
            return self.block(
                list(variables),
                list(shape),
                ["spatial"] * len(shape),
                lambda v: store(out, tuple(v), self.expr(dtype, v)),
            )

        self.steps.append(self.loops(list(shape), body))

    def reversed_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.m, self.n), dtype)

        def body(variables: list[Var]) -> Stmt:
            i, j = variables
            return store(out, (self.m - 1 - j, (self.n - 1) - i), self.expr(dtype, variables))

        self.steps.append(self.loops([self.n, self.m], body))

    def inexact_piece(self) -> None:
        dtype = as_dtype(self.pick(FLOATS))
        out = self.output((self.n, IntImm(8)), dtype)
        self.outputs.remove(out)
        self.inexact_outputs.append(out)
        self.steps.append(
            self.loops([self.n, IntImm(8)], lambda v: store(out, tuple(v), self.inexact(dtype, v)))
        )

    def empty_piece(self) -> None:
        """Loops over z, which may be 0: a map, and a reduction."""
        if self.empty is None:
            return
        source, z = self.empty, self.empty.shape[0]
        dtype = self.dtype()
        mapped, reduced = self.output((z, self.m), dtype), self.output((self.n,), source.dtype)
        self.outputs.remove(mapped)
        self.inexact_outputs.append(mapped)
        self.steps.append(
            self.loops([z, self.m], lambda v: store(mapped, tuple(v), self.expr(dtype, v[1:], 2)))
        )

        def body(variables: list[Var]) -> Stmt:
            return self.block(
                list(variables),
                [self.n, z],
                ["spatial", "reduce"],
                lambda v: store(reduced, (v[0],), reduced[v[0]] + source[v[1], v[0]]),
                lambda v: store(reduced, (v[0],), const(0, source.dtype)),
            )

        self.steps.append(self.loops([self.n, z], body, free=False))

    def packed_piece(self) -> None:
        """Calls of a packed function, once and in a loop; it fails where its argument is 7."""
        out = self.output((self.n,), INT64)
        x = Var(self.name("x"), INT64)
        self.steps.append(Bind(x, op.call_packed(MIX, self.m, self.n % 3, dtype=INT64)))

        def body(variables: list[Var]) -> Stmt:
            value = self.convert(self.load(variables), INT64)
            return store(out, tuple(variables), op.call_packed(MIX, value, x, dtype=INT64) + x)

        var = Var(self.name("i"), INT64)
        self.steps.append(For(var, IntImm(0), self.n, "serial", body([var])))

    def tile_piece(self) -> None:
        dtype, size = self.dtype(), self.pick([2, 4, 8])
        out = self.output((self.n,), dtype)
        tiles = (self.n + (size - 1)) // size

        def body(variables: list[Var]) -> Stmt:
            index = variables[0] * size + variables[1]
            if self.chance():
                value = store(out, (index,), self.expr(dtype, [index, *variables][1:]))
                return IfThenElse(index < self.n, value)
            return self.block(
                [index],
                [self.n],
                ["spatial"],
                lambda v: store(out, tuple(v), self.expr(dtype, v)),
                predicate=index < self.n,
            )

        self.steps.append(self.loops([tiles, IntImm(size)], body))

    def reduction(self, dtype: DType) -> tuple[type[Binary], Expr]:
        """An operation, and what it starts from."""
        if dtype.is_bool:
            return self.pick([(And, const(1, dtype)), (Or, const(0, dtype))])
        return self.pick(
            [
                (Add, const(0, dtype)),
                (Min, op.highest(dtype)),
                (Max, op.lowest(dtype)),
                (Mul, const(1, dtype)),
            ]
        )

    def reduce_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.n,), dtype)
        kind, start = self.reduction(dtype)

        def body(variables: list[Var]) -> Stmt:
            def update(v: list[Var]) -> Stmt:
                value = self.expr(dtype, v, 1 if kind is Mul else 2)
                return store(out, (v[0],), make(kind, out[v[0]], value))

            return self.block(
                list(variables),
                [self.n, self.m],
                ["spatial", "reduce"],
                update,
                lambda v: store(out, (v[0],), start),
            )

        self.steps.append(self.loops([self.n, self.m], body, free=False))

    def scan_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.n,), dtype)
        self.steps.append(store(out, (IntImm(0),), self.expr(dtype, [])))

        def body(variables: list[Var]) -> Stmt:
            (i,) = variables
            added = self.expr(dtype, variables, 1)
            kind: type[Binary] = self.pick(_updates(dtype, Sub))
            return store(out, (i + 1,), make(kind, out[i], added))

        self.steps.append(self.loops([self.n - 1], body, free=False))

    def while_piece(self) -> None:
        out = self.output((self.n,), INT64)
        counter = buffer(self.name("counter"), (1,), INT64)
        zero = IntImm(0)
        k = Var(self.name("k"), INT64)
        body = SeqStmt(
            (
                Bind(k, counter[zero]),
                store(out, (k,), k * self.number(1, 5)),
                store(counter, (zero,), k + 1),
            )
        )
        self.steps.append(
            SeqStmt(
                (
                    Allocate(counter.data, counter.dtype, counter.shape, {}),
                    DeclBuffer(counter),
                    store(counter, (zero,), 0),
                    While(counter[zero] < self.n, body),
                )
            )
        )

    def temporary_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.n, IntImm(4)), dtype)
        scratch = buffer(self.name("t"), (4,), dtype)

        def body(variables: list[Var]) -> Stmt:
            (i,) = variables
            fill = self.loops(
                [IntImm(4)],
                lambda v: store(scratch, tuple(v), self.expr(dtype, [i, *v], 2)),
            )
            shift = self.number(0, 3)
            use = self.loops(
                [IntImm(4)], lambda v: store(out, (i, v[0]), scratch[(v[0] + shift) % 4])
            )
            memory = Allocate(scratch.data, dtype, (IntImm(4),), {})
            return SeqStmt((memory, DeclBuffer(scratch), fill, use))

        var = Var(self.name("i"), INT64)
        kind = self.pick(("serial", "parallel"))
        self.steps.append(For(var, IntImm(0), self.n, kind, body([var])))

    def branch_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.n,), dtype)

        def body(variables: list[Var]) -> Stmt:
            x = Var(self.name("x"), dtype)
            bind = Bind(x, self.expr(dtype, variables, 2))
            kind = Or if dtype.is_bool else Add
            one = store(out, tuple(variables), make(kind, x, const(1, dtype)))
            kind = And if dtype.is_bool else Sub
            other = store(out, tuple(variables), make(kind, x, self.leaf(dtype, variables)))
            return SeqStmt((bind, IfThenElse(self.condition(variables), one, other)))

        self.steps.append(self.loops([self.n], body))

    def scatter_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.m,), dtype)
        self.steps.append(
            self.loops([self.m], lambda v: store(out, tuple(v), self.leaf(dtype, list(v))))
        )

        def body(variables: list[Var]) -> Stmt:
            where = cast(self.convert(self.load(variables), INT64) % self.m, INT64)
            kind = Or if dtype.is_bool else Add
            return store(out, (where,), make(kind, out[where], self.leaf(dtype, variables)))

        self.steps.append(self.loops([self.n], body, free=False))

    def update_piece(self) -> None:
        if not self.outputs:
            return
        target = self.pick(self.outputs)
        self.readable = [item for item in self.readable if item is not target]

        def body(variables: list[Var]) -> Stmt:
            old = target[tuple(variables)]
            kind: type[Binary] = self.pick(_updates(target.dtype))
            return store(
                target, tuple(variables), make(kind, old, self.leaf(target.dtype, list(variables)))
            )

        self.steps.append(self.loops(list(target.shape), body))
        self.readable.append(target)

    def assert_piece(self) -> None:
        kind = self.pick(("ValueError", "TypeError", "RuntimeError"))
        # About half of them fail, so that errors are compared as well.
        if self.chance():
            holds = LT(self.n, IntImm(self.number(0, 9)))
            self.steps.append(AssertStmt(holds, ("n is ", self.n, ", m is ", self.m), kind))
            return
        var = Var(self.name("i"), INT64)
        value = self.leaf(self.dtype(), [var])
        message = ("at ", var, " 100% is ", value, ", a number")
        check = AssertStmt(
            LT(var, IntImm(self.number(0, 9))) | self.condition([var]), message, kind
        )
        self.steps.append(For(var, IntImm(0), self.n, "serial", check))

    def call_piece(self) -> None:
        callee, dtype = self.pick([("helper", "float32"), ("chain", "float64")])
        out = self.output((self.n, self.m), as_dtype(dtype))
        self.steps.append(op.call_function(callee, self.readable[0].data, out.data, self.n, self.m))


def _updates(dtype: DType, *more: type[Binary]) -> list[type[Binary]]:
    return [And, Or] if dtype.is_bool else [Add, Max, Min, *more]


def _inner_loops(stmt: Stmt) -> list[For]:
    found = [stmt] if isinstance(stmt, For) else []
    if isinstance(stmt, SeqStmt):
        for item in stmt.stmts:
            found += _inner_loops(item)
    if isinstance(stmt, IfThenElse):
        found += _inner_loops(stmt.then_case)
    return found


_PIECES = (
    "map_piece", "map_piece", "tile_piece", "reduce_piece", "scan_piece", "while_piece",
    "temporary_piece", "branch_piece", "scatter_piece", "update_piece", "assert_piece",
    "call_piece", "reversed_piece", "inexact_piece", "empty_piece", "packed_piece",
)  # fmt: skip


def _helper() -> PrimFunc:
    """helper(a, b): b[i, j] = a[i, j] + a[i, 0]."""
    rows, columns = Var("rows"), Var("columns")
    a, b = buffer("a", (rows, columns)), buffer("b", (rows, columns))
    i, j = Var("i"), Var("j")
    body = store(b, (i, j), a[i, j] + a[i, 0])
    loops = For(i, IntImm(0), rows, "serial", For(j, IntImm(0), columns, "serial", body))
    handles = (Var("a", HANDLE), Var("b", HANDLE))
    return PrimFunc(handles, dict(zip(handles, (a, b), strict=True)), realize_root(loops), {})


def _chain(draw: st.DrawFn) -> PrimFunc:
    """chain(a, c): some map of a into c, of which a part comes from a call of helper."""
    a = buffer("a", (Var("rows", INT64), Var("columns", INT64)))
    rows, columns = a.shape
    assert isinstance(rows, Var)
    assert isinstance(columns, Var)
    c = buffer("c", (rows, columns), "float64")
    t = buffer("t", (rows, columns))
    state = _State(draw, [a], n=rows, m=columns)
    call = op.call_function("helper", a.data, t.data, rows, columns)
    loops = state.loops(
        [rows, columns],
        lambda v: store(c, tuple(v), cast(t[tuple(v)], c.dtype) + state.expr(c.dtype, v, 2)),
    )
    handles = (Var("a", HANDLE), Var("c", HANDLE))
    memory = (Allocate(t.data, t.dtype, t.shape, {}), DeclBuffer(t))
    body = realize_root(seq(*memory, call, loops))
    return PrimFunc(handles, dict(zip(handles, (a, c), strict=True)), body, {})


def data(
    draw: st.DrawFn, shape: tuple[int, ...], dtype: DType, *, special: bool = False
) -> np.ndarray:
    """Small values of any dtype; floats are multiples of a quarter, a fifth of them NaN, infinite
    or -0.0 if `special`."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    if dtype.is_bool:
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_float:
        values = random.integers(-8, 9, shape) / 4
        if special:
            chosen = random.random(shape) < 0.2
            values = np.where(chosen, random.choice([np.nan, np.inf, -np.inf, -0.0], shape), values)
        return values.astype(dtype.numpy)
    low, high = max(int(dtype.min_value), -100), min(int(dtype.max_value), 100)
    return random.integers(low, high + 1, shape).astype(dtype.numpy)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A module and arguments for its function "main"."""
    state = _State(draw, [])
    n, m, z = state.n, state.m, Var("z", INT64)
    sizes = {
        n: draw(st.integers(1, 9)),
        m: draw(st.integers(1, 7)),
        z: draw(st.integers(0, 3)),
    }
    kinds = [as_dtype(draw(st.sampled_from(DTYPES))) for _ in range(3)]
    whole = as_dtype(draw(st.sampled_from(("float32", "int32", "uint8", "bfloat16"))))
    inputs = [
        buffer("a", (n, m), "float32"),
        buffer("b", (m,), kinds[0]),
        buffer("c", (IntImm(3), n), kinds[1]),
        buffer("e", (n, IntImm(4)), kinds[2]),
    ]
    state.empty = buffer("d", (z, n), whole)
    state.readable = list(inputs)
    for _ in range(draw(st.integers(1, 4))):
        getattr(state, draw(st.sampled_from(_PIECES)))()
        state.readable = [*inputs, *state.outputs]
    buffers = [*inputs, state.empty, *state.outputs, *state.inexact_outputs]
    exact = len(buffers) - len(state.inexact_outputs)
    handles = [Var(item.name, HANDLE) for item in buffers]
    main = PrimFunc(
        tuple(handles),
        dict(zip(handles, buffers, strict=True)),
        realize_root(seq(*state.steps)),
        {"global_symbol": "main"},
    )
    special = draw(st.integers(0, 3)) == 0
    arguments = [
        data(draw, tuple(_size(dim, sizes) for dim in item.shape), item.dtype, special=special)
        for item in buffers
    ]
    module = IRModule.of(helper=_helper(), chain=_chain(draw), main=main)
    return Program(module, arguments, frozenset(range(exact, len(buffers))))


def _size(dim: Expr, sizes: dict[Var, int]) -> int:
    return sizes[dim] if isinstance(dim, Var) else dim.value
