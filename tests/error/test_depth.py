"""Programs that are long or deep: no recursion limit, nothing that grows with the square."""

from __future__ import annotations

import sys

import numpy as np

import transect
from transect.ir.dtype import FLOAT32, INT64
from transect.ir.expr import LT, Var, as_expr
from transect.ir.types import PrimType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.interpret import interpret
from transect.relax.op import find_operator

N, M = Var("n"), Var("m")
X = np.array([1.0, -2.0], np.float32)


def call(b, name, *operands):
    return b.emit(find_operator(name)()(*operands))


def test_two_hundred_branches_in_branches():
    b = BlockBuilder()
    x, m = b.var("x", tensor_type((N,), FLOAT32)), b.var("m", PrimType(INT64, M))

    def level(depth):
        if depth == 0:
            return x
        return b.emit_if(
            rx.prim_value(LT(as_expr(depth), M)),
            lambda: call(b, "negative", level(depth - 1)),
            lambda: call(b, "add", x, x),
        )

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        with b.function("main", (x, m)):
            b.emit_func_output(level(200))
    finally:
        sys.setrecursionlimit(limit)
    module = b.finish()
    model = transect.compile(module, cache=False)
    assert sys.getrecursionlimit() == limit
    for depth, expected in ((201, X), (200, X * 2)):
        np.testing.assert_array_equal(np.asarray(model(X, depth)), expected)
        np.testing.assert_array_equal(interpret(module, "main", X, depth), expected)


def test_a_chain_of_a_thousand_operators():
    b = BlockBuilder()
    x = b.var("x", tensor_type((N,), FLOAT32))
    with b.function("main", (x,)):
        value = x
        for number in range(1_000):
            value = call(b, "negative" if number % 2 else "tanh", value)
        b.emit_func_output(value)
    got = np.asarray(transect.compile(b.finish(), cache=False)(X))
    expected = X
    for number in range(1_000):
        expected = -expected if number % 2 else np.tanh(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
