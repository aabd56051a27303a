"""Binding a callee's symbolic variables: its parameters' types matched against argument types.

Used for calls between graph functions, and for call_tir, whose callee declares buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from transect.ir.expr import Expr, Var, cast
from transect.ir.traverse import free_vars
from transect.ir.types import (
    CallableType,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax.shapes import (
    erase,
    plain_vars,
    prove_different,
    prove_equal,
    show,
    substitute_expr,
    substitute_type,
)
from transect.support.errors import InferenceError
from transect.tir.function import PrimFunc, symbolic_vars


@dataclass
class Unification:
    """What matching parameters against arguments found.

    values: of the callee's variables, in the caller's terms. unproved: pairs (what the callee
    declares, what it is given) that are neither provably equal nor provably different.
    variables: what the callee binds; those without a value are unknown.
    """

    variables: tuple[Var, ...]
    values: dict[Var, Expr] = field(default_factory=dict[Var, Expr])
    unproved: list[tuple[Expr, Expr]] = field(default_factory=list[tuple[Expr, Expr]])

    def unknown(self) -> list[Var]:
        """The callee's variables that the arguments do not determine."""
        return [var for var in self.variables if var not in self.values]

    def apply(self, kind: Type) -> Type:
        """A type of the callee's in the caller's terms; what is not determined becomes unknown."""
        return substitute_type(erase(kind, self.unknown()), self.values)


class _Matcher:
    def __init__(self, variables: Sequence[Var]) -> None:
        self.result = Unification(tuple(variables))
        self.variables = set(variables)
        self.pending: list[tuple[Expr, Expr, str]] = []

    def dims(self, parameter: Sequence[Expr], argument: Sequence[Expr], what: str) -> None:
        if len(parameter) != len(argument):
            raise InferenceError(f"{what} has {len(parameter)} dimensions, got {len(argument)}")
        for axis, (declared, given) in enumerate(zip(parameter, argument, strict=True)):
            self.dim(declared, given, f"dimension {axis} of {what}")

    def dim(self, declared: Expr, given: Expr, what: str) -> None:
        values = self.result.values
        if isinstance(declared, Var) and declared in self.variables and declared not in values:
            values[declared] = cast(given, declared.dtype)
        else:
            # A later parameter may still bind what this one uses.
            self.pending.append((declared, given, what))

    def types(self, parameter: Type, argument: Type, what: str) -> None:
        if parameter is argument and not self.variables:
            return
        if isinstance(parameter, ObjectType) or isinstance(argument, ObjectType):
            # An object is checked where it is used, as nothing is known before the program runs.
            return
        if isinstance(parameter, TensorType) and isinstance(argument, TensorType):
            self.tensors(parameter, argument, what)
        elif isinstance(parameter, ShapeType) and isinstance(argument, ShapeType):
            _same(parameter.ndim, argument.ndim, (-1,), f"{what} has the rank")
            if parameter.values is not None and argument.values is not None:
                self.dims(parameter.values, argument.values, what)
        elif isinstance(parameter, PrimType) and isinstance(argument, PrimType):
            _same(parameter.dtype, argument.dtype, (), f"{what} has the dtype")
            if parameter.value is not None and argument.value is not None:
                self.dim(parameter.value, argument.value, what)
        elif isinstance(parameter, TupleType) and isinstance(argument, TupleType):
            if len(parameter.items) != len(argument.items):
                raise InferenceError(
                    f"{what} is a tuple of {len(parameter.items)}, got one of {len(argument.items)}"
                )
            for index, (x, y) in enumerate(zip(parameter.items, argument.items, strict=True)):
                self.types(x, y, f"item {index} of {what}")
        elif isinstance(parameter, CallableType) and isinstance(argument, CallableType):
            if parameter.pure and not argument.pure:
                raise InferenceError(f"{what} must be pure, got an impure function")
        else:
            raise InferenceError(f"{what} must be {parameter!r}, got {argument!r}")

    def tensors(self, parameter: TensorType, argument: TensorType, what: str) -> None:
        _same(parameter.dtype, argument.dtype, (None,), f"{what} has the dtype")
        _same(parameter.ndim, argument.ndim, (-1,), f"{what} has the rank")
        if parameter.shape is not None and argument.shape is not None:
            self.dims(parameter.shape, argument.shape, what)

    def finish(self) -> Unification:
        """Compare what could not bind, now that every variable that can be bound is."""
        values = self.result.values
        for declared, given, what in self.pending:
            if any(v in self.variables and v not in values for v in free_vars((declared,))):
                continue
            expected = substitute_expr(declared, values)
            if prove_equal(expected, given):
                continue
            if prove_different(expected, given):
                meaning = "" if expected is declared else f" (here {show(expected)})"
                raise InferenceError(
                    f"{what} must be {show(declared)}{meaning}, got {show(given)}",
                    remedy="the shapes of the arguments contradict each other",
                )
            self.result.unproved.append((expected, given))
        return self.result


def _same(declared: object, given: object, unknown: tuple[object, ...], what: str) -> None:
    if declared is given or declared in unknown or given in unknown:
        return
    if declared != given:
        raise InferenceError(f"{what} {declared}, got {given}")


def unify_types(
    parameters: Sequence[Type],
    arguments: Sequence[Type],
    names: Sequence[str] = (),
    callee: str = "the function",
) -> Unification:
    """Match the parameters of a graph function against the types of a call's arguments.

    names: of the parameters, for messages. Raises InferenceError if the number of arguments is
    wrong, if a kind, dtype or rank differs, or if two dimensions are provably different.
    """
    if len(parameters) != len(arguments):
        raise InferenceError(f"{callee} takes {len(parameters)} arguments, got {len(arguments)}")
    matcher = _Matcher(plain_vars(parameters))
    for index, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True)):
        label = names[index] if names else str(index)
        matcher.types(parameter, argument, f"parameter {label} of {callee}")
    return matcher.finish()


def unify_prim_func(
    function: PrimFunc,
    tensors: Sequence[Type],
    tir_vars: Sequence[Expr] = (),
    callee: str = "the tensor program",
) -> Unification:
    """Match a PrimFunc's buffers against tensors (inputs, then outputs), its scalars to `tir_vars`.

    Raises InferenceError as `unify_types`, and for a parameter that a graph cannot pass.
    """
    buffers = function.buffers
    scalars = tuple(param for param in function.params if param not in function.buffer_map)
    if function.params != (*(p for p in function.params if p in function.buffer_map), *scalars):
        raise InferenceError(
            f"{callee} takes a scalar before a buffer",
            remedy="order the parameters: inputs, outputs, then scalars",
        )
    handles = [param.name for param in scalars if param.dtype.is_handle]
    if handles:
        raise InferenceError(f"{callee} takes the opaque handle {handles[0]}: a graph has none")
    if len(buffers) != len(tensors):
        raise InferenceError(
            f"{callee} takes {len(buffers)} inputs and outputs, got {len(tensors)} tensors"
        )
    if len(scalars) != len(tir_vars):
        raise InferenceError(f"{callee} takes {len(scalars)} scalars, got {len(tir_vars)} tir_vars")
    matcher = _Matcher((*symbolic_vars(function), *scalars))
    for scalar, value in zip(scalars, tir_vars, strict=True):
        matcher.result.values[scalar] = cast(value, scalar.dtype)
    for buffer, tensor in zip(buffers, tensors, strict=True):
        matcher.types(
            tensor_type(buffer.shape, buffer.dtype), tensor, f"buffer {buffer.name} of {callee}"
        )
    return matcher.finish()
