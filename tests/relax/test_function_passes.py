"""BindParams, BindSymbolicVars, InlineFunctions, LambdaLift, RemoveUnusedFunctions and others."""

import numpy as np
import pytest

from tests.relax.programs import assert_same, double, graph, operators, tensor
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import call_packed, call_tir
from transect.relax.emit import retype
from transect.relax.interpret import interpret
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.elementwise import Exp
from transect.relax.transform.attach_global_symbol import AttachGlobalSymbol
from transect.relax.transform.bind_params import BindParams
from transect.relax.transform.bind_symbolic_vars import BindSymbolicVars
from transect.relax.transform.inline_functions import InlineFunctions
from transect.relax.transform.lambda_lift import LambdaLift
from transect.relax.transform.remove_unused_functions import RemoveUnusedFunctions
from transect.relax.verify import verify_module
from transect.support.errors import InferenceError, InputError
from transect.tir.builder import FunctionBuilder

N, M, K = Var("n"), Var("m"), Var("k")


def twice(size=None):
    """A module with a private function that adds its parameter to itself."""
    size = Var("size") if size is None else size
    return graph(
        [("v", tensor(size))], lambda b, v: b.emit_output(Add()(v, v)), name="twice", private=True
    )


def call(module, name, *args):
    builder = BlockBuilder(module)
    callee = builder.global_func(name)
    return retype(rx.Call(callee, args, callee.type.ret))


def with_main(module):
    """A module with a function that calls `twice`."""
    return graph(
        [("x", tensor(N))],
        lambda b, x: b.emit_output(Exp()(call(module, "twice", x))),
        module=module,
    )


# --- parameters and dimensions --------------------------------------------------------------


def test_bound_parameters_become_constants_and_fix_their_dimensions():
    def body(b, x, w):
        return b.emit_output(Add()(x, w))

    weights = np.arange(3, dtype=np.float32)
    module = graph([("x", tensor(N, M)), ("w", tensor(M))], body)
    after = BindParams({"w": weights})(module)
    verify_module(after)
    assert [param.type for param in after["main"].params] == [tensor(N, 3)]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(interpret(after, "main", x), x + weights)


def test_binding_a_name_that_is_no_parameter_lists_the_parameters():
    module = graph([("x", tensor(N))], lambda b, x: b.emit_output(Exp()(x)))
    with pytest.raises(InputError, match="no parameter 'y'") as caught:
        BindParams({"y": np.zeros(3, np.float32)})(module)
    assert caught.value.notes == ("it has: x",)


def test_binding_an_array_that_does_not_fit_is_refused():
    module = graph([("x", tensor(N, 4))], lambda b, x: b.emit_output(Exp()(x)))
    with pytest.raises(InferenceError, match="dimension 1 of parameter x of main must be 4, got 3"):
        BindParams({"x": np.zeros((2, 3), np.float32)})(module)


def test_bound_dimensions_reach_callers_and_shapes():
    module = with_main(twice(N))
    after = BindSymbolicVars({"n": 8})(module)
    verify_module(after)
    assert after["main"].ret_type is tensor(8)
    assert after["twice"].ret_type is tensor(8)


def test_binding_a_dimension_of_one_function_leaves_the_others():
    after = BindSymbolicVars({"n": 8}, function="main")(with_main(twice()))
    verify_module(after)
    assert after["main"].ret_type is tensor(8)
    assert "8" not in repr(after["twice"].ret_type)


def test_binding_an_unknown_dimension_is_refused():
    with pytest.raises(InputError, match="no function has the symbolic dimension q"):
        BindSymbolicVars({"q": 8})(with_main(twice()))


# --- functions ------------------------------------------------------------------------------


def test_private_functions_are_written_out_with_their_dimensions_bound():
    module = with_main(twice())
    after = RemoveUnusedFunctions()(InlineFunctions()(module))
    verify_module(after)
    expected = graph(
        [("x", tensor(N))], lambda b, x: b.emit_output(Exp()(b.emit(b.emit(Add()(x, x)))))
    )
    assert operators(after)[0] == "add"
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_allclose(interpret(after, "main", x), interpret(expected, "main", x))
    assert list(after) == ["main"]


def test_a_function_inlined_twice_binds_its_variables_twice():
    module = twice()
    module = graph(
        [("x", tensor(N)), ("y", tensor(M))],
        lambda b, x, y: b.emit_output(
            rx.make_tuple(b.emit(call(module, "twice", x)), b.emit(call(module, "twice", y)))
        ),
        module=module,
    )
    verify_module(InlineFunctions()(module))


def test_functions_that_call_themselves_are_not_inlined():
    builder = BlockBuilder()
    x = builder.var("x", tensor(N))
    again = builder.declare("loop", (x,), tensor(N))
    with builder.function("loop", (x,), private=True):
        builder.emit_func_output(builder.emit(rx.Call(again, (x,), tensor(N))))
    module = builder.module
    module = graph(
        [("y", tensor(N))], lambda b, y: b.emit_output(call(module, "loop", y)), module=module
    )
    assert InlineFunctions()(module) is module


