"""Running compiled kernels on a GPU, through the driver: load, allocate, copy, launch.

For tests, examples and measurement with arrays in host memory; needs a GPU and its driver.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import numpy as np

from transect.arith.evaluate import evaluate
from transect.codegen.cuda import DeviceModule, Kernel
from transect.ir.dtype import DType
from transect.ir.expr import Expr, Var
from transect.ir.traverse import free_vars
from transect.support.errors import ExecutionError, InputError, InputTypeError
from transect.tir.function import PrimFunc, buffer_fields

_CTYPES: dict[str, Any] = {
    "bool": ctypes.c_bool,
    "int8": ctypes.c_int8,
    "int16": ctypes.c_int16,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "uint8": ctypes.c_uint8,
    "uint16": ctypes.c_uint16,
    "uint32": ctypes.c_uint32,
    "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


def _driver() -> Any:
    # cuda-bindings ships no types; it is an extra that only GPU users install.
    return import_module("cuda.bindings.driver")


def _checked(result: tuple[Any, ...], what: str) -> Any:
    status, *values = result
    if int(status) != 0:
        raise ExecutionError(f"{what}: {status}", remedy="check the GPU with nvidia-smi")
    return values[0] if len(values) == 1 else tuple(values) if values else None


def device_count() -> int:
    """How many GPUs this process can use; 0 also where there is no driver."""
    try:
        driver = _driver()
        if int(driver.cuInit(0)[0]) != 0:
            return 0
        return int(_checked(driver.cuDeviceGetCount(), "counting GPUs"))
    except (ImportError, RuntimeError, OSError):
        return 0


def device_arch(index: int = 0) -> str:
    """The architecture of a GPU as NVRTC spells it, such as "sm_90"."""
    driver = _driver()
    _checked(driver.cuInit(0), "starting the driver")
    device = _checked(driver.cuDeviceGet(index), "finding the GPU")
    names = driver.CUdevice_attribute
    numbers = [
        _checked(driver.cuDeviceGetAttribute(attribute, device), "asking the GPU")
        for attribute in (
            names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    ]
    return f"sm_{numbers[0]}{numbers[1]}"


class Launcher:
    """A device module loaded on one GPU; a context manager. Not for several threads at once."""

    def __init__(self, module: DeviceModule, index: int = 0) -> None:
        self.module = module
        self.driver = _driver()
        _checked(self.driver.cuInit(0), "starting the driver")
        self.device = _checked(self.driver.cuDeviceGet(index), "finding the GPU")
        self.context = _checked(
            self.driver.cuDevicePrimaryCtxRetain(self.device), "opening the GPU"
        )
        _checked(self.driver.cuCtxSetCurrent(self.context), "using the GPU")
        self.loaded = _checked(self.driver.cuModuleLoadData(module.cubin), "loading kernels")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unload the kernels and let go of the GPU."""
        if self.loaded is not None:
            self.driver.cuModuleUnload(self.loaded)
            self.driver.cuDevicePrimaryCtxRelease(self.device)
            self.loaded = None

    def run(self, name: str, *arrays: np.ndarray, repeat: int = 1) -> float:
        """Run a tensor program on arrays in host memory, which it changes in place.

        arrays: one C-contiguous array for each buffer parameter. repeat: how many times to launch.
        Gives the seconds that one launch took, measured by events. Raises InputError for arrays
        that do not fit the parameters.
        """
        func = self.module.functions[name]
        sizes = bind_sizes(func, arrays)
        memory = [self._upload(array) for array in arrays]
        try:
            values: dict[Var, Any] = dict(sizes)
            for buffer, pointer in zip(func.buffers, memory, strict=True):
                values[buffer.data] = int(pointer)
            start, stop = (_checked(self.driver.cuEventCreate(0), "timing") for _ in range(2))
            _checked(self.driver.cuEventRecord(start, 0), "timing")
            for _ in range(repeat):
                for kernel in self.module.kernels[name]:
                    self._launch(kernel, values, sizes)
            _checked(self.driver.cuEventRecord(stop, 0), "timing")
            _checked(self.driver.cuEventSynchronize(stop), f"running {name}")
            milliseconds = _checked(self.driver.cuEventElapsedTime(start, stop), "timing")
            for array, pointer in zip(arrays, memory, strict=True):
                if array.nbytes:
                    copy = self.driver.cuMemcpyDtoH(array.ctypes.data, pointer, array.nbytes)
                    _checked(copy, "copying results")
            for event in (start, stop):
                self.driver.cuEventDestroy(event)
        finally:
            for pointer in memory:
                self.driver.cuMemFree(pointer)
        return float(milliseconds) * 1e-3 / repeat

    def _upload(self, array: np.ndarray) -> Any:
        pointer = _checked(self.driver.cuMemAlloc(max(1, array.nbytes)), "allocating")
        if array.nbytes:
            copy = self.driver.cuMemcpyHtoD(pointer, array.ctypes.data, array.nbytes)
            _checked(copy, "copying arguments")
        return pointer

    def _launch(self, kernel: Kernel, values: Mapping[Var, Any], sizes: Mapping[Var, int]) -> None:
        grid = [_number(extent, sizes) for extent in kernel.grid]
        block = [_number(extent, sizes) for extent in kernel.block]
        if 0 in (*grid, *block):
            return  # Nothing to compute; the driver refuses empty grids.
        function = _checked(
            self.driver.cuModuleGetFunction(self.loaded, kernel.name.encode()), "finding a kernel"
        )
        packed = (
            tuple(values[var] for var in kernel.args),
            tuple(_ctype(var.dtype) for var in kernel.args),
        )
        launch = self.driver.cuLaunchKernel(function, *grid, *block, 0, 0, packed, 0)
        _checked(launch, f"launching {kernel.name}")


