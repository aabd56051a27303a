"""Canonicalize: bindings and operators that do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transect.ir.expr import as_int
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import TensorType, TupleType, Type
from transect.relax import expr as rx
from transect.relax.effects import mutable_vars
from transect.relax.emit import is_leaf
from transect.relax.inference import is_subtype
from transect.relax.op.binary import Multiply, Power
from transect.relax.op.elementwise import Astype
from transect.relax.op.manipulate import BroadcastTo, PermuteDims, Reshape
from transect.relax.op.reduce import CollapseSumTo
from transect.relax.shapes import plain_vars
from transect.relax.unify import unify_types
from transect.relax.visit import Rewriter, map_graph_functions, operands
from transect.support.errors import InferenceError
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Remove copies of variables, items of known tuples, casts that hold for sure, and operators
    that give their operand back (a reshape to the same shape, a cast to the same dtype); products
    for small constant powers of floats.

    Requires nothing but scopes and types; leaves A-normal form without those.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The canonical module."""
        del context
        return map_graph_functions(module, lambda _, function: canonicalize(function))


def canonicalize(function: rx.Function) -> rx.Function:
    """`function` without bindings and operators that do nothing."""
    return _Canonicalize(function).run(function)


class _Canonicalize(Rewriter):
    def __init__(self, function: rx.Function) -> None:
        super().__init__()
        self.values: dict[rx.Var, rx.Value] = {}
        self.outputs: dict[rx.Var, rx.Var] = {}
        self.changing = mutable_vars(function)

    # --- bindings -----------------------------------------------------------------------

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        self.outputs = _renamed_outputs(block)
        super().rewrite_block(block)
        self.values = {var: v for var, v in self.values.items() if not _is_local(v)}

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if isinstance(binding, rx.MatchCast):
            self.rewrite_match_cast(binding)
            return
        output = self.outputs.get(binding.var)
        if output is not None:
            # `gv = lv` follows: what lv is bound to is the output itself.
            renamed = replace(binding, var=replace(output, type=binding.var.type))
            self._bind(renamed)
            self.variables[binding.var] = self.variables.get(renamed.var, renamed.var)
            return
        self._bind(binding)

    def _bind(self, binding: rx.VarBinding) -> None:
        value = self.out.normalize(self._simplify(binding.var, self.rewrite(binding.value)))
        visible = binding.var.dataflow or not _is_local(value)
        if is_leaf(value) and not isinstance(value, rx.Tuple) and visible:
            self.variables[binding.var] = value
            return
        self.bind(binding, value)
        bound = self.variables.get(binding.var, binding.var)
        if isinstance(bound, rx.Var):
            self.values[bound] = value

    def rewrite_match_cast(self, binding: rx.MatchCast) -> None:
        value = self.out.leaf(self.rewrite(binding.value))
        kind = self.type(binding.type)
        visible = binding.var.dataflow or not _is_local(value)
        if visible and self._holds(value.type, kind):
            self.variables[binding.var] = value
            return
        super().rewrite_match_cast(replace(binding, value=value))

    def _holds(self, actual: Type, wanted: Type) -> bool:
        """Whether a cast needs no check; if so, its new variables are given their values."""
        new = [var for var in plain_vars((wanted,)) if var not in self.out.symbols]
        if not new:
            return is_subtype(actual, wanted)
        try:
            found = unify_types((wanted,), (actual,))
        except InferenceError:
            return False
        values = {var: found.values[var] for var in new if var in found.values}
        if len(values) < len(new) or not is_subtype(actual, found.apply(wanted)):
            return False
        # A variable known before is compared, not bound.
        if any(v not in new and found.values[v] is not v for v in found.values):
            return False
        self.bind_symbols(values)
        return True

    # --- values -------------------------------------------------------------------------

    def _known(self, value: rx.Value) -> rx.Value:
        return self.values.get(value, value) if isinstance(value, rx.Var) else value

    def _simplify(self, var: rx.Var, value: rx.Value) -> rx.Value:
        """What `var` may be bound to in place of `value`."""
        if isinstance(value, rx.TupleGetItem):
            source = self._known(value.tuple_value)
            return source.items[value.index] if isinstance(source, rx.Tuple) else value
        if isinstance(value, rx.Tuple):
            return self._whole_tuple(value)
        if isinstance(value, rx.Call) and isinstance(value.op, rx.Op):
            rule = _RULES.get(type(value.op))
            # A copy that is changed later, or whose source is, must stay a copy.
            changes = var in self.changing or value.args[0] in self.changing
            if isinstance(value.op, Power) and not changes:
                return self._power(value)
            if not changes and (rule is not None or value.op.is_view):
                return self._operator(value, rule)
        return value

    def _power(self, call: rx.Call) -> rx.Value:
        """x ** 2 and x ** 3 as products: the first rounds the same, the second once more."""
        base, exponent = call.args
        known = exponent.data if isinstance(exponent, rx.Constant) else None
        kind = call.type
        if known is None or known.size != 1 or not isinstance(kind, TensorType):
            return call
        power = float(known.reshape(()))
        is_float = kind.dtype is not None and kind.dtype.is_float
        if not _same(base.type, kind) or not is_float or power not in (2.0, 3.0):
            return call
        square = Multiply()(base, base, span=call.span)
        return square if power == 2.0 else Multiply()(self.out.leaf(square), base, span=call.span)

    def _whole_tuple(self, value: rx.Tuple) -> rx.Value:
        """`(t[0], t[1], …)` with all items of t is t."""
        parts = [self._known(item) for item in value.items]
        first = parts[0] if parts else None
        if not isinstance(first, rx.TupleGetItem) or not isinstance(first.tuple_value, rx.Var):
            return value
        source = first.tuple_value
        kind = source.type
        if not isinstance(kind, TupleType) or len(kind.items) != len(parts):
            return value
        whole = all(
            isinstance(part, rx.TupleGetItem)
            and part.tuple_value is source
            and part.index == number
            for number, part in enumerate(parts)
        )
        return source if whole else value

    def _operator(self, call: rx.Call, rule: Callable[[rx.Call], bool] | None) -> rx.Value:
        operand = call.args[0]
        if _same(operand.type, call.type) and (rule is None or rule(call)):
            return operand
        return self._view(call, operand) if isinstance(call.op, rx.Op) and call.op.is_view else call

    def _view(self, call: rx.Call, operand: rx.Value) -> rx.Value:
        """A view of a view is one view, of what the first one saw; one of a constant is a constant
        over the same memory."""
        kind = call.type
        if not isinstance(kind, TensorType) or kind.shape is None:
            return call
        sizes = [as_int(dim) for dim in kind.shape]
        shape = [size for size in sizes if size is not None]
        if isinstance(operand, rx.Constant) and len(shape) == len(sizes):
            return rx.constant(operand.data.reshape(shape))
        inner = self._known(operand)
        if not (isinstance(inner, rx.Call) and isinstance(inner.op, rx.Op) and inner.op.is_view):
            return call
        source = inner.args[0]
        if not isinstance(source.type, TensorType):
            return call
        if _same(source.type, kind):
            return source
        return Reshape()(source, rx.shape_expr(*kind.shape), span=call.span)


