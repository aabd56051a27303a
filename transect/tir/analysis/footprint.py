"""How many elements of a buffer a nest touches while its inner loops run, as terms.

The outer loops stand at their first iteration, so this is about a whole tile, not one cut off at
the end. Exact for indices that are windows or grids of the loops; a bound from above elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, Var, as_int
from transect.ir.traverse import free_vars, substitute
from transect.tir.affine import difference
from transect.tir.analysis.counting import count_points
from transect.tir.analysis.linear import ONE, ZERO, Linear, add, least, linear, multiply, same
from transect.tir.analysis.nests import Nest
from transect.tir.buffer import Buffer


@dataclass(frozen=True)
class Touched:
    """Elements of a buffer that are touched below each depth of a nest.

    elements[d]: while levels[d:] run, the outer ones standing still; elements[-1] is what one
    instance touches. rows: likewise, how many of them are along the last axis. exact: likewise,
    whether elements is that number or only a bound.
    """

    buffer: Buffer
    elements: tuple[Expr, ...]
    rows: tuple[Expr, ...]
    exact: tuple[bool, ...]


@dataclass(frozen=True)
class _Span:
    """Distinct values: how many, from the smallest to the largest how far, whether exact."""

    distinct: Expr
    reach: Expr
    exact: bool


class Footprints:
    """The footprints of one nest; what its indices share is computed once."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.extents = {item.var: item.extent for item in nest.levels}
        self.forms = {var: linear(value, self.extents) for var, value in nest.values.items()}
        self.spans: dict[tuple[Var, int], _Span] = {}
        self.loops: dict[Expr, dict[Var, int]] = {}

    def touched(self, buffer: Buffer, accesses: Sequence[tuple[Expr, ...]]) -> Touched:
        """What accesses at these indices touch at each depth."""
        found = [self._below(buffer, accesses, n) for n in range(len(self.nest.levels) + 1)]
        elements, rows, exact = zip(*found, strict=True)
        return Touched(buffer, elements, rows, exact)

    def _below(
        self, buffer: Buffer, accesses: Sequence[tuple[Expr, ...]], depth: int
    ) -> tuple[Expr, Expr, bool]:
        boxes: list[tuple[tuple[Expr, ...], list[_Span], bool]] = []
        for indices in accesses:
            spans = [
                self._index(item, depth, size)
                for item, size in zip(indices, buffer.shape, strict=True)
            ]
            used = [self._inner(item, depth) for item in indices]
            shared = any(a & b for n, a in enumerate(used) for b in used[n + 1 :])
            boxes.append((indices, spans, shared))
        total: Expr = ZERO
        row: Expr = ONE
        exact = True
        while boxes:
            indices, spans, shared = boxes.pop(0)
            exact = exact and not shared and all(span.exact for span in spans)
            near = [box for box in boxes if _shift(indices, box[0]) is not None]
            if near:
                boxes = [box for box in boxes if box not in near]
                spans, joined = _hull(indices, spans, [box[0] for box in near])
                exact = exact and joined
            elif boxes:
                exact = False  # Whether they overlap is not known.
            size: Expr = ONE
            for span in spans:
                size = multiply(size, span.distinct)
            row = spans[-1].distinct if spans else ONE
            if shared:
                own = [item for item in self.nest.levels[depth:] if any(
                    item.var in self._inner(index, depth) for index in indices)]  # fmt: skip
                points: Expr = ONE
                for item in own:
                    points = multiply(points, item.extent)
                size = least(size, points)
            total = add(total, size)
        return total, row, exact

    def _inner(self, index: Expr, depth: int) -> set[Var]:
        """The loops from `depth` on that an index depends on."""
        known = self.loops.get(index)
        if known is None:
            direct = set(free_vars([substitute(index, self.nest.values)]))
            known = {item.var: n for n, item in enumerate(self.nest.levels) if item.var in direct}
            self.loops[index] = known
        return {var for var, place in known.items() if place >= depth}

    def _index(self, index: Expr, depth: int, size: Expr) -> _Span:
        """The values of an index: as a form of iteration variables, else of the loops."""
        if not self._inner(index, depth):
            return _Span(ONE, ONE, True)
        form = linear(index, self.forms.keys() | self.extents.keys(), relaxed=True)
        if form is None:
            return _Span(size, size, False)
        parts: list[tuple[Expr, _Span]] = []
        loops: list[set[Var]] = []
        for var, factor in form.coefficients.items():
            inner = self._inner(var, depth)
            if inner:
                parts.append((factor, self._variable(var, depth)))
                loops.append(inner)
        if any(a & b for n, a in enumerate(loops) for b in loops[n + 1 :]):
            # Several iteration variables of the same loops: as a form of the loops.
            own = linear(substitute(index, self.nest.values), self.extents, relaxed=True)
            if own is None:
                return _Span(size, size, False)
            span = self._form(own, depth)
        else:
            span = _sum(parts)
        cut = same(span.distinct, size) or as_int(span.distinct) == 1
        return (
            span if cut else _Span(least(span.distinct, size), least(span.reach, size), span.exact)
        )

    def _variable(self, var: Var, depth: int) -> _Span:
        known = self.spans.get((var, depth))
        if known is not None:
            return known
        if var in self.extents:
            extent = self.extents[var]
            found = _Span(extent, extent, True)
        else:
            form = self.forms[var]
            domain = self.nest.domains.get(var)
            if form is None:
                # A quotient or remainder of several loops.
                points: Expr = ONE
                for name in self._inner(var, depth):
                    points = multiply(points, self.extents[name])
                bound = points if domain is None else least(points, domain)
                found = _Span(bound, points if domain is None else domain, False)
            else:
                found = self._form(form, depth)
                if domain is not None and not same(found.distinct, domain):
                    found = _Span(
                        least(found.distinct, domain), least(found.reach, domain), found.exact
                    )
        self.spans[var, depth] = found
        return found

    def _form(self, form: Linear, depth: int) -> _Span:
        inside = {item.var: item.extent for item in self.nest.levels[depth:]}
        factors = {var: f for var, f in form.coefficients.items() if var in inside}
        span = _sum([(f, _Span(inside[v], inside[v], True)) for v, f in factors.items()])
        # Tiles that are cut off: conditions among these loops, the outer ones at their start.
        start: dict[Var, Expr] = {
            item.var: ZERO for item in self.nest.levels[:depth] if item.var.dtype is INDEX
        }
        conditions = [
            substitute(item, start)
            for item in self.nest.conditions
            if any(var in factors for var in free_vars([item]))
        ]
        conditions = [
            c for c in conditions if set(free_vars([c])) & inside.keys() <= factors.keys()
        ]
        if not conditions:
            return span
        count = count_points({var: inside[var] for var in factors}, conditions)
        return _Span(least(span.distinct, count.value), span.reach, span.exact and count.exact)


