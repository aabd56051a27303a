"""What operators need to infer types: checks of operands, axes, broadcasting, proofs about sizes.

Loops live in `loops.py`. Every function takes the operator first, for its name in error messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NoReturn

from transect.arith import Analyzer
from transect.ir.dtype import INT64, DType
from transect.ir.expr import (
    EQ,
    LE,
    NE,
    Expr,
    ExprLike,
    IntImm,
    as_expr,
    as_int,
    cast,
    logical_or,
    select,
)
from transect.ir.traverse import free_vars
from transect.ir.types import (
    VOID_TYPE,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    VDevice,
    tensor_type,
)
from transect.relax.expr import Op
from transect.support.errors import InferenceError

MOST_STEPS = 1 << 42
"""Steps that one operator may take, about an hour: for those whose attributes, not the sizes of
their tensors, say how many there are."""

MATCH_CAST = "bind the dimensions first: y = R.match_cast(x, R.Tensor((...), dtype))"


def fail(op: Op, message: str, remedy: str | None = None) -> NoReturn:
    """Raise the InferenceError of `op`."""
    raise InferenceError(f"{op.name}: {message}", remedy=remedy)


# --- operands -------------------------------------------------------------------------------


def tensor(op: Op, value: Type, what: str) -> TensorType:
    """The operand `what` as a tensor's type. Raises InferenceError if it is something else."""
    if isinstance(value, TensorType):
        return value
    if isinstance(value, ObjectType):
        fail(op, f"{what} is an object of unknown type", "say what it is with R.match_cast")
    fail(op, f"{what} must be a tensor, got {value!r}")


def present(value: Type | None) -> Type | None:
    """An optional operand, None where it is absent (also where the empty tuple stands for it)."""
    return None if value is VOID_TYPE else value


def optional_tensor(op: Op, value: Type | None, what: str) -> TensorType | None:
    """An optional tensor operand, None where it is absent."""
    value = present(value)
    return None if value is None else tensor(op, value, what)


def tensors(op: Op, value: Type, what: str) -> tuple[TensorType, ...]:
    """The items of an operand that is a tuple of tensors."""
    if not isinstance(value, TupleType):
        fail(op, f"{what} must be a tuple of tensors, got {value!r}")
    return tuple(tensor(op, item, f"{what}[{i}]") for i, item in enumerate(value.items))


def tensor_or_scalar(op: Op, value: Type, what: str) -> TensorType:
    """As `tensor`, where a scalar counts as a tensor of rank 0."""
    if isinstance(value, PrimType):
        return tensor_type((), value.dtype)
    return tensor(op, value, what)


def shape(op: Op, value: Type, what: str) -> tuple[Expr, ...] | None:
    """The values of an operand that is a shape or a tuple of scalars; None if they are unknown."""
    if isinstance(value, ShapeType):
        return value.values
    if isinstance(value, TupleType):
        return tuple(
            item for item in (scalar(op, x, f"{what}[{i}]") for i, x in enumerate(value.items))
        )
    fail(op, f"{what} must be a shape, got {value!r}")


def shape_rank(op: Op, value: Type, what: str) -> int:
    """The number of values of a shape operand, -1 if it is unknown."""
    values = shape(op, value, what)
    if values is not None:
        return len(values)
    return value.ndim if isinstance(value, ShapeType) else -1


def scalar(op: Op, value: Type, what: str) -> Expr:
    """The value of an operand that is a scalar known as an expression."""
    if not isinstance(value, PrimType):
        fail(op, f"{what} must be a scalar, got {value!r}")
    if value.value is None:
        fail(op, f"the value of {what} is not known", MATCH_CAST)
    return value.value


def constant(op: Op, value: Expr, what: str) -> int:
    """The value of an integer constant. Raises InferenceError for anything symbolic."""
    number = as_int(value)
    if number is None:
        fail(op, f"{what} must be constant, got {value!r}")
    return number


# --- dtypes and devices -----------------------------------------------------------------------


def require_float(op: Op, x: TensorType, what: str = "x") -> None:
    """Refuse a tensor whose dtype is known not to be a floating-point one."""
    if x.dtype is not None and not x.dtype.is_float:
        fail(
            op, f"{what} must have a float dtype, got {x.dtype}", 'cast it: R.astype(x, "float32")'
        )


def require_number(op: Op, x: TensorType, what: str = "x") -> None:
    """Refuse a tensor whose dtype is known not to be a number (bool is none)."""
    if x.dtype is not None and not (x.dtype.is_float or x.dtype.is_integral):
        fail(
            op, f"{what} must have a numeric dtype, got {x.dtype}", 'cast it: R.astype(x, "int32")'
        )


