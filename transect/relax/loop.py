"""Loops: `while_loop` writes one as a function of the module that calls itself last.

Compiled, such a function is a native loop (see `relax.transform.host_loop`); interpreted, it takes
no stack either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from transect.ir.expr import Expr
from transect.ir.expr import Var as Symbol
from transect.ir.types import (
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.emit import retype
from transect.relax.inference import function_type
from transect.relax.lift import Lifter
from transect.relax.shapes import (
    dimensions,
    erase,
    plain_vars,
    prove_equal,
    substitute_expr,
    substitute_type,
    type_vars,
)
from transect.support.errors import InferenceError, InputError
from transect.support.span import Spans

Condition = Callable[..., rx.Value]
"""From the state, one variable each, to a bool scalar: whether to go on."""

Body = Callable[..., Sequence[rx.Value]]
"""From the state, one variable each, to the next state."""


def while_loop(
    builder: BlockBuilder,
    condition: Condition,
    body: Body,
    state: Sequence[rx.Value],
    *,
    types: Sequence[Type] | None = None,
    name: str = "loop",
    pure: bool = True,
    span: Spans = (),
) -> tuple[rx.Value, ...]:
    """Emit `while condition(*state): state = body(*state)`; gives the final state.

    condition, body: called with one variable per value of the state, emit into `builder`, and may
    use all values around the loop. They are called again if the types found at first are too
    narrow, so they must have no other effect. state: tensors, scalars (PrimValues: counters that
    cost nothing), tuples. types: of the state, as wide as every iteration needs. By default they
    are found: a dimension that the body changes becomes a symbolic variable, new in every
    iteration. The final state's dimensions are the caller's where no iteration changes them, new
    symbolic variables where one does.

    Raises InputError if the body gives another number of values or values of other kinds.
    """
    kinds = tuple(value.type for value in state) if types is None else tuple(types)
    around = builder.symbols
    kinds = tuple(_countable(kind, f"state{n}", around) for n, kind in enumerate(kinds))
    while True:
        with builder.attempt() as take_back:
            made = _Loop(builder, kinds, name, pure=pure)
            function = builder.local_function(
                made.params, lambda made=made: made.emit(condition, body), pure=pure
            )
        if made.kinds == kinds:
            break
        take_back()
        kinds = made.kinds
    lifted = Lifter(builder).lift(made.itself, function)
    arguments = (*state, *lifted.captured)
    call = retype(rx.Call(lifted.callee, arguments, function.ret_type, (), span))
    result = builder.emit(call, name, span)
    return tuple(made.final(result, number, span) for number in range(len(state)))


class _Loop:
    """A loop's function under construction, its state of types `kinds`; after `emit`, the types
    that the body turned out to need. itself: the variable by which the function calls itself."""

    def __init__(
        self, builder: BlockBuilder, kinds: Sequence[Type], name: str, *, pure: bool
    ) -> None:
        self.builder = builder
        self.name = name
        self.pure = pure
        self.kinds = tuple(kinds)
        self.params = [rx.Var(f"state{number}", kind) for number, kind in enumerate(kinds)]
        self.around = builder.symbols
        self.varying: set[Symbol] = set()
        self.itself = rx.Var(name, ObjectType())

    def emit(self, condition: Condition, body: Body) -> rx.Value:
        """Emit the function's body."""
        going = condition(*self.params)
        return self.builder.emit_if(
            going, lambda: self._step(body), lambda: rx.make_tuple(*self.params), self.name
        )

    def _step(self, body: Body) -> rx.Value:
        produced = tuple(body(*self.params))
        if len(produced) != len(self.params):
            raise InputError(
                f"the body of {self.name} gives {len(produced)} values, not {len(self.params)}"
            )
        self._widen([value.type for value in produced])
        result = TupleType(tuple(erase(kind, self.varying) for kind in self.kinds))
        self.itself = rx.Var(self.name, function_type(self.params, result, pure=self.pure))
        return rx.Call(self.itself, produced, result)

    def _widen(self, produced: Sequence[Type]) -> None:
        """Find which of the state's dimensions change, with new variables where they have none."""
        values: dict[Symbol, Expr] = {}
        for kind, new in zip(self.kinds, produced, strict=True):
            self._bind(kind, new, values)
        own = [var for var in plain_vars(self.kinds) if var not in self.around]
        self.varying = {
            var for var in own if var not in values or not prove_equal(values[var], var)
        }
        self.kinds = tuple(
            self._wide(kind, new, values, f"state {number}")
            for number, (kind, new) in enumerate(zip(self.kinds, produced, strict=True))
        )

    def _bind(self, kind: Type, new: Type, values: dict[Symbol, Expr]) -> None:
        if type(kind) is not type(new):
            return
        for dim, given in zip(dimensions(kind), dimensions(new), strict=False):
            if isinstance(dim, Symbol) and dim not in self.around:
                values.setdefault(dim, given)

    def _wide(self, kind: Type, new: Type, values: dict[Symbol, Expr], what: str) -> Type:
        """`kind`, with new symbolic variables for dimensions that `new` does not keep."""
        if isinstance(kind, ObjectType):
            return kind
        if isinstance(kind, TensorType) and isinstance(new, TensorType):
            if kind.dtype is not new.dtype:
                raise self._misfit(what, kind, new)
            if kind.ndim != new.ndim:
                return tensor_type(None, kind.dtype, -1, kind.device)
            shape = self._wide_dims(kind.shape, new.shape, values, what)
            return tensor_type(shape, kind.dtype, kind.ndim, kind.device)
        if isinstance(kind, ShapeType) and isinstance(new, ShapeType):
            if kind.ndim != new.ndim:
                return ShapeType(None, -1)
            return ShapeType(self._wide_dims(kind.values, new.values, values, what), kind.ndim)
        if isinstance(kind, PrimType) and isinstance(new, PrimType) and kind.dtype is new.dtype:
            return kind
        if not isinstance(kind, TupleType) or not isinstance(new, TupleType):
            raise self._misfit(what, kind, new)
        if len(kind.items) != len(new.items):
            raise self._misfit(what, kind, new)
        pairs = zip(kind.items, new.items, strict=True)
        return TupleType(tuple(self._wide(k, n, values, what) for k, n in pairs))

    def _wide_dims(
        self,
        dims: tuple[Expr, ...] | None,
        new: tuple[Expr, ...] | None,
        values: Mapping[Symbol, Expr],
        what: str,
    ) -> tuple[Expr, ...] | None:
        if dims is None:
            return None
        result: list[Expr] = []
        for axis, dim in enumerate(dims):
            is_own = isinstance(dim, Symbol) and dim not in self.around
            kept = new is not None and prove_equal(substitute_expr(dim, values), new[axis])
            name = f"{self.name}_{what.replace(' ', '')}_{axis}"
            result.append(dim if is_own or kept else Symbol(name))
        return tuple(result)

    def _misfit(self, what: str, kind: Type, new: Type) -> InferenceError:
        return InferenceError(
            f"{what} of {self.name} is {kind!r}, but {new!r} after an iteration",
            remedy="a loop's state may change its size, not its kind, dtype or number of values",
        )

    def final(self, result: rx.Var, number: int, span: Spans) -> rx.Value:
        """Value `number` of the final state in the caller; its sizes get variables there."""
        item = self.builder.emit(rx.tuple_item(result, number), span=span)
        kind = self.kinds[number]
        changing = [var for var in type_vars(kind) if var in self.varying]
        if not changing:
            return item
        fresh = {var: Symbol(var.name, var.dtype) for var in changing}
        return self.builder.match_cast(item, substitute_type(kind, fresh), span=span)


def _countable(kind: Type, name: str, around: Collection[Symbol]) -> Type:
    """The type of a scalar of the state with a variable of the loop's for its value."""
    if isinstance(kind, PrimType) and (not isinstance(kind.value, Symbol) or kind.value in around):
        return PrimType(kind.dtype, Symbol(name, kind.dtype))
    if isinstance(kind, TupleType):
        return TupleType(tuple(_countable(item, name, around) for item in kind.items))
    return kind
