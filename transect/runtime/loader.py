"""From an address of machine code to a function of tvm-ffi that keeps the code alive."""

from __future__ import annotations

from typing import Protocol

import tvm_ffi

from transect.runtime.functions import provide_builtin
from transect.runtime.model import CompiledModel
from transect.runtime.signature import Signature

ENTRY_PREFIX = "__tvm_ffi_"
"""Of the symbol of an entry: `__tvm_ffi_main` is the entry of `main`."""


class LoadedModule(Protocol):
    """Machine code in this process. It must stay alive while any of its functions may run."""

    def address(self, symbol: str, /) -> int:
        """Where `symbol` is. Raises KeyError, or an error of its own, if there is none."""
        ...


def load_function(module: LoadedModule, name: str) -> tvm_ffi.Function:
    """The function `name` of a loaded module; it keeps the module alive."""
    provide_builtin()
    address = module.address(ENTRY_PREFIX + name)
    return tvm_ffi.Function.__from_extern_c__(address, keep_alive_object=module)


def load_model(module: LoadedModule, signature: Signature) -> CompiledModel:
    """The entry that `signature` names, as a callable model."""
    return CompiledModel(load_function(module, signature.name), signature)
