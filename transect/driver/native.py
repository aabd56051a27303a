"""A lowered host program of its own: from blocks to something callable, outside of the cache."""

from __future__ import annotations

from transect import runtime
from transect.codegen.llvm.compile import compile_module
from transect.codegen.llvm.loader import load
from transect.driver.workers import Workers, default_count
from transect.ir.function import IRModule
from transect.library import library_paths
from transect.runtime import Signature, load_function
from transect.target import Target
from transect.tir.transform import lowering
from transect.transform import Context, Pipeline

_MANY = 24
"""Functions from which on workers pay: they take as long to start as a small program."""


def native(module: IRModule, signature: Signature, target: Target) -> runtime.CompiledModel:
    """The function that `signature` names, of a module without graph functions, in machine code."""
    lowered = Pipeline(*lowering(target))(module, Context(target, dump=None))
    with Workers(default_count() if len(lowered.functions) >= _MANY else 0) as workers:
        compiled = compile_module(lowered, target, workers.translate, workers.count)
    loaded = load(compiled, libraries=library_paths(compiled.externs))
    return runtime.CompiledModel(load_function(loaded, signature.name), signature)
