"""Convolutions as products between transforms: the same results, where they are exact enough."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schedule.winograd_programs import Convolution, given_to
from transect.tir.analysis import block_sites, find_contraction
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule.winograd import Transformed, to_winograd, transform_filters
from transect.tir.verify import verify_func


def transformed(case: Convolution) -> tuple[PrimFunc, Transformed | None]:
    func = case.function()
    return func, to_winograd(func, func.buffers[1])


def computed(case: Convolution, arrays: list[np.ndarray]) -> np.ndarray:
    """What the transformed program makes of them."""
    func, found = transformed(case)
    assert found is not None
    verify_func(found.function)
    inputs = given_to(func, arrays)
    inputs[1] = transform_filters(inputs[1], found.order)
    result = np.full(case.shape, np.nan, case.dtype)
    interpret(found.function, *inputs, result)
    return result


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(3, 6), width=st.integers(3, 6), results=st.integers(1, 3),
    batch=st.integers(1, 2), padding=st.integers(0, 2), weights=st.permutations("ijcf"),
    epilogue=st.booleans(), symbolic=st.booleans(),
)  # fmt: skip
def test_the_results_are_the_same(weights, **options) -> None:
    case = Convolution(channels=27, weights="".join(weights), **options)
    arrays = case.arrays()
    np.testing.assert_array_equal(computed(case, arrays), case.result(*arrays))


def test_there_are_four_products_for_nine() -> None:
    case = Convolution(8, 8, epilogue=True)
    before, found = transformed(case)
    assert found is not None
    counts = [
        product.operations.value
        for func in (before, found.function)
        for site in block_sites(func)
        if (product := find_contraction(site))
    ]
    assert counts[0] * 4 == counts[1] * 9


REFUSED = {
    "stride": Convolution(9, 9, stride=2),
    "dilation": Convolution(9, 9, dilation=2),
    "windows of five": Convolution(9, 9, kernel=(5, 5)),
    "windows of one row": Convolution(9, 9, kernel=(1, 3)),
    "few channels": Convolution(9, 9, channels=26),
    "half precision": Convolution(9, 9, dtype="float16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_stay_sums(name: str) -> None:
    assert transformed(REFUSED[name])[1] is None


@pytest.mark.parametrize("place", [0, 2])
def test_only_filters_are_transformed(place: int) -> None:
    func = Convolution(9, 9, epilogue=True).function()
    assert to_winograd(func, func.buffers[place]) is None


@pytest.mark.parametrize("channels", [27, 64, 256])
def test_errors_stay_below_the_bound(channels: int) -> None:
    case = Convolution(4, 4, channels=channels, results=2)
    random = np.random.default_rng(1)
    arrays = [random.uniform(-1, 1, item.shape).astype(np.float32) for item in case.arrays()]
    exact = case.result(*(item.astype(np.float64) for item in arrays))
    error = np.abs(computed(case, arrays) - exact).max()
    assert error <= 64 * channels * (channels + 7) * 2.0**-24
    # The bound is for the worst signs; the usual error is near that of the sum.
    assert error <= 4 * np.abs(case.result(*arrays) - exact).max() + 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(2, 2), (3, 2), (3, 3), (0, 4)])
def test_what_is_not_finite_reaches_the_results_that_read_it(value: float, place) -> None:
    case = Convolution(6, 6, results=2)
    arrays = case.arrays()
    arrays[0][(0, *place, 5)] = value
    arrays[1][arrays[1] == 0] = 4
    with np.errstate(invalid="ignore"):
        got, sums = computed(case, arrays), case.result(*arrays)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(sums))
    np.testing.assert_array_equal(got[np.isfinite(sums)], sums[np.isfinite(sums)])


def test_double_precision() -> None:
    case = replace(Convolution(4, 5, results=2), dtype="float64")
    arrays = case.arrays()
    np.testing.assert_array_equal(computed(case, arrays), case.result(*arrays))
