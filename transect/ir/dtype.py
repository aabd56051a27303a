"""Data types of scalars and vectors: what an element is, how it is spelled, its numpy twin."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, cast

import ml_dtypes
import numpy as np

from transect.ir.term import Term, set_derived, term
from transect.support.errors import InputTypeError

_BITS: dict[str, tuple[int, ...]] = {
    "bool": (1,),
    "int": (2, 4, 8, 16, 32, 64),
    "uint": (2, 4, 8, 16, 32, 64),
    "float": (16, 32, 64),
    "bfloat": (16,),
    "float8_e4m3fn": (8,),
    "float8_e4m3fnuz": (8,),
    "float8_e5m2": (8,),
    "float8_e5m2fnuz": (8,),
    "float8_e8m0fnu": (8,),
    "float4_e2m1fn": (4,),
    "handle": (64,),
    "void": (0,),
    "str": (0,),
}
_NUMBERED = ("int", "uint", "float", "bfloat")
"""The codes whose spelling ends in the number of bits."""
_UNNUMBERED = "|".join(code for code in _BITS if code not in _NUMBERED)
_PATTERN = re.compile(rf"({_UNNUMBERED}|(?:{'|'.join(_NUMBERED)})(\d+))(?:x(vscalex)?(\d+))?")

_DLPACK_CODES = {
    "int": 0, "uint": 1, "float": 2, "handle": 3, "bfloat": 4, "bool": 6,
    "float8_e4m3fn": 10, "float8_e4m3fnuz": 11, "float8_e5m2": 12, "float8_e5m2fnuz": 13,
    "float8_e8m0fnu": 14, "float4_e2m1fn": 17,
}  # fmt: skip


_MOST_LANES = (1 << 16) - 1
"""Lanes are 16 bits wide in DLPack."""


class _Named(Term):
    __slots__ = ("name",)
    name: str


@term
class DType(_Named):
    """An element type: `code`, `bits` of one lane, `lanes` of a vector (1: a scalar).

    `scalable`: the number of lanes is `lanes` times the hardware's vscale.
    Spelled as in TVMScript: "float32", "int8x64", "bfloat16", "float8_e4m3fn", "bool", "handle".
    Raises InputTypeError for a combination that does not exist.
    """

    code: str
    bits: int
    lanes: int = 1
    scalable: bool = False

    def _derive(self) -> None:
        if self.bits not in _BITS.get(self.code, ()) or not 1 <= self.lanes <= _MOST_LANES:
            raise InputTypeError(
                f"no such dtype: {self.code}{self.bits}x{self.lanes}",
                remedy="use bool, (u)int2/4/8/16/32/64, float16/32/64, bfloat16, or the formats of "
                "ml_dtypes: float8_e4m3fn, float4_e2m1fn, …",
            )
        suffix = str(self.bits) if self.code in _NUMBERED else ""
        lanes = (
            f"x{'vscalex' if self.scalable else ''}{self.lanes}"
            if self.lanes > 1 or self.scalable
            else ""
        )
        set_derived(self, "name", f"{self.code}{suffix}{lanes}")

    @property
    def is_bool(self) -> bool:
        return self.code == "bool"

    @property
    def is_int(self) -> bool:
        """A signed integer."""
        return self.code == "int"

    @property
    def is_uint(self) -> bool:
        return self.code == "uint"

    @property
    def is_integral(self) -> bool:
        """A signed or unsigned integer; bool is neither."""
        return self.code in ("int", "uint")

    @property
    def is_float(self) -> bool:
        """Any floating-point format, bfloat16, float8 and float4 included."""
        return "float" in self.code

    @property
    def has_infinity(self) -> bool:
        """Whether the format has infinities: IEEE's formats, bfloat16 and float8_e5m2."""
        return self.code in ("float", "bfloat", "float8_e5m2")

    @property
    def has_nan(self) -> bool:
        """Whether there is a NaN: in all floats but float4."""
        return self.is_float and self.bits > 4

    @property
    def dlpack_code(self) -> int | None:
        """DLPack's type code of one lane, None for what no tensor can hold."""
        return _DLPACK_CODES.get(self.code)

    @property
    def is_handle(self) -> bool:
        return self.code == "handle"

    @property
    def is_scalar(self) -> bool:
        return self.lanes == 1 and not self.scalable

    @property
    def element(self) -> DType:
        """The dtype of one lane."""
        return DType(self.code, self.bits)

    def with_lanes(self, lanes: int, *, scalable: bool = False) -> DType:
        """This element type as a vector of `lanes`."""
        return DType(self.code, self.bits, lanes, scalable)

    @property
    def bytes(self) -> int:
        """Bytes of storage of one value; sub-byte types take a byte per element of a buffer."""
        return max(1, (self.bits + 7) // 8) * self.lanes

    @property
    def min_value(self) -> int | float:
        """The smallest finite value. Raises InputTypeError for void and str."""
        return _limits(self)[0]

    @property
    def max_value(self) -> int | float:
        """The largest finite value. Raises InputTypeError for void and str."""
        return _limits(self)[1]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy (or ml_dtypes) dtype of one lane. Raises InputTypeError if there is none."""
        return _numpy_dtype(self)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"DType({str(self)!r})"


_SPECIAL_NUMPY = {
    **{
        name: getattr(ml_dtypes, name)
        for name in (
            "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
            "float8_e8m0fnu", "float4_e2m1fn", "int4", "uint4", "int2", "uint2",
        )
    },
    "bool": np.bool_,
    "handle": np.uint64,
}  # fmt: skip


@cache
def _limits(dtype: DType) -> tuple[int | float, int | float]:
    if dtype.is_bool:
        return 0, 1
    if dtype.is_int:
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    if dtype.is_uint or dtype.is_handle:
        return 0, (1 << dtype.bits) - 1
    info = cast("Any", ml_dtypes.finfo(dtype.numpy))
    return float(info.min), float(info.max)


@cache
def _numpy_dtype(dtype: DType) -> np.dtype[Any]:
    name = dtype.element.name
    if dtype.code in ("void", "str"):
        raise InputTypeError(f"{name} has no array representation")
    return np.dtype(_SPECIAL_NUMPY.get(name, name))


@cache
def _parse(text: str) -> DType:
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise InputTypeError(
            f"no such dtype: {text!r}", remedy='write for example "float32" or "int8x4"'
        )
    name, bits, vscale, lanes = match.groups()
    code = name.removesuffix(bits) if bits else name
    width = int(bits) if bits else _BITS[code][0]
    return DType(code, width, int(lanes or 1), vscale is not None)


def as_dtype(value: DType | str | np.dtype[Any] | type) -> DType:
    """A DType from its spelling, a numpy dtype or scalar type, or itself.

    Raises InputTypeError if there is none.
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str):
        return _parse(value)
    try:
        name = np.dtype(value).name
    except TypeError as error:
        raise InputTypeError(
            f"no such dtype: {value!r}", remedy='write for example "float32" or "int8x4"'
        ) from error
    return _parse(name)


BOOL = DType("bool", 1)
INT8 = DType("int", 8)
INT32 = DType("int", 32)
INT64 = DType("int", 64)
UINT32 = DType("uint", 32)
UINT8 = DType("uint", 8)
FLOAT16 = DType("float", 16)
BFLOAT16 = DType("bfloat", 16)
FLOAT32 = DType("float", 32)
FLOAT64 = DType("float", 64)
HANDLE = DType("handle", 64)
VOID = DType("void", 0)
STRING = DType("str", 0)
INDEX = INT64
"""The dtype of shapes, extents and indices unless a program says otherwise."""
