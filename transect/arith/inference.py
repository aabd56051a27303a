"""What is known of integer expressions: intervals, residues, inequalities, and proofs from them.

Knowledge is held here and asked here. Rewriting expressions is the business of `simplify`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from transect.arith import interval
from transect.arith.interval import EVERYTHING, TRUTH, Bounds, dtype_bounds, from_ends
from transect.arith.poly import Monomial, Order, Poly
from transect.ir.dtype import INDEX, DType
from transect.ir.expr import (
    Add,
    Binary,
    Call,
    Cast,
    Div,
    Expr,
    FloorDiv,
    FloorMod,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Select,
    Sub,
    Var,
)

_MAX_TERMS = 48
"""Longer sums are cut into atoms: their canonical form would cost the square of their length."""
_MAX_DEGREE = 6
_INT64 = Bounds(-(1 << 63), (1 << 63) - 1)
_SEARCH_DEPTH = 6
_SEARCH_STEPS = 48
"""Polynomials that one proof may look at when plain intervals leave an end open."""
_CLOSED_SEARCH_STEPS = 8
"""The same where intervals are finite but too wide: that is common and seldom provable."""


def is_index_like(expr: Expr) -> bool:
    """Whether this is a scalar integer, on which the rules of integers work."""
    return expr.dtype.is_integral and expr.dtype.is_scalar


def operands_of_choice(expr: Expr) -> tuple[Expr, Expr, Expr] | None:
    """(condition, value if true, value if false) of a Select or an if_then_else call."""
    if isinstance(expr, Select):
        return expr.condition, expr.true_value, expr.false_value
    if isinstance(expr, Call) and isinstance(expr.op, Intrinsic) and expr.op.name == "if_then_else":
        condition, left, right = expr.args
        return condition, left, right
    return None


class Inference:
    """Facts about variables and atoms, and what follows from them.

    ranges: the interval of an atom. definitions: variables that stand for an expression.
    scoped: inequalities (poly >= 0) that hold where the key variable is in scope, so that they
    say nothing about other variables elsewhere. facts: inequalities that hold, by atom.
    known: conditions whose truth is given. residues: atom -> (modulus, remainder).
    """

    def __init__(self) -> None:
        self.order = Order()
        self.ranges: dict[Expr, Bounds] = {}
        self.definitions: dict[Var, Expr] = {}
        self.scoped: dict[Expr, list[Poly]] = {}
        self.facts: dict[Expr, list[Poly]] = {}
        self.known: dict[Expr, bool] = {}
        self.residues: dict[Expr, tuple[int, int]] = {}
        self._polys: dict[Expr, Poly] = {}
        self._bounds: dict[Expr, Bounds] = {}
        self._monomials: dict[Monomial, Bounds] = {}
        self._about: dict[Monomial, tuple[Poly, ...]] = {}
        self._least: dict[tuple[frozenset[tuple[Monomial, int]], int | float], int | float] = {}

    def copy(self) -> Inference:
        """The same knowledge, to be added to without changing this. Shares the order of atoms."""
        other = Inference()
        other.order = self.order
        other.ranges = dict(self.ranges)
        other.definitions = dict(self.definitions)
        other.scoped = {atom: list(facts) for atom, facts in self.scoped.items()}
        other.facts = {atom: list(facts) for atom, facts in self.facts.items()}
        other.known = dict(self.known)
        other.residues = dict(self.residues)
        other._polys = self._polys
        return other

    def changed(self) -> None:
        """Forget what was derived: called after knowledge was added."""
        self._bounds = {}
        self._monomials = {}
        self._about = {}
        self._least = {}

    # --- polynomials ------------------------------------------------------------------------

    def poly(self, expr: Expr) -> Poly:
        """`expr` as a polynomial over its atoms; sums and products are multiplied out."""
        known = self._polys.get(expr)
        if known is not None:
            return known
        stack: list[Expr] = [expr]
        while stack:
            item = stack[-1]
            if item in self._polys:
                stack.pop()
                continue
            kind = type(item)
            if isinstance(item, Add | Sub | Mul) and is_index_like(item):
                left, right = self._polys.get(item.a), self._polys.get(item.b)
                if left is None or right is None:
                    stack.extend(part for part in (item.b, item.a) if part not in self._polys)
                    continue
                self._polys[item] = self.combine(kind, left, right) or self._atom(item)
            elif isinstance(item, IntImm):
                self._polys[item] = Poly.constant(item.value)
            else:
                self._polys[item] = self._atom(item)
            stack.pop()
        return self._polys[expr]

    def _atom(self, expr: Expr) -> Poly:
        self.order.number(expr)
        return Poly.atom(expr)

    def combine(self, kind: type[Expr], a: Poly, b: Poly) -> Poly | None:
        """a + b, a - b or a * b, or None if that has too many terms to be worth it."""
        if kind is Mul:
            if a.degree + b.degree > _MAX_DEGREE or len(a.terms) * len(b.terms) > _MAX_TERMS:
                return None
            return a.times(b, self.order)
        if len(a.terms) + len(b.terms) > _MAX_TERMS:
            return None
        return a.plus(b, 1 if kind is Add else -1)

    def exact(self, poly: Poly, dtype: DType) -> bool:
        """Whether arithmetic in `dtype` gives this polynomial's value without wrapping around."""
        return dtype is INDEX or self.poly_bounds(poly).within(dtype_bounds(dtype))

    # --- intervals --------------------------------------------------------------------------

    def bounds(self, expr: Expr) -> Bounds:
        """The interval of an integer or bool expression, by interval arithmetic."""
        known = self._bounds.get(expr)
        if known is not None:
            return known
        stack: list[tuple[Expr, bool]] = [(expr, False)]
        while stack:
            item, ready = stack.pop()
            if item in self._bounds:
                continue
            inner = () if ready else self._bounded_parts(item)
            if inner:
                stack.append((item, True))
                stack.extend((part, False) for part in inner if part not in self._bounds)
            else:
                self._bounds[item] = self._derive(item)
        return self._bounds[expr]

    def _bounded_parts(self, expr: Expr) -> tuple[Expr, ...]:
        if isinstance(expr, Add | Sub | Mul) and is_index_like(expr):
            poly = self.poly(expr)
            return (expr.a, expr.b) if poly.only is expr else tuple(poly.atoms())
        if isinstance(expr, Binary) and is_index_like(expr.a):
            return (expr.a, expr.b)
        if isinstance(expr, Cast):
            return (expr.value,)
        choice = operands_of_choice(expr)
        return choice[1:] if choice is not None else expr.args if isinstance(expr, Call) else ()

    def _derive(self, expr: Expr) -> Bounds:
        dtype = expr.dtype
        if not dtype.is_scalar or not (dtype.is_integral or dtype.is_bool):
            return EVERYTHING
        limits = dtype_bounds(dtype)
        given = self.ranges.get(expr, EVERYTHING)
        if isinstance(expr, IntImm):
            return Bounds(expr.value, expr.value)
        if isinstance(expr, Var):
            definition = self.definitions.get(expr)
            if definition is not None:
                given &= self.bounds(definition)
            return given & limits
        if dtype.is_bool:
            return given & TRUTH
        found = self._operation_bounds(expr)
        # Outside the dtype's limits the machine wraps around, and the value may be any.
        return given & (found if found.within(limits) else limits)

    def _operation_bounds(self, expr: Expr) -> Bounds:
        if isinstance(expr, Add | Sub | Mul):
            poly = self.poly(expr)
            if poly.only is expr:
                return _DIRECT[type(expr)](self.bounds(expr.a), self.bounds(expr.b))
            return self.poly_bounds(poly)
        rule = _DIRECT.get(type(expr))
        if rule is not None and isinstance(expr, Binary):
            return rule(self.bounds(expr.a), self.bounds(expr.b))
        if isinstance(expr, Cast) and (expr.value.dtype.is_integral or expr.value.dtype.is_bool):
            found = self.bounds(expr.value)
            # Index arithmetic does not overflow, but a conversion to an index may wrap around.
            return found if expr.value.dtype is INDEX or found.within(_INT64) else EVERYTHING
        choice = operands_of_choice(expr)
        if choice is not None:
            return self.bounds(choice[1]) | self.bounds(choice[2])
        if isinstance(expr, Call) and isinstance(expr.op, Intrinsic):
            call_rule = _CALLS.get(expr.op.name)
            if call_rule is not None:
                return call_rule(*(self.bounds(arg) for arg in expr.args))
        return EVERYTHING

    def poly_bounds(self, poly: Poly) -> Bounds:
        """The interval of a polynomial, its monomials taken as independent."""
        low: int | float = 0
        high: int | float = 0
        for monomial, factor in poly.terms.items():
            part = self.monomial_bounds(monomial)
            if factor > 0:
                low, high = low + part.low * factor, high + part.high * factor
            else:
                low, high = low + part.high * factor, high + part.low * factor
        return from_ends(low, high)

    def monomial_bounds(self, monomial: Monomial) -> Bounds:
        """The interval of a product of atoms."""
        known = self._monomials.get(monomial)
        if known is None:
            known = self._monomials[monomial] = self._product_bounds(monomial)
        return known

    def _product_bounds(self, monomial: Monomial) -> Bounds:
        if len(monomial) == 1:
            return self.bounds(monomial[0])
        result = Bounds(1, 1)
        for atom, power in _powers(monomial):
            one = self.bounds(atom)
            part = one
            for _ in range(power - 1):
                part *= one
            if power % 2 == 0:
                part &= Bounds(0, None)
            result *= part
        return result

    # --- residues ---------------------------------------------------------------------------

    def residue(self, poly: Poly) -> tuple[int, int]:
        """(m, r) with poly = r modulo m; m = 0: poly is r."""
        modulus, remainder = 0, 0
        for monomial, factor in poly.terms.items():
            m, r = 0, factor
            for atom in monomial:
                n, s = self._atom_residue(atom)
                m, r = math.gcd(m * n, m * s, n * r), r * s
            modulus, remainder = math.gcd(modulus, m), remainder + r
        return (modulus, remainder % modulus) if modulus else (0, remainder)

    def _atom_residue(self, atom: Expr) -> tuple[int, int]:
        return self.residues.get(atom, (1, 0))

    # --- proofs -----------------------------------------------------------------------------

    def nonnegative(self, poly: Poly) -> bool:
        """Whether poly >= 0 follows from what is known."""
        return self.least(poly, 0) >= 0

    def positive(self, poly: Poly) -> bool:
        """Whether poly > 0 follows."""
        return self.least(poly, 1) >= 1

    def best_bounds(self, poly: Poly) -> Bounds:
        """An interval of `poly` that uses the facts between atoms, too."""
        low, high = self.least(poly, math.inf), -self.least(poly.scaled(-1), math.inf)
        return from_ends(low, high)

    def least(self, poly: Poly, goal: int | float) -> int | float:
        """A lower bound of `poly`; the search for a better one stops at `goal`."""
        low = self.poly_bounds(poly).low
        if low >= goal or not poly.terms:
            return low
        key = (frozenset(poly.terms.items()), goal)
        found = self._least.get(key)
        if found is None:
            found = self._least[key] = _Search(self).least(poly, goal, _SEARCH_DEPTH)
        return found

    def facts_about(self, monomial: Monomial) -> tuple[Poly, ...]:
        """Polynomials, known to be >= 0, in which `monomial` occurs."""
        found = self._about.get(monomial)
        if found is None:
            found = self._about[monomial] = tuple(self._facts_about(monomial))
        return found

    def _facts_about(self, monomial: Monomial) -> Iterator[Poly]:
        for atom, _ in _powers(monomial):
            for fact in self._facts_of_atom(atom, alone=len(monomial) == 1):
                for inner in fact.terms:
                    rest = _quotient(monomial, inner) if atom in inner else None
                    if rest is None:
                        continue
                    if not rest:
                        yield fact
                    elif self.monomial_bounds(rest).low >= 0:
                        yield fact.times(Poly({rest: 1}), self.order)

    def _facts_of_atom(self, atom: Expr, *, alone: bool) -> Iterator[Poly]:
        yield from self.scoped.get(atom, ())
        yield from self.facts.get(atom, ())
        it = Poly.atom(atom)
        if isinstance(atom, FloorDiv):
            a, b = self.poly(atom.a), self.poly(atom.b)
            if not (self.exact(a, atom.dtype) and self.exact(b, atom.dtype)):
                return
            if self.poly_bounds(b).low > 0:
                gap = a.plus(it.times(b, self.order), -1)
                yield gap
                yield b.shifted(-1).plus(gap, -1)
        elif isinstance(atom, FloorMod):
            a, b = self.poly(atom.a), self.poly(atom.b)
            if not (self.exact(a, atom.dtype) and self.exact(b, atom.dtype)):
                return
            if self.poly_bounds(b).low > 0:
                if b.value is None:
                    yield b.shifted(-1).plus(it, -1)
                if self.poly_bounds(a).low >= 0:
                    yield a.plus(it, -1)
        elif isinstance(atom, Min | Max):
            sign = 1 if isinstance(atom, Min) else -1
            for part in (atom.a, atom.b):
                value = self.poly(part)
                if self.exact(value, atom.dtype):
                    yield value.plus(it, -1).scaled(sign)
        if not alone:
            limits = self.bounds(atom)
            if limits.min is not None:
                yield it.shifted(-limits.min)
            if limits.max is not None:
                yield it.scaled(-1).shifted(limits.max)

    def cases(self, atom: Expr) -> tuple[Poly, Poly] | None:
        """The two values that an atom may have, if it is a choice between two."""
        if isinstance(atom, Min | Max):
            pair = (self.poly(atom.a), self.poly(atom.b))
        else:
            choice = operands_of_choice(atom)
            if choice is None:
                return None
            pair = (self.poly(choice[1]), self.poly(choice[2]))
        return pair if all(self.exact(value, atom.dtype) for value in pair) else None

    # --- learning ---------------------------------------------------------------------------

    def limit(self, expr: Expr, bounds: Bounds) -> None:
        """Learn that `expr` lies in `bounds`."""
        self.ranges[expr] = self.ranges.get(expr, EVERYTHING) & bounds
        if not self.is_new(expr):
            self.changed()

    def is_new(self, expr: Expr) -> bool:
        """Whether nothing was asked or said of `expr` yet, so that no result depends on it."""
        return isinstance(expr, Var) and expr not in self.order.numbers

    def learn_nonnegative(self, poly: Poly) -> None:
        """Learn that poly >= 0."""
        offset = poly.offset
        if len(poly.terms) - (offset != 0) == 1:
            ((monomial, factor),) = ((m, c) for m, c in poly.terms.items() if m)
            if len(monomial) == 1:
                bounds = (
                    Bounds(-(offset // factor), None)
                    if factor > 0
                    else Bounds(None, offset // -factor)
                )
                self.limit(monomial[0], bounds)
        for atom in poly.atoms():
            self.facts.setdefault(atom, []).append(poly)
        self.changed()

    def learn_residue(self, atom: Expr, modulus: int, remainder: int) -> None:
        """Learn that atom = remainder modulo `modulus` > 0; joined with what was known."""
        m, r = self.residues.get(atom, (1, 0))
        step = math.lcm(m, modulus)
        joined = (
            next((x for x in range(r, step, m) if x % modulus == remainder), None) if m else None
        )
        if joined is not None and step // m <= 1 << 16:
            self.residues[atom] = (step, joined)
        self.changed()


class _Search:
    """Lower bounds by adding multiples of known inequalities that cancel a monomial."""

    def __init__(self, inference: Inference) -> None:
        self.inference = inference
        self.steps = -1
        self.seen: set[frozenset[tuple[Monomial, int]]] = set()

    def least(self, poly: Poly, goal: int | float, depth: int) -> int | float:
        best = self.inference.poly_bounds(poly).low
        if best >= goal or depth == 0 or self.steps == 0 or not poly.terms:
            return best
        if self.steps < 0:
            self.steps = _SEARCH_STEPS if math.isinf(best) else _CLOSED_SEARCH_STEPS
        key = frozenset(poly.terms.items())
        if key in self.seen:
            return best
        self.seen.add(key)
        self.steps -= 1
        for candidate, scale in self._steps_from(poly):
            value = self.least(candidate, goal * scale, depth - 1)
            best = max(best, value if math.isinf(value) else -(-value // scale))
            if best >= goal or self.steps == 0:
                return best
        for atom in poly.atoms():
            cases = self.inference.cases(atom)
            if cases is not None:
                values = [
                    self.least(
                        replace_atom(poly, atom, case, self.inference.order), goal, depth - 1
                    )
                    for case in cases
                ]
                best = max(best, min(values))
                if best >= goal:
                    return best
        return best

    def _steps_from(self, poly: Poly) -> Iterator[tuple[Poly, int]]:
        """Pairs (p, s) with s * poly >= p."""
        parts = {
            monomial: self.inference.monomial_bounds(monomial).scaled(factor)
            for monomial, factor in poly.terms.items()
            if monomial
        }
        open_ended = [monomial for monomial, part in parts.items() if part.min is None]
        for monomial in dict.fromkeys((*open_ended, *parts)):
            factor = poly.terms[monomial]
            for fact in self.inference.facts_about(monomial):
                other = fact.terms.get(monomial, 0)
                if other * factor <= 0:
                    continue
                common = math.gcd(factor, other)
                scale = abs(other) // common
                yield poly.scaled(scale).plus(fact, -(abs(factor) // common)), scale


def replace_atom(poly: Poly, atom: Expr, value: Poly, order: Order) -> Poly:
    """`poly` with `value` in place of each occurrence of `atom`."""
    result = Poly({})
    for monomial, factor in poly.terms.items():
        part = Poly({tuple(item for item in monomial if item is not atom): factor})
        for _ in range(monomial.count(atom)):
            part = part.times(value, order)
        result = result.plus(part)
    return result


def _powers(monomial: Monomial) -> list[tuple[Expr, int]]:
    return [(atom, monomial.count(atom)) for atom in dict.fromkeys(monomial)]


def _quotient(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


quotient = _quotient
"""monomial / divisor, or None if it does not divide."""

_DIRECT: dict[type[Expr], Callable[[Bounds, Bounds], Bounds]] = {
    Add: Bounds.__add__,
    Sub: lambda a, b: a + -b,
    Mul: Bounds.__mul__,
    Div: interval.truncdiv,
    Mod: interval.truncmod,
    FloorDiv: interval.floordiv,
    FloorMod: interval.floormod,
    Min: interval.minimum,
    Max: interval.maximum,
}


def _bitwise_and(a: Bounds, b: Bounds) -> Bounds:
    tops = [x.high for x in (a, b) if x.low >= 0]
    return Bounds(0, None if min(tops) == math.inf else int(min(tops))) if tops else EVERYTHING


def _shift_right(a: Bounds, b: Bounds) -> Bounds:
    if b.min is None or b.max is None or not 0 <= b.min <= b.max < 64:
        return EVERYTHING
    return interval.floordiv(a, Bounds(1 << b.min, 1 << b.max))


def _absolute(a: Bounds) -> Bounds:
    return interval.maximum(a, -a) & Bounds(0, None)


def _same(a: Bounds) -> Bounds:
    return a


def _bit_count(_: Bounds) -> Bounds:
    return Bounds(0, 64)


_CALLS: dict[str, Callable[..., Bounds]] = {
    "bitwise_and": _bitwise_and,
    "shift_right": _shift_right,
    "likely": _same,
    "abs": _absolute,
    "popcount": _bit_count,
    "clz": _bit_count,
}
"""The interval of a call from those of its arguments, by intrinsic."""
