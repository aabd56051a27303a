"""Numbers of a shape that only a run knows: read from tensors, bound to variables, checked.

What is known while importing never comes here (`values`).
"""

from __future__ import annotations

from collections.abc import Sequence

from transect.frontend.onnx.emitter import Emitter
from transect.frontend.onnx.values import Elements, as_dimension
from transect.ir.dtype import BOOL, INT64
from transect.ir.expr import (
    EQ,
    Expr,
    IntImm,
    as_int,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    select,
)
from transect.ir.sizes import product
from transect.ir.types import ShapeType, tensor_type
from transect.relax.expr import ShapeExpr, Value, constant, make_tuple, shape_expr
from transect.relax.shapes import prove_equal

FARTHEST = 1 << 48
"""No dimension is as large: positions from here on, as models write for "to the end", are alike."""


def read_elements(emitter: Emitter, value: Value, what: str) -> Elements:
    """The elements of an integer or bool tensor of rank 0 or 1, read at run time; any sign.

    Each is the difference of two variables, the number itself where it is positive and its
    absolute value where it is not: no variable of a shape is ever negative. Numbers beyond what a
    dimension can be become the greatest or least that are read, so that sums of them stay exact.
    """
    known = emitter.scope.numbers.get(value)
    if known is not None:
        return known
    vector, rank, count = _as_vector(emitter, value, what)
    if count == 0:
        return Elements((), rank, emitter.dtype(value))
    zero, most, least = (constant(value, INT64) for value in (0, FARTHEST, -FARTHEST))
    near = emitter.emit("minimum", emitter.emit("maximum", vector, least), most)
    positive = emitter.emit("maximum", near, zero)
    negative = emitter.emit("maximum", emitter.emit("subtract", zero, near), zero)
    pairs = [emitter.symbols.signed(what) for _ in range(count)]
    both = emitter.emit("concat", make_tuple(positive, negative), axis=0)
    _bind(emitter, both, [*(p for p, _ in pairs), *(n for _, n in pairs)], what)
    found = Elements(tuple(p - n for p, n in pairs), rank, emitter.dtype(value))
    emitter.scope.numbers[value] = found
    return found


def read_sizes(emitter: Emitter, value: Value, what: str) -> Elements:
    """As `read_elements` for numbers that must not be negative, which the compiled model checks."""
    vector, rank, count = _as_vector(emitter, value, what)
    if count == 0:
        return Elements((), rank, emitter.dtype(value))
    sizes = [emitter.symbols.size(what) for _ in range(count)]
    # A variable that is bound to a maximum is not negative, whatever the check then finds.
    _bind(emitter, emitter.emit("maximum", vector, constant(0, INT64)), sizes, what)
    _bind(emitter, vector, sizes, f"nonnegative_{what}")
    return Elements(tuple(sizes), rank, emitter.dtype(value))


def read_flag(emitter: Emitter, value: Value) -> Expr:
    """The one element of a bool tensor, read at run time: 0 or 1."""
    vector, _, count = _as_vector(emitter, value, "condition")
    if count != 1:
        raise emitter.error(f"the condition has {count} elements, not one")
    flag = emitter.symbols.size("condition")
    _bind(emitter, vector, [flag], "condition")
    return flag


def _as_vector(emitter: Emitter, value: Value, what: str) -> tuple[Value, int, int]:
    """A tensor as an int64 vector, with its rank and its number of elements."""
    dims, dtype = emitter.shape(value), emitter.dtype(value)
    count = as_int(dims[0]) if dims else 1
    if len(dims) > 1 or not (dtype.is_integral or dtype.is_bool):
        raise emitter.error(f"the {what} is a {dtype} tensor with {len(dims)} dimensions")
    if count is None:
        raise emitter.error(
            f"how many numbers the {what} has depends on data",
            "the number of dimensions of every tensor must be known",
        )
    vector = value if dtype is INT64 else emitter.emit("astype", value, dtype=INT64)
    return (vector if dims else emitter.emit("reshape", vector, shape_expr(1))), len(dims), count


