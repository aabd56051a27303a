"""LambdaLift: nested functions become functions of the module."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import ShapeType
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import InvokeClosure, InvokePureClosure, MakeClosure, global_func
from transect.relax.inference import function_type, is_pure_call
from transect.relax.visit import (
    Rewriter,
    copy_with_fresh_vars,
    free_symbols,
    free_vars,
    graph_functions,
)
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class LambdaLift(Pass):
    """Move nested functions to the module, what they capture passed as further parameters.

    A call of a nested function becomes a direct call; one that is used as a value becomes a
    make_closure, and calls of values become invoke_closure. Captured symbolic variables are passed
    as one shape. Requires and leaves A-normal form.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module without nested functions."""
        del context
        builder = BlockBuilder(module)
        for name, function in list(graph_functions(module)):
            new = _Lift(builder, name).run(function)
            if new is not function:
                builder.module = builder.module.with_function(name, new)
        return builder.module


@dataclass(frozen=True)
class _Lifted:
    callee: rx.GlobalFunc
    captured: tuple[rx.Value, ...]


class _Lift(Rewriter):
    def __init__(self, builder: BlockBuilder, prefix: str) -> None:
        super().__init__()
        self.builder = builder
        self.prefix = prefix
        self.lifted: dict[rx.Var, _Lifted] = {}

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if isinstance(binding, rx.VarBinding) and isinstance(binding.value, rx.Function):
            self.lift(binding.var, binding.value)
            return
        super().rewrite_binding(binding)

    def lift(self, var: rx.Var, function: rx.Function) -> None:
        """Add `function` to the module, under the name it will be called by."""
        captured = self._captured(var, function)
        symbols = free_symbols(function)
        extra = [rx.Var(item.name, item.type) for item in captured]
        values: list[rx.Value] = [self.variables.get(item, item) for item in captured]
        if symbols:
            shape = ShapeType(tuple(symbols), len(symbols))
            extra.append(rx.Var("dims", shape))
            values.append(rx.shape_expr(*symbols))
        name = self.builder.module.fresh_name(f"{self.prefix}_{var.name}")
        params = (*function.params, *extra)
        kind = function_type(params, function.ret_type, pure=function.pure)
        callee = global_func(name, kind)
        # The name is taken before the body is lifted, which may hold functions of its own.
        self.builder.module = self.builder.module.with_function(name, function)
        inner = _Lift(self.builder, name)
        inner.variables.update(zip(captured, extra, strict=False))
        inner.lifted.update(self._inherited(function, dict(zip(captured, extra, strict=False))))
        inner.lifted[var] = _Lifted(callee, tuple(extra))
        whole = replace(function, params=params, type=kind)
        lifted = copy_with_fresh_vars(inner.run(whole))
        self.builder.module = self.builder.module.with_function(name, lifted)
        self.lifted[var] = _Lifted(callee, tuple(values))

    def _captured(self, var: rx.Var, function: rx.Function) -> list[rx.Var]:
        """The variables around a function that it uses, those of functions it calls included."""
        found: dict[rx.Var, None] = {}
        for item in free_vars(function):
            if item is var:
                continue
            known = self.lifted.get(item)
            if known is None:
                found[item] = None
            else:
                found.update(dict.fromkeys(v for v in known.captured if isinstance(v, rx.Var)))
        return list(found)

    def _inherited(
        self, function: rx.Function, renamed: dict[rx.Var, rx.Var]
    ) -> dict[rx.Var, _Lifted]:
        """The lifted functions that `function` may call, capturing through its own parameters."""
        return {
            item: _Lifted(
                known.callee,
                tuple(renamed.get(v, v) if isinstance(v, rx.Var) else v for v in known.captured),
            )
            for item, known in self.lifted.items()
            if item in free_vars(function)
        }

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        if isinstance(call.op, rx.Op | rx.GlobalFunc | rx.ExternFunc):
            return call
        # The callee is a value: a parameter, an item of a tuple, the result of a call.
        op = InvokePureClosure() if is_pure_call(call) else InvokeClosure()
        arguments = rx.make_tuple(*call.args)
        return rx.Call(op, (call.op, arguments), call.type, (call.type,), call.span)

    def rewrite(self, value: rx.Value) -> rx.Value:
        if isinstance(value, rx.Call) and isinstance(value.op, rx.Var) and value.op in self.lifted:
            known = self.lifted[value.op]
            args = tuple(self.rewrite(arg) for arg in value.args)
            return replace(value, op=known.callee, args=(*args, *known.captured))
        if isinstance(value, rx.Var) and value in self.lifted:
            known = self.lifted[value]
            if not known.captured:
                return known.callee
            return self.emit(
                MakeClosure()(known.callee, rx.make_tuple(*known.captured)), value.name
            )
        return super().rewrite(value)
