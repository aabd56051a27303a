"""Binding a callee's symbolic variables by the arguments of a call."""

import pytest

from tests.relax.programs import double, tensor
from transect.ir.dtype import FLOAT32, INT32
from transect.ir.expr import Var, as_expr, cast
from transect.ir.types import CallableType, ShapeType, TupleType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import call_tir_type
from transect.relax.inference import infer_type, is_subtype, join
from transect.relax.shapes import erase
from transect.relax.unify import unify_prim_func, unify_types
from transect.support.errors import InferenceError
from transect.tir.builder import FunctionBuilder


def test_parameter_shapes_bind_variables_to_argument_dimensions():
    n, m, a = Var("n"), Var("m"), Var("a")
    found = unify_types([tensor(n, m), tensor(m)], [tensor(a, 3), tensor(3)])
    assert found.values == {n: a, m: as_expr(3)}
    assert found.apply(tensor(n + m)) is tensor(a + 3)
    assert not found.unproved


def test_contradicting_arguments_name_the_parameter_and_both_sizes():
    n = Var("n")
    with pytest.raises(InferenceError, match="dimension 0 of parameter y of f") as caught:
        unify_types([tensor(n), tensor(n)], [tensor(3), tensor(4)], ["x", "y"], "f")
    assert "3" in caught.value.message
    assert "4" in caught.value.message


def test_a_variable_may_be_bound_by_a_later_parameter():
    n, k = Var("n"), Var("k")
    found = unify_types([tensor(n * 2), tensor(n)], [tensor(k * 2), tensor(k)])
    assert found.values[n] is k
    assert not found.unproved


def test_sizes_that_cannot_be_compared_are_left_to_run_time():
    n, a, b = Var("n"), Var("a"), Var("b")
    found = unify_types([tensor(n), tensor(n)], [tensor(a), tensor(b)])
    assert found.unproved == [(a, b)]


def test_an_unknown_argument_shape_leaves_the_result_unknown():
    n = Var("n")
    found = unify_types([tensor(n)], [tensor_type(None, FLOAT32, 1)])
    assert found.unknown() == [n]
    assert found.apply(tensor(n, 4)) is tensor_type(None, FLOAT32, 2)


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        (tensor(4), tensor(4, dtype=INT32), "dtype"),
        (tensor(4), tensor(4, 1), "rank"),
        (tensor(4), ShapeType((as_expr(4),), 1), "must be"),
        (TupleType((tensor(4),)), TupleType(()), "a tuple of 1, got one of 0"),
    ],
)
def test_arguments_of_another_kind_are_refused(declared, given, message):
    with pytest.raises(InferenceError, match=message):
        unify_types([declared], [given])


def test_a_wrong_number_of_arguments_is_refused():
    with pytest.raises(InferenceError, match="takes 1 arguments, got 2"):
        unify_types([tensor(4)], [tensor(4), tensor(4)])


def test_a_call_between_functions_substitutes_in_the_result():
    n, k = Var("n"), Var("k")
    callee = rx.GlobalFunc("f", CallableType((tensor(n),), tensor(n * 2)))
    call = rx.Call(callee, (rx.Var("x", tensor(k)),), tensor(k))
    assert infer_type(call) is tensor(k * 2)


def test_a_program_with_int32_sizes_fits_int64_shapes():
    n, k = Var("n", "int32"), Var("k")
    found = unify_prim_func(double(n), [tensor(k), tensor(k)])
    assert found.values[n] is cast(k, "int32")


def test_scalars_without_a_buffer_are_passed_as_tir_vars():
    n, k = Var("n"), Var("k")
    builder = FunctionBuilder("iota")
    function = builder.finish(builder.compute((n * 2,), lambda i: i, dtype="float32"))
    assert call_tir_type(function, [], [k]) is tensor(k * 2)
    with pytest.raises(InferenceError, match="1 scalars, got 0"):
        call_tir_type(function, [])


def test_join_of_branches_keeps_what_both_share():
    n, m = Var("n"), Var("m")
    assert join(tensor(n, 4), tensor(n, 4)) is tensor(n, 4)
    assert join(tensor(n), tensor(m)) is tensor_type(None, FLOAT32, 1)
    assert join(tensor(n), tensor(n, m)) is tensor_type(None, FLOAT32, -1)


def test_subtypes_need_provably_equal_shapes():
    n, m = Var("n"), Var("m")
    assert is_subtype(tensor(n + n), tensor(n * 2))
    assert not is_subtype(tensor(n), tensor(m))
    assert is_subtype(tensor(n), tensor_type(None, FLOAT32, 1))
    assert not is_subtype(tensor_type(None, FLOAT32, 1), tensor(n))


def test_types_do_not_carry_variables_out_of_their_scope():
    n, m = Var("n"), Var("m")
    kind = TupleType((tensor(n, m), tensor(n)))
    assert erase(kind, [m]) is TupleType((tensor_type(None, FLOAT32, 2), tensor(n)))
