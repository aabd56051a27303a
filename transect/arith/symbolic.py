"""Symbolic bounds: the least and the greatest value of an index over loops, as expressions.

Unlike an interval, these may mention the variables that stay free: sizes, outer loops.
"""

from __future__ import annotations

from collections.abc import Mapping

from transect.arith.inference import Inference, operands_of_choice
from transect.arith.poly import Poly
from transect.arith.simplify import Simplifier
from transect.ir.dtype import DType
from transect.ir.expr import Cast, Expr, FloorDiv, FloorMod, Max, Min, Var, make
from transect.ir.traverse import free_vars

Ends = tuple[Poly, Poly]
"""(least, greatest) as polynomials without the variables that were ranged over."""


class Elimination:
    """Removes variables from polynomials by putting in the ends of their ranges.

    simplifier: knows the ranges. ends: (first, last) of each variable, inner loops last.
    """

    def __init__(self, simplifier: Simplifier, ends: Mapping[Var, Ends]) -> None:
        self.simplifier = simplifier
        self.known: Inference = simplifier.known
        self.ends = ends
        self._variables: dict[Expr, tuple[Var, ...]] = {}

    def of(self, poly: Poly, dtype: DType) -> Ends | None:
        """The ends of `poly`, or None where no bound is known."""
        low, high = self.end(poly, -1, dtype), self.end(poly, 1, dtype)
        return None if low is None or high is None else (low, high)

    def variables(self, atom: Expr) -> tuple[Var, ...]:
        """The variables to remove that occur in an atom."""
        if atom not in self._variables:
            self._variables[atom] = tuple(v for v in free_vars([atom]) if v in self.ends)
        return self._variables[atom]

    def end(self, poly: Poly, direction: int, dtype: DType) -> Poly | None:
        """An upper (direction 1) or lower (-1) bound of `poly` without the variables."""
        for _ in range(64):
            atom = self._next(poly)
            if atom is None:
                return poly
            slope = Poly({})
            rest: dict[tuple[Expr, ...], int] = {}
            for monomial, factor in poly.terms.items():
                if atom not in monomial:
                    rest[monomial] = factor
                elif monomial.count(atom) == 1:
                    others = tuple(item for item in monomial if item is not atom)
                    slope = slope.plus(Poly({others: factor}))
                else:
                    return self._constant(poly, direction)
            ends = self.ends[atom] if isinstance(atom, Var) else self.atom_ends(atom)
            if ends is None:
                return self._constant(poly, direction)
            if self.known.nonnegative(slope):
                chosen = ends[direction > 0]
            elif self.known.nonnegative(slope.scaled(-1)):
                chosen = ends[direction < 0]
            else:
                return self._constant(poly, direction)
            poly = Poly(rest).plus(slope.times(chosen, self.known.order))
        return None

    def _next(self, poly: Poly) -> Expr | None:
        """The atom to remove now: compound ones first, then variables from the innermost out."""
        atoms = poly.atoms()
        for atom in atoms:
            if not isinstance(atom, Var) and self.variables(atom):
                return atom
        return next((var for var in reversed(list(self.ends)) if var in atoms), None)

    def _constant(self, poly: Poly, direction: int) -> Poly | None:
        limits = self.known.poly_bounds(poly)
        end = limits.max if direction > 0 else limits.min
        return None if end is None else Poly.constant(end)

    def atom_ends(self, atom: Expr) -> Ends | None:
        """The ends of a quotient, remainder, extremum, choice or conversion."""
        known, dtype = self.known, atom.dtype
        if isinstance(atom, FloorDiv | FloorMod):
            a, b = known.poly(atom.a), known.poly(atom.b)
            if self.variables(atom.b) or not known.positive(b) or not known.exact(a, dtype):
                return self._interval(atom)
            if isinstance(atom, FloorMod):
                return Poly({}), b.shifted(-1)
            ends = self.of(a, dtype)
            if ends is None:
                return self._interval(atom)
            low, high = (self.simplifier.divide(FloorDiv, end, b, dtype) for end in ends)
            return self._interval(atom) if low is None or high is None else (low, high)
        if isinstance(atom, Min | Max):
            left, right = self._expr_ends(atom.a), self._expr_ends(atom.b)
            if left is None or right is None:
                return self._interval(atom)
            kind = type(atom)
            return self._extremum(kind, left[0], right[0], dtype), self._extremum(
                kind, left[1], right[1], dtype
            )
        choice = operands_of_choice(atom)
        if choice is not None:
            left, right = self._expr_ends(choice[1]), self._expr_ends(choice[2])
            if left is None or right is None:
                return self._interval(atom)
            return self._extremum(Min, left[0], right[0], dtype), self._extremum(
                Max, left[1], right[1], dtype
            )
        if isinstance(atom, Cast) and known.bounds(atom.value).within(known.bounds(atom)):
            ends = self._expr_ends(atom.value)
            if ends is not None:
                low, high = (
                    self.simplifier.simplify(
                        Cast(dtype, self.simplifier.from_poly(end, atom.value.dtype))
                    )
                    for end in ends
                )
                return known.poly(low), known.poly(high)
        return self._interval(atom)

    def _expr_ends(self, expr: Expr) -> Ends | None:
        poly = self.known.poly(expr)
        return self.of(poly, expr.dtype) if self.known.exact(poly, expr.dtype) else None

    def _extremum(self, kind: type[Min | Max], a: Poly, b: Poly, dtype: DType) -> Poly:
        simplifier = self.simplifier
        joined = make(kind, simplifier.from_poly(a, dtype), simplifier.from_poly(b, dtype))
        return self.known.poly(simplifier.rebuild(joined))

    def _interval(self, atom: Expr) -> Ends | None:
        limits = self.known.bounds(atom)
        if limits.min is None or limits.max is None:
            return None
        return Poly.constant(limits.min), Poly.constant(limits.max)
