"""InlineFunctions: private graph functions written out where they are called."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.ir.types import CallableType, Type
from transect.relax import expr as rx
from transect.relax.emit import Bindings
from transect.relax.inference import is_pure
from transect.relax.references import reachable_functions, referenced_functions
from transect.relax.unify import unify_types
from transect.relax.visit import Rewriter, bindings, copy_with_fresh_vars, graph_functions
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Replace calls of private graph functions by their bindings, the symbolic variables bound by
    the arguments.

    names: of the functions to inline, empty for all private ones. Functions that call themselves
    stay, and so do calls in a dataflow block of functions with branches, and calls that do not
    determine a symbolic variable. Requires and leaves A-normal form.
    """

    names: tuple[str, ...] = ()

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with calls inlined; functions that are no longer called are left."""
        del context
        chosen = {
            name
            for name, function in graph_functions(module)
            if (name in self.names or not self.names)
            and "global_symbol" not in function.attrs
            and name not in reachable_functions(module, tuple(referenced_functions(function)))
        }
        for name, function in list(graph_functions(module)):
            module = module.with_function(name, _Inline(module, chosen).run(function))
        return module


class _Inline(Rewriter):
    def __init__(self, module: IRModule, chosen: set[str]) -> None:
        super().__init__()
        self.module = module
        self.chosen = chosen

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        if not isinstance(call.op, rx.GlobalFunc) or call.op.name not in self.chosen:
            return call
        callee = self.module[call.op.name]
        kind = callee.type if isinstance(callee, rx.Function) else None
        if not isinstance(callee, rx.Function) or not isinstance(kind, CallableType):
            return call
        if self.out.in_dataflow and not _fits_dataflow(callee):
            return call
        found = unify_types(kind.params or (), [arg.type for arg in call.args])
        if found.unknown() or found.unproved:
            return call
        fresh = copy_with_fresh_vars(callee, found.values)
        body = _Body(self, fresh, tuple(self.out.leaf(arg) for arg in call.args))
        return body.splice(fresh.body)


class _Body(Rewriter):
    """Writes a callee's bindings into the caller's open block; calls in it are inlined in turn."""

    def __init__(self, outer: _Inline, function: rx.Function, args: tuple[rx.Value, ...]) -> None:
        super().__init__(dict(zip(function.params, args, strict=True)))
        self.out: Bindings = outer.out
        self.outer = outer

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        return self.outer.rewrite_call(call)

    def renew(self, var: rx.Var, kind: Type) -> rx.Var:
        new = self.out.new_var(var.name, kind, span=var.span)
        self.variables[var] = new
        return new

    def splice(self, seq: rx.SeqExpr) -> rx.Value:
        """Emit the bindings of `seq` and give its result."""
        for block in seq.blocks:
            for binding in block.bindings:
                self.rewrite_binding(binding)
        return self.rewrite(seq.body)


def _fits_dataflow(function: rx.Function) -> bool:
    """Whether all bindings may stand in a dataflow block."""
    return function.pure and all(
        isinstance(binding, rx.MatchCast)
        or (not isinstance(binding.value, rx.If) and is_pure(binding.value))
        for binding in bindings(function)
    )
