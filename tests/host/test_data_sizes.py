"""Results whose size depends on data: counted, allocated and filled when the program runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transect
from transect.ir.dtype import BOOL, FLOAT32, INT64
from transect.ir.expr import IntImm, Var
from transect.ir.types import tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.interpret import interpret
from transect.relax.op import find_operator

N, M, K = Var("n"), Var("m"), Var("k")


def op(b, name, *operands, **fields):
    return b.emit(find_operator(name)(**fields)(*operands))


def slices():
    """x[begin:end:stride] of two axes."""
    b = BlockBuilder()
    vector = tensor_type((IntImm(2),), INT64)
    x = b.var("x", tensor_type((N, M), FLOAT32))
    limits = [b.var(name, vector) for name in ("begin", "end", "strides")]
    with b.function("main", (x, *limits)):
        b.emit_func_output(op(b, "dynamic_strided_slice", x, *limits))
    return b.finish()


SLICES = slices()
SLICE = transect.compile(SLICES, cache=False)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slices_are_those_of_python(data):
    near = st.integers(-6, 6)
    begin, end = ([data.draw(near) for _ in range(2)] for _ in range(2))
    strides = [data.draw(st.integers(-3, 3).filter(bool)) for _ in range(2)]
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    # A negative end counts from the end; beyond the first element it means the very beginning.
    parts = []
    for size, first, last, step in zip(x.shape, begin, end, strides, strict=True):
        stop = None if step < 0 and last < -size else last
        parts.append(slice(first if first >= -size or step > 0 else -size - 1, stop, step))
    arguments = [np.array(item, np.int64) for item in (begin, end, strides)]
    expected = x[tuple(parts)]
    np.testing.assert_array_equal(np.asarray(SLICE(x, *arguments)), expected)
    np.testing.assert_array_equal(interpret(SLICES, "main", x, *arguments), expected)


def test_a_stride_of_zero_is_refused():
    x = np.zeros((2, 2), np.float32)
    with pytest.raises(IndexError, match="a stride of a slice is 0"):
        SLICE(x, *(np.array(item, np.int64) for item in ([0, 0], [2, 2], [1, 0])))


def branching():
    """The positions found in one of two tensors, beside a product of as many rows."""
    b = BlockBuilder()
    x, c = b.var("x", tensor_type((N,), FLOAT32)), b.var("c", tensor_type((), BOOL))
    with b.function("main", (x, c)):
        found = b.emit_if(
            c, lambda: op(b, "nonzero", x), lambda: op(b, "nonzero", op(b, "nn.relu", x))
        )
        known = b.match_cast(found, tensor_type((IntImm(1), K), INT64))
        twice = op(b, "add", known, known)
        b.emit_func_output(rx.make_tuple(known, twice, x))
    return b.finish()


def test_sizes_through_branches_and_tuples():
    module = branching()
    model = transect.compile(module, cache=False)
    x = np.array([0.0, -1.0, 2.0, 0.0, -3.0], np.float32)
    for x_now in (x, x[:0], np.ones(7, np.float32)):
        for flag in (True, False):
            (places,) = np.nonzero(x_now if flag else np.maximum(x_now, 0))
            got = model(x_now, np.array(flag))
            for result in (got, interpret(module, "main", x_now, np.array(flag))):
                np.testing.assert_array_equal(np.asarray(result[0]), places[None])
                np.testing.assert_array_equal(np.asarray(result[1]), places[None] * 2)
                np.testing.assert_array_equal(np.asarray(result[2]), x_now)