def _same(a: Type, b: Type) -> bool:
    return is_subtype(a, b) and is_subtype(b, a)


def _always(call: rx.Call) -> bool:
    del call
    return True


def _is_identity_permutation(call: rx.Call) -> bool:
    rank = call.type.ndim if isinstance(call.type, TensorType) else -1
    return (
        isinstance(call.op, PermuteDims)
        and rank >= 0
        and list(call.op.order(rank)) == list(range(rank))
    )


_RULES: dict[type[rx.Op], Callable[[rx.Call], bool]] = {
    Astype: _always,
    BroadcastTo: _always,
    CollapseSumTo: _always,
    PermuteDims: _is_identity_permutation,
}
"""Operators that give their operand back when the type stays the same, and a further condition."""


def _is_local(value: rx.Value) -> bool:
    """Whether a value means something only in its dataflow block."""
    if isinstance(value, rx.Var):
        return value.dataflow
    return any(map(_is_local, operands(value)))


def _renamed_outputs(block: rx.BindingBlock) -> dict[rx.Var, rx.Var]:
    """For a dataflow block: local variable -> the first output that is bound to it by a copy."""
    found: dict[rx.Var, rx.Var] = {}
    if not block.dataflow:
        return found
    local = {b.var for b in block.bindings if b.var.dataflow and isinstance(b, rx.VarBinding)}
    copies: dict[rx.Var, rx.Var] = {}
    for binding in block.bindings:
        value = binding.value
        if not isinstance(binding, rx.VarBinding) or not isinstance(value, rx.Var):
            continue
        root = copies.get(value, value)
        copies[binding.var] = root
        if not binding.var.dataflow and root in local and root not in found:
            found[root] = binding.var
    return found
