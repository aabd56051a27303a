"""What runs a compiled model: CompiledModel, registered functions, signatures, artifacts.

Needs only `support`, tvm-ffi and numpy, so that a deployed model does not need the compiler.
"""

# ruff: isort: off
from transect.runtime import ffi  # first: see there

# ruff: isort: on
from transect.runtime.artifact import Artifact, file_of, load_artifact, release_pages
from transect.runtime.functions import get_function, register_function, remove_function
from transect.runtime.libraries import SharedLibrary
from transect.runtime.loader import ENTRY_PREFIX, LoadedModule, load_function, load_model
from transect.runtime.model import CompiledModel
from transect.runtime.signature import Output, Parameter, Signature

__all__ = [
    "ENTRY_PREFIX",
    "Artifact",
    "CompiledModel",
    "LoadedModule",
    "Output",
    "Parameter",
    "SharedLibrary",
    "Signature",
    "ffi",
    "file_of",
    "get_function",
    "load_artifact",
    "load_function",
    "load_model",
    "register_function",
    "release_pages",
    "remove_function",
]
