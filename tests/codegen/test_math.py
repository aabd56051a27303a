"""Elementary functions: error in units of the last place, specials, scalar and vector alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.codegen.support import compiled
from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, IntImm, Ramp, Var
from transect.tir import op
from transect.tir.buffer import BufferLoad, buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import BufferStore, For

LANES = 8
WIDE = 16
"""A register of 512 bits of float32, for which some formulas have instructions of their own."""


def vector_program(name: str, dtype: str, lanes: int, arity: int = 1) -> PrimFunc:
    """y = name(x, …) on `lanes` elements at a time."""
    n, i = Var("n"), Var("i")
    inputs = [buffer(f"x{k}", (n,), dtype) for k in range(arity)]
    y = buffer("y", (n,), dtype)
    index: Expr = Ramp(i * lanes, IntImm(1), lanes) if lanes > 1 else i
    value = INTRINSICS[name](*(BufferLoad(x, (index,)) for x in inputs))
    body = For(i, IntImm(0), n // lanes, "serial", BufferStore(y, value, (index,)))
    params = {x.data: x for x in (*inputs, y)}
    return PrimFunc(tuple(params), params, body)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(float(v)) for v in x], x.dtype)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


REFERENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "exp_nonpositive": np.exp,
    "exp2": np.exp2,
    "exp10": lambda x: np.power(x.dtype.type(10), x),
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "nearbyint": np.rint,
    "fabs": np.abs,
}

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    math.inf,
    -math.inf,
    math.nan,
    1e-40,
    -1e-40,
    0.5,
    -0.5,
    2.0,
    88.7,
    -87.5,
    -103.9,
    89.0,
    710.0,
    -746.0,
    1e-8,
    -1e-8,
    9.0,
    30.0,
    -30.0,
    1e30,
    -1e30,
    3e6,
    -3e6,
    3.3e38,
    -3.3e38,
]


def inputs(name: str, dtype: str) -> np.ndarray:
    """Random arguments in several magnitudes, and specials."""
    random = np.random.default_rng(7)
    parts = [random.normal(size=1000) * scale for scale in (1e-3, 0.1, 1.0, 10.0, 100.0)]
    x = np.concatenate([*parts, SPECIAL])
    if name in ("log", "log2", "log10", "sqrt", "acosh"):
        x = np.concatenate([x, np.exp(random.normal(size=2000) * 20)])
    if name in ("log1p", "asin", "acos", "atanh"):
        x = np.concatenate([x, random.uniform(-1, 1, 2000)])
    x = np.concatenate([x, np.ones(-len(x) % WIDE)])
    if name == "exp_nonpositive":
        x = -np.abs(x)
    with np.errstate(all="ignore"):
        return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", [1, LANES, WIDE])
@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_error_is_about_one_unit_in_the_last_place(name: str, lanes: int, dtype: str) -> None:
    x = inputs(name, dtype)
    y = np.zeros_like(x)
    compiled(vector_program(name, dtype, lanes))(x, y)
    # A longer format as reference; erf has none for float64, so the C library's.
    wide = np.longdouble if dtype == "float64" else np.float64
    with np.errstate(all="ignore"):
        exact = REFERENCE[name](x.astype(wide))
        rounded = exact.astype(dtype)
    special = ~np.isfinite(rounded) | (rounded == 0)
    np.testing.assert_array_equal(y[special], rounded[special])
    whole = ~np.isnan(rounded)
    np.testing.assert_array_equal(np.signbit(y[whole]), np.signbit(rounded[whole]))
    normal = ~special & (np.abs(rounded) >= np.finfo(dtype).tiny)
    error = np.abs((y[normal].astype(wide) - exact[normal]) / exact[normal])
    assert float(error.max()) <= 2.0 * np.finfo(dtype).eps
    tiny = ~special & ~normal
    np.testing.assert_allclose(
        y[tiny], rounded[tiny], rtol=0, atol=2 * np.finfo(dtype).smallest_subnormal
    )


@pytest.mark.parametrize("name", ["erf", "tanh", "sigmoid"])
@pytest.mark.parametrize("lanes", [1, LANES, WIDE])
def test_bounded_functions_stay_within_their_bounds(name: str, lanes: int) -> None:
    x = np.linspace(-20, 20, 1 << 16, dtype=np.float32)
    y = np.zeros_like(x)
    compiled(vector_program(name, "float32", lanes))(x, y)
    assert np.abs(y).max() == 1
    exact = REFERENCE[name](x.astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=2 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "log", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_floats_are_rounded_once(name: str, dtype: str) -> None:
    kind = as_dtype(dtype).numpy
    x = np.arange(1 << 16, dtype=np.uint16).view(kind)
    y = np.zeros_like(x)
    n = Var("n")
    b = FunctionBuilder("narrow")
    a = b.input("x", (n,), dtype)
    compiled(b.finish(b.compute((n,), lambda i: getattr(op, name)(a[i]), dtype=as_dtype(dtype))))(
        x, y
    )
    with np.errstate(all="ignore"):
        want = REFERENCE[name](x.astype(np.float64)).astype(np.float32).astype(kind)
    good = y.astype(np.float32) == want.astype(np.float32)
    good |= np.isnan(y.astype(np.float32)) & np.isnan(want.astype(np.float32))
    # float32 is off by a unit at most, which shows only next to a midpoint.
    assert good.mean() > 0.999


def test_sine_of_huge_and_infinite_arguments() -> None:
    x = np.array([1e6, 1e22, 3e38, -3e38, np.inf, -np.inf, np.nan, 1.0], np.float32)
    for name in ("sin", "cos"):
        y = np.zeros_like(x)
        compiled(vector_program(name, "float32", LANES))(x, y)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(y, REFERENCE[name](x.astype(np.float64)), rtol=3e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", [1, LANES])
def test_pow_and_its_special_cases(dtype: str, lanes: int) -> None:
    numbers = np.array(
        [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            2.0,
            -2.0,
            3.0,
            -3.0,
            0.25,
            np.inf,
            -np.inf,
            np.nan,
            10.0,
            -7.0,
        ]
    )
    x, y = (side.ravel().astype(dtype) for side in np.meshgrid(numbers, numbers))
    out = np.zeros_like(x)
    compiled(vector_program("pow", dtype, lanes, 2))(x, y, out)
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    np.testing.assert_allclose(out, want, rtol=4 * np.finfo(dtype).eps)
    whole = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(out[whole]), np.signbit(want[whole]))


def test_integer_pow() -> None:
    x = np.array([0, 1, 2, -2, 3, -1, -1, 2, 7], np.int64)
    y = np.array([0, 9, 10, 5, -2, -3, -4, -1, 0], np.int64)
    out = np.zeros_like(x)
    compiled(vector_program("pow", "int64", 1, 2))(x, y, out)
    assert out.tolist() == [1, 1, 1024, -32, 0, -1, 1, 0, 1]


@pytest.mark.parametrize("name", ["atan2", "hypot", "fmod", "copysign", "nextafter"])
def test_functions_of_two_arguments(name: str) -> None:
    reference = {"atan2": np.arctan2}.get(name) or getattr(np, name)
    numbers = np.array([0.0, -0.0, 1.0, -1.5, 2.0, 1e10, -3.0, 0.1])
    x, y = (side.ravel().astype(np.float32) for side in np.meshgrid(numbers, numbers))
    out = np.zeros_like(x)
    compiled(vector_program(name, "float32", LANES, 2))(x, y, out)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(out, reference(x, y), rtol=3e-7)


def test_round_takes_halves_away_from_zero() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 1e10], np.float32)
    y = np.zeros_like(x)
    compiled(vector_program("round", "float32", LANES))(x, y)
    assert y.tolist() == [1, 2, 3, -1, -2, -3, 0, 1e10]
