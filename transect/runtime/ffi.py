"""Imports tvm-ffi without torch. Everything else in the runtime imports it after this.

tvm-ffi imports torch wherever that is installed: 0.9 s and 210 MB for a process that may never see
a torch tensor. It needs it for nothing that transect calls; tensors of a torch that is imported
later pass through DLPack.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hide = "torch" not in _modules and "tvm_ffi" not in _modules
if _hide:
    _modules["torch"] = None  # What makes `import torch` raise ImportError.
try:
    import tvm_ffi
finally:
    if _hide:
        del _modules["torch"]

__all__ = ["tvm_ffi"]
