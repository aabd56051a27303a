"""The base of the operators in this folder: canonical attributes, and what an entry may define.

An entry gives `infer`, and one of `legalize` (loops) or `decompose` (other operators); operators
that only later passes lower, such as allocations, give neither.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transect.ir.dtype import as_dtype
from transect.relax.call import TensorToShape
from transect.relax.expr import Op, Value, Var

Emit = Callable[[Value], Var]
"""Binds a value to a new variable and returns that: what `decompose` is given to build with."""


def run_time_shape(emit: Emit, sizes: Value) -> Var:
    """The elements of an int64 vector as a shape that only the run knows, for `decompose`.

    An operator whose result has a size that depends on data computes the size with one kernel, and
    passes this shape to a second operator, which fills a result of it: when that one becomes
    loops, the shape is bound to new symbolic variables (LegalizeOps), and the result is allocated
    when the program runs.

        count = emit(CountNonzero()(x))
        return NonzeroPositions()(x, run_time_shape(emit, count))
    """
    return emit(TensorToShape()(sizes))


@dataclass(frozen=True)
class Operator(Op):
    """An operator on tensors, as a frozen dataclass of its attributes.

    Attributes are made canonical when the operator is made: lists become tuples, and the spelling
    of a dtype becomes the DType, so that equal operators are equal objects.

    legalize(self, b: FunctionBuilder, *operands) -> Buffer | tuple[Buffer, ...]
        writes the loops that compute the result. An operand is a Buffer where its type is a
        tensor, an Expr where it is a scalar, a tuple of Expr where it is a shape, a tuple of
        operands where it is a tuple, None where it is absent.
    decompose(self, emit: Emit, *operands: Value) -> Value
        builds the result from calls of other operators, each bound with `emit`.
    """

    is_view: ClassVar[bool] = False
    """Whether the result is the first operand's data under another shape."""
    script_order: ClassVar[tuple[str, ...]] = ()
    """Operands and attributes in the order that scripts give them, where it is not the operands
    and then the attributes."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            old = getattr(self, field.name)
            new = _canonical(old, is_dtype="DType" in str(field.type))
            if new is not old:
                object.__setattr__(self, field.name, new)


def _canonical(value: Any, *, is_dtype: bool) -> Any:
    if isinstance(value, list | tuple):
        items: list[Any] = [_canonical(item, is_dtype=False) for item in value]  # pyright: ignore[reportUnknownVariableType]
        return tuple(items)
    return as_dtype(value) if is_dtype and value is not None else value


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operator as scripts call it.

    kind: "operand" (a graph value), "operands" (any number of them), "attribute" (a constant).
    required: whether it has no default.
    """

    name: str
    kind: Literal["operand", "operands", "attribute"]
    required: bool


def script_parameters(op: type[Op]) -> tuple[Parameter, ...]:
    """The parameters of R.<name>(…), in order: the operands by the names that `infer` gives them,
    then the attributes, unless the operator says otherwise with `script_order`."""
    found: dict[str, Parameter] = {}
    for item in list(inspect.signature(op.infer).parameters.values())[1:]:
        if item.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        many = item.kind is inspect.Parameter.VAR_POSITIONAL
        required = not many and item.default is inspect.Parameter.empty
        found[item.name] = Parameter(item.name, "operands" if many else "operand", required)
    for field in dataclasses.fields(op):
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        found[field.name] = Parameter(field.name, "attribute", required)
    order: tuple[str, ...] = getattr(op, "script_order", ())
    return tuple(found[name] for name in order or found)
