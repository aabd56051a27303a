"""NVRTC, NVIDIA's run-time compiler, behind a typed function. It needs no GPU."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from transect.support.errors import UnsupportedError

# cuda-bindings ships no types.
_API: Any = import_module("cuda.bindings.nvrtc")


def compile_cubin(source: str, arch: str, name: str = "kernels.cu") -> bytes:
    """Machine code for one architecture ("sm_90a"). Raises UnsupportedError with NVRTC's log if
    the source does not compile or the architecture is unknown."""
    program = _checked(_API.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], []))
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", b"--fmad=true"]
    (status,) = _API.nvrtcCompileProgram(program, len(options), options)
    try:
        if status != _API.nvrtcResult.NVRTC_SUCCESS:
            size = _checked(_API.nvrtcGetProgramLogSize(program))
            log = b" " * size
            _checked(_API.nvrtcGetProgramLog(program, log))
            raise UnsupportedError(
                f"NVRTC refused the generated code for {arch}",
                notes=[line for line in log.decode(errors="replace").splitlines() if line.strip()],
                remedy="report this with the program that was compiled",
            )
        code = b" " * _checked(_API.nvrtcGetCUBINSize(program))
        _checked(_API.nvrtcGetCUBIN(program, code))
        return code
    finally:
        _API.nvrtcDestroyProgram(program)


def _checked(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if status != _API.nvrtcResult.NVRTC_SUCCESS:
        raise UnsupportedError(f"NVRTC failed: {status}", remedy="check nvidia-cuda-nvrtc")
    return values[0] if values else None
