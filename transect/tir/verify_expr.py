"""The rules of single terms: which operand dtypes each kind takes and which dtype it gives.

Scopes, statements and functions are checked by `verify`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transect.ir.dtype import BOOL, HANDLE, DType
from transect.ir.expr import (
    Add,
    And,
    Binary,
    Broadcast,
    Call,
    Cast,
    Comparison,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Ramp,
    Range,
    Select,
    Shuffle,
    StringImm,
    Sub,
)
from transect.ir.term import Term
from transect.tir.buffer import BufferLoad, BufferRegion
from transect.tir.intrinsics import INTRINSICS

_FLOAT_ONLY = frozenset(
    {
        "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "sin",
        "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
        "erf", "sigmoid", "exp_nonpositive", "pow", "atan2", "copysign", "fmod", "hypot",
        "nextafter", "fma",
    }
)  # fmt: skip
_INTEGER_ONLY = frozenset(
    {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "shift_left", "shift_right"}
    | {"popcount", "clz"}
)
_SAME_OPERANDS = frozenset(
    {"pow", "atan2", "copysign", "fmod", "hypot", "nextafter", "fma"}
    | {"bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right"}
)


def term_fault(item: Term) -> str | None:
    """What is wrong with the dtypes of `item` itself, its subterms taken as right; None if fine."""
    rule = _RULES.get(type(item))
    return None if rule is None else rule(item)


def _is_number(dtype: DType) -> bool:
    return dtype.is_float or dtype.is_integral


def _arithmetic(item: Binary) -> str | None:
    if item.a.dtype is not item.b.dtype:
        return f"{type(item).__name__} of {item.a.dtype} and {item.b.dtype}"
    if not (_is_number(item.a.dtype) or (item.a.dtype.is_bool and isinstance(item, Min | Max))):
        return f"{type(item).__name__} of {item.a.dtype}, which is not a number"
    return None


def _comparison(item: Comparison) -> str | None:
    expected = BOOL.with_lanes(item.a.dtype.lanes, scalable=item.a.dtype.scalable)
    if item.a.dtype is not item.b.dtype:
        return f"{type(item).__name__} of {item.a.dtype} and {item.b.dtype}"
    return None if item.dtype is expected else f"a comparison with dtype {item.dtype}"


def _integer_division(item: Binary) -> str | None:
    if not item.a.dtype.is_integral:
        return f"{type(item).__name__} of {item.a.dtype}, which is not an integer"
    return _arithmetic(item)


def _logic(item: And | Or | Not) -> str | None:
    return None if item.a.dtype.is_bool else f"{type(item).__name__} of {item.a.dtype}, not bool"


def _select(item: Select) -> str | None:
    if not item.condition.dtype.is_bool:
        return f"Select on {item.condition.dtype}, not bool"
    if not item.condition.dtype.is_scalar and item.condition.dtype.lanes != item.dtype.lanes:
        return f"Select of {item.dtype} by {item.condition.dtype}: the lanes differ"
    return None


def _cast(item: Cast) -> str | None:
    source = item.value.dtype
    if source.lanes != item.to.lanes or source.scalable is not item.to.scalable:
        return f"a cast of {source} to {item.to}: the lanes differ"
    if source.is_handle is not item.to.is_handle and not (
        source.bits == item.to.bits == HANDLE.bits
    ):
        return f"a cast of {source} to {item.to}"
    return None


def _ramp(item: Ramp) -> str | None:
    if not (item.base.dtype.is_integral and item.base.dtype.is_scalar):
        return f"a Ramp from {item.base.dtype}, not a scalar integer"
    if item.stride.dtype is not item.base.dtype:
        return f"a Ramp of {item.base.dtype} with a stride of {item.stride.dtype}"
    return None


def _broadcast(item: Broadcast) -> str | None:
    return None if item.value.dtype.is_scalar else f"a Broadcast of {item.value.dtype}"


def _shuffle(item: Shuffle) -> str | None:
    element = item.vectors[0].dtype.element
    if any(vector.dtype.element is not element for vector in item.vectors):
        return "a Shuffle of vectors of different element types"
    if any(not index.dtype.is_integral for index in item.indices):
        return "a Shuffle with indices that are not integers"
    return None


def _range(item: Range) -> str | None:
    if item.min.dtype is not item.extent.dtype or not item.min.dtype.is_integral:
        return f"a range from {item.min.dtype} of extent {item.extent.dtype}"
    return None


def index_fault(what: str, indices: tuple[Expr, ...], count: int) -> str | None:
    """What is wrong with indices into something of `count` dimensions; None if nothing is."""
    if len(indices) != count:
        return f"{what} has {count} dimensions and is indexed with {len(indices)}"
    for position, index in enumerate(indices):
        if not index.dtype.is_integral:
            return f"index {position} of {what} has dtype {index.dtype}, not an integer"
        if not index.dtype.is_scalar and position != count - 1:
            return f"index {position} of {what} is a vector; only the last one may be"
    return None


def predicate_fault(predicate: Expr | None, lanes: int) -> str | None:
    """What is wrong with the lane predicate of a load or store; None if nothing is."""
    if predicate is None or (predicate.dtype.is_bool and predicate.dtype.lanes == lanes):
        return None
    return f"a predicate of {predicate.dtype} for {lanes} lanes"


def _load(item: BufferLoad) -> str | None:
    lanes = item.indices[-1].dtype.lanes if item.indices else 1
    return index_fault(item.buffer.name, item.indices, item.buffer.ndim) or predicate_fault(
        item.predicate, lanes
    )


def _region(item: BufferRegion) -> str | None:
    if len(item.ranges) != item.buffer.ndim:
        return f"{len(item.ranges)} ranges of {item.buffer.name}, which has {item.buffer.ndim} axes"
    return None


def _call(item: Call) -> str | None:
    op = item.op
    if not isinstance(op, Intrinsic):
        return None
    if op.arity is not None and len(item.args) != op.arity:
        return f"T.{op.name} takes {op.arity} arguments, got {len(item.args)}"
    expected = op.result
    if expected == "first":
        expected = item.args[0].dtype if item.args else None
    if expected is not None and item.kind is not expected:
        return f"T.{op.name} gives {expected}, but the call says {item.kind}"
    operands = [arg for arg in item.args if not isinstance(arg, StringImm)]
    if op.name in _FLOAT_ONLY and any(not arg.dtype.is_float for arg in operands):
        return f"T.{op.name} of {operands[0].dtype}, which is not a float"
    if op.name in _INTEGER_ONLY and any(not arg.dtype.is_integral for arg in operands):
        return f"T.{op.name} of {operands[0].dtype}, which is not an integer"
    if op.name in _SAME_OPERANDS and any(arg.dtype is not operands[0].dtype for arg in operands):
        kinds = ", ".join(str(arg.dtype) for arg in operands)
        return f"T.{op.name} of {kinds}: the operands differ"
    special = _CALL_RULES.get(op.name)
    return None if special is None else special(item)


def _call_test(item: Call) -> str | None:
    dtype = item.args[0].dtype
    expected = BOOL.with_lanes(dtype.lanes, scalable=dtype.scalable)
    return None if item.kind is expected else f"a test of {dtype} with dtype {item.kind}"


def _call_if_then_else(item: Call) -> str | None:
    condition, left, right = item.args
    if condition.dtype is not BOOL:
        return f"T.if_then_else on {condition.dtype}, not bool"
    if left.dtype is not right.dtype or left.dtype is not item.kind:
        return f"T.if_then_else of {left.dtype} and {right.dtype} as {item.kind}"
    return None


def _call_reinterpret(item: Call) -> str | None:
    source = item.args[0].dtype
    if source.bits * source.lanes != item.kind.bits * item.kind.lanes:
        return f"T.reinterpret of {source} as {item.kind}: the sizes differ"
    return None


def _call_address_of(item: Call) -> str | None:
    return None if isinstance(item.args[0], BufferLoad) else "T.address_of of what is no load"


def _call_symbol(item: Call) -> str | None:
    if item.args and isinstance(item.args[0], StringImm):
        return None
    return "a call whose first argument is not the name of what is called"


def _call_checked(item: Call) -> str | None:
    if len(item.args) < 3 or not isinstance(item.args[2], StringImm):
        return "T.checked needs a value, a condition, the name of an exception, and a message"
    lanes = item.args[1].dtype.lanes
    if not item.args[1].dtype.is_bool or lanes not in (1, item.kind.lanes):
        return f"T.checked of {item.kind} on {item.args[1].dtype}, not bool"
    return None


_CALL_RULES: dict[str, Callable[[Call], str | None]] = {
    "checked": _call_checked,
    "isnan": _call_test,
    "isinf": _call_test,
    "isfinite": _call_test,
    "if_then_else": _call_if_then_else,
    "reinterpret": _call_reinterpret,
    "address_of": _call_address_of,
    "call_extern": _call_symbol,
    "call_pure_extern": _call_symbol,
    "call_packed": _call_symbol,
    "call_cpacked": _call_symbol,
}
# A rule for a name that does not exist would never run.
assert _CALL_RULES.keys() <= INTRINSICS.keys()

_RULES: dict[type[Any], Callable[[Any], str | None]] = {
    **dict.fromkeys((Add, Sub, Mul, Div, Min, Max), _arithmetic),
    **dict.fromkeys((Mod, FloorDiv, FloorMod), _integer_division),
    **dict.fromkeys(Comparison.__subclasses__(), _comparison),
    **dict.fromkeys((And, Or, Not), _logic),
    Select: _select,
    Cast: _cast,
    Ramp: _ramp,
    Broadcast: _broadcast,
    Shuffle: _shuffle,
    Range: _range,
    BufferLoad: _load,
    BufferRegion: _region,
    Call: _call,
}
