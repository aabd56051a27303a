"""Broadcasting along dimensions of which only a run knows whether they are 1.

What can be proved is `broadcast_to`, in `manipulate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Expr, IntImm, Var, as_int, minimum
from transect.ir.types import TensorType, Type
from transect.relax.op.inference import fail, same, shape, tensor, unknown_like, with_shape
from transect.relax.op.operator import Operator
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder


@dataclass(frozen=True)
class Stretch(Operator):
    """stretch(x, shape): x broadcast to a shape, aligned at the last dimension.

    Each dimension of x is 1 or that of the shape, for which the caller vouches. Source: numpy's
    rules of broadcasting.
    """

    name = "stretch"

    def infer(self, x: Type, target: Type) -> TensorType:
        """The given shape."""
        data = tensor(self, x, "x")
        sizes = shape(self, target, "shape")
        if sizes is None:
            return unknown_like(data, ndim=-1)
        if data.ndim > len(sizes):
            fail(self, f"a tensor with {data.ndim} dimensions does not fit {len(sizes)}")
        return with_shape(data, sizes)

    def legalize(self, b: FunctionBuilder, x: Buffer, target: tuple[Expr, ...]) -> Buffer:
        """One map."""
        ahead = len(target) - x.ndim

        def place(axis: int, index: Var) -> Expr:
            size = x.shape[axis]
            if as_int(size) == 1:
                return IntImm(0)
            return index if same(size, target[ahead + axis]) else minimum(index, size - 1)

        def element(*i: Var) -> Expr:
            return x[tuple(place(axis, index) for axis, index in enumerate(i[ahead:]))]

        return b.compute(target, element, name="y")
