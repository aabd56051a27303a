"""The rules of quotients and remainders, and how their pattern variables are found.

Quotients are where index arithmetic is won: splits and fusions of loops, tiles and paddings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from transect.arith.inference import Inference, quotient
from transect.arith.interval import Bounds
from transect.arith.poly import Monomial, Poly
from transect.arith.rule import Proposal, QuotientRule, integer
from transect.ir.expr import EQ, Div, Expr, FloorDiv, FloorMod, Mod, logical_and, true

Q, R, D, G, X, Y = (integer(name) for name in "qrdgxy")
A, B, C, K = (integer(name) for name in "abck")


def _split(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = q * divisor + r with as much as possible in q."""
    d = divisor.value
    if d is not None:
        parts: dict[Monomial, int] = {}
        rest: dict[Monomial, int] = {}
        for monomial, factor in numerator.terms.items():
            if not monomial:
                q, r = divmod(factor, d)
            elif factor % d == 0:
                q, r = factor // d, 0
            else:
                q, r = 0, factor
            if q:
                parts[monomial] = q
            if r:
                rest[monomial] = r
        if parts:
            yield {Q: Poly(parts), R: Poly(rest), D: divisor}
        return
    result = _long_division(known, numerator, divisor)
    if result is not None:
        yield {Q: result[0], R: result[1], D: divisor}


