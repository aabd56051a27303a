"""What an index map makes of a box: the new box, the way back, and which places are padding.

Built on `arith`'s iteration maps, which know only maps without padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from transect.arith import Analyzer
from transect.arith.evaluate import evaluate
from transect.arith.iter_inverse import inverse_affine_map
from transect.arith.iter_map import NotAffineError, detect_iter_map
from transect.ir.dtype import INDEX
from transect.ir.expr import (
    Add,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Mul,
    Range,
    Sub,
    Var,
    as_int,
    const,
    equal,
    logical_and,
    true,
)
from transect.ir.sizes import ceildiv
from transect.ir.traverse import free_vars, substitute, walk
from transect.support.errors import InputError
from transect.tir.index_map import IndexMap


@dataclass(frozen=True)
class IndexImage:
    """Where a one-to-one index map takes a box whose indices start at 0.

    shape: of the new box. inverse: the old indices from the new ones. inside: over the inputs of
    `inverse`, where the new indices are those of an old element; elsewhere is padding.
    starts_late: whether there may be padding before the first element.
    """

    shape: tuple[Expr, ...]
    inverse: IndexMap
    inside: Expr
    starts_late: bool = False

    @property
    def pads(self) -> bool:
        """Whether the new box may have places without an old element."""
        return self.inside is not true()


def image_of(
    index_map: IndexMap, shape: Sequence[Expr], analyzer: Analyzer | None = None
) -> IndexImage | str:
    """The image of a box of `shape`; the reason, as text, if the map is not known to be one to
    one. Sizes that the divisors of the map do not divide are rounded up.

    analyzer: what is known of the free variables, such as that sizes are not negative.

        (i, j) -> (j // 4, i, j % 4) over (n, m)   gives   shape ((m + 3) // 4, n, 4),
        (a, b, c) -> (b, a * 4 + c), inside where a * 4 + c < m
    """
    known = Analyzer() if analyzer is None else analyzer
    loops = {
        var: Range.of(extent.astype(INDEX))
        for var, extent in zip(index_map.inputs, shape, strict=True)
    }
    inner = known.fork()
    for var, extent in loops.items():
        inner.bind(var, extent)
    reason = ""
    # A simpler form may hide which sum was divided; the form as it was written may divide in vain.
    simple = tuple(inner.simplify(item) for item in index_map.outputs)
    for outputs in dict.fromkeys((simple, index_map.outputs)):
        try:
            return _Finder(loops, known).image(outputs)
        except NotAffineError as error:
            reason = reason or str(error)
    return reason


def _one() -> Expr:
    return const(1, INDEX)


def _zero() -> Expr:
    return const(0, INDEX)


@dataclass
class _Base:
    """Something that outputs divide: a loop, or a fusion of loops. `var` stands for it.

    offset: added before dividing. period: a multiple of all divisors. extent: how many values it
    has; padded: the same with `before` more in front, rounded up to the period.
    """

    expr: Expr
    var: Var
    offset: Expr | None = None
    period: Expr = field(default_factory=_one)
    extent: Expr = field(default_factory=_one)
    before: Expr = field(default_factory=_zero)
    padded: Expr = field(default_factory=_one)


class _Finder:
    def __init__(self, loops: Mapping[Var, Range], known: Analyzer) -> None:
        self.loops = loops
        self.known = known
        self.inner = known.fork()
        for var, extent in loops.items():
            self.inner.bind(var, extent)
        self.bases: dict[Expr, _Base] = {}

    def image(self, outputs: Sequence[Expr]) -> IndexImage:
        lifted = [self._lift(item) for item in outputs]
        for item in lifted:
            self._periods(item)
        inner = self._fusions()
        for base in self.bases.values():
            self._pad(base)
        shifted = {base.var: base.var - base.before for base in self.bases.values()}
        ranges = {base.var: Range.of(base.padded) for base in self.bases.values()}
        found = detect_iter_map(
            [substitute(item, shifted) for item in lifted], ranges, analyzer=self.known
        )
        if not found.found:
            raise NotAffineError(found.errors[0])
        for number, item in enumerate(found.sums):
            if not self.known.can_prove_equal(item.base, 0):
                raise NotAffineError(f"index {number} starts at {item.base!r}, not at 0")
        inputs = self._names(lifted)
        simplifier = self.known.fork()
        for var, extent in zip(inputs, found.extents, strict=True):
            simplifier.bind(var, Range.of(extent))
        places = inverse_affine_map(found.sums, inputs, ranges, simplifier)
        values = {
            base.var: simplifier.simplify(places[base.var] - base.before)
            for base in self.bases.values()
        }
        inside = true()
        for base in self.bases.values():
            if as_int(base.before) != 0:
                inside = logical_and(inside, values[base.var] >= 0)
            if base.padded is not base.extent:
                inside = logical_and(inside, values[base.var] < base.extent)
        old = tuple(simplifier.simplify(substitute(inner[var], values)) for var in self.loops)
        shape = tuple(self.known.simplify(extent) for extent in found.extents)
        simple = simplifier.simplify(inside)
        late = any(as_int(base.before) != 0 for base in self.bases.values())
        return IndexImage(shape, IndexMap(inputs, old), simple, late)

    # --- what is divided by what ------------------------------------------------------------

    def _depends(self, expr: Expr) -> bool:
        return any(var in self.loops for var in free_vars([expr]))

    def _lift(self, expr: Expr) -> Expr:
        """`expr` over the variables of bases instead of loops."""
        if not self._depends(expr):
            return expr
        if isinstance(expr, Var):
            return self._base(expr).var
        if isinstance(expr, FloorDiv | FloorMod):
            if self._depends(expr.b):
                raise NotAffineError(f"the divisor of {expr!r} is not constant in the indices")
            if not self.inner.can_prove(expr.b > 0):
                raise NotAffineError(f"the divisor of {expr!r} is not known to be positive")
            if any(isinstance(item, FloorDiv | FloorMod) for item in walk(expr.a)):
                return type(expr)(self._lift(expr.a), expr.b)
            start: dict[Var, Expr] = {var: const(0, var.dtype) for var in self.loops}
            offset = self.known.simplify(substitute(expr.a, start))
            base = self._base(self.inner.simplify(expr.a - offset))
            if base.offset is not None and base.offset is not offset:
                raise NotAffineError(
                    f"{base.expr!r} is divided with the offsets {base.offset!r} and {offset!r}"
                )
            base.offset = offset
            return type(expr)(base.var + offset, expr.b)
        if isinstance(expr, Add | Sub | Mul):
            return type(expr)(self._lift(expr.a), self._lift(expr.b))
        raise NotAffineError(f"{expr!r} is not built of +, -, *, // and % of indices")

    def _base(self, expr: Expr) -> _Base:
        known = self.bases.get(expr)
        if known is None:
            name = "_".join(var.name for var in free_vars([expr]) if var in self.loops)
            known = _Base(expr, Var(name or "i", INDEX))
            self.bases[expr] = known
        return known

    def _periods(self, expr: Expr) -> dict[Var, Expr]:
        """For each base in `expr` how many of its steps are one step of `expr`. Collects what a
        whole number of must fit into the extent of the base."""
        if isinstance(expr, Var):
            return {expr: const(1, INDEX)} if self._of(expr) is not None else {}
        if isinstance(expr, FloorDiv | FloorMod):
            inside = self._periods(expr.a)
            whole = {var: self.known.simplify(step * expr.b) for var, step in inside.items()}
            for var, period in whole.items():
                base = self._of(var)
                assert base is not None
                base.period = self._multiple(base.period, period)
            return whole if isinstance(expr, FloorDiv) else inside
        found: dict[Var, Expr] = {}
        if isinstance(expr, Add | Sub | Mul):
            for side in (expr.a, expr.b):
                found.update(self._periods(side))
        return found

    def _of(self, var: Var) -> _Base | None:
        return next((base for base in self.bases.values() if base.var is var), None)

    def _multiple(self, a: Expr, b: Expr) -> Expr:
        """The least common multiple. Raises NotAffineError if neither is known to divide the
        other and they are not constants."""
        first, second = as_int(a), as_int(b)
        if first is not None and second is not None:
            return IntImm(math.lcm(first, second))
        for large, small in ((a, b), (b, a)):
            if large is small or self.known.can_prove(equal(large % small, 0)):
                return large
        raise NotAffineError(f"neither of {a!r} and {b!r} is known to divide the other")

    # --- extents ----------------------------------------------------------------------------

    def _fusions(self) -> dict[Var, Expr]:
        """The loops in terms of the bases; sets the extents of the bases."""
        inverse: dict[Var, Expr] = {}
        left = dict(self.loops)
        fused: list[_Base] = []
        for base in self.bases.values():
            if isinstance(base.expr, Var):
                base.extent = self.loops[base.expr].extent
                inverse[base.expr] = base.var
                left.pop(base.expr, None)
            else:
                fused.append(base)
        for var, extent in list(left.items()):
            if not any(var in free_vars([base.expr]) for base in fused):
                if as_int(self.known.simplify(extent.extent)) != 1:
                    raise NotAffineError(f"index {var.name!r} does not occur in the map")
                inverse[var] = const(0, var.dtype)
                del left[var]
        for base in fused:
            twice = [v for v in free_vars([base.expr]) if v in self.loops and v not in left]
            if twice:
                raise NotAffineError(f"{base.expr!r} shares index {twice[0].name!r} with others")
        if not fused:
            return inverse
        found = detect_iter_map([base.expr for base in fused], left, analyzer=self.known)
        if not found.found:
            raise NotAffineError(found.errors[0])
        for base, extent in zip(fused, found.extents, strict=True):
            base.extent = extent
        simplifier = self.known.fork()
        for base in fused:
            simplifier.bind(base.var, Range.of(base.extent))
        return inverse | inverse_affine_map(
            found.sums, [base.var for base in fused], left, simplifier
        )

    def _pad(self, base: _Base) -> None:
        offset = base.offset if base.offset is not None else const(0, INDEX)
        if as_int(base.period) != 1:
            base.before = self.known.simplify(offset % base.period)
        total = self.known.simplify(base.extent + base.before)
        if as_int(base.before) == 0 and self.known.can_prove(equal(total % base.period, 0)):
            base.padded = base.extent
        else:
            base.padded = self.known.simplify(ceildiv(total, base.period) * base.period)

    def _names(self, lifted: Sequence[Expr]) -> tuple[Var, ...]:
        """The new indices, named for what they are parts of."""
        names: list[str] = []
        for item in lifted:
            own = [var.name for var in free_vars([item]) if self._of(var) is not None]
            names.append("_".join(own) or "unit")
        seen: dict[str, int] = {}
        result: list[Var] = []
        for name in names:
            number = seen[name] = seen.get(name, -1) + 1
            result.append(Var(f"{name}_{number}" if names.count(name) > 1 else name, INDEX))
        return tuple(result)


def arrange(array: np.ndarray, index_map: IndexMap, pad_value: float = 0) -> np.ndarray:
    """The array with element i at index_map(i), and `pad_value` where there is none.

    What a caller does with an argument whose parameter was laid out anew. Raises InputError if
    the map is not known to be one to one.
    """
    image = image_of(index_map, [IntImm(size) for size in array.shape])
    if isinstance(image, str):
        raise InputError(f"not a layout of {array.shape}: {image}", remedy="give another map")
    shape = [as_int(extent) for extent in image.shape]
    result = np.full([0 if size is None else size for size in shape], pad_value, array.dtype)
    places = np.indices(array.shape, sparse=True)
    values = dict(zip(index_map.inputs, places, strict=True))
    result[tuple(evaluate(item, values) for item in index_map.outputs)] = array
    return result
