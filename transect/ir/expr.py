"""Scalar expressions: the terms that index, bound, predicate and compute.

Arithmetic operators on terms fold constants and nothing else; `arith` simplifies. `==` is object
identity: build a comparison with `EQ(a, b)`. Loads from buffers belong to `tir`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from transect.ir import fold
from transect.ir.dtype import BOOL, FLOAT32, HANDLE, INDEX, STRING, DType, as_dtype
from transect.ir.printing import render
from transect.ir.term import Term, set_derived, term
from transect.support.errors import InputTypeError


class Expr(Term):
    """Base of scalar expressions. `dtype` is the type of the value, with its lanes.

    reads: of a kind of expression, whether evaluating it reads memory.
    """

    __slots__ = ("dtype",)
    dtype: DType
    reads: ClassVar[bool] = False

    def __bool__(self) -> bool:
        raise InputTypeError(
            "a symbolic expression has no truth value",
            remedy="use Analyzer.can_prove at compile time, or T.if_then_else in the program",
        )

    def __add__(self, other: ExprLike) -> Expr:
        return _binary(Add, self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return _binary(Add, other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return _binary(Sub, self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return _binary(Sub, other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return _binary(Mul, self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return _binary(Mul, other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return divide(self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return divide(other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return _binary(FloorDiv, self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return _binary(FloorDiv, other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return _binary(FloorMod, self, other)

    def __rmod__(self, other: ExprLike) -> Expr:
        return _binary(FloorMod, other, self)

    def __neg__(self) -> Expr:
        return (
            _binary(Sub, as_expr(0, self.dtype), self) if not self.dtype.is_float else negate(self)
        )

    def __lt__(self, other: ExprLike) -> Expr:
        return _binary(LT, self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return _binary(LE, self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return _binary(GT, self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return _binary(GE, self, other)

    def __invert__(self) -> Expr:
        return logical_not(self) if self.dtype.is_bool else call_bitwise("bitwise_not", self)

    def __and__(self, other: ExprLike) -> Expr:
        return _logic_or_bits(And, "bitwise_and", self, other)

    def __rand__(self, other: ExprLike) -> Expr:
        return _logic_or_bits(And, "bitwise_and", other, self)

    def __or__(self, other: ExprLike) -> Expr:
        return _logic_or_bits(Or, "bitwise_or", self, other)

    def __ror__(self, other: ExprLike) -> Expr:
        return _logic_or_bits(Or, "bitwise_or", other, self)

    def __xor__(self, other: ExprLike) -> Expr:
        return call_bitwise("bitwise_xor", self, other)

    def __lshift__(self, other: ExprLike) -> Expr:
        return call_bitwise("shift_left", self, other)

    def __rshift__(self, other: ExprLike) -> Expr:
        return call_bitwise("shift_right", self, other)

    def astype(self, dtype: DType | str) -> Expr:
        """This value converted to `dtype`; constants are converted at once."""
        return cast(self, dtype)

    def __repr__(self) -> str:
        return render(self)


ExprLike = Expr | int | float | bool
"""What the operators and builders take where an expression is meant."""


class Var(Expr):
    """A variable. Compares by identity: create it once, in the scope that binds it.

    dtype: of its value. pointer: for a handle, what it points to.
    """

    __slots__ = ("name", "pointer")
    __match_args__ = ("name", "dtype")
    name: str
    pointer: Pointer | None

    def __init__(
        self, name: str, dtype: DType | str = INDEX, pointer: Pointer | None = None
    ) -> None:
        set_derived(self, "name", name)
        set_derived(self, "dtype", as_dtype(dtype))
        set_derived(self, "pointer", pointer)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Var is immutable: cannot set {name!r}")

    def map_children(self, function: Callable[[Any], Any]) -> Var:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"variable {self.name!r} has no meaning in another process; send script text"
        )


@term
class Pointer(Term):
    """The type of a handle variable: points to `element`s in a memory `scope`."""

    element: DType
    scope: str = "global"


@term
class IntImm(Expr):
    """An integer constant, or a truth value when `kind` is bool. Raises if it does not fit."""

    value: int
    kind: DType = INDEX

    def _derive(self) -> None:
        value, kind = self.value, self.kind
        set_derived(self, "dtype", kind)
        # True and numpy integers would make a second constant beside the interned one.
        if type(value) is not int:
            raise InputTypeError(
                f"the value of an IntImm is an int, not {type(value).__name__}",
                remedy="use const(value, dtype)",
            )
        if not kind.min_value <= value <= kind.max_value:
            raise InputTypeError(f"{value} does not fit in {kind}")


@term
class FloatImm(Expr):
    """A floating-point constant, held as a double already rounded to `kind`."""

    value: float
    kind: DType = FLOAT32

    def _derive(self) -> None:
        set_derived(self, "dtype", self.kind)


@term
class StringImm(Expr):
    """A string constant, as an argument of calls."""

    value: str

    def _derive(self) -> None:
        set_derived(self, "dtype", STRING)


class Binary(Expr):
    """Base of the operations on two values of one dtype."""

    __slots__ = ()
    a: Expr
    b: Expr

    def _derive(self) -> None:
        if self.a.dtype is not self.b.dtype:
            raise InputTypeError(
                f"{type(self).__name__} of {self.a.dtype} and {self.b.dtype}",
                remedy="cast one of them",
            )
        set_derived(self, "dtype", self.a.dtype)


class Comparison(Binary):
    """Base of the comparisons: the result is bool, with the lanes of the operands."""

    __slots__ = ()

    def _derive(self) -> None:
        Binary._derive(self)
        set_derived(
            self, "dtype", BOOL.with_lanes(self.a.dtype.lanes, scalable=self.a.dtype.scalable)
        )


@term
class Add(Binary):
    """a + b; integers wrap around."""

    a: Expr
    b: Expr


@term
class Sub(Binary):
    """a - b; integers wrap around."""

    a: Expr
    b: Expr


@term
class Mul(Binary):
    """a * b; integers wrap around."""

    a: Expr
    b: Expr


@term
class Div(Binary):
    """a / b of floats (IEEE), or the quotient truncated toward zero of integers."""

    a: Expr
    b: Expr


@term
class Mod(Binary):
    """The remainder of the truncating division, with the sign of `a`."""

    a: Expr
    b: Expr


@term
class FloorDiv(Binary):
    """floor(a / b)."""

    a: Expr
    b: Expr


@term
class FloorMod(Binary):
    """a - b * floor(a / b), with the sign of `b`."""

    a: Expr
    b: Expr


@term
class Min(Binary):
    """The smaller value; NaN if either is NaN."""

    a: Expr
    b: Expr


@term
class Max(Binary):
    """The larger value; NaN if either is NaN."""

    a: Expr
    b: Expr


@term
class EQ(Comparison):
    """a == b."""

    a: Expr
    b: Expr


@term
class NE(Comparison):
    """a != b."""

    a: Expr
    b: Expr


@term
class LT(Comparison):
    """a < b."""

    a: Expr
    b: Expr


@term
class LE(Comparison):
    """a <= b."""

    a: Expr
    b: Expr


@term
class GT(Comparison):
    """a > b."""

    a: Expr
    b: Expr


@term
class GE(Comparison):
    """a >= b."""

    a: Expr
    b: Expr


@term
class And(Binary):
    """Both are true; `b` is not evaluated if `a` is false."""

    a: Expr
    b: Expr


@term
class Or(Binary):
    """At least one is true; `b` is not evaluated if `a` is true."""

    a: Expr
    b: Expr


@term
class Not(Expr):
    """The opposite truth value."""

    a: Expr

    def _derive(self) -> None:
        set_derived(self, "dtype", self.a.dtype)


@term
class Select(Expr):
    """`true_value` where `condition`, else `false_value`. Both sides may be evaluated.

    For a side that must not be evaluated (an access out of bounds) use the intrinsic if_then_else.
    """

    condition: Expr
    true_value: Expr
    false_value: Expr

    def _derive(self) -> None:
        if self.true_value.dtype is not self.false_value.dtype:
            raise InputTypeError(f"Select of {self.true_value.dtype} and {self.false_value.dtype}")
        set_derived(self, "dtype", self.true_value.dtype)


@term
class Cast(Expr):
    """`value` converted to the dtype `to`: C rules, floats to integers truncate toward zero."""

    to: DType
    value: Expr

    def _derive(self) -> None:
        set_derived(self, "dtype", self.to)


@term
class Ramp(Expr):
    """The vector base, base + stride, …, of `lanes` values."""

    base: Expr
    stride: Expr
    lanes: int
    scalable: bool = False

    def _derive(self) -> None:
        set_derived(self, "dtype", self.base.dtype.with_lanes(self.lanes, scalable=self.scalable))


@term
class Broadcast(Expr):
    """The vector of `lanes` copies of a scalar."""

    value: Expr
    lanes: int
    scalable: bool = False

    def _derive(self) -> None:
        set_derived(self, "dtype", self.value.dtype.with_lanes(self.lanes, scalable=self.scalable))


@term
class Shuffle(Expr):
    """The vector whose lane i is lane `indices[i]` of the concatenation of `vectors`."""

    vectors: tuple[Expr, ...]
    indices: tuple[Expr, ...]

    def _derive(self) -> None:
        set_derived(self, "dtype", self.vectors[0].dtype.element.with_lanes(len(self.indices)))


Effect = Literal["pure", "read", "write"]
"""What a call may do besides its result: nothing, read memory, or anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Intrinsic:
    """A primitive that an expression calls: a math function, a barrier, a matrix instruction.

    name: as in script (T.<name>). effect: only "pure" calls may be merged, moved or dropped.
    arity: number of arguments, None if any number. result: the dtype of the call when it does not
    follow from the arguments ("first": that of the first argument; None: given at the call).
    """

    name: str
    effect: Effect = "pure"
    arity: int | None = None
    result: DType | Literal["first"] | None = "first"

    def __call__(self, *args: ExprLike | str, dtype: DType | str | None = None) -> Call:
        """The call of this primitive. Raises InputTypeError for a wrong number of arguments."""
        if self.arity is not None and len(args) != self.arity:
            raise InputTypeError(
                f"T.{self.name} takes {self.arity} arguments, got {len(args)}",
                remedy="a dtype, where it takes one, is dtype=",
            )
        terms = tuple(StringImm(arg) if isinstance(arg, str) else as_expr(arg) for arg in args)
        if dtype is not None:
            result = as_dtype(dtype)
        elif self.result == "first":
            result = terms[0].dtype
        elif self.result is not None:
            result = self.result
        else:
            raise InputTypeError(f"T.{self.name} needs a dtype", remedy="give dtype=")
        return Call(self, terms, result)

    def __repr__(self) -> str:
        return f"T.{self.name}"


