"""CollapseAxes: kernels see no more axes than they tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transect.ir.expr import Expr, as_int
from transect.ir.function import IRModule
from transect.ir.types import TensorType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import rewrite_functions
from transect.relax.call import call_tir
from transect.relax.op.manipulate import Reshape
from transect.relax.transform.fusion import Member, ProgramRewriter
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
        return rewrite_functions(module, lambda builder, name, function: _Collapse(builder))


class _Collapse(ProgramRewriter):
    def rewrite_program(self, binding: rx.VarBinding, member: Member) -> bool:
        shapes = _shapes(member)
        found = None if shapes is None else collapse_axes(member.function)
        if shapes is None or found is None:
            return False
        *views, out = (found.shape(n, shape) for n, shape in enumerate(shapes))
        inputs = [
            self._view(self.rewrite(value), shape)
            for value, shape in zip(member.inputs, views, strict=True)
        ]
        callee = self.builder.add_function(found.function, member.name)
        kind, old = tensor_type(out, member.out_type.dtype), shapes[-1]
        call = call_tir(callee, inputs, kind, member.tir_vars, span=binding.value.span)
        if len(old) == len(out):
            self.bind(binding, call)
        else:
            self.bind(binding, Reshape()(self.emit(call, member.name), rx.shape_expr(*old)))
        return True

    def _view(self, value: rx.Value, shape: Sequence[Expr]) -> rx.Value:
        kind = value.type
        assert isinstance(kind, TensorType)
        if kind.shape is not None and len(kind.shape) == len(shape):
            return value
        if isinstance(value, rx.Constant):
            return rx.constant(value.data.reshape([as_int(extent) or 0 for extent in shape]))
        return self.emit(Reshape()(value, rx.shape_expr(*shape)), "view")


def _shapes(member: Member) -> list[tuple[Expr, ...]] | None:
    """The shapes of a call's inputs and of its result; None if one is not known."""
    kinds = (*(value.type for value in member.inputs), member.out_type)
    shapes = [kind.shape for kind in kinds if isinstance(kind, TensorType)]
    known = [shape for shape in shapes if shape is not None]
    return known if len(known) == len(kinds) else None
