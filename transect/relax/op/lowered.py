"""What lowering leaves in graphs: views, lifetimes, the calls of the virtual machine, devices.

Storage and tensors in it are in `memory.py`. Later passes consume these; most have no loops.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import FLOAT32, UINT8, DType
from transect.ir.expr import Expr, IntImm
from transect.ir.types import (
    VOID_TYPE,
    ObjectType,
    PrimType,
    ShapeType,
    TensorType,
    Type,
    VDevice,
    tensor_type,
)
from transect.relax.expr import Op, Value
from transect.relax.op.inference import (
    analyzer_of,
    fail,
    present,
    product,
    shape,
    shape_rank,
    tensor,
)
from transect.relax.op.operator import Emit, Operator


def tensor_of_shape(op: Op, value: Type, dtype: DType) -> TensorType:
    """A tensor of the shape that an operand gives."""
    return tensor_type(shape(op, value, "shape"), dtype, shape_rank(op, value, "shape"))


@dataclass(frozen=True)
class View(Operator):
    """memory.view(x, shape, relative_byte_offset, dtype): the memory of x under another shape,
    dtype and offset. It must lie inside the memory of x.

    shape: by default that of x. relative_byte_offset: in bytes, 0 by default. dtype: by default
    that of x. Source: Relax memory.view.
    """

    name = "memory.view"
    script_order = ("x", "shape", "dtype", "relative_byte_offset")
    dtype: DType | None = None

    def infer(
        self, x: Type, shape: Type | None = None, relative_byte_offset: Type | None = None
    ) -> TensorType:
        """The given shape and dtype. Raises InferenceError if the view provably reaches outside."""
        data = tensor(self, x, "x")
        dtype = data.dtype if self.dtype is None else self.dtype
        offset = present(relative_byte_offset)
        start: Expr | None = IntImm(0)
        if offset is not None:
            if not (isinstance(offset, PrimType) and offset.dtype.is_integral):
                fail(self, f"relative_byte_offset must be an integer, got {offset!r}")
            start = offset.value
        if shape is None or present(shape) is None:
            result = TensorType(data.shape, dtype, data.ndim, data.device)
        else:
            result = _viewed(self, shape, dtype, data)
        if data.shape is None or result.shape is None or data.dtype is None or dtype is None:
            return result
        have = product(data.shape) * data.dtype.bytes
        need = product(result.shape) * dtype.bytes
        if start is not None and analyzer_of(have, need, start).can_prove(start + need > have):
            fail(self, f"a view of {need!r} bytes at {start!r} reaches beyond the {have!r} of x")
        return result


def _viewed(op: Op, value: Type, dtype: DType | None, x: TensorType) -> TensorType:
    return tensor_type(shape(op, value, "shape"), dtype, shape_rank(op, value, "shape"), x.device)


@dataclass(frozen=True)
class EnsureZeroOffset(Operator):
    """memory.ensure_zero_offset(x): x, copied if its data does not start at its pointer.

    Source: Relax memory.ensure_zero_offset.
    """

    name = "memory.ensure_zero_offset"

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        return tensor(self, x, "x")


@dataclass(frozen=True)
class Kill(Operator):
    """Base of the ends of lifetimes."""

    pure = False

    def infer(self, x: Type) -> Type:
        """The empty tuple."""
        del x
        return VOID_TYPE


@dataclass(frozen=True)
class KillStorage(Kill):
    """memory.kill_storage(x): the storage x is not used any more. Source: Relax."""

    name = "memory.kill_storage"


@dataclass(frozen=True)
class KillTensor(Kill):
    """memory.kill_tensor(x): the tensor x is not used any more. Source: Relax."""

    name = "memory.kill_tensor"


@dataclass(frozen=True)
class KillObject(Kill):
    """vm.kill_object(x): the value x is not used any more. Source: Relax."""

    name = "vm.kill_object"


@dataclass(frozen=True)
class BuiltinAllocTensor(Operator):
    """builtin.alloc_tensor(shape, dtype): a tensor of unknown content.

    runtime_device_index: of the module's devices. storage_scope: of memory. Source: Relax.
    """

    name = "builtin.alloc_tensor"
    dtype: DType = FLOAT32
    runtime_device_index: int = 0
    storage_scope: str = "global"

    def infer(self, shape: Type) -> TensorType:
        """The given shape."""
        return tensor_of_shape(self, shape, self.dtype)


@dataclass(frozen=True)
class VMAllocStorage(Operator):
    """vm.alloc_storage(size): memory of `size` bytes, as an object of the virtual machine.

    size: a shape of one value (or of a tensor of `dtype`). Source: Relax vm.alloc_storage.
    """

    name = "vm.alloc_storage"
    runtime_device_index: int = 0
    dtype: DType = UINT8
    storage_scope: str = "global"

    def infer(self, size: Type) -> ObjectType:
        """An object."""
        if not isinstance(size, ShapeType):
            fail(self, f"size must be a shape, got {size!r}")
        return ObjectType()


@dataclass(frozen=True)
class VMAllocTensor(Operator):
    """vm.alloc_tensor(storage, offset, shape, dtype): a tensor in memory of the virtual machine.

    offset: in bytes. Source: Relax vm.alloc_tensor.
    """

    name = "vm.alloc_tensor"
    dtype: DType = FLOAT32
    runtime_device_index: int = 0

    def infer(self, storage: Type, offset: Type, shape: Type) -> TensorType:
        """The given shape."""
        del storage
        if not isinstance(offset, PrimType):
            fail(self, f"offset must be a scalar, got {offset!r}")
        return tensor_of_shape(self, shape, self.dtype)


@dataclass(frozen=True)
class VMCallTIRDyn(Operator):
    """vm.call_tir_dyn(f, (args..., shape)): run the tensor program `f` on tensors, outputs
    included, and the scalars of a shape. Source: Relax vm.call_tir_dyn.
    """

    name = "vm.call_tir_dyn"
    pure = False

    def infer(self, function: Type, arguments: Type) -> Type:
        """The empty tuple."""
        del function, arguments
        return VOID_TYPE


# --- devices and checkpoints -------------------------------------------------------------------


@dataclass(frozen=True)
class ToVDevice(Operator):
    """to_vdevice(x, dst_vdevice): x on another device of the module. Source: Relax to_vdevice."""

    name = "to_vdevice"
    dst_vdevice: VDevice

    def infer(self, x: Type) -> TensorType:
        """The type of x, on the device."""
        data = tensor(self, x, "x")
        return TensorType(data.shape, data.dtype, data.ndim, self.dst_vdevice)


@dataclass(frozen=True)
class HintOnDevice(Operator):
    """hint_on_device(x, dst_vdevice): x, with the wish that it be computed on a device.

    Source: Relax hint_on_device.
    """

    name = "hint_on_device"
    dst_vdevice: VDevice

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        return tensor(self, x, "x")

    def decompose(self, emit: Emit, x: Value) -> Value:
        """x: nothing is left of the hint when operators become loops."""
        del emit
        return x


@dataclass(frozen=True)
class Checkpoint(Operator):
    """Base of the marks that say what a gradient keeps and what it computes again."""

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        return tensor(self, x, "x")

    def decompose(self, emit: Emit, x: Value) -> Value:
        """x: the marks mean nothing to a forward program."""
        del emit
        return x


@dataclass(frozen=True)
class StartCheckpoint(Checkpoint):
    """grad.start_checkpoint(x): x; what follows is computed again in the gradient.

    Source: Relax grad.start_checkpoint.
    """

    name = "grad.start_checkpoint"


@dataclass(frozen=True)
class EndCheckpoint(Checkpoint):
    """grad.end_checkpoint(x): x; what went before is computed again in the gradient.

    Source: Relax grad.end_checkpoint.
    """

    name = "grad.end_checkpoint"


@dataclass(frozen=True)
class NoGrad(Checkpoint):
    """grad.no_grad(x): x, through which no gradient flows. Source: Relax grad.no_grad."""

    name = "grad.no_grad"
