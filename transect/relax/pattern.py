"""The pattern language: shapes of dataflow to find in graph functions.

A pattern says what a value looks like, through the bindings of the variables it is made of.
Libraries say with it what they implement; `rewrite_call` replaces what matches, `partition` moves
it into functions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import ExprLike, as_expr
from transect.ir.types import TensorType
from transect.relax import expr as rx
from transect.relax.block_builder import make_function
from transect.relax.emit import Bindings, Names
from transect.relax.inference import is_pure
from transect.relax.shapes import plain_vars, same_shape
from transect.relax.visit import Rewriter, bindings, use_counts

Captures = dict["Pattern", rx.Value]
"""What each pattern matched: the value itself, or the variable that is bound to it."""


@dataclass
class _State:
    values: Mapping[rx.Var, rx.Value]
    captures: Captures = field(default_factory=dict["Pattern", rx.Value])

    def bound(self, value: rx.Value) -> rx.Value:
        """What a variable is bound to, through copies; other values stay."""
        while isinstance(value, rx.Var) and value in self.values:
            value = self.values[value]
        return value


class Pattern:
    """Base of patterns. Combine them: `p | q` either, `p & q` both, `p(a, b)` a call of p.

    A pattern object that occurs twice must match the same value both times.
    """

    def __or__(self, other: Pattern) -> Pattern:
        return OrPattern(self, other)

    def __and__(self, other: Pattern) -> Pattern:
        return AndPattern(self, other)

    def __call__(self, *args: Pattern) -> CallPattern:
        """A call whose callee matches this pattern and whose operands match `args`."""
        return CallPattern(self, args)

    def has_dtype(self, dtype: DType | str) -> Pattern:
        """This pattern, for tensors of this dtype."""
        return AndPattern(self, TypePattern(dtype=as_dtype(dtype)))

    def has_shape(self, shape: Sequence[ExprLike]) -> Pattern:
        """This pattern, for tensors of provably this shape."""
        return AndPattern(self, TypePattern(shape=tuple(shape)))

    def has_ndim(self, ndim: int) -> Pattern:
        """This pattern, for tensors of this rank."""
        return AndPattern(self, TypePattern(ndim=ndim))

    def where(self, condition: Callable[[rx.Value], bool]) -> Pattern:
        """This pattern, for values of which `condition` holds."""
        return AndPattern(self, ConditionPattern(condition))

    def accepts(self, value: rx.Value, state: _State) -> bool:
        """Whether `value` looks like this, its parts matched in `state`."""
        raise NotImplementedError

    def match(
        self, value: rx.Value, values: Mapping[rx.Var, rx.Value] | None = None
    ) -> Captures | None:
        """What each part matched if `value` matches, else None.

        values: what variables are bound to (see `bound_values`); without it, variables match only
        patterns of variables and wildcards.
        """
        state = _State(values or {})
        return state.captures if _match(self, value, state) else None


def _match(pattern: Pattern, value: rx.Value, state: _State) -> bool:
    before = state.captures.get(pattern)
    if before is not None:
        return before is value or state.bound(before) is state.bound(value)
    saved = dict(state.captures)
    if pattern.accepts(value, state):
        state.captures[pattern] = value
        return True
    state.captures.clear()
    state.captures.update(saved)
    return False


@dataclass(frozen=True, eq=False)
class Wildcard(Pattern):
    """Anything."""

    def accepts(self, value: rx.Value, state: _State) -> bool:
        del value, state
        return True


@dataclass(frozen=True, eq=False)
class OpPattern(Pattern):
    """An operator by name, with attributes that must be as given."""

    name: str
    attributes: Mapping[str, Any]

    def accepts(self, value: rx.Value, state: _State) -> bool:
        del value, state
        return False

    def accepts_op(self, op: rx.Op) -> bool:
        """Whether `op` is this operator with these attributes."""
        return op.name == self.name and all(
            hasattr(op, key) and getattr(op, key) == wanted
            for key, wanted in self.attributes.items()
        )


@dataclass(frozen=True, eq=False)
class CallPattern(Pattern):
    """A call of what `callee` matches, with as many operands as `args`, each matching."""

    callee: Pattern
    args: tuple[Pattern, ...]

    def accepts(self, value: rx.Value, state: _State) -> bool:
        call = state.bound(value)
        if not isinstance(call, rx.Call) or len(call.args) != len(self.args):
            return False
        if isinstance(call.op, rx.Op):
            if not _accepts_op(self.callee, call.op):
                return False
        elif not _match(self.callee, call.op, state):
            return False
        return all(_match(p, v, state) for p, v in zip(self.args, call.args, strict=True))


def _accepts_op(pattern: Pattern, op: rx.Op) -> bool:
    if isinstance(pattern, OpPattern):
        return pattern.accepts_op(op)
    if isinstance(pattern, OrPattern):
        return _accepts_op(pattern.first, op) or _accepts_op(pattern.second, op)
    return isinstance(pattern, Wildcard)


@dataclass(frozen=True, eq=False)
class ConstantPattern(Pattern):
    """A constant; with a value, one whose elements all equal it."""

    value: float | None = None

    def accepts(self, value: rx.Value, state: _State) -> bool:
        found = state.bound(value)
        if not isinstance(found, rx.Constant):
            return False
        return self.value is None or bool((found.data == self.value).all())


@dataclass(frozen=True, eq=False)
class VarPattern(Pattern):
    """A variable that is a parameter, or at least not bound to a known value; by name if given."""

    name: str = ""

    def accepts(self, value: rx.Value, state: _State) -> bool:
        found = state.bound(value)
        return isinstance(found, rx.Var) and self.name in ("", found.name)


@dataclass(frozen=True, eq=False)
class TuplePattern(Pattern):
    """A tuple of as many items, each matching."""

    items: tuple[Pattern, ...]

    def accepts(self, value: rx.Value, state: _State) -> bool:
        found = state.bound(value)
        if not isinstance(found, rx.Tuple) or len(found.items) != len(self.items):
            return False
        return all(_match(p, v, state) for p, v in zip(self.items, found.items, strict=True))


@dataclass(frozen=True, eq=False)
class TupleItemPattern(Pattern):
    """An item of a tuple that matches; any item if `index` is None."""

    source: Pattern
    index: int | None = None

    def accepts(self, value: rx.Value, state: _State) -> bool:
        found = state.bound(value)
        if not isinstance(found, rx.TupleGetItem) or self.index not in (None, found.index):
            return False
        return _match(self.source, found.tuple_value, state)


@dataclass(frozen=True, eq=False)
class FunctionPattern(Pattern):
    """A function of the module, or a packed function, by name."""

    name: str

    def accepts(self, value: rx.Value, state: _State) -> bool:
        del state
        return isinstance(value, rx.GlobalFunc | rx.ExternFunc) and value.name == self.name


@dataclass(frozen=True, eq=False)
class TypePattern(Pattern):
    """A tensor whose dtype, rank or shape is as given."""

    dtype: DType | None = None
    shape: tuple[ExprLike, ...] | None = None
    ndim: int | None = None

    def accepts(self, value: rx.Value, state: _State) -> bool:
        del state
        kind = value.type
        if not isinstance(kind, TensorType) or self.dtype not in (None, kind.dtype):
            return False
        if self.ndim not in (None, kind.ndim):
            return False
        if self.shape is None:
            return True
        return same_shape(kind.shape, tuple(as_expr(dim) for dim in self.shape))


@dataclass(frozen=True, eq=False)
class ConditionPattern(Pattern):
    """A value of which a predicate holds."""

    condition: Callable[[rx.Value], bool]

    def accepts(self, value: rx.Value, state: _State) -> bool:
        return self.condition(state.bound(value))


@dataclass(frozen=True, eq=False)
class OrPattern(Pattern):
    """Either; the first is tried first."""

    first: Pattern
    second: Pattern

    def accepts(self, value: rx.Value, state: _State) -> bool:
        return _match(self.first, value, state) or _match(self.second, value, state)


@dataclass(frozen=True, eq=False)
class AndPattern(Pattern):
    """Both."""

    first: Pattern
    second: Pattern

    def accepts(self, value: rx.Value, state: _State) -> bool:
        return _match(self.first, value, state) and _match(self.second, value, state)


# --- building -------------------------------------------------------------------------------


def wildcard() -> Pattern:
    """Anything; the same object twice means the same value twice."""
    return Wildcard()


def is_op(name: str, **attributes: Any) -> Pattern:
    """An operator by its script name, to be called: is_op("nn.softmax", axis=-1)(wildcard())."""
    return OpPattern(name, attributes)


def is_const(value: float | None = None) -> Pattern:
    """A constant; with `value`, one whose elements all equal it."""
    return ConstantPattern(value)


def is_var(name: str = "") -> Pattern:
    """A parameter, or a variable whose value is not known."""
    return VarPattern(name)


def is_tuple(*items: Pattern) -> Pattern:
    """A tuple of these items."""
    return TuplePattern(items)


def is_tuple_item(source: Pattern, index: int | None = None) -> Pattern:
    """Item `index` of a tuple, any item if None."""
    return TupleItemPattern(source, index)


def is_function(name: str) -> Pattern:
    """A function of the module or a packed function by name."""
    return FunctionPattern(name)


# --- matching functions ---------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """Where a pattern was found: the binding of the root, what each part matched, and the
    variables of the calls inside, in program order, the root's last."""

    var: rx.Var
    captures: Captures
    inside: tuple[rx.Var, ...]


