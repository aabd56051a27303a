"""The rules of sums: quotients and remainders of one value are put back together.

Each rule replaces `left`, where a sum holds it, by `right`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transect.arith.inference import Inference
from transect.arith.poly import Poly
from transect.arith.rule import IntegerRule, Proposal, Proposer, integer
from transect.ir.expr import EQ, Expr, FloorDiv, FloorMod, logical_and, true

X, A, B, C, D, R = (integer(name) for name in "xabcdr")


@dataclass(frozen=True)
class SumRule(IntegerRule):
    """left == right as parts of a sum, of integers.

    propose: finds values of the pattern variables for a monomial of a sum, which is an atom
    (the last argument) times a factor. shortens: apply only if the sum gets shorter.
    """

    propose: Proposer[[Inference, Poly, Expr, Poly]]
    shortens: bool = True


def _remainder(known: Inference, poly: Poly, atom: Expr, factor: Poly) -> Iterator[Proposal]:
    if not isinstance(atom, FloorMod) or not any(isinstance(a, FloorDiv) for a in poly.atoms()):
        return
    if known.exact(known.poly(atom.a), atom.dtype):
        yield {C: factor, X: known.poly(atom.a), D: known.poly(atom.b)}


def _digits(known: Inference, poly: Poly, atom: Expr, factor: Poly) -> Iterator[Proposal]:
    if not isinstance(atom, FloorMod) or not known.exact(known.poly(atom.a), atom.dtype):
        return
    size = known.poly(atom.b)
    if (size.value or 0) <= 0:
        return
    for other in poly.atoms():
        if isinstance(other, FloorMod) and other is not atom and isinstance(other.a, FloorDiv):
            count = known.poly(other.b)
            if (count.value or 0) > 0:
                yield {C: factor, X: known.poly(atom.a), A: size, B: count}


def _multiple(known: Inference, poly: Poly, atom: Expr, factor: Poly) -> Iterator[Proposal]:
    """factor * (x // d) where d divides the factor."""
    if not isinstance(atom, FloorDiv) or not known.exact(known.poly(atom.a), atom.dtype):
        return
    x, d = known.poly(atom.a), known.poly(atom.b)
    size = d.value
    if size is not None and size > 0 and all(c % size == 0 for c in factor.terms.values()):
        yield {C: factor.divided(size), X: x, D: d}


def _part_of_difference(
    known: Inference, poly: Poly, atom: Expr, factor: Poly
) -> Iterator[Proposal]:
    for found in _multiple(known, poly, atom, factor):
        if found[C].value is None or all(m in poly.terms for m in found[X].terms if m):
            yield {**found, C: found[C].scaled(-1)}


def _known_remainder(known: Inference, poly: Poly, atom: Expr, factor: Poly) -> Iterator[Proposal]:
    for found in _multiple(known, poly, atom, factor):
        modulus, remainder = known.residue(found[X])
        size = found[D].offset
        if modulus and modulus % size == 0:
            yield {**found, R: Poly.constant(remainder % size)}


SUM_RULES = (
    SumRule(
        "sum.digits",
        C * (X % A) + C * A * ((X // A) % B),
        C * (X % (A * B)),
        logical_and(A > 0, B > 0),
        _digits,
    ),
    SumRule("sum.rejoin", C * (X % D) + C * D * (X // D), C * X, true(), _remainder),
    SumRule(
        "sum.multiple",
        C * D * (X // D),
        C * (X - R),
        EQ(X % D, R),
        _known_remainder,
        shortens=False,
    ),
    SumRule("sum.remainder", C * X - C * D * (X // D), C * (X % D), true(), _part_of_difference),
)


def parts_with_quotients(poly: Poly) -> Iterator[tuple[Expr, Poly]]:
    """Each quotient or remainder in a monomial, with what it is multiplied by there."""
    for monomial, factor in poly.terms.items():
        for atom in dict.fromkeys(monomial):
            if isinstance(atom, FloorDiv | FloorMod):
                others = list(monomial)
                others.remove(atom)
                yield atom, Poly({tuple(others): factor})
