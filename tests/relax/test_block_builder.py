"""Building graph functions from Python."""

import pytest

from tests.relax.programs import assert_same, double, graph, operators, tensor
from transect.ir.expr import Var
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.op.binary import Add
from transect.relax.op.elementwise import Exp
from transect.relax.verify import verify_module
from transect.support.errors import InferenceError, InputError

N = Var("n")


def test_nested_values_are_bound_in_order():
    nested = graph([("x", tensor(N))], lambda b, x: b.emit_output(Exp()(Add()(Exp()(x), x))))
    flat = graph(
        [("x", tensor(N))],
        lambda b, x: b.emit_output(Exp()(b.emit(Add()(b.emit(Exp()(x)), x)))),
    )
    assert_same(nested, flat)


def test_equal_tensor_programs_are_one_function_of_the_module():
    def body(b, x):
        first = b.emit_call_tir(double(Var("n")), [x])
        return b.emit_call_tir(double(Var("k")), [first])

    module = graph([("x", tensor(N))], body, dataflow=False)
    assert operators(module) == ["kernel", "kernel"]
    assert list(module) == ["kernel", "main"]


def test_different_tensor_programs_get_different_names():
    def body(b, x):
        return b.emit_call_tir(double(4), [b.emit_call_tir(double(Var("n")), [x])])

    module = graph([("x", tensor(4))], body, dataflow=False)
    assert operators(module) == ["kernel", "kernel_1"]


def test_a_tensor_program_on_the_wrong_shape_is_refused_where_it_is_emitted():
    with pytest.raises(InferenceError, match="dimension 0 of buffer x of kernel must be 4, got 5"):
        graph([("x", tensor(5))], lambda b, x: b.emit_call_tir(double(4), [x]))


def test_a_dataflow_block_has_no_branches():
    def body(b, x):
        return b.emit_if(x, lambda: x, lambda: x)

    with pytest.raises(InputError, match="no branches"):
        graph([("x", tensor(dtype="bool"))], body)


def test_a_function_without_a_result_is_refused():
    builder = BlockBuilder()
    with pytest.raises(InputError, match="emit_func_output"), builder.function("main"):
        pass


def test_nothing_can_be_emitted_outside_a_function():
    with pytest.raises(InputError, match="nothing to emit into"):
        BlockBuilder().emit(rx.constant([1.0]))


def test_a_function_can_call_itself():
    builder = BlockBuilder()
    x = builder.var("x", tensor(N))
    flag = builder.var("flag", tensor(dtype="bool"))
    again = builder.declare("loop", (x, flag), tensor(N))
    with builder.function("loop", (x, flag)):
        result = builder.emit_if(
            flag,
            lambda: builder.emit(rx.Call(again, (x, flag), tensor(N))),
            lambda: builder.emit(Exp()(x)),
        )
        builder.emit_func_output(result)
    verify_module(builder.module)


def test_a_nested_function_may_use_what_is_around_it():
    def body(b, x):
        y = b.var("y", tensor(N))
        inner = b.emit_local_function((y,), lambda: b.emit(Add()(x, y)))
        return b.emit(rx.Call(inner, (x,), tensor(N)))

    assert operators(graph([("x", tensor(N))], body, dataflow=False))[0] == "Function"