@term
class GlobalVar(Expr):
    """The name of a function of the module; as a callee, a direct call to it."""

    name: str

    def _derive(self) -> None:
        set_derived(self, "dtype", HANDLE)


@term
class Call(Expr):
    """A call of an intrinsic or of a function of the module, giving a value of `kind`.

    A call of a PrimFunc passes one argument per parameter (for a buffer parameter the pointer to
    its data, before lowering any handle) and then the values of `tir.function.symbolic_vars`.
    """

    op: object
    args: tuple[Expr, ...]
    kind: DType

    def _derive(self) -> None:
        if not isinstance(self.op, Intrinsic | GlobalVar):
            raise InputTypeError(f"cannot call {self.op!r}", remedy="an Intrinsic or a GlobalVar")
        set_derived(self, "dtype", self.kind)

    @property
    def effect(self) -> Effect:
        """What the call may do: that of its intrinsic; "write" for a function."""
        return self.op.effect if isinstance(self.op, Intrinsic) else "write"


@term
class Range(Term):
    """The half-open interval [min, min + extent)."""

    min: Expr
    extent: Expr

    @staticmethod
    def of(extent: ExprLike) -> Range:
        """[0, extent)."""
        stop = as_expr(extent)
        return Range(as_expr(0, stop.dtype), stop)


