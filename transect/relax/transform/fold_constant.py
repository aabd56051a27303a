"""FoldConstant: values that are known when the program is compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from transect.ir.dtype import as_dtype
from transect.ir.expr import FloatImm, IntImm, as_int
from transect.ir.function import IRModule
from transect.ir.types import TensorType, TupleType, Type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import CallTIR, ShapeOf, ShapeToTensor, TensorToShape
from transect.relax.effects import mutable_vars
from transect.relax.interpret import Interpreter
from transect.relax.legalize import has_decomposition, has_loops, legalize
from transect.relax.visit import Rewriter, direct_bindings, free_vars, graph_functions, operands
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize
from transect.tir.visit import walk_stmts
from transect.transform.base import Context, Pass

Evaluate = Callable[[IRModule, str], Any]
"""Compile and run the function of that name, which has no parameters: an array, or a tuple."""

_NAME = "fold_constants"

_FAILURES = (ValueError, IndexError, ArithmeticError, MemoryError)
"""What a program raises where it cannot go on. Then nothing is folded: it shall fail when it runs,
naming the layer, and only if it runs."""

_MOST_WORK = 1 << 34
"""Iterations of loops in what is folded: some seconds."""


@dataclass(frozen=True)
class FoldConstant(Pass):
    """Compute the pure calls whose operands are constants.

    limit: iterations of loops up to which a call is run by the interpreter. Larger ones are handed
    to `evaluate`, all those of a function in one program, or left if there is none. Shapes that are
    known become shape values. Requires and leaves A-normal form; what a call may change in place
    is not folded.
    """

    limit: int = 1 << 12
    evaluate: Evaluate | None = None

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with constants folded."""
        for name, function in list(graph_functions(module)):
            new = _Fold(self, module, function).run(function)
            if self.evaluate is not None:
                new = _fold_large(self.evaluate, module, new, context)
            module = module.with_function(name, new)
        return module


class _Fold(Rewriter):
    def __init__(self, options: FoldConstant, module: IRModule, function: rx.Function) -> None:
        super().__init__()
        self.options = options
        self.module = module
        self.changing = mutable_vars(function)

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if isinstance(binding, rx.MatchCast) or binding.var in self.changing:
            super().rewrite_binding(binding)
            return
        value = self.rewrite(binding.value)
        if isinstance(value, rx.Call):
            value = self.fold(value)
        if isinstance(value, rx.TupleGetItem) and isinstance(value.tuple_value, rx.Tuple):
            value = value.tuple_value.items[value.index]
        if _is_constant(value) or isinstance(value, rx.ShapeExpr):
            self.variables[binding.var] = value
        else:
            self.bind(binding, value)

    def fold(self, call: rx.Call) -> rx.Value:
        """The value of `call` as a constant or shape, or `call` itself."""
        if isinstance(call.op, ShapeOf):
            kind = call.args[0].type
            known = kind.shape if isinstance(kind, TensorType) else None
            return call if known is None else rx.shape_expr(*known)
        if not all(map(_is_constant, call.args[1:] if _is_call_tir(call) else call.args)):
            return call
        if isinstance(call.op, TensorToShape):
            data = call.args[0]
            assert isinstance(data, rx.Constant)
            return rx.shape_expr(*(int(item) for item in data.data))
        work = call_work(call, self.module)
        if work is None or work > self.options.limit:
            return call
        function = _without_parameters([rx.VarBinding(rx.Var("c", call.type), call)])
        try:
            result = Interpreter(self.module.with_function(_NAME, function)).run(_NAME)
        except _FAILURES:
            return call
        return _as_value(result, call.type)


# --- large constants ------------------------------------------------------------------------


class _Replace(Rewriter):
    def __init__(self, constants: dict[rx.Var, rx.Value], folded: set[rx.Var]) -> None:
        super().__init__(constants)
        self.folded = folded

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if binding.var not in self.folded:
            super().rewrite_binding(binding)


def _fold_large(
    evaluate: Evaluate, module: IRModule, function: rx.Function, context: Context
) -> rx.Function:
    """`function` with everything that follows from constants computed by `evaluate`, in one go."""
    changing = mutable_vars(function)
    folded: dict[rx.Var, rx.VarBinding] = {}
    for binding in direct_bindings(function.body):
        if isinstance(binding, rx.VarBinding) and binding.var not in changing:
            value = binding.value
            parts = operands(value)[1:] if _is_call_tir_value(value) else operands(value)
            known = all(_is_known(part, folded) for part in parts)
            if known and _can_fold(value, module):
                folded[binding.var] = binding
    rest = [b for b in direct_bindings(function.body) if b.var not in folded]
    wanted = {v for b in rest for v in free_vars(b.value)} | set(free_vars(function.body.body))
    results = [binding for var, binding in folded.items() if var in wanted]
    if not results:
        return function
    program = _without_parameters(list(folded.values()), results)
    try:
        values = evaluate(module.with_function(_NAME, program), _NAME)
    except _FAILURES:
        return function
    values = [values] if len(results) == 1 else values
    constants = {
        binding.var: _kept(_as_value(value, binding.var.type), context)
        for binding, value in zip(results, values, strict=True)
    }
    return _Replace(constants, set(folded)).run(function)


