"""What runs a compiled model: CompiledModel, registered functions, signatures, the object cache.

Needs only `support`, tvm-ffi and numpy, so that a deployed model does not need the compiler.
"""

from transect.runtime.cache import Cache, Entry
from transect.runtime.functions import get_function, register_function, remove_function
from transect.runtime.loader import ENTRY_PREFIX, LoadedModule, load_function, load_model
from transect.runtime.model import CompiledModel
from transect.runtime.signature import Output, Parameter, Signature

__all__ = [
    "ENTRY_PREFIX",
    "Cache",
    "CompiledModel",
    "Entry",
    "LoadedModule",
    "Output",
    "Parameter",
    "Signature",
    "get_function",
    "load_function",
    "load_model",
    "register_function",
    "remove_function",
]
