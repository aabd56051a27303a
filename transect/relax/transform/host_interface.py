"""How a graph function is called once it is a host function: its parameters and its results.

A tensor whose shape the inputs determine is a buffer, an input or a destination. What a packed
function may see, or whose shape only the run knows, is an object. Bodies are lowered elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from transect.ir.expr import Expr, Var
from transect.ir.function import IRModule
from transect.ir.traverse import free_vars
from transect.ir.types import (
    PrimType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
)
from transect.relax import expr as rx
from transect.relax.shapes import plain_vars
from transect.relax.transform.host_escape import Escapes, Root, Tree, flatten_roots
from transect.relax.transform.host_formula import Names, formula
from transect.runtime.signature import Dimension, Output, Parameter, Result, Signature

ParameterKind = Literal["buffer", "scalar", "any"]
Path = tuple[int, ...]


@dataclass(frozen=True)
class ResultLeaf:
    """One value of the result: where it stands, its type, and whether the caller provides it."""

    path: Path
    type: Type
    destination: bool


@dataclass(frozen=True)
class Interface:
    """How a host function is called.

    kinds: for each parameter "buffer" (its data pointer), "scalar" (its value) or "any" (a list
    whose slot 0 holds it). Then come the destinations and, if a result is owned, a list that gets
    the owned value (an array of several) in slot 0.
    """

    name: str
    params: tuple[rx.Var, ...]
    kinds: tuple[ParameterKind, ...]
    result: Type
    leaves: tuple[ResultLeaf, ...]
    mutated: frozenset[int]

    @property
    def owned(self) -> tuple[ResultLeaf, ...]:
        """The results that the function returns as objects."""
        return tuple(leaf for leaf in self.leaves if not leaf.destination)

    @property
    def destinations(self) -> tuple[ResultLeaf, ...]:
        """The results that go where the caller says."""
        return tuple(leaf for leaf in self.leaves if leaf.destination)


def type_leaves(kind: Type, path: Path = ()) -> Iterator[tuple[Path, Type]]:
    """The parts of a type that are not tuples, with their paths."""
    if isinstance(kind, TupleType):
        for index, item in enumerate(kind.items):
            yield from type_leaves(item, (*path, index))
    else:
        yield path, kind


def is_known(kind: Type, bound: set[Var]) -> bool:
    """Whether a tensor's dtype is known, and its shape in terms of the variables `bound`."""
    return (
        isinstance(kind, TensorType)
        and kind.dtype is not None
        and kind.shape is not None
        and all(var in bound for var in free_vars(kind.shape))
    )


def interfaces(module: IRModule, escapes: Mapping[str, Escapes]) -> dict[str, Interface]:
    """The interface of each graph function of `module`; `escapes` is `module_escapes(module)`."""
    return {
        name: _interface(name, function, escapes[name])
        for name, function in module.functions.items()
        if isinstance(function, rx.Function)
    }


def _interface(name: str, function: rx.Function, escapes: Escapes) -> Interface:
    kinds: tuple[ParameterKind, ...] = tuple(
        _parameter_kind(param.type, escaping=i in escapes.escaping_params)
        for i, param in enumerate(function.params)
    )
    bound = set(plain_vars(param.type for param in function.params))
    names = Names(bound)
    leaves: list[ResultLeaf] = []
    roots = flatten_roots(escapes.result)
    for path, kind in type_leaves(function.ret_type):
        alone = _own_escaping(roots.get(path), escapes)
        shape = kind.shape if isinstance(kind, TensorType) else None
        known = is_known(kind, bound) and all(formula(d, names) is not None for d in shape or ())
        leaves.append(ResultLeaf(path, kind, known and not alone))
    return Interface(
        name, function.params, kinds, function.ret_type, tuple(leaves), escapes.written_params
    )


def _own_escaping(roots: frozenset[Root] | None, escapes: Escapes) -> bool:
    """Whether a result is one tensor object that this function made because it escapes."""
    if roots is None or len(roots) != 1:
        return False
    (root,) = roots
    return root in escapes.escaping and root[0] not in escapes.params


def _parameter_kind(kind: Type, *, escaping: bool) -> ParameterKind:
    if isinstance(kind, PrimType) and not kind.dtype.is_handle:
        return "scalar"
    if isinstance(kind, TensorType) and kind.shape is not None and kind.dtype is not None:
        return "any" if escaping else "buffer"
    return "any"


# --- the signature that the runtime reads -----------------------------------------------------


def signature(interface: Interface) -> Signature:
    """What the entry of a host function takes and gives."""
    names = Names(plain_vars(param.type for param in interface.params))
    parameters = tuple(
        _parameter(param.name, param.type, names, mutated=i in interface.mutated)
        for i, param in enumerate(interface.params)
    )
    outputs = tuple(
        Output(
            "destination" if leaf.destination else "owned",
            _dtype_name(leaf.type),
            _dimensions(leaf.type.shape, names) if isinstance(leaf.type, TensorType) else None,
        )
        for leaf in interface.leaves
    )
    numbers = {leaf.path: number for number, leaf in enumerate(interface.leaves)}
    return Signature(interface.name, parameters, outputs, _result(interface.result, numbers, ()))


def _result(kind: Type, numbers: Mapping[Path, int], path: Path) -> Result:
    if isinstance(kind, TupleType):
        return [_result(item, numbers, (*path, i)) for i, item in enumerate(kind.items)]
    return numbers[path]


def _dtype_name(kind: Type) -> str | None:
    if isinstance(kind, TensorType | PrimType) and kind.dtype is not None:
        return str(kind.dtype)
    return None


def _dimensions(shape: tuple[Expr, ...] | None, names: Names) -> tuple[Dimension, ...] | None:
    if shape is None:
        return None
    dimensions = [formula(extent, names) for extent in shape]
    known = tuple(dimension for dimension in dimensions if dimension is not None)
    return known if len(known) == len(dimensions) else None


def _parameter(name: str, kind: Type, names: Names, *, mutated: bool = False) -> Parameter:
    if isinstance(kind, TensorType):
        shape = _dimensions(kind.shape, names)
        return Parameter(name, "tensor", _dtype_name(kind), shape, kind.ndim, mutated)
    if isinstance(kind, PrimType):
        value = formula(kind.value, names) if isinstance(kind.value, Var) else None
        return Parameter(
            name, "scalar", str(kind.dtype), name_of=None if value is None else str(value)
        )
    if isinstance(kind, ShapeType):
        return Parameter(name, "shape", shape=_dimensions(kind.values, names), ndim=kind.ndim)
    if isinstance(kind, TupleType):
        items = tuple(
            _parameter(f"{name}[{i}]", item, names, mutated=mutated)
            for i, item in enumerate(kind.items)
        )
        return Parameter(name, "tuple", items=items, mutated=mutated)
    return Parameter(name, "object")


__all__ = ["Interface", "ResultLeaf", "Tree", "interfaces", "is_known", "signature", "type_leaves"]