def _sum(parts: Sequence[tuple[Expr, _Span]]) -> _Span:
    """The values of a sum of factor * value, each value on its own.

    At most as many as there are combinations, and as lie between the ends: one of both is exact
    for windows that slide over rows, and for grids with gaps.
    """
    combinations: Expr = ONE
    reach: Expr = ONE
    exact = True
    for factor, span in parts:
        combinations = multiply(combinations, span.distinct)
        number = as_int(factor)
        step = factor if number is None or number >= 0 else multiply(factor, -ONE)
        reach = add(reach, multiply(step, add(span.reach, -ONE)))
        exact = exact and span.exact
    if len(parts) == 1:
        return _Span(combinations, reach, exact)
    return _Span(least(combinations, reach), reach, exact)


def _shift(a: Sequence[Expr], b: Sequence[Expr]) -> list[int] | None:
    """How far apart two accesses are on each axis, if that is constant."""
    found = [difference(y, x) for x, y in zip(a, b, strict=True)]
    known = [item for item in found if item is not None]
    return known if len(known) == len(found) else None


def _hull(
    indices: Sequence[Expr], spans: list[_Span], others: Sequence[Sequence[Expr]]
) -> tuple[list[_Span], bool]:
    """The box around accesses that differ by constants, and whether it has no holes."""
    low = [0] * len(spans)
    high = [0] * len(spans)
    for other in others:
        shift = _shift(indices, other)
        assert shift is not None
        low = [min(a, b) for a, b in zip(low, shift, strict=True)]
        high = [max(a, b) for a, b in zip(high, shift, strict=True)]
    wider: list[_Span] = []
    moved = 0
    for a, b, span in zip(low, high, spans, strict=True):
        if a == b:
            wider.append(span)
            continue
        moved += 1
        # A gap between two copies is not touched.
        copies = multiply(span.distinct, ONE * (len(others) + 1))
        wider.append(
            _Span(least(add(span.distinct, ONE * (b - a)), copies), span.reach, span.exact)
        )
    return wider, moved <= 1 and len(others) == 1 and all(span.exact for span in wider)


def by_buffer(
    accesses: Sequence[tuple[Buffer, tuple[Expr, ...]]],
) -> Mapping[Buffer, list[tuple[Expr, ...]]]:
    """The distinct indices at which each buffer is accessed."""
    found: dict[Buffer, list[tuple[Expr, ...]]] = {}
    for value, indices in accesses:
        known = found.setdefault(value, [])
        if indices not in known:
            known.append(indices)
    return found
