"""The simplifier: canonical sums, and the rules of `division` and `patterns` applied bottom-up.

It rewrites under the knowledge of an `Inference`; who gathers that is `analyzer`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TypeGuard

from transect.arith.division import QUOTIENT_RULES
from transect.arith.inference import Inference, is_index_like, operands_of_choice
from transect.arith.interval import Bounds, dtype_bounds
from transect.arith.patterns import RULES_BY_ROOT
from transect.arith.poly import Monomial, Poly, to_expr, wrap
from transect.arith.rule import PatternRule, match
from transect.arith.sums import SUM_RULES, parts_with_quotients
from transect.ir.dtype import BOOL, DType
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
    Call,
    Cast,
    Div,
    Expr,
    FloatImm,
    FloorDiv,
    FloorMod,
    GlobalVar,
    IntImm,
    Intrinsic,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Select,
    StringImm,
    Sub,
    Var,
    cast,
    const,
    fold_binary,
    make,
    true,
)
from transect.ir.term import Term
from transect.ir.traverse import rewrite, walk

_MAX_CONTEXT = 2
"""Conditions that may be assumed inside one another; each can double the work on a shared term."""
_MAX_CONTEXT_TERMS = 40
"""Distinct terms of an expression that is still simplified again under a condition."""
_MAX_ROUNDS = 8
"""Structural rules applied at one expression before it is left as it is."""
_LEAVES = (Var, IntImm, FloatImm, StringImm, GlobalVar)


class Simplifier:
    """Rewrites expressions under the knowledge of `known`, which may change between calls of
    `simplify` if `forget` is called."""

    def __init__(self, known: Inference) -> None:
        self.known = known
        self.memo: dict[Term, Term] = {}
        self.impure: dict[Term, bool] = {}
        self.context = 0
        self.sums: dict[Expr, Poly] = {}
        self.quotients: dict[object, Poly | None] = {}

    def forget(self) -> None:
        """Drop results that may depend on knowledge that has changed."""
        self.memo, self.sums, self.quotients = {}, {}, {}

    def simplify(self, expr: Expr) -> Expr:
        """An equal expression in canonical form."""
        memo = self.memo
        stack: list[tuple[Term, bool]] = [(expr, False)]
        while stack:
            item, ready = stack.pop()
            if item in memo:
                continue
            if ready:
                memo[item] = self._visit(item)
                continue
            inner = self._inner(item)
            stack.append((item, True))
            stack.extend((part, False) for part in inner if part not in memo)
        return _expr(memo[expr])

    def _inner(self, item: Term) -> list[Term]:
        """The terms to simplify before `item` is."""
        if isinstance(item, Var):
            definition = self.known.definitions.get(item)
            return [] if definition is None else [definition]
        if isinstance(item, Call) and item.effect != "pure":
            # An argument may name a place (address_of of a load), so it keeps its outer shape.
            return [part for arg in item.args for part in arg.children()]
        if is_sum(item):
            return self._summands(item)
        return list(item.children())

    def _summands(self, root: Expr) -> list[Term]:
        """What a sum is made of, inner sums opened: only the whole sum becomes canonical."""
        found: dict[Term, None] = {}
        seen: set[Term] = set()
        stack: list[Term] = [root]
        while stack:
            item = stack.pop()
            if item in seen or item in self.sums:
                continue
            seen.add(item)
            if is_sum(item):
                stack += reversed(item.children())
            else:
                found[item] = None
        return list(found)

    def _visit(self, item: Term) -> Term:
        memo = self.memo
        if isinstance(item, Call) and item.effect != "pure":
            args = tuple(arg.map_children(memo.__getitem__) for arg in item.args)
            return Call(item.op, args, item.kind) if args != item.args else item
        if isinstance(item, Var):
            definition = self.known.definitions.get(item)
            return self._leaf(item) if definition is None else memo[definition]
        if is_sum(item):
            if self._is_impure(item):
                return rewrite_sum(item, memo)
            return self.from_poly(self._sum(item), item.dtype)
        mapped = item.map_children(memo.__getitem__)
        if not isinstance(mapped, Expr) or isinstance(mapped, _LEAVES):
            return mapped
        if self._is_impure(mapped):
            return mapped
        return self.rebuild(mapped)

    def _leaf(self, item: Var) -> Expr:
        self.known.order.number(item)
        if is_index_like(item):
            value = self.known.bounds(item).single
            if value is not None:
                return IntImm(value, item.dtype)
        return self._given(item)

    def _is_impure(self, item: Term) -> bool:
        """Whether a call with an effect occurs in it: then nothing may be merged or dropped."""
        impure = self.impure
        stack = [item]
        while stack:
            part = stack[-1]
            waiting = [child for child in part.children() if child not in impure]
            if part in impure or not waiting:
                own = isinstance(part, Call) and part.effect != "pure"
                impure[part] = own or any(impure[child] for child in part.children())
                stack.pop()
            else:
                stack += waiting
        return impure[item]

    # --- one expression whose children are canonical ----------------------------------------

    def rebuild(self, expr: Expr) -> Expr:
        """`expr` simplified, its children being so already."""
        for _ in range(_MAX_ROUNDS):
            changed = self._step(expr)
            if changed is expr:
                return expr
            if type(changed) not in _HANDLERS and type(changed) not in RULES_BY_ROOT:
                return changed
            expr = changed
        return expr

    def _step(self, expr: Expr) -> Expr:
        rule = _HANDLERS.get(type(expr))
        changed = expr if rule is None else rule(self, expr)
        if changed is not expr:
            return changed
        for pattern in RULES_BY_ROOT.get(type(expr), ()):
            result = self._apply(pattern, expr)
            if result is not None:
                return result
        return self._given(expr)

    def _apply(self, rule: PatternRule, expr: Expr) -> Expr | None:
        found: dict[Var, Expr] = {}
        if not match(rule.left, expr, found):
            return None
        if expr.dtype.is_bool or not isinstance(rule.right, Var):
            return self._instantiate(rule.right, found, expr.dtype)
        return found[rule.right]

    def _instantiate(self, right: Expr, found: Mapping[Var, Expr], dtype: DType) -> Expr:
        if isinstance(right, Var):
            return found[right]
        if isinstance(right, IntImm):
            return const(right.value, dtype)
        children = [
            self._instantiate(child, found, dtype)
            for child in right.children()
            if isinstance(child, Expr)
        ]
        iterator = iter(children)
        return self.rebuild(right.map_children(lambda _: next(iterator)))

    def _given(self, expr: Expr) -> Expr:
        if expr.dtype is BOOL:
            truth = self.known.known.get(expr)
            if truth is not None:
                return const(truth, BOOL)
        return expr

    # --- sums -------------------------------------------------------------------------------

    def sum(self, expr: Expr) -> Expr:
        """Add, Sub or Mul of canonical scalar integers as a canonical sum."""
        if not is_index_like(expr):
            return _fold(expr)
        assert isinstance(expr, Binary)
        left, right = self.known.poly(expr.a), self.known.poly(expr.b)
        joined = self.known.combine(type(expr), left, right)
        if joined is None:
            joined = self._opaque(expr, left, right)
        return self.from_poly(joined, expr.dtype)

    def _sum(self, root: Expr) -> Poly:
        """A sum over its simplified summands as a polynomial."""
        known, sums = self.known, self.sums
        stack = [root]
        while stack:
            item = stack[-1]
            if item in sums:
                stack.pop()
            elif isinstance(item, Add | Sub | Mul) and is_sum(item):
                left, right = sums.get(item.a), sums.get(item.b)
                if left is None or right is None:
                    stack += [part for part in (item.b, item.a) if part not in sums]
                    continue
                joined = known.combine(type(item), left, right)
                sums[item] = self._opaque(item, left, right) if joined is None else joined
                stack.pop()
            else:
                sums[item] = known.poly(_expr(self.memo[item]))
                stack.pop()
        return sums[root]

    def _opaque(self, expr: Binary, left: Poly, right: Poly) -> Poly:
        """A sum or product too large to multiply out: an atom, a product's operands in order."""
        a, b = self.from_poly(left, expr.dtype), self.from_poly(right, expr.dtype)
        order = self.known.order
        if isinstance(expr, Mul) and order.number(b) < order.number(a):
            a, b = b, a
        return self.known.poly(make(type(expr), a, b))

    def from_poly(self, poly: Poly, dtype: DType) -> Expr:
        """The canonical expression of a polynomial."""
        poly = Poly({m: w for m, c in poly.terms.items() if (w := wrap(c, dtype))})
        poly = self._join_quotients(poly, dtype)
        if poly.value is None:
            value = self.known.poly_bounds(poly).single
            if value is not None and value in dtype_bounds(dtype):
                return IntImm(value, dtype)
        return to_expr(poly.terms, dtype, self.known.order)

    def _join_quotients(self, poly: Poly, dtype: DType) -> Poly:
        """Apply the rules of sums as long as one does."""
        for _ in range(_MAX_ROUNDS):
            changed = self._join_once(poly, dtype)
            if changed is None:
                return poly
            poly = changed
        return poly

    def _join_once(self, poly: Poly, dtype: DType) -> Poly | None:
        for atom, factor in parts_with_quotients(poly):
            for rule in SUM_RULES:
                for found in rule.propose(self.known, poly, atom, factor):
                    left = self._evaluate(rule.left, found, dtype)
                    if left is None or any(m not in poly.terms for m in left.terms if m):
                        continue
                    right = self._evaluate(rule.right, found, dtype)
                    if right is None:
                        continue
                    changed = poly.plus(left, -1).plus(right)
                    if not rule.shortens or len(changed.terms) < len(poly.terms):
                        return changed
        return None

    # --- quotients --------------------------------------------------------------------------

    def quotient(self, expr: Expr) -> Expr:
        """FloorDiv, FloorMod, Div or Mod."""
        folded = _fold(expr)
        if folded is not expr or not is_index_like(expr):
            return folded
        assert isinstance(expr, Binary)
        a, b = self.known.poly(expr.a), self.known.poly(expr.b)
        result = self.divide(type(expr), a, b, expr.dtype)
        return expr if result is None else self.from_poly(result, expr.dtype)

    def divide(self, kind: type[Binary], a: Poly, b: Poly, dtype: DType) -> Poly | None:
        """kind(a, b) by the first rule that applies, else as an atom; None if `a` or `b` may wrap
        around in `dtype`, where the rules of integers do not hold."""
        key = (kind, frozenset(a.terms.items()), frozenset(b.terms.items()), dtype)
        if key not in self.quotients:
            self.quotients[key] = self._divide(kind, a, b, dtype)
        return self.quotients[key]

    def _divide(self, kind: type[Binary], a: Poly, b: Poly, dtype: DType) -> Poly | None:
        known = self.known
        if not (known.exact(a, dtype) and known.exact(b, dtype)):
            return None
        if b.value == 0:
            return Poly.atom(make(kind, self.from_poly(a, dtype), IntImm(0, dtype)))
        for rule in QUOTIENT_RULES[kind]:
            for found in rule.propose(known, a, b):
                result = self._evaluate(rule.right, found, dtype)
                if result is not None:
                    return result
        atom = self._given(make(kind, self.from_poly(a, dtype), self.from_poly(b, dtype)))
        value = known.bounds(atom).single
        return Poly.constant(value) if value is not None else known.poly(atom)

    def _evaluate(self, right: Expr, found: Mapping[Var, Poly], dtype: DType) -> Poly | None:
        """A side of a rule over polynomials; None if that would leave the exact integers."""
        if isinstance(right, Var):
            return found[right]
        if isinstance(right, IntImm):
            return Poly.constant(right.value)
        assert isinstance(right, Binary)
        a, b = self._evaluate(right.a, found, dtype), self._evaluate(right.b, found, dtype)
        if a is None or b is None:
            return None
        kind = type(right)
        if kind in QUOTIENT_RULES:
            return self.divide(kind, a, b, dtype)
        return self.known.combine(kind, a, b)

    # --- extrema ----------------------------------------------------------------------------

    def extremum(self, expr: Expr) -> Expr:
        """Min or Max of scalar integers: dominated operands dropped, common parts taken out."""
        folded = _fold(expr)
        if folded is not expr or not is_index_like(expr):
            return folded
        assert isinstance(expr, Min | Max)
        kind, known = type(expr), self.known
        sign = 1 if kind is Min else -1
        operands: list[Expr] = []
        for part in _operands(kind, expr):
            if not any(self._at_most(other, part, sign) for other in operands):
                operands = [other for other in operands if not self._at_most(part, other, sign)]
                operands.append(part)
        if len(operands) == 1:
            return operands[0]
        polys = [known.poly(operand) for operand in operands]
        if all(known.exact(poly, expr.dtype) for poly in polys):
            shared = _common_part(polys)
            if shared.terms:
                reduced = [poly.plus(shared, -1) for poly in polys]
                if all(known.exact(poly, expr.dtype) for poly in reduced):
                    inner = self.extremum(
                        _join(kind, [self.from_poly(p, expr.dtype) for p in reduced])
                    )
                    return self.from_poly(known.poly(inner).plus(shared), expr.dtype)
        operands.sort(key=lambda item: (isinstance(item, IntImm), known.order.number(item)))
        result = _join(kind, operands)
        return expr if result is expr else result

    def _at_most(self, a: Expr, b: Expr, sign: int) -> bool:
        """Whether a <= b (sign 1) or a >= b (sign -1) for sure."""
        if a is b:
            return True
        known = self.known
        p, q = known.poly(a), known.poly(b)
        if known.exact(p, a.dtype) and known.exact(q, a.dtype):
            return known.nonnegative(q.plus(p, -1).scaled(sign))
        x, y = known.bounds(a), known.bounds(b)
        return x.high <= y.low if sign == 1 else x.low >= y.high

    # --- comparisons ------------------------------------------------------------------------

    def comparison(self, expr: Expr) -> Expr:
        """EQ, NE, LT, LE, GT or GE of scalar integers, decided or in the form left < right."""
        folded = _fold(expr)
        assert isinstance(expr, Binary)
        if folded is not expr or not is_index_like(expr.a):
            return folded
        known, dtype, kind = self.known, expr.a.dtype, type(expr)
        a, b = known.poly(expr.a), known.poly(expr.b)
        if not (known.exact(a, dtype) and known.exact(b, dtype)):
            return self._compare_intervals(expr)
        if kind is GT or kind is GE:
            a, b, kind = b, a, LT if kind is GT else LE
        difference = a.plus(b, -1)
        if kind is EQ or kind is NE:
            truth = self._decide_equal(difference)
            if truth is not None:
                return const(truth if kind is EQ else not truth, BOOL)
        else:
            # a < b is difference < 0; a <= b is difference - 1 < 0.
            if kind is LE:
                difference = difference.shifted(-1)
            if known.nonnegative(difference):
                return const(False, BOOL)
            if known.positive(difference.scaled(-1)):
                return const(True, BOOL)
            kind = LT
        result = self._arranged(kind, difference, dtype)
        return expr if result is None else self._given(result)

    def _decide_equal(self, difference: Poly) -> bool | None:
        """Whether difference == 0: True, False, or None if it may be either."""
        known = self.known
        if difference.value is not None:
            return difference.value == 0
        content = difference.content()
        if difference.offset % content:
            return False
        modulus, remainder = known.residue(difference)
        if remainder % modulus if modulus else remainder:
            return False
        if known.positive(difference) or known.positive(difference.scaled(-1)):
            return False
        if known.nonnegative(difference) and known.nonnegative(difference.scaled(-1)):
            return True
        return None

    def _compare_intervals(self, expr: Binary) -> Expr:
        """Compare values that may have wrapped around: only their own intervals are sure."""
        a, b, kind = self.known.bounds(expr.a), self.known.bounds(expr.b), type(expr)
        if expr.a is expr.b:
            return const(kind in (EQ, LE, GE), BOOL)
        if kind is GT or kind is GE:
            a, b, kind = b, a, LT if kind is GT else LE
        if kind is LT or kind is LE:
            if a.high < b.low or (kind is LE and a.high <= b.low):
                return true()
            if a.low > b.high or (kind is LT and a.low >= b.high):
                return const(False, BOOL)
        elif (a & b).is_empty:
            return const(kind is NE, BOOL)
        return expr

    def _arranged(self, kind: type[Binary], difference: Poly, dtype: DType) -> Expr | None:
        """difference < 0 (or == 0, != 0), positive terms on both sides; None if one may wrap."""
        content = difference.content()
        offset = difference.offset
        terms = {m: c // content for m, c in difference.terms.items() if m}
        # sum + offset < 0 with sum a multiple of g: sum / g < ceil(-offset / g).
        limit = -(offset // content)
        if kind is not LT and next(iter(sorted(terms, key=self.known.order.key))) not in _positive(
            terms
        ):
            terms, limit = {m: -c for m, c in terms.items()}, -limit
        left = _positive(terms)
        right = {m: -c for m, c in terms.items() if c < 0}
        if kind is LT and left and right and limit == 1:
            kind = LE
        elif limit >= 0 and (left or limit == 0):
            right[()] = limit
        else:
            left[()] = -limit
        if kind is LT and not right and left:
            right[()] = 0
        sides = [Poly({m: c for m, c in side.items() if c}) for side in (left, right)]
        if not all(self.known.exact(side, dtype) for side in sides):
            return None
        return make(kind, self.from_poly(sides[0], dtype), self.from_poly(sides[1], dtype))

    # --- conditions -------------------------------------------------------------------------

    @contextmanager
    def scope(self) -> Generator[None]:
        """What is learned inside is forgotten afterwards."""
        outer = self.known, self.memo, self.sums, self.quotients
        self.known = self.known.copy()
        self.forget()
        try:
            yield
        finally:
            self.known, self.memo, self.sums, self.quotients = outer

    @contextmanager
    def assuming(self, condition: Expr) -> Generator[None]:
        """Inside, `condition` (canonical) is known to hold."""
        with self.scope():
            self.learn(condition)
            yield

    def learn(self, condition: Expr) -> None:
        """Add a canonical condition to the knowledge."""
        known = self.known
        stack = [condition]
        while stack:
            item = stack.pop()
            if isinstance(item, And):
                stack += [item.b, item.a]
                continue
            if (
                isinstance(item, Call)
                and isinstance(item.op, Intrinsic)
                and item.op.name == "likely"
            ):
                stack.append(item.args[0])
                continue
            if isinstance(item, Not):
                known.known[item.a] = False
            if item.dtype is BOOL and not isinstance(item, IntImm):
                known.known[item] = True
                opposite = self.negation(item)
                known.known[opposite] = False
            if isinstance(item, Binary) and is_index_like(item.a):
                self._learn_comparison(item)
        known.changed()
        self.forget()

    def _learn_comparison(self, item: Binary) -> None:
        known, dtype, kind = self.known, item.a.dtype, type(item)
        a, b = known.poly(item.a), known.poly(item.b)
        if not (known.exact(a, dtype) and known.exact(b, dtype)):
            return
        if kind is GT or kind is GE:
            a, b, kind = b, a, LT if kind is GT else LE
        gap = b.plus(a, -1)
        if kind is LT:
            known.learn_nonnegative(gap.shifted(-1))
        elif kind is LE:
            known.learn_nonnegative(gap)
        elif kind is EQ:
            known.learn_nonnegative(gap)
            known.learn_nonnegative(gap.scaled(-1))
            self._learn_residue(gap)
        elif kind is NE:
            limits = known.best_bounds(gap)
            if limits.min == 0:
                known.learn_nonnegative(gap.shifted(-1))
            elif limits.max == 0:
                known.learn_nonnegative(gap.scaled(-1).shifted(-1))

    def _learn_residue(self, gap: Poly) -> None:
        """From x % d == r with constants: the residue of x."""
        offset = gap.offset
        rest = gap.shifted(-offset)
        atom = rest.only if rest.only is not None else rest.scaled(-1).only
        if not isinstance(atom, FloorMod):
            return
        remainder = offset if rest.only is None else -offset
        modulus = self.known.poly(atom.b).value
        inner = self.known.poly(atom.a)
        if modulus is None or modulus <= 0 or not self.known.exact(inner, atom.dtype):
            return
        base = inner.shifted(-inner.offset).only
        if base is not None:
            self.known.learn_residue(base, modulus, (remainder - inner.offset) % modulus)

    def negation(self, condition: Expr) -> Expr:
        """The canonical opposite."""
        return self.rebuild(Not(condition))

    def logic(self, expr: Expr) -> Expr:
        """And, Or: the right operand is simplified knowing what the left one says."""
        folded = _fold(expr)
        if folded is not expr or expr.dtype is not BOOL:
            return folded
        assert isinstance(expr, And | Or)
        given = expr.a if isinstance(expr, And) else self.negation(expr.a)
        right = self._under(given, expr.b)
        return expr if right is expr.b else type(expr)(expr.a, right)

    def negated(self, expr: Expr) -> Expr:
        """Not."""
        assert isinstance(expr, Not)
        if isinstance(expr.a, IntImm):
            return const(not expr.a.value, BOOL)
        return expr

    def choice(self, expr: Expr) -> Expr:
        """Select or if_then_else: each side is simplified knowing the condition."""
        found = operands_of_choice(expr)
        if found is None:
            return expr
        condition, left, right = found
        if isinstance(condition, IntImm):
            return left if condition.value else right
        if left is right:
            return left
        if condition.dtype is not BOOL:
            return expr
        # A Select evaluates both sides: what they read must be there, whatever the condition is.
        both = isinstance(expr, Select)
        left = left if both and _reads(left) else self._under(condition, left)
        right = right if both and _reads(right) else self._under(self.negation(condition), right)
        if (left, right) == found[1:]:
            return expr
        if isinstance(expr, Select):
            return Select(condition, left, right)
        assert isinstance(expr, Call)
        return Call(expr.op, (condition, left, right), expr.kind)

    def _under(self, condition: Expr, expr: Expr) -> Expr:
        if (
            self.context >= _MAX_CONTEXT
            or isinstance(expr, _LEAVES)
            or isinstance(condition, IntImm)
        ):
            return expr
        if next(islice(walk(expr), _MAX_CONTEXT_TERMS, None), None) is not None:
            return expr
        self.context += 1
        try:
            with self.assuming(condition):
                return self.simplify(expr)
        finally:
            self.context -= 1

    def call(self, expr: Expr) -> Expr:
        """A pure call."""
        assert isinstance(expr, Call)
        if (
            isinstance(expr.op, Intrinsic)
            and expr.op.name == "likely"
            and isinstance(expr.args[0], IntImm)
        ):
            return expr.args[0]
        return self.choice(expr)

    # --- conversions ------------------------------------------------------------------------

    def conversion(self, expr: Expr) -> Expr:
        """Cast: constants at once, and through sums where neither side wraps around."""
        assert isinstance(expr, Cast)
        inner, target = expr.value, expr.to
        folded = cast(inner, target)
        if not (isinstance(folded, Cast) and is_index_like(folded) and is_index_like(inner)):
            return folded
        known = self.known
        poly = known.poly(inner)
        if not known.exact(poly, inner.dtype) or not known.bounds(inner).within(
            _machine_bounds(target)
        ):
            return folded
        if (
            isinstance(inner, Cast)
            and is_index_like(inner.value)
            and known.bounds(inner.value).within(_machine_bounds(inner.to))
        ):
            return (
                self.conversion(Cast(target, inner.value))
                if inner.value.dtype is not target
                else inner.value
            )
        if poly.only is not None or any(len(m) > 1 for m in poly.terms):
            return folded
        parts = Poly({m: c for m, c in poly.terms.items() if not m})
        for monomial, factor in poly.terms.items():
            if monomial:
                part = (
                    self.conversion(Cast(target, monomial[0]))
                    if monomial[0].dtype is not target
                    else monomial[0]
                )
                if not known.bounds(monomial[0]).within(_machine_bounds(target)):
                    return folded
                parts = parts.plus(known.poly(part), factor)
        return self.from_poly(parts, target)


def _reads(expr: Expr) -> bool:
    return any(isinstance(item, Expr) and item.reads for item in walk(expr))


def _machine_bounds(dtype: DType) -> Bounds:
    """The values that a conversion to `dtype` keeps. A conversion to an index may wrap around,
    though index arithmetic does not."""
    return Bounds(int(dtype.min_value), int(dtype.max_value))


def is_sum(item: Term) -> TypeGuard[Binary]:
    """Whether this is a sum or product of scalar integers."""
    return isinstance(item, Add | Sub | Mul) and is_index_like(item)


def rewrite_sum(root: Expr, values: Mapping[Term, Term]) -> Expr:
    """A sum with its summands replaced and nothing else changed."""
    return rewrite(root, lambda item: values.get(item, item), dict(values))


def _expr(term: Term) -> Expr:
    assert isinstance(term, Expr)
    return term


def _fold(expr: Expr) -> Expr:
    if isinstance(expr, Binary):
        folded = fold_binary(type(expr), expr.a, expr.b)
        return expr if folded is None else folded
    return expr


def _operands(kind: type[Binary], expr: Expr) -> list[Expr]:
    """The operands of nested Min or Max, left to right."""
    found: list[Expr] = []
    stack = [expr]
    while stack:
        item = stack.pop()
        if isinstance(item, kind):
            stack += [item.b, item.a]
        else:
            found.append(item)
    return list(dict.fromkeys(found))


def _join(kind: type[Binary], operands: list[Expr]) -> Expr:
    result = operands[0]
    for operand in operands[1:]:
        result = make(kind, result, operand)
    return result


def _common_part(polys: list[Poly]) -> Poly:
    """The terms that all have."""
    first = polys[0].terms
    return Poly({m: c for m, c in first.items() if m and all(p.terms.get(m) == c for p in polys)})


def _positive(terms: Mapping[Monomial, int]) -> dict[Monomial, int]:
    return {m: c for m, c in terms.items() if c > 0}


_HANDLERS: dict[type[Expr], Callable[[Simplifier, Expr], Expr]] = {
    Add: Simplifier.sum,
    Sub: Simplifier.sum,
    Mul: Simplifier.sum,
    FloorDiv: Simplifier.quotient,
    FloorMod: Simplifier.quotient,
    Div: Simplifier.quotient,
    Mod: Simplifier.quotient,
    Min: Simplifier.extremum,
    Max: Simplifier.extremum,
    EQ: Simplifier.comparison,
    NE: Simplifier.comparison,
    LT: Simplifier.comparison,
    LE: Simplifier.comparison,
    GT: Simplifier.comparison,
    GE: Simplifier.comparison,
    And: Simplifier.logic,
    Or: Simplifier.logic,
    Not: Simplifier.negated,
    Select: Simplifier.choice,
    Call: Simplifier.call,
    Cast: Simplifier.conversion,
}
