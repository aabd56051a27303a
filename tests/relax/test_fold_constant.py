"""FoldConstant: what is known when the program is compiled."""

import numpy as np

from tests.relax.programs import assert_same, double, graph, operators, tensor
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.relax import expr as rx
from transect.relax.call import (
    ShapeOf,
    ShapeToTensor,
    TensorToShape,
    call_packed,
    call_pure_packed,
    call_tir,
)
from transect.relax.interpret import interpret
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.elementwise import Exp
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.manipulate import Reshape, Split
from transect.relax.transform.fold_constant import FoldConstant
from transect.relax.verify import verify_module

N, M = Var("n"), Var("m")
DATA = np.arange(6, dtype=np.float32).reshape(2, 3)


def folded(module, **options):
    after = FoldConstant(**options)(module)
    verify_module(after)
    return after


def test_calls_on_constants_become_constants():
    def before(b, x):
        return b.emit_output(Add()(x, b.emit(Multiply()(rx.constant(DATA), rx.constant(DATA)))))

    def expected(b, x):
        return b.emit_output(Add()(x, rx.constant(DATA * DATA)))

    params = [("x", tensor(2, 3))]
    assert_same(folded(graph(params, before)), graph(params, expected))


def test_calls_of_tensor_programs_are_folded_too():
    module = graph(
        [],
        lambda b: b.emit_output(
            call_tir("double", [rx.constant([1.0, 2.0], "float32")], tensor(2))
        ),
        module=IRModule.of(double=double(2)),
    )
    after = folded(module)
    assert operators(after) == []
    np.testing.assert_array_equal(interpret(after, "main"), [2, 4])


def test_several_results_are_folded():
    def body(b):
        parts = b.emit(Split(3, axis=1)(rx.constant(DATA)))
        return b.emit_output(rx.tuple_item(parts, 1))

    after = folded(graph([], body))
    assert operators(after) == []
    np.testing.assert_array_equal(interpret(after, "main"), DATA[:, 1:2])


def test_calls_beyond_the_limit_are_left():
    module = graph([], lambda b: b.emit_output(Exp()(rx.constant(DATA))))
    assert folded(module, limit=5) is module
    assert operators(folded(module, limit=6)) == []


def test_large_calls_of_a_function_are_evaluated_in_one_program():
    seen = []

    def evaluate(module, name):
        verify_module(module)
        seen.append(operators(module, name))
        return interpret(module, name)

    def body(b, x):
        weight = b.emit(Matmul()(rx.constant(DATA), b.emit(Exp()(rx.constant(DATA.T)))))
        scale = b.emit(Exp()(rx.constant([1.0, 2.0], "float32")))
        y = b.emit(Add()(x, weight))
        return b.emit_output(rx.make_tuple(Multiply()(y, scale), Add()(y, weight)))

    module = graph([("x", tensor(2, 2))], body)
    after = folded(module, limit=0, evaluate=evaluate)
    assert seen == [["exp", "matmul", "exp"]]
    assert operators(after) == ["add", "multiply", "add", "Tuple"]
    x = np.ones((2, 2), np.float32)
    for a, b in zip(interpret(after, "main", x), interpret(module, "main", x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_constant_that_is_changed_in_place_is_made_when_the_program_runs():
    def body(b):
        y = b.emit(Exp()(rx.constant(DATA)))
        b.emit(call_packed("update", y))
        return y

    module = graph([], body, dataflow=False, pure=False)
    assert folded(module) is module


def test_packed_functions_are_not_called_at_compile_time():
    module = graph([], lambda b: b.emit_output(call_pure_packed("f", rx.constant(DATA))))
    assert folded(module, limit=1 << 30) is module


def test_shapes_of_tensors_are_shape_values():
    def before(b, x):
        shape = b.emit(ShapeOf()(x))
        return b.emit_output(ShapeToTensor()(shape))

    def expected(b, x):
        del x
        return b.emit_output(ShapeToTensor()(rx.shape_expr(N, M)))

    params = [("x", tensor(N, M))]
    assert_same(folded(graph(params, before)), graph(params, expected))


def test_shapes_that_are_computed_from_constants_are_known():
    def before(b, x):
        dims = b.emit(ShapeToTensor()(rx.shape_expr(3, 2)))
        shape = b.emit(TensorToShape()(dims))
        cast = b.match_cast(shape, rx.shape_expr(3, 2).type)
        return b.emit_output(Reshape()(x, cast))

    after = folded(graph([("x", tensor(2, 3))], before))
    assert operators(after) == ["ShapeExpr", "reshape"]
    np.testing.assert_array_equal(interpret(after, "main", DATA), DATA.reshape(3, 2))
