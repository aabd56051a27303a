"""Operators on positions: sorting, selecting, counting, running sums, in the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.relax_op.support import check, floats, integers, run, shape, tensor
from transect.ir.dtype import INT64
from transect.relax.op import find_operator
from transect.relax.op.sort import TopK
from transect.support.errors import InferenceError

TIES = integers(4, 9, low=0, high=4, seed=3)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_sorting_is_stable(axis: int, descending: bool) -> None:
    order = np.argsort(-TIES if descending else TIES, axis=axis, kind="stable")
    values = np.take_along_axis(TIES, order, axis)
    check(values, "sort", TIES, axis=axis, descending=descending, symbolic=(9,))
    check(order, "argsort", TIES, axis=axis, descending=descending, dtype="int64", symbolic=(4, 9))


def test_nan_sorts_as_the_greatest() -> None:
    x = np.array([3, np.nan, -np.inf, np.inf, np.nan, 0], np.float32)
    check(np.sort(x), "sort", x)
    check(np.array([1, 4, 3, 0, 5, 2]), "argsort", x, descending=True, dtype="int64")


@pytest.mark.parametrize("k", [1, 3, 8, 9])
@pytest.mark.parametrize("largest", [False, True])
def test_the_first_of_an_order(k: int, largest: bool) -> None:
    order = np.argsort(-TIES if largest else TIES, axis=1, kind="stable")[:, :k]
    wanted = (np.take_along_axis(TIES, order, 1), order)
    check(wanted, "topk", TIES, k=k, axis=1, largest=largest, dtype="int64", symbolic=(4,))
    check(wanted, "topk", TIES, (k,), axis=1, largest=largest, dtype="int64", symbolic=(4, 9))


def test_none_of_an_order() -> None:
    wanted = (TIES[:, :0], np.zeros((4, 0), np.int64))
    check(wanted, "topk", TIES, (0,), axis=1, dtype="int64")


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(InferenceError, match="is more than the"):
        TopK(axis=0, dtype=INT64).infer(tensor(3), shape(4))


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
@pytest.mark.parametrize("exclusive", [False, True])
def test_running_from_the_end(name: str, exclusive: bool) -> None:
    x = floats(3, 5)
    operation: Any = np.cumsum if name == "cumsum" else np.cumprod
    flipped = x[:, ::-1]
    if exclusive:
        start = np.full((3, 1), 0 if name == "cumsum" else 1, np.float32)
        flipped = np.concatenate([start, flipped[:, :-1]], 1)
    wanted = operation(flipped, axis=1)[:, ::-1].astype(np.float32)
    check(wanted, name, x, axis=1, exclusive=exclusive, reverse=True, symbolic=(3, 5))


def test_the_last_of_equal_extremes() -> None:
    last = 8 - np.argmax(TIES[:, ::-1], axis=1)
    check(last, "argmax", TIES, axis=1, select_last_index=True, symbolic=(4, 9))


def test_what_is_not_zero() -> None:
    check(np.array([np.count_nonzero(TIES)]), "count_nonzero", TIES, symbolic=(4,))
    wanted = np.stack(np.nonzero(TIES))
    check(wanted, "nonzero_positions", TIES, (wanted.shape[1],), symbolic=(4, 9))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_groups_of_equal_items(axis: int | None) -> None:
    x = integers(6, 2, low=0, high=2, seed=1)
    names = ("return_index", "return_inverse", "return_counts")
    _, first, inverse, counts = np.unique(x, axis=axis, **dict.fromkeys(names, True))
    groups = run("unique_groups", x, axis=axis)
    number = int(groups[3][0])
    assert number == len(first)
    np.testing.assert_array_equal(groups[0][:number], first)
    np.testing.assert_array_equal(groups[1], inverse.reshape(-1))
    np.testing.assert_array_equal(groups[2][:number], counts)
    seen = run("unique_groups", x, axis=axis, sorted=False)
    np.testing.assert_array_equal(seen[0][:number], np.sort(first))
    np.testing.assert_array_equal(seen[0][seen[1]], first[inverse.reshape(-1)])


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 5, 1), (5, -3, -2), (1.5, 9.0, 0.25), (3, 3, 1), (4, 1, 1)]
)
def test_a_range_of_tensors(start: float, stop: float, step: float) -> None:
    dtype = np.float32 if isinstance(start, float) else np.int32
    wanted = np.arange(start, stop, step, dtype)
    low, high, by = (np.asarray(item, dtype) for item in (start, stop, step))
    check(np.array([len(wanted)]), "arange_size", low, high, by)
    check(wanted, "arange_tensor", low, by, (len(wanted),))


@pytest.mark.parametrize("axis", [-1, 0])
def test_depth_as_an_extent(axis: int) -> None:
    places = np.array([0, -1, 2, 5])
    wanted = np.zeros((4, 3), np.float32)
    wanted[[0, 1, 2], [0, 2, 2]] = 1
    one, zero = np.float32(1), np.float32(0)
    operands = (places, np.asarray(one), np.asarray(zero), (3,))
    check(wanted if axis else wanted.T, "one_hot", *operands, axis=axis, symbolic=(4,))


def test_a_cache_is_written_in_a_circle() -> None:
    x, update = np.zeros((2, 4, 1), np.float32), np.ones((2, 2, 1), np.float32)
    wanted = x.copy()
    wanted[0, [1, 2]] = wanted[1, [3, 0]] = 1
    where = np.array([1, 3])
    check(wanted, "tensor_scatter", x, update, where, axis=1, circular=True)
    with pytest.raises(IndexError, match="2 elements from position 3 on do not fit an axis of 4"):
        run("tensor_scatter", x, update, where, axis=1)


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("take", (floats(3), np.array([0, 3]))),
        ("take", (floats(3), np.array([-4]))),
        ("gather_elements", (floats(3), np.array([3]))),
        ("gather_nd", (floats(3), np.array([[3]]))),
        ("scatter_elements", (floats(3), np.array([3]), floats(1))),
        ("scatter_nd", (floats(3), np.array([[-4]]), floats(1))),
    ],
)
def test_an_index_out_of_range_fails(name: str, operands: tuple[np.ndarray, ...]) -> None:
    fields = {"axis": 0} if name == "take" else {}
    assert find_operator(name).name == name
    with pytest.raises(IndexError, match="is out of range for an axis of 3"):
        run(name, *operands, **fields)
