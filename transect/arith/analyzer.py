"""Analyzer: what is known about the variables of a scope, and the questions one asks of it.

Integers of dtype int64 are indices: their arithmetic is taken not to overflow. Narrower and
unsigned integers wrap around, and rules of unbounded integers are used on them only where their
bounds show that nothing does. A division by zero has no value: what is proved of an expression
holds where the expression has one.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from transect.arith.inference import Inference, is_index_like
from transect.arith.interval import Bounds
from transect.arith.poly import Poly
from transect.arith.simplify import Simplifier
from transect.arith.symbolic import Elimination, Ends
from transect.ir.expr import Expr, ExprLike, IntImm, Range, Var, as_expr, promote
from transect.support.errors import InputTypeError


class Analyzer:
    """Simplifies and proves under the knowledge given to it. Not shared between threads.

    A fresh one knows nothing, not even that dimensions are not negative: bind them to (0, None).
    """

    def __init__(self) -> None:
        self._simplifier = Simplifier(Inference())

    def fork(self) -> Analyzer:
        """An analyzer that knows the same; what either learns from here on stays its own."""
        other = Analyzer()
        other._simplifier = Simplifier(self._simplifier.known.copy())
        return other

    def bind(self, var: Var, value: Range | tuple[int | None, int | None] | Expr) -> None:
        """Say what `var` may be: in a Range, between two inclusive ends (None: no end), or an
        expression. Saying more narrows what was said before.

        Symbolic ends of a Range are used only about expressions in which `var` occurs: that a
        loop runs at all is not known outside of it.
        """
        known = self._simplifier.known
        is_new = known.is_new(var)
        if isinstance(value, Range):
            self._bind_range(var, value)
        elif isinstance(value, tuple):
            known.limit(var, Bounds(*value))
        elif value.dtype is not var.dtype:
            raise InputTypeError(f"{var.name} is {var.dtype}, bound to {value.dtype}")
        else:
            known.definitions[var] = self.simplify(value)
        known.order.number(var)
        if not is_new:
            known.changed()
            self._simplifier.forget()

    def _bind_range(self, var: Var, value: Range) -> Ends | None:
        """Learn a range; returns its first and last value, or None if they may wrap around."""
        known = self._simplifier.known
        start = known.poly(self.simplify(value.min))
        extent = known.poly(self.simplify(value.extent))
        last = start.plus(extent).shifted(-1)
        if not (known.exact(start, var.dtype) and known.exact(last, var.dtype)):
            return None
        known.limit(var, Bounds(known.best_bounds(start).min, known.best_bounds(last).max))
        facts = known.scoped.setdefault(var, [])
        if start.value is None:
            facts.append(Poly.atom(var).plus(start, -1))
        if last.value is None:
            facts.append(last.plus(Poly.atom(var), -1))
        return start, last

    def assume(self, condition: Expr) -> None:
        """Take `condition` as true from here on."""
        self._simplifier.learn(self.simplify(condition))

    @contextmanager
    def constraint(self, condition: Expr) -> Generator[None]:
        """Inside the with statement, `condition` is true."""
        with self._simplifier.assuming(self.simplify(condition)):
            yield

    def simplify(self, expr: ExprLike) -> Expr:
        """An equal expression in canonical form: the same for expressions that are equal by the
        rules, in every process."""
        return self._simplifier.simplify(as_expr(expr))

    def bounds(self, expr: ExprLike) -> Bounds:
        """The interval in which an integer or bool expression lies, as far as it is known."""
        simple = self.simplify(expr)
        known = self._simplifier.known
        direct = known.bounds(simple)
        if not is_index_like(simple) or isinstance(simple, IntImm):
            return direct
        poly = known.poly(simple)
        return direct & known.best_bounds(poly) if known.exact(poly, simple.dtype) else direct

    def can_prove(self, condition: Expr | bool) -> bool:
        """Whether `condition` holds for sure. False says nothing about its opposite."""
        if isinstance(condition, bool):
            return condition
        simple = self.simplify(condition)
        return isinstance(simple, IntImm) and simple.value == 1

    def can_prove_equal(self, a: ExprLike, b: ExprLike) -> bool:
        """Whether a == b for sure. Of floats: whether they are the same value, bit for bit."""
        left, right = (self.simplify(side) for side in promote(a, b))
        if left is right:
            return True
        if not is_index_like(left):
            return False
        known = self._simplifier.known
        # Differences are exact in wrapping arithmetic, too.
        difference = self.simplify(left - right)
        if isinstance(difference, IntImm):
            return difference.value == 0
        p, q = known.poly(left), known.poly(right)
        if not (known.exact(p, left.dtype) and known.exact(q, left.dtype)):
            return False
        gap = (
            known.poly(difference)
            if known.exact(known.poly(difference), left.dtype)
            else p.plus(q, -1)
        )
        return known.nonnegative(gap) and known.nonnegative(gap.scaled(-1))

    def symbolic_bounds(
        self, expr: ExprLike, over: Mapping[Var, Range]
    ) -> tuple[Expr, Expr] | None:
        """(least, greatest) value of an integer expression while the variables `over`, outer loops
        first, run through their ranges; both without these variables. None if none is known.

        The ends enclose all values but need not be reached: i // 4 + i % 4 is bounded term by term.
        """
        simplifier = self._simplifier
        with simplifier.scope():
            ends: dict[Var, Ends] = {}
            for var, extent in over.items():
                found = self._bind_range(var, extent)
                if found is None:
                    return None
                simplifier.known.changed()
                simplifier.forget()
                ends[var] = found
            simple = self.simplify(expr)
            known, dtype = simplifier.known, simple.dtype
            poly = known.poly(simple)
            if not is_index_like(simple) or not known.exact(poly, dtype):
                return None
            result = Elimination(simplifier, ends).of(poly, dtype)
            if result is None or not all(known.exact(end, dtype) for end in result):
                return None
            low, high = (simplifier.from_poly(end, dtype) for end in result)
        return self.simplify(low), self.simplify(high)
