"""What schedule primitives do with iteration maps: invert them, and divide them in two."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from transect.arith.analyzer import Analyzer
from transect.arith.iter_map import (
    IterFinder,
    IterMark,
    IterSplit,
    IterSum,
    NotAffineError,
    to_expr,
)
from transect.ir.expr import Expr, Range, Var, as_int, const
from transect.ir.traverse import free_vars
from transect.support.errors import InputError


def inverse_affine_map(
    sums: Sequence[IterSum],
    outputs: Sequence[Expr],
    loops: Mapping[Var, Range],
    analyzer: Analyzer | None = None,
) -> dict[Var, Expr]:
    """The value of each loop variable, given the values `outputs` of the indices.

    sums: of a bijective (or injective) map, one per output. Raises InputError if their numbers
    differ.
    """
    if len(sums) != len(outputs):
        raise InputError(f"{len(outputs)} outputs for {len(sums)} indices")
    known = Analyzer() if analyzer is None else analyzer
    values: dict[IterMark, Expr] = {}

    def spread(item: IterSum, value: Expr) -> None:
        for position, split in enumerate(item.splits):
            part = value if as_int(split.scale) == 1 else value // split.scale
            # The slowest split has nothing above it to take away.
            part = (part if position == 0 else part % split.extent) * split.lower_factor
            values[split.mark] = values[split.mark] + part if split.mark in values else part

    for item, output in zip(sums, outputs, strict=True):
        spread(item, output - item.base)
    result: dict[Var, Expr] = {}
    for mark in _outermost_first(sums):
        value = known.simplify(values[mark])
        if isinstance(mark.source, IterSum):
            spread(mark.source, value - mark.source.base)
        else:
            result[mark.source] = known.simplify(value + loops[mark.source].min)
    return {var: result.get(var, extent.min) for var, extent in loops.items()}


def _outermost_first(sums: Sequence[IterSum]) -> list[IterMark]:
    """All marks of `sums`, each fused mark before the marks inside it."""
    order: list[IterMark] = []
    seen: set[IterMark] = set()

    def visit(mark: IterMark) -> None:
        if mark in seen:
            return
        seen.add(mark)
        if isinstance(mark.source, IterSum):
            for split in mark.source.splits:
                visit(split.mark)
        order.append(mark)

    for item in sums:
        for split in item.splits:
            visit(split.mark)
    order.reverse()
    return order


@dataclass(frozen=True)
class Division:
    """An index as outer * inner_extent + inner: what the outer loops give, and the inner ones."""

    outer: Expr
    outer_extent: Expr
    inner: Expr
    inner_extent: Expr


def subspace_divide(
    indices: Sequence[Expr],
    loops: Mapping[Var, Range],
    inner: Collection[Var],
    predicate: Expr | None = None,
    analyzer: Analyzer | None = None,
) -> tuple[Division, ...] | str:
    """Divide each index into a part over the outer loops and one over the `inner` loops.

    The reason, as text, if an index is not such a pair: each must be a fusion of outer loops,
    then of inner ones. A predicate must not join outer and inner loops.
    """
    known = Analyzer() if analyzer is None else analyzer
    finder = IterFinder(loops, known)
    try:
        sums = finder.find(indices, predicate, "bijective")
        return tuple(_divide(finder, item, frozenset(inner)) for item in sums)
    except NotAffineError as error:
        return str(error)


def _divide(finder: IterFinder, item: IterSum, inner: frozenset[Var]) -> Division:
    one = const(1, item.base.dtype)
    splits = list(item.splits)
    fast: list[IterSplit] = []
    while splits and _side(finder, splits[-1], inner):
        fast.insert(0, splits.pop())
    if any(_side(finder, split, inner) for split in splits):
        raise NotAffineError("an inner loop runs slower than an outer one in the same index")
    size = finder.simplify(fast[0].scale * fast[0].extent) if fast else one
    outer = IterSum(
        tuple(replace(s, scale=finder.simplify(s.scale // size)) for s in splits), item.base
    )
    outer_extent = finder.simplify(splits[0].scale * splits[0].extent // size) if splits else one
    if not splits:
        # The offset belongs to the side that has iterations.
        outer = IterSum((), const(0, item.base.dtype))
        fast_sum = IterSum(tuple(fast), item.base)
    else:
        fast_sum = IterSum(tuple(fast), const(0, item.base.dtype))
        if as_int(size) != 1 and as_int(item.base) != 0:
            outer = IterSum(outer.splits, finder.simplify(item.base // size))
            fast_sum = IterSum(fast_sum.splits, finder.simplify(item.base % size))
    return Division(
        finder.inner.simplify(to_expr(outer, finder.loops)),
        outer_extent,
        finder.inner.simplify(to_expr(fast_sum, finder.loops)),
        size,
    )


def _side(finder: IterFinder, split: IterSplit, inner: frozenset[Var]) -> bool:
    """Whether a split is of inner loops (True) or outer ones (False)."""
    variables = [v for v in free_vars([to_expr(split.mark, finder.loops)]) if v in finder.loops]
    sides = {var in inner for var in variables}
    if len(sides) > 1:
        names = ", ".join(var.name for var in variables)
        raise NotAffineError(f"loops {names} are joined before they are divided")
    return sides == {True}
