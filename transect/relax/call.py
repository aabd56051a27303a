"""The special operators: those whose operand is a function, and those that exist for an effect.

They belong to the language itself (the builder, verifier and interpreter know them), unlike the
operators that compute on tensors, which live in `relax.op`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import INT64
from transect.ir.expr import ExprLike, as_int
from transect.ir.types import (
    VOID_TYPE,
    CallableType,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.relax.expr import (
    Call,
    ExternFunc,
    GlobalFunc,
    Op,
    Tuple,
    Value,
    make_tuple,
    shape_expr,
)
from transect.support.errors import InferenceError
from transect.support.span import Spans


@dataclass(frozen=True)
class CallTIR(Op):
    """call_tir(f, (inputs...)[, tir_vars]): run the tensor program `f` into new tensors.

    The PrimFunc takes the inputs, the outputs (destination passing), then one scalar for each
    value of the shape `tir_vars`. type_args: (the output's type,), a TupleType for several.
    """

    name: ClassVar[str] = "call_tir"


@dataclass(frozen=True)
class CallTIRInplace(Op):
    """call_tir_inplace(f, (inputs...)[, tir_vars]): as call_tir, but writing over inputs.

    inplace_indices: for each output the input it overwrites, or -1 for a new tensor. The PrimFunc
    has no parameter of its own for an output that overwrites an input. The overwritten inputs must
    not be used afterwards, so the call counts as pure.
    """

    name: ClassVar[str] = "call_tir_inplace"
    inplace_indices: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class CallDPSPacked(Op):
    """call_dps_packed(f, (inputs...)): run the packed function `f` into new tensors.

    `f` takes the inputs, then the outputs, and has no other effect. type_args: as of call_tir.
    """

    name: ClassVar[str] = "call_dps_packed"


@dataclass(frozen=True)
class CallPacked(Op):
    """call_packed(f, *args): call a packed function that may do anything.

    type_args: (the result's type,); without it the result is any object.
    """

    name: ClassVar[str] = "call_packed"
    pure: ClassVar[bool] = False

    def infer(self, function: Type, *arguments: Type) -> Type:
        """ObjectType: nothing is known of what a packed function returns."""
        del function, arguments
        return ObjectType()


@dataclass(frozen=True)
class CallPurePacked(Op):
    """call_pure_packed(f, *args): as call_packed, but the caller vouches that `f` is pure."""

    name: ClassVar[str] = "call_pure_packed"

    def infer(self, function: Type, *arguments: Type) -> Type:
        """ObjectType: nothing is known of what a packed function returns."""
        del function, arguments
        return ObjectType()


@dataclass(frozen=True)
class CallInplacePacked(Op):
    """call_inplace_packed(f, *args): call a packed function that returns arguments it has changed.

    inplace_indices: for each result the argument it is, or -1 for a new value. type_args: (the
    result's type,). Pure as the changed arguments must not be used afterwards.
    """

    name: ClassVar[str] = "call_inplace_packed"
    inplace_indices: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class CallBuiltinWithCtx(Op):
    """call_builtin_with_ctx(f, (args...)): call a packed function of the runtime itself."""

    name: ClassVar[str] = "call_builtin_with_ctx"
    pure: ClassVar[bool] = False

    def infer(self, function: Type, arguments: Type) -> Type:
        """ObjectType, unless the call says more."""
        del function, arguments
        return ObjectType()


@dataclass(frozen=True)
class MakeClosure(Op):
    """make_closure(f, (captured...)): `f` with its last parameters bound to `captured`."""

    name: ClassVar[str] = "make_closure"

    def infer(self, function: Type, captured: Type) -> Type:
        """The type of the parameters that remain, or ObjectType where `f` is not known."""
        if not isinstance(function, CallableType) or function.params is None:
            return ObjectType()
        if not isinstance(captured, TupleType) or len(captured.items) > len(function.params):
            raise InferenceError(f"make_closure of {function!r} captures {captured!r}")
        rest = len(function.params) - len(captured.items)
        return CallableType(function.params[:rest], function.ret, function.pure)


@dataclass(frozen=True)
class InvokeClosure(Op):
    """invoke_closure(closure, (args...)): call a closure that may do anything."""

    name: ClassVar[str] = "invoke_closure"
    pure: ClassVar[bool] = False

    def infer(self, closure: Type, arguments: Type) -> Type:
        """What the closure returns, as far as known."""
        del arguments
        return closure.ret if isinstance(closure, CallableType) else ObjectType()


@dataclass(frozen=True)
class InvokePureClosure(Op):
    """invoke_pure_closure(closure, (args...)): call a closure that the caller vouches is pure."""

    name: ClassVar[str] = "invoke_pure_closure"

    def infer(self, closure: Type, arguments: Type) -> Type:
        """What the closure returns, as far as known."""
        del arguments
        return closure.ret if isinstance(closure, CallableType) else ObjectType()


@dataclass(frozen=True)
class NullValue(Op):
    """null_value(): the value None."""

    name: ClassVar[str] = "null_value"

    def infer(self) -> Type:
        """ObjectType."""
        return ObjectType()


@dataclass(frozen=True)
class Print(Op):
    """print(*values): write the values to standard output, put in `format` if that is not empty."""

    name: ClassVar[str] = "print"
    pure: ClassVar[bool] = False
    format: str = ""

    def infer(self, *values: Type) -> Type:
        """The empty tuple."""
        del values
        return VOID_TYPE


@dataclass(frozen=True)
class AssertOp(Op):
    """assert_op(condition, *values): fail with `format`, filled with the values, if false.

    condition: a bool scalar, as a tensor of rank 0 or a PrimValue.
    """

    name: ClassVar[str] = "assert_op"
    pure: ClassVar[bool] = False
    format: str = ""

    def infer(self, condition: Type, *values: Type) -> Type:
        """The empty tuple. Raises InferenceError if the condition cannot be a truth value."""
        del values
        if isinstance(condition, TensorType):
            fits = condition.ndim in (-1, 0) and (
                condition.dtype is None or condition.dtype.is_bool
            )
        else:
            fits = isinstance(condition, ObjectType) or (
                isinstance(condition, PrimType) and condition.dtype.is_bool
            )
        if not fits:
            raise InferenceError(f"assert_op needs a bool scalar, got {condition!r}")
        return VOID_TYPE


@dataclass(frozen=True)
class ShapeOf(Op):
    """shape_of(x): the shape of a tensor as a shape value."""

    name: ClassVar[str] = "shape_of"

    def infer(self, x: Type) -> Type:
        """The shape, with its dimensions where they are known."""
        if isinstance(x, ObjectType):
            return ShapeType(None, -1)
        if not isinstance(x, TensorType):
            raise InferenceError(f"shape_of needs a tensor, got {x!r}")
        return ShapeType(x.shape, x.ndim)


@dataclass(frozen=True)
class TensorToShape(Op):
    """tensor_to_shape(x): the values of an int64 vector as a shape, known only at run time.

    Bind the dimensions with match_cast.
    """

    name: ClassVar[str] = "tensor_to_shape"

    def infer(self, x: Type) -> Type:
        """A shape of as many dimensions as `x` has elements, if that number is constant."""
        if isinstance(x, TensorType) and x.ndim in (-1, 1) and x.dtype in (None, INT64):
            size = as_int(x.shape[0]) if x.shape is not None else None
            return ShapeType(None, -1 if size is None else size)
        raise InferenceError(f"tensor_to_shape needs an int64 vector, got {x!r}")


@dataclass(frozen=True)
class ShapeToTensor(Op):
    """shape_to_tensor(s): the dimensions of a shape as an int64 vector."""

    name: ClassVar[str] = "shape_to_tensor"

    def infer(self, s: Type) -> Type:
        """An int64 vector with one element per dimension."""
        if not isinstance(s, ShapeType):
            raise InferenceError(f"shape_to_tensor needs a shape, got {s!r}")
        if s.ndim < 0:
            return tensor_type(None, INT64, 1)
        return tensor_type(shape_expr(s.ndim).values, INT64)


# --- building -------------------------------------------------------------------------------


def extern(name: str) -> ExternFunc:
    """The packed function registered as `name`: it takes and returns anything."""
    return ExternFunc(name, CallableType(None, ObjectType(), pure=False))


def global_func(name: str, type: Type | None = None) -> GlobalFunc:
    """The module's function `name`; a tensor program's type is any object's."""
    return GlobalFunc(name, ObjectType() if type is None else type)


def _destination_args(
    function: Value, inputs: Sequence[Value], tir_vars: Sequence[ExprLike]
) -> tuple[Value, ...]:
    arguments: tuple[Value, ...] = (function, make_tuple(*inputs))
    return (*arguments, shape_expr(*tir_vars)) if tir_vars else arguments


def call_tir(
    function: GlobalFunc | str,
    inputs: Sequence[Value],
    out_type: TensorType | TupleType,
    tir_vars: Sequence[ExprLike] = (),
    span: Spans = (),
) -> Call:
    """R.call_tir: the tensor program `function` of the module applied to `inputs`."""
    callee = global_func(function) if isinstance(function, str) else function
    return CallTIR()(*_destination_args(callee, inputs, tir_vars), type_args=(out_type,), span=span)


def call_tir_inplace(
    function: GlobalFunc | str,
    inputs: Sequence[Value],
    inplace_indices: tuple[int, ...],
    out_type: TensorType | TupleType,
    tir_vars: Sequence[ExprLike] = (),
    span: Spans = (),
) -> Call:
    """R.call_tir_inplace: as call_tir, the outputs written over the inputs named by the indices."""
    callee = global_func(function) if isinstance(function, str) else function
    operands = _destination_args(callee, inputs, tir_vars)
    return CallTIRInplace(inplace_indices)(*operands, type_args=(out_type,), span=span)


def call_dps_packed(
    function: str | Value,
    inputs: Sequence[Value],
    out_type: TensorType | TupleType,
    span: Spans = (),
) -> Call:
    """R.call_dps_packed: a packed function that writes into the outputs it is given."""
    callee = extern(function) if isinstance(function, str) else function
    return CallDPSPacked()(callee, make_tuple(*inputs), type_args=(out_type,), span=span)


def call_packed(
    function: str | Value, *arguments: Value, type_args: tuple[Type, ...] = (), span: Spans = ()
) -> Call:
    """R.call_packed: a packed function that may have any effect."""
    callee = extern(function) if isinstance(function, str) else function
    return CallPacked()(callee, *arguments, type_args=type_args, span=span)


def call_pure_packed(
    function: str | Value, *arguments: Value, type_args: tuple[Type, ...] = (), span: Spans = ()
) -> Call:
    """R.call_pure_packed: a packed function that has no effect."""
    callee = extern(function) if isinstance(function, str) else function
    return CallPurePacked()(callee, *arguments, type_args=type_args, span=span)


def call_inputs(call: Call) -> tuple[Value, ...]:
    """The inputs of a call_tir, call_tir_inplace or call_dps_packed."""
    operand = call.args[1]
    return operand.items if isinstance(operand, Tuple) else (operand,)


def is_destination_passing(call: Call) -> bool:
    """Whether the call writes into tensors that the caller provides."""
    return isinstance(call.op, CallTIR | CallTIRInplace | CallDPSPacked)