def require_integer(op: Op, x: TensorType, what: str = "x") -> None:
    """Refuse a tensor whose dtype is known not to be an integer."""
    if x.dtype is not None and not x.dtype.is_integral:
        fail(
            op, f"{what} must have an integer dtype, got {x.dtype}", 'cast it: R.astype(x, "int64")'
        )


def require_dtype(op: Op, x: TensorType, dtype: DType, what: str) -> None:
    """Refuse a tensor whose dtype is known to be another one."""
    if x.dtype is not None and x.dtype is not dtype:
        fail(
            op, f"{what} must have dtype {dtype}, got {x.dtype}", f'cast it: R.astype(x, "{dtype}")'
        )


def common_dtype(op: Op, *items: TensorType) -> DType | None:
    """The one dtype of the operands, None if none is known. Raises if they differ."""
    known = [item.dtype for item in items if item.dtype is not None]
    for dtype in known[1:]:
        if dtype is not known[0]:
            fail(
                op,
                f"the operands have different dtypes, {known[0]} and {dtype}",
                "cast one of them with R.astype",
            )
    return known[0] if len(known) == len(items) else None


def common_device(op: Op, *items: TensorType | None) -> VDevice | None:
    """The device of the operands. Raises if two are on different devices."""
    known = [item.device for item in items if item is not None and item.device is not None]
    for device in known[1:]:
        if device is not known[0]:
            fail(
                op,
                f"the operands are on different devices, {known[0]!r} and {device!r}",
                "move one of them with R.to_vdevice",
            )
    return known[0] if known else None


# --- ranks and axes ----------------------------------------------------------------------------


def require_rank(op: Op, x: TensorType, rank: int, what: str) -> None:
    """Refuse a tensor whose rank is known to differ from `rank`."""
    if x.ndim not in (-1, rank):
        fail(op, f"{what} must have {rank} dimensions, got {x.ndim}")


def normalize_axis(op: Op, axis: int, ndim: int) -> int:
    """`axis` counted from the front. Raises if a tensor of `ndim` dimensions has no such axis."""
    if not -ndim <= axis < ndim:
        fail(op, f"axis {axis} is out of range for {ndim} dimensions")
    return axis % ndim


