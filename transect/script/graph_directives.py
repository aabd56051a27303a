"""What the names of R evaluate to: descriptions of types, operators by name, frames.

Values that need no context (constants, shapes, names of packed functions) are IR at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from transect.ir.dtype import DType
from transect.ir.types import DeviceMesh
from transect.relax.expr import Value
from transect.relax.op import ENTRY_POINTS, OPERATORS
from transect.script.axes import as_items, is_items, scalar_dtype
from transect.script.directives import ScalarName
from transect.support.errors import InputTypeError

DESTINATION_CALLS = (
    "call_tir",
    "call_tir_inplace",
    "call_dps_packed",
    "dist.call_tir",
    "dist.call_tir_local_view",
)
"""Operators called with a function, its inputs as a tuple, and the type of what it writes."""
PACKED_CALLS = ("call_packed", "call_pure_packed", "call_inplace_packed")
"""Operators called with a function and its arguments."""
TUPLE_CALLS = (
    "call_builtin_with_ctx",
    "make_closure",
    "invoke_closure",
    "invoke_pure_closure",
    "vm.call_tir_dyn",
)
"""Operators called with a function and its arguments as a tuple."""


class TypeSpec:
    """Base of the descriptions of types: strings in them name symbolic dimensions."""


@dataclass(frozen=True)
class TensorSpec(TypeSpec):
    """`R.Tensor(...)`."""

    shape: tuple[Any, ...] | Value | None
    dtype: DType | None
    ndim: int
    device: Any


@dataclass(frozen=True)
class ShapeSpec(TypeSpec):
    """`R.Shape(...)`."""

    values: tuple[Any, ...] | None
    ndim: int


@dataclass(frozen=True)
class PrimSpec(TypeSpec):
    """`R.Prim(...)`."""

    dtype: DType | None
    value: Any


@dataclass(frozen=True)
class TupleSpec(TypeSpec):
    """`R.Tuple(...)`."""

    items: tuple[Any, ...]


@dataclass(frozen=True)
class ObjectSpec(TypeSpec):
    """`R.Object`."""


@dataclass(frozen=True)
class CallableSpec(TypeSpec):
    """`R.Callable(...)`."""

    params: tuple[Any, ...] | None
    ret: Any
    pure: bool


@dataclass(frozen=True)
class DTensorSpec(TypeSpec):
    """`R.DTensor(...)`: a tensor laid out over a mesh of devices."""

    tensor: TensorSpec
    mesh: Any
    placement: str


def _optional_dtype(value: Any) -> DType | None:
    return None if value is None or value == "" else scalar_dtype(value)


@dataclass(frozen=True)
class TensorName(TypeSpec):
    """`R.Tensor((n, d), "float32")` and `R.Tensor[(n, d), "float32"]`; alone, any tensor."""

    def __call__(
        self,
        shape: Any = None,
        dtype: Any = None,
        vdevice: Any = None,
        ndim: int = -1,
    ) -> TensorSpec:
        """A tensor type. A string as the only argument is the dtype."""
        if isinstance(shape, str | ScalarName) and dtype is None:
            shape, dtype = None, shape
        if isinstance(dtype, str) and ":" in dtype and vdevice is None:
            dtype, vdevice = None, dtype
        dims = shape if shape is None or isinstance(shape, Value) else as_items(shape)
        return TensorSpec(dims, _optional_dtype(dtype), ndim, vdevice)

    def __getitem__(self, arguments: Any) -> TensorSpec:
        if is_items(arguments) and len(arguments) == 2 and is_items(arguments[0]):  # pyright: ignore[reportUnknownArgumentType]
            return self(arguments[0], arguments[1])
        return self(arguments)


@dataclass(frozen=True)
class DTensorName(TypeSpec):
    """`R.DTensor(shape, dtype, device_mesh, placement)`."""

    def __call__(
        self,
        shape: Any = None,
        dtype: Any = None,
        device_mesh: Any = "mesh[0]",
        placement: str = "",
        *,
        ndim: int = -1,
    ) -> DTensorSpec:
        """A tensor over a mesh. device_mesh: a mesh or its place in the module ("mesh[0]").

        placement: how each axis of the mesh divides the tensor, "S[axis]" or "R": "S[0], R".
        """
        return DTensorSpec(TensorName()(shape, dtype, ndim=ndim), device_mesh, placement)


@dataclass(frozen=True)
class ShapeName(TypeSpec):
    """`R.Shape([n, m])`, `R.Shape(ndim=2)`; alone, any shape."""

    def __call__(self, values: Any = None, ndim: int = -1) -> ShapeSpec:
        """The type of a shape."""
        items = None if values is None else as_items(values)
        return ShapeSpec(items, len(items) if items is not None else ndim)


@dataclass(frozen=True)
class PrimName(TypeSpec):
    """`R.Prim("int64")`, `R.Prim(value=n)`."""

    def __call__(self, dtype: Any = None, value: Any = None) -> PrimSpec:
        """The type of a scalar."""
        if dtype is None and value is None:
            raise InputTypeError(
                "R.Prim needs a dtype or a value", remedy='R.Prim("int64"), R.Prim(value=n)'
            )
        return PrimSpec(_optional_dtype(dtype), value)


@dataclass(frozen=True)
class TupleName(TypeSpec):
    """`R.Tuple(a, b)`, `R.Tuple([a, b])`; alone, the empty tuple."""

    def __call__(self, *items: Any) -> TupleSpec:
        """The type of a tuple."""
        if len(items) == 1 and isinstance(items[0], list | tuple):
            return TupleSpec(as_items(items[0]))
        return TupleSpec(items)

    def __getitem__(self, items: Any) -> TupleSpec:
        return self(*as_items(items))


@dataclass(frozen=True)
class ObjectName(TypeSpec):
    """`R.Object`, `R.Any`: anything."""

    def __call__(self) -> ObjectSpec:
        """The type of anything."""
        return ObjectSpec()


@dataclass(frozen=True)
class CallableName(TypeSpec):
    """`R.Callable((a, b), result)`; alone, any function."""

    def __call__(
        self,
        params: Any = None,
        ret: Any = None,
        purity: bool | None = None,
        pure: bool | None = None,
    ) -> CallableSpec:
        """The type of a function. pure: True by default if the parameters are given."""
        given = purity if purity is not None else pure
        is_pure = params is not None if given is None else given
        return CallableSpec(
            None if params is None else as_items(params),
            ObjectSpec() if ret is None else ret,
            is_pure,
        )


@dataclass(frozen=True)
class MatchCastSpec:
    """`R.match_cast(value, type)`."""

    value: Any
    type: Any


@dataclass(frozen=True)
class DataflowFrame:
    """`with R.dataflow():`."""


@dataclass(frozen=True)
class BindingsFrame:
    """`with R.bindings():`: a block of bindings of its own, apart from those before it."""


@dataclass(frozen=True)
class OutputDirective:
    """`R.output(...)`."""

    values: tuple[Any, ...]


def device_mesh(shape: Sequence[int], device_ids: Any) -> DeviceMesh:
    """A mesh of devices. device_ids: as many as the shape has elements, or a range of them."""
    sizes = tuple(shape)
    if hasattr(device_ids, "extent"):
        first = device_ids.min.value
        ids = tuple(range(first, first + device_ids.extent.value))
    else:
        ids = tuple(int(item) for item in device_ids)
    if int(np.prod(sizes)) != len(ids):
        raise InputTypeError(f"a mesh of shape {sizes} with {len(ids)} devices")
    return DeviceMesh(sizes, ids)


_DISTRIBUTED: dict[str, Any] = {"dist.DTensor": DTensorName(), "dist.device_mesh": device_mesh}
"""Names of R.dist that are no operators."""


@dataclass(frozen=True)
class OperatorName:
    """`R.add`, `R.nn`, `R.nn.softmax`: an operator, or a family of them."""

    name: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        whole = f"{self.name}.{name}"
        return _DISTRIBUTED[whole] if whole in _DISTRIBUTED else operator_name(whole)

    def __dir__(self) -> list[str]:
        start = f"{self.name}."
        return sorted({name.removeprefix(start) for name in OPERATORS if name.startswith(start)})

    def __repr__(self) -> str:
        return f"R.{self.name}"


def operator_name(name: str) -> OperatorName:
    """The operator or family of this name. Raises AttributeError if there is none."""
    known = (
        [*OPERATORS, *(point.name for point in entry_points(group=ENTRY_POINTS))]
        if name not in OPERATORS
        else [name]
    )
    if name in known or any(item.startswith(f"{name}.") for item in known):
        return OperatorName(name)
    raise AttributeError(f"R has no {name!r}")