def bound_values(function: rx.Function) -> dict[rx.Var, rx.Value]:
    """What the variables of a function are bound to, match_casts left out."""
    return {b.var: b.value for b in bindings(function) if isinstance(b, rx.VarBinding)}


def find_matches(pattern: Pattern, function: rx.Function) -> Iterator[Match]:
    """The bindings of `function` that match, in program order, whether or not they overlap."""
    values = bound_values(function)
    order = {var: number for number, var in enumerate(values)}
    for var in values:
        captures = pattern.match(var, values)
        if captures is not None:
            calls = {
                value
                for part, value in captures.items()
                if isinstance(part, CallPattern | TupleItemPattern | TuplePattern)
                and isinstance(value, rx.Var)
                and value in order
            }
            yield Match(var, captures, tuple(sorted({*calls, var}, key=order.__getitem__)))


class _RewriteCalls(Rewriter):
    def __init__(
        self,
        pattern: Pattern,
        callback: Callable[[rx.Call, Captures], rx.Value],
        function: rx.Function,
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.callback = callback
        self.values = bound_values(function)

    def bind(self, binding: rx.VarBinding, value: rx.Value) -> None:
        """Record what is bound, so that later matches see the rewritten program."""
        super().bind(binding, value)
        bound = self.variables.get(binding.var, binding.var)
        if isinstance(bound, rx.Var):
            self.values[bound] = value

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        captures = self.pattern.match(call, self.values)
        return call if captures is None else self.callback(call, captures)


def rewrite_call(
    pattern: Pattern,
    callback: Callable[[rx.Call, Captures], rx.Value],
    function: rx.Function,
) -> rx.Function:
    """`function` with callback(call, captures) in place of each call that matches.

    The callback may return the call itself, or nested values, which are bound in order. What the
    match covered besides its root stays: DeadCodeElimination drops what is no longer used.
    """
    return _RewriteCalls(pattern, callback, function).run(function)


# --- partition ------------------------------------------------------------------------------


class _Partition(Rewriter):
    def __init__(self, regions: Sequence[Match], attrs: Mapping[str, Any]) -> None:
        super().__init__()
        self.region_of = {var: region for region in regions for var in region.inside}
        self.attrs = attrs
        self.parts: dict[rx.Var, rx.VarBinding] = {}

    def rewrite_binding(self, binding: rx.Binding) -> None:
        region = self.region_of.get(binding.var)
        if region is None or isinstance(binding, rx.MatchCast):
            super().rewrite_binding(binding)
            return
        self.parts[binding.var] = binding
        if binding.var is region.var:
            self.bind(binding, self.call_region([self.parts[var] for var in region.inside]))

    def call_region(self, steps: Sequence[rx.VarBinding]) -> rx.Value:
        """Bind a function of the steps, and give a call of it on what the steps take."""
        outer: dict[rx.Var, rx.Var] = {}
        own = {step.var for step in steps}
        for step in steps:
            for value in _leaves(step.value):
                if isinstance(value, rx.Var) and value not in own and value not in outer:
                    outer[value] = rx.Var(value.name, value.type)
        symbols = plain_vars(param.type for param in outer.values())
        inner = Rewriter(outer)
        inner.out = Bindings(Names(), symbols)
        inner.out.begin(dataflow=True)
        for number, step in enumerate(steps):
            last = number == len(steps) - 1
            value = inner.rewrite(step.value)
            inner.variables[step.var] = inner.out.bind(value, step.var.name, output=last)
        body = inner.out.finish(inner.rewrite(steps[-1].var))
        function = make_function(tuple(outer.values()), body, attrs=self.attrs)
        args = tuple(self.rewrite(value) for value in outer)
        callee = self.emit(function, str(self.attrs.get("Composite", "region")))
        return rx.Call(callee, args, body.type)


def _leaves(value: rx.Value) -> Iterator[rx.Value]:
    if isinstance(value, rx.Call):
        for arg in (*(() if isinstance(value.op, rx.Op) else (value.op,)), *value.args):
            yield from _leaves(arg)
    elif isinstance(value, rx.Tuple):
        for item in value.items:
            yield from _leaves(item)
    elif isinstance(value, rx.TupleGetItem):
        yield from _leaves(value.tuple_value)
    else:
        yield value


def choose_regions(pattern: Pattern, function: rx.Function) -> list[Match]:
    """Matches that do not overlap and whose inner results nobody else uses; the larger first."""
    counts = use_counts(function)
    values = bound_values(function)
    taken: set[rx.Var] = set()
    chosen: list[Match] = []
    for match in sorted(find_matches(pattern, function), key=lambda item: -len(item.inside)):
        inner = match.inside[:-1]
        uses = [
            var
            for member in match.inside
            for var in _leaves(values[member])
            if isinstance(var, rx.Var)
        ]
        private = all(counts.get(var, 0) == uses.count(var) for var in inner)
        pure = all(is_pure(values[var]) for var in match.inside)
        if private and pure and not taken.intersection(match.inside):
            taken.update(match.inside)
            chosen.append(match)
    return chosen


def partition(pattern: Pattern, function: rx.Function, **attrs: Any) -> rx.Function:
    """`function` with each match (see `choose_regions`) moved into a nested function with `attrs`,
    which is called in its place. LambdaLift moves those to the module.

    attrs: say what the region is, as in partition(p, f, Composite="openblas.sgemm").
    """
    regions = choose_regions(pattern, function)
    return _Partition(regions, attrs).run(function) if regions else function