def normalize_axes(op: Op, axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """`axes` counted from the front, in the order given; all axes for None. Raises for repeats."""
    if axes is None:
        return tuple(range(ndim))
    found = tuple(
        normalize_axis(op, axis, ndim) for axis in ((axes,) if isinstance(axes, int) else axes)
    )
    if len(set(found)) != len(found):
        fail(op, f"axis repeated in {axes}")
    return found


# --- sizes ---------------------------------------------------------------------------------------


def as_sizes(values: Iterable[ExprLike]) -> tuple[Expr, ...]:
    """Dimensions as int64 expressions."""
    return tuple(cast(as_expr(value), INT64) for value in values)


def analyzer_of(*exprs: Expr) -> Analyzer:
    """An Analyzer that knows that the variables of `exprs`, being dimensions, are not negative."""
    analyzer = Analyzer()
    for var in free_vars(exprs):
        if var.dtype.is_integral:
            analyzer.bind(var, (0, None))
    return analyzer


def simplify(value: ExprLike) -> Expr:
    """A dimension in its simplest form."""
    expr = as_expr(value)
    return expr if isinstance(expr, IntImm) else analyzer_of(expr).simplify(expr)


def same(a: Expr, b: Expr) -> bool | None:
    """Whether two dimensions are equal: proved, disproved, or None if neither."""
    if a is b:
        return True
    left, right = as_int(a), as_int(b)
    if left is not None and right is not None:
        return left == right
    a, b = cast(a, INT64), cast(b, INT64)
    analyzer = analyzer_of(a, b)
    if analyzer.can_prove(EQ(a, b)):
        return True
    return False if analyzer.can_prove(NE(a, b)) else None


@dataclass(frozen=True)
class Assumption:
    """Two dimensions that must be equal when the program runs, and what they are."""

    given: Expr
    wanted: Expr
    what: str


_RECORD = "_assumptions"
"""The attribute of an operator whose inference keeps what it assumes."""


def assumptions(op: Op, types: Sequence[Type]) -> list[Assumption]:
    """What inferring the result of `op` takes for granted about dimensions that can neither be
    proved equal nor different. A program must check it before the operator runs (LegalizeOps)."""
    recorder = replace(op)
    found: list[Assumption] = []
    object.__setattr__(recorder, _RECORD, found)
    recorder.infer(*types)
    return found


def _assume(op: Op, given: Expr, wanted: Expr, what: str) -> None:
    record: list[Assumption] | None = op.__dict__.get(_RECORD)
    if record is not None:
        record.append(Assumption(given, wanted, f"{op.name}: {what}"))


def require_finishable(op: Op, extents: Iterable[Expr], what: str = "its loops") -> None:
    """Refuse loops of which the known extents alone come to more than MOST_STEPS."""
    known = [size for size in map(as_int, extents) if size is not None]
    steps = prod(known)
    if steps > MOST_STEPS:
        fail(
            op,
            f"{what} would take {steps} steps, more than the {MOST_STEPS} that are taken on",
            "check the sizes in its attributes",
        )


def require_same(op: Op, a: Expr, b: Expr, what: str) -> None:
    """Refuse two dimensions that are certainly different; what is not certain is assumed."""
    verdict = same(a, b)
    if verdict is False:
        fail(op, f"{what} differ: {a!r} and {b!r}")
    if verdict is None:
        _assume(op, a, b, what)


def product(values: Iterable[Expr]) -> Expr:
    """The product of dimensions, 1 of none."""
    result: Expr = IntImm(1)
    for value in values:
        result = value if as_int(result) == 1 else result * value
    return result


def broadcast_shapes(op: Op, *shapes: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The shape that numpy's rules give for operands of `shapes`.

    Of two dimensions that may or may not be equal, one must turn out to be 1 otherwise, which is
    assumed: the result's is the other one then.
    """
    rank = max((len(item) for item in shapes), default=0)
    result: list[Expr] = [IntImm(1)] * rank
    for item in shapes:
        for axis, size in enumerate(item, rank - len(item)):
            result[axis] = _broadcast_size(op, result[axis], size, axis - rank)
    return tuple(result)


def _broadcast_size(op: Op, a: Expr, b: Expr, axis: int) -> Expr:
    if as_int(b) == 1:
        return a
    if as_int(a) == 1:
        return b
    verdict = same(a, b)
    if verdict is False and not _is_at_most_one(a) and not _is_at_most_one(b):
        # `n` and `n + 1` would do where n is 1: a mistake all the same.
        fail(op, f"{a!r} and {b!r} (axis {axis}) do not broadcast: they are never equal")
    if not verdict:
        a, b = cast(a, INT64), cast(b, INT64)
        one = logical_or(EQ(a, IntImm(1)), EQ(b, IntImm(1)))
        _assume(op, select(one, a, b), a, f"what broadcasts on axis {axis}")
        if isinstance(a, IntImm) or isinstance(b, IntImm):
            # A constant is not 1 here, so the other dimension is 1 or the same.
            return a if isinstance(a, IntImm) else b
        return select(EQ(a, IntImm(1)), b, a)
    return b if isinstance(b, IntImm) else a


def _is_at_most_one(size: Expr) -> bool:
    """Whether a dimension is 0 or 1: that of a slice, say."""
    size = cast(size, INT64)
    return analyzer_of(size).can_prove(LE(size, IntImm(1)))


def broadcast_types(
    op: Op, *items: TensorType, dtype: DType | None, device: VDevice | None = None
) -> TensorType:
    """The type of the elementwise result of operands that broadcast, as far as they are known."""
    place = device if device is not None else common_device(op, *items)
    known = [item.shape for item in items if item.shape is not None]
    if len(known) == len(items):
        return tensor_type(broadcast_shapes(op, *known), dtype, device=place)
    broadcast_shapes(op, *known)
    rank = -1 if any(item.ndim < 0 for item in items) else max(item.ndim for item in items)
    return tensor_type(None, dtype, rank, place)


def unknown_like(x: TensorType, dtype: DType | None = None, ndim: int | None = None) -> TensorType:
    """A tensor of unknown shape on the device of `x`, of its dtype and rank unless given."""
    return tensor_type(
        None, x.dtype if dtype is None else dtype, x.ndim if ndim is None else ndim, x.device
    )


def with_shape(x: TensorType, sizes: Iterable[ExprLike], dtype: DType | None = None) -> TensorType:
    """A tensor of these dimensions on the device of `x`, of its dtype unless given."""
    return tensor_type(as_sizes(sizes), x.dtype if dtype is None else dtype, device=x.device)
