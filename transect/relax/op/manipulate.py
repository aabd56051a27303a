"""Operators that give a tensor another shape: views, broadcasts, transposes, joins, splits.

Selecting elements by position lives in `slice.py` and `index.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transect.ir.expr import Expr, IntImm, Var, as_int, minimum
from transect.ir.sizes import ceildiv
from transect.ir.types import TensorType, TupleType, Type
from transect.relax.op.inference import (
    as_sizes,
    common_device,
    common_dtype,
    fail,
    normalize_axes,
    normalize_axis,
    present,
    product,
    require_same,
    same,
    shape,
    shape_rank,
    simplify,
    tensor,
    tensors,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import (
    flatten_index,
    load,
    result_shape,
    unflatten_index,
)
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.op import if_then_else

MOST_AXES = 64
"""Of a numpy array."""
MOST_PARTS = 1 << 16

# --- views -----------------------------------------------------------------------------------


def copy_as(b: FunctionBuilder, x: Buffer, sizes: tuple[Expr, ...]) -> Buffer:
    """The elements of `x` in row-major order under another shape, copied.

    Leading and trailing dimensions that both shapes share keep their own index.
    """
    limit = min(x.ndim, len(sizes))
    head = 0
    while head < limit and same(x.shape[head], sizes[head]):
        head += 1
    tail = 0
    while tail < limit - head and same(x.shape[-1 - tail], sizes[-1 - tail]):
        tail += 1
    old = x.shape[head : x.ndim - tail]
    new = sizes[head : len(sizes) - tail]

    def element(*i: Var) -> Expr:
        middle = unflatten_index(flatten_index(i[head : len(sizes) - tail], new), old)
        return x[(*i[:head], *middle, *i[len(sizes) - tail :])]

    return b.compute(sizes, element, name="y")


@dataclass(frozen=True)
class View(Operator):
    """Base of the operators whose result is the operand's data under another shape."""

    is_view = True

    def legalize(self, b: FunctionBuilder, x: Buffer, *operands: Any) -> Buffer:
        """A copy, for where no view is possible."""
        return copy_as(b, x, result_shape(self, x, *operands))


