"""Small tensor programs for the schedule's tests, and running them before and after."""

from collections.abc import Callable

import numpy as np

from transect.arith.evaluate import evaluate
from transect.ir.expr import Expr, Var
from transect.ir.node import replace
from transect.ir.structural import structural_mismatch
from transect.ir.traverse import free_vars
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.op import if_then_else
from transect.tir.schedule import Schedule

Size = Expr | int


def matmul(n: Size, m: Size, d: Size, *, bias: bool = False) -> PrimFunc:
    """y = x @ w, and z = y + bias if asked for."""
    builder = FunctionBuilder("matmul")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (d, m), "float32")
    if not bias:
        y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
        return builder.finish([y])
    b = builder.input("b", (m,), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    return builder.finish([builder.compute((n, m), lambda i, j: y[i, j] + b[j], name="z")])


def chain(n: Size, m: Size) -> PrimFunc:
    """b = 2a; c = b + 1; each elementwise."""
    builder = FunctionBuilder("chain")
    a = builder.input("a", (n, m), "float32")
    b = builder.compute((n, m), lambda i, j: a[i, j] * 2.0, name="b")
    return builder.finish([builder.compute((n, m), lambda i, j: b[i, j] + 1.0, name="c")])


def blur(n: int) -> PrimFunc:
    """b = 2a; c[i] = b[i] + b[i + 1]."""
    builder = FunctionBuilder("blur")
    a = builder.input("a", (n + 1,), "float32")
    b = builder.compute((n + 1,), lambda i: a[i] * 2.0, name="b")
    return builder.finish([builder.compute((n,), lambda i: b[i] + b[i + 1], name="c")])


def row_sum(n: Size, m: Size) -> PrimFunc:
    """s[i] = sum of x[i, :]."""
    builder = FunctionBuilder("row_sum")
    x = builder.input("x", (n, m), "float32")
    return builder.finish([builder.reduce((n,), (m,), lambda i, k: x[i, k], name="s")])


def normalized(n: Size, m: Size) -> PrimFunc:
    """o[i, j] = x[i, j] - max(x[i, :])."""
    builder = FunctionBuilder("normalized")
    x = builder.input("x", (n, m), "float32")
    t = builder.reduce((n,), (m,), lambda i, k: x[i, k], combiner="max", name="t")
    return builder.finish([builder.compute((n, m), lambda i, j: x[i, j] - t[i], name="o")])


def padded(n: Size, m: Size) -> PrimFunc:
    """p = a with a row of zeros above and below and three columns at the right; c = p + 1."""
    builder = FunctionBuilder("padded")
    a = builder.input("a", (n, m), "float32")

    def element(i: Var, j: Var) -> Expr:
        return if_then_else((i >= 1) & (i < n + 1) & (j < m), a[i - 1, j], 0.0)

    p = builder.compute((n + 2, m + 3), element, name="p")
    return builder.finish([builder.compute((n + 2, m + 3), lambda i, j: p[i, j] + 1.0, name="c")])


def run(func: PrimFunc, sizes: dict[str, int], seed: int = 0) -> list[np.ndarray]:
    """The buffers after one run on random small integers; outputs start as NaN.

    Sums of small integers are exact in float32 in any order, so results compare exactly.
    """
    rng = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for number, buffer in enumerate(func.buffers):
        shape = [_size(extent, sizes) for extent in buffer.shape]
        if number == len(func.buffers) - 1:
            arrays.append(np.full(shape, np.nan, buffer.dtype.numpy))
        else:
            arrays.append(rng.integers(-8, 8, shape).astype(buffer.dtype.numpy))
    interpret(func, *arrays)
    return arrays


def expect(func: PrimFunc, expected: PrimFunc) -> None:
    """`func` is `expected`, names aside."""
    plain = [replace(item, attrs={}) for item in (func, expected)]
    mismatch = structural_mismatch(*plain)
    assert mismatch is None, f"{mismatch}\n{func}"


def _size(extent: Expr, sizes: dict[str, int]) -> int:
    return evaluate(extent, {var: sizes[var.name] for var in free_vars([extent])})


def check(
    make: Callable[[], PrimFunc], edit: Callable[[Schedule], object], *sizes: dict[str, int]
) -> Schedule:
    """Apply `edit` and compare the results for each of the sizes; gives the schedule."""
    schedule = Schedule(make())
    edit(schedule)
    for size in sizes or ({},):
        for before, after in zip(run(schedule.source, size), run(schedule.func, size), strict=True):
            np.testing.assert_array_equal(before, after)
    return schedule
