"""EliminateCommonSubexpr: equal pure values are computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.function import IRModule
from transect.ir.term import attribute_key
from transect.relax import expr as rx
from transect.relax.call import CallInplacePacked, CallTIRInplace, MakeClosure
from transect.relax.effects import leaf_vars, may_change, mutable_vars
from transect.relax.inference import is_pure_call
from transect.relax.legalize import OpKey
from transect.relax.visit import Rewriter, map_graph_functions, operands
from transect.transform.base import Context, Pass

_SMALL = 64
"""Constants of up to this many elements are compared by content."""


@dataclass(frozen=True)
class EliminateCommonSubexpr(Pass):
    """Use the first of several equal pure values in place of the later ones, within one scope.

    Requires A-normal form; leaves bindings `y = x` that Canonicalize removes. Values that an
    impure call may change later are left alone, and so are calls that may have an effect. What is
    computed from a value that may change is the same only until the next call that may change it.
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with fewer equal values."""
        del context
        return map_graph_functions(module, lambda _, function: _Merge(function).run(function))


class _Merge(Rewriter):
    def __init__(self, function: rx.Function) -> None:
        super().__init__()
        self.changing = mutable_vars(function)
        self.known: dict[object, rx.Var] = {}
        self.fleeting: set[object] = set()
        """Those of the keys whose operands may change."""

    def rewrite_seq(self, seq: rx.SeqExpr, params: Iterable[rx.Var] = ()) -> rx.SeqExpr:
        outer = self.known
        self.known = dict(outer)
        result = super().rewrite_seq(seq, params)
        self.known = outer
        return result

    def rewrite_function(self, function: rx.Function) -> rx.Function:
        outer = self.known
        # A nested function would have to capture what it found outside.
        self.known = {}
        result = super().rewrite_function(function)
        self.known = outer
        return result

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        super().rewrite_block(block)
        self.known = {key: var for key, var in self.known.items() if not var.dataflow}

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if isinstance(binding, rx.MatchCast):
            super().rewrite_binding(binding)
            return
        if may_change(binding.value):
            super().rewrite_binding(binding)
            self.known = {key: var for key, var in self.known.items() if key not in self.fleeting}
            return
        if binding.var in self.changing:
            super().rewrite_binding(binding)
            return
        reads_changing = any(
            var in self.changing
            for operand in operands(binding.value)
            for var in leaf_vars(operand)
        )
        value = self.rewrite(binding.value)
        key = _key(value)
        earlier = None if key is None else self.known.get(key)
        if earlier is None:
            self.bind(binding, value)
            if key is not None:
                bound = self.variables.get(binding.var, binding.var)
                if isinstance(bound, rx.Var):
                    self.known[key] = bound
                    if reads_changing:
                        self.fleeting.add(key)
        elif binding.var.dataflow or not earlier.dataflow:
            self.variables[binding.var] = earlier
        else:
            # An output of the block needs a variable of its own.
            self.bind(binding, earlier)


def _key(value: rx.Value) -> object | None:
    """What two values share if they are equal; None if they must not be merged."""
    if isinstance(value, rx.Call):
        if not is_pure_call(value) or isinstance(
            value.op, CallTIRInplace | CallInplacePacked | MakeClosure | rx.Var
        ):
            # A nested function may read what changes around it.
            return None
        callee = OpKey(value.op) if isinstance(value.op, rx.Op) else _leaf_key(value.op)
        return ("call", callee, tuple(map(_leaf_key, value.args)), value.type_args)
    if isinstance(value, rx.TupleGetItem):
        return ("item", _leaf_key(value.tuple_value), value.index)
    if isinstance(value, rx.Tuple):
        return _leaf_key(value)
    return None


def _leaf_key(value: rx.Value) -> object:
    if isinstance(value, rx.Constant) and value.data.size <= _SMALL:
        return ("constant", str(value.data.dtype), value.data.shape, value.data.tobytes())
    if isinstance(value, rx.ShapeExpr):
        return ("shape", value.values)
    if isinstance(value, rx.PrimValue):
        return ("scalar", value.value)
    if isinstance(value, rx.StringValue):
        return ("string", value.value)
    if isinstance(value, rx.DataTypeValue):
        return ("dtype", value.value)
    if isinstance(value, rx.GlobalFunc | rx.ExternFunc):
        return (type(value), attribute_key(value.name))
    if isinstance(value, rx.Tuple):
        return ("tuple", tuple(map(_leaf_key, value.items)))
    return value
