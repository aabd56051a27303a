"""Random expressions with random knowledge about their variables, for the fuzzers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from transect.arith import Analyzer
from transect.ir.dtype import INDEX, DType, as_dtype
from transect.ir.expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    Binary,
    Cast,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Range,
    Select,
    Sub,
    Var,
    as_expr,
    const,
    make,
)

DTYPES = tuple(as_dtype(name) for name in ("int64", "int32", "int8", "uint8", "uint32"))
_ARITHMETIC = (Add, Add, Sub, Mul, FloorDiv, FloorMod, FloorDiv, FloorMod, Min, Max, Div, Mod)
_COMPARISONS = (EQ, NE, LT, LE, GT, GE)
_CONSTANTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 127, -1, -2, -4, -8)


@dataclass
class Problem:
    """Variables with ranges, and an analyzer that knows them.

    sizes and loops: symbolic extents with a loop over each, as in index arithmetic.
    """

    seed: random.Random
    dtype: DType
    analyzer: Analyzer = field(default_factory=Analyzer)
    ranges: dict[Var, tuple[int, int]] = field(default_factory=dict[Var, tuple[int, int]])
    loops: dict[Var, Var] = field(default_factory=dict[Var, Var])

    def __post_init__(self) -> None:
        low, high = (
            (-40, 40)
            if self.dtype is INDEX
            else (int(self.dtype.min_value), int(self.dtype.max_value))
        )
        for name in "xyz":
            a, b = sorted(
                max(
                    low,
                    min(
                        high,
                        self.seed.choice((low, high, 0, 1, 3, 7, 15, self.seed.randint(low, high))),
                    ),
                )
                for _ in range(2)
            )
            self._declare(Var(name, self.dtype), a, b)
        for size_name, loop_name in ("ni", "mj"):
            size, loop = Var(size_name, self.dtype), Var(loop_name, self.dtype)
            self._declare(size, 1, self.seed.choice((4, 20)))
            self.loops[loop] = size
            self.analyzer.bind(loop, Range(const(0, self.dtype), size))

    def _declare(self, var: Var, low: int, high: int) -> None:
        self.ranges[var] = (low, high)
        self.analyzer.bind(var, (low, high))

    def point(self) -> Mapping[Var, int]:
        """Values that respect the ranges."""
        values = {var: self.seed.randint(*ends) for var, ends in self.ranges.items()}
        for loop, size in self.loops.items():
            values[loop] = self.seed.randrange(values[size])
        return values

    def number(self, depth: int) -> Expr:
        """An integer expression."""
        roll = self.seed.random()
        if depth <= 0 or roll < 0.15:
            if self.seed.random() < 0.35:
                return as_expr(const(self.seed.choice(_CONSTANTS), self.dtype))
            return self.seed.choice((*self.ranges, *self.loops))
        if roll < 0.22:
            return Select(self.truth(depth - 1), self.number(depth - 1), self.number(depth - 1))
        if roll < 0.27:
            other = self.seed.choice(DTYPES)
            return Cast(self.dtype, Cast(other, self.number(depth - 1)))
        if roll < 0.45:
            kind = self.seed.choice((FloorDiv, FloorMod))
            return make(
                kind, self.number(depth - 1), const(self.seed.choice((2, 3, 4, 8, 12)), self.dtype)
            )
        if roll < 0.55:
            return make(
                Mul, self.number(depth - 1), const(self.seed.choice((2, 3, 4, 8, 12)), self.dtype)
            )
        return make(self.seed.choice(_ARITHMETIC), self.number(depth - 1), self.number(depth - 1))

    def truth(self, depth: int) -> Expr:
        """A condition."""
        roll = self.seed.random()
        if depth <= 0 or roll < 0.6:
            kind: type[Binary] = self.seed.choice(_COMPARISONS)
            return make(kind, self.number(depth - 1), self.number(depth - 1))
        if roll < 0.7:
            inner = self.truth(depth - 1)
            return inner if isinstance(inner, IntImm) else Not(inner)
        return make(self.seed.choice((And, Or)), self.truth(depth - 1), self.truth(depth - 1))
