"""What is known of a graph value: types re-derived from operands, the subtype order, purity.

Binding a callee's symbolic variables to a call's arguments lives in `unify`; the operators' own
inference is in `relax.op`.
"""

from __future__ import annotations

from collections.abc import Iterable

from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, as_expr
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
from transect.relax import expr as rx
from transect.relax.shapes import ProveEqual, prove_equal
from transect.relax.unify import Unification, unify_types
from transect.support.errors import InferenceError


def is_subtype(a: Type, b: Type, equal: ProveEqual = prove_equal) -> bool:
    """Whether every value of type `a` is of type `b`, as far as can be proved."""
    if a is b or isinstance(b, ObjectType):
        return True
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        return (
            (b.dtype is None or a.dtype is b.dtype)
            and (b.ndim == -1 or a.ndim == b.ndim)
            and (b.device is None or a.device is b.device)
            and (b.shape is None or _dims_equal(a.shape, b.shape, equal))
        )
    if isinstance(a, ShapeType) and isinstance(b, ShapeType):
        return (b.ndim == -1 or a.ndim == b.ndim) and (
            b.values is None or _dims_equal(a.values, b.values, equal)
        )
    if isinstance(a, PrimType) and isinstance(b, PrimType):
        return a.dtype is b.dtype and (
            b.value is None or (a.value is not None and equal(a.value, b.value))
        )
    if isinstance(a, TupleType) and isinstance(b, TupleType):
        return len(a.items) == len(b.items) and all(
            is_subtype(x, y, equal) for x, y in zip(a.items, b.items, strict=True)
        )
    if isinstance(a, CallableType) and isinstance(b, CallableType):
        return _is_callable_subtype(a, b, equal)
    return False


def _dims_equal(a: tuple[Expr, ...] | None, b: tuple[Expr, ...], equal: ProveEqual) -> bool:
    return a is not None and all(equal(x, y) for x, y in zip(a, b, strict=True))


def _is_callable_subtype(a: CallableType, b: CallableType, equal: ProveEqual) -> bool:
    if b.pure and not a.pure:
        return False
    if b.params is None:
        return is_subtype(a.ret, b.ret, equal) or isinstance(b.ret, ObjectType)
    if a.params is None or len(a.params) != len(b.params):
        return False
    try:
        renaming = unify_types(a.params, b.params)
    except InferenceError:
        return False
    return is_subtype(renaming.apply(a.ret), b.ret, equal)


def join(a: Type, b: Type) -> Type:
    """The least type known to hold the values of both: what an If of the two gives."""
    if is_subtype(a, b):
        return b
    if is_subtype(b, a):
        return a
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        return tensor_type(
            None,
            a.dtype if a.dtype is b.dtype else None,
            a.ndim if a.ndim == b.ndim else -1,
            a.device if a.device is b.device else None,
        )
    if isinstance(a, ShapeType) and isinstance(b, ShapeType):
        return ShapeType(None, a.ndim if a.ndim == b.ndim else -1)
    if isinstance(a, PrimType) and isinstance(b, PrimType) and a.dtype is b.dtype:
        return PrimType(a.dtype)
    if isinstance(a, TupleType) and isinstance(b, TupleType) and len(a.items) == len(b.items):
        return TupleType(tuple(join(x, y) for x, y in zip(a.items, b.items, strict=True)))
    return ObjectType()


# --- values ---------------------------------------------------------------------------------


def infer_type(value: rx.Value) -> Type:
    """The type of `value` from its operands' types, not looking into variables or functions.

    Raises InferenceError if the operands do not fit.
    """
    if isinstance(value, rx.Call):
        return infer_call(value)
    if isinstance(value, rx.Tuple):
        return TupleType(tuple(item.type for item in value.items))
    if isinstance(value, rx.TupleGetItem):
        return rx.tuple_item(value.tuple_value, value.index).type
    if isinstance(value, rx.ShapeExpr):
        return ShapeType(value.values, len(value.values))
    if isinstance(value, rx.PrimValue):
        return PrimType(value.value.dtype, value.value)
    if isinstance(value, rx.If):
        return join(value.then_branch.type, value.else_branch.type)
    if isinstance(value, rx.Constant):
        shape = tuple(as_expr(extent) for extent in value.data.shape)
        return tensor_type(shape, as_dtype(value.data.dtype))
    if isinstance(value, rx.Function):
        return function_type(value.params, value.ret_type, pure=value.pure)
    return value.type


def infer_call(call: rx.Call) -> Type:
    """The type of a call: given by its type_args, its operator, or its callee's type."""
    if isinstance(call.op, rx.Op):
        if call.type_args:
            return call.type_args[0]
        return call.op.infer(*(operand.type for operand in call.args))
    kind = call.op.type
    if isinstance(kind, CallableType) and kind.params is not None:
        return unify_call(kind, call).apply(kind.ret)
    if call.type_args:
        return call.type_args[0]
    return kind.ret if isinstance(kind, CallableType) else ObjectType()


def unify_call(kind: CallableType, call: rx.Call) -> Unification:
    """How a call binds the symbolic variables of a callee of type `kind`."""
    return unify_types(kind.params or (), tuple(operand.type for operand in call.args))


def function_type(params: Iterable[rx.Var], ret_type: Type, *, pure: bool) -> CallableType:
    """The type of a function with these parameters."""
    return CallableType(tuple(param.type for param in params), ret_type, pure)


def is_pure_call(call: rx.Call) -> bool:
    """Whether the call has no effect besides its result."""
    if isinstance(call.op, rx.Op):
        return call.op.pure
    return isinstance(call.op.type, CallableType) and call.op.type.pure


def is_pure(value: rx.Value) -> bool:
    """Whether evaluating `value`, branches included, has no effect besides its result."""
    if isinstance(value, rx.Call):
        return is_pure_call(value)
    if isinstance(value, rx.If):
        return is_pure(value.then_branch) and is_pure(value.else_branch)
    if isinstance(value, rx.SeqExpr):
        return all(
            isinstance(binding, rx.VarBinding) and is_pure(binding.value)
            for block in value.blocks
            for binding in block.bindings
        )
    return True
