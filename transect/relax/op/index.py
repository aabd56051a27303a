"""Operators that read or write elements at positions given by tensors.

Slices with given bounds live in `slice.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import INT64
from transect.ir.expr import Expr, Var, as_int, cast, maximum, minimum, select
from transect.ir.types import TensorType, Type
from transect.relax.op.inference import (
    common_device,
    fail,
    normalize_axis,
    product,
    require_integer,
    tensor,
    tensor_or_scalar,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import TensorOperand, index, load, result_shape, unflatten_index
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


def from_front(position: Expr, size: Expr) -> Expr:
    """A loaded index as int64, a negative one counted from the end."""
    position = cast(position, INT64)
    if position.dtype.is_uint or (as_int(position) or -1) >= 0:
        return position
    return select(position < 0, position + size, position)


@dataclass(frozen=True)
class Take(Operator):
    """take(x, indices, axis, mode): x[..., indices, ...], with indices along `axis`.

    x: (..., n, ...). indices: integer, any shape, or a scalar, which removes the axis. axis: None
    takes from the flattened x. mode: "fast" and "wrap" count negative indices from the end ("wrap"
    all of them modulo n), "clip" moves indices into [0, n). Out of range, "fast" is undefined.
    Source: ONNX Gather-13, numpy.take.
    """

    name = "take"
    axis: int | None = None
    mode: str = "fast"

    def infer(self, x: Type, indices: Type) -> TensorType:
        """The dimensions of x, those of the indices in place of the axis."""
        data, places = tensor(self, x, "x"), tensor_or_scalar(self, indices, "indices")
        if self.mode not in ("fast", "wrap", "clip"):
            fail(self, f'mode must be "fast", "wrap" or "clip", got {self.mode!r}')
        require_integer(self, places, "indices")
        common_device(self, data, places)
        if data.ndim < 0:
            return unknown_like(data)
        axis = None if self.axis is None else normalize_axis(self, self.axis, data.ndim)
        if data.ndim == 0:
            fail(self, "x must have at least one dimension")
        if places.ndim < 0:
            return unknown_like(data, ndim=-1)
        if data.shape is None or places.shape is None:
            return unknown_like(data, ndim=places.ndim + (0 if axis is None else data.ndim - 1))
        if axis is None:
            return with_shape(data, places.shape)
        return with_shape(data, [*data.shape[:axis], *places.shape, *data.shape[axis + 1 :]])

    def legalize(self, b: FunctionBuilder, x: Buffer, indices: TensorOperand) -> Buffer:
        """One map."""
        sizes = result_shape(self, x, indices)
        axis = 0 if self.axis is None else normalize_axis(self, self.axis, x.ndim)
        extent = product(x.shape) if self.axis is None else x.shape[axis]
        count = indices.ndim if isinstance(indices, Buffer) else 0

        def place(i: tuple[Var, ...]) -> Expr:
            position = load(indices, sizes[axis : axis + count], i[axis : axis + count])
            if self.mode == "clip":
                return maximum(minimum(index(position), extent - 1), 0)
            if self.mode == "wrap":
                return index(position) % extent
            return from_front(position, extent)

        def element(*i: Var) -> Expr:
            if self.axis is None:
                return x[unflatten_index(place(i), x.shape)]
            return x[(*i[:axis], place(i), *i[axis + count :])]

        return b.compute(sizes, element, name="y")