def _bind(emitter: Emitter, vector: Value, dims: Sequence[Expr], what: str) -> None:
    """Give variables the elements of an int64 vector; what has a value already is checked."""
    shape = emitter.emit("tensor_to_shape", vector)
    emitter.builder.match_cast(shape, _shape_type(dims), what, (emitter.layer,))


def _shape_type(dims: Sequence[Expr]) -> ShapeType:
    return ShapeType(tuple(dims), len(dims))


def bind_size(emitter: Emitter, size: Expr, what: str) -> Expr:
    """A size that depends on data as a variable of its own, so that what is computed from it stays
    readable; anything else as it is. A negative one becomes 0, and must fail a later check."""
    size = emitter.simplify(as_dimension(size))
    if not emitter.symbols.is_signed(size):
        return size
    return define_size(emitter, maximum(size, 0), what)


def define_size(emitter: Emitter, size: Expr, what: str) -> Expr:
    """A variable of its own for a size, which must not be negative."""
    var = emitter.symbols.size(what)
    check_size(emitter, size, var, what)
    return var


def check_size(emitter: Emitter, size: Expr, expected: Expr, what: str) -> None:
    """Check that a size is another when the model runs; a variable without a value gets it."""
    kind = _shape_type((expected,))
    value = ShapeExpr((size,), _shape_type((size,)), (emitter.layer,))
    emitter.builder.match_cast(value, kind, what, (emitter.layer,))


def require_elements(emitter: Emitter, old: Sequence[Expr], new: Sequence[Expr], what: str) -> None:
    """Check when the model runs that no axis of extent 0 in `old` is to have elements in `new`, for
    an operator that makes them from those there are."""
    for before, after in zip(old, new, strict=True):
        filled = logical_or(before > 0, after <= 0)
        check_condition(emitter, filled, f"{what}_has_elements_to_read")


def check_condition(emitter: Emitter, condition: Expr, what: str) -> None:
    """Check that a condition holds when the model runs, unless that is certain."""
    if not emitter.symbols.analyzer.can_prove(condition):
        check_size(emitter, select(condition, IntImm(1), IntImm(0)), IntImm(1), what)


def dims_besides(
    emitter: Emitter, dims: Sequence[Expr], left_out: Sequence[Expr], count: int
) -> list[Expr]:
    """The `count` dimensions of `dims` for which `left_out` is false, which only a run knows."""
    kept: list[Expr] = [IntImm(1)] * count
    ahead: Expr = IntImm(0)
    for is_out, dim in zip(left_out, dims, strict=True):
        for number, size in enumerate(kept):
            here = logical_and(logical_not(is_out), EQ(ahead, IntImm(number)))
            kept[number] = select(here, as_dimension(dim), size)
        ahead = emitter.simplify(ahead + select(is_out, IntImm(0), IntImm(1)))
    return [bind_size(emitter, size, "kept") for size in kept]


def is_among(axes: Sequence[Expr], rank: int) -> list[Expr]:
    """For each of `rank` axes whether it is among `axes`, which may count from the end."""
    found: list[Expr] = []
    for number in range(rank):
        here: Expr = IntImm(0, BOOL)
        for axis in axes:
            here = logical_or(here, EQ(axis, IntImm(number)))
            here = logical_or(here, EQ(axis, IntImm(number - rank)))
        found.append(here)
    return found


def reshape_to(emitter: Emitter, value: Value, dims: Sequence[Expr]) -> Value:
    """`value` in the shape `dims`; that the numbers of elements agree is proved, or checked when
    the model runs."""
    source = emitter.simplify(product(map(as_dimension, emitter.shape(value))))
    total = emitter.simplify(product(map(as_dimension, dims)))
    if prove_equal(source, total) or (as_int(source) is not None and as_int(total) is not None):
        return emitter.emit("reshape", value, emitter.shape_of(dims))
    flat = value
    if len(emitter.shape(value)) != 1:
        flat = emitter.emit("reshape", value, shape_expr(source))
    kind = tensor_type((total,), emitter.dtype(value))
    checked = emitter.builder.match_cast(flat, kind, "reshape", (emitter.layer,))
    return emitter.emit("reshape", checked, emitter.shape_of(dims))
