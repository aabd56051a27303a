"""LegalizeOps: operator calls become call_tir of tensor programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transect.ir.expr import Expr, as_int
from transect.ir.expr import Var as Symbol
from transect.ir.function import IRModule
from transect.ir.types import PrimType, ShapeType, TensorType, TupleType, Type, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder, rewrite_functions
from transect.relax.call import call_tir
from transect.relax.effects import mutable_vars
from transect.relax.inference import is_subtype
from transect.relax.legalize import (
    HasDecomposition,
    Legalized,
    has_loops,
    is_concrete,
    legalize,
)
from transect.relax.op.inference import assumptions
from transect.relax.shapes import dimensions
from transect.relax.visit import Rewriter
from transect.support.errors import TransectError
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class LegalizeOps(Pass):
    """Replace each operator call by a call_tir of its loops, or by the operators it is built from.

    Requires A-normal form. Equal loops are one PrimFunc of the module. Shapes that are not known
    are bound to new symbolic variables by a match_cast first. Left as they are: operators without
    loops, those named in `skip`, and, with `keep_views`, operators that only change the shape
    (lowering makes them views), unless their tensor is changed in place somewhere.
    """

    skip: frozenset[str] = frozenset()
    keep_views: bool = True

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with operators as tensor programs."""
        del context
        return rewrite_functions(
            module, lambda builder, _, function: _Legalize(self, builder, function)
        )


class _Legalize(Rewriter):
    def __init__(self, options: LegalizeOps, builder: BlockBuilder, function: rx.Function) -> None:
        super().__init__()
        self.options = options
        self.builder = builder
        self.changing = mutable_vars(function)
        self.target: rx.Var | None = None
        self.named: dict[rx.Var, rx.Var] = {}
        self.checked: set[tuple[Expr, Expr]] = set()

    def rewrite_seq(self, seq: rx.SeqExpr, params: Iterable[rx.Var] = ()) -> rx.SeqExpr:
        outer, outer_checked = self.named, self.checked
        self.named, self.checked = dict(outer), set(outer_checked)
        result = super().rewrite_seq(seq, params)
        self.named, self.checked = outer, outer_checked
        return result

    def rewrite_block(self, block: rx.BindingBlock) -> None:
        super().rewrite_block(block)
        self.named = {var: cast for var, cast in self.named.items() if not cast.dataflow}

    def rewrite_binding(self, binding: rx.Binding) -> None:
        self.target = binding.var
        super().rewrite_binding(binding)

    def rewrite_call(self, call: rx.Call) -> rx.Value:
        op = call.op
        if not isinstance(op, rx.Op) or op.name in self.options.skip:
            return call
        self._check(op, call)
        if self._is_view(call):
            return call
        if not has_loops(op):
            return self._decompose(call) if isinstance(op, HasDecomposition) else call
        operands = [self._with_known_shape(operand) for operand in call.args]
        try:
            found = legalize(op, [operand.type for operand in operands])
        except TransectError as error:
            raise error.at(call.span) from None
        if found is None:
            return self._decompose(call) if isinstance(op, HasDecomposition) else call
        return self._lower(call, operands, found)

    def _check(self, op: rx.Op, call: rx.Call) -> None:
        """Compare at run time what the operator's inference could not: see `assumptions`."""
        types = [operand.type for operand in call.args]
        if call.type_args or all(as_int(dim) is not None for k in types for dim in dimensions(k)):
            return
        for item in assumptions(op, types):
            pair = (item.given, item.wanted)
            if pair not in self.checked:
                self.checked.add(pair)
                kind = ShapeType((item.wanted,), 1)
                given = rx.shape_expr(item.given)
                self.out.match_cast(given, kind, "checked", span=call.span, what=item.what)

    def _is_view(self, call: rx.Call) -> bool:
        if not (isinstance(call.op, rx.Op) and call.op.is_view and self.options.keep_views):
            return False
        return self.target not in self.changing

    def _decompose(self, call: rx.Call) -> rx.Value:
        op = call.op
        assert isinstance(op, HasDecomposition)

        def emit(value: rx.Value) -> rx.Var:
            normal = self.out.normalize(value)
            lowered = self.rewrite_call(normal) if isinstance(normal, rx.Call) else normal
            return self.emit(lowered, span=call.span)

        result = self.out.normalize(op.decompose(emit, *call.args))
        return self.rewrite_call(result) if isinstance(result, rx.Call) else result

    def _with_known_shape(self, operand: rx.Value) -> rx.Value:
        """`operand`, or a match_cast of it that names the dimensions that are not known."""
        if is_concrete(operand.type) or not isinstance(operand, rx.Var):
            return operand
        if operand in self.named:
            return self.named[operand]
        kind = _name_dimensions(operand.type, operand.name)
        if kind is None:
            return operand
        self.named[operand] = self.out.match_cast(operand, kind, operand.name)
        return self.named[operand]

    def _lower(self, call: rx.Call, operands: list[rx.Value], found: Legalized) -> rx.Value:
        inputs = [tensor for operand in operands for tensor in self._tensors(operand)]
        assert isinstance(call.op, rx.Op)
        callee = self.builder.add_function(found.function, call.op.name.replace(".", "_"))
        out_type = found.out_type
        if isinstance(call.type, TupleType) and not isinstance(out_type, TupleType):
            out_type = TupleType((out_type,))
        if is_concrete(call.type) and is_subtype(out_type, call.type):
            # The operator's own spelling of the shape, which its users have.
            out_type = call.type
        single = isinstance(out_type, TupleType) and len(out_type.items) == 1
        kind = out_type.items[0] if single and isinstance(out_type, TupleType) else out_type
        assert isinstance(kind, TensorType | TupleType)
        result = call_tir(callee, inputs, kind, found.tir_vars, call.span)
        return rx.make_tuple(self.emit(result)) if single else result

    def _tensors(self, operand: rx.Value) -> list[rx.Value]:
        kind = operand.type
        if isinstance(kind, TensorType):
            return [operand]
        if isinstance(operand, rx.Tuple):
            return [tensor for item in operand.items for tensor in self._tensors(item)]
        if isinstance(kind, TupleType):
            items = [self.emit(rx.tuple_item(operand, i)) for i in range(len(kind.items))]
            return [tensor for item in items for tensor in self._tensors(item)]
        return []


def _name_dimensions(kind: Type, hint: str) -> Type | None:
    """`kind` with a new symbolic variable for each unknown dimension; None if the rank or the
    dtype is unknown."""
    if isinstance(kind, TensorType) and kind.dtype is not None and kind.ndim >= 0:
        return tensor_type(_symbols(hint, kind.ndim), kind.dtype, device=kind.device)
    if isinstance(kind, ShapeType) and kind.ndim >= 0:
        return ShapeType(_symbols(hint, kind.ndim), kind.ndim)
    if isinstance(kind, PrimType):
        return PrimType(kind.dtype, Symbol(hint, kind.dtype))
    return None


def _symbols(hint: str, number: int) -> tuple[Symbol, ...]:
    return tuple(Symbol(f"{hint}_{axis}") for axis in range(number))
