"""Operators on the elements of one, two or three tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.relax_op.support import check, floats, integers, onnx_oracle, run, same

NAN, INF = math.nan, math.inf
SPECIAL = np.array(
    [NAN, -INF, -2.5, -1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.5, INF], "float32"
)

_erf = np.vectorize(math.erf, otypes=["float64"])

UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": lambda x: _erf(x).astype(x.dtype),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "negative": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "nn.silu": lambda x: x / (1 + np.exp(-x)),
    "nn.hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "nn.softsign": lambda x: x / (1 + np.abs(x)),
    "nn.gelu": lambda x: (0.5 * x * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype),
    "nn.gelu_tanh": lambda x: (
        0.5
        * x
        * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    ),
    "nn.softplus": lambda x: np.logaddexp(x, np.float32(0)),
    "nn.mish": lambda x: x * np.tanh(np.logaddexp(x, np.float32(0))),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    x = np.concatenate([SPECIAL, floats(17)])
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    check(expected, name, x, symbolic=(30,))


@pytest.mark.parametrize("name", ["negative", "abs", "sign", "square", "floor", "round", "nn.relu"])
def test_unary_of_integers(name: str) -> None:
    x = np.array([-128, -3, 0, 3, 127], "int8")
    with np.errstate(all="ignore"):
        expected = UNARY[name](x).astype("int8")
    check(expected, name, x)


def test_unsigned_numbers_have_no_sign() -> None:
    x = np.array([0, 3, 255], "uint8")
    check(x, "abs", x)
    check(np.array([0, 1, 1], "uint8"), "sign", x)
    check(np.array([0, 253, 1], "uint8"), "negative", x)


def test_negative_changes_the_sign_of_zero() -> None:
    assert np.signbit(run("negative", np.zeros(1, "float32")))[0]


@pytest.mark.parametrize(
    ("name", "op", "fields"),
    [
        ("nn.leakyrelu", "LeakyRelu", {"alpha": 0.2}),
        ("nn.elu", "Elu", {"alpha": 0.7}),
        ("nn.celu", "Celu", {"alpha": 0.7}),
        ("nn.thresholded_relu", "ThresholdedRelu", {"alpha": 0.5}),
        ("nn.hardsigmoid", "HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("nn.selu", "Selu", {}),
    ],
)
def test_activation_as_onnx(name: str, op: str, fields: dict[str, float]) -> None:
    x = floats(3, 7) * 3
    check(onnx_oracle(op, x, **fields), name, x, symbolic=(3,), **fields)


def test_softplus_is_the_identity_above_its_threshold() -> None:
    x = np.array([-60.0, 1.0, 9.0, 12.0], "float32")
    expected = np.array([0, math.log1p(math.exp(2)) / 2, 9, 12], "float32")
    check(expected, "nn.softplus", x, beta=2.0, threshold=10.0)


def test_prelu() -> None:
    x, slope = floats(2, 3, 5), floats(3, seed=1)
    expected = np.where(x < 0, x * slope[:, None], x)
    check(expected, "nn.prelu", x, slope, symbolic=(2, 3))
    check(np.where(x < 0, x * slope[0], x), "nn.prelu", x, slope[:1], axis=2)


def test_clip() -> None:
    check(np.clip(SPECIAL, -1, 1), "clip", SPECIAL, -1.0, 1.0)
    check(np.maximum(SPECIAL, -1), "clip", SPECIAL, -1.0)
    check(np.minimum(SPECIAL, np.float32(1)), "clip", SPECIAL, None, np.array(1, "float32"))
    check(np.array([-5, 3, 127], "int8"), "clip", np.array([-9, 3, 127], "int8"), -5, 1000)
    # Where the limits cross, the upper one holds.
    check(np.array([1.0], "float32"), "clip", np.array([2.0], "float32"), 3.0, 1.0)


def test_logical_not() -> None:
    x = np.array([[True, False]])
    check(~x, "logical_not", x)
    check(~x, "bitwise_not", x)
    check(~integers(5), "bitwise_not", integers(5))


def test_astype() -> None:
    x = np.array([-1.9, -0.5, 0.0, 0.5, 300.7], "float32")
    check(np.trunc(x).astype("int32"), "astype", x, dtype="int32")
    check(x.astype("float16"), "astype", x, dtype="float16")
    special = np.array([NAN, 0.0, -0.0, 0.1], "float32")
    check(special.astype("bool"), "astype", special, dtype="bool")
    check(np.array([1.0, 0.0], "float64"), "astype", np.array([True, False]), dtype="float64")


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "floor_divide": np.floor_divide,
    "floor_mod": np.mod,
    "mod": np.fmod,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}
FLOAT_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "divide": np.divide,
    "power": np.power,
    "atan2": np.arctan2,
    "log_add_exp": np.logaddexp,
}
INTEGER_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "divide": lambda a, b: np.trunc(a / b).astype(a.dtype),
}


@pytest.mark.parametrize("name", [*BINARY, *FLOAT_BINARY])
def test_binary_of_floats(name: str) -> None:
    values = np.concatenate([SPECIAL, np.array([1e-3, 0.1, 7.0, -7.0], "float32")])
    a, b = (np.ascontiguousarray(x) for x in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = (BINARY | FLOAT_BINARY)[name](a, b)
    check(expected, name, a, b, symbolic=(17,))


@pytest.mark.parametrize("name", ["floor_divide", "floor_mod", "mod", "divide"])
def test_division_keeps_the_sign_of_zero(name: str) -> None:
    a, b = (np.ascontiguousarray(x) for x in np.meshgrid(SPECIAL, SPECIAL[SPECIAL != 0]))
    with np.errstate(all="ignore"):
        expected = (BINARY | FLOAT_BINARY)[name](a, b)
    numbers = ~np.isnan(expected)
    result = run(name, a, b)
    np.testing.assert_array_equal(np.signbit(result[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("name", [*BINARY, *INTEGER_BINARY])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_binary_of_integers(name: str, dtype: str) -> None:
    low = 0 if dtype == "uint8" else -9
    a = integers(40, low=low, dtype=dtype)
    b = integers(40, low=low, seed=1, dtype=dtype)
    b[b == 0] = 2
    expected = (BINARY | INTEGER_BINARY)[name](a, b)
    check(expected, name, a, b)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_power_of_integers(dtype: str) -> None:
    signed = dtype != "uint8"
    values = np.arange(-3 if signed else 0, 6).astype(dtype)
    a, b = (np.ascontiguousarray(x) for x in np.meshgrid(values, np.arange(0, 20).astype(dtype)))
    with np.errstate(all="ignore"):
        check(np.power(a, b), "power", a, b)
    if signed:
        base = np.array([-2, -1, -1, 1, 2], dtype)
        exponent = np.array([-1, -1, -2, -5, -3], dtype)
        check(np.array([0, -1, 1, 1, 0], dtype), "power", base, exponent)


def test_shifts_beyond_the_width() -> None:
    a = np.array([1, -1, 5, -5], "int32")
    check(a << 3, "left_shift", a, np.array(3, "int32"))
    check(np.zeros(4, "int32"), "left_shift", a, np.array(32, "int32"))
    check(a >> 2, "right_shift", a, np.array(2, "int32"))
    check(np.array([0, -1, 0, -1], "int32"), "right_shift", a, np.array(40, "int32"))
    check(np.zeros(1, "uint8"), "right_shift", np.array([255], "uint8"), np.array(8, "uint8"))


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logical(name: str) -> None:
    a, b = np.array([[False], [True]]), np.array([False, True])
    check(getattr(np, name)(a, b), name, a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 5), (5,)), ((3, 1), (1, 5)), ((), (3, 5)), ((3, 5), ()), ((0, 5), (1, 5)), ((1,), (0,))],
)
def test_broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = floats(*a), floats(*b, seed=1)
    check(x + y, "add", x, y, symbolic=(3, 5))


def test_scalar_operand() -> None:
    x = floats(4)
    check(x * np.float32(2.5), "multiply", x, 2.5)


def test_where() -> None:
    condition, a, b = floats(3, 1) > 0, floats(5, seed=1), floats(3, 5, seed=2)
    check(np.where(condition, a, b), "where", condition, a, b, symbolic=(3, 5))


def test_ewise_fma() -> None:
    a, b, c = floats(3, 5), floats(5, seed=1), floats(3, 1, seed=2)
    check(a * b + c, "ewise_fma", a, b, c, symbolic=(3, 5))


def test_half_precision_activations_do_not_lose_digits() -> None:
    x = floats(64, dtype="float16") * np.float16(3)
    wide = x.astype("float64")
    expected = (0.5 * wide * (1 + _erf(wide / math.sqrt(2)))).astype("float16")
    same(run("nn.gelu", x), expected, 1e-3)
