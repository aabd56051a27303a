"""LowerConvolutionRank: convolutions over dimensions of size one are convolutions over fewer."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Expr, as_int
from transect.ir.function import IRModule
from transect.ir.types import TensorType
from transect.relax import expr as rx
from transect.relax.op.manipulate import Reshape
from transect.relax.op.nn_conv import Conv, Conv1d, Conv2d, Conv3d
from transect.relax.op.windows import SPATIAL, padding_of, per_axis
from transect.relax.visit import Rewriter, map_graph_functions
from transect.transform.base import Context, Pass

_LOWER: dict[type[Conv], type[Conv]] = {Conv2d: Conv1d, Conv3d: Conv2d}


@dataclass(frozen=True)
class LowerConvolutionRank(Pass):
    """Drop a spatial axis along which data and kernel have size one and nothing is padded.

    Exporters write a convolution over one dimension as one over two. Requires A-normal form;
    leaves reshapes around the convolution, which are views.

        lv = R.nn.conv2d(x, w)   # x: (n, c, h, 1), w: (o, c, k, 1)
        ->
        lv1 = R.reshape(x, (n, c, h)); lv2 = R.reshape(w, (o, c, k))
        lv3 = R.nn.conv1d(lv1, lv2); lv = R.reshape(lv3, (n, o, h - k + 1, 1))
    """

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with such convolutions over fewer axes."""
        del context
        return map_graph_functions(module, lambda _, function: _Lower().run(function))


class _Lower(Rewriter):
    def rewrite_call(self, call: rx.Call) -> rx.Value:
        op = call.op
        while isinstance(op, Conv) and type(op) in _LOWER:
            axis = _unit_axis(op, call)
            if axis is None:
                break
            call = self.lowered(op, call, axis)
            op = call.op
        return call

    def lowered(self, op: Conv, call: rx.Call, axis: int) -> rx.Call:
        """The reshape of a convolution without spatial axis `axis`."""
        letter = SPATIAL[op.rank][axis]
        data, weight = (
            self._without(value, text.index(letter))
            for value, text in zip(call.args, (op.data_layout, op.kernel_layout), strict=True)
        )
        before, after = padding_of(op, op.padding, op.rank)
        keep = [i for i in range(op.rank) if i != axis]

        def kept(value: int | tuple[int, ...], what: str) -> tuple[int, ...]:
            items = per_axis(op, value, op.rank, what)
            return tuple(items[i] for i in keep)

        lower = _LOWER[type(op)](
            strides=kept(op.strides, "strides"),
            padding=(*(before[i] for i in keep), *(after[i] for i in keep)),
            dilation=kept(op.dilation, "dilation"),
            groups=op.groups,
            data_layout=_dropped(op.data_layout, letter, op.rank),
            kernel_layout=_dropped(op.kernel_layout, letter, op.rank),
            out_layout=None if op.out_layout is None else _dropped(op.out_layout, letter, op.rank),
            out_dtype=op.out_dtype,
        )
        result = self.emit(lower(data, weight, span=call.span), span=call.span)
        assert isinstance(call.type, TensorType)
        assert call.type.shape is not None
        return Reshape()(result, rx.shape_expr(*call.type.shape), span=call.span)

    def _without(self, value: rx.Value, axis: int) -> rx.Var:
        shape = list(_shape(value) or ())
        del shape[axis]
        return self.emit(Reshape()(value, rx.shape_expr(*shape)))


def _shape(value: rx.Value) -> tuple[Expr, ...] | None:
    return value.type.shape if isinstance(value.type, TensorType) else None


def _unit_axis(op: Conv, call: rx.Call) -> int | None:
    """The last spatial axis that can be dropped, or None."""
    data, weight = (_shape(value) for value in call.args)
    if data is None or weight is None or _shape(call) is None:
        return None
    before, after = padding_of(op, op.padding, op.rank)
    for axis in reversed(range(op.rank)):
        letter = SPATIAL[op.rank][axis]
        sizes = (data[op.data_layout.index(letter)], weight[op.kernel_layout.index(letter)])
        if all(as_int(size) == 1 for size in sizes) and before[axis] == after[axis] == 0:
            return axis
    return None


def _dropped(layout: str, letter: str, rank: int) -> str:
    """A layout without one spatial letter, the others renamed as the lower rank calls them."""
    left = [item for item in SPATIAL[rank] if item != letter]
    names = dict(zip(left, SPATIAL[rank - 1], strict=True))
    return "".join(names.get(item, item) for item in layout if item != letter)
