"""Running sums and products along an axis, and sampling by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.dtype import INT64, DType
from transect.ir.expr import EQ, Expr, IntImm, Var, cast, const, logical_and, select
from transect.ir.types import TensorType, Type
from transect.relax.op.inference import (
    common_device,
    common_dtype,
    normalize_axis,
    product,
    require_dtype,
    require_float,
    require_number,
    require_rank,
    require_same,
    simplify,
    tensor,
    with_shape,
)
from transect.relax.op.loops import accumulator, reduce, unflatten_index
from transect.relax.op.operator import Operator
from transect.relax.op.reduce import narrow
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, store
from transect.tir.op import if_then_else
from transect.tir.stmt import Stmt


@dataclass(frozen=True)
class Scan(Operator):
    """Base of the running sums and products along `axis` (None: of the flattened tensor).

    dtype: to compute in, and of the result; that of x by default. exclusive: without the element
    itself. reverse: from the last element on.
    """

    start: ClassVar[int] = 0

    axis: int | None = None
    dtype: DType | None = None
    exclusive: bool = False
    reverse: bool = False

    def join(self, a: Expr, b: Expr) -> Expr:
        """One step."""
        raise NotImplementedError(f"{type(self).__name__}.join")

    def infer(self, x: Type) -> TensorType:
        """The shape of x, or one dimension."""
        data = tensor(self, x, "x")
        if self.dtype is None:
            require_number(self, data)
        dtype = self.dtype or data.dtype
        if self.axis is None:
            if data.shape is None:
                return TensorType(None, dtype, 1, data.device)
            return with_shape(data, [simplify(product(data.shape))], dtype)
        if data.ndim >= 0:
            normalize_axis(self, self.axis, data.ndim)
        return TensorType(data.shape, dtype, data.ndim, data.device)

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """One scan: each step reads what the one before it wrote."""
        dtype = self.dtype or x.dtype
        wide = accumulator(dtype)
        flat = self.axis is None
        sizes = (simplify(product(x.shape)),) if flat else x.shape
        axis = 0 if self.axis is None else normalize_axis(self, self.axis, x.ndim)
        target = b.allocate(sizes, wide, name="running")

        def value(i: tuple[Expr, ...]) -> Expr:
            return cast(x[unflatten_index(i[0], x.shape)] if flat else x[i], wide)

        def body(*i: Var) -> Stmt:
            # The loop that scans runs last, over the axes that do not.
            *rest, k = i
            place, last = (sizes[axis] - 1 - k, sizes[axis] - k) if self.reverse else (k, k - 1)
            here = (*rest[:axis], place, *rest[axis:])
            before = (*rest[:axis], last, *rest[axis:])
            identity = const(self.start, wide)
            past = if_then_else(EQ(k, IntImm(0)), identity, target[before])
            if self.exclusive:
                joined = if_then_else(EQ(k, IntImm(0)), identity, value(before))
                return store(target, here, self.join(past, joined))
            return store(target, here, self.join(past, value(here)))

        extents = (*sizes[:axis], *sizes[axis + 1 :], sizes[axis])
        b.block(extents, body, kinds="S" * (len(sizes) - 1) + "N", name="scan")
        return narrow(b, target, dtype)


@dataclass(frozen=True)
class Cumsum(Scan):
    """cumsum(x, axis, dtype, exclusive, reverse): the sum of the elements up to each one.

    x: number. Narrow floats accumulate in float32. Source: ONNX CumSum-14.
    """

    name = "cumsum"

    def join(self, a: Expr, b: Expr) -> Expr:
        """a + b."""
        return a + b


@dataclass(frozen=True)
class Cumprod(Scan):
    """cumprod(x, axis, dtype, exclusive, reverse): the product of the elements up to each one.

    x: number. Narrow floats accumulate in float32. Source: ONNX CumProd-26.
    """

    name = "cumprod"
    start = 1

    def join(self, a: Expr, b: Expr) -> Expr:
        """a * b."""
        return a * b


@dataclass(frozen=True)
class MultinomialFromUniform(Operator):
    """multinomial_from_uniform(prob, uniform_sample, sample_indices, dtype): for each sample u, the
    first class whose running sum of probabilities is above u.

    prob: (batch, classes) float. uniform_sample: (n, 1) in [0, 1), of the dtype of prob.
    sample_indices: (n, 1) int64, the row of prob of each sample. Result: (n, 1) of `dtype`, the
    last class where rounding leaves none. Source: Relax multinomial_from_uniform.
    """

    name = "multinomial_from_uniform"
    dtype: DType = INT64

    def infer(self, prob: Type, uniform_sample: Type, sample_indices: Type) -> TensorType:
        """(n, 1)."""
        p, u = tensor(self, prob, "prob"), tensor(self, uniform_sample, "uniform_sample")
        rows = tensor(self, sample_indices, "sample_indices")
        require_float(self, p, "prob")
        common_dtype(self, p, u)
        device = common_device(self, p, u, rows)
        require_dtype(self, rows, INT64, "sample_indices")
        for item, what in ((p, "prob"), (u, "uniform_sample"), (rows, "sample_indices")):
            require_rank(self, item, 2, what)
        if u.shape is not None and rows.shape is not None:
            for a, b in zip(u.shape, rows.shape, strict=True):
                require_same(self, a, b, "the extents of uniform_sample and sample_indices")
        if u.shape is not None:
            require_same(self, u.shape[1], IntImm(1), "the last extent of uniform_sample and 1")
        return TensorType(u.shape, self.dtype, 2, device)

    def legalize(
        self, b: FunctionBuilder, prob: Buffer, uniform_sample: Buffer, sample_indices: Buffer
    ) -> Buffer:
        """A running sum, then a count of the classes that it does not take above the sample."""
        running = Cumsum(1).legalize(b, prob)
        classes = prob.shape[1]

        def passed(i: Expr, j: Expr, k: Expr) -> Expr:
            below = running[sample_indices[i, j], k] <= uniform_sample[i, j]
            # The last class is not counted: it takes what rounding leaves.
            counts = logical_and(below, k < classes - 1)
            return select(counts, const(1, self.dtype), const(0, self.dtype))

        return reduce(b, uniform_sample.shape, (classes,), passed, "sum", "y")
