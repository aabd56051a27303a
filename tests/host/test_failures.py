"""What happens to values, memory and exceptions when a host function ends, well or badly."""

from __future__ import annotations

import gc
import os
import sys
import weakref

import numpy as np
import pytest

from tests.host.build import compiled, elementwise, tensor
from transect.ir.expr import EQ, Var, as_expr
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.runtime import register_function
from transect.support.span import Layer

f32 = np.float32


class Unregistered(Exception):
    """A class that tvm-ffi knows nothing of, with arguments of its own."""

    def __init__(self, code, place):
        super().__init__(code, place)
        self.code = code


def pipeline_module(span=()):
    """A workspace, an object that a packed function keeps or refuses, an assertion, another
    object."""
    n, m = Var("n"), Var("m")
    b = BlockBuilder()
    x = b.var("x", tensor(n))
    with b.function("main", (x,), pure=False):
        y = b.emit_call_tir(elementwise(lambda v: v + 1.0), [x])
        z = b.emit_call_tir(elementwise(lambda v: v + 1.0), [y])
        got = b.emit(special.call_packed("test_host.step", z, span=span), span=span)
        w = b.match_cast(got, tensor(m))
        b.emit(special.AssertOp(format="odd")(rx.prim_value(EQ(m % 2, as_expr(0)))))
        last = b.emit(special.call_packed("test_host.step", w))
        b.emit_func_output(rx.make_tuple(w, last))
    return b


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_leaks_over_thousands_of_calls():
    register_function("test_host.step", lambda x: x * 2, override=True)
    model = compiled(pipeline_module())
    good, odd = np.zeros(1 << 12, f32), np.zeros((1 << 12) + 1, f32)

    def rounds(count):
        for _ in range(count):
            model(good)
            with pytest.raises(AssertionError):
                model(odd)

    rounds(200)
    gc.collect()
    before, references = resident(), (sys.getrefcount(good), sys.getrefcount(odd))
    rounds(1500)
    gc.collect()
    # One leaked tensor a call would be 16 KiB * 1,500 = 24 MB.
    assert resident() - before < 6 << 20
    assert (sys.getrefcount(good), sys.getrefcount(odd)) == references


def test_what_a_packed_function_returns_dies_with_the_last_user():
    made = []

    def step(x):
        result = x.copy()
        made.append(weakref.ref(result))
        return result

    register_function("test_host.step", step, override=True)
    model = compiled(pipeline_module())
    results = model(np.zeros(4, f32))
    with pytest.raises(AssertionError):
        model(np.zeros(3, f32))
    gc.collect()
    assert [ref() is None for ref in made] == [False, False, True]
    del results
    gc.collect()
    assert all(ref() is None for ref in made)


@pytest.mark.parametrize(
    "kind", [KeyError, Unregistered, KeyboardInterrupt, StopIteration, UnicodeError]
)
def test_an_exception_comes_out_as_the_object_that_was_raised(kind):
    raised = kind("a", "b") if kind is Unregistered else kind("message")

    def step(x):
        raise raised

    register_function("test_host.step", step, override=True)
    model = compiled(pipeline_module())
    for _ in range(2):
        with pytest.raises(kind) as caught:
            model(np.zeros(4, f32))
        assert caught.value is raised


def test_an_exception_passes_through_nested_models():
    inner = compiled(pipeline_module())
    raised = Unregistered(1, "inside")
    depth = []

    def step(x):
        if depth:
            raise raised
        depth.append(1)
        return inner(x)[0]

    register_function("test_host.step", step, override=True)
    with pytest.raises(Unregistered) as caught:
        compiled(pipeline_module())(np.zeros(4, f32))
    assert caught.value is raised


def test_an_old_exception_is_not_taken_for_a_new_one():
    def step(x):
        raise Unregistered(1, "first")

    register_function("test_host.step", step, override=True)
    model = compiled(pipeline_module())
    with pytest.raises(RuntimeError):
        # Called without the facade: the exception that it keeps is never asked for.
        model.entry(np.zeros(4, f32))
    register_function("test_host.step", lambda x: x, override=True)
    with pytest.raises(AssertionError, match="odd"):
        compiled(pipeline_module())(np.zeros(3, f32))


def test_a_missing_function_is_named():
    b = BlockBuilder()
    with b.function("main", (), pure=False):
        b.emit(special.call_packed("test_host.no_such_function"))
        b.emit_func_output(rx.make_tuple())
    with pytest.raises(Exception, match=r"test_host\.no_such_function"):
        compiled(b)()


def test_the_model_lives_as_long_as_its_entry():
    register_function("test_host.step", lambda x: x, override=True)
    entry = compiled(pipeline_module()).entry
    gc.collect()
    w, _ = entry(np.zeros(2, f32))
    np.testing.assert_array_equal(np.from_dlpack(w), [2, 2])


def test_the_layer_is_named_where_a_packed_function_fails():
    def step(x):
        raise ValueError("no good")

    register_function("test_host.step", step, override=True)
    layer = Layer("model.onnx", "block7/conv", "Conv")
    with pytest.raises(ValueError, match="no good") as caught:
        compiled(pipeline_module((layer,)))(np.zeros(4, f32))
    assert any("block7/conv" in note for note in caught.value.__notes__)
