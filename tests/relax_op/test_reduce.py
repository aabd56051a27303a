"""Reductions, positions of extrema, sorting, running sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.relax_op.support import check, floats, integers, onnx_oracle, run, same

X = floats(3, 4, 5)
AXES: list[Any] = [None, 0, -1, (0, 2), (1, -1), ()]
NUMPY = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "variance": np.var,
    "std": np.std,
}


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduction(name: str, axis: Any, keepdims: bool) -> None:
    expected = NUMPY[name](X, axis=axis, keepdims=keepdims)
    check(expected, name, X, axis=axis, keepdims=keepdims, symbolic=(3, 4, 5), tolerance=1e-4)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
def test_reduction_of_integers(name: str) -> None:
    x = integers(3, 7, dtype="int8")
    with np.errstate(all="ignore"):
        expected = NUMPY[name](x, axis=1, **({"dtype": "int8"} if name in ("sum", "prod") else {}))
    check(expected, name, x, axis=1, symbolic=(3, 7))


def test_extrema_of_truth_values() -> None:
    x = np.array([[True, False], [False, False], [True, True]])
    check(x.any(1), "max", x, axis=1)
    check(x.all(1), "min", x, axis=1)


def test_extrema_of_nan() -> None:
    x = np.array([[1, math.nan, 2], [3, 4, 5]], "float32")
    check(x.max(1), "max", x, axis=1)
    check(x.min(1), "min", x, axis=1)
    check(np.array([1, 2]), "argmax", x, axis=1)
    check(np.array([1, 0]), "argmin", x, axis=1)


def test_nothing_to_reduce() -> None:
    x = np.zeros((2, 0), "float32")
    check(np.zeros(2, "float32"), "sum", x, axis=1)
    check(np.ones(2, "float32"), "prod", x, axis=1)
    check(np.full(2, -np.inf, "float32"), "max", x, axis=1)
    check(np.full(2, np.nan, "float32"), "mean", x, axis=1)
    check(np.zeros(0, "float32"), "sum", x, axis=0)


def test_half_precision_sums_accumulate_in_single() -> None:
    x = np.full(4096, 1.0, "float16")
    check(np.array(4096, "float16"), "sum", x)
    check(np.array(1, "float16"), "mean", x)


def test_variance_far_from_zero() -> None:
    x = (floats(1000) + 4096).astype("float32")
    check(np.var(x.astype("float64")).astype("float32"), "variance", x, tolerance=1e-3)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_positions(name: str, axis: int | None, keepdims: bool) -> None:
    x = integers(3, 4, 5, low=0, high=3)
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    check(expected, name, x, axis=axis, keepdims=keepdims, symbolic=(3, 4, 5))


def test_position_of_the_start_value() -> None:
    x = np.full((2, 3), -np.inf, "float32")
    check(np.zeros(2, "int64"), "argmax", x, axis=1)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("descending", [False, True])
def test_sort(axis: int, descending: bool) -> None:
    x = integers(3, 4, 5, low=0, high=4).astype("float32")
    x[0, 1, 2] = math.nan
    key = np.where(np.isnan(x), np.inf, x) * (-1 if descending else 1)
    order = np.argsort(key, axis, stable=True)
    expected = np.take_along_axis(x, order, axis)
    check(expected, "sort", x, axis=axis, descending=descending, symbolic=(3, 4, 5))
    check(order.astype("int32"), "argsort", x, axis=axis, descending=descending)


def test_sort_of_truth_values() -> None:
    x = np.array([True, False, True, False])
    check(np.sort(x), "sort", x)


@pytest.mark.parametrize("largest", [True, False])
def test_topk(largest: bool) -> None:
    x = integers(3, 7, low=0, high=5).astype("float32")
    values, places = onnx_oracle("TopK", x, np.array([3]), outputs=2, axis=1, largest=int(largest))
    fields: dict[str, Any] = {"k": 3, "axis": 1, "largest": largest, "dtype": "int64"}
    check((values, places), "topk", x, symbolic=(3,), **fields)
    check(values, "topk", x, ret_type="values", **fields)
    check(places, "topk", x, ret_type="indices", **fields)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_running_sums(axis: int | None) -> None:
    check(np.cumsum(X, axis, dtype="float32"), "cumsum", X, axis=axis, symbolic=(3, 4))
    check(np.cumprod(X, axis, dtype="float32"), "cumprod", X, axis=axis, symbolic=(3,))


def test_running_sums_of_other_kinds() -> None:
    expected = onnx_oracle("CumSum", X, np.array(1), exclusive=1)
    check(expected, "cumsum", X, axis=1, exclusive=True, symbolic=(4,))
    x = np.array([True, True, False, True])
    check(np.cumsum(x), "cumsum", x, axis=0, dtype="int64")
    small = np.ones(4096, "float16")
    check(np.arange(1, 4097).astype("float16"), "cumsum", small, axis=0)
    check(np.zeros((0, 2), "float32"), "cumsum", np.zeros((0, 2), "float32"), axis=0)


@pytest.mark.parametrize("right", [False, True])
def test_bucketize(right: bool) -> None:
    x = np.array([[-1.0, 0.0, 0.5], [1.0, 7.0, math.nan]], "float32")
    marks = np.array([0.0, 1.0, 2.0], "float32")
    expected = np.searchsorted(marks, x, "right" if right else "left")
    check(expected, "bucketize", x, marks, right=right, symbolic=(2,))
    check(expected.astype("int32"), "bucketize", x, marks, right=right, out_int32=True)


def test_negative_axes_name_the_same_as_positive_ones() -> None:
    same(run("sum", X, axis=-2), run("sum", X, axis=1))


def test_multinomial_from_uniform() -> None:
    prob = np.array([[0.2, 0.3, 0.5], [0.4, 0.6, 0.0]], "float32")
    sample = np.array([[0.0], [0.1], [0.2], [0.49], [0.5], [0.999], [0.9999999]], "float32")
    rows = np.array([[0], [0], [0], [0], [0], [0], [1]])
    expected = np.array([[0], [0], [1], [1], [2], [2], [1]])
    expected[-1] = 2 if np.cumsum(prob[1], dtype="float32")[1] <= sample[-1, 0] else 1
    check(expected, "multinomial_from_uniform", prob, sample, rows, symbolic=(7,))
