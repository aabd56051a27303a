"""What operators need to write their loops: types of buffers, broadcasting loads, index arithmetic.

The loops themselves are made by `tir.builder`, functions of scalars are in `tir.op`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transect.ir.dtype import FLOAT32, FLOAT64, INT64, DType
from transect.ir.expr import EQ, Expr, ExprLike, IntImm, as_expr, as_int, cast, const, select
from transect.ir.types import (
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax.expr import Op
from transect.relax.op.inference import same, simplify
from transect.tir.buffer import Buffer
from transect.tir.builder import COMBINERS, FunctionBuilder
from transect.tir.intrinsics import INTRINSICS

TensorOperand = Buffer | Expr
"""A tensor operand, or a scalar that stands for one of rank 0."""


def operand_type(operand: Any) -> Type | None:
    """The type of an operand of `legalize`, as `infer` sees it."""
    if operand is None:
        return None
    if isinstance(operand, Buffer):
        return tensor_type(operand.shape, operand.dtype)
    if isinstance(operand, Expr):
        return PrimType(operand.dtype, operand)
    items: Sequence[Any] = operand
    if all(isinstance(item, Expr) for item in items):
        return ShapeType(tuple(items), len(items))
    return TupleType(tuple(kind for kind in map(operand_type, items) if kind is not None))


def result_type(op: Op, *operands: Any) -> TensorType:
    """The type of the tensor that `op` gives, with its shape over the operands' variables."""
    kinds = [operand_type(operand) for operand in operands]
    while kinds and kinds[-1] is None:
        kinds.pop()
    result = op.infer(*kinds)
    assert isinstance(result, TensorType), f"{op.name} gives {result!r}"
    return result


def result_shape(op: Op, *operands: Any) -> tuple[Expr, ...]:
    """The shape of the tensor that `op` gives: known, as the shapes of buffers are."""
    sizes = result_type(op, *operands).shape
    assert sizes is not None, f"{op.name} has a result of unknown shape"
    return sizes


def math(name: str, *args: ExprLike) -> Expr:
    """A call of the intrinsic `name` on numbers of one dtype, which is also the result's."""
    return INTRINSICS[name](*args)


def reduce(
    b: FunctionBuilder,
    shape: Sequence[Expr],
    reduce_shape: Sequence[ExprLike],
    value: Callable[..., Expr],
    combiner: str,
    name: str,
) -> Buffer:
    """The block that combines `value(*indices, *reduced indices)`; of nothing to combine (a
    reduced extent of 0), the combiner's identity."""
    if all(as_int(as_expr(extent)) != 0 for extent in reduce_shape):
        return b.reduce(shape, reduce_shape, value, combiner, name=name)
    dtype = value(*(IntImm(0) for _ in range(len(shape) + len(reduce_shape)))).dtype
    (identity,) = COMBINERS[combiner].identity((dtype,))

    def element(*i: Expr) -> ExprLike:
        del i
        return identity

    return b.compute(shape, element, name=name, dtype=dtype)


def load(operand: TensorOperand, sizes: Sequence[Expr], indices: Sequence[Expr]) -> Expr:
    """The element of `operand` that broadcasting puts at `indices` of a result of `sizes`."""
    if isinstance(operand, Expr):
        return operand
    skipped = len(sizes) - operand.ndim
    return operand[
        tuple(
            broadcast_index(extent, sizes[axis], indices[axis])
            for axis, extent in enumerate(operand.shape, skipped)
        )
    ]


def broadcast_index(extent: Expr, size: Expr, index: Expr) -> Expr:
    """The index in a dimension of `extent` that is `index` in one of `size`."""
    if extent is size or same(extent, size):
        return index
    if as_int(extent) is not None:
        return IntImm(0) if as_int(extent) == 1 else index
    return select(EQ(extent, IntImm(1, extent.dtype)), IntImm(0, index.dtype), index)


def index(value: Expr) -> Expr:
    """A loaded index as int64, the dtype of index arithmetic."""
    return cast(value, INT64)


def accumulator(dtype: DType) -> DType:
    """The dtype to accumulate sums in: float32 for narrower floats, else `dtype` itself."""
    return FLOAT32 if dtype.is_float and dtype.bits < 32 else dtype


def promoted(value: Expr) -> Expr:
    """A float of at least 32 bits, for formulas whose steps a narrower one would spoil."""
    return value if value.dtype in (FLOAT32, FLOAT64) else cast(value, FLOAT32)


def flatten_index(indices: Sequence[Expr], sizes: Sequence[Expr]) -> Expr:
    """The row-major position of `indices` in a box of `sizes`."""
    position: Expr = IntImm(0)
    for item, size in zip(indices, sizes, strict=True):
        position = item if as_int(position) == 0 else position * size + item
    return position


def unflatten_index(position: Expr, sizes: Sequence[Expr]) -> tuple[Expr, ...]:
    """The indices of the row-major `position` in a box of `sizes`."""
    result: list[Expr] = []
    for axis in range(len(sizes) - 1, -1, -1):
        if as_int(sizes[axis]) == 1:
            result.append(IntImm(0))
            continue
        leading = all(as_int(size) == 1 for size in sizes[:axis])
        result.append(position if leading else position % sizes[axis])
        if not leading:
            position = position // sizes[axis]
    return tuple(simplify(item) for item in reversed(result))


def keys_cubic(x: Expr, coefficient: float) -> Expr:
    """The weight at distance x >= 0 of cubic interpolation. Source: Keys 1981."""

    def number(value: float) -> Expr:
        return const(value, x.dtype)

    a = number(coefficient)
    near = ((a + number(2)) * x - (a + number(3))) * x * x + number(1)
    far = ((a * x - number(5) * a) * x + number(8) * a) * x - number(4) * a
    return select(x <= number(1), near, select(x < number(2), far, number(0)))
