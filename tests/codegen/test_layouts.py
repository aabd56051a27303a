"""Buffers in other layouts, compiled: the machine code agrees with the interpreter."""

import numpy as np
import pytest

from tests.codegen.support import check, compiled
from tests.schedule.programs import chain, matmul, padded
from transect.ir.expr import Var
from transect.support.errors import UnsupportedError
from transect.tir.schedule import Schedule

N, M, D = Var("n"), Var("m"), Var("d")


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-8, 8, shape).astype(np.float32)


def test_a_padded_and_tiled_product() -> None:
    s = Schedule(matmul(N, M, D))
    y = s.get_block("y")
    s.pad_einsum(y, [4, 8, 1])
    s.transform_layout(y, ("read", 1), lambda k, j: (j // 8, k, j % 8))
    s.transform_layout(y, ("write", 0), lambda i, j: (i // 4, j // 8, i % 4, j % 8))
    s.transform_block_layout(y, lambda i, j, k: (i // 4, j // 8, k, i % 4, j % 8))
    _, _, k, i, j = s.get_loops(y)
    s.decompose_reduction(y, k)
    s.unroll(i)
    s.vectorize(j)
    for n, m, d in ((1, 1, 1), (9, 17, 5), (8, 16, 4)):
        check(s.func, whole(n, d), whole(d, m), np.zeros((n, m), np.float32))


def test_padding_that_was_taken_out() -> None:
    s = Schedule(padded(N, M))
    p = s.get_block("p")
    s.decompose_padding(p, s.get_loops(p)[0])
    check(s.func, whole(3, 5), np.zeros((5, 8), np.float32))


def test_a_reduction_in_tiles_with_a_predicate() -> None:
    s = Schedule(matmul(N, M, D))
    s.transform_block_layout(s.get_block("y"), lambda i, j, k: (k % 2, j // 4, i, k // 2, j % 4))
    check(s.func, whole(3, 5), whole(5, 6), np.zeros((3, 6), np.float32))


def test_separated_axes_are_refused_where_memory_has_one_dimension() -> None:
    s = Schedule(chain(4, 4))
    s.set_axis_separator(s.get_block("b"), ("write", 0), [1])
    with pytest.raises(UnsupportedError, match="axis separators are for memory of several"):
        compiled(s.func)
