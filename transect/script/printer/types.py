"""Types of graph values as script text."""

from __future__ import annotations

from collections.abc import Callable

from transect.ir.expr import Expr
from transect.ir.term import Term
from transect.ir.types import (
    CallableType,
    DeviceMesh,
    DTensorType,
    DummyGlobalInfo,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    VDevice,
)
from transect.script.printer.names import quote

Dim = Callable[[Expr], str]
"""How a dimension prints: as an expression, or as a string where Python evaluates it."""


def print_type(kind: Term, dim: Dim) -> str:
    """`R.Tensor((n, 4), "float32")` and its siblings."""
    if isinstance(kind, TensorType):
        return f"R.Tensor({', '.join(_tensor(kind, dim))})" if _tensor(kind, dim) else "R.Tensor"
    if isinstance(kind, ShapeType):
        if kind.values is not None:
            return f"R.Shape([{', '.join(map(dim, kind.values))}])"
        return "R.Shape" if kind.ndim < 0 else f"R.Shape(ndim={kind.ndim})"
    if isinstance(kind, PrimType):
        value = "" if kind.value is None else f", value={dim(kind.value)}"
        return f'R.Prim("{kind.dtype}"{value})'
    if isinstance(kind, TupleType):
        return (
            f"R.Tuple({', '.join(print_type(item, dim) for item in kind.items)})"
            if kind.items
            else "R.Tuple"
        )
    if isinstance(kind, ObjectType):
        return "R.Object"
    if isinstance(kind, CallableType):
        if kind.params is None and isinstance(kind.ret, ObjectType):
            return "R.Callable(pure=True)" if kind.pure else "R.Callable"
        comma = "," if kind.params is not None and len(kind.params) == 1 else ""
        inside = (
            "None"
            if kind.params is None
            else f"({', '.join(print_type(item, dim) for item in kind.params)}{comma})"
        )
        return f"R.Callable({inside}, {print_type(kind.ret, dim)}, {kind.pure})"
    if isinstance(kind, DTensorType):
        shown = ", ".join(_tensor(kind.tensor, dim))
        mesh = print_info(kind.mesh)
        return f'R.DTensor({shown}, device_mesh={mesh}, placement="{kind.placement}")'
    return print_info(kind)


def _tensor(kind: TensorType, dim: Dim) -> list[str]:
    parts: list[str] = []
    if kind.shape is not None:
        parts.append(f"({', '.join(map(dim, kind.shape))}{',' if len(kind.shape) == 1 else ''})")
    if kind.dtype is not None:
        parts.append(f'"{kind.dtype}"' if kind.shape is not None else f'dtype="{kind.dtype}"')
    if kind.shape is None and kind.ndim >= 0:
        parts.append(f"ndim={kind.ndim}")
    if kind.device is not None:
        parts.append(f"vdevice={print_info(kind.device)}")
    return parts


def print_info(value: Term) -> str:
    """A virtual device or a mesh."""
    if isinstance(value, VDevice):
        return f"I.vdevice({quote(value.target)}, {value.index}, {quote(value.scope)})"
    if isinstance(value, DeviceMesh):
        return f"R.device_mesh({value.shape!r}, {list(value.device_ids)!r})"
    if isinstance(value, DummyGlobalInfo):
        return "I.dummy_global_info()"
    return type(value).__name__
