"""LegalizeOps and the memoised step from an operator to its loops."""

import numpy as np

from tests.relax.programs import assert_same, double, graph, operators, tensor
from transect.ir.dtype import FLOAT32
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.ir.types import tensor_type
from transect.relax import expr as rx
from transect.relax.call import call_packed, call_pure_packed, call_tir
from transect.relax.interpret import interpret
from transect.relax.legalize import legalize
from transect.relax.op.binary import Add
from transect.relax.op.create import Full
from transect.relax.op.elementwise import Exp
from transect.relax.op.manipulate import BroadcastTo, Concat, PermuteDims, Reshape, Split
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.rewrite_dataflow_reshape import RewriteDataflowReshape
from transect.relax.verify import verify_module
from transect.tir.function import PrimFunc

N, M = Var("n"), Var("m")


def lowered(params, body, **options):
    before = graph(params, body, **options)
    after = LegalizeOps()(before)
    verify_module(after)
    assert LegalizeOps()(after) is after
    return before, after


def programs(module):
    return [name for name, function in module.functions.items() if isinstance(function, PrimFunc)]


def test_operators_become_calls_of_tensor_programs_with_the_same_result():
    before, after = lowered(
        [("x", tensor(N, M)), ("y", tensor(M))],
        lambda b, x, y: b.emit_output(Add()(b.emit(Exp()(x)), y)),
    )
    assert operators(after) == ["exp", "add"]
    x, y = np.ones((2, 3), np.float32), np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(interpret(before, "main", x, y), interpret(after, "main", x, y))


def test_calls_that_differ_only_in_the_names_of_dimensions_share_one_program():
    k = Var("k")
    module = graph([("x", tensor(N, M))], lambda b, x: b.emit_output(Exp()(x)))
    module = graph(
        [("x", tensor(k, N))], lambda b, x: b.emit_output(Exp()(x)), module=module, name="other"
    )
    after = LegalizeOps()(module)
    verify_module(after)
    assert programs(after) == ["exp"]


def test_legalizing_is_memoised_on_the_operator_and_the_types():
    first = legalize(Exp(), (tensor(N, M),))
    second = legalize(Exp(), (tensor(Var("n"), Var("m")),))
    other = legalize(Exp(), (tensor(N, 3),))
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.function is second.function
    assert first.function is not other.function


def test_repeated_dimensions_are_not_taken_for_different_ones():
    square, rectangle = legalize(Exp(), (tensor(N, N),)), legalize(Exp(), (tensor(N, M),))
    assert square is not None
    assert rectangle is not None
    assert square.function is not rectangle.function


def test_a_size_that_is_computed_is_one_dimension_to_the_loops():
    first, second = legalize(Exp(), (tensor(N * M),)), legalize(Exp(), (tensor(Var("d")),))
    assert first is not None
    assert second is not None
    assert first.function is second.function
    assert first.out_type is tensor(N * M)
    mixed = legalize(Add(), (tensor(N * M, N), tensor(N)))
    assert mixed is not None
    assert mixed.out_type is tensor(N * M, N)


def test_dimensions_that_no_tensor_has_are_passed_as_scalars():
    before, after = lowered(
        [("x", tensor(N))], lambda b, x: b.emit_output(BroadcastTo()(x, rx.shape_expr(N + 1, N)))
    )
    k = Var("k")
    before, after = lowered(
        [("x", tensor(N, k))],
        lambda b, x: rx.make_tuple(
            b.emit_output(Full()(rx.shape_expr(N, k), rx.constant(np.float32(2))))
        ),
    )
    result = interpret(after, "main", np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(result[0], np.full((2, 3), 2, np.float32))
    np.testing.assert_array_equal(
        interpret(before, "main", np.zeros((2, 3), np.float32))[0], result[0]
    )


def test_unknown_shapes_are_named_once_before_the_loops():
    unknown = tensor_type(None, FLOAT32, 2)

    def body(b, x):
        found = b.emit(call_pure_packed("f", x, type_args=(unknown,)))
        return b.emit_output(Exp()(found))

    _, after = lowered([("x", tensor(N, M))], body)
    assert operators(after) == ["f", "Var", "exp"]
    result = interpret(after, "main", np.zeros((2, 3), np.float32), packed={"f": lambda x: x[:1]})
    np.testing.assert_array_equal(result, np.ones((1, 3), np.float32))


def test_tuples_of_tensors_are_passed_one_by_one():
    before, after = lowered(
        [("x", tensor(N, 4)), ("y", tensor(M, 4))],
        lambda b, x, y: b.emit_output(Concat(axis=0)(rx.make_tuple(x, y))),
    )
    x, y = np.ones((2, 4), np.float32), np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(interpret(after, "main", x, y), interpret(before, "main", x, y))


def test_several_results_are_a_tuple():
    def body(b, x):
        parts = b.emit(Split(2, axis=1)(x))
        return b.emit_output(
            Add()(b.emit(rx.tuple_item(parts, 0)), b.emit(rx.tuple_item(parts, 1)))
        )

    before, after = lowered([("x", tensor(N, 4))], body)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(interpret(after, "main", x), interpret(before, "main", x))


def test_views_stay_views():
    _, after = lowered(
        [("x", tensor(N, M))],
        lambda b, x: b.emit_output(Exp()(b.emit(Reshape()(x, rx.shape_expr(N * M))))),
    )
    assert operators(after) == ["reshape", "exp"]
    copied = LegalizeOps(keep_views=False)(
        graph([("x", tensor(N, M))], lambda b, x: b.emit_output(Reshape()(x, rx.shape_expr(N * M))))
    )
    assert programs(copied) == ["reshape"]


def test_a_view_of_a_tensor_that_is_changed_in_place_is_a_copy():
    def body(b, x):
        y = b.emit(Reshape()(x, rx.shape_expr(N * M)))
        b.emit(call_packed("update", y))
        return x

    _, after = lowered([("x", tensor(N, M))], body, dataflow=False, pure=False)
    assert programs(after) == ["reshape"]


def test_mixed_modules_keep_what_is_lowered_already():
    module = graph(
        [("x", tensor(N))],
        lambda b, x: b.emit_output(Exp()(b.emit(call_tir("double", [x], tensor(N))))),
        module=IRModule.of(double=double(Var("k"))),
    )
    after = LegalizeOps()(module)
    assert operators(after) == ["double", "exp"]
    assert after["double"] is module["double"]


def test_operators_that_are_skipped_stay():
    module = graph([("x", tensor(N))], lambda b, x: b.emit_output(Exp()(x)))
    assert_same(LegalizeOps(skip=frozenset({"exp"}))(module), module)


def test_a_program_that_copies_in_order_becomes_a_view():
    module = graph(
        [("x", tensor(N, M))], lambda b, x: b.emit_output(Reshape()(x, rx.shape_expr(N * M)))
    )
    copied = LegalizeOps(keep_views=False)(module)
    assert operators(copied) == ["reshape"]
    assert programs(copied) == ["reshape"]
    back = RewriteDataflowReshape()(copied)
    verify_module(back)
    assert_same(back["main"], module["main"])


def test_a_program_that_reorders_or_repeats_stays():
    for value in (PermuteDims(), lambda x: BroadcastTo()(x, rx.shape_expr(2, N, M))):
        module = LegalizeOps()(
            graph([("x", tensor(N, M))], lambda b, x, v=value: b.emit_output(v(x)))
        )
        assert RewriteDataflowReshape()(module) is module
