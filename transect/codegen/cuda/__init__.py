"""CUDA code generation: tensor programs with thread bindings -> CUDA C++ -> cubin, by NVRTC.

Launching what comes out is in `hardware.cuda`; how loops are bound to threads in `tir.schedule`.
"""

from transect.codegen.cuda.build import DeviceModule, build
from transect.codegen.cuda.split_host_device import Kernel, SplitHostDevice

__all__ = ["DeviceModule", "Kernel", "SplitHostDevice", "build"]
