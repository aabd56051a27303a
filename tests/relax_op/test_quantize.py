"""Quantization in blocks, narrow formats, saturation and rounding, in the reference interpreter."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import numpy_helper

from tests.relax_op.support import check, run

EDGES = np.array(
    [0.0, -0.0, 1.0, -1.5, 3.0, 0.3, 1e-3, 2e-39, 449.0, -500.0, 6e4, -1e9, 3.4e38, np.inf, -np.inf,
     np.nan], np.float32
)  # fmt: skip
FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


@pytest.mark.parametrize("dtype", FLOAT8)
def test_cast_narrow_saturates_infinities_too(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype))
    most = float(ml_dtypes.finfo(kind).max)
    result = run("cast_narrow", EDGES, dtype=dtype)
    assert result.dtype == kind
    np.testing.assert_array_equal(wide(result), wide(np.clip(EDGES, -most, most).astype(kind)))
    loose = run("cast_narrow", EDGES, dtype=dtype, saturate=False)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(wide(loose), wide(EDGES.astype(kind)))


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_exponents_alone(mode: str, saturate: bool) -> None:
    x = np.concatenate([EDGES, np.float32([6.0, 5.99, 1.5 * 2.0**-126, 2.0**-127])])
    result = run("cast_narrow", x, dtype="float8_e8m0fnu", round_mode=mode, saturate=saturate)
    want = numpy_helper.to_float8e8m0(x, saturate=saturate, round_mode=mode)
    np.testing.assert_array_equal(result.view(np.uint8), want.view(np.uint8))


@pytest.mark.parametrize(
    ("source", "target"), [("float32", "int32"), ("int16", "bfloat16"), ("float8_e5m2", "uint8"),
                           ("uint64", "float64"), ("bool", "int8"), ("int4", "float4_e2m1fn")]
)  # fmt: skip
def test_bitcast(source: str, target: str) -> None:
    kinds = [np.dtype(getattr(ml_dtypes, name, name)) for name in (source, target)]
    x = np.arange(4 if source != "bool" else 2, dtype=f"u{kinds[0].itemsize}").view(kinds[0])
    result = run("bitcast", x, dtype=target)
    assert result.dtype == kinds[1]
    np.testing.assert_array_equal(result.view(np.uint8), x.view(np.uint8))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_blocks(dtype: str) -> None:
    """Seven elements in blocks of three: the last block is short."""
    random = np.random.default_rng(5)
    x = random.normal(0, 9, (2, 7, 3)).astype(np.float32)
    scale = random.uniform(0.05, 0.5, (2, 3, 3)).astype(np.float32)
    zero = random.integers(0, 9, (2, 3, 3)).astype(dtype)
    whole = [np.repeat(item, 3, axis=1)[:, :7] for item in (scale, zero)]
    limits = np.iinfo(dtype)
    steps = np.rint(x / whole[0]) + whole[1]
    want = np.clip(steps, limits.min, limits.max).astype(dtype)
    fields = {"axis": 1, "block": 3}
    check(want, "quantize", x, scale, zero, out_dtype=dtype, symbolic=(2,), **fields)
    back = (want.astype(np.int32) - whole[1]).astype(np.float32) * whole[0]
    check(back, "dequantize", want, scale, zero, symbolic=(2,), **fields)


def test_requantize() -> None:
    """Halves go to even, and what is beyond the range to its end."""
    x = np.array([[3, 5, -5, 2**31 - 1], [1, -1, 0, -(2**31)]], np.int32)
    half, zero = np.array(0.5, np.float32), np.array(10, np.uint8)
    want = np.array([[12, 12, 8, 255], [10, 10, 10, 0]], np.uint8)
    check(want, "requantize", x, half, zero, out_dtype="uint8", symbolic=(2,))
    rows = np.array([0.5, 2.0], np.float32)
    want = np.array([[12, 12, 8, 255], [12, 8, 10, 0]], np.uint8)
    check(want, "requantize", x, rows, zero, out_dtype="uint8", axis=0)


@pytest.mark.parametrize("dtype", [*FLOAT8, "float4_e2m1fn"])
def test_floats_are_scaled_without_rounding_first(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype))
    x = np.array([0.3, -7.7, 1e6, 0.0], np.float32)
    scale = np.array(2.0, np.float32)
    most = float(ml_dtypes.finfo(kind).max)
    result = run("quantize", x, scale, out_dtype=dtype)
    np.testing.assert_array_equal(wide(result), wide(np.clip(x / 2, -most, most).astype(kind)))
    check(result.astype(np.float32) * 2, "dequantize", result, scale)
