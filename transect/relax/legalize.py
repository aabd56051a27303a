"""One operator call as loops: the memoised step from (operator, operand types) to a PrimFunc.

Asked by the plan for evidence, by LegalizeOps to rewrite programs, by the interpreter to run
operators. Which calls become loops, and when, is decided by those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from transect.ir.dtype import INDEX, DType
from transect.ir.expr import Expr, Var
from transect.ir.term import Term, attribute_key
from transect.ir.traverse import free_vars, rewrite
from transect.ir.types import PrimType, ShapeType, TensorType, TupleType, Type, tensor_type
from transect.relax import expr as rx
from transect.relax.emit import Names
from transect.relax.shapes import dimensions, shape_analyzer, substitute_type
from transect.support.errors import UnsupportedError
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc


@runtime_checkable
class HasLoops(Protocol):
    """An operator that can write its own loops."""

    def legalize(self, b: FunctionBuilder, *operands: Any) -> Any:
        """The buffers of the results: one, or a tuple of them."""
        ...


@runtime_checkable
class HasDecomposition(Protocol):
    """An operator that is built from others."""

    def decompose(self, emit: Callable[[rx.Value], rx.Var], *operands: Any) -> rx.Value:
        """The result; `emit` binds a value and gives its variable."""
        ...


@dataclass(frozen=True)
class Legalized:
    """An operator call as a tensor program.

    function: takes the tensors of the operands, the results, then scalars. out_type: of the
    results, in the caller's terms. tir_vars: the scalars' values, in the caller's terms.
    """

    function: PrimFunc
    out_type: TensorType | TupleType
    tir_vars: tuple[Expr, ...]


def has_loops(op: rx.Op) -> bool:
    """Whether the operator can write its loops."""
    return isinstance(op, HasLoops)


def has_decomposition(op: rx.Op) -> bool:
    """Whether the operator is built from others."""
    return isinstance(op, HasDecomposition)


def is_concrete(kind: Type) -> bool:
    """Whether loops can be written over an operand of this type: shapes and dtypes are known."""
    if isinstance(kind, TensorType):
        return kind.shape is not None and kind.dtype is not None
    if isinstance(kind, ShapeType):
        return kind.values is not None
    if isinstance(kind, PrimType):
        return kind.value is not None
    return isinstance(kind, TupleType) and all(map(is_concrete, kind.items))


def legalize(op: rx.Op, types: Sequence[Type]) -> Legalized | None:
    """The loops of `op` on operands of these types, or None if it has none, or they need a shape
    that is not known.

    Equal operators on operands that are equal up to the names of symbolic variables give the same
    PrimFunc object. Raises UnsupportedError if the operator refuses these operands.
    """
    if not has_loops(op) or not all(map(is_concrete, types)):
        return None
    renaming = _canonical_dims(types)
    canonical = tuple(_rename(kind, renaming) for kind in types)
    function = _write_loops(OpKey(op), canonical)
    back: dict[Var, Expr] = {new: old for old, new in renaming.items()}
    scalars = [param for param in function.params if param not in function.buffer_map]
    tir_vars = tuple(back[scalar] for scalar in scalars)
    count = sum(1 for kind in types for _ in flat_tensors(kind))
    results = [
        substitute_type(tensor_type(buffer.shape, buffer.dtype), back)
        for buffer in function.buffers[count:]
    ]
    tensors = tuple(kind for kind in results if isinstance(kind, TensorType))
    out_type = tensors[0] if len(tensors) == 1 else TupleType(tensors)
    return Legalized(function, out_type, tir_vars)


def flat_tensors(kind: Type) -> Iterator[TensorType]:
    """The tensors of an operand, in order: of a tuple those of its items."""
    if isinstance(kind, TensorType):
        yield kind
    elif isinstance(kind, TupleType):
        for item in kind.items:
            yield from flat_tensors(item)


@dataclass(frozen=True, eq=False)
class OpKey:
    """An operator as a key: two are equal if they compute the same, 0.0 and -0.0 told apart."""

    op: rx.Op

    def _parts(self) -> tuple[object, ...]:
        values = (getattr(self.op, field.name) for field in dataclasses.fields(self.op))
        return (type(self.op), *map(attribute_key, values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpKey) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())


@lru_cache(maxsize=4096)
def _shared_var(name: str, dtype: DType) -> Var:
    return Var(name, dtype)


def _canonical_dims(types: Sequence[Type]) -> dict[Expr, Var]:
    """Each symbolic dimension, renamed to a variable that all operator programs share.

    A dimension such as n * m is one variable if n and m occur in nothing else: the loops do not
    care how the caller writes it. Not so a position that may be negative, as no variable is.
    """
    extents = {dim for kind in types for item in flat_tensors(kind) for dim in item.shape or ()}
    dims = list(dict.fromkeys(dim for kind in types for dim in dimensions(kind)))
    places: dict[Var, int] = {}
    for dim in dims:
        for var in free_vars((dim,)):
            places[var] = places.get(var, 0) + 1
    names = Names()
    renaming: dict[Expr, Var] = {}
    for dim in dims:
        inside = free_vars((dim,))
        alone = dim.dtype is INDEX and inside and all(places[var] == 1 for var in inside)
        if alone and (dim in extents or shape_analyzer(dim).can_prove(dim >= 0)):
            hint = dim.name if isinstance(dim, Var) else "d"
            renaming[dim] = _shared_var(names.fresh(hint), INDEX)
            continue
        for var in inside:
            if var not in renaming:
                renaming[var] = _shared_var(names.fresh(var.name), var.dtype)
    return renaming


def _rename(kind: Type, renaming: dict[Expr, Var]) -> Type:
    def visit(item: Term) -> Term:
        return renaming.get(item, item) if isinstance(item, Expr) else item

    return rewrite(kind, visit)


@lru_cache(maxsize=4096)
def _write_loops(key: OpKey, types: tuple[Type, ...]) -> PrimFunc:
    op = key.op
    builder = FunctionBuilder(op.name.replace(".", "_"))
    operands = [_operand(builder, kind, f"x{i}") for i, kind in enumerate(types)]
    if not isinstance(op, HasLoops):
        raise UnsupportedError(f"{op.name} has no loops")
    result: Buffer | tuple[Buffer, ...] = op.legalize(builder, *operands)
    function = builder.finish(result)
    return function.with_attrs(global_symbol=None)


def _operand(builder: FunctionBuilder, kind: Type, name: str) -> Any:
    if isinstance(kind, TensorType):
        return builder.input(name, kind)
    if isinstance(kind, PrimType):
        return kind.value
    if isinstance(kind, ShapeType):
        return kind.values
    if isinstance(kind, TupleType):
        if not kind.items:
            return None
        return tuple(_operand(builder, k, f"{name}_{i}") for i, k in enumerate(kind.items))
    raise UnsupportedError(f"an operand of type {kind!r} has no place in a tensor program")
