"""The graph interpreter: the reference that compiled programs are compared with."""

import numpy as np
import pytest
import tvm_ffi

from tests.relax.programs import double, graph, tensor
from transect.ir.dtype import FLOAT32, INT64
from transect.ir.expr import Var, as_expr
from transect.ir.function import IRModule
from transect.ir.types import ObjectType, PrimType, ShapeType, TupleType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import (
    AssertOp,
    InvokePureClosure,
    MakeClosure,
    ShapeOf,
    ShapeToTensor,
    TensorToShape,
    call_dps_packed,
    call_packed,
    call_pure_packed,
    call_tir,
    call_tir_inplace,
)
from transect.relax.interpret import Interpreter, interpret
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.elementwise import Exp
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.manipulate import BroadcastTo, Reshape
from transect.support.errors import ExecutionError, InputError
from transect.tir.builder import FunctionBuilder, store

N, M, K = Var("n"), Var("m"), Var("k")
RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_operators_run_by_their_loops_for_any_size():
    def body(b, x, w):
        return b.emit_output(Exp()(Matmul()(x, w)))

    module = graph([("x", tensor(N, K)), ("w", tensor(K, M))], body)
    for n, k, m in ((1, 1, 1), (3, 4, 5), (0, 2, 3)):
        x, w = array(n, k), array(k, m)
        np.testing.assert_allclose(interpret(module, "main", x, w), np.exp(x @ w), rtol=1e-5)


def test_a_tensor_program_writes_into_new_tensors():
    module = graph(
        [("x", tensor(N))],
        lambda b, x: b.emit_output(call_tir("double", [x], tensor(N))),
        module=IRModule.of(double=double(Var("k"))),
    )
    x = array(5)
    kept = x.copy()
    np.testing.assert_array_equal(interpret(module, "main", x), x * 2)
    np.testing.assert_array_equal(x, kept)


def test_an_inplace_call_leaves_other_uses_of_its_input_alone():
    k = Var("k")
    builder = FunctionBuilder("increment")
    x = builder.input("x", (k,), "float32")
    builder.block((k,), lambda i: _store(x, i), name="increment")
    program = builder.finish(())

    def body(b, value):
        b.emit(call_tir_inplace("increment", [value], (0,), tensor(N)), "changed")
        return b.emit_output(Add()(value, value))

    module = graph([("x", tensor(N))], body, module=IRModule.of(increment=program))
    given = array(4)
    np.testing.assert_allclose(interpret(module, "main", given), given * 2)


def _store(buffer, i):

    return store(buffer, (i,), buffer[i] + 1.0)


def test_scalars_of_a_program_are_evaluated_in_the_callers_terms():
    size = Var("size")
    builder = FunctionBuilder("iota")
    program = builder.finish(
        builder.compute((size * 2,), lambda i: i.astype("float32"), dtype="float32")
    )
    module = graph(
        [("x", tensor(N))],
        lambda b, x: b.emit_output(call_tir("iota", [], tensor(N * 2), [N])),
        module=IRModule.of(iota=program),
    )
    np.testing.assert_array_equal(interpret(module, "main", array(3)), np.arange(6))


def test_packed_functions_may_change_their_argument():
    def update(x):
        x += 1

    def body(b, x):
        y = b.emit(Exp()(x))
        b.emit(call_packed("update", y))
        return y

    module = graph([("x", tensor(N))], body, dataflow=False, pure=False)
    x = array(3)
    result = interpret(module, "main", x, packed={"update": update})
    np.testing.assert_allclose(result, np.exp(x) + 1, rtol=1e-6)


def test_registered_functions_are_found():
    name = "test_interpret.registered"

    @tvm_ffi.register_global_func(name, override=True)
    def negate(x, out):
        np.from_dlpack(out)[:] = -np.from_dlpack(x)

    module = graph(
        [("x", tensor(N))], lambda b, x: b.emit_output(call_dps_packed(name, [x], tensor(N)))
    )
    x = array(4)
    np.testing.assert_array_equal(interpret(module, "main", x), -x)


def test_an_unknown_packed_function_is_named():
    module = graph([("x", tensor(N))], lambda b, x: b.emit_output(call_pure_packed("no_such", x)))
    with pytest.raises(InputError, match="no_such"):
        interpret(module, "main", array(1))


def test_a_result_that_is_not_what_the_call_says_is_refused():
    kind = tensor(N)
    module = graph(
        [("x", tensor(N))],
        lambda b, x: b.emit_output(call_pure_packed("f", x, type_args=(kind,))),
    )
    with pytest.raises(ExecutionError, match="dimension 0 of the result of the packed function"):
        interpret(module, "main", array(3), packed={"f": lambda x: x[:2]})


