"""Which function of a module a model is, and how a tensor program alone becomes one."""

from __future__ import annotations

from transect.ir.expr import Expr, IntImm
from transect.ir.expr import Var as Symbol
from transect.ir.function import BaseFunc, IRModule
from transect.relax import expr as rx
from transect.relax.shapes import plain_vars
from transect.runtime import Parameter, Signature
from transect.support.errors import InputError
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.stmt import BufferStore
from transect.tir.visit import walk_stmts


def entry_name(module: IRModule, wanted: str | None) -> str:
    """The function that a call of the model runs: the one asked for, `main`, or the only public
    graph function, or the only function.

    Raises InputError if there is no such function, or no telling which.
    """
    if wanted is not None:
        module[wanted]
        return wanted
    if "main" in module:
        return "main"
    graphs = [name for name, f in module.functions.items() if isinstance(f, rx.Function)]
    public = [name for name in graphs if "global_symbol" in module[name].attrs]
    for names in (public, graphs, list(module.functions)):
        if len(names) == 1:
            return names[0]
    raise InputError(
        "cannot tell which function of the module to run",
        notes=[f"it has: {', '.join(module.functions) or 'none'}"],
        remedy='name one: compile(module, entry="...")',
    )


def dimension_vars(function: BaseFunc) -> list[Symbol]:
    """The symbolic dimensions of a function's parameters."""
    if isinstance(function, PrimFunc):
        return list(symbolic_vars(function))
    if isinstance(function, rx.Function):
        return plain_vars(param.type for param in function.params)
    return []


def prim_func_signature(name: str, func: PrimFunc) -> Signature:
    """A tensor program as a model: it takes all its buffers, writes to some, and returns None."""
    written = {stmt.buffer for stmt in walk_stmts(func.body) if isinstance(stmt, BufferStore)}
    parameters: list[Parameter] = []
    for param in func.params:
        value = func.buffer_map.get(param)
        if value is None:
            kind = "object" if param.dtype.is_handle else "scalar"
            parameters.append(Parameter(param.name, kind, str(param.dtype), name_of=param.name))
            continue
        shape = tuple(_dimension(extent) for extent in value.shape)
        whole = all(dimension is not None for dimension in shape)
        parameters.append(
            Parameter(
                value.name,
                "tensor",
                str(value.dtype),
                tuple(d for d in shape if d is not None) if whole else None,
                len(shape),
                mutated=value in written,
            )
        )
    return Signature(name, tuple(parameters), (), [])


def _dimension(extent: Expr) -> int | str | None:
    if isinstance(extent, IntImm):
        return extent.value
    return extent.name if isinstance(extent, Symbol) else None
