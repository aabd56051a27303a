"""CollapseAxes: kernels see no more axes than they tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.expr import Expr, as_int
from transect.ir.function import IRModule
from transect.ir.types import TensorType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import CallTIR, call_tir
from transect.relax.op.manipulate import Reshape
from transect.relax.transform.fusion import Member, as_member
from transect.relax.visit import Rewriter, graph_functions
from transect.tir.schedule.collapse import collapse_axes
from transect.transform.base import Context, Pass


@dataclass(frozen=True)
class CollapseAxes(Pass):
    """Axes that a kernel runs over side by side become one, its arguments and result views.

    Tiles then run on from one image or line to the next. Requires tensor programs that are not
    scheduled; see `tir.schedule.collapse`.

        y = call_tir(f, (x,), R.Tensor((2, 56, 56, 64)))
        -> x1 = R.reshape(x, (6272, 256))
           y1 = call_tir(f1, (x1,), R.Tensor((6272, 64)))
           y = R.reshape(y1, (2, 56, 56, 64))
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with kernels over fewer axes."""
        del context
        builder = BlockBuilder(module)
        for name, function in list(graph_functions(module)):
            new = _Collapse(builder).run(function)
            if new is not function:
                builder.module = builder.module.with_function(name, new)
        return builder.module


class _Collapse(Rewriter):
    def __init__(self, builder: BlockBuilder) -> None:
        super().__init__()
        self.builder = builder

    def rewrite_binding(self, binding: rx.Binding) -> None:
        if isinstance(binding, rx.MatchCast) or not isinstance(binding.value, rx.Call):
            super().rewrite_binding(binding)
            return
        is_program = isinstance(binding.value.op, CallTIR)
        member = as_member(binding, self.builder.module) if is_program else None
        shapes = [] if member is None else _shapes(member)
        found = None if member is None or None in shapes else collapse_axes(member.function)
        if member is None or found is None:
            super().rewrite_binding(binding)
            return
        *views, out = (found.shape(n, shape) for n, shape in enumerate(shapes) if shape is not None)
        inputs = [
            self._view(self.rewrite(value), shape)
            for value, shape in zip(member.inputs, views, strict=True)
        ]
        callee = self.builder.add_function(found.function, member.name)
        kind, old = tensor_type(out, member.out_type.dtype), member.out_type.shape
        call = call_tir(callee, inputs, kind, member.tir_vars, span=binding.value.span)
        if old is None or len(old) == len(out):
            self.bind(binding, call)
        else:
            self.bind(binding, Reshape()(self.emit(call, member.name), rx.shape_expr(*old)))

    def _view(self, value: rx.Value, shape: Sequence[Expr]) -> rx.Value:
        kind = value.type
        assert isinstance(kind, TensorType)
        if kind.shape is not None and len(kind.shape) == len(shape):
            return value
        if isinstance(value, rx.Constant):
            return rx.constant(value.data.reshape([as_int(extent) or 0 for extent in shape]))
        return self.emit(Reshape()(value, rx.shape_expr(*shape)), "view")


def _shapes(member: Member) -> list[tuple[Expr, ...] | None]:
    """The shapes of a call's inputs and of its result, as far as they are known."""
    kinds = (*(value.type for value in member.inputs), member.out_type)
    return [kind.shape if isinstance(kind, TensorType) else None for kind in kinds]
