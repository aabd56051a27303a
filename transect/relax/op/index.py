"""Operators that read or write elements at positions given by tensors.

Slices with given bounds live in `slice.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transect.ir.expr import Expr, IntImm, Var, logical_and, maximum, minimum, select
from transect.ir.types import ShapeType, TensorType, Type, tensor_type
from transect.relax.op.inference import (
    analyzer_of,
    broadcast_shapes,
    common_device,
    common_dtype,
    constant,
    fail,
    normalize_axes,
    normalize_axis,
    product,
    require_integer,
    require_rank,
    require_same,
    tensor,
    tensor_or_scalar,
    tensors,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import TensorOperand, index, load, result_shape, unflatten_index
from transect.relax.op.manipulate import BroadcastTo
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.op import checked, if_then_else
from transect.tir.stmt import Stmt


def from_front(op: Operator, position: Expr, size: Expr) -> Expr:
    """A loaded index as int64, a negative one counted from the end. Where it is none of an axis of
    `size`, the program fails."""
    place = index(position)
    if not position.dtype.is_uint:
        place = select(place < 0, place + size, place)
    inside = logical_and(place >= 0, place < size)
    message = (f"{op.name}: index ", index(position), " is out of range for an axis of ", size)
    return checked(place, inside, *message)


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
            return from_front(self, position, extent)

        def element(*i: Var) -> Expr:
            if self.axis is None:
                return x[unflatten_index(place(i), x.shape)]
            return x[(*i[:axis], place(i), *i[axis + count :])]

        return b.compute(sizes, element, name="y")


@dataclass(frozen=True)
class GatherElements(Operator):
    """gather_elements(x, indices, axis): y[i, j, …] = x[i, indices[i, j, …], …] along `axis`.

    x, indices: one rank; off the axis, indices are no larger than x. indices: integer, a negative
    one counts from the end. Result: the shape of indices. Source: ONNX GatherElements-13.
    """

    name = "gather_elements"
    axis: int = 0

    def infer(self, x: Type, indices: Type) -> TensorType:
        """The shape of the indices with the dtype of x."""
        data, places = tensor(self, x, "x"), tensor(self, indices, "indices")
        require_integer(self, places, "indices")
        device = common_device(self, data, places)
        if data.ndim >= 0:
            require_rank(self, places, data.ndim, "indices")
            axis = normalize_axis(self, self.axis, data.ndim)
            require_inside(self, data, places, axis, "indices")
        return TensorType(places.shape, data.dtype, places.ndim, device)

    def legalize(self, b: FunctionBuilder, x: Buffer, indices: Buffer) -> Buffer:
        """One map."""
        axis = normalize_axis(self, self.axis, x.ndim)

        def element(*i: Var) -> Expr:
            return x[_along(self, i, indices, x, axis)]

        return b.compute(indices.shape, element, name="y")


def require_inside(op: Operator, x: TensorType, other: TensorType, axis: int, what: str) -> None:
    """Refuse a tensor that provably reaches beyond x off `axis`."""
    if x.shape is None or other.shape is None:
        return
    for k, (size, part) in enumerate(zip(x.shape, other.shape, strict=True)):
        if k != axis and analyzer_of(size, part).can_prove(part > size):
            fail(op, f"{what} is larger than x along axis {k}: {part!r} and {size!r}")


def _along(
    op: Operator, i: tuple[Var, ...], indices: Buffer, x: Buffer, axis: int
) -> tuple[Expr, ...]:
    """The place in x that `indices` names for the position `i` of its own, along `axis`. Where
    indices may be larger than x off that axis, the program fails as for an index out of range."""
    place: list[Expr] = []
    for k, (own, part, size) in enumerate(zip(i, indices.shape, x.shape, strict=True)):
        if k == axis:
            place.append(from_front(op, indices[i], size))
        elif analyzer_of(size, part).can_prove(part <= size):
            place.append(own)
        else:
            message = (f"{op.name}: position ", own, " is out of range for an axis of ", size)
            place.append(checked(own, own < size, *message))
    return tuple(place)


@dataclass(frozen=True)
class GatherND(Operator):
    """gather_nd(x, indices, batch_dims): the slices of x at the positions in the last axis of
    indices; the first `batch_dims` axes of both are walked together.

    x: (b..., n_1, …, n_k, rest...). indices: (b..., places..., k) integer, a negative one counts
    from the end. Result: (b..., places..., rest...). Source: ONNX GatherND-13.
    """

    name = "gather_nd"
    batch_dims: int = 0

    def infer(self, x: Type, indices: Type) -> TensorType:
        """The places with the rest of x."""
        data, places = tensor(self, x, "x"), tensor(self, indices, "indices")
        require_integer(self, places, "indices")
        device = common_device(self, data, places)
        if places.ndim == 0:
            fail(self, "indices must have at least one dimension")
        if data.ndim < 0 or places.shape is None:
            return TensorType(None, data.dtype, -1, device)
        depth = constant(self, places.shape[-1], "the last extent of indices")
        start = self.batch_dims
        if not 0 <= start < places.ndim or start + depth > data.ndim:
            fail(self, f"{depth} indices after {start} batch axes into {data.ndim} dimensions")
        if data.shape is None:
            rank = places.ndim - 1 + data.ndim - start - depth
            return TensorType(None, data.dtype, rank, device)
        for axis in range(start):
            require_same(self, data.shape[axis], places.shape[axis], "the batch extents")
        shape = (*places.shape[:-1], *data.shape[start + depth :])
        return tensor_type(shape, data.dtype, device=device)

    def legalize(self, b: FunctionBuilder, x: Buffer, indices: Buffer) -> Buffer:
        """One map."""
        depth = constant(self, indices.shape[-1], "the last extent of indices")
        count = indices.ndim - 1
        start = self.batch_dims

        def element(*i: Var) -> Expr:
            spots = tuple(
                from_front(self, indices[(*i[:count], IntImm(k))], x.shape[start + k])
                for k in range(depth)
            )
            return x[(*i[:start], *spots, *i[count:])]

        return b.compute(result_shape(self, x, indices), element, name="y")


_COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "update": lambda old, new: new,
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "min": minimum,
    "max": maximum,
}
"""How a scatter joins an element with an update."""


def scatter(
    b: FunctionBuilder,
    x: Buffer,
    sizes: Sequence[Expr],
    place: Callable[[tuple[Var, ...]], tuple[Expr, ...]],
    update: Callable[[tuple[Var, ...]], Expr],
    reduction: str,
) -> Buffer:
    """A copy of x in which, for each index of a box of `sizes` in order, the element at
    `place(index)` is joined with `update(index)`."""
    target = b.allocate(x.shape, x.dtype, name="y")

    def copy(*i: Var) -> Stmt:
        return store(target, i, x[i])

    def put(*i: Var) -> Stmt:
        spot = place(i)
        return store(target, spot, _COMBINE[reduction](target[spot], update(i)))

    b.block(x.shape, copy, name="copy")
    b.block(tuple(sizes), put, kinds="N" * len(sizes), name="scatter")
    return target


def check_reduction(op: Operator, reduction: str) -> None:
    """Refuse an unknown way to join updates."""
    if reduction not in _COMBINE:
        fail(op, f"reduction must be one of {', '.join(_COMBINE)}, got {reduction!r}")


@dataclass(frozen=True)
class ScatterElements(Operator):
    """scatter_elements(x, indices, updates, axis, reduction): x with, for every position i, j, …
    of updates, the element [i, indices[i, j, …], …] along `axis` joined with it.

    x, indices, updates: one rank; indices and updates one shape. indices: integer, a negative one
    counts from the end. reduction: "update" (the last wins), "add", "mul", "min", "max".
    Result: the type of x. Source: ONNX ScatterElements-18.
    """

    name = "scatter_elements"
    axis: int = 0
    reduction: str = "update"

    def infer(self, x: Type, indices: Type, updates: Type) -> TensorType:
        """The type of x."""
        data, places = tensor(self, x, "x"), tensor(self, indices, "indices")
        new = tensor(self, updates, "updates")
        check_reduction(self, self.reduction)
        require_integer(self, places, "indices")
        dtype = common_dtype(self, data, new)
        device = common_device(self, data, places, new)
        if data.ndim >= 0:
            axis = normalize_axis(self, self.axis, data.ndim)
            require_rank(self, places, data.ndim, "indices")
            require_rank(self, new, data.ndim, "updates")
            require_inside(self, data, places, axis, "indices")
        if places.shape is not None and new.shape is not None:
            for a, b in zip(places.shape, new.shape, strict=True):
                require_same(self, a, b, "the extents of indices and updates")
        return TensorType(data.shape, dtype, data.ndim, device)

    def legalize(self, b: FunctionBuilder, x: Buffer, indices: Buffer, updates: Buffer) -> Buffer:
        """A copy, then the updates in order."""
        axis = normalize_axis(self, self.axis, x.ndim)

        def place(i: tuple[Var, ...]) -> tuple[Expr, ...]:
            return _along(self, i, indices, x, axis)

        def update(i: tuple[Var, ...]) -> Expr:
            return updates[i]

        return scatter(b, x, indices.shape, place, update, self.reduction)


@dataclass(frozen=True)
class ScatterND(Operator):
    """scatter_nd(x, indices, updates, reduction): x with the slices at the positions in the last
    axis of indices joined with those of updates.

    x: (n_1, …, n_k, rest...). indices: (places..., k) integer, a negative one counts from the end.
    updates: (places..., rest...). reduction: as of scatter_elements. Result: the type of x.
    Source: ONNX ScatterND-18.
    """

    name = "scatter_nd"
    reduction: str = "update"

    def infer(self, x: Type, indices: Type, updates: Type) -> TensorType:
        """The type of x."""
        data, places = tensor(self, x, "x"), tensor(self, indices, "indices")
        new = tensor(self, updates, "updates")
        check_reduction(self, self.reduction)
        require_integer(self, places, "indices")
        dtype = common_dtype(self, data, new)
        device = common_device(self, data, places, new)
        if places.ndim == 0:
            fail(self, "indices must have at least one dimension")
        if data.shape is not None and places.shape is not None:
            depth = constant(self, places.shape[-1], "the last extent of indices")
            if depth > data.ndim:
                fail(self, f"{depth} indices into {data.ndim} dimensions")
            wanted = (*places.shape[:-1], *data.shape[depth:])
            require_rank(self, new, len(wanted), "updates")
            for a, b in zip(wanted, new.shape or (), strict=new.shape is not None):
                require_same(self, a, b, "the extents of updates and of the slices")
        return TensorType(data.shape, dtype, data.ndim, device)

    def legalize(self, b: FunctionBuilder, x: Buffer, indices: Buffer, updates: Buffer) -> Buffer:
        """A copy, then the updates in order."""
        depth = constant(self, indices.shape[-1], "the last extent of indices")
        count = indices.ndim - 1

        def place(i: tuple[Var, ...]) -> tuple[Expr, ...]:
            spots = (
                from_front(self, indices[(*i[:count], IntImm(k))], x.shape[k]) for k in range(depth)
            )
            return (*spots, *i[count:])

        def update(i: tuple[Var, ...]) -> Expr:
            return updates[i]

        return scatter(b, x, updates.shape, place, update, self.reduction)


@dataclass(frozen=True)
class TensorScatter(Operator):
    """tensor_scatter(x, update, positions, axis, circular): x with, for each item of the first
    axis, `update` written along `axis` from the item's position on.

    x: (batch, ..., n, ...). update: as x with m <= n elements along the axis, which is not the
    first one. positions: integer (batch,), not negative. circular: what goes beyond the end is
    written from the beginning on; without it, that fails. Source: ONNX TensorScatter-24.
    """

    name = "tensor_scatter"
    axis: int = -2
    circular: bool = False

    def infer(self, x: Type, update: Type, positions: Type) -> TensorType:
        """The type of x."""
        data, new = tensor(self, x, "x"), tensor(self, update, "update")
        places = tensor(self, positions, "positions")
        require_integer(self, places, "positions")
        require_rank(self, places, 1, "positions")
        dtype, device = common_dtype(self, data, new), common_device(self, data, new, places)
        if data.ndim >= 0:
            require_rank(self, new, data.ndim, "update")
            if normalize_axis(self, self.axis, data.ndim) == 0:
                fail(self, "axis must not be the first one")
        return TensorType(data.shape, dtype, data.ndim, device)

    def legalize(self, b: FunctionBuilder, x: Buffer, update: Buffer, positions: Buffer) -> Buffer:
        """One map that chooses between the two tensors."""
        axis = normalize_axis(self, self.axis, x.ndim)
        size, count = x.shape[axis], update.shape[axis]

        def element(*i: Var) -> Expr:
            start = index(positions[i[0]])
            limit = size if self.circular else size - count + 1
            start = checked(
                start,
                logical_and(start >= 0, start < limit),
                *(f"{self.name}: ", count, " elements from position ", start),
                *(" on do not fit an axis of ", size),
            )
            number = i[axis] - start
            if self.circular:
                number = select(number < 0, number + size, number)
            inside = logical_and(number >= 0, number < count)
            return if_then_else(inside, update[(*i[:axis], number, *i[axis + 1 :])], x[i])

        return b.compute(x.shape, element, name="y")


@dataclass(frozen=True)
class IndexTensor(Operator):
    """index_tensor(x, indices): x[indices[0], indices[1], …], the indices broadcast together.

    x: (n_1, …, n_k, rest...). indices: a tuple of k integer tensors; a negative index counts from
    the end. Result: (broadcast shape..., rest...). Source: numpy's advanced indexing.
    """

    name = "index_tensor"

    def infer(self, x: Type, indices: Type) -> TensorType:
        """The broadcast shape of the indices with the rest of x."""
        data = tensor(self, x, "x")
        places = index_operands(self, data, indices)
        device = common_device(self, data, *places)
        known = [item.shape for item in places if item.shape is not None]
        if data.shape is None or len(known) != len(places):
            return TensorType(None, data.dtype, -1, device)
        shape = (*broadcast_shapes(self, *known), *data.shape[len(places) :])
        return tensor_type(shape, data.dtype, device=device)

    def legalize(self, b: FunctionBuilder, x: Buffer, indices: tuple[Buffer, ...]) -> Buffer:
        """One map."""
        places = broadcast_shapes(self, *(item.shape for item in indices))
        count = len(places)

        def element(*i: Var) -> Expr:
            spots = (
                from_front(self, load(item, places, i[:count]), x.shape[axis])
                for axis, item in enumerate(indices)
            )
            return x[(*spots, *i[count:])]

        return b.compute((*places, *x.shape[len(indices) :]), element, name="y")


def index_operands(op: Operator, x: TensorType, indices: Type) -> tuple[TensorType, ...]:
    """The items of the operand `indices`, integers, not more than x has dimensions."""
    places = tensors(op, indices, "indices")
    for k, item in enumerate(places):
        require_integer(op, item, f"indices[{k}]")
    if not places or (0 <= x.ndim < len(places)):
        fail(op, f"{len(places)} indices into {x.ndim} dimensions")
    return places


@dataclass(frozen=True)
class IndexPut(Operator):
    """index_put(x, indices, values, accumulate): x with x[indices[0], indices[1], …] replaced by
    the values, or with them added where accumulate is set.

    x: (n_1, …, n_k, rest...). indices: a tuple of k integer tensors that broadcast; a negative
    index counts from the end. values: broadcasts to (broadcast shape..., rest...). Of several
    values for one place the last wins. Result: the type of x. Source: torch.Tensor.index_put.
    """

    name = "index_put"
    accumulate: bool = False

    def infer(self, x: Type, indices: Type, values: Type) -> TensorType:
        """The type of x."""
        data, new = tensor(self, x, "x"), tensor(self, values, "values")
        places = index_operands(self, data, indices)
        dtype = common_dtype(self, data, new)
        device = common_device(self, data, new, *places)
        known = [item.shape for item in places if item.shape is not None]
        if data.shape is not None and new.shape is not None and len(known) == len(places):
            sizes = (*broadcast_shapes(self, *known), *data.shape[len(places) :])
            BroadcastTo().infer(new, ShapeType(sizes, len(sizes)))
        return TensorType(data.shape, dtype, data.ndim, device)

    def legalize(
        self, b: FunctionBuilder, x: Buffer, indices: tuple[Buffer, ...], values: Buffer
    ) -> Buffer:
        """A copy, then the values in order."""
        places = broadcast_shapes(self, *(item.shape for item in indices))
        sizes = (*places, *x.shape[len(indices) :])
        count = len(places)

        def place(i: tuple[Var, ...]) -> tuple[Expr, ...]:
            spots = (
                from_front(self, load(item, places, i[:count]), x.shape[axis])
                for axis, item in enumerate(indices)
            )
            return (*spots, *i[count:])

        def update(i: tuple[Var, ...]) -> Expr:
            return load(values, sizes, i)

        return scatter(b, x, sizes, place, update, "add" if self.accumulate else "update")


@dataclass(frozen=True)
class ReverseSequence(Operator):
    """reverse_sequence(x, seq_lengths, seq_axis, batch_axis): for each item of the batch, the
    first seq_lengths[item] elements along seq_axis in reverse order, the others as they are.

    seq_lengths: integer (n,) with n the extent of batch_axis. Source: ONNX ReverseSequence-10.
    """

    name = "reverse_sequence"
    seq_axis: int = 1
    batch_axis: int = 0

    def infer(self, x: Type, seq_lengths: Type) -> TensorType:
        """The type of x."""
        data, lengths = tensor(self, x, "x"), tensor(self, seq_lengths, "seq_lengths")
        require_integer(self, lengths, "seq_lengths")
        require_rank(self, lengths, 1, "seq_lengths")
        common_device(self, data, lengths)
        if data.ndim >= 0:
            _, batch = normalize_axes(self, (self.seq_axis, self.batch_axis), data.ndim)
            if data.shape is not None and lengths.shape is not None:
                require_same(self, data.shape[batch], lengths.shape[0], "the batch extents")
        return data

    def legalize(self, b: FunctionBuilder, x: Buffer, seq_lengths: Buffer) -> Buffer:
        """One map."""
        axis, batch = normalize_axes(self, (self.seq_axis, self.batch_axis), x.ndim)

        def element(*i: Var) -> Expr:
            length = index(seq_lengths[i[batch]])
            fits = logical_and(length >= 0, length <= x.shape[axis])
            message = (f"{self.name}: a sequence of ", length, " in an axis of ", x.shape[axis])
            length = checked(length, fits, *message)
            place = select(i[axis] < length, length - 1 - i[axis], i[axis])
            return x[(*i[:axis], place, *i[axis + 1 :])]

        return b.compute(x.shape, element, name="y")
