"""How script spells calls of intrinsics: where the dtype stands and which numbers take another's.

What the intrinsics are lives in `tir.intrinsics`; the parser and the printer both read this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from transect.ir.dtype import BOOL, VOID, DType, as_dtype
from transect.ir.expr import Expr, ExprLike, IntImm, Intrinsic, StringImm, as_expr
from transect.tir.intrinsics import INTRINSICS

_FIRST = frozenset({
    "call_extern", "call_pure_extern", "call_llvm_intrin", "call_llvm_pure_intrin", "reinterpret",
    "ptx_mma", "ptx_mma_sp", "ptx_ldmatrix", "ptx_cp_async", "ptx_cp_async_bulk", "large_uint_imm",
    "get_active_lane_mask", "undef", "type_annotation",
})  # fmt: skip
_LAST = frozenset({"tvm_struct_get"})
FLOAT_FUNCTIONS = frozenset({
    "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
    "sigmoid", "exp_nonpositive",
    "floor", "ceil", "round", "nearbyint", "trunc", "fabs",
})  # fmt: skip
"""Functions of one float: a Python number is a float32."""
_SAME = frozenset({
    "pow", "atan2", "copysign", "fmod", "hypot", "nextafter", "fma", "bitwise_and", "bitwise_or",
    "bitwise_xor", "shift_left", "shift_right",
})  # fmt: skip
COERCED = FLOAT_FUNCTIONS | _SAME | {"if_then_else"}
"""Functions whose Python numbers take the dtype that the function or other arguments ask for."""


def dtype_place(op: Intrinsic) -> Literal["first", "last", "keyword"]:
    """Which argument of `T.<name>(...)` is the dtype of the result."""
    return "first" if op.name in _FIRST else "last" if op.name in _LAST else "keyword"


def implied_dtype(op: Intrinsic, args: Sequence[Expr]) -> DType | None:
    """The dtype of a call of `op` when the script gives none; None if it must."""
    if op.result == "first":
        return args[0].dtype if args else None
    if op.result is not None:
        return op.result
    if op.name in ("isnan", "isinf", "isfinite") and args:
        return BOOL.with_lanes(args[0].dtype.lanes, scalable=args[0].dtype.scalable)
    if op.name in (
        "if_then_else",
        "tvm_warp_shuffle",
        "tvm_warp_shuffle_up",
        "tvm_warp_shuffle_down",
    ):
        return args[1].dtype if len(args) > 1 else None
    if op.name in ("call_packed", "call_cpacked"):
        return as_dtype("int32")
    return None


class LookedUp(str):
    """The name of a function of LLVM, as TVM's scripts look its number up."""

    __slots__ = ()


def is_dtype(value: object) -> bool:
    """Whether an argument is a dtype or the spelling of one."""
    if isinstance(value, DType):
        return True
    if not isinstance(value, str):
        return False
    try:
        as_dtype(value)
    except TypeError:
        return False
    return True


def call_intrinsic(op: Intrinsic, args: Sequence[Any], dtype: DType | str | None = None) -> Expr:
    """The call that `T.<name>(*args, dtype=dtype)` means. Nothing is folded."""
    place = dtype_place(op)
    items = list(args)
    for number, item in enumerate(items[:-1]):
        if isinstance(item, LookedUp) and isinstance(items[number + 1], IntImm):
            del items[number + 1]  # How many arguments decide the overload: the name says it.
            break
    if dtype is None and items and place == "first" and is_dtype(items[0]):
        dtype = items.pop(0)
    elif dtype is None and items and place == "last" and is_dtype(items[-1]):
        dtype = items.pop()
    if op.result is VOID and str(dtype) in ("handle", ""):
        # How published scripts spell that there is no result.
        dtype = None
    terms = _coerce(op, items)
    result = as_dtype(dtype) if dtype is not None else implied_dtype(op, terms)
    return op(*terms, dtype=result)


def _coerce(op: Intrinsic, items: Sequence[Any]) -> list[Any]:
    typed = [item for item in items if isinstance(item, Expr)]
    kind: DType | None = None
    if op.name in _SAME and typed:
        kind = typed[0].dtype.element
    elif op.name == "if_then_else":
        values = [item for item in items[1:] if isinstance(item, Expr)]
        kind = values[0].dtype.element if values else None
    elif op.name in FLOAT_FUNCTIONS:
        kind = as_dtype("float32")
    return [_term(item, kind) for item in items]


def _term(item: ExprLike | str, kind: DType | None) -> Any:
    if isinstance(item, str):
        return StringImm(item)
    if isinstance(item, float) and kind is not None and not kind.is_float:
        return as_expr(item)
    return as_expr(item, kind)


_ALIASES = {"tvm_call_packed": "call_packed", "tvm_call_cpacked": "call_cpacked"}


def find_intrinsic(name: str) -> Intrinsic | None:
    """The target-independent intrinsic of this name, or None."""
    return INTRINSICS.get(_ALIASES.get(name, name))
