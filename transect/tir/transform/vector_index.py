"""Vectors of indices as one ramp: what a vector adds to an offset is a vector further on."""

from __future__ import annotations

from transect.ir.expr import Add, Broadcast, Expr, Mul, Ramp, Sub, as_expr, as_int, make

Steps = tuple[Expr, Expr]
"""The first lane, and how far one lane is from the one before."""


def as_ramp(value: Expr) -> Expr:
    """An integer vector as one ramp or broadcast, if it is a sum or a multiple of such.

    Broadcast(i * 64, 16) + Ramp(j, 1, 16)   ->   Ramp(i * 64 + j, 1, 16)
    """
    if value.dtype.is_scalar or isinstance(value, Ramp | Broadcast) or value.dtype.scalable:
        return value
    found = _steps(value)
    if found is None:
        return value
    base, stride = found
    if as_int(stride) == 0:
        return Broadcast(base, value.dtype.lanes)
    return Ramp(base, stride, value.dtype.lanes)


def _steps(value: Expr) -> Steps | None:
    if isinstance(value, Ramp):
        return value.base, value.stride
    if isinstance(value, Broadcast):
        return value.value, as_expr(0, value.value.dtype)
    if not isinstance(value, Add | Sub | Mul):
        return None
    a, b = _steps(value.a), _steps(value.b)
    if a is None or b is None:
        return None
    kind = type(value)
    if not isinstance(value, Mul):
        return make(kind, a[0], b[0]), make(kind, a[1], b[1])
    if as_int(a[1]) == 0:
        a, b = b, a
    if as_int(b[1]) != 0:
        return None
    return make(Mul, a[0], b[0]), make(Mul, a[1], b[0])
