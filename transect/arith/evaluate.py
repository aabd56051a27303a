"""Evaluating scalar expressions with numbers, or numpy arrays of numbers, for their variables.

An array evaluates many points at once: a population of candidates, a grid of indices. Memory is
unknown here: who wants loads evaluated passes `fallback`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np

from transect.ir.dtype import INDEX, DType
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Broadcast,
    Call,
    Cast,
    Div,
    Expr,
    FloatImm,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Ramp,
    Select,
    Shuffle,
    StringImm,
    Sub,
    Var,
)
from transect.support.errors import InputError, UnsupportedError

Value = Any
"""A Python int or bool, a numpy scalar, or an array; vectors have their lanes on the last axis."""

Fallback = Callable[[Expr, Callable[[Expr], Value]], Value]
"""Evaluates a term that is not arithmetic (a load); the second argument evaluates its children."""


def evaluate(expr: Expr, values: Mapping[Var, Value], fallback: Fallback | None = None) -> Value:
    """The value of `expr`, with the meaning of the machine: integers narrower than int64 wrap
    around, floats round to their dtype.

    values: of each variable; numbers, or arrays that broadcast against each other. With numbers,
    only the side of a condition that is chosen is evaluated; with arrays both are, and an integer
    division by zero gives 0. Raises InputError for a variable without a value,
    ZeroDivisionError for a division of integers by the number zero, UnsupportedError for a call
    that has no numeric meaning.
    """
    return _Evaluation(values, fallback).of(expr)


def evaluate_all(
    exprs: Iterable[Expr], values: Mapping[Var, Value], fallback: Fallback | None = None
) -> list[Value]:
    """The values of several expressions; what they share is evaluated once."""
    evaluation = _Evaluation(values, fallback)
    return [evaluation.of(expr) for expr in exprs]


class _Evaluation:
    def __init__(self, values: Mapping[Var, Value], fallback: Fallback | None) -> None:
        self.values = values
        self.fallback = fallback
        self.done: dict[Expr, Value] = {}

    def of(self, expr: Expr) -> Value:
        done = self.done
        if expr in done:
            return done[expr]
        stack = [expr]
        with np.errstate(all="ignore"):
            while stack:
                item = stack[-1]
                if item not in done:
                    needed = self.needs(item)
                    if needed:
                        stack.extend(needed)
                        continue
                    done[item] = self.compute(item)
                stack.pop()
        return done[expr]

    def needs(self, item: Expr) -> list[Expr]:
        """What must be evaluated before `item` can be: a condition first, then what it chooses."""
        lazy = _lazy_parts(item)
        if lazy is None:
            if isinstance(item, Call) or type(item) in _COMPUTE or isinstance(item, Binary):
                children = [child for child in item.children() if isinstance(child, Expr)]
                return [child for child in reversed(children) if child not in self.done]
            return []
        condition, left, right = lazy
        if condition not in self.done:
            return [condition]
        parts = _chosen(self.done[condition], left, right)
        return [part for part in parts if part is not None and part not in self.done]

    def compute(self, item: Expr) -> Value:
        if isinstance(item, Var):
            if item not in self.values:
                raise InputError(f"no value for variable {item.name!r}")
            return _convert(self.values[item], item.dtype)
        lazy = _lazy_parts(item)
        if lazy is not None:
            return self.choose(item, *lazy)
        if isinstance(item, Binary):
            return _binary(item, self.done[item.a], self.done[item.b])
        handler = _COMPUTE.get(type(item))
        if handler is not None:
            return handler(item, self.done)
        if isinstance(item, Call) and isinstance(item.op, Intrinsic):
            function = MATH.get(item.op.name)
            if function is not None:
                return _convert(function(*(self.done[arg] for arg in item.args)), item.dtype)
        if self.fallback is not None:
            return self.fallback(item, self.of)
        what = (
            f"T.{item.op.name}"
            if isinstance(item, Call) and isinstance(item.op, Intrinsic)
            else type(item).__name__
        )
        raise UnsupportedError(f"{what} cannot be evaluated as a number")

    def choose(self, item: Expr, condition: Expr, left: Expr | None, right: Expr | None) -> Value:
        truth = self.done[condition]
        if not _is_array(truth):
            part = left if truth else right
            return bool(truth) if part is None else self.done[part]
        # And has no right side, Or no left side: there the condition is the result.
        on = truth if left is None else self.done[left]
        off = truth if right is None else self.done[right]
        lanes = not item.dtype.is_scalar and condition.dtype.is_scalar
        return _where(truth[..., None] if lanes else truth, on, off)


def _where(condition: Value, on: Value, off: Value) -> Value:
    return cast("Value", np).where(condition, on, off)


def _is_array(value: Value) -> bool:
    return isinstance(value, np.ndarray)


def _lazy_parts(item: Expr) -> tuple[Expr, Expr | None, Expr | None] | None:
    """(condition, value if true, value if false), None where that is the condition itself."""
    if isinstance(item, And):
        return item.a, item.b, None
    if isinstance(item, Or):
        return item.a, None, item.b
    if isinstance(item, Select):
        return item.condition, item.true_value, item.false_value
    if isinstance(item, Call) and isinstance(item.op, Intrinsic) and item.op.name == "if_then_else":
        condition, left, right = item.args
        return condition, left, right
    return None


def _chosen(truth: Value, left: Expr | None, right: Expr | None) -> tuple[Expr | None, ...]:
    if _is_array(truth):
        return left, right
    return (left,) if truth else (right,)


def _convert(value: Value, dtype: DType) -> Value:
    """`value` as the machine holds it in `dtype`."""
    if dtype.is_float:
        kind = dtype.numpy
        return np.asarray(value).astype(kind)[()]
    if _is_array(value):
        if dtype.is_bool:
            return value.astype(np.bool_)
        # A cost is evaluated with float64 in place of indices, where int64 is too small.
        return value if dtype is INDEX and value.dtype == np.float64 else _integers(value, dtype)
    if isinstance(value, np.generic):
        value = cast("Value", value).item()
    if dtype.is_bool:
        return bool(value)
    return wrapped(value, dtype) if isinstance(value, int) else value


def _integers(value: Value, dtype: DType) -> Value:
    if value.dtype.kind not in "iub" or dtype.bits < 8:
        value = (
            np.trunc(value.astype(np.float64)).astype(np.int64)
            if value.dtype.kind == "f"
            else value.astype(np.int64)
        )
    if dtype.bits < 8:
        low, span = int(dtype.min_value), 1 << dtype.bits
        return (value - low) % span + low
    return value.astype(dtype.numpy)


def wrapped(value: int, dtype: DType) -> int:
    """`value` modulo 2**bits, as a value of the dtype; int64 is an index and stays exact."""
    if dtype is INDEX or not dtype.is_integral:
        return value
    low, span = int(dtype.min_value), 1 << dtype.bits
    return (int(value) - low) % span + low


def _floor_quotient(a: Value, b: Value) -> Value:
    return a // b


def _truncated_quotient(a: Value, b: Value) -> Value:
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)
    quotient = np.floor_divide(a, b)
    exact = quotient * np.asarray(b) == a
    return _where((quotient < 0) & ~exact, quotient + 1, quotient)


def _divide(a: Value, b: Value, dtype: DType) -> Value:
    return np.true_divide(a, b) if dtype.is_float else _truncated_quotient(a, b)


def _remainder(a: Value, b: Value, dtype: DType) -> Value:
    if dtype.is_float:
        return np.fmod(a, b)
    return a - b * _truncated_quotient(a, b)


def _pick(
    scalar: Callable[[Value, Value], Value], array: Callable[[Value, Value], Value]
) -> Callable[..., Value]:
    def operation(a: Value, b: Value, dtype: DType) -> Value:
        return scalar(a, b) if isinstance(a, int) and isinstance(b, int) else array(a, b)

    return operation


def _plain(operation: Callable[[Value, Value], Value]) -> Callable[..., Value]:
    def applied(a: Value, b: Value, dtype: DType) -> Value:
        return operation(a, b)

    return applied


_BINARY: dict[type[Binary], Callable[[Value, Value, DType], Value]] = {
    Add: _plain(operator.add),
    Sub: _plain(operator.sub),
    Mul: _plain(operator.mul),
    Div: _divide,
    Mod: _remainder,
    FloorDiv: _plain(_floor_quotient),
    FloorMod: _plain(operator.mod),
    Min: _pick(min, np.minimum),
    Max: _pick(max, np.maximum),
    EQ: _plain(operator.eq),
    NE: _plain(operator.ne),
    LT: _plain(operator.lt),
    LE: _plain(operator.le),
    GT: _plain(operator.gt),
    GE: _plain(operator.ge),
}


def _binary(item: Binary, a: Value, b: Value) -> Value:
    dtype = item.a.dtype
    return _convert(_BINARY[type(item)](a, b, dtype), item.dtype)


def _cast(item: Cast, done: Mapping[Expr, Value]) -> Value:
    value = done[item.value]
    if item.to.is_integral and item.value.dtype.is_float and not _is_array(value):
        number = float(value)
        return wrapped(int(number), item.to) if math.isfinite(number) else 0
    if item.to.is_bool:
        return np.asarray(value != 0)[()] if _is_array(value) else bool(value != 0)
    if isinstance(value, bool):
        value = int(value)
    return _convert(value, item.to)


def _ramp(item: Ramp, done: Mapping[Expr, Value]) -> Value:
    base, stride = np.asarray(done[item.base]), np.asarray(done[item.stride])
    return _convert(base[..., None] + stride[..., None] * np.arange(item.lanes), item.dtype)


def _broadcast(item: Broadcast, done: Mapping[Expr, Value]) -> Value:
    return np.repeat(np.asarray(done[item.value])[..., None], item.lanes, axis=-1)


def _shuffle(item: Shuffle, done: Mapping[Expr, Value]) -> Value:
    parts = [np.atleast_1d(np.asarray(done[vector])) for vector in item.vectors]
    indices = [int(done[index]) for index in item.indices]
    picked = np.concatenate(parts, axis=-1)[..., indices]
    return picked[..., 0] if item.dtype.is_scalar else picked


_COMPUTE: dict[type[Expr], Callable[[Any, Mapping[Expr, Value]], Value]] = {
    IntImm: lambda item, _: bool(item.value) if item.dtype.is_bool else item.value,
    FloatImm: lambda item, _: item.dtype.numpy.type(item.value),
    StringImm: lambda item, _: item.value,
    Not: lambda item, done: (
        np.logical_not(done[item.a]) if _is_array(done[item.a]) else not done[item.a]
    ),
    Cast: _cast,
    Ramp: _ramp,
    Broadcast: _broadcast,
    Shuffle: _shuffle,
}


def _half_away(x: Value) -> Value:
    whole = np.trunc(x)
    return _where(np.abs(x - whole) >= 0.5, whole + np.copysign(1, x), whole)


def _erf(x: Value) -> Value:
    return np.vectorize(math.erf, otypes=[np.float64])(np.asarray(x, np.float64))


def _in_double(function: Callable[..., Value]) -> Callable[..., Value]:
    """`function` in float64: closer than a machine's own, which may differ in the last bit."""

    def computed(*args: Value) -> Value:
        return function(*(np.asarray(arg, np.float64) for arg in args))

    return computed


