"""Nested functions become functions of the module, what they capture passed as parameters.

The pass over whole modules is `relax.transform.lambda_lift`; loops are built with this as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Var as Symbol
from transect.ir.node import replace
from transect.ir.traverse import free_vars as term_vars
from transect.ir.types import PrimType
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import InvokeClosure, InvokePureClosure, MakeClosure, global_func
from transect.relax.inference import function_type, is_pure_call
from transect.relax.shapes import plain_vars
from transect.relax.visit import Rewriter, copy_with_fresh_vars, free_symbols, free_vars


@dataclass(frozen=True)
class Lifted:
    """A nested function after lifting: how to refer to it, and the values to pass as its last
    parameters."""

    callee: rx.GlobalFunc
    captured: tuple[rx.Value, ...]


class Lifter(Rewriter):
    """Lifts the nested functions of one function of the module, which is called `prefix`."""

    def __init__(self, builder: BlockBuilder, prefix: str = "") -> None:
        super().__init__()
        self.builder = builder
        self.prefix = prefix
        self.lifted: dict[rx.Var, Lifted] = {}

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if isinstance(binding, rx.VarBinding) and isinstance(binding.value, rx.Function):
            self.lift(binding.var, binding.value)
            return
        super().rewrite_binding(binding)

    def lift(self, var: rx.Var, function: rx.Function) -> Lifted:
        """Add `function`, which calls itself `var`, to the module."""
        captured = self._captured(var, function)
        extra = [rx.Var(item.name, item.type) for item in captured]
        values: list[rx.Value] = [self.variables.get(item, item) for item in captured]
        known = set(plain_vars(item.type for item in (*function.params, *captured)))
        for symbol in self._captured_symbols(function):
            if symbol not in known:
                extra.append(rx.Var(symbol.name, PrimType(symbol.dtype, symbol)))
                values.append(rx.prim_value(symbol))
        hint = f"{self.prefix}_{var.name}" if self.prefix else var.name
        name = self.builder.module.fresh_name(hint)
        params = (*function.params, *extra)
        kind = function_type(params, function.ret_type, pure=function.pure)
        callee = global_func(name, kind)
        # The name is taken before the body is lifted, which may hold functions of its own.
        self.builder.module = self.builder.module.with_function(name, function)
        inner = Lifter(self.builder, name)
        inner.variables.update(zip(captured, extra, strict=False))
        inner.lifted.update(self._inherited(function, dict(zip(captured, extra, strict=False))))
        inner.lifted[var] = Lifted(callee, tuple(extra))
        whole = replace(function, params=params, type=kind)
        lifted = copy_with_fresh_vars(inner.run(whole))
        self.builder.module = self.builder.module.with_function(name, lifted)
        self.lifted[var] = Lifted(callee, tuple(values))
        return self.lifted[var]

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

    def _captured_symbols(self, function: rx.Function) -> list[Symbol]:
        """The symbolic variables around a function that it uses, likewise."""
        called = (self.lifted[item] for item in free_vars(function) if item in self.lifted)
        passed = [
            v.value for known in called for v in known.captured if isinstance(v, rx.PrimValue)
        ]
        return list(dict.fromkeys((*free_symbols(function), *term_vars(passed))))

    def _inherited(
        self, function: rx.Function, renamed: dict[rx.Var, rx.Var]
    ) -> dict[rx.Var, Lifted]:
        """The lifted functions that `function` may call, capturing through its own parameters."""
        return {
            item: Lifted(
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
