"""Spelling, parsing and numpy twins of data types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from transect.ir.dtype import DType, as_dtype
from transect.support.errors import InputTypeError

_SCALARS = [
    "bool", "int4", "int8", "int16", "int32", "int64", "uint4", "uint8", "uint16", "uint32",
    "uint64", "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


@pytest.mark.parametrize("name", _SCALARS)
@pytest.mark.parametrize("lanes", ["", "x4", "xvscalex4"])
def test_spelling_round_trip(name: str, lanes: str) -> None:
    dtype = as_dtype(name + lanes)
    assert str(dtype) == name + lanes
    assert as_dtype(str(dtype)) is dtype
    assert dtype.element is as_dtype(name)
    assert dtype.is_scalar is (lanes == "")
    assert dtype.with_lanes(1) is dtype.element


@pytest.mark.parametrize("name", _SCALARS)
def test_numpy_round_trip(name: str) -> None:
    dtype = as_dtype(name)
    assert as_dtype(dtype.numpy) is dtype
    assert as_dtype(dtype.numpy.type) is dtype
    assert np.zeros(3, dtype.numpy).itemsize == dtype.bytes


@pytest.mark.parametrize("name", ["handle", "void", "str"])
def test_special_spellings(name: str) -> None:
    assert str(as_dtype(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "int", "int7", "float8", "float128", "uint1", "int8x0", "float32 ", "bfloat32", "x4"],
)
def test_unknown_spellings_are_refused(name: str) -> None:
    with pytest.raises(InputTypeError, match="no such dtype"):
        as_dtype(name)


def test_other_values_are_refused() -> None:
    with pytest.raises(InputTypeError, match="no such dtype"):
        as_dtype(object())  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputTypeError, match="no array representation"):
        _ = as_dtype("void").numpy


def test_classes_and_limits() -> None:
    assert as_dtype("bool").is_bool
    assert not as_dtype("bool").is_integral
    assert as_dtype("uint4").is_uint
    assert as_dtype("bfloat16").is_float
    assert as_dtype("float8_e4m3fn").is_float
    assert (as_dtype("int8").min_value, as_dtype("int8").max_value) == (-128, 127)
    assert (as_dtype("uint4").min_value, as_dtype("uint4").max_value) == (0, 15)
    assert as_dtype("float8_e4m3fn").max_value == 448.0
    assert as_dtype("bfloat16").max_value == float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    assert as_dtype("int8x4").bytes == 4
    assert DType("int", 8, 1) is as_dtype("int8")
