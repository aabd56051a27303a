"""Every operation on every dtype at awkward values: compiled code and the interpreter agree.

One loop per operation, over all pairs of the values; in order and as vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from tests.codegen.support import compiled
from tests.fuzz.values import DTYPES
from transect.ir.dtype import HANDLE, DType, as_dtype
from transect.ir.expr import (
    EQ,
    GE,
    LT,
    NE,
    Add,
    And,
    Call,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mod,
    Mul,
    Or,
    Select,
    Sub,
    Var,
    cast,
    const,
)
from transect.tir import op
from transect.tir.buffer import buffer
from transect.tir.builder import store
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import For, ForKind, realize_root, seq

ALL = tuple(dict.fromkeys(DTYPES))
LANES = 8
Pair = Callable[[Expr, Expr], Expr]

ANY: dict[str, Pair] = {
    "eq": EQ,
    "ne": NE,
    "lt": LT,
    "ge": GE,
    "select": lambda a, b: Select(LT(a, b), b, a),
}
BOOLEAN: dict[str, Pair] = {"and": And, "or": Or, "not": lambda a, b: ~a}
NUMBER: dict[str, Pair] = {
    "add": Add,
    "sub": Sub,
    "mul": Mul,
    "min": Min,
    "max": Max,
    "abs": lambda a, b: op.abs(a),
}
INTEGER: dict[str, Pair] = {
    "floordiv": lambda a, b: FloorDiv(a, _divisor(b)),
    "floormod": lambda a, b: FloorMod(a, _divisor(b)),
    "truncdiv": lambda a, b: Div(a, _divisor(b)),
    "truncmod": lambda a, b: Mod(a, _divisor(b)),
    "bitand": lambda a, b: a & b,
    "bitor": lambda a, b: a | b,
    "bitxor": op.bitwise_xor,
    "bitnot": lambda a, b: ~a,
    "shl": lambda a, b: a << (b & const(3, b.dtype)),
    "shr": lambda a, b: a >> (b & const(3, b.dtype)),
    "popcount": lambda a, b: op.popcount(a),
    "clz": lambda a, b: op.clz(a),
}
FLOAT: dict[str, Pair] = {
    "div": Div,
    "sqrt": lambda a, b: op.sqrt(a),
    "floor": lambda a, b: op.floor(a),
    "ceil": lambda a, b: op.ceil(a),
    "trunc": lambda a, b: op.trunc(a),
    "round": lambda a, b: op.round(a),
    "nearbyint": lambda a, b: op.nearbyint(a),
    "copysign": op.copysign,
    "fmod": op.fmod,
    "nextafter": op.nextafter,
    "fma": lambda a, b: op.fma(a, b, b),
    "ldexp": lambda a, b: op.ldexp(a, 3),
    "isnan": lambda a, b: op.isnan(a),
    "isinf": lambda a, b: op.isinf(a),
    "isfinite": lambda a, b: op.isfinite(a),
}


def _divisor(b: Expr) -> Expr:
    return Select(EQ(b, const(0, b.dtype)), const(1, b.dtype), b)


def _fixed_point(fraction: int, shift: int) -> Pair:
    numbers = const(fraction, "int32"), const(shift, "int32")
    return lambda a, b: Call(INTRINSICS["q_multiply_shift"], (a, b, *numbers), a.dtype)


FIXED_POINT = {f"fixed point {q} {s}": _fixed_point(q, s) for q in (0, 8, 31) for s in (-5, 0, 3)}


def operations(dtype: DType) -> dict[str, Pair]:
    if dtype.name == "int32":
        return {**ANY, **NUMBER, **INTEGER, **FIXED_POINT}
    if dtype.is_bool:
        return {**ANY, **BOOLEAN}
    return {**ANY, **NUMBER, **(FLOAT if dtype.is_float else INTEGER)}


def awkward(dtype: DType) -> np.ndarray:
    """Limits, neighbours of limits, halves, zeros of both signs, NaN, infinities, subnormals."""
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_integral:
        low, high = int(dtype.min_value), int(dtype.max_value)
        wanted = [low, low + 1, -3, -1, 0, 1, 2, 3, 5, 7, 100, 129, high // 2, high - 1, high]
        inside = sorted({item for item in wanted if low <= item <= high})
        return np.array(inside, np.uint64 if low == 0 else np.int64).astype(dtype.numpy)
    info = ml_dtypes.finfo(dtype.numpy)
    tiny, high, eps = float(info.smallest_subnormal), float(info.max), float(info.eps)
    positive = [
        0.0, tiny, 3 * tiny, float(info.tiny), 0.25, 0.5, 1.0, 1 + eps, 1.5, 2.5, 3.0, 7.0, 65.0,
        high / 2, high, np.inf,
    ]  # fmt: skip
    return np.array([np.nan, *positive, *(-item for item in positive)]).astype(dtype.numpy)


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of awkward values, as two arrays whose length is a multiple of the lanes."""
    values = awkward(dtype)
    size = -(-(values.size**2) // LANES) * LANES
    return np.resize(np.repeat(values, values.size), size), np.resize(values, size)


def kernel(dtypes: tuple[DType, DType], size: int, made: list[Pair], kind: ForKind) -> PrimFunc:
    """outputs[k][i, j] = made[k](a[i, j], b[i, j])."""
    shape = (size // LANES, LANES)
    a, b = (buffer(name, shape, dtype) for name, dtype in zip("ab", dtypes, strict=True))
    buffers, loops = [a, b], []
    for number, make in enumerate(made):
        i, j = Var("i"), Var("j")
        value = make(a[i, j], b[i, j])
        out = buffer(f"out{number}", shape, value.dtype)
        inner = For(j, IntImm(0), IntImm(LANES), kind, store(out, (i, j), value))
        loops.append(For(i, IntImm(0), IntImm(shape[0]), "serial", inner))
        buffers.append(out)
    handles = tuple(Var(item.name, HANDLE) for item in buffers)
    maps = dict(zip(handles, buffers, strict=True))
    return PrimFunc(handles, maps, realize_root(seq(*loops)), {})


def compare(func: PrimFunc, names: list[str], a: np.ndarray, b: np.ndarray) -> None:
    """Both ways to run `func` give the same values, NaN like NaN, zeros of the same sign."""
    shapes = [np.zeros((a.size // LANES, LANES), item.dtype.numpy) for item in func.buffers[2:]]
    inputs = [a.reshape(-1, LANES), b.reshape(-1, LANES)]
    got, want = ([item.copy() for item in shapes] for _ in range(2))
    compiled(func)(*inputs, *got)
    Interpreter().run(func, *inputs, *want)
    wrong: list[str] = []
    for name, x, y in zip(names, got, want, strict=True):
        if as_dtype(x.dtype).is_float:
            wide = x.astype(np.float64), y.astype(np.float64)
            same = (wide[0] == wide[1]) & (np.signbit(wide[0]) == np.signbit(wide[1]))
            same |= np.isnan(wide[0]) & np.isnan(wide[1])
        else:
            same = x == y
        if not same.all():
            at = tuple(np.argwhere(~same)[0])
            wrong.append(f"{name}({inputs[0][at]}, {inputs[1][at]}) = {x[at]}, not {y[at]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["serial", "vectorized"])
@pytest.mark.parametrize("name", ALL)
def test_operations(name: str, kind: ForKind) -> None:
    dtype = as_dtype(name)
    a, b = pairs(dtype)
    made = operations(dtype)
    compare(kernel((dtype, dtype), a.size, list(made.values()), kind), list(made), a, b)


@pytest.mark.parametrize("kind", ["serial", "vectorized"])
@pytest.mark.parametrize("name", ALL)
def test_casts(name: str, kind: ForKind) -> None:
    source = as_dtype(name)
    values = awkward(source)
    if source.is_float:  # Every value of the narrow formats, and what a cast to them rounds.
        bits = np.random.default_rng(0).integers(0, 2**16, 4096)
        near = awkward(as_dtype("float64"))
        more = (1 + bits / 2**15) * np.exp2(bits % 40 - 20.0)
        with np.errstate(over="ignore"):
            near, more = near.astype(values.dtype), more.astype(values.dtype)
        values = np.concatenate([values, near, more])
    values = np.resize(values, -(-values.size // LANES) * LANES)
    # A float out of the range of an integer has no defined value there.
    targets = [as_dtype(item) for item in ALL]
    targets = [item for item in targets if not (source.is_float and item.is_integral)]
    made: list[Pair] = [_cast_to(target) for target in targets]
    names = [f"to {target} " for target in targets]
    compare(kernel((source, source), values.size, made, kind), names, values, values)


def _cast_to(target: DType) -> Pair:
    return lambda a, b: cast(a, target)
