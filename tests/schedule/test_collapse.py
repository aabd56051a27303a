"""Programs over fewer axes: the same results from the same memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transect.ir.expr import Var
from transect.ir.structural import structural_mismatch
from transect.script import tir as T
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule.collapse import collapse_axes

RNG = np.random.default_rng(0)


def shapes(func: PrimFunc) -> list[tuple[int, ...]]:
    """The constant shapes of the parameters."""
    return [tuple(int(extent.value) for extent in buffer.shape) for buffer in func.buffers]


def check(func: PrimFunc) -> PrimFunc:
    """The program over fewer axes, whose results are those of `func`."""
    found = collapse_axes(func)
    if found is None:
        return func
    after = found.function
    *inputs, result = shapes(func)
    data = [RNG.integers(-4, 5, shape).astype(np.float32) for shape in inputs]
    expected = np.full(result, np.nan, np.float32)
    interpret(func, *data, expected)
    *less, out = shapes(after)
    got = np.full(out, np.nan, np.float32)
    interpret(after, *(item.reshape(shape) for item, shape in zip(data, less, strict=True)), got)
    np.testing.assert_array_equal(got.reshape(result), expected)
    return after


def test_pixels_of_a_product_are_rows() -> None:
    @T.prim_func(private=True)
    def before(
        X: T.Buffer((2, 3, 5, 7), "float32"),
        W: T.Buffer((1, 1, 7, 4), "float32"),
        Y: T.Buffer((2, 3, 5, 4), "float32"),
    ):
        for n, h, w, f, i, j, c in T.grid(2, 3, 5, 4, 1, 1, 7):
            with T.block("Y"):
                vn, vh, vw, vf, vi, vj, vc = T.axis.remap("SSSSRRR", [n, h, w, f, i, j, c])
                with T.init():
                    Y[vn, vh, vw, vf] = T.float32(0)
                Y[vn, vh, vw, vf] += X[vn, vh + vi, vw + vj, vc] * W[vi, vj, vc, vf]

    after = check(before)
    assert shapes(after) == [(30, 7), (1, 1, 7, 4), (30, 4)]


def test_what_every_block_shares_is_one_axis() -> None:
    b = FunctionBuilder("f")
    x, bias = b.input("x", (2, 3, 4, 5), "float32"), b.input("bias", (5,), "float32")
    y = b.compute((2, 3, 4, 5), lambda n, h, w, c: x[n, h, w, c] + bias[c], name="y")
    z = b.compute((2, 3, 4, 5), lambda n, h, w, c: y[n, h, w, c] * 2.0, name="z")
    after = check(b.finish(z))
    assert shapes(after) == [(24, 5), (5,), (24, 5)]
    (made,) = after.body.block.alloc_buffers
    assert [int(extent.value) for extent in made.shape] == [24, 5]


def test_one_block_that_tells_axes_apart_keeps_them() -> None:
    b = FunctionBuilder("f")
    x, rows = b.input("x", (3, 4, 5), "float32"), b.input("rows", (3, 5), "float32")
    y = b.compute((3, 4, 5), lambda n, h, c: x[n, h, c] + rows[n, c], name="y")
    z = b.compute((3, 4, 5), lambda n, h, c: y[n, h, c] * 2.0, name="z")
    func = b.finish(z)
    assert check(func) is func


@pytest.mark.parametrize(
    "element",
    [
        lambda x, n, h, w: x[n, w, h],
        lambda x, n, h, w: x[n, h, w] + T.Cast("float32", h),
        lambda x, n, h, w: T.if_then_else(h >= 1, x[n, h - 1, w], 0.0),
        lambda x, n, h, w: x[n, 3 - h, w],
    ],
    ids=["turned", "value", "padding", "mirrored"],
)
def test_an_axis_that_is_used_otherwise_stays(element) -> None:
    b = FunctionBuilder("f")
    x = b.input("x", (2, 4, 4), "float32")
    func = b.finish(b.compute((2, 4, 4), lambda n, h, w: element(x, n, h, w), name="y"))
    assert check(func) is func


def test_a_part_of_an_axis_stays() -> None:
    b = FunctionBuilder("f")
    x = b.input("x", (4, 6), "float32")
    func = b.finish(b.compute((4, 5), lambda h, w: x[h, w], name="y"))
    assert check(func) is func


def test_a_sum_over_one_element_of_axes_that_stay() -> None:
    b = FunctionBuilder("f")
    n = Var("n")
    x, w = b.input("x", (n, 5, 3), "float32"), b.input("w", (1, 1, 3, 4), "float32")
    func = b.finish(
        b.reduce(
            (n, 5, 4), (1, 1, 3),
            lambda h, v, f, i, j, c: x[h + i, v + j, c] * w[i, j, c, f],
            name="y",
        )
    )  # fmt: skip
    data = [RNG.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 5, 3), (1, 1, 3, 4))]
    out = np.full((2, 5, 4), np.nan, np.float32)
    found = collapse_axes(func)
    interpret(func if found is None else found.function, *data, out)
    np.testing.assert_array_equal(out, data[0] @ data[1][0, 0])


def test_sizes_that_are_not_known_stay() -> None:
    b = FunctionBuilder("f")
    n = Var("n")
    x = b.input("x", (n, 4, 6), "float32")
    found = collapse_axes(b.finish(b.compute((n, 4, 6), lambda *i: x[i] + 1.0, name="y")))
    assert found is not None
    first = found.function.buffers[0].shape
    assert first[0] is n
    assert [int(extent.value) for extent in first[1:]] == [24]


@st.composite
def programs(draw: st.DrawFn) -> PrimFunc:
    """Two maps or a map and a sum, over axes some of which are broadcast or change places."""
    rank = draw(st.integers(2, 5))
    sizes = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    b = FunctionBuilder("f")
    inputs = []
    for number in range(draw(st.integers(1, 3))):
        axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
        axes = sorted(axes) if draw(st.booleans()) else axes
        inputs.append((b.input(f"x{number}", [sizes[n] for n in axes], "float32"), axes))

    def read(i):
        total = T.float32(1)
        for buffer, axes in inputs:
            total = total + buffer[tuple(i[n] for n in axes)]
        return total

    y = b.compute(sizes, lambda *i: read(i), name="y")
    kept = draw(st.integers(1, rank))
    if kept == rank:
        return b.finish(b.compute(sizes, lambda *i: y[i] * 2.0 + read(i), name="z"))
    total = b.reduce(sizes[:kept], sizes[kept:], lambda *i: y[i] * read(i), name="z")
    return b.finish(total)


@given(programs())
@settings(max_examples=150, deadline=None)
def test_random_programs(func: PrimFunc) -> None:
    check(func)


def test_the_text_of_a_collapsed_program() -> None:
    b = FunctionBuilder("f")
    x = b.input("x", (2, 3), "float32")
    after = check(b.finish(b.compute((2, 3), lambda i, j: x[i, j] + 1.0, name="y")))

    @T.prim_func(private=True)
    def expected(x: T.Buffer((6,), "float32"), y: T.Buffer((6,), "float32")):
        for i in range(6):
            with T.block("y"):
                vi = T.axis.spatial(6, i)
                T.reads(x[vi])
                T.writes(y[vi])
                y[vi] = x[vi] + T.float32(1)

    plain = [item.with_attrs(global_symbol=None) for item in (after, expected)]
    assert structural_mismatch(*plain) is None, after