def _kept(value: rx.Value, context: Context) -> rx.Value:
    if isinstance(value, rx.Tuple):
        return rx.make_tuple(*(_kept(item, context) for item in value.items))
    if not isinstance(value, rx.Constant):
        return value
    dtype = value.type.dtype if isinstance(value.type, TensorType) else None
    return rx.constant(context.keep(value.data), dtype)


def _is_known(value: rx.Value, folded: dict[rx.Var, rx.VarBinding]) -> bool:
    if isinstance(value, rx.Tuple):
        return all(_is_known(item, folded) for item in value.items)
    return value in folded if isinstance(value, rx.Var) else _is_constant(value)


def _can_fold(value: rx.Value, module: IRModule) -> bool:
    if isinstance(value, rx.Call):
        work = call_work(value, module)
        return work is not None and work <= _MOST_WORK
    return isinstance(value, rx.Tuple | rx.TupleGetItem)


def _is_call_tir_value(value: rx.Value) -> bool:
    return isinstance(value, rx.Call) and _is_call_tir(value)


# --- how much work --------------------------------------------------------------------------


def call_work(call: rx.Call, module: IRModule) -> int | None:
    """Iterations of the loops of a call with constant operands; None if it cannot be folded."""
    if isinstance(call.op, ShapeToTensor):
        shape = call.args[0]
        fixed = isinstance(shape, rx.ShapeExpr) and all(isinstance(v, IntImm) for v in shape.values)
        return 1 if fixed else None
    if _is_call_tir(call) and isinstance(call.args[0], rx.GlobalFunc):
        function = module[call.args[0].name]
        return _iterations(function) if isinstance(function, PrimFunc) else None
    if not isinstance(call.op, rx.Op) or not call.op.pure:
        return None
    if not has_loops(call.op):
        return _elements(call) if has_decomposition(call.op) else None
    found = legalize(call.op, [operand.type for operand in call.args])
    return None if found is None or found.tir_vars else _iterations(found.function)


def _iterations(function: PrimFunc) -> int | None:
    total = 0
    root = function.body.block if isinstance(function.body, BlockRealize) else None
    for stmt in walk_stmts(function.body):
        if isinstance(stmt, Block) and stmt is not root:
            extents = [as_int(item.dom.extent) for item in stmt.iter_vars]
            if any(extent is None for extent in extents):
                return None
            total += prod(extent or 0 for extent in extents)
    return total


def _elements(call: rx.Call) -> int | None:
    """The size of operands and result, as a measure of work where the loops are not known."""
    kinds = [call.type, *(operand.type for operand in call.args)]
    shapes = [kind.shape or () for kind in kinds if isinstance(kind, TensorType)]
    sizes = [[as_int(dim) for dim in shape] for shape in shapes]
    if any(dim is None for shape in sizes for dim in shape):
        return None
    return sum(prod(dim or 0 for dim in shape) for shape in sizes)


def _is_call_tir(call: rx.Call) -> bool:
    return isinstance(call.op, CallTIR)


def _is_constant(value: rx.Value) -> bool:
    if isinstance(value, rx.Tuple):
        return all(map(_is_constant, value.items))
    if isinstance(value, rx.ShapeExpr):
        return all(isinstance(dim, IntImm) for dim in value.values)
    if isinstance(value, rx.PrimValue):
        return isinstance(value.value, IntImm | FloatImm)
    return isinstance(value, rx.Constant | rx.StringValue | rx.DataTypeValue)


def _without_parameters(
    steps: Sequence[rx.VarBinding], results: Sequence[rx.VarBinding] = ()
) -> rx.Function:
    """A function without parameters that does `steps` and gives the results, by default the last.
    Several become a tuple."""
    builder = BlockBuilder()
    rewriter = Rewriter()
    with builder.function(_NAME):
        for step in steps:
            value = rewriter.rewrite(step.value)
            rewriter.variables[step.var] = builder.emit(value, step.var.name)
        outputs = [rewriter.rewrite(step.var) for step in results or steps[-1:]]
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else rx.make_tuple(*outputs))
    function = builder.module[_NAME]
    assert isinstance(function, rx.Function)
    return function


def _as_value(result: Any, kind: Type) -> rx.Value:
    if isinstance(kind, TupleType):
        items = [_as_value(r, k) for r, k in zip(result, kind.items, strict=True)]
        return rx.make_tuple(*items)
    dtype = kind.dtype if isinstance(kind, TensorType) else None
    return rx.constant(np.asarray(result), dtype or as_dtype(np.asarray(result).dtype))
