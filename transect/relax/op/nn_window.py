"""Windows over any number of spatial axes that give more than a maximum or mean: the maximum with
its place, norms. The pools themselves are in `nn_pool.py`."""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.dtype import INT64
from transect.ir.expr import Expr, Var, cast, const, logical_and, select
from transect.ir.types import TensorType, TupleType, Type, tensor_type
from transect.relax.op.inference import as_sizes, fail, require_float, tensor
from transect.relax.op.loops import accumulator, flatten_index, math, result_shape
from transect.relax.op.nn_pool import MaxPool1d, MaxPool2d, MaxPool3d, Pool
from transect.relax.op.operator import Operator
from transect.relax.op.windows import padding_of
from transect.tir.buffer import Buffer
from transect.tir.builder import ARGMAX, FunctionBuilder
from transect.tir.op import abs as absolute
from transect.tir.op import highest, if_then_else, lowest

_PLAIN: dict[int, type[Pool]] = {1: MaxPool1d, 2: MaxPool2d, 3: MaxPool3d}


@dataclass(frozen=True)
class Windowed(Operator):
    """Base of the operators over windows of data (n, c, sizes...), one value of `pool_size` for
    each spatial axis; the other fields are those of nn.max_pool2d."""

    pool_size: tuple[int, ...] = (1,)
    strides: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False

    @property
    def pool(self) -> Pool:
        """The pool with the same windows."""
        rank = len(self.pool_size)
        if rank not in _PLAIN:
            fail(self, f"windows of {rank} axes")
        return _PLAIN[rank](
            self.pool_size, self.strides, self.padding, self.dilation, self.ceil_mode
        )

    def source(self, data: Buffer, i: tuple[Expr, ...]) -> tuple[list[Expr], Expr]:
        """Where the tap at indices (result's..., tap's...) reads, and whether that is inside."""
        pool = self.pool
        lead, place = pool.places(i[: data.ndim], i[data.ndim :])
        before, _ = padding_of(pool, self.padding, pool.rank)
        place = [p - low if low else p for p, low in zip(place, before, strict=True)]
        inside: list[Expr] = []
        for position, size in zip(place, data.shape[2:], strict=True):
            inside += [position >= 0, position < size]
        return [*lead, *place], logical_and(*inside)


@dataclass(frozen=True)
class MaxPoolWithIndices(Windowed):
    """nn.max_pool_with_indices(data): the greatest element of each window, and where it is.

    data: (n, c, sizes...). Result: two of (n, c, windows...): the maxima, and their int64 positions
    in the whole tensor in row-major order; column_major: with the spatial axes in the other order.
    Of equal elements the first. Source: ONNX MaxPool-22.
    """

    name = "nn.max_pool_with_indices"
    column_major: bool = False

    def infer(self, data: Type) -> TupleType:
        """The pool's type twice, the second of int64."""
        kind = self.pool.infer(data)
        return TupleType((kind, tensor_type(kind.shape, INT64, kind.ndim, kind.device)))

    def legalize(self, b: FunctionBuilder, data: Buffer) -> tuple[Buffer, Buffer]:
        """One reduction."""
        order = list(range(data.ndim))
        if self.column_major:
            order[2:] = order[:1:-1]
        sizes = [data.shape[axis] for axis in order]

        def element(*i: Expr) -> tuple[Expr, Expr]:
            place, inside = self.source(data, i)
            position = flatten_index([place[axis] for axis in order], sizes)
            value = if_then_else(inside, data[tuple(place)], lowest(data.dtype))
            return select(inside, position, highest(INT64)), value

        index, value = b.reduce_with(
            ARGMAX,
            result_shape(self.pool, data),
            as_sizes(self.pool_size),
            element,
            names=("index", "value"),
        )
        return value, index


@dataclass(frozen=True)
class LpPool(Windowed):
    """nn.lp_pool(data): sum(|x| ** p) ** (1 / p) of each window; padding counts as zeros.

    data: (n, c, sizes...) float. Result: (n, c, windows...). Source: ONNX LpPool-22.
    """

    name = "nn.lp_pool"
    p: int = 2

    def infer(self, data: Type) -> TensorType:
        """The pool's type."""
        require_float(self, tensor(self, data, "data"), "data")
        if self.p < 1:
            fail(self, f"p must be positive, got {self.p}")
        return self.pool.infer(data)

    def legalize(self, b: FunctionBuilder, data: Buffer) -> Buffer:
        """One sum, then a map."""
        wide = accumulator(data.dtype)

        def element(*i: Expr) -> Expr:
            place, inside = self.source(data, i)
            value = cast(if_then_else(inside, data[tuple(place)], 0), wide)
            if self.p == 1:
                return absolute(value)
            if self.p == 2:
                return value * value
            return math("pow", absolute(value), const(self.p, wide))

        shape = result_shape(self, data)
        total = b.reduce(shape, as_sizes(self.pool_size), element, name="total")

        def root(*i: Var) -> Expr:
            value = total[i]
            if self.p == 2:
                value = math("sqrt", value)
            elif self.p > 2:
                value = math("pow", value, const(1 / self.p, wide))
            return cast(value, data.dtype)

        return b.compute(shape, root, name="y", dtype=data.dtype)