@dataclass(frozen=True)
class Reshape(View):
    """reshape(x, shape): the elements of x in row-major order under another shape.

    shape: as many elements as x has, which must be provable. One dimension may be -1: what is
    left over. A constant 0 stays 0. Source: ONNX Reshape-21 with allowzero=1.
    """

    name = "reshape"

    def infer(self, x: Type, shape: Type) -> TensorType:
        """The given shape. Raises InferenceError where the number of elements would change."""
        x = tensor(self, x, "x")
        values = shape_values(self, shape)
        if values is None:
            return unknown_like(x, ndim=shape_rank(self, shape, "shape"))
        sizes = list(as_sizes(values))
        free = [axis for axis, size in enumerate(sizes) if as_int(size) == -1]
        if len(free) > 1:
            fail(self, "only one dimension can be -1")
        if x.shape is None:
            return unknown_like(x, ndim=len(sizes)) if free else with_shape(x, sizes)
        total = simplify(product(x.shape))
        if free:
            rest = simplify(product(size for size in sizes if as_int(size) != -1))
            if as_int(rest) == 0:
                fail(self, "a dimension cannot be -1 beside one of 0")
            sizes[free[0]] = simplify(total // rest)
        require_same(self, total, simplify(product(sizes)), "the numbers of elements")
        return with_shape(x, sizes)


def shape_values(op: Operator, value: Type) -> tuple[Expr, ...] | None:
    """The values of the operand `shape`."""
    return shape(op, value, "shape")


@dataclass(frozen=True)
class Flatten(View):
    """flatten(x): the elements of x in row-major order, in one dimension. Source: Relax flatten."""

    name = "flatten"

    def infer(self, x: Type) -> TensorType:
        """One dimension, of all elements."""
        x = tensor(self, x, "x")
        if x.shape is None:
            return unknown_like(x, ndim=1)
        return x if x.ndim == 1 else with_shape(x, [simplify(product(x.shape))])


@dataclass(frozen=True)
class BatchFlatten(View):
    """nn.batch_flatten(x): x with all dimensions but the first joined into one.

    x: at least 1 dimension. Source: Relax nn.batch_flatten.
    """

    name = "nn.batch_flatten"

    def infer(self, x: Type) -> TensorType:
        """Two dimensions."""
        x = tensor(self, x, "x")
        if x.ndim == 0:
            fail(self, "x must have at least one dimension")
        if x.shape is None:
            return unknown_like(x, ndim=2)
        return with_shape(x, [x.shape[0], simplify(product(x.shape[1:]))])


@dataclass(frozen=True)
class Squeeze(View):
    """squeeze(x, axis): x without the axes in `axis`, whose extent must be 1.

    axis: an axis, several, or None for all that are known to have extent 1.
    Source: ONNX Squeeze-13.
    """

    name = "squeeze"
    axis: int | tuple[int, ...] | None = None

    def infer(self, x: Type) -> TensorType:
        """The other dimensions. Raises InferenceError where an extent is not provably 1."""
        x = tensor(self, x, "x")
        if x.ndim < 0 or (x.shape is None and self.axis is None):
            return unknown_like(x, ndim=-1)
        axes = () if self.axis is None else normalize_axes(self, self.axis, x.ndim)
        if x.shape is None:
            return unknown_like(x, ndim=x.ndim - len(axes))
        if self.axis is None:
            verdicts = [same(size, IntImm(1)) for size in x.shape]
            if None in verdicts:
                unclear = verdicts.index(None)
                fail(self, f"cannot tell whether axis {unclear} has extent 1", "give axis")
            axes = tuple(axis for axis, verdict in enumerate(verdicts) if verdict)
        for axis in axes:
            require_same(self, x.shape[axis], IntImm(1), f"the extent of axis {axis} and 1")
        return with_shape(x, [size for axis, size in enumerate(x.shape) if axis not in axes])


@dataclass(frozen=True)
class ExpandDims(View):
    """expand_dims(x, axis): x with new axes of extent 1, at the positions `axis` of the result.

    Source: ONNX Unsqueeze-13.
    """

    name = "expand_dims"
    axis: int | tuple[int, ...]

    def infer(self, x: Type) -> TensorType:
        """The dimensions of x with those of extent 1 among them."""
        x = tensor(self, x, "x")
        new = (self.axis,) if isinstance(self.axis, int) else self.axis
        if x.ndim < 0:
            return unknown_like(x)
        rank = x.ndim + len(new)
        if rank > MOST_AXES:
            fail(self, f"{rank} dimensions are more than the {MOST_AXES} that an array may have")
        axes = normalize_axes(self, new, rank)
        if x.shape is None:
            return unknown_like(x, ndim=rank)
        rest = iter(x.shape)
        return with_shape(x, [1 if axis in axes else next(rest) for axis in range(rank)])


# --- broadcasts and transposes -----------------------------------------------------------------


@dataclass(frozen=True)
class BroadcastTo(Operator):
    """broadcast_to(x, shape): x repeated along the axes where it has extent 1, or none.

    shape: what numpy's rules give for x and `shape` must be `shape`.
    Source: array API broadcast_to.
    """

    name = "broadcast_to"

    def infer(self, x: Type, shape: Type) -> TensorType:
        """The given shape. Raises InferenceError where x does not broadcast to it."""
        x = tensor(self, x, "x")
        values = shape_values(self, shape)
        if values is None:
            return unknown_like(x, ndim=shape_rank(self, shape, "shape"))
        sizes = as_sizes(values)
        if x.ndim > len(sizes):
            fail(self, f"x has {x.ndim} dimensions, more than the {len(sizes)} of shape")
        if x.shape is not None:
            for axis, size in enumerate(x.shape, len(sizes) - x.ndim):
                if as_int(size) != 1:
                    require_same(self, size, sizes[axis], f"the extents of axis {axis}")
        return with_shape(x, sizes)

    def legalize(self, b: FunctionBuilder, x: Buffer, shape: tuple[Expr, ...]) -> Buffer:
        """One map."""
        sizes = result_shape(self, x, shape)

        def element(*i: Var) -> Expr:
            return load(x, sizes, i)

        return b.compute(sizes, element, name="y")


@dataclass(frozen=True)
class PermuteDims(Operator):
    """permute_dims(x, axes): axis k of the result is axis axes[k] of x; None reverses them.

    Source: ONNX Transpose-21.
    """

    name = "permute_dims"
    axes: tuple[int, ...] | None = None

    def order(self, ndim: int) -> tuple[int, ...]:
        """The permutation, counted from the front."""
        if self.axes is None:
            return tuple(range(ndim))[::-1]
        if len(self.axes) != ndim:
            fail(self, f"axes={self.axes} does not permute {ndim} dimensions")
        return normalize_axes(self, self.axes, ndim)

    def infer(self, x: Type) -> TensorType:
        """The permuted dimensions."""
        x = tensor(self, x, "x")
        if x.ndim < 0:
            return unknown_like(x, ndim=-1 if self.axes is None else len(self.axes))
        order = self.order(x.ndim)
        return x if x.shape is None else with_shape(x, [x.shape[axis] for axis in order])

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        order = self.order(x.ndim)

        def element(*i: Var) -> Expr:
            return x[tuple(i[order.index(axis)] for axis in range(x.ndim))]

        return b.compute(tuple(x.shape[axis] for axis in order), element, name="y")


# --- joins and splits --------------------------------------------------------------------------


@dataclass(frozen=True)
class Concat(Operator):
    """concat(tensors, axis): the tensors one after the other along `axis`.


    tensors: one or more, of one dtype, with equal dimensions but for `axis`. axis: None joins
    vectors.
    Source: ONNX Concat-13.
    """

    name = "concat"
    axis: int | None = 0

    def infer(self, tensors: Type) -> TensorType:
        """The dimensions of the first, with the extents along the axis added."""
        items = operand_tensors(self, tensors)
        dtype, device = common_dtype(self, *items), common_device(self, *items)
        ranks = {item.ndim for item in items if item.ndim >= 0}
        if self.axis is None:
            if ranks - {1}:
                fail(self, "without an axis, the tensors must have one dimension", "R.flatten them")
            ranks = {1}
        if len(ranks) > 1:
            fail(self, f"the tensors have different ranks, {sorted(ranks)}")
        rank = ranks.pop() if ranks else -1
        if rank < 0:
            return TensorType(None, dtype, -1, device)
        axis = normalize_axis(self, self.axis or 0, rank)
        known = [item.shape for item in items if item.shape is not None]
        for sizes in known[1:]:
            for other in range(rank):
                if other != axis:
                    require_same(
                        self, known[0][other], sizes[other], f"the extents of axis {other}"
                    )
        if len(known) != len(items):
            return TensorType(None, dtype, rank, device)
        total: Expr = IntImm(0)
        for sizes in known:
            total = total + sizes[axis]
        shape = (*known[0][:axis], simplify(total), *known[0][axis + 1 :])
        return TensorType(shape, dtype, rank, device)

    def legalize(self, b: FunctionBuilder, tensors: tuple[Buffer, ...]) -> Buffer:
        """One map that finds the tensor by the position along the axis."""
        sizes = result_shape(self, tensors)
        axis = normalize_axis(self, self.axis or 0, len(sizes))
        starts: list[Expr] = [IntImm(0)]
        for item in tensors[:-1]:
            starts.append(simplify(starts[-1] + item.shape[axis]))

        def element(*i: Var) -> Expr:
            def part(k: int) -> Expr:
                return tensors[k][(*i[:axis], i[axis] - starts[k], *i[axis + 1 :])]

            value = part(len(tensors) - 1)
            for k in range(len(tensors) - 2, -1, -1):
                value = if_then_else(i[axis] < starts[k + 1], part(k), value)
            return value

        return b.compute(sizes, element, name="y")


def operand_tensors(op: Operator, value: Type) -> tuple[TensorType, ...]:
    """The items of the operand `tensors`. Raises InferenceError if there are none."""
    items = tensors(op, value, "tensors")
    if not items:
        fail(op, "needs at least one tensor")
    return items


@dataclass(frozen=True)
class Stack(Operator):
    """stack(tensors, axis): the tensors one after the other along a new axis, `axis` of the result.

    tensors: one or more, of one dtype and shape. Source: array API stack.
    """

    name = "stack"
    axis: int = 0

    def infer(self, tensors: Type) -> TensorType:
        """The common dimensions with the new one among them."""
        items = operand_tensors(self, tensors)
        dtype, device = common_dtype(self, *items), common_device(self, *items)
        ranks = {item.ndim for item in items if item.ndim >= 0}
        if len(ranks) > 1:
            fail(self, f"the tensors have different ranks, {sorted(ranks)}")
        if not ranks:
            return TensorType(None, dtype, -1, device)
        rank = ranks.pop()
        axis = normalize_axis(self, self.axis, rank + 1)
        known = [item.shape for item in items if item.shape is not None]
        for sizes in known[1:]:
            for other in range(rank):
                require_same(self, known[0][other], sizes[other], f"the extents of axis {other}")
        if not known:
            return TensorType(None, dtype, rank + 1, device)
        shape = (*known[0][:axis], IntImm(len(items)), *known[0][axis:])
        return TensorType(shape, dtype, rank + 1, device)

    def legalize(self, b: FunctionBuilder, tensors: tuple[Buffer, ...]) -> Buffer:
        """One map that finds the tensor by the position along the new axis."""
        sizes = result_shape(self, tensors)
        axis = normalize_axis(self, self.axis, len(sizes))

        def element(*i: Var) -> Expr:
            rest = (*i[:axis], *i[axis + 1 :])
            value: Expr = tensors[-1][rest]
            for k in range(len(tensors) - 2, -1, -1):
                value = if_then_else(i[axis] < k + 1, tensors[k][rest], value)
            return value

        return b.compute(sizes, element, name="y")


@dataclass(frozen=True)
class Split(Operator):
    """split(x, indices_or_sections, axis): x cut along `axis` into a tuple of tensors.

    indices_or_sections: a number of parts, each of ceil(extent / parts) but for the last, which
    may be shorter; or the positions of the cuts, where the parts after the first begin.
    Source: ONNX Split-18, numpy.split.
    """

    name = "split"
    indices_or_sections: int | tuple[int, ...]
    axis: int = 0

    def bounds(self, extent: Expr) -> list[tuple[Expr, Expr]]:
        """Where the parts of an axis of `extent` begin and end."""
        cut = self.indices_or_sections
        if isinstance(cut, int):
            if cut < 1:
                fail(self, f"cannot split into {cut} parts")
            step = simplify(ceildiv(extent, cut))
            marks = [simplify(minimum(step * k, extent)) for k in range(cut)]
        else:
            if any(b < a for a, b in zip((0, *cut), cut, strict=False)):
                fail(self, f"the positions {cut} must not be negative, nor decrease")
            marks = [IntImm(0), *(simplify(minimum(IntImm(mark), extent)) for mark in cut)]
        return list(zip(marks, [*marks[1:], extent], strict=True))

    def infer(self, x: Type) -> TupleType:
        """A tuple of tensors, one per part."""
        x = tensor(self, x, "x")
        cut = self.indices_or_sections
        parts = cut if isinstance(cut, int) else len(cut) + 1
        if parts > MOST_PARTS:
            fail(self, f"{parts} parts are more than the {MOST_PARTS} that a tuple may have")
        if x.shape is None:
            if x.ndim >= 0:
                normalize_axis(self, self.axis, x.ndim)
            return TupleType((unknown_like(x),) * parts)
        axis = normalize_axis(self, self.axis, x.ndim)
        sizes = [simplify(end - start) for start, end in self.bounds(x.shape[axis])]
        return TupleType(
            tuple(with_shape(x, [*x.shape[:axis], n, *x.shape[axis + 1 :]]) for n in sizes)
        )

    def legalize(self, b: FunctionBuilder, x: Buffer) -> tuple[Buffer, ...]:
        """One map for each part."""
        axis = normalize_axis(self, self.axis, x.ndim)
        return tuple(
            self._part(b, x, axis, start, end, f"y{k}")
            for k, (start, end) in enumerate(self.bounds(x.shape[axis]))
        )

    def _part(
        self, b: FunctionBuilder, x: Buffer, axis: int, start: Expr, end: Expr, name: str
    ) -> Buffer:
        def element(*i: Var) -> Expr:
            return x[(*i[:axis], i[axis] + start, *i[axis + 1 :])]

        sizes = (*x.shape[:axis], simplify(end - start), *x.shape[axis + 1 :])
        return b.compute(sizes, element, name=name)


# --- repeats -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repeat(Operator):
    """repeat(x, repeats, axis): each element `repeats` times in place along `axis`.

    axis: None repeats the elements of the flattened x. Source: array API repeat.
    """

    name = "repeat"
    repeats: int
    axis: int | None = None

    def infer(self, x: Type) -> TensorType:
        """The dimensions of x, that of the axis multiplied."""
        x = tensor(self, x, "x")
        if self.repeats < 0:
            fail(self, f"repeats must not be negative, got {self.repeats}")
        if self.axis is None:
            if x.shape is None:
                return unknown_like(x, ndim=1)
            return with_shape(x, [simplify(product(x.shape) * self.repeats)])
        if x.ndim < 0:
            return unknown_like(x)
        axis = normalize_axis(self, self.axis, x.ndim)
        if x.shape is None:
            return x
        size = simplify(x.shape[axis] * self.repeats)
        return with_shape(x, [*x.shape[:axis], size, *x.shape[axis + 1 :]])

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        sizes = result_shape(self, x)

        def element(*i: Var) -> Expr:
            if self.axis is None:
                return x[unflatten_index(i[0] // self.repeats, x.shape)]
            axis = normalize_axis(self, self.axis, x.ndim)
            return x[(*i[:axis], i[axis] // self.repeats, *i[axis + 1 :])]

        return b.compute(sizes, element, name="y")


@dataclass(frozen=True)
class Tile(Operator):
    """tile(x, repeats, counts): x put side by side repeats[k] times along axis k.

    repeats: an integer, or one for each of the last axes; the shorter of it and the rank of x is
    padded with ones in front. counts: a shape that stands for repeats that are not constant.
    Source: ONNX Tile-13, numpy.tile.
    """

    name = "tile"
    script_order = ("x", "repeats", "counts")
    repeats: int | tuple[int, ...] = ()

    def all_counts(self, ndim: int, counts: Sequence[Expr] | None) -> tuple[Expr, ...]:
        """One count for each axis of the result."""
        given = (self.repeats,) if isinstance(self.repeats, int) else self.repeats
        if any(count < 0 for count in given):
            fail(self, f"repeats must not be negative, got {self.repeats}")
        found = as_sizes(given) if counts is None else tuple(counts)
        return (*as_sizes([1] * (ndim - len(found))), *found)

    def infer(self, x: Type, counts: Type | None = None) -> TensorType:
        """The dimensions of x multiplied."""
        x = tensor(self, x, "x")
        if x.ndim < 0:
            return unknown_like(x)
        given = shape(self, counts, "counts") if counts is not None and present(counts) else None
        repeats = self.all_counts(x.ndim, given)
        if x.shape is None:
            return unknown_like(x, ndim=len(repeats))
        sizes = (*as_sizes([1] * (len(repeats) - x.ndim)), *x.shape)
        return with_shape(x, [simplify(n * c) for n, c in zip(sizes, repeats, strict=True)])

    def legalize(
        self, b: FunctionBuilder, x: Buffer, counts: tuple[Expr, ...] | None = None
    ) -> Buffer:
        """One map."""
        sizes = result_shape(self, x, counts)
        repeats = self.all_counts(x.ndim, counts)
        skipped = len(sizes) - x.ndim

        def element(*i: Var) -> Expr:
            return x[
                tuple(
                    i[axis] if as_int(repeats[axis]) == 1 else i[axis] % size
                    for axis, size in enumerate(x.shape, skipped)
                )
            ]

        return b.compute(sizes, element, name="y")


@dataclass(frozen=True)
class Flip(Operator):
    """flip(x, axis): x with the order along `axis` (one, several, or None for all) reversed.

    Source: array API flip.
    """

    name = "flip"
    axis: int | tuple[int, ...] | None = None

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        x = tensor(self, x, "x")
        if x.ndim >= 0:
            normalize_axes(self, self.axis, x.ndim)
        return x

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One map."""
        axes = normalize_axes(self, self.axis, x.ndim)

        def element(*i: Var) -> Expr:
            return x[
                tuple(
                    x.shape[axis] - 1 - item if axis in axes else item
                    for axis, item in enumerate(i)
                )
            ]

        return b.compute(x.shape, element, name="y")


@dataclass(frozen=True)
class Meshgrid(Operator):
    """meshgrid(tensors, indexing): each vector repeated along the axes of the others.

    tensors: vectors of n_0, n_1, … elements. Result: as many tensors of (n_0, n_1, …); with
    indexing "xy" the first two axes are exchanged. Source: array API meshgrid.
    """

    name = "meshgrid"
    indexing: str = "ij"

    def axes(self, count: int) -> tuple[int, ...]:
        """Which axis of the result each vector runs along."""
        if self.indexing not in ("ij", "xy"):
            fail(self, f'indexing must be "ij" or "xy", got {self.indexing!r}')
        plain = tuple(range(count))
        return (1, 0, *plain[2:]) if self.indexing == "xy" and count > 1 else plain

    def infer(self, tensors: Type) -> TupleType:
        """A tuple of tensors of one shape."""
        items = operand_tensors(self, tensors)
        axes = self.axes(len(items))
        common_dtype(self, *items)
        for item in items:
            if item.ndim not in (-1, 1):
                fail(self, f"each tensor must have one dimension, got {item.ndim}")
        known = [item.shape[0] for item in items if item.shape is not None]
        if len(known) != len(items):
            return TupleType(tuple(unknown_like(item, ndim=len(items)) for item in items))
        sizes = [known[axes.index(axis)] for axis in range(len(items))]
        return TupleType(tuple(with_shape(item, sizes) for item in items))

    def legalize(self, b: FunctionBuilder, tensors: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """One map for each vector."""
        axes = self.axes(len(tensors))
        sizes = tuple(tensors[axes.index(axis)].shape[0] for axis in range(len(tensors)))
        return tuple(self._grid(b, x, sizes, axes[k], f"y{k}") for k, x in enumerate(tensors))

    def _grid(
        self, b: FunctionBuilder, x: Buffer, sizes: Sequence[Expr], axis: int, name: str
    ) -> Buffer:
        def element(*i: Var) -> Expr:
            return x[i[axis]]

        return b.compute(tuple(sizes), element, name=name)
