"""RewriteDataflowReshape: tensor programs that only copy in order are views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from transect.arith import Analyzer
from transect.ir.dtype import INDEX
from transect.ir.expr import Expr, as_expr, cast
from transect.ir.function import IRModule
from transect.ir.types import TensorType
from transect.relax import expr as rx
from transect.relax.call import CallTIR, call_inputs
from transect.relax.effects import mutable_vars
from transect.relax.op.manipulate import Reshape
from transect.relax.shapes import prove_equal
from transect.relax.visit import Rewriter, map_graph_functions
from transect.tir.buffer import BufferLoad
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BufferStore
from transect.tir.visit import walk_stmts
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class RewriteDataflowReshape(Pass):
    """Replace calls of tensor programs that write their input out in the same order by `reshape`,
    which lowering turns into a view: no copy.

    Requires and leaves A-normal form. Tensors that are changed in place stay copies.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with copies as reshapes; programs that are no longer called are left."""
        del context
        return map_graph_functions(
            module, lambda _, function: _ToReshape(module, function).run(function)
        )


class _ToReshape(Rewriter):
    def __init__(self, module: IRModule, function: rx.Function) -> None:
        super().__init__()
        self.module = module
        self.changing = mutable_vars(function)
        self.target: rx.Var | None = None

    def rewrite_binding(self, binding: rx.Binding) -> None:
        self.target = binding.var
        super().rewrite_binding(binding)

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        if not isinstance(call.op, CallTIR) or not isinstance(call.args[0], rx.GlobalFunc):
            return call
        inputs = call_inputs(call)
        function = self.module[call.args[0].name]
        kind = call.type
        if len(inputs) != 1 or len(call.args) > 2 or not isinstance(function, PrimFunc):
            return call
        source = inputs[0].type if len(inputs) == 1 else None
        if not isinstance(kind, TensorType) or not isinstance(source, TensorType):
            return call
        if kind.shape is None or source.shape is None or not _same_size(source.shape, kind.shape):
            return call
        if self.target in self.changing or inputs[0] in self.changing or not is_reshape(function):
            return call
        return Reshape()(inputs[0], rx.shape_expr(*kind.shape))


def is_reshape(function: PrimFunc) -> bool:
    """Whether a program of one input and one output provably copies element number i to element
    number i, for all i."""
    blocks = [
        stmt for stmt in walk_stmts(function.body) if isinstance(stmt, Block) and stmt.iter_vars
    ]
    if len(blocks) != 1 or len(function.buffers) != 2:
        return False
    (block,) = blocks
    store = block.body
    if not isinstance(store, BufferStore) or not isinstance(store.value, BufferLoad):
        return False
    source, target = function.buffers
    if store.value.buffer is not source or store.buffer is not target or source.strides:
        return False
    analyzer = Analyzer()
    for item in block.iter_vars:
        analyzer.bind(item.var, item.dom)
    read = _flat(store.value.indices, source.shape)
    written = _flat(store.indices, target.shape)
    covers = all(
        any(index is item.var for item in block.iter_vars) for index in store.indices
    ) and all(
        analyzer.can_prove_equal(cast(item.dom.extent, INDEX), cast(dim, INDEX))
        for item, dim in zip(block.iter_vars, target.shape, strict=False)
    )
    return covers and analyzer.can_prove_equal(read, written)


def _same_size(a: Sequence[Expr], b: Sequence[Expr]) -> bool:
    return prove_equal(prod(a, start=as_expr(1)), prod(b, start=as_expr(1)))


def _flat(indices: Sequence[Expr], shape: Sequence[Expr]) -> Expr:
    """The position of an element in a compact buffer."""
    position = as_expr(0)
    for index, extent in zip(indices, shape, strict=True):
        position = position * cast(extent, INDEX) + cast(index, INDEX)
    return position
