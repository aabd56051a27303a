"""The types of graph values: tensors with symbolic shapes, shapes, tuples, functions, objects."""

from __future__ import annotations

from transect.ir.dtype import DType
from transect.ir.expr import Expr
from transect.ir.printing import render
from transect.ir.term import Term, term
from transect.support.errors import InputTypeError


class Type(Term):
    """Base of graph-level types."""

    __slots__ = ()

    def __repr__(self) -> str:
        return render(self)


@term
class VDevice(Term):
    """A device of the module: a target's name, its index and a memory scope."""

    target: str
    index: int = 0
    scope: str = "global"


@term
class TensorType(Type):
    """A tensor. shape: its dimensions (int64 expressions), or None if unknown; dtype: None if
    unknown; ndim: -1 if unknown (given by `shape` when that is known); device: None is the host.

    Build one with `tensor_type`, which fills `ndim`.
    """

    shape: tuple[Expr, ...] | None
    dtype: DType | None
    ndim: int
    device: VDevice | None = None

    def _derive(self) -> None:
        if self.shape is not None and len(self.shape) != self.ndim:
            raise InputTypeError(f"a shape of {len(self.shape)} dimensions with ndim={self.ndim}")


def tensor_type(
    shape: tuple[Expr, ...] | None,
    dtype: DType | None,
    ndim: int | None = None,
    device: VDevice | None = None,
) -> TensorType:
    """A TensorType; without a shape, `ndim` may say the rank; -1 or None: it is unknown."""
    rank = len(shape) if shape is not None else (-1 if ndim is None else ndim)
    return TensorType(shape, dtype, rank, device)


@term
class DeviceMesh(Term):
    """A grid of devices: `device_ids` in row-major order of `shape`."""

    shape: tuple[int, ...]
    device_ids: tuple[int, ...]


@term
class DummyGlobalInfo(Term):
    """Information about a module that says nothing: it stands where some is expected."""


@term
class DTensorType(Type):
    """A tensor divided over a mesh.

    placement: for each axis of the mesh, "S[k]" (it splits axis k of the tensor) or "R" (each
    device along it holds a copy), joined by ", ".
    """

    tensor: TensorType
    mesh: DeviceMesh
    placement: str


@term
class ShapeType(Type):
    """A shape as a value. values: its dimensions if known; ndim: -1 if unknown."""

    values: tuple[Expr, ...] | None
    ndim: int


@term
class PrimType(Type):
    """A scalar as a graph value; `value` is its expression when known."""

    dtype: DType
    value: Expr | None = None


@term
class TupleType(Type):
    """A tuple of values; the empty one is the type of functions that return nothing."""

    items: tuple[Type, ...]


@term
class ObjectType(Type):
    """Any value: what a packed call returns before it is matched."""


@term
class CallableType(Type):
    """A function. params: None for any; pure: it has no effect besides its result."""

    params: tuple[Type, ...] | None
    ret: Type
    pure: bool = True


VOID_TYPE = TupleType(())
