"""What builtins of Python and methods of buffers mean on expressions of a program."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from transect.ir.dtype import as_dtype
from transect.ir.expr import Expr, Ramp, as_expr, cast, const, maximum, minimum
from transect.script.axes import as_items
from transect.script.directives import Loops, StoreDirective
from transect.script.intrinsics import call_intrinsic
from transect.support.errors import InputTypeError
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.intrinsics import INTRINSICS


def _loops(*ends: Any) -> Loops:
    bounds: list[Any] = list(ends)
    if len(bounds) > 2:
        raise InputTypeError(
            "range in a tensor program has no step", remedy="scale the index instead"
        )
    start = 0 if len(bounds) == 1 else bounds[0]
    return Loops("serial", ((start, bounds[-1]),))


def _extremum(pair: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *items: reduce(pair, items)


def _intrinsic(name: str) -> Callable[..., Expr]:
    return lambda *values: call_intrinsic(INTRINSICS[name], values)


def _to(dtype: str) -> Callable[[Any], Expr]:
    return lambda value: cast(value, dtype)


TWINS: dict[Any, Callable[..., Any]] = {
    range: _loops,
    min: _extremum(minimum),
    max: _extremum(maximum),
    abs: _intrinsic("abs"),
    pow: _intrinsic("pow"),
    int: _to("int64"),
    float: _to("float32"),
}
"""What builtins mean when an argument is an expression of the program."""


def twin(function: Any) -> Any:
    """What `function` means on expressions of the program: itself, unless it is a builtin above."""
    builtin = getattr(function, "__module__", None) == "builtins"
    return TWINS.get(function, function) if builtin else function


def _scope_of(buffer: Buffer) -> Any:
    # A string, as in this IR, that may be called, as in TVM.
    return _Scope(buffer.scope)


class _Scope(str):
    __slots__ = ()

    def __call__(self) -> str:
        return str(self)


def _vload(buffer: Buffer) -> Callable[..., Expr]:
    def vload(indices: Any, dtype: Any = None, *, predicate: Expr | None = None) -> Expr:
        items = [as_expr(item) for item in as_items(indices)]
        lanes = 1 if dtype is None else as_dtype(dtype).lanes
        if lanes > 1 and items[-1].dtype.is_scalar:
            # As in TVM, the dtype says how many neighbours are read.
            items[-1] = Ramp(items[-1], const(1, items[-1].dtype), lanes)
        return BufferLoad(buffer, tuple(items), predicate)

    return vload


def _vstore(buffer: Buffer) -> Callable[..., StoreDirective]:
    def vstore(indices: Any, value: Any, *, predicate: Expr | None = None) -> StoreDirective:
        return StoreDirective(buffer, as_items(indices), value, predicate)

    return vstore


def _access_ptr(buffer: Buffer) -> Callable[..., Expr]:
    def access_ptr(
        mask: str | int,
        ptr_type: str = "handle",
        content_lanes: int = 1,
        offset: Any = 0,
        extent: Any = None,
    ) -> Expr:
        del ptr_type, content_lanes
        bits = mask if isinstance(mask, int) else ("r" in mask) + 2 * ("w" in mask)
        size: Any = 1
        for item in buffer.shape:
            size = item * size
        element = call_intrinsic(INTRINSICS["type_annotation"], (), buffer.dtype)
        start = buffer.elem_offset + offset
        length = size - offset if extent is None else extent
        return call_intrinsic(
            INTRINSICS["tvm_access_ptr"], (element, buffer.data, start, length, bits)
        )

    return access_ptr


def _offset_of(buffer: Buffer) -> Callable[[Any], list[Expr]]:
    def offset_of(indices: Any) -> list[Expr]:
        strides: list[Expr] = list(buffer.strides)
        if not strides:
            running: Expr = as_expr(1)
            for extent in reversed(buffer.shape):
                strides.insert(0, running)
                running = extent * running
        total = buffer.elem_offset
        for index, stride in zip(as_items(indices), strides, strict=True):
            total = total + as_expr(index) * stride
        return [total]

    return offset_of


BUFFER_METHODS: dict[str, Callable[[Buffer], Any]] = {
    "vload": _vload,
    "vstore": _vstore,
    "access_ptr": _access_ptr,
    "offset_of": _offset_of,
    "scope": _scope_of,
}
"""Methods that script knows on buffers besides their fields."""