def test_branches_are_not_inlined_into_dataflow_blocks():
    builder = BlockBuilder()
    v, flag = builder.var("v", tensor(K)), builder.var("flag", tensor(dtype="bool"))
    with builder.function("choose", (v, flag), private=True):
        builder.emit_func_output(builder.emit_if(flag, lambda: v, lambda: builder.emit(Exp()(v))))
    module = builder.module
    params = [("x", tensor(N)), ("flag", tensor(dtype="bool"))]

    def body(b, x, f):
        return b.emit(call(module, "choose", x, f))

    inside = graph(params, body, module=module, dataflow=False)
    verify_module(InlineFunctions()(inside))
    assert operators(InlineFunctions()(inside)) == ["If", "exp", "Var"]
    outside = graph(
        params, lambda b, x, f: b.emit_output(call(module, "choose", x, f)), module=module
    )
    assert operators(InlineFunctions()(outside)) == ["choose"]


def nested(**options):
    def body(b, x, y):
        z = b.var("z", tensor(N))
        inner = b.emit_local_function((z,), lambda: b.emit(Add()(Multiply()(x, z), z)), "inner")
        return b.emit(rx.Call(inner, (y,), tensor(N)))

    return graph([("x", tensor(N)), ("y", tensor(N))], body, dataflow=False, **options)


def test_nested_functions_get_what_they_capture_as_parameters():
    module = nested()
    after = LambdaLift()(module)
    verify_module(after)
    assert operators(after) == ["main_inner"]
    assert [param.name for param in after["main_inner"].params] == ["z", "x"]
    x, y = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    np.testing.assert_array_equal(interpret(after, "main", x, y), x * y + y)


def test_a_function_that_escapes_becomes_a_closure():
    def body(b, x, flag):
        def scaled(factor):
            z = b.var("z", tensor(N))
            return b.emit_local_function((z,), lambda: b.emit(Multiply()(z, factor)))

        double_, triple = scaled(rx.constant(np.float32(2))), scaled(x)
        chosen = b.emit_if(flag, lambda: double_, lambda: triple)
        return b.emit(rx.Call(chosen, (x,), tensor(N)))

    module = graph([("x", tensor(N)), ("flag", tensor(dtype="bool"))], body, dataflow=False)
    after = LambdaLift()(module)
    verify_module(after)
    assert operators(after)[-1] == "invoke_pure_closure"
    x = np.arange(3, dtype=np.float32)
    for flag, expected in ((True, x * 2), (False, x * x)):
        np.testing.assert_array_equal(interpret(after, "main", x, np.array(flag)), expected)


def test_a_nested_function_that_calls_another_captures_for_it():
    def body(b, x, y):
        z = b.var("z", tensor(N))
        first = b.emit_local_function((z,), lambda: b.emit(Add()(z, x)), "first")
        w = b.var("w", tensor(N))
        second = b.emit_local_function(
            (w,), lambda: b.emit(Exp()(b.emit(rx.Call(first, (w,), tensor(N))))), "second"
        )
        return b.emit(rx.Call(second, (y,), tensor(N)))

    module = graph([("x", tensor(N)), ("y", tensor(N))], body, dataflow=False)
    after = LambdaLift()(module)
    verify_module(after)
    x, y = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    np.testing.assert_allclose(interpret(after, "main", x, y), np.exp(x + y), rtol=1e-6)


def test_captured_dimensions_are_passed_as_scalars():
    def body(b, x):
        z = b.var("z", tensor(4))
        inner = b.emit_local_function(
            (z,), lambda: b.emit(call_tir("iota", [], tensor(N), [])), "inner"
        )
        del x
        return b.emit(rx.Call(inner, (rx.constant(np.zeros(4, np.float32)),), tensor(N)))

    module = graph([("x", tensor(N))], body, dataflow=False, module=IRModule.of(iota=_iota()))
    after = LambdaLift()(module)
    verify_module(after)
    assert [type(param.type).__name__ for param in after["main_inner"].params] == [
        "TensorType",
        "PrimType",
    ]
    result = interpret(after, "main", np.zeros(3, np.float32))
    np.testing.assert_array_equal(result, [0, 1, 2])


def _iota():
    builder = FunctionBuilder("iota")
    size = Var("size")
    made = builder.compute((size,), lambda i: i.astype("float32"), dtype="float32")
    return builder.finish(made)


def test_functions_that_nobody_reaches_are_removed():
    module = with_main(twice()).with_function("unused", double(4))
    assert list(RemoveUnusedFunctions()(module)) == ["twice", "main"]
    assert list(RemoveUnusedFunctions(("twice",))(module)) == ["twice"]


def test_exporting_names_the_functions_that_are_there():
    module = AttachGlobalSymbol(("twice", "missing"))(twice())
    assert module["twice"].attrs["global_symbol"] == "twice"
    assert AttachGlobalSymbol(("twice",))(module) is module


def test_impure_functions_keep_their_effects_through_all_passes():
    def body(b, x):
        y = b.emit(Exp()(x))
        b.emit(call_packed("update", y))
        return y

    module = graph([("x", tensor(N))], body, dataflow=False, pure=False)
    for step in (InlineFunctions(), LambdaLift(), RemoveUnusedFunctions()):
        assert_same(step(module), module)