def test_match_cast_binds_dimensions_that_only_the_data_tells():
    def body(b, x):
        chosen = b.emit(call_pure_packed("choose", x))
        some = b.match_cast(chosen, tensor(M))
        return b.emit_output(BroadcastTo()(some, rx.shape_expr(2, M)))

    module = graph([("x", tensor(N))], body)
    x = np.array([1, -1, 2], np.float32)
    result = interpret(module, "main", x, packed={"choose": lambda v: v[v > 0]})
    np.testing.assert_array_equal(result, [[1, 2], [1, 2]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2), np.float32), "must have 1 dimensions, got 2"),
        (np.zeros(3, np.float64), "must have dtype float32, got float64"),
        (np.zeros(3, np.float32), "dimension 0 of the value cast to y must be 8"),
        ("text", "must be a tensor, got str"),
    ],
)
def test_a_match_cast_that_fails_says_what_it_got(value, message):
    def body(b, x):
        found = b.emit(call_pure_packed("f", x))
        return b.match_cast(found, tensor(N * 2), "y")

    module = graph([("x", tensor(N))], body, dataflow=False)
    with pytest.raises(ExecutionError, match=message):
        interpret(module, "main", np.zeros(4, np.float32), packed={"f": lambda _: value})


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (array(3), array(4), "dimension 0 of parameter y of main"),
        (array(3, 1), array(3), "parameter x of main must have 1 dimensions"),
        (3, array(3), "parameter x of main must be a tensor, got int"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(x, y, message):
    def body(b, left, right):
        return b.emit_output(Add()(left, right))

    module = graph([("x", tensor(N)), ("y", tensor(N))], body)
    with pytest.raises(ExecutionError, match=message):
        interpret(module, "main", x, y)


def test_branches_and_recursion():
    builder = BlockBuilder()
    x = builder.var("x", tensor(N))
    steps = builder.var("steps", PrimType(INT64, K))
    again = builder.declare("power", (x, steps), tensor(N))
    with builder.function("power", (x, steps)):

        def more():
            rest = builder.emit(rx.Call(again, (x, rx.prim_value(K - 1)), tensor(N)))
            return builder.emit(Multiply()(x, rest))

        builder.emit_func_output(
            builder.emit_if(rx.prim_value(K > 0), more, lambda: builder.emit(_ones(N)))
        )
    base = array(3)
    result = interpret(builder.module, "power", base, 5)
    np.testing.assert_allclose(result, base**5, rtol=1e-5)


def _ones(size):
    return BroadcastTo()(rx.constant(np.float32(1)), rx.shape_expr(size))


def test_closures_keep_what_they_capture():
    def body(b, x, y):
        z = b.var("z", tensor(N))
        inner = b.emit_local_function((z,), lambda: b.emit(Add()(x, z)))
        return b.emit(rx.Call(inner, (y,), tensor(N)))

    module = graph([("x", tensor(N)), ("y", tensor(N))], body, dataflow=False)
    x, y = array(3), array(3)
    np.testing.assert_allclose(interpret(module, "main", x, y), x + y)


def test_made_closures_take_their_captured_values_last():
    inner = graph(
        [("a", tensor(2)), ("b", tensor(2))],
        lambda b, p, q: b.emit_output(Add()(p, Multiply()(q, q))),
        name="inner",
        private=True,
    )

    def body(b, x, y):
        function = BlockBuilder(inner).global_func("inner")
        closure = b.emit(MakeClosure()(function, rx.make_tuple(y)))
        return b.emit_output(InvokePureClosure()(closure, rx.make_tuple(x)))

    module = graph([("x", tensor(2)), ("y", tensor(2))], body, module=inner)
    x, y = array(2), array(2)
    np.testing.assert_allclose(interpret(module, "main", x, y), x + y * y, rtol=1e-6)


def test_tuples_go_in_and_out():
    pair = TupleType((tensor(N), tensor(N)))

    def body(b, values):
        first = b.emit(rx.tuple_item(values, 0))
        return b.emit_output(rx.make_tuple(rx.tuple_item(values, 1), Exp()(first)))

    module = graph([("values", pair)], body)
    x, y = array(2), array(2)
    result = interpret(module, "main", (x, y))
    np.testing.assert_array_equal(result[0], y)
    np.testing.assert_allclose(result[1], np.exp(x), rtol=1e-6)


def test_shapes_are_values():
    def body(b, x):
        shape = b.emit(ShapeOf()(x))
        dims = b.emit(ShapeToTensor()(shape))
        back = b.emit(TensorToShape()(dims))
        b.match_cast(back, ShapeType((N, M), 2))
        return b.emit_output(rx.make_tuple(dims, back))

    dims, shape = interpret(graph([("x", tensor(N, M))], body), "main", array(3, 4))
    np.testing.assert_array_equal(dims, [3, 4])
    assert tuple(shape) == (3, 4)


def test_a_failed_assertion_shows_its_text():
    def body(b, x):
        b.emit(AssertOp("n is {}")(rx.prim_value(N > 3), rx.prim_value(N)))
        return x

    module = graph([("x", tensor(N))], body, dataflow=False, pure=False)
    interpret(module, "main", array(4))
    with pytest.raises(ExecutionError, match="assertion failed: n is 2"):
        interpret(module, "main", array(2))


def test_unknown_shapes_are_known_when_the_program_runs():
    unknown = tensor_type(None, FLOAT32, 2)
    module = graph([("x", unknown)], lambda b, x: b.emit_output(Exp()(x)))
    x = array(2, 3)
    np.testing.assert_allclose(interpret(module, "main", x), np.exp(x), rtol=1e-6)


def test_an_object_passes_through_untouched():
    thing = object()
    module = graph([("x", ObjectType())], lambda b, x: b.emit_output(call_pure_packed("same", x)))
    assert Interpreter(module, {"same": lambda x: x}).run("main", thing) is thing


def test_a_constant_is_not_copied_into_the_program_twice():
    data = np.arange(4, dtype=np.float32)
    module = graph(
        [], lambda b: b.emit_output(Reshape()(rx.constant(data), rx.shape_expr(2, as_expr(2))))
    )
    np.testing.assert_array_equal(interpret(module, "main"), data.reshape(2, 2))
