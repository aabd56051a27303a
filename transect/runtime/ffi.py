"""Imports tvm-ffi without torch and CUDA. Everything else in the runtime imports it after this.

tvm-ffi imports torch wherever that is installed: 0.9 s and 210 MB for a process that may never see
a torch tensor; and CUDA's driver, 0.03 s and 7 MB. It needs them for nothing that transect calls:
tensors of a torch that is imported later pass through DLPack, streams as integers.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hidden = [
    name
    for name in ("torch", "cuda.bindings")
    if name not in _modules and "tvm_ffi" not in _modules
]
for _name in _hidden:
    _modules[_name] = None  # What makes importing it raise ImportError.
try:
    import tvm_ffi
finally:
    for _name in _hidden:
        del _modules[_name]

__all__ = ["tvm_ffi"]
