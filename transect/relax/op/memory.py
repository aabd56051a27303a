"""Memory as values: what the memory plan leaves in a program.

Which tensor goes where it decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import FLOAT32, UINT8, DType
from transect.ir.expr import Expr, Var, const
from transect.ir.types import PrimType, ShapeType, TensorType, Type, tensor_type
from transect.relax.op.inference import fail
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


@dataclass(frozen=True)
class AllocStorage(Operator):
    """memory.alloc_storage(size): an arena of `size` bytes, aligned to 64, of unknown content.

    size: a shape of one value. It lives as long as the call of the function around it.
    virtual_device_index: of the module's devices. dtype: of most tensors in it, a hint.
    Source: Relax memory.alloc_storage.
    """

    name = "memory.alloc_storage"
    script_order = ("size", "virtual_device_index", "scope", "dtype")
    scope: str = "global"
    virtual_device_index: int = 0
    dtype: DType = UINT8

    def infer(self, size: Type) -> TensorType:
        """The bytes as a vector of uint8."""
        if not isinstance(size, ShapeType) or size.ndim != 1:
            fail(self, f"size must be a shape of one value, got {size!r}")
        return tensor_type(size.values, UINT8, 1)

    def legalize(self, b: FunctionBuilder, size: tuple[Expr, ...]) -> Buffer:
        """Zeros: as good as any content."""
        return _zeros(b, size, UINT8)


@dataclass(frozen=True)
class AllocTensor(Operator):
    """memory.alloc_tensor(storage, offset, shape): a tensor in an arena, of unknown content.

    storage: an arena. offset: in bytes, a multiple of 64. Tensors of one arena may overlap where
    their uses do not. virtual_device_index: of the module's devices.
    Source: Relax memory.alloc_tensor.
    """

    name = "memory.alloc_tensor"
    script_order = ("storage", "offset", "shape", "dtype", "virtual_device_index")
    dtype: DType = FLOAT32
    virtual_device_index: int = 0

    def infer(self, storage: Type, offset: Type, shape: Type) -> TensorType:
        """A tensor of this shape."""
        if not isinstance(storage, TensorType) or storage.dtype is not UINT8:
            fail(self, f"storage must be bytes, got {storage!r}")
        if not isinstance(offset, PrimType) or not offset.dtype.is_int:
            fail(self, f"offset must be an integer, got {offset!r}")
        if not isinstance(shape, ShapeType):
            fail(self, f"shape must be a shape, got {shape!r}")
        return tensor_type(shape.values, self.dtype, shape.ndim, storage.device)

    def legalize(
        self, b: FunctionBuilder, storage: Buffer, offset: Expr, shape: tuple[Expr, ...]
    ) -> Buffer:
        """Zeros: as good as any content."""
        del storage, offset
        return _zeros(b, shape, self.dtype)


def _zeros(b: FunctionBuilder, shape: tuple[Expr, ...], dtype: DType) -> Buffer:
    def element(*indices: Var) -> Expr:
        del indices
        return const(0, dtype)

    return b.compute(shape, element, name="y", dtype=dtype)