# --- building -------------------------------------------------------------------------------


def as_expr(value: ExprLike, dtype: DType | None = None) -> Expr:
    """`value` as an expression. Python numbers become constants of `dtype`.

    Without a dtype: int -> int64, float -> float32, bool -> bool. An expression stays as it is.
    """
    if isinstance(value, Expr):
        return value
    if isinstance(value, np.generic):
        number: Any = getattr(value, "item")()  # noqa: B009 - numpy types it as unknown
        return const(number, dtype or as_dtype(value.dtype))
    if isinstance(value, bool | int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        if dtype is None:
            dtype = (
                BOOL if isinstance(value, bool) else INDEX if isinstance(value, int) else FLOAT32
            )
            if dtype is INDEX and not dtype.min_value <= value <= dtype.max_value:
                raise InputTypeError(
                    f"{value} does not fit in {dtype}",
                    remedy="write it with a dtype that holds it: T.uint64(...)",
                )
        return const(value, dtype)
    raise InputTypeError(
        f"expected an expression or a number, got {type(value).__name__}",
        remedy="for example 3, 0.5, T.float32(1), or a variable",
    )


def const(value: float | bool, dtype: DType | str) -> Expr:
    """A constant of `dtype`, rounded or wrapped to it; a vector dtype gives a Broadcast."""
    kind = as_dtype(dtype)
    if not kind.is_scalar:
        return Broadcast(const(value, kind.element), kind.lanes, kind.scalable)
    if kind.is_float:
        return FloatImm(fold.round_float(float(value), kind), kind)
    if kind.is_bool:
        return IntImm(int(bool(value)), kind)
    return IntImm(_wrap(int(value), kind), kind)


def true() -> IntImm:
    """The constant True."""
    return IntImm(1, BOOL)


def false() -> IntImm:
    """The constant False."""
    return IntImm(0, BOOL)


def as_int(expr: Expr | int) -> int | None:
    """The value of an integer constant, else None."""
    if isinstance(expr, int):
        return expr
    return expr.value if isinstance(expr, IntImm) else None


def _wrap(value: int, dtype: DType) -> int:
    if dtype.is_handle:
        return value
    low, span = int(dtype.min_value), 1 << dtype.bits
    return (value - low) % span + low


def promote(a: ExprLike, b: ExprLike) -> tuple[Expr, Expr]:
    """Both operands with one dtype: a Python number takes the other's; then float over int, the
    wider over the narrower, signed over unsigned; a scalar is broadcast to a vector's lanes.

    Raises InputTypeError for a Python integer that the other operand's dtype cannot hold.
    """
    left = a if isinstance(a, Expr) else None
    right = b if isinstance(b, Expr) else None
    if left is None:
        left = as_expr(a, _literal_dtype(a, right))
    if right is None:
        right = as_expr(b, _literal_dtype(b, left))
    if left.dtype is right.dtype:
        return left, right
    element = _common(left.dtype.element, right.dtype.element)
    lanes = left.dtype if not left.dtype.is_scalar else right.dtype
    target = element.with_lanes(lanes.lanes, scalable=lanes.scalable)
    return _fit(left, target), _fit(right, target)


def _literal_dtype(value: ExprLike, other: Expr | None) -> DType | None:
    if other is None:
        return None
    kind = other.dtype.element
    if isinstance(value, float) and not kind.is_float:
        return None
    if (
        isinstance(value, int)
        and kind.is_integral
        and not kind.min_value <= value <= kind.max_value
    ):
        raise InputTypeError(
            f"{value} does not fit in {kind}", remedy="cast the other operand first"
        )
    if kind.is_bool and not isinstance(value, bool):
        return None
    return kind if not (kind.is_handle) else None


def _common(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if a.is_float or b.is_float:
        if not (a.is_float and b.is_float):
            return a if a.is_float else b
        return a if a.bits > b.bits else b if b.bits > a.bits else FLOAT32
    if a.is_bool or b.is_bool:
        return b if a.is_bool else a
    if a.bits != b.bits:
        return a if a.bits > b.bits else b
    return a if a.is_int else b


def _fit(value: Expr, target: DType) -> Expr:
    if value.dtype.is_scalar and not target.is_scalar:
        return Broadcast(cast(value, target.element), target.lanes, target.scalable)
    return cast(value, target)


def cast(value: ExprLike, dtype: DType | str) -> Expr:
    """`value` converted to `dtype`; constants are converted at once, equal dtypes do nothing."""
    target = as_dtype(dtype)
    expr = as_expr(value)
    if expr.dtype is target:
        return expr
    if isinstance(expr, IntImm):
        return const(expr.value, target)
    if isinstance(expr, FloatImm):
        if target.is_float or target.is_bool:
            return const(expr.value, target)
        if math.isfinite(expr.value) and target.min_value <= int(expr.value) <= target.max_value:
            return const(int(expr.value), target)
    return Cast(target, expr)


_DIVISIONS = (Div, Mod, FloorDiv, FloorMod)


def fold_binary(kind: type[Binary], a: Expr, b: Expr) -> Expr | None:
    """The constant that `kind(a, b)` is, or None. Division by zero is never folded."""
    result = BOOL if issubclass(kind, Comparison) else a.dtype
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        if b.value == 0 and issubclass(kind, _DIVISIONS):
            return None
        return const(fold.INTEGER[kind.__name__](a.value, b.value), result)
    if isinstance(a, FloatImm) and isinstance(b, FloatImm):
        value = fold.fold_float(kind.__name__, a.value, b.value, a.dtype)
        return None if value is None else const(value, result)
    return None


def make(kind: type[Binary], a: Expr, b: Expr) -> Expr:
    """`kind(a, b)` with constants folded; the operands must have one dtype already."""
    folded = fold_binary(kind, a, b)
    return kind(a, b) if folded is None else folded  # pyright: ignore[reportCallIssue]


def _binary(kind: type[Binary], a: ExprLike, b: ExprLike) -> Expr:
    return make(kind, *promote(a, b))


def divide(a: ExprLike, b: ExprLike) -> Expr:
    """a / b of floats. Raises InputTypeError for integers, whose division must be named."""
    left, right = promote(a, b)
    if not left.dtype.is_float:
        raise InputTypeError(
            f"/ of {left.dtype} is ambiguous", remedy="use // (floor) or truncdiv(a, b)"
        )
    return make(Div, left, right)


def truncdiv(a: ExprLike, b: ExprLike) -> Expr:
    """The integer quotient truncated toward zero."""
    return _binary(Div, a, b)


def truncmod(a: ExprLike, b: ExprLike) -> Expr:
    """The remainder of `truncdiv`, with the sign of `a`."""
    return _binary(Mod, a, b)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """Min with operands promoted."""
    return _binary(Min, a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """Max with operands promoted."""
    return _binary(Max, a, b)


def equal(a: ExprLike, b: ExprLike) -> Expr:
    """EQ with operands promoted."""
    return _binary(EQ, a, b)


def not_equal(a: ExprLike, b: ExprLike) -> Expr:
    """NE with operands promoted."""
    return _binary(NE, a, b)


def logical_and(*conditions: Expr) -> Expr:
    """All conditions hold; True for none."""
    result: Expr = true()
    for condition in conditions:
        if condition is true():
            continue
        result = condition if result is true() else make(And, result, condition)
    return result


def logical_or(a: Expr, b: Expr) -> Expr:
    """Either condition holds."""
    return _binary(Or, a, b)


def logical_not(a: Expr) -> Expr:
    """The opposite of a condition."""
    return const(not a.value, BOOL) if isinstance(a, IntImm) else Not(a)


def select(condition: Expr, true_value: ExprLike, false_value: ExprLike) -> Expr:
    """Select with both values promoted to one dtype; a constant condition decides at once."""
    left, right = promote(true_value, false_value)
    if isinstance(condition, IntImm):
        return left if condition.value else right
    return Select(condition, left, right)


def negate(value: Expr) -> Expr:
    """-value of floats, which differs from 0 - value in the sign of zero."""
    return (
        _binary(Mul, value, -1.0)
        if not isinstance(value, FloatImm)
        else const(-value.value, value.dtype)
    )


_BIT_PAIRS = ("bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right")
BITWISE = {name: Intrinsic(name, arity=2) for name in _BIT_PAIRS}
BITWISE["bitwise_not"] = Intrinsic("bitwise_not", arity=1)
"""The bit operations that Python operators build; all intrinsics are listed in tir.intrinsics."""


def call_bitwise(name: str, *operands: ExprLike) -> Expr:
    """A bit operation with operands promoted and constants folded."""
    args: Sequence[Expr] = promote(*operands) if len(operands) == 2 else (as_expr(operands[0]),)
    values = [arg.value for arg in args if isinstance(arg, IntImm)]
    if len(values) == len(args) and not (
        name.startswith("shift") and not 0 <= values[1] < args[0].dtype.bits
    ):
        return const(fold.BITS[name](*values), args[0].dtype)
    return Call(BITWISE[name], tuple(args), args[0].dtype)


def _logic_or_bits(kind: type[Binary], name: str, a: ExprLike, b: ExprLike) -> Expr:
    left, right = promote(a, b)
    return make(kind, left, right) if left.dtype.is_bool else call_bitwise(name, left, right)
