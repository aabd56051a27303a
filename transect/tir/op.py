"""Functions on expressions: math, tests, control, memory. Each builds the call of an intrinsic with
the right dtypes, and folds constants where the result is exact.

Arithmetic, comparisons, casts and selection are in `ir.expr`; the table of primitives is in
`tir.intrinsics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard, TypeVar

from transect.ir.dtype import BOOL, FLOAT32, HANDLE, INT32, VOID, DType, as_dtype
from transect.ir.expr import (
    Call,
    Expr,
    ExprLike,
    FloatImm,
    GlobalVar,
    IntImm,
    StringImm,
    as_expr,
    call_bitwise,
    const,
    promote,
    select,
)
from transect.ir.term import Term
from transect.ir.traverse import rewrite, walk
from transect.support.errors import InputTypeError
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Evaluate

TermT = TypeVar("TermT", bound=Term)


def _float_operand(name: str, value: ExprLike) -> Expr:
    expr = as_expr(value, FLOAT32 if isinstance(value, int | float) else None)
    if not expr.dtype.is_float:
        raise InputTypeError(
            f"{name} of {expr.dtype}",
            remedy=f"cast the operand to a float dtype: {name}(x.astype(...))",
        )
    return expr


def _call(name: str, *args: Expr, dtype: DType | None = None) -> Call:
    return Call(INTRINSICS[name], args, args[0].dtype if dtype is None else dtype)


def _unary(name: str) -> Callable[[ExprLike], Expr]:
    def build(x: ExprLike) -> Expr:
        return _call(name, _float_operand(name, x))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"T.{name}(x): the function of the C library for a float x, with x's dtype."
    return build


exp = _unary("exp")
exp2 = _unary("exp2")
exp10 = _unary("exp10")
expm1 = _unary("expm1")
log = _unary("log")
log2 = _unary("log2")
log10 = _unary("log10")
log1p = _unary("log1p")
rsqrt = _unary("rsqrt")
sin = _unary("sin")
cos = _unary("cos")
tan = _unary("tan")
asin = _unary("asin")
acos = _unary("acos")
atan = _unary("atan")
sinh = _unary("sinh")
cosh = _unary("cosh")
tanh = _unary("tanh")
asinh = _unary("asinh")
acosh = _unary("acosh")
atanh = _unary("atanh")
erf = _unary("erf")
sigmoid = _unary("sigmoid")


sqrt = _unary("sqrt")


def _half_away(value: float) -> float:
    whole, fraction = math.trunc(value), math.fabs(math.fmod(value, 1.0))
    return whole + math.copysign(1.0, value) if fraction >= 0.5 else whole


_ROUNDING: dict[str, Callable[[float], float]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "round": _half_away,
    "nearbyint": round,
}


def _rounding(name: str, doc: str) -> Callable[[ExprLike], Expr]:
    def build(x: ExprLike) -> Expr:
        value = as_expr(x)
        if value.dtype.is_integral:
            return value
        value = _float_operand(name, value)
        # Zero keeps its sign only in the call.
        if isinstance(value, FloatImm) and math.isfinite(value.value):
            result = float(_ROUNDING[name](value.value))
            if result != 0.0:
                return const(result, value.dtype)
        return _call(name, value)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = doc
    return build


floor = _rounding("floor", "The largest integral value not above x, in x's dtype.")
ceil = _rounding("ceil", "The smallest integral value not below x, in x's dtype.")
trunc = _rounding("trunc", "x without its fraction, in x's dtype.")
round = _rounding("round", "The nearest integral value, halves away from zero, in x's dtype.")
nearbyint = _rounding("nearbyint", "The nearest integral value, halves to even, in x's dtype.")


def abs(x: ExprLike) -> Expr:
    """|x| of an integer (the smallest one wraps to itself) or float."""
    value = as_expr(x)
    if value.dtype.is_uint or value.dtype.is_bool:
        return value
    if isinstance(value, IntImm):
        return const(value.value if value.value >= 0 else -value.value, value.dtype)
    if isinstance(value, FloatImm):
        return const(math.fabs(value.value), value.dtype)
    return _call("abs" if value.dtype.is_integral else "fabs", value)


fabs = abs


def _test(
    name: str, decide: Callable[[float], bool], *, of_integer: bool
) -> Callable[[ExprLike], Expr]:
    def build(x: ExprLike) -> Expr:
        value = as_expr(x)
        result = BOOL.with_lanes(value.dtype.lanes, scalable=value.dtype.scalable)
        if isinstance(value, FloatImm):
            return const(decide(value.value), BOOL)
        if not value.dtype.is_float:
            return const(of_integer, result)
        return _call(name, value, dtype=result)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"T.{name}(x): bool, with the lanes of x. Integers are finite."
    return build


isnan = _test("isnan", math.isnan, of_integer=False)
isinf = _test("isinf", math.isinf, of_integer=False)
isfinite = _test("isfinite", math.isfinite, of_integer=True)


def _float_pair(name: str, a: ExprLike, b: ExprLike) -> Expr:
    left, right = promote(a, b)
    return _call(name, _float_operand(name, left), _float_operand(name, right))


def power(x: ExprLike, y: ExprLike) -> Expr:
    """x ** y of floats. Raises InputTypeError for integers: cast them, or multiply."""
    return _float_pair("pow", x, y)


def atan2(y: ExprLike, x: ExprLike) -> Expr:
    """The angle of the point (x, y), of floats."""
    return _float_pair("atan2", y, x)


def copysign(x: ExprLike, sign: ExprLike) -> Expr:
    """|x| with the sign of `sign`, of floats."""
    return _float_pair("copysign", x, sign)


def fmod(x: ExprLike, y: ExprLike) -> Expr:
    """x - y * trunc(x / y), exact, of floats."""
    return _float_pair("fmod", x, y)


def hypot(x: ExprLike, y: ExprLike) -> Expr:
    """sqrt(x² + y²) without overflow in between, of floats."""
    return _float_pair("hypot", x, y)


def nextafter(x: ExprLike, y: ExprLike) -> Expr:
    """The float next to x in the direction of y."""
    return _float_pair("nextafter", x, y)


def exp_nonpositive(x: ExprLike) -> Expr:
    """exp(x) for a float x <= 0 or NaN, as of a distance from a maximum; above 0 the result is not
    specified. Takes fewer instructions than exp."""
    return _call("exp_nonpositive", _float_operand("exp_nonpositive", x))


def ldexp(x: ExprLike, exponent: ExprLike) -> Expr:
    """x * 2**exponent; exponent: an integer, int32 by default."""
    value, power_of_two = _float_operand("ldexp", x), as_expr(exponent, INT32)
    if not power_of_two.dtype.is_integral:
        raise InputTypeError(f"ldexp by {power_of_two.dtype}", remedy="an integer exponent")
    return _call("ldexp", value, power_of_two)


def fma(a: ExprLike, b: ExprLike, c: ExprLike) -> Expr:
    """a * b + c of floats, rounded once."""
    left, right = promote(a, b)
    left, addend = promote(left, c)
    left, right = promote(left, right)
    return _call("fma", *(_float_operand("fma", item) for item in (left, right, addend)))


def popcount(x: Expr) -> Expr:
    """How many bits of an integer are set, in its dtype."""
    if isinstance(x, IntImm):
        return const((x.value & ((1 << x.dtype.bits) - 1)).bit_count(), x.dtype)
    return _call("popcount", x)


def clz(x: Expr) -> Expr:
    """How many leading bits of an integer are zero (all of them for 0), in its dtype."""
    if isinstance(x, IntImm):
        return const(x.dtype.bits - (x.value & ((1 << x.dtype.bits) - 1)).bit_length(), x.dtype)
    return _call("clz", x)


def bitwise_xor(a: ExprLike, b: ExprLike) -> Expr:
    """a ^ b of integers."""
    return call_bitwise("bitwise_xor", a, b)


def shift_left(a: ExprLike, b: ExprLike) -> Expr:
    """a << b; undefined unless 0 <= b < bits."""
    return call_bitwise("shift_left", a, b)


def shift_right(a: ExprLike, b: ExprLike) -> Expr:
    """a >> b, arithmetic for signed integers; undefined unless 0 <= b < bits."""
    return call_bitwise("shift_right", a, b)


def if_then_else(condition: Expr, true_value: ExprLike, false_value: ExprLike) -> Expr:
    """The one or the other value; only that one is evaluated. Both are promoted to one dtype.

    condition: bool, a scalar.
    """
    left, right = promote(true_value, false_value)
    if isinstance(condition, IntImm):
        return left if condition.value else right
    if condition.dtype is not BOOL:
        raise InputTypeError(
            f"if_then_else on {condition.dtype}", remedy="compare: a bool is needed"
        )
    return Call(INTRINSICS["if_then_else"], (condition, left, right), left.dtype)


def checked(
    value: Expr, condition: Expr, *message: str | Expr, exception: str = "IndexError"
) -> Expr:
    """`value`, or the function fails with `exception` (a Python class) where not `condition`.

    message: parts joined without a separator; an expression among them is printed as a number.
    The check is made wherever the value is: a select evaluates both sides, if_then_else only one.
    """
    if isinstance(condition, IntImm) and condition.value:
        return value
    parts = (StringImm(part) if isinstance(part, str) else part for part in message)
    return _call("checked", value, condition, StringImm(exception), *parts)


def is_checked(value: object) -> TypeGuard[Call]:
    """Whether a term is a call of T.checked."""
    return isinstance(value, Call) and value.op is INTRINSICS["checked"]


def without_checks(value: TermT) -> TermT:
    """`value` with what T.checked tests in place of the tests: for estimates of what it costs."""
    if not any(is_checked(item) for item in walk(value)):
        return value
    return rewrite(value, lambda item: item.args[0] if is_checked(item) else item)


where = select
"""Both sides may be evaluated; see if_then_else for accesses that must not be."""


def likely(condition: Expr) -> Expr:
    """`condition`, with the hint that it nearly always holds."""
    return condition if isinstance(condition, IntImm) else _call("likely", condition)


def reinterpret(value: ExprLike, dtype: DType | str) -> Expr:
    """The bits of `value` as another dtype of the same size in bits."""
    expr, target = as_expr(value), as_dtype(dtype)
    if expr.dtype is target:
        return expr
    if expr.dtype.bits * expr.dtype.lanes != target.bits * target.lanes:
        raise InputTypeError(f"reinterpret {expr.dtype} as {target}: the sizes differ")
    return _call("reinterpret", expr, dtype=target)


def undef(dtype: DType | str) -> Expr:
    """Any value at all."""
    return _call("undef", dtype=as_dtype(dtype))


def lowest(dtype: DType | str) -> Expr:
    """The value below all others: -inf, or the smallest one where there is no infinity."""
    kind = as_dtype(dtype)
    return const(-math.inf if kind.has_infinity else kind.min_value, kind)


def highest(dtype: DType | str) -> Expr:
    """The value above all others: inf, or the largest one where there is no infinity."""
    kind = as_dtype(dtype)
    return const(math.inf if kind.has_infinity else kind.max_value, kind)


def min_value(dtype: DType | str) -> Expr:
    """The smallest finite value."""
    kind = as_dtype(dtype)
    return const(kind.min_value, kind)


def max_value(dtype: DType | str) -> Expr:
    """The largest finite value."""
    kind = as_dtype(dtype)
    return const(kind.max_value, kind)


def address_of(load: BufferLoad) -> Expr:
    """A pointer to the element that `load` names; nothing is read."""
    return _call("address_of", load, dtype=HANDLE)


def pointer_argument(buffer: Buffer) -> Expr:
    """What a call of a PrimFunc passes for a buffer parameter that gets all of `buffer`."""
    if isinstance(buffer.elem_offset, IntImm) and buffer.elem_offset.value == 0:
        return buffer.data
    zero = as_expr(0, buffer.elem_offset.dtype)
    return address_of(BufferLoad(buffer, tuple(zero for _ in buffer.shape)))


def call_function(name: str, *args: Expr) -> Evaluate:
    """The call of a PrimFunc of the module. args: one per parameter (for a buffer a pointer), then
    the values of `tir.function.symbolic_vars` of the callee."""
    return Evaluate(Call(GlobalVar(name), args, VOID))


def call_extern(
    symbol: str, *args: ExprLike, dtype: DType | str = VOID, pure: bool = False
) -> Expr:
    """The call of a C function by its symbol."""
    op = INTRINSICS["call_pure_extern" if pure else "call_extern"]
    return Call(op, (StringImm(symbol), *map(as_expr, args)), as_dtype(dtype))


def call_packed(name: str, *args: ExprLike | str, dtype: DType | str = VOID) -> Expr:
    """The call of a registered packed function."""
    terms = (StringImm(arg) if isinstance(arg, str) else as_expr(arg) for arg in args)
    return Call(INTRINSICS["call_packed"], (StringImm(name), *terms), as_dtype(dtype))