def _split_remainder(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """As `_split`, and coefficients reduced modulo a constant divisor."""
    d = divisor.value
    if d is None:
        yield from _split(known, numerator, divisor)
        return
    parts: dict[Monomial, int] = {}
    for monomial, factor in numerator.terms.items():
        # A negative coefficient keeps its sign: -x % 4 is clearer than 3 * x % 4.
        q = factor // d if not monomial or factor > 0 else -(-factor // d)
        if d > 0 and q:
            parts[monomial] = q
    if parts:
        chosen = Poly(parts)
        yield {Q: chosen, R: numerator.plus(chosen, -d), D: divisor}


def _long_division(known: Inference, numerator: Poly, divisor: Poly) -> tuple[Poly, Poly] | None:
    order = known.order
    lead = max(divisor.terms, key=lambda m: (len(m), [-n for n in order.key(m)]))
    if not lead:
        return None
    factor = divisor.terms[lead]
    parts: dict[Monomial, int] = {}
    rest = numerator
    for _ in range(len(numerator.terms) * 2):
        target = next(
            (
                m
                for m in sorted(rest.terms, key=lambda m: (-len(m), order.key(m)))
                if rest.terms[m] % factor == 0 and quotient(m, lead) is not None
            ),
            None,
        )
        if target is None:
            break
        step = quotient(target, lead)
        if step is None:
            break
        amount = rest.terms[target] // factor
        parts[step] = parts.get(step, 0) + amount
        rest = rest.plus(divisor.times(Poly({step: 1}), order), -amount)
    if not parts or len(rest.terms) > len(numerator.terms):
        return None
    return Poly({m: c for m, c in parts.items() if c}), rest


def _within(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator in [k * divisor, k * divisor + divisor) for a constant k."""
    d = divisor.value
    if d is not None:
        limits = known.poly_bounds(numerator)
        if d > 0 and limits.min is not None and limits.max is not None:
            k = limits.min // d
            if k == limits.max // d:
                yield {R: numerator, K: Poly.constant(k), D: divisor}
                return
        if d > 0 and len(numerator.terms) > 1 and _bounded_by_facts(known, numerator, d):
            yield {R: numerator, K: Poly({}), D: divisor}
        return
    # Either condition implies that the divisor is positive.
    for k in (0, -1):
        start = numerator.plus(divisor, -k)
        if known.nonnegative(start) and known.positive(divisor.plus(start, -1)):
            yield {R: numerator, K: Poly.constant(k), D: divisor}
            return


def _bounded_by_facts(known: Inference, poly: Poly, limit: int) -> bool:
    return known.nonnegative(poly) and known.nonnegative(poly.scaled(-1).shifted(limit - 1))


def _common(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = g * x + r, divisor = g * d, 0 <= r < g, d > 0."""
    constant = divisor.value
    if not known.positive(divisor):
        return
    if constant is not None:
        yield from _common_constant(known, numerator, constant)
        return
    for size in dict.fromkeys(monomial for monomial in divisor.terms if monomial):
        for atom in dict.fromkeys(size):
            g: Monomial = (atom,)
            shared = {m: quotient(m, g) for m in divisor.terms}
            if any(rest is None for rest in shared.values()) or known.bounds(atom).low <= 0:
                continue
            inside = {
                rest: c for m, c in numerator.terms.items() if (rest := quotient(m, g)) is not None
            }
            rest = Poly({m: c for m, c in numerator.terms.items() if quotient(m, g) is None})
            unit = Poly({g: 1})
            if inside and known.nonnegative(rest) and known.positive(unit.plus(rest, -1)):
                reduced = Poly(
                    {rest: divisor.terms[m] for m, rest in shared.items() if rest is not None}
                )
                yield {G: unit, X: Poly(inside), R: rest, D: reduced}
                return
    content = math.gcd(divisor.content(), divisor.offset)
    if content > 1:
        yield from _common_factor(known, numerator, divisor, content)


def _common_constant(known: Inference, numerator: Poly, d: int) -> Iterator[Proposal]:
    if d <= 1:
        return
    factors = {math.gcd(c, d) for m, c in numerator.terms.items() if m}
    for g in sorted((f for f in factors if f > 1), reverse=True):
        found = list(_common_factor(known, numerator, Poly.constant(d), g))
        if found:
            yield from found
            return


def _common_factor(known: Inference, numerator: Poly, divisor: Poly, g: int) -> Iterator[Proposal]:
    outside = {m: c for m, c in numerator.terms.items() if m and c % g}
    low = numerator.offset % g
    if low:
        outside[()] = low
    rest = Poly(outside)
    multiple = numerator.plus(rest, -1)
    if multiple.terms and (known.poly_bounds(rest).within(_below(g))):
        yield {G: Poly.constant(g), X: multiple.divided(g), R: rest, D: divisor.divided(g)}


def _below(g: int) -> Bounds:
    return Bounds(0, g - 1)


def _nested(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = x // a + k with constants a > 0 and divisor > 0."""
    d = divisor.value
    atom = numerator.shifted(-numerator.offset).only
    if d is None or d <= 0 or not isinstance(atom, FloorDiv):
        return
    a = known.poly(atom.b)
    if (a.value or 0) > 0 and known.exact(known.poly(atom.a), atom.dtype):
        yield {X: known.poly(atom.a), A: a, K: Poly.constant(numerator.offset), B: divisor}


def _of_floormod(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = x % (a * divisor) with a, divisor > 0."""
    d = divisor.value
    atom = numerator.only
    if d is None or d <= 1 or not isinstance(atom, FloorMod):
        return
    size = known.poly(atom.b).value
    if (
        size is not None
        and size > 0
        and size % d == 0
        and known.exact(known.poly(atom.a), atom.dtype)
    ):
        yield {X: known.poly(atom.a), A: Poly.constant(size // d), B: divisor}


def _drop_inner(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = c * (x % a) + y with c * a = k * divisor."""
    d = divisor.value
    if d is None or d == 0:
        return
    for monomial, factor in numerator.terms.items():
        if len(monomial) != 1 or not isinstance(monomial[0], FloorMod):
            continue
        atom = monomial[0]
        inner, size = known.poly(atom.a), known.poly(atom.b)
        if size.value is None or (factor * size.value) % d or not known.exact(inner, atom.dtype):
            continue
        rest = Poly({m: c for m, c in numerator.terms.items() if m != monomial})
        yield {
            C: Poly.constant(factor),
            X: inner,
            A: size,
            Y: rest,
            K: Poly.constant(factor * size.value // d),
            D: divisor,
        }


def _negative(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """A negative constant divisor."""
    if divisor.value is not None and divisor.value < 0:
        yield {X: numerator, D: divisor}


def _residue(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = r modulo a, where a is a multiple of the constant divisor."""
    d = divisor.value
    if d is None or d <= 1:
        return
    modulus, remainder = known.residue(numerator)
    if modulus and modulus % d == 0:
        yield {
            X: numerator,
            A: Poly.constant(modulus),
            R: Poly.constant(remainder),
            K: Poly.constant(modulus // d),
            D: divisor,
        }


def _exact_quotient(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator = q * divisor."""
    for found in _split(known, numerator, divisor):
        if not found[R].terms:
            yield {Q: found[Q], D: divisor}


def _same_signs(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator >= 0 and divisor > 0."""
    if known.positive(divisor) and known.nonnegative(numerator):
        yield {X: numerator, D: divisor}


def _negative_numerator(known: Inference, numerator: Poly, divisor: Poly) -> Iterator[Proposal]:
    """numerator <= 0 and divisor > 0."""
    if known.positive(divisor) and known.nonnegative(numerator.scaled(-1)):
        yield {X: numerator, D: divisor}


_FITS = logical_and(R >= 0, R < G, G > 0, D > 0)
_IN_STEP = logical_and(K * D <= R, R < K * D + D)

FLOORDIV_RULES = (
    QuotientRule("floordiv.negative_divisor", X // D, (0 - X) // (0 - D), D < 0, _negative),
    QuotientRule("floordiv.split", (Q * D + R) // D, Q + R // D, true(), _split),
    QuotientRule("floordiv.within", R // D, K, _IN_STEP, _within),
    QuotientRule("floordiv.common", (G * X + R) // (G * D), X // D, _FITS, _common),
    QuotientRule(
        "floordiv.nested",
        (X // A + K) // B,
        (X + K * A) // (A * B),
        logical_and(A > 0, B > 0),
        _nested,
    ),
    QuotientRule(
        "floordiv.of_floormod",
        (X % (A * B)) // B,
        (X // B) % A,
        logical_and(A > 0, B > 0),
        _of_floormod,
    ),
)
FLOORMOD_RULES = (
    QuotientRule("floormod.negative_divisor", X % D, 0 - (0 - X) % (0 - D), D < 0, _negative),
    QuotientRule(
        "floormod.residue",
        X % D,
        R % D,
        logical_and(EQ(X % A, R % A), EQ(A, K * D), A > 0),
        _residue,
    ),
    QuotientRule("floormod.split", (Q * D + R) % D, R % D, true(), _split_remainder),
    QuotientRule("floormod.within", R % D, R - K * D, _IN_STEP, _within),
    QuotientRule("floormod.common", (G * X + R) % (G * D), G * (X % D) + R, _FITS, _common),
    QuotientRule(
        "floormod.drop_inner", (C * (X % A) + Y) % D, (C * X + Y) % D, EQ(C * A, K * D), _drop_inner
    ),
)
TRUNCDIV_RULES = (
    QuotientRule("truncdiv.same_signs", Div(X, D), X // D, logical_and(X >= 0, D > 0), _same_signs),
    QuotientRule(
        "truncdiv.negative",
        Div(X, D),
        0 - (0 - X) // D,
        logical_and(X <= 0, D > 0),
        _negative_numerator,
    ),
    QuotientRule("truncdiv.exact", Div(Q * D, D), Q, true(), _exact_quotient),
)
TRUNCMOD_RULES = (
    QuotientRule("truncmod.same_signs", Mod(X, D), X % D, logical_and(X >= 0, D > 0), _same_signs),
    QuotientRule(
        "truncmod.negative",
        Mod(X, D),
        0 - (0 - X) % D,
        logical_and(X <= 0, D > 0),
        _negative_numerator,
    ),
    QuotientRule("truncmod.exact", Mod(Q * D, D), Q - Q, true(), _exact_quotient),
)

QUOTIENT_RULES: dict[type[Expr], tuple[QuotientRule, ...]] = {
    FloorDiv: FLOORDIV_RULES,
    FloorMod: FLOORMOD_RULES,
    Div: TRUNCDIV_RULES,
    Mod: TRUNCMOD_RULES,
}
"""The rules of each kind of division, tried in order."""
