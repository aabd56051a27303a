"""Operators that contract axes of tensors: matrix products, einsum, outer products.

Convolutions live in `nn_conv.py`, attention in `attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transect.ir.dtype import INT64, DType
from transect.ir.expr import NE, Expr, IntImm, Var, cast, const
from transect.ir.types import TensorType, Type, tensor_type
from transect.relax.expr import Value
from transect.relax.op.binary import Add
from transect.relax.op.inference import (
    broadcast_shapes,
    common_device,
    common_dtype,
    fail,
    optional_tensor,
    require_float,
    require_number,
    require_rank,
    require_same,
    tensor,
    tensors,
    unknown_like,
    with_shape,
)
from transect.relax.op.loops import accumulator, broadcast_index, reduce, result_type
from transect.relax.op.manipulate import PermuteDims
from transect.relax.op.operator import Emit, Operator
from transect.relax.op.reduce import narrow
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder, assign, serial, store, when
from transect.tir.op import abs as absolute
from transect.tir.stmt import Stmt, seq


def contraction(
    b: FunctionBuilder,
    sizes: Sequence[Expr],
    reduced: Sequence[Expr],
    factors: Callable[..., tuple[Expr, ...]],
    dtype: DType,
    name: str,
) -> Buffer:
    """The block that sums products: `factors(*indices, *reduced indices)`, in the dtype to
    accumulate `dtype` in, and its conversion to `dtype`."""
    wide = accumulator(dtype)

    def element(*i: Expr) -> Expr:
        first, *rest = (cast(factor, wide) for factor in factors(*i))
        for factor in rest:
            first = first * factor
        return first

    if not reduced:
        return narrow(b, b.compute(tuple(sizes), element, name=name, dtype=wide), dtype)
    total = reduce(b, tuple(sizes), tuple(reduced), element, "sum", name)
    return narrow(b, total, dtype)


@dataclass(frozen=True)
class Matmul(Operator):
    """matmul(a, b): the matrix product over the last two axes; the axes before broadcast.

    a: (..., n, k) or (k,). b: (..., k, m) or (k,). Result: (..., n, m), without the axis of an
    operand that is a vector. Floats narrower than float32 accumulate in float32.
    out_dtype: of the result, and of the products; the operands' by default.
    Source: ONNX MatMul-13, numpy.matmul.
    """

    name = "matmul"
    out_dtype: DType | None = None

    def infer(self, a: Type, b: Type) -> TensorType:
        """The broadcast leading axes with (n, m)."""
        left, right = tensor(self, a, "a"), tensor(self, b, "b")
        dtype = common_dtype(self, left, right) if self.out_dtype is None else self.out_dtype
        device = common_device(self, left, right)
        for item, what in ((left, "a"), (right, "b")):
            require_number(self, item, what)
            if item.ndim == 0:
                fail(self, f"{what} must have at least one dimension", "use R.multiply for scalars")
        if left.ndim < 0 or right.ndim < 0:
            return TensorType(None, dtype, -1, device)
        vectors = (left.ndim == 1) + (right.ndim == 1)
        rank = max(left.ndim, right.ndim, 2) - vectors
        if left.shape is None or right.shape is None:
            return TensorType(None, dtype, rank, device)
        inner = right.shape[0] if right.ndim == 1 else right.shape[-2]
        require_same(self, left.shape[-1], inner, "the contracted extents")
        batch = broadcast_shapes(self, left.shape[:-2], right.shape[:-2])
        rows = left.shape[-2:-1]
        columns = right.shape[-1:] if right.ndim > 1 else ()
        return tensor_type((*batch, *rows, *columns), dtype, device=device)

    def legalize(self, b: FunctionBuilder, x: Buffer, y: Buffer) -> Buffer:
        """One sum of products."""
        result = result_type(self, x, y)
        sizes = result.shape or ()
        batch = len(sizes) - (x.ndim > 1) - (y.ndim > 1)

        def leading(item: Buffer, i: Sequence[Expr]) -> list[Expr]:
            axes = item.shape[:-2]
            skipped = batch - len(axes)
            return [broadcast_index(n, sizes[k], i[k]) for k, n in enumerate(axes, skipped)]

        def factors(*i: Expr) -> tuple[Expr, ...]:
            k = i[-1]
            row = i[batch : batch + 1] if x.ndim > 1 else ()
            column = (i[-2],) if y.ndim > 1 else ()
            return x[(*leading(x, i), *row, k)], y[(*leading(y, i), k, *column)]

        return contraction(b, sizes, x.shape[-1:], factors, result.dtype or x.dtype, "matmul")


@dataclass(frozen=True)
class Linear(Operator):
    """linear(x, weight, bias): x @ weight.T + bias.

    x: (..., k). weight: (m, k). bias: (m,) or absent. Result: (..., m). Source: Relax linear.
    """

    name = "linear"
    out_dtype: DType | None = None

    def infer(self, x: Type, weight: Type, bias: Type | None = None) -> TensorType:
        """The dimensions of x with m as the last."""
        data, matrix = tensor(self, x, "x"), tensor(self, weight, "weight")
        require_rank(self, matrix, 2, "weight")
        result = Matmul(self.out_dtype).infer(data, PermuteDims().infer(matrix))
        offset = optional_tensor(self, bias, "bias")
        return result if offset is None else Add().infer(result, offset)

    def decompose(self, emit: Emit, x: Value, weight: Value, bias: Value | None = None) -> Value:
        """permute_dims, matmul, add."""
        product = Matmul(self.out_dtype)(x, emit(PermuteDims()(weight)))
        return product if bias is None else Add()(emit(product), bias)


@dataclass(frozen=True)
class Outer(Operator):
    """outer(a, b): the products of every element of a with every one of b.

    a: (n,). b: (m,). Result: (n, m). Source: numpy.outer of vectors.
    """

    name = "outer"

    def infer(self, a: Type, b: Type) -> TensorType:
        """(n, m)."""
        left, right = tensor(self, a, "a"), tensor(self, b, "b")
        dtype, device = common_dtype(self, left, right), common_device(self, left, right)
        require_rank(self, left, 1, "a")
        require_rank(self, right, 1, "b")
        if left.shape is None or right.shape is None:
            return TensorType(None, dtype, 2, device)
        return tensor_type((*left.shape, *right.shape), dtype, device=device)

    def legalize(self, b: FunctionBuilder, x: Buffer, y: Buffer) -> Buffer:
        """One map."""

        def element(i: Var, j: Var) -> Expr:
            return x[i] * y[j]

        return b.compute((*x.shape, *y.shape), element, name="y")


@dataclass(frozen=True)
class Einsum(Operator):
    """einsum(operands, subscripts): the sum of products that Einstein's notation names.

    operands: a tuple of tensors of one dtype. subscripts: "ij,jk->ik"; without "->" the result has
    the letters that occur once, in alphabetical order. An ellipsis stands for the leading axes,
    which broadcast. A letter repeated in one operand takes its diagonal.
    Source: ONNX Einsum-12, numpy.einsum.
    """

    name = "einsum"
    subscripts: str

    def labels(self, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
        """The label of each axis of the operands and of the result.

        Letters name themselves; the axes of an ellipsis are "...k", k counted from the last.
        """
        text = self.subscripts.replace(" ", "")
        left, arrow, right = text.partition("->")
        terms = left.split(",")
        if len(terms) != len(ranks):
            fail(self, f"{text!r} names {len(terms)} operands, got {len(ranks)}")
        for term in (*terms, right):
            letters = term.replace("...", "", 1)
            if not (letters == "" or (letters.isalpha() and letters.isascii())):
                fail(self, f"cannot read {term!r} in the subscripts {text!r}")
        spread = 0
        inputs: list[list[str]] = []
        for term, rank in zip(terms, ranks, strict=True):
            hidden = rank - len(term.replace("...", ""))
            if hidden < 0 or (hidden and "..." not in term):
                fail(self, f"{term!r} does not fit an operand of {rank} dimensions")
            spread = max(spread, hidden)
            inputs.append(_expand(term, hidden))
        if arrow:
            output = _expand(right, spread)
        else:
            counts = [label for term in inputs for label in term]
            once = sorted(x for x in set(counts) if counts.count(x) == 1 and len(x) == 1)
            output = [*_expand("...", spread), *once]
        for label in output:
            if not any(label in term for term in inputs):
                fail(self, f"{label!r} of the result is in no operand of {text!r}")
        if len(set(output)) != len(output):
            fail(self, f"a letter is repeated in the result of {text!r}")
        return inputs, output

    def sizes(
        self, shapes: Sequence[tuple[Expr, ...]], inputs: Sequence[Sequence[str]]
    ) -> dict[str, Expr]:
        """The extent of each label: of those that occur with it, any may be 1."""
        one = IntImm(1)
        extents: dict[str, Expr] = {}
        for dims, labels in zip(shapes, inputs, strict=True):
            for size, label in zip(dims, labels, strict=True):
                (extents[label],) = broadcast_shapes(self, (extents.get(label, one),), (size,))
        return extents

    def infer(self, operands: Type) -> TensorType:
        """The extents of the result's labels."""
        items = tensors(self, operands, "operands")
        if not items:
            fail(self, "needs at least one operand")
        dtype, device = common_dtype(self, *items), common_device(self, *items)
        for item in items:
            require_number(self, item, "each operand")
        if any(item.ndim < 0 for item in items):
            return TensorType(None, dtype, -1, device)
        inputs, output = self.labels([item.ndim for item in items])
        known = [item.shape for item in items if item.shape is not None]
        if len(known) != len(items):
            return TensorType(None, dtype, len(output), device)
        extents = self.sizes(known, inputs)
        return tensor_type(tuple(extents[label] for label in output), dtype, device=device)

    def legalize(self, b: FunctionBuilder, operands: tuple[Buffer, ...]) -> Buffer:
        """One sum of products."""
        inputs, output = self.labels([x.ndim for x in operands])
        extents = self.sizes([x.shape for x in operands], inputs)
        summed = [label for label in extents if label not in output]

        def factors(*i: Expr) -> tuple[Expr, ...]:
            place = dict(zip((*output, *summed), i, strict=True))
            return tuple(
                x[
                    tuple(
                        broadcast_index(n, extents[label], place[label])
                        for n, label in zip(x.shape, labels, strict=True)
                    )
                ]
                for x, labels in zip(operands, inputs, strict=True)
            )

        return contraction(
            b,
            [extents[label] for label in output],
            [extents[label] for label in summed],
            factors,
            operands[0].dtype,
            "einsum",
        )


