"""Dimensions that must agree but are not provably equal: checked when the model runs.

A detector's feature maps, say, only fit together for heights that are multiples of 32. ONNX leaves
that to the run; so do we, by casting one operand to the dimensions of the other. Dimensions that
could broadcast are taken to be the same only where they are two formulas for one size (see
`_alike`): operators find out by themselves, when they run, which of any two others is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from transect.arith.evaluate import evaluate
from transect.ir.expr import Expr, as_int
from transect.ir.traverse import free_vars, walk
from transect.ir.types import TensorType, tensor_type
from transect.relax.expr import Op, Tuple, Value, make_tuple
from transect.relax.op.binary import Binary
from transect.relax.op.compare import Where
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.manipulate import Concat
from transect.relax.shapes import prove_equal

MatchCast = Callable[[Value, TensorType], Value]
Place = tuple[int, int]
"""An axis, counted from the last (-1), of an operand."""

_ROUND = 64
_SIZES = 8


def agreed(operator: Op, operands: tuple[Value, ...], cast: MatchCast) -> tuple[Value, ...]:
    """The operands with `cast` applied to those whose dimensions `operator` needs to be others."""
    if isinstance(operator, Concat) and operands and isinstance(operands[0], Tuple):
        items = operands[0].items
        return (make_tuple(*_agreed(items, _joined(operator, items), cast)), *operands[1:])
    if isinstance(operator, Matmul):
        return _agreed(operands, _multiplied(operands), cast)
    if isinstance(operator, Binary | Where):
        return _agreed(operands, _broadcast(operands), cast)
    return operands


def _shape(value: Value) -> tuple[Expr, ...] | None:
    return value.type.shape if isinstance(value.type, TensorType) else None


def _broadcast(operands: Sequence[Value], first: int = 1) -> Iterator[list[Place]]:
    """The axes that could broadcast but are meant to be the same, from `first` before the last."""
    shapes = [_shape(value) or () for value in operands]
    for axis in range(first, max(map(len, shapes), default=0) + 1):
        rest = [(k, dims[-axis]) for k, dims in enumerate(shapes) if axis <= len(dims)]
        while rest:
            _, dim = rest[0]
            yield [(k, -axis) for k, other in rest if _alike(dim, other)]
            rest = [(k, other) for k, other in rest if not _alike(dim, other)]


def _alike(a: Expr, b: Expr) -> bool:
    """Whether two dimensions are formulas of the same variables with the same values at the sizes
    that models are made for: multiples of 64, here."""
    variables = free_vars((a,))
    if a is b or set(variables) != set(free_vars((b,))):
        return a is b
    values = {var: _ROUND * (1 + k % _SIZES) for k, var in enumerate(variables)}
    try:
        return evaluate(a, values) == evaluate(b, values)
    except ZeroDivisionError:
        return False


def _multiplied(operands: Sequence[Value]) -> Iterator[list[Place]]:
    """The contracted axes of a matrix product, and those that broadcast."""
    shapes = [_shape(value) for value in operands]
    if all(shapes):
        yield [(0, -1), (1, -min(2, len(shapes[1] or ())))]
        yield from _broadcast(operands, 3)


def _joined(operator: Concat, items: Sequence[Value]) -> Iterator[list[Place]]:
    """The axes of joined tensors but for the one they are joined along."""
    shapes = [_shape(value) for value in items]
    ranks = {len(dims) for dims in shapes if dims is not None}
    if operator.axis is None or None in shapes or len(ranks) != 1:
        return
    (rank,) = ranks
    for axis in range(-rank, 0):
        if axis not in (operator.axis, operator.axis - rank):
            yield [(k, axis) for k in range(len(items))]


def _agreed(
    operands: Sequence[Value], rows: Iterator[list[Place]], cast: MatchCast
) -> tuple[Value, ...]:
    changes: dict[int, dict[int, Expr]] = {}
    for row in rows:
        dims = [(_shape(operands[k]) or ())[axis] for k, axis in row]
        if len(dims) < 2:
            continue
        # The simplest stands for all: a number, else the shortest expression.
        chosen = min(dims, key=lambda dim: (as_int(dim) is None, sum(1 for _ in walk(dim))))
        for (k, axis), dim in zip(row, dims, strict=True):
            both_known = as_int(dim) is not None and as_int(chosen) is not None
            if not both_known and not prove_equal(dim, chosen):
                changes.setdefault(k, {})[axis] = chosen
    result = list(operands)
    for k, new in changes.items():
        kind = operands[k].type
        assert isinstance(kind, TensorType)
        dims = kind.shape or ()
        shape = tuple(new.get(axis - len(dims), dim) for axis, dim in enumerate(dims))
        result[k] = cast(operands[k], tensor_type(shape, kind.dtype, device=kind.device))
    return tuple(result)
