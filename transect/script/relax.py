"""The names of R: what graph functions are written with. `from transect.script import relax as R`.

Every operator of `relax.op` (R.add, R.nn.softmax, …) is a name of this module, too.
"""

from __future__ import annotations

import inspect
import typing
from collections import abc

import numpy as np

from transect.ir.dtype import as_dtype
from transect.ir.expr import ExprLike, as_expr
from transect.ir.types import ObjectType
from transect.relax import expr as rx
from transect.relax.call import extern
from transect.relax.op import OPERATORS
from transect.script import directives as d
from transect.script import graph_directives as g
from transect.script.axes import as_items, scalar_dtype
from transect.script.entry import decorate

# --- functions ------------------------------------------------------------------------------


def function(
    function: abc.Callable[..., typing.Any] | None = None, **options: typing.Any
) -> typing.Any:
    """Decorator: parse a Python function as a graph function.

    private: do not export it. pure: calls have no effect; found out from the body if not given.
    check_well_formed is accepted as TVM's and has no effect: verification is a pass's.
    """
    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    return decorate("relax", function, options, caller)


def func_attr(attrs: abc.Mapping[str, typing.Any]) -> d.Attributes:
    """Attributes of the function."""
    return d.Attributes("function", attrs)


def dataflow() -> g.DataflowFrame:
    """`with R.dataflow():` bindings without effects; only outputs are visible after it."""
    return g.DataflowFrame()


def bindings() -> g.BindingsFrame:
    """`with R.bindings():` a block of ordinary bindings apart from those before it."""
    return g.BindingsFrame()


def output(*values: typing.Any) -> g.OutputDirective:
    """The variables of a dataflow block that are visible outside of it."""
    return g.OutputDirective(values)


def match_cast(value: typing.Any, type: typing.Any) -> g.MatchCastSpec:
    """`y = R.match_cast(x, type)`: check at run time that x has a type; binds new variables."""
    return g.MatchCastSpec(value, type)


# --- types ----------------------------------------------------------------------------------

Tensor = g.TensorName()
DTensor = g.DTensorName()
Shape = g.ShapeName()
Prim = g.PrimName()
Tuple = g.TupleName()
Object = Any = g.ObjectName()
Callable = g.CallableName()
device_mesh = g.device_mesh


# --- values ---------------------------------------------------------------------------------


def const(
    value: typing.Any, dtype: typing.Any = None, *, shape: abc.Sequence[int] | None = None
) -> rx.Constant:
    """A constant tensor. A Python float is float32, an int is int64, unless `dtype` says else."""
    if isinstance(value, np.ndarray):
        return rx.constant(value, None if dtype is None else scalar_dtype(dtype))
    array: np.ndarray = np.asarray(value)
    if dtype is not None:
        array = _converted(value, scalar_dtype(dtype).numpy)
    elif array.dtype.kind == "f":
        array = array.astype(np.float32)
    return rx.constant(array if shape is None else array.reshape(tuple(shape)))


def _converted(value: typing.Any, dtype: np.dtype) -> np.ndarray:
    # By way of double where numpy does not convert Python numbers itself (bfloat16, float8).
    if dtype.kind == "V":
        return np.asarray(value, np.float64).astype(dtype)
    return np.asarray(value, dtype)


def shape(values: abc.Sequence[ExprLike]) -> rx.ShapeExpr:
    """A shape as a value."""
    return rx.shape_expr(*as_items(values))


ShapeExpr = shape


def prim_value(value: ExprLike) -> rx.PrimValue:
    """A scalar as a value."""
    return rx.prim_value(as_expr(value))


def _string(value: str) -> rx.StringValue:
    """A string as a value."""
    return rx.StringValue(value, ObjectType())


def dtype(value: typing.Any) -> rx.DataTypeValue:
    """A dtype as a value."""
    return rx.DataTypeValue(as_dtype(value), ObjectType())


def ExternFunc(name: str) -> rx.ExternFunc:
    """The packed function registered as `name`."""
    return extern(name)


def TupleGetItem(value: rx.Value, index: int) -> rx.TupleGetItem:
    """One item of a tuple, as `value[index]`."""
    return rx.tuple_item(value, index)


_SPECIAL: dict[str, typing.Any] = {
    # Names that this module needs for itself in their Python sense.
    "str": _string,
    # The older name of call_tir, and what is no operator but is parsed as one.
    "call_dps": g.OperatorName("call_dps"),
    "tuple": g.OperatorName("tuple"),
    "emit_te": g.OperatorName("emit_te"),
    "emit_with_ty": g.OperatorName("emit_with_ty"),
    "emit_with_sinfo": g.OperatorName("emit_with_sinfo"),
}


def __getattr__(name: str) -> typing.Any:
    if name in _SPECIAL:
        return _SPECIAL[name]
    return g.operator_name(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_SPECIAL, *(name.split(".")[0] for name in OPERATORS)})
