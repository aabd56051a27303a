"""Convolutions with channels last, and what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transect.ir.expr import Expr, Var, logical_and, maximum
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.op import if_then_else


@dataclass(frozen=True)
class Convolution:
    """y = sums over windows of x padded, then relu(y + bias) + rest where there is an epilogue.

    weights: the order of the axes of the weights, of "ijcf".
    """

    height: int
    width: int
    channels: int = 32
    results: int = 16
    batch: int = 1
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    padding: int = 1
    weights: str = "ijcf"
    dtype: str = "float32"
    epilogue: bool = False
    symbolic: bool = False

    def out(self, size: int, taps: int) -> int:
        """The size of the result along an axis."""
        return (size + 2 * self.padding - self.dilation * (taps - 1) - 1) // self.stride + 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the result."""
        height, width = map(self.out, (self.height, self.width), self.kernel)
        return (self.batch, height, width, self.results)

    def function(self) -> PrimFunc:
        """The program; its second parameter is the weights."""
        n = Var("n") if self.symbolic else self.batch
        h, w, c, p = self.height, self.width, self.channels, self.padding
        _, *image, f = self.shape
        b = FunctionBuilder("convolution")
        x = b.input("x", (n, h, w, c), self.dtype)
        sizes = dict(zip("ijcf", (*self.kernel, c, f), strict=True))
        weight = b.input("weight", [sizes[axis] for axis in self.weights], self.dtype)
        bias = b.input("bias", (f,), self.dtype)
        rest = b.input("rest", (n, *image, f), self.dtype)
        pad = b.compute((n, h + 2 * p, w + 2 * p, c), self._padded(x), name="pad") if p else x

        def term(m: Var, i: Var, j: Var, o: Var, q: Var, r: Var, k: Var) -> Expr:
            at = dict(zip("ijcf", (q, r, k, o), strict=True))
            step, far = self.stride, self.dilation
            value = pad[m, i * step + q * far, j * step + r * far, k]
            return value * weight[tuple(at[axis] for axis in self.weights)]

        y = b.reduce((n, *image, f), (*self.kernel, c), term, name="y")
        if not self.epilogue:
            return b.finish([y])
        z = b.compute(
            (n, *image, f), lambda m, i, j, o: maximum(y[m, i, j, o] + bias[o], 0.0), name="z"
        )
        return b.finish([b.compute((n, *image, f), lambda *i: z[i] + rest[i], name="done")])

    def _padded(self, x: Buffer):
        h, w, p = self.height, self.width, self.padding

        def value(m: Var, i: Var, j: Var, k: Var) -> Expr:
            inside = logical_and(i >= p, i < h + p, j >= p, j < w + p)
            return if_then_else(inside, x[m, i - p, j - p, k], 0.0)

        return value

    def arrays(self) -> list[np.ndarray]:
        """Inputs whose sums are exact in any order, and so are their transforms."""
        sizes = dict(zip("ijcf", (*self.kernel, self.channels, self.results), strict=True))
        weights = [sizes[axis] for axis in self.weights]
        image = (self.batch, self.height, self.width, self.channels)
        given = [
            np.random.default_rng(seed).integers(-8, 8, shape).astype(self.dtype)
            for seed, shape in enumerate((image, weights, (self.results,), self.shape))
        ]
        given[1] *= 4
        return given

    def result(self, x, weight, bias, rest) -> np.ndarray:
        """The same in numpy, in the precision of the arrays."""
        p, step, far = self.padding, self.stride, self.dilation
        padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
        _, height, width, _ = self.shape
        plain = weight.transpose([self.weights.index(axis) for axis in "ijcf"])
        total = np.zeros(self.shape, x.dtype)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                rows = slice(i * far, i * far + (height - 1) * step + 1, step)
                pixels = slice(j * far, j * far + (width - 1) * step + 1, step)
                total += padded[:, rows, pixels] @ plain[i, j]
        return np.maximum(total + bias, 0) + rest if self.epilogue else total


def given_to(func: PrimFunc, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Those of (x, weight, bias, rest) that a program takes."""
    return list(arrays[: len(func.buffers) - 1])
