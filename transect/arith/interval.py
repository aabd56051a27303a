"""Intervals of integers with possibly missing ends, and how operations move them.

Pure numbers: which expression has which interval is in `inference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from transect.ir.dtype import INDEX, DType

_End = int | float
"""An integer, or an infinity; never another float."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The integers from `min` to `max`, both included; None: unbounded on that side.

    `min > max` is the empty set: the value cannot occur (contradictory assumptions).
    """

    min: int | None = None
    max: int | None = None

    @property
    def low(self) -> _End:
        """`min`, or minus infinity."""
        return -math.inf if self.min is None else self.min

    @property
    def high(self) -> _End:
        """`max`, or infinity."""
        return math.inf if self.max is None else self.max

    @property
    def single(self) -> int | None:
        """The only member, if there is exactly one."""
        return self.min if self.min is not None and self.min == self.max else None

    @property
    def is_empty(self) -> bool:
        """Whether no integer is a member."""
        return self.low > self.high

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high

    def within(self, other: Bounds) -> bool:
        """Whether every member is a member of `other`."""
        return other.low <= self.low and self.high <= other.high

    def __and__(self, other: Bounds) -> Bounds:
        return from_ends(max(self.low, other.low), min(self.high, other.high))

    def __or__(self, other: Bounds) -> Bounds:
        return from_ends(min(self.low, other.low), max(self.high, other.high))

    def __add__(self, other: Bounds) -> Bounds:
        return from_ends(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Bounds:
        return from_ends(-self.high, -self.low)

    def scaled(self, factor: int) -> Bounds:
        """Each member times `factor`."""
        if factor == 0:
            return Bounds(0, 0)
        low, high = self.min, self.max
        if factor < 0:
            low, high = high, low
        return Bounds(
            None if low is None else low * factor, None if high is None else high * factor
        )

    def __mul__(self, other: Bounds) -> Bounds:
        return _corners(self, other, _product)


EVERYTHING = Bounds()
TRUTH = Bounds(0, 1)


def dtype_bounds(dtype: DType) -> Bounds:
    """The values of an integer or bool dtype. Index arithmetic (int64) is taken not to overflow,
    so its values are unbounded."""
    if dtype is INDEX or dtype.is_handle:
        return EVERYTHING
    return Bounds(int(dtype.min_value), int(dtype.max_value))


def from_ends(low: _End, high: _End) -> Bounds:
    """The interval between two ends that may be infinite."""
    return Bounds(
        int(low) if math.isfinite(low) else None, int(high) if math.isfinite(high) else None
    )


def _product(a: _End, b: _End) -> _End:
    if a == 0 or b == 0:
        return 0
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return math.inf if (a > 0) == (b > 0) else -math.inf


def _floor_quotient(a: _End, b: _End) -> _End:
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(b, int):
        return a if b > 0 else -a
    if isinstance(a, int):
        return 0 if a == 0 or (a > 0) == (b > 0) else -1
    # Infinity over infinity: any quotient of this sign; the other corners hold the end at zero.
    return a if b > 0 else -a


def _truncated_quotient(a: _End, b: _End) -> _End:
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)
    if isinstance(a, int):
        return 0
    return a if b > 0 else -a


def _corners(a: Bounds, b: Bounds, operation: Callable[[_End, _End], _End]) -> Bounds:
    ends = [operation(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return from_ends(min(ends), max(ends))


def _by_divisor(a: Bounds, b: Bounds, operation: Callable[[Bounds, Bounds], Bounds]) -> Bounds:
    """`operation` over the negative and the positive divisors; division by zero has no value."""
    parts = [
        operation(a, part)
        for part in (b & Bounds(1, None), b & Bounds(None, -1))
        if not part.is_empty
    ]
    if not parts:
        return EVERYTHING
    return parts[0] if len(parts) == 1 else parts[0] | parts[1]


def floordiv(a: Bounds, b: Bounds) -> Bounds:
    """The quotients rounded down."""
    return _by_divisor(a, b, lambda x, y: _corners(x, y, _floor_quotient))


def truncdiv(a: Bounds, b: Bounds) -> Bounds:
    """The quotients rounded toward zero."""
    if a.low < 0 < a.high:
        return truncdiv(a & Bounds(None, 0), b) | truncdiv(a & Bounds(0, None), b)
    return _by_divisor(a, b, lambda x, y: _corners(x, y, _truncated_quotient))


def floormod(a: Bounds, b: Bounds) -> Bounds:
    """The remainders with the sign of the divisor."""
    return _by_divisor(a, b, _floormod_by_sign)


def _floormod_by_sign(a: Bounds, b: Bounds) -> Bounds:
    if b.high < 0:
        return -_floormod_by_sign(-a, -b)
    if a.low >= 0 and a.high < b.low:
        return a
    divisor = b.single
    if divisor is not None and a.min is not None and a.max is not None:
        quotient = a.min // divisor
        if quotient == a.max // divisor:
            return Bounds(a.min - quotient * divisor, a.max - quotient * divisor)
    top = b.high - 1
    return from_ends(0, min(top, a.high) if a.low >= 0 else top)


def truncmod(a: Bounds, b: Bounds) -> Bounds:
    """The remainders with the sign of the dividend."""
    size = max(abs(b.low), abs(b.high)) - 1
    if size < 0:
        return EVERYTHING
    if a.low >= 0 and b.low > 0:
        return _floormod_by_sign(a, b)
    return from_ends(max(-size, a.low) if a.low < 0 else 0, min(size, a.high) if a.high > 0 else 0)


def minimum(a: Bounds, b: Bounds) -> Bounds:
    """The smaller of a member of each."""
    return from_ends(min(a.low, b.low), min(a.high, b.high))


def maximum(a: Bounds, b: Bounds) -> Bounds:
    """The larger of a member of each."""
    return from_ends(max(a.low, b.low), max(a.high, b.high))