_NUMPY_NAMES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "pow": "power", "atan2": "arctan2", "nearbyint": "rint",
    "exp_nonpositive": "exp",
}  # fmt: skip
_SAME_NAMES = (
    "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sqrt", "sin", "cos", "tan", "sinh",
    "cosh", "tanh", "floor", "ceil", "trunc", "fabs", "copysign", "fmod", "hypot",
)  # fmt: skip


def _exp10(x: Value) -> Value:
    return np.power(10.0, x)


def _rsqrt(x: Value) -> Value:
    return 1.0 / np.sqrt(x)


def _sigmoid(x: Value) -> Value:
    return 1.0 / (1.0 + np.exp(-x))


def _fma(a: Value, b: Value, c: Value) -> Value:
    return a * b + c


def _same(x: Value) -> Value:
    return x


def _and(a: Value, b: Value) -> Value:
    return a & b


def _or(a: Value, b: Value) -> Value:
    return a | b


def _xor(a: Value, b: Value) -> Value:
    return a ^ b


def _not(a: Value) -> Value:
    return ~a


def _shift_left(a: Value, b: Value) -> Value:
    return a << b


def _shift_right(a: Value, b: Value) -> Value:
    return a >> b


MATH: dict[str, Callable[..., Value]] = {
    **{name: _in_double(getattr(np, name)) for name in _SAME_NAMES},
    **{name: _in_double(getattr(np, twin)) for name, twin in _NUMPY_NAMES.items()},
    "exp10": _in_double(_exp10),
    "rsqrt": _in_double(_rsqrt),
    "sigmoid": _in_double(_sigmoid),
    "erf": _erf,
    "round": _in_double(_half_away),
    "abs": abs,
    "likely": _same,
    "fma": _in_double(_fma),
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "bitwise_and": _and,
    "bitwise_or": _or,
    "bitwise_xor": _xor,
    "bitwise_not": _not,
    "shift_left": _shift_left,
    "shift_right": _shift_right,
}
"""The intrinsics that are functions of numbers, by name."""
