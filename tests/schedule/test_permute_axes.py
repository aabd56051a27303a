"""Programs over buffers that lie otherwise: the same results from rearranged arrays."""

import numpy as np
import pytest

from transect.ir.structural import structural_equal
from transect.script import tir as T
from transect.tir.analysis.axes import axis_links, is_loop_nests
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule.layout import in_memory_order, panel_axis, permute_axes, to_panels

RNG = np.random.default_rng(0)


def whole(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape).astype(np.float32)


def convolution() -> PrimFunc:
    """NCHW: the sum over 3 channels and a window of 3 x 2, after padding by one row above."""
    b = FunctionBuilder("convolution")
    x = b.input("x", (1, 3, 5, 6), "float32")
    w = b.input("w", (4, 3, 3, 2), "float32")
    padded = b.compute(
        (1, 3, 6, 6), lambda n, c, h, v: T.if_then_else(h >= 1, x[n, c, h - 1, v], 0.0), name="p"
    )
    y = b.reduce(
        (1, 4, 4, 5),
        (3, 3, 2),
        lambda n, o, h, v, c, i, j: padded[n, c, h + i, v + j] * w[o, c, i, j],
        name="y",
    )
    return b.finish([y])


def run(func: PrimFunc, *inputs: np.ndarray) -> np.ndarray:
    shape = [int(extent.value) for extent in func.buffers[-1].shape]
    out = np.full(shape, np.nan, np.float32)
    interpret(func, *inputs, out)
    return out


def test_axes_of_a_map_change_places_with_its_loops() -> None:
    @T.prim_func
    def before(A: T.Buffer((4, 6), "float32"), B: T.Buffer((4, 6), "float32")):
        for i, j in T.grid(4, 6):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = A[vi, vj] + T.float32(1)

    @T.prim_func
    def expected(A: T.Buffer((6, 4), "float32"), B: T.Buffer((6, 4), "float32")):
        for j, i in T.grid(6, 4):
            with T.block("B"):
                vj, vi = T.axis.remap("SS", [j, i])
                B[vj, vi] = A[vj, vi] + T.float32(1)

    orders = dict.fromkeys(before.buffers, (1, 0))
    after = permute_axes(before, orders)
    assert structural_equal(after.with_attrs(global_symbol="before"), expected.with_attrs(
        global_symbol="before"
    ))  # fmt: skip
    assert permute_axes(before, dict.fromkeys(before.buffers, (0, 1))) is before


def test_a_convolution_reads_channels_last() -> None:
    func = convolution()
    x, w = whole(1, 3, 5, 6), whole(4, 3, 3, 2)
    last = (0, 2, 3, 1)
    data, weight, result = func.buffers
    (padded,) = func.body.block.alloc_buffers
    after = permute_axes(func, {data: last, result: last, padded: last, weight: (2, 3, 1, 0)})
    got = run(after, x.transpose(last).copy(), w.transpose(2, 3, 1, 0).copy())
    np.testing.assert_array_equal(got, run(func, x, w).transpose(last))


def test_channels_are_the_innermost_of_the_sum() -> None:
    func = convolution()
    last = (0, 2, 3, 1)
    data, _, result = func.buffers
    (padded,) = func.body.block.alloc_buffers
    after = in_memory_order(permute_axes(func, {data: last, result: last, padded: last}))
    nest = after.body.block.body.stmts[1]
    extents: list[int] = []
    while hasattr(nest, "extent"):
        extents.append(nest.extent.value)
        nest = nest.body
    assert extents == [1, 4, 5, 4, 3, 2, 3]


@pytest.mark.parametrize("width", [2, 3, 8])
def test_panels_hold_neighbouring_columns(width: int) -> None:
    func = convolution()
    x, w = whole(1, 3, 5, 6), whole(4, 3, 3, 2)
    order = (1, 2, 3, 0)
    turned = permute_axes(func, {func.buffers[1]: order})
    after = panel_axis(turned, turned.buffers[1], width)
    packed = to_panels(w, order, width)
    assert packed.shape == (-(-4 // width), 3, 3, 2, width)
    np.testing.assert_array_equal(run(after, x, packed), run(func, x, w))


def test_panels_are_filled_up_with_zeros() -> None:
    packed = to_panels(np.ones((5, 2), np.float32), (1, 0), 4)
    np.testing.assert_array_equal(packed[1, :, 0], 1)
    np.testing.assert_array_equal(packed[1, :, 1:], 0)


def test_axes_that_run_together_are_found() -> None:
    func = convolution()
    data, weight, result = func.buffers
    (padded,) = func.body.block.alloc_buffers
    links = set(axis_links(func, [weight]))
    assert {((data, k), (padded, k)) for k in range(4)} <= links
    assert ((padded, 1), (result, 1)) in links, "channels, as the weight is a constant"
    assert ((padded, 1), (result, 1)) not in set(axis_links(func)), "not if it is not"
    assert {((padded, k), (result, k)) for k in (0, 2, 3)} <= links
    assert is_loop_nests(func)
