"""The same numbers from the graph, from the planned graph, from the host function interpreted,
and from machine code."""

from __future__ import annotations

import numpy as np
import pytest

from tests.host.build import compiled, elementwise, matmul, tensor
from transect.ir.expr import EQ, Var, as_expr
from transect.ir.structural import structural_mismatch
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.interpret import interpret
from transect.relax.transform.lower_to_host import LowerToHost
from transect.relax.transform.plan_memory import PlanMemory
from transect.relax.verify import verify_module as verify_graph
from transect.runtime import register_function
from transect.script import from_source
from transect.tir.interpret import Interpreter
from transect.tir.interpreter.host import AnyList
from transect.tir.verify import verify_module as verify_tensor

f32 = np.float32
N, D, M = Var("n"), Var("d"), Var("m")


def straight():
    """Two matrix products and a map: only buffers."""
    b = BlockBuilder()
    x, w = b.var("x", tensor(N, D)), b.var("w", tensor(D, D))
    with b.function("main", (x, w)):
        with b.dataflow():
            y = b.emit_call_tir(matmul(), [x, w])
            z = b.emit_call_tir(matmul(), [y, w])
            r = b.emit_output(b.emit_call_tir(elementwise(lambda v: v * 0.5, rank=2), [z]))
        b.emit_func_output(r)
    return b.finish(), [np.random.rand(3, 4).astype(f32), np.random.rand(4, 4).astype(f32)]


def data_dependent():
    """A packed result of unknown size, on which kernels run; a tuple is returned."""
    register_function("test_interpret.some", lambda v: v[v > 0.5], override=True)
    b = BlockBuilder()
    x = b.var("x", tensor(N))
    kernel = elementwise(lambda v: v + 1.0)
    with b.function("main", (x,)):
        found = b.emit(special.call_pure_packed("test_interpret.some", x))
        z = b.match_cast(found, tensor(M))
        y = b.emit_call_tir(kernel, [b.emit_call_tir(kernel, [z])])
        b.emit_func_output(rx.make_tuple(y, x))
    return b.finish(), [np.random.rand(9).astype(f32)]


def branching():
    """A branch on a size, with tensors on both sides."""
    b = BlockBuilder()
    x = b.var("x", tensor(N))
    kernel = elementwise(lambda v: v + 1.0)
    with b.function("main", (x,)):
        even = rx.prim_value(EQ(N % 2, as_expr(0)))
        y = b.emit_call_tir(kernel, [x])
        z = b.emit_if(
            even,
            lambda: b.emit_call_tir(kernel, [b.emit_call_tir(kernel, [y])]),
            lambda: b.emit_call_tir(elementwise(lambda v: v * 9.0), [y]),
        )
        b.emit_func_output(b.emit_call_tir(kernel, [z]))
    return b.finish(), [np.random.rand(5).astype(f32)]


def flat(value):
    if isinstance(value, tuple):
        return [part for item in value for part in flat(item)]
    return [np.asarray(value)]


@pytest.mark.parametrize("program", [straight, data_dependent, branching])
def test_every_stage_prints_verifies_and_computes_the_same(program):
    module, inputs = program()
    expected = flat(interpret(module, "main", *inputs))
    planned = PlanMemory()(module)
    verify_graph(planned)
    hosted = LowerToHost()(planned)
    verify_tensor(hosted)
    for stage in (module, planned, hosted):
        assert structural_mismatch(stage, from_source(repr(stage))) is None
    for got in (flat(interpret(planned, "main", *inputs)), flat(compiled(module)(*inputs))):
        for a, c in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-6)
    if program is not data_dependent:
        out = np.empty_like(expected[0])
        Interpreter(hosted).call("main", *inputs, out)
        np.testing.assert_allclose(out, expected[0], rtol=1e-6)
    else:
        result, out = AnyList([None]), np.empty_like(expected[1])
        Interpreter(hosted).call("main", AnyList(inputs), out, result)
        np.testing.assert_allclose(result.slots[0], expected[0], rtol=1e-6)
        np.testing.assert_array_equal(out, expected[1])