def _expand(term: str, hidden: int) -> list[str]:
    head, dots, tail = term.partition("...")
    middle = [f"...{k}" for k in range(hidden, 0, -1)] if dots else []
    return [*head, *middle, *tail]


@dataclass(frozen=True)
class Determinant(Operator):
    """determinant(x): the determinant of each matrix.

    x: (..., n, n) float. Result: (...). Source: ONNX Det-22, numpy.linalg.det.
    """

    name = "determinant"

    def infer(self, x: Type) -> TensorType:
        """The leading axes."""
        data = tensor(self, x, "x")
        require_float(self, data)
        if 0 <= data.ndim < 2:
            fail(self, f"x must have at least 2 dimensions, got {data.ndim}")
        if data.shape is None:
            return unknown_like(data, ndim=max(data.ndim - 2, -1))
        require_same(self, data.shape[-2], data.shape[-1], "the last two extents")
        return with_shape(data, data.shape[:-2])

    def legalize(self, b: FunctionBuilder, x: Buffer) -> Buffer:
        """Elimination with the greatest pivot of each column, on a copy."""
        wide = accumulator(x.dtype)
        lead, n = x.shape[:-2], x.shape[-1]
        work = b.compute(x.shape, lambda *i: cast(x[i], wide), name="work", dtype=wide)
        pivot = b.allocate(lead, INT64, name="pivot")
        result = b.allocate(lead, wide, name="product")
        one, zero = const(1, wide), const(0, wide)

        def body(*i: Var) -> Stmt:
            def size(row: Expr, k: Expr) -> Expr:
                return absolute(work[(*i, row, k)])

            def column(k: Var) -> Stmt:
                def search(r: Var) -> Stmt:
                    row = k + 1 + r
                    better = size(row, k) > size(pivot[i], k)
                    return when(better, store(pivot, i, row))

                def swap(c: Var) -> Stmt:
                    return assign(
                        "held",
                        work[(*i, k, c)],
                        lambda held: seq(
                            store(work, (*i, k, c), work[(*i, pivot[i], c)]),
                            store(work, (*i, pivot[i], c), held),
                        ),
                    )

                def eliminate(r: Var) -> Stmt:
                    row = k + 1 + r
                    return assign(
                        "factor",
                        work[(*i, row, k)] / work[(*i, k, k)],
                        lambda factor: serial(
                            n - k,
                            lambda c: store(
                                work,
                                (*i, row, k + c),
                                work[(*i, row, k + c)] - factor * work[(*i, k, k + c)],
                            ),
                            name="c",
                        ),
                    )

                swapped = seq(serial(n, swap, name="c"), store(result, i, zero - result[i]))
                return seq(
                    store(pivot, i, k),
                    serial(n - 1 - k, search, name="r"),
                    when(NE(pivot[i], k), swapped),
                    store(result, i, result[i] * work[(*i, k, k)]),
                    when(NE(work[(*i, k, k)], zero), serial(n - 1 - k, eliminate, name="r")),
                )

            return seq(store(result, i, one), serial(n, column))

        b.block(lead, body, name="determinant")
        return narrow(b, result, x.dtype)
