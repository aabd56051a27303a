"""The pattern language."""

import numpy as np
import pytest

from tests.relax.programs import assert_same, graph, operators, tensor
from transect.ir.expr import Var
from transect.relax import expr as rx
from transect.relax.interpret import interpret
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.elementwise import Exp, Tanh
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.reduce import Sum
from transect.relax.pattern import (
    bound_values,
    find_matches,
    is_const,
    is_op,
    is_tuple,
    is_tuple_item,
    is_var,
    partition,
    rewrite_call,
    wildcard,
)
from transect.relax.transform.dead_code_elimination import DeadCodeElimination
from transect.relax.transform.lambda_lift import LambdaLift
from transect.relax.verify import verify_module
from transect.relax.visit import bindings

N, M, K = Var("n"), Var("m"), Var("k")


def linear():
    def body(b, x, w, bias):
        return b.emit_output(Tanh()(b.emit(Add()(b.emit(Matmul()(x, w)), bias))))

    return graph([("x", tensor(N, K)), ("w", tensor(K, M)), ("bias", tensor(M))], body)


def test_a_pattern_is_found_through_bindings():
    x, w, bias = wildcard(), wildcard(), wildcard()
    pattern = is_op("add")(is_op("matmul")(x, w), bias)
    function = linear()["main"]
    (match,) = find_matches(pattern, function)
    assert [match.captures[p] for p in (x, w, bias)] == list(function.params)
    assert [var.name for var in match.inside] == ["lv", "lv_1"]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (is_op("exp")(wildcard()), 0),
        (is_op("matmul")(is_var("x"), is_var("w")), 1),
        (is_op("matmul")(is_var("w"), is_var("x")), 0),
        (is_op("tanh")(wildcard()) | is_op("add")(wildcard(), wildcard()), 2),
        (is_op("matmul")(wildcard(), wildcard()).has_dtype("float32"), 1),
        (is_op("matmul")(wildcard(), wildcard()).has_dtype("float16"), 0),
        (is_op("matmul")(wildcard(), wildcard()).has_shape((N, M)), 1),
        (is_op("matmul")(wildcard(), wildcard()).has_shape((N, K)), 0),
        (is_op("matmul")(wildcard().has_ndim(2), wildcard().has_ndim(3)), 0),
        (is_op("add")(wildcard(), is_const()), 0),
        (is_op("matmul", transpose_a=True)(wildcard(), wildcard()), 0),
    ],
)
def test_patterns_match_what_they_say(pattern, count):
    assert len(list(find_matches(pattern, linear()["main"]))) == count


def test_the_same_pattern_object_means_the_same_value():
    same = wildcard()
    square = is_op("multiply")(same, same)

    def body(b, x, y):
        return b.emit_output(rx.make_tuple(Multiply()(x, x), Multiply()(x, y)))

    function = graph([("x", tensor(N)), ("y", tensor(N))], body)["main"]
    assert [match.captures[same] for match in find_matches(square, function)] == [
        function.params[0]
    ]


def test_attributes_and_constants_are_compared():
    def body(b, x):
        total = b.emit(Sum(axis=(0,), keepdims=True)(x))
        return b.emit_output(Multiply()(total, rx.constant([2.0], "float32")))

    function = graph([("x", tensor(N))], body)["main"]
    total = is_op("sum", keepdims=True)(wildcard())
    assert list(find_matches(is_op("multiply")(total, is_const(2.0)), function))
    assert not list(find_matches(is_op("multiply")(total, is_const(3.0)), function))
    assert not list(find_matches(is_op("sum", keepdims=False)(wildcard()), function))


def test_tuples_and_their_items_are_matched():
    def body(b, x):
        pair = b.emit(rx.make_tuple(b.emit(Exp()(x)), x))
        return b.emit_output(rx.tuple_item(pair, 1))

    function = graph([("x", tensor(N))], body)["main"]
    pattern = is_tuple_item(is_tuple(is_op("exp")(wildcard()), wildcard()), 1)
    assert len(list(find_matches(pattern, function))) == 1
    assert not list(find_matches(is_tuple_item(wildcard(), 0), function))


def test_a_failed_alternative_leaves_no_captures():
    x = wildcard()
    either = is_op("add")(is_op("exp")(x), wildcard()) | is_op("add")(
        is_op("matmul")(x, wildcard()), wildcard()
    )
    function = linear()["main"]
    (match,) = find_matches(either, function)
    assert match.captures[x] is function.params[0]


def test_calls_are_rewritten_and_what_they_were_made_of_dies():
    x = wildcard()
    pattern = is_op("tanh")(is_op("exp")(x))

    def before(b, v):
        return b.emit_output(Tanh()(b.emit(Exp()(v))))

    module = graph([("x", tensor(N))], before)
    new = rewrite_call(pattern, lambda _, found: Add()(found[x], Exp()(found[x])), module["main"])
    module = DeadCodeElimination()(module.with_function("main", new))
    verify_module(module)
    expected = graph([("x", tensor(N))], lambda b, v: b.emit_output(Add()(v, b.emit(Exp()(v)))))
    assert_same(module, expected)


def test_a_rewritten_call_is_seen_by_later_matches():
    x = wildcard()
    pattern = is_op("exp")(is_op("exp")(x))

    def before(b, v):
        return b.emit_output(Exp()(b.emit(Exp()(b.emit(Exp()(b.emit(Exp()(v))))))))

    module = graph([("x", tensor(N))], before)
    new = rewrite_call(pattern, lambda _, found: Tanh()(found[x]), module["main"])
    module = DeadCodeElimination()(module.with_function("main", new))
    assert operators(module) == ["tanh", "tanh"]
    verify_module(module)


def test_nothing_matched_is_the_same_function():
    function = linear()["main"]
    assert rewrite_call(is_op("exp")(wildcard()), lambda call, _: call, function) is function
    assert partition(is_op("exp")(wildcard()), function) is function


def test_a_region_moves_into_a_function_that_says_what_it_is():
    pattern = is_op("add")(is_op("matmul")(wildcard(), wildcard()), wildcard())
    before = linear()
    function = partition(pattern, before["main"], Composite="blas.linear")
    module = before.with_function("main", function)
    verify_module(module)
    lifted = LambdaLift()(module)
    verify_module(lifted)
    (region,) = [name for name in lifted if name != "main"]
    assert lifted[region].attrs["Composite"] == "blas.linear"
    assert operators(lifted, region) == ["matmul", "add"]
    assert operators(lifted) == [region, "tanh"]
    arrays = [np.ones((2, 3), np.float32), np.ones((3, 4), np.float32), np.ones(4, np.float32)]
    np.testing.assert_array_equal(
        interpret(lifted, "main", *arrays), interpret(before, "main", *arrays)
    )


def test_a_region_whose_inner_result_is_used_elsewhere_is_left():
    def body(b, x, w, bias):
        y = b.emit(Matmul()(x, w))
        return b.emit_output(rx.make_tuple(Add()(y, bias), Exp()(y)))

    params = [("x", tensor(N, K)), ("w", tensor(K, M)), ("bias", tensor(M))]
    function = graph(params, body)["main"]
    pattern = is_op("add")(is_op("matmul")(wildcard(), wildcard()), wildcard())
    assert partition(pattern, function) is function


def test_bound_values_look_into_branches():
    def body(b, x, flag):
        return b.emit_if(flag, lambda: b.emit(Exp()(x)), lambda: x)

    function = graph([("x", tensor(N)), ("flag", tensor(dtype="bool"))], body, dataflow=False)[
        "main"
    ]
    assert len(bound_values(function)) == len(list(bindings(function))) == 2
