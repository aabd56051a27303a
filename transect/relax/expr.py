"""Graph programs: values, calls, bindings, blocks and functions.

Values are in A-normal form: arguments of calls, tuples and branches are variables, constants,
shapes, scalars, names or tuples of those; every other value is bound to a variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, ExprLike, GlobalVar, IntImm, as_expr
from transect.ir.function import BaseFunc
from transect.ir.node import Node, node
from transect.ir.types import (
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    tensor_type,
)
from transect.support.errors import InputTypeError, TransectError
from transect.support.span import Spans


class Value(Node):
    """Base of graph values. `type` is what is known of the value."""

    __slots__ = ()
    type: Type


@dataclass(frozen=True)
class Op:
    """A graph operator with its attributes: a frozen dataclass whose fields are its options.

    Fields are constants (numbers, strings, tuples, dtypes), never variables: what may be symbolic
    is an operand (a ShapeExpr, a PrimValue) or a type argument of the call.

    A subclass gives `name` (as in script, without "R."), `infer`, and usually `legalize`. The
    parameters of `infer` are the operands: a default None marks an optional one (an absent one
    is left out from the end, or given as the empty tuple value), `*items` any number of them.

    pure: no effect besides the result, so that calls may be merged or dropped. is_view: the result
    is the data of the first operand under another shape.
    """

    name: ClassVar[str] = ""
    pure: ClassVar[bool] = True
    is_view: ClassVar[bool] = False

    def infer(self, *operands: Any, **_: Any) -> Type:
        """The type of the result from the operands' types. Raises InferenceError if they do not
        fit. (The gradual signature lets a subclass name its operands.)"""
        raise NotImplementedError(f"{type(self).__name__}.infer")

    def __call__(
        self, *operands: Value, type_args: tuple[Type, ...] = (), span: Spans = ()
    ) -> Call:
        """The call of this operator on `operands`, its type inferred."""
        types = [operand.type for operand in operands]
        try:
            result = type_args[0] if type_args else self.infer(*types)
        except TransectError as error:
            raise error.at(span) from None
        return Call(self, operands, result, type_args, span)


@node
class Var(Value):
    """A graph variable; compares by identity. `dataflow`: visible only in its dataflow block."""

    cosmetic: ClassVar[tuple[str, ...]] = ("name",)
    identity: ClassVar[bool] = True

    name: str
    type: Type
    dataflow: bool = False
    span: Spans = ()


@node
class Constant(Value):
    """A tensor known at compile time. data: a read-only array, not copied."""

    data: np.ndarray
    type: Type
    span: Spans = ()


@node
class ShapeExpr(Value):
    """A shape as a value."""

    values: tuple[Expr, ...]
    type: Type
    span: Spans = ()


@node
class PrimValue(Value):
    """A scalar expression as a graph value."""

    value: Expr
    type: Type
    span: Spans = ()


@node
class StringValue(Value):
    """A string as a graph value."""

    value: str
    type: Type
    span: Spans = ()


@node
class DataTypeValue(Value):
    """A dtype as a graph value."""

    value: DType
    type: Type
    span: Spans = ()


@node
class Tuple(Value):
    """A tuple of values."""

    items: tuple[Value, ...]
    type: Type
    span: Spans = ()


@node
class TupleGetItem(Value):
    """One item of a tuple."""

    tuple_value: Value
    index: int
    type: Type
    span: Spans = ()


@node
class GlobalFunc(Value):
    """A function of the module, by name."""

    name: str
    type: Type
    span: Spans = ()


@node
class ExternFunc(Value):
    """A registered packed function, by name."""

    name: str
    type: Type
    span: Spans = ()


@node
class Call(Value):
    """`op` applied to `args`. type_args: types that the callee cannot infer, such as the result
    of a packed call."""

    op: Op | Value
    args: tuple[Value, ...]
    type: Type
    type_args: tuple[Type, ...] = ()
    span: Spans = ()


@node
class If(Value):
    """A branch; `condition` is a scalar tensor or PrimValue of dtype bool.

    Its tensors are its own, as are those of a function's result: what changes one of them in place
    later does not change the variable that the branch gave back.
    """

    condition: Value
    then_branch: SeqExpr
    else_branch: SeqExpr
    type: Type
    span: Spans = ()


@node
class VarBinding(Node):
    """var = value."""

    binds: ClassVar[tuple[str, ...]] = ("var",)

    var: Var
    value: Value
    span: Spans = ()


@node
class MatchCast(Node):
    """var = value, checked at run time to be of `type`, whose new variables it binds.

    what: what differs if the check of a shape fails, for the message; "" for the value's name.
    """

    binds: ClassVar[tuple[str, ...]] = ("type", "var")
    cosmetic: ClassVar[tuple[str, ...]] = ("what",)

    value: Value
    type: Type
    var: Var
    span: Spans = ()
    what: str = ""


Binding = VarBinding | MatchCast


@node
class BindingBlock(Node):
    """Bindings in order. dataflow: all are pure; those whose variable is not `dataflow` are the
    block's outputs."""

    bindings: tuple[Binding, ...]
    dataflow: bool = False
    span: Spans = ()


@node
class SeqExpr(Value):
    """Blocks, then a result."""

    blocks: tuple[BindingBlock, ...]
    body: Value
    type: Type
    span: Spans = ()


@node
class Function(BaseFunc, Value):
    """A graph function. The parameters' types bind its symbolic variables.

    pure: calls have no effect. A function without attrs["global_symbol"] is private.
    """

    binds: ClassVar[tuple[str, ...]] = ("params",)

    params: tuple[Var, ...]
    body: SeqExpr
    ret_type: Type
    type: Type
    pure: bool = True
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    span: Spans = ()


# --- building -------------------------------------------------------------------------------


def shape_expr(*values: ExprLike) -> ShapeExpr:
    """A ShapeExpr of these dimensions, integers taken as int64."""
    dims = tuple(as_expr(value) for value in values)
    return ShapeExpr(dims, ShapeType(dims, len(dims)))


def prim_value(value: ExprLike) -> PrimValue:
    """A scalar as a graph value."""
    expr = as_expr(value)
    return PrimValue(expr, PrimType(expr.dtype, expr))


def constant(data: Any, dtype: DType | str | None = None) -> Constant:
    """A Constant of an array (made read-only in place of a copy where it already has `dtype`)."""
    array = np.asarray(data, None if dtype is None else as_dtype(dtype).numpy)
    view = array.view()
    view.flags.writeable = False
    return Constant(view, tensor_type(tuple(IntImm(n) for n in view.shape), as_dtype(view.dtype)))


def make_tuple(*items: Value) -> Tuple:
    """A tuple of values."""
    return Tuple(items, TupleType(tuple(item.type for item in items)))


def tuple_item(value: Value, index: int) -> TupleGetItem:
    """Item `index` of a tuple value. Raises InputTypeError if it has none."""
    kind = value.type
    if isinstance(kind, ObjectType):
        return TupleGetItem(value, index, kind)
    if not isinstance(kind, TupleType) or not 0 <= index < len(kind.items):
        raise InputTypeError(f"no item {index} in a value of type {kind!r}")
    return TupleGetItem(value, index, kind.items[index])


def callee_name(call: Call) -> str | None:
    """The name of the module's function or the packed function that is called, if any."""
    return call.op.name if isinstance(call.op, GlobalFunc | ExternFunc) else None


def is_tensor(value: Value) -> bool:
    """Whether the value is known to be a tensor."""
    return isinstance(value.type, TensorType)


def global_var(func: GlobalFunc) -> GlobalVar:
    """The scalar-level name of the same function."""
    return GlobalVar(func.name)