def _ctype(dtype: DType) -> Any:
    return ctypes.c_void_p if dtype.is_handle else _CTYPES[str(dtype)]


def _number(extent: Expr, sizes: Mapping[Var, int]) -> int:
    return int(evaluate(extent, {var: sizes[var] for var in free_vars([extent])}))


def bind_sizes(func: PrimFunc, arrays: Sequence[np.ndarray]) -> dict[Var, int]:
    """The sizes that arrays give to the variables of a function's buffers.

    Raises InputError if the arrays are too few, of another rank or dtype, not contiguous, or
    contradict each other.
    """
    if len(arrays) != len(func.buffers):
        raise InputError(f"{len(arrays)} arrays for {len(func.buffers)} buffers")
    sizes: dict[Var, int] = {}
    for buffer, array in zip(func.buffers, arrays, strict=True):
        if array.dtype != buffer.dtype.numpy:
            raise InputTypeError(f"{buffer.name} takes {buffer.dtype}, got {array.dtype}")
        if array.ndim != buffer.ndim or not array.flags.c_contiguous or buffer.strides:
            raise InputError(
                f"{buffer.name} takes a C-contiguous array of {buffer.ndim} dimensions, "
                f"got shape {array.shape}"
            )
        for extent, size in zip(buffer.shape, array.shape, strict=True):
            if isinstance(extent, Var) and extent not in sizes:
                sizes[extent] = size
    for buffer, array in zip(func.buffers, arrays, strict=True):
        for extent, size in zip(buffer.shape, array.shape, strict=True):
            unknown = [v.name for v in free_vars(buffer_fields(buffer)) if v not in sizes]
            if unknown:
                raise InputError(f"{buffer.name} does not tell the size {unknown[0]!r}")
            if _number(extent, sizes) != size:
                raise InputError(
                    f"{buffer.name} has a dimension of {size} where {extent!r} is "
                    f"{_number(extent, sizes)}"
                )
    return sizes
