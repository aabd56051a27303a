"""Iteration maps: are index expressions a split and fuse of loops, and which?

Values are written as sums of splits of marks, after TVM's detect_iter_map: a mark is a loop
variable or a fused sum; a split of it is ((mark // lower_factor) % extent) * scale. Everything
may be symbolic. What to do with a map (invert it, divide it) is in `iter_inverse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Literal

from transect.arith.analyzer import Analyzer
from transect.ir.expr import (
    LE,
    LT,
    Add,
    And,
    Binary,
    Call,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Mul,
    Range,
    Sub,
    Var,
    as_int,
    const,
    minimum,
)
from transect.ir.traverse import free_vars

_MOST_ATTEMPTS = 64

Level = Literal["bijective", "injective", "surjective"]
"""bijective: the loops and the box of index values correspond one to one. injective: no two
iterations have the same indices, which may leave gaps. surjective: each index takes each value of
its range independently of the others, perhaps in many iterations."""


@dataclass(frozen=True)
class IterMark:
    """Something that counts from 0 to extent - 1: a loop (less its start), or a fused sum."""

    source: Var | IterSum
    extent: Expr


@dataclass(frozen=True)
class IterSplit:
    """((mark // lower_factor) % extent) * scale."""

    mark: IterMark
    lower_factor: Expr
    extent: Expr
    scale: Expr


@dataclass(frozen=True)
class IterSum:
    """The sum of the splits, and `base`, in which no loop occurs."""

    splits: tuple[IterSplit, ...]
    base: Expr


@dataclass(frozen=True)
class IterMap:
    """What `detect_iter_map` found: one sum per index, its splits from the slowest to the fastest.

    extents: how many values each index takes. errors: why there is no such map; then `sums` is
    empty.
    """

    sums: tuple[IterSum, ...]
    extents: tuple[Expr, ...]
    errors: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the indices are such a map."""
        return not self.errors


class NotAffineError(Exception):
    """Raised inside this room when an expression is no sum of splits; the text is the reason."""


def detect_iter_map(
    indices: Sequence[Expr],
    loops: Mapping[Var, Range],
    predicate: Expr | None = None,
    *,
    level: Level = "bijective",
    analyzer: Analyzer | None = None,
) -> IterMap:
    """Write `indices` as splits and fusions of `loops`, checked to the given level.

    predicate: a conjunction of upper bounds on fused loops, such as i * 16 + j < n; iterations
    outside of it do not count. analyzer: what is known of free variables; the loops must not be
    bound in it.
    """
    finder = IterFinder(loops, Analyzer() if analyzer is None else analyzer)
    try:
        sums = finder.find(indices, predicate, level)
    except NotAffineError as error:
        return IterMap((), (), (str(error),))
    return IterMap(sums, tuple(finder.extent(item) for item in sums))


def normalize_to_iter_sum(
    expr: Expr, loops: Mapping[Var, Range], analyzer: Analyzer | None = None
) -> IterSum | None:
    """`expr` as a sum of splits of the loops, or None. The splits need not fit together."""
    finder = IterFinder(loops, Analyzer() if analyzer is None else analyzer)
    try:
        return finder.parse(expr)
    except NotAffineError:
        return None


class IterFinder:
    """Parses expressions over some loops into sums, and fits their splits together."""

    def __init__(self, loops: Mapping[Var, Range], analyzer: Analyzer) -> None:
        self.loops = loops
        self.analyzer = analyzer
        # The loops' ranges are learned in a copy: outside of here nothing is known of them.
        self.inner = analyzer.fork()
        self.marks: dict[Var, IterMark] = {}
        for var, extent in loops.items():
            self.inner.bind(var, extent)
            self.marks[var] = IterMark(var, analyzer.simplify(extent.extent))
        self.constrained: list[IterMark] = []
        self.used: set[IterMark] = set()

    def find(
        self, indices: Sequence[Expr], predicate: Expr | None, level: Level
    ) -> tuple[IterSum, ...]:
        """The sums of all indices, checked. Raises NotAffineError with the reason if they fail."""
        self.constrain(predicate)
        # Simplifying (6 * i + j) % 4 to (2 * i + j) % 4 hides the fusion that was divided, so each
        # index is tried as it was written as well.
        forms = [dict.fromkeys((self.inner.simplify(index), index)) for index in indices]
        first: NotAffineError | None = None
        for attempt in islice(product(*forms), _MOST_ATTEMPTS):
            try:
                return self._find(attempt, level)
            except NotAffineError as error:
                first = first or error
        raise first or NotAffineError("there are no indices")

    def _find(self, indices: Sequence[Expr], level: Level) -> tuple[IterSum, ...]:
        self.used = set()
        gaps = level == "injective"
        sums = tuple(self.chain(self._parse(index), gaps=gaps) for index in indices)
        self.check(sums, level)
        return sums

    # --- from expressions -------------------------------------------------------------------

    def parse(self, expr: Expr) -> IterSum:
        """`expr` as a sum. Raises NotAffineError with the reason if it is none."""
        return self._parse(self.inner.simplify(expr))

    def _parse(self, expr: Expr) -> IterSum:
        if not self._depends(expr):
            return IterSum((), expr)
        if isinstance(expr, Var):
            mark = self.marks[expr]
            one = const(1, expr.dtype)
            return IterSum((IterSplit(mark, one, mark.extent, one),), self.loops[expr].min)
        if isinstance(expr, Add | Sub):
            sign = 1 if isinstance(expr, Add) else -1
            return self._add(self._parse(expr.a), self._parse(expr.b), sign)
        if isinstance(expr, Mul):
            for factor, rest in ((expr.b, expr.a), (expr.a, expr.b)):
                if not self._depends(factor):
                    return self._scale(self._parse(rest), factor)
            raise NotAffineError(f"{expr!r} multiplies loop variables")
        if isinstance(expr, FloorDiv | FloorMod):
            if self._depends(expr.b):
                raise NotAffineError(f"the divisor of {expr!r} is not constant in the loops")
            return self._divide(type(expr), self._parse(expr.a), expr.b, expr)
        raise NotAffineError(f"{expr!r} is not built of +, -, *, // and % of loop variables")

    def _depends(self, expr: Expr) -> bool:
        return any(var in self.loops for var in free_vars([expr]))

    def _add(self, a: IterSum, b: IterSum, sign: int) -> IterSum:
        splits = {self._identity(split): split for split in a.splits}
        for split in b.splits:
            key = self._identity(split)
            scale = split.scale if sign > 0 else self.simplify(split.scale * -1)
            if key in splits:
                scale = self.simplify(splits[key].scale + scale)
            splits[key] = replace(split, scale=scale)
        base = a.base + b.base if sign > 0 else a.base - b.base
        kept = tuple(split for split in splits.values() if as_int(split.scale) != 0)
        return IterSum(kept, self.simplify(base))

    @staticmethod
    def _identity(split: IterSplit) -> tuple[IterMark, Expr, Expr]:
        return (split.mark, split.lower_factor, split.extent)

    def _scale(self, value: IterSum, factor: Expr) -> IterSum:
        splits = tuple(replace(s, scale=self.simplify(s.scale * factor)) for s in value.splits)
        return IterSum(splits, self.simplify(value.base * factor))

    def _divide(self, kind: type[Binary], value: IterSum, divisor: Expr, shown: Expr) -> IterSum:
        if not self._divides(divisor, value.base):
            raise NotAffineError(
                f"{shown!r}: the offset {value.base!r} is not a multiple of {divisor!r}"
            )
        zero = const(0, divisor.dtype)
        base = self.simplify(value.base // divisor) if kind is FloorDiv else zero
        # Splits whose scale is a multiple of the divisor leave the quotient at once.
        whole = tuple(s for s in value.splits if self._divides(divisor, s.scale))
        rest = tuple(s for s in value.splits if s not in whole)
        found: list[IterSplit] = []
        if kind is FloorDiv:
            found += [replace(s, scale=self.simplify(s.scale // divisor)) for s in whole]
        if rest:
            split = self._split(kind, self._fused(IterSum(rest, zero)), divisor, shown)
            found += [split] if split is not None else []
        return self._add(IterSum(tuple(found), base), IterSum((), zero), 1)

    def _split(
        self, kind: type[Binary], split: IterSplit, divisor: Expr, shown: Expr
    ) -> IterSplit | None:
        """split // divisor or split % divisor as a split; None for zero."""
        one = const(1, divisor.dtype)
        if not self._divides(split.scale, divisor):
            raise NotAffineError(f"{shown!r}: {divisor!r} is not a multiple of {split.scale!r}")
        size = self.simplify(divisor // split.scale)
        # A split whose extent is below the divisor has quotient 0 and is its own remainder.
        if self.inner.can_prove(split.extent <= size):
            return None if kind is FloorDiv else split
        if not self._divides(size, split.extent):
            raise NotAffineError(f"{shown!r}: {size!r} does not divide the extent {split.extent!r}")
        if kind is FloorMod:
            return replace(split, extent=size)
        lower = self.simplify(split.lower_factor * size)
        return IterSplit(split.mark, lower, self.simplify(split.extent // size), one)

    def _fused(self, value: IterSum) -> IterSplit:
        """The sum as one split: itself if it is one, else of a new mark. Its base must be zero."""
        chain = self.chain(value)
        if len(chain.splits) == 1:
            return chain.splits[0]
        scale = chain.splits[-1].scale
        one = const(1, scale.dtype)
        unit = tuple(replace(s, scale=self.simplify(s.scale // scale)) for s in chain.splits)
        mark = IterMark(IterSum(unit, chain.base), self.extent(chain))
        return IterSplit(mark, one, mark.extent, scale)

    # --- fitting splits together ------------------------------------------------------------

    def chain(self, value: IterSum, *, gaps: bool = False) -> IterSum:
        """`value` with its splits ordered from the slowest to the fastest, each scale being the
        extent of all that is faster. gaps: it may be more. Raises NotAffineError otherwise."""
        rest = list(self._with_constraints(value.splits))
        if not rest:
            return IterSum((), value.base)
        fastest = self._fastest(rest)
        ordered = [fastest]
        rest.remove(fastest)
        expected = self.simplify(fastest.scale * fastest.extent)
        while rest:
            following = next((s for s in rest if self.equal(s.scale, expected)), None)
            if following is None and gaps:
                following = next(
                    (s for s in rest if self.inner.can_prove(s.scale >= expected)
                     and all(self.inner.can_prove(s.scale <= t.scale) for t in rest)),
                    None,
                )  # fmt: skip
            if following is None:
                scales = ", ".join(repr(s.scale) for s in rest)
                raise NotAffineError(
                    "the loops do not fit together: "
                    f"the next scale should be {expected!r}, there is {scales}"
                )
            ordered.append(following)
            rest.remove(following)
            expected = self.simplify(following.scale * following.extent)
        return IterSum(tuple(reversed(ordered)), value.base)

    def _fastest(self, splits: Sequence[IterSplit]) -> IterSplit:
        for split in splits:
            others = [other for other in splits if other is not split]
            if all(self._divides(split.scale, o.scale) for o in others) and not any(
                self._divides(o.scale, split.scale) for o in others
            ):
                if not self.inner.can_prove(split.scale > 0):
                    raise NotAffineError(f"the scale {split.scale!r} is not known to be positive")
                return split
        scales = ", ".join(repr(split.scale) for split in splits)
        raise NotAffineError(f"no scale among {scales} divides all others")

    def _with_constraints(self, splits: tuple[IterSplit, ...]) -> tuple[IterSplit, ...]:
        """`splits` with each group that the predicate bounds replaced by its bounded mark."""
        for mark in self.constrained:
            assert isinstance(mark.source, IterSum)
            group = {self._identity(s): s for s in mark.source.splits}
            members = {self._identity(s): s for s in splits if self._identity(s) in group}
            if len(members) != len(group):
                continue
            fastest = mark.source.splits[-1]
            factor = members[self._identity(fastest)].scale
            if all(
                self.equal(members[key].scale, self.simplify(group[key].scale * factor))
                for key in group
            ):
                self.used.add(mark)
                one = const(1, factor.dtype)
                kept = tuple(s for s in splits if self._identity(s) not in group)
                splits = (*kept, IterSplit(mark, one, mark.extent, factor))
        return splits

    def extent(self, chain: IterSum) -> Expr:
        """How many values a chain takes, if its fastest scale is 1; else the span it covers."""
        if not chain.splits:
            return const(1, chain.base.dtype)
        first = chain.splits[0]
        span = self.simplify(first.scale * first.extent)
        return self.simplify(span // chain.splits[-1].scale)

    # --- predicates -------------------------------------------------------------------------

    def constrain(self, predicate: Expr | None) -> None:
        """Take in the upper bounds of a predicate. Raises NotAffineError if it says more."""
        bounds: list[tuple[IterSum, Expr]] = []
        for condition in _conjuncts(predicate):
            simple = self.inner.simplify(condition)
            if isinstance(simple, IntImm) and not simple.value:
                raise NotAffineError(f"the predicate {condition!r} never holds")
            if not self._depends(simple):
                continue
            if not isinstance(simple, LT | LE):
                raise NotAffineError(f"the predicate {simple!r} is not an upper bound")
            gap = self._parse(self.inner.simplify(simple.a - simple.b))
            limit = self.simplify(gap.base * -1 + (1 if isinstance(simple, LE) else 0))
            bounds.append((gap, limit))
        for gap, limit in sorted(bounds, key=lambda item: len(item[0].splits)):
            zero = const(0, limit.dtype)
            chain = self.chain(IterSum(gap.splits, zero))
            scale = chain.splits[-1].scale
            unit = tuple(replace(s, scale=self.simplify(s.scale // scale)) for s in chain.splits)
            extent = self.simplify((limit + scale - 1) // scale)
            whole = self.extent(chain)
            if self.inner.can_prove(whole <= extent):
                continue
            if not self.inner.can_prove(extent <= whole):
                extent = self.simplify(minimum(extent, whole))
            self.constrained.append(IterMark(IterSum(unit, zero), extent))

    # --- checks -----------------------------------------------------------------------------

    def check(self, sums: Sequence[IterSum], level: Level) -> None:
        """Raise NotAffineError unless the sums use the loops as `level` demands."""
        for number, item in enumerate(sums):
            if level != "injective" and item.splits and as_int(item.splits[-1].scale) != 1:
                raise NotAffineError(
                    f"index {number} takes only multiples of {item.splits[-1].scale!r}"
                )
        unused = [mark for mark in self.constrained if mark not in self.used]
        if unused:
            raise NotAffineError("the predicate bounds loops that no index joins in the same way")
        complete = level != "surjective"
        uses: dict[IterMark, list[IterSplit]] = {}
        pending = [split for item in sums for split in item.splits]
        while pending:
            split = pending.pop()
            if split.mark not in uses and isinstance(split.mark.source, IterSum):
                pending.extend(split.mark.source.splits)
            uses.setdefault(split.mark, []).append(split)
        for mark, splits in uses.items():
            self._check_mark(mark, splits, complete)
        for var, mark in self.marks.items():
            if complete and mark not in uses and as_int(mark.extent) != 1:
                raise NotAffineError(f"loop {var.name!r} does not occur in the indices")

    def _check_mark(self, mark: IterMark, splits: list[IterSplit], complete: bool) -> None:
        name = repr(mark.source.name) if isinstance(mark.source, Var) else "a fused index"
        rest = list(splits)
        expected: Expr = const(1, mark.extent.dtype)
        while rest:
            following = next((s for s in rest if self.equal(s.lower_factor, expected)), None)
            if following is None and not complete:
                # A gap is allowed; an overlap is not.
                following = next(
                    (s for s in rest if self._divides(expected, s.lower_factor)
                     and all(self._divides(s.lower_factor, t.lower_factor) for t in rest)),
                    None,
                )  # fmt: skip
            if following is None:
                raise NotAffineError(f"parts of loop {name} overlap or leave a gap")
            rest.remove(following)
            expected = self.simplify(following.lower_factor * following.extent)
        if complete and not self.equal(expected, mark.extent):
            raise NotAffineError(
                f"loop {name} of extent {mark.extent!r} is used only up to {expected!r}"
            )

    # --- arithmetic -------------------------------------------------------------------------

    def simplify(self, expr: Expr) -> Expr:
        """`expr` simplified; it has no loop variables."""
        return self.inner.simplify(expr)

    def equal(self, a: Expr, b: Expr) -> bool:
        """Whether a == b for sure."""
        return a is b or self.inner.can_prove_equal(a, b)

    def _divides(self, divisor: Expr, value: Expr) -> bool:
        return self.equal(self.simplify(value % divisor), const(0, value.dtype))


def _conjuncts(predicate: Expr | None) -> list[Expr]:
    if predicate is None:
        return []
    if isinstance(predicate, And):
        return [*_conjuncts(predicate.a), *_conjuncts(predicate.b)]
    if (
        isinstance(predicate, Call)
        and isinstance(predicate.op, Intrinsic)
        and predicate.op.name == "likely"
    ):
        return _conjuncts(predicate.args[0])
    return [predicate]


def to_expr(value: IterSum | IterSplit | IterMark, loops: Mapping[Var, Range]) -> Expr:
    """The expression that a sum, split or mark stands for. Not simplified."""
    if isinstance(value, IterMark):
        source = value.source
        return source - loops[source].min if isinstance(source, Var) else to_expr(source, loops)
    if isinstance(value, IterSplit):
        result = to_expr(value.mark, loops)
        if as_int(value.lower_factor) != 1:
            result = result // value.lower_factor
        if value.extent is not value.mark.extent:
            result = result % value.extent
        return result * value.scale
    result = value.base
    for split in reversed(value.splits):
        result = to_expr(split, loops) + result
    return result
