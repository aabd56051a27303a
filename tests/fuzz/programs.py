"""Random small tensor programs, and the arguments to run them with.

A program is a few pieces in a row: maps, tiles, reductions, scans, while loops, gathers, scatters,
temporaries, branches, assertions, calls. Each fills a buffer of its own from the inputs and from
what earlier pieces filled. Values are such that every operation is exact or insensitive to
contraction, and undefined behaviour does not occur.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from transect.ir.dtype import HANDLE, INT64, DType, as_dtype
from transect.ir.expr import (
    EQ,
    LT,
    Add,
    Binary,
    Expr,
    IntImm,
    Max,
    Min,
    Mul,
    Range,
    Select,
    Sub,
    Var,
    as_expr,
    cast,
    const,
    make,
    true,
    truncdiv,
    truncmod,
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

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64", "uint8", "uint32")
_KINDS = ("serial", "parallel", "unrolled", "vectorized")


class Program:
    """A module with the function "main", and what to call it with. Shows as script."""

    def __init__(self, module: IRModule, arguments: list[np.ndarray]) -> None:
        self.module = module
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"{self.module!r}\n\n{self.arguments!r}"


@dataclass
class _State:
    draw: st.DrawFn
    n: Var
    m: Var
    sizes: dict[Var, int]
    readable: list[Buffer]
    outputs: list[Buffer] = field(default_factory=list)
    steps: list[Stmt] = field(default_factory=list)
    names: int = 0

    def pick(self, items: list | tuple) -> object:
        return self.draw(st.sampled_from(items))

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def name(self, base: str) -> str:
        self.names += 1
        return f"{base}{self.names}"

    def dtype(self) -> DType:
        return as_dtype(self.pick(DTYPES))

    def output(self, shape: tuple[object, ...], dtype: DType) -> Buffer:
        made = buffer(self.name("out"), shape, dtype)
        self.outputs.append(made)
        return made

    # --- expressions

    def index(self, dim: Expr, indices: list[Var]) -> Expr:
        """An index in [0, dim), from the loop variables."""
        if not indices:
            return IntImm(0)
        base = self.pick(indices)
        how = self.number(0, 4)
        if how == 0:
            return (base + self.number(0, 3)) % dim
        if how == 1:
            return Min(base, dim - 1)
        if how == 2:
            return (dim - 1) - base % dim
        if how == 3:
            return (base * self.number(1, 3) + self.pick(indices)) % dim
        return base % dim

    def load(self, indices: list[Var]) -> Expr:
        source = self.pick(self.readable)
        return source[tuple(self.index(dim, indices) for dim in source.shape)]

    def leaf(self, dtype: DType, indices: list[Var]) -> Expr:
        how = self.number(0, 3)
        if how == 0:
            return const(self.number(0 if dtype.is_uint else -3, 3), dtype)
        if how == 1 and indices and not dtype.is_bool:
            return cast(self.pick(indices) % 7, dtype)
        return self.convert(self.load(indices), dtype)

    def convert(self, value: Expr, dtype: DType) -> Expr:
        """`value` as `dtype`; a float becomes an integer only where that is defined."""
        if value.dtype.is_float and dtype.is_integral:
            low = 0.0 if dtype.is_uint else -90.0
            clamped = Min(Max(value, const(low, value.dtype)), const(90.0, value.dtype))
            ordered = EQ(value, value)
            return cast(Select(ordered, clamped, const(0.0, value.dtype)), dtype)
        return cast(value, dtype)

    def condition(self, indices: list[Var]) -> Expr:
        """A condition on exact values only."""
        dtype = self.dtype()
        a, b = self.leaf(dtype, indices), self.leaf(dtype, indices)
        how = self.number(0, 4)
        if how == 0:
            return LT(a, b)
        if how == 1:
            return EQ(a, b)
        if how == 2 and indices:
            return LT(self.pick(indices), IntImm(self.number(0, 6)))
        if how == 3:
            return self.condition(indices) & LT(b, a)
        return ~LT(a, b)

    def expr(self, dtype: DType, indices: list[Var], depth: int = 3) -> Expr:
        if depth == 0 or self.number(0, 4) == 0:
            return self.leaf(dtype, indices)
        how = self.number(0, 9)
        a = self.expr(dtype, indices, depth - 1)
        if how <= 4:
            kind: type[Binary] = self.pick([Add, Sub, Mul, Min, Max])
            return make(kind, a, self.expr(dtype, indices, depth - 1))
        if how == 5:
            return Select(self.condition(indices), a, self.expr(dtype, indices, depth - 1))
        if how == 6:
            other = self.expr(dtype, indices, depth - 1)
            return op.if_then_else(self.condition(indices), a, other)
        if how == 7:
            return self.convert(self.leaf(self.dtype(), indices), dtype)
        return self.special(a, dtype, indices)

    def special(self, a: Expr, dtype: DType, indices: list[Var]) -> Expr:
        if dtype.is_float:
            how = self.number(0, 3)
            if how == 0:
                return op.abs(a)
            if how == 1:
                return op.sqrt(op.abs(self.leaf(dtype, indices)))
            if how == 2:
                return op.floor(self.leaf(dtype, indices))
            return op.copysign(a, self.leaf(dtype, indices))
        divisor = const(self.number(1, 5), dtype)
        how = self.number(0, 6)
        if how == 0:
            return a // divisor
        if how == 1:
            return a % divisor
        if how == 2:
            return truncdiv(a, divisor)
        if how == 3:
            return truncmod(a, divisor)
        if how == 4:
            return a & self.leaf(dtype, indices)
        if how == 5:
            return op.bitwise_xor(a, self.leaf(dtype, indices))
        return a << const(self.number(0, 3), dtype)

    # --- statements

    def loops(self, extents: list[Expr], body: object, *, free: bool = True) -> Stmt:
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
        body: object,
        init: object = None,
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
            [(self.n,), (self.n, self.m), (self.m,), (IntImm(8),), (self.n, IntImm(4))]
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

    def reduce_piece(self) -> None:
        dtype = self.dtype()
        out = self.output((self.n,), dtype)
        kind, start = self.pick(
            [
                (Add, const(0, dtype)),
                (Min, op.highest(dtype)),
                (Max, op.lowest(dtype)),
                (Mul, const(1, dtype)),
            ]
        )

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
            kind: type[Binary] = self.pick([Add, Max, Min, Sub])
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
            one = store(out, tuple(variables), make(Add, x, const(1, dtype)))
            other = store(out, tuple(variables), make(Sub, x, self.leaf(dtype, variables)))
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
            return store(out, (where,), make(Add, out[where], self.leaf(dtype, variables)))

        self.steps.append(self.loops([self.n], body, free=False))

    def update_piece(self) -> None:
        if not self.outputs:
            return
        target = self.pick(self.outputs)
        self.readable = [item for item in self.readable if item is not target]

        def body(variables: list[Var]) -> Stmt:
            old = target[tuple(variables)]
            kind: type[Binary] = self.pick([Add, Max, Min])
            return store(
                target, tuple(variables), make(kind, old, self.leaf(target.dtype, list(variables)))
            )

        self.steps.append(self.loops(list(target.shape), body))
        self.readable.append(target)

    def assert_piece(self) -> None:
        kind = self.pick(("ValueError", "TypeError", "RuntimeError"))
        # About half of them fail, so that errors are compared as well.
        holds = LT(self.n, IntImm(self.number(0, 9)))
        self.steps.append(AssertStmt(holds, ("n is ", self.n, ", m is ", self.m), kind))

    def call_piece(self) -> None:
        out = self.output((self.n, self.m), as_dtype("float32"))
        self.steps.append(
            op.call_function("helper", self.readable[0].data, out.data, self.n, self.m)
        )


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
    "call_piece",
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


def _data(draw: st.DrawFn, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    seed = draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    if dtype.is_float:
        values = random.integers(-8, 9, shape) / 4
        kind = ml_dtypes.bfloat16 if dtype.code == "bfloat" else dtype.numpy
        return values.astype(kind)
    low = 0 if dtype.is_uint else max(int(dtype.min_value), -100)
    return random.integers(low, 100, shape).astype(dtype.numpy)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A module and arguments for its function "main"."""
    n, m = Var("n", INT64), Var("m", INT64)
    sizes = {n: draw(st.integers(1, 9)), m: draw(st.integers(1, 6))}
    other, more = as_dtype(draw(st.sampled_from(DTYPES))), as_dtype(draw(st.sampled_from(DTYPES)))
    inputs = [
        buffer("a", (n, m), "float32"),
        buffer("b", (m,), other),
        buffer("c", (IntImm(3), n), more),
    ]
    state = _State(draw, n, m, sizes, list(inputs))
    for _ in range(draw(st.integers(1, 4))):
        getattr(state, draw(st.sampled_from(_PIECES)))()
        state.readable = [*inputs, *state.outputs]
    buffers = [*inputs, *state.outputs]
    handles = [Var(item.name, HANDLE) for item in buffers]
    body = realize_root(seq(*state.steps))
    main = PrimFunc(
        tuple(handles),
        dict(zip(handles, buffers, strict=True)),
        body,
        {"global_symbol": "main"},
    )
    arguments = [
        _data(draw, tuple(_size(dim, sizes) for dim in item.shape), item.dtype) for item in buffers
    ]
    module = IRModule.of(helper=_helper(), main=main)
    return Program(module, arguments)


def _size(dim: Expr, sizes: dict[Var, int]) -> int:
    return sizes[dim] if isinstance(dim, Var) else dim.value
