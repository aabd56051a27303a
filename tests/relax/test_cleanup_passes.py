"""Normalize, Canonicalize, DeadCodeElimination, EliminateCommonSubexpr, ToNonDataflow."""

import numpy as np
import pytest

from tests.relax.programs import assert_same, graph, operators, tensor
from transect.ir.dtype import FLOAT32
from transect.ir.expr import Var
from transect.ir.node import replace
from transect.ir.types import ObjectType, TupleType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import make_function
from transect.relax.call import call_packed, call_pure_packed
from transect.relax.op.binary import Add, Multiply, Power
from transect.relax.op.elementwise import Astype, Exp, Tanh
from transect.relax.op.manipulate import BroadcastTo, PermuteDims, Reshape
from transect.relax.transform.canonicalize import Canonicalize
from transect.relax.transform.dead_code_elimination import DeadCodeElimination
from transect.relax.transform.eliminate_common_subexpr import EliminateCommonSubexpr
from transect.relax.transform.normalize import Normalize
from transect.relax.transform.to_non_dataflow import ToNonDataflow
from transect.relax.verify import verify_module
from transect.support.span import Layer

N, M = Var("n"), Var("m")
X = [("x", tensor(N, M))]


def check(step, before, expected):
    after = step(before)
    verify_module(after)
    assert_same(after, expected)
    again = step(after)
    assert again is after, "a second run changes nothing and returns the same module"


def test_normalize_binds_nested_calls_and_joins_nested_sequences():
    x, y = rx.Var("x", tensor(N)), rx.Var("y", tensor(N))
    inner = rx.SeqExpr((rx.BindingBlock((rx.VarBinding(y, Exp()(x)),)),), Tanh()(y), y.type)
    z = rx.Var("z", tensor(N))
    block = rx.BindingBlock((rx.VarBinding(z, inner),))
    nested = make_function((x,), rx.SeqExpr((block,), Exp()(z), z.type))
    module = graph([("x", tensor(N))], lambda b, v: b.emit_output(v)).with_function("main", nested)
    expected = graph(
        [("x", tensor(N))],
        lambda b, v: b.emit(Exp()(b.emit(b.emit(Tanh()(b.emit(Exp()(v))))))),
        dataflow=False,
        private=True,
    )
    check(Normalize(), module, expected)


def test_copies_disappear_and_the_output_keeps_its_block():
    def before(b, x):
        y = b.emit(Exp()(x))
        z = b.emit(y)
        return b.emit_output(z)

    check(Canonicalize(), graph(X, before), graph(X, lambda b, x: b.emit_output(Exp()(x))))


def test_a_value_with_two_outputs_is_computed_once():
    def before(b, x):
        y = b.emit(Exp()(x))
        first, second = b.emit_output(y), b.emit_output(y)
        return rx.make_tuple(first, second)

    def expected(b, x):
        y = b.emit_output(Exp()(x))
        return rx.make_tuple(y, y)

    check(Canonicalize(), graph(X, before), graph(X, expected))


def test_items_of_known_tuples_are_taken_out():
    def before(b, x):
        pair = b.emit(rx.make_tuple(b.emit(Exp()(x)), x))
        return b.emit_output(Add()(b.emit(rx.tuple_item(pair, 0)), b.emit(rx.tuple_item(pair, 1))))

    module = DeadCodeElimination()(Canonicalize()(graph(X, before)))
    assert_same(module, graph(X, lambda b, x: b.emit_output(Add()(b.emit(Exp()(x)), x))))


def test_items_are_not_taken_out_of_a_block_that_has_ended():
    def body(b, x):
        with b.dataflow():
            pair = b.emit_output(rx.make_tuple(b.emit(Exp()(x)), x))
        return b.emit(rx.tuple_item(pair, 0))

    module = Canonicalize()(graph(X, body, dataflow=False))
    verify_module(module)
    assert operators(module) == ["exp", "Tuple", "TupleGetItem"]


def test_a_tuple_of_all_items_of_a_tuple_is_that_tuple():
    kind = TupleType((tensor(N), tensor(N)))

    def before(b, pair):
        first, second = b.emit(rx.tuple_item(pair, 0)), b.emit(rx.tuple_item(pair, 1))
        return b.emit_output(rx.make_tuple(first, second))

    module = DeadCodeElimination()(Canonicalize()(graph([("pair", kind)], before)))
    assert operators(module) == []


@pytest.mark.parametrize(
    "value",
    [
        lambda x: Reshape()(x, rx.shape_expr(N, M)),
        lambda x: BroadcastTo()(x, rx.shape_expr(N, M)),
        lambda x: BroadcastTo()(x, rx.shape_expr(N * 2 - N, M)),
        Astype("float32"),
        PermuteDims((0, 1)),
    ],
)
def test_operators_that_give_their_operand_back_disappear(value):
    def before(b, x):
        return b.emit_output(Exp()(b.emit(value(x))))

    check(Canonicalize(), graph(X, before), graph(X, lambda b, x: b.emit_output(Exp()(x))))


@pytest.mark.parametrize(
    "value",
    [
        lambda x: Reshape()(x, rx.shape_expr(N * N)),
        Astype("float64"),
        PermuteDims((1, 0)),
    ],
)
def test_operators_that_change_something_stay(value):
    module = graph([("x", tensor(N, N))], lambda b, x: b.emit_output(value(x)))
    assert Canonicalize()(module) is module


def test_a_copy_that_is_changed_in_place_stays_a_copy():
    def body(b, x):
        y = b.emit(Exp()(x))
        view = b.emit(Reshape()(y, rx.shape_expr(N, M)))
        b.emit(call_packed("update", view))
        return rx.make_tuple(y, view)

    module = graph(X, body, dataflow=False, pure=False)
    assert operators(Canonicalize()(module)) == ["exp", "reshape", "update"]


def test_small_constant_powers_are_products():
    def before(b, x):
        square = b.emit(Power()(x, rx.constant(np.float32(2))))
        cube = b.emit(Power()(square, rx.constant(np.float32([3]))))
        root = b.emit(Power()(cube, rx.constant(np.float32(0.5))))
        wider = rx.constant(np.full((1, 1, 1), 2, np.float32))
        return b.emit_output(Power()(root, wider))

    def expected(b, x):
        square = b.emit(Multiply()(x, x))
        cube = b.emit(Multiply()(b.emit(Multiply()(square, square)), square))
        root = b.emit(Power()(cube, rx.constant(np.float32(0.5))))
        wider = rx.constant(np.full((1, 1, 1), 2, np.float32))
        return b.emit_output(Power()(root, wider))

    check(Canonicalize(), graph(X, before), graph(X, expected))


def test_a_reshape_of_a_reshape_is_one():
    def before(b, x):
        flat = b.emit(Reshape()(x, rx.shape_expr(N * M)))
        return b.emit_output(Reshape()(flat, rx.shape_expr(M, N)))

    def expected(b, x):
        return b.emit_output(Reshape()(x, rx.shape_expr(M, N)))

    after = DeadCodeElimination()(Canonicalize()(graph(X, before)))
    assert_same(after, graph(X, expected))


def test_a_cast_that_holds_for_sure_is_dropped_and_its_variables_replaced():
    k = Var("k")

    def before(b, x):
        y = b.match_cast(x, tensor(k, M))
        return b.emit_output(BroadcastTo()(y, rx.shape_expr(k * 1, k, M)))

    def expected(b, x):
        return b.emit_output(BroadcastTo()(x, rx.shape_expr(N * 1, N, M)))

    after = Canonicalize()(graph(X, before))
    verify_module(after)
    assert_same(after, graph(X, expected))


def test_a_cast_that_may_fail_stays():
    def body(b, x):
        b.match_cast(x, tensor(N, N))
        return b.emit_output(Exp()(x))

    module = graph(X, body)
    assert Canonicalize()(module) is module
    assert DeadCodeElimination()(module) is module


def test_unused_pure_values_are_dropped_with_what_only_they_use():
    def before(b, x):
        b.emit(Tanh()(b.emit(Exp()(x))))
        return b.emit_output(Exp()(x))

    check(DeadCodeElimination(), graph(X, before), graph(X, lambda b, x: b.emit_output(Exp()(x))))


def test_effects_are_never_dropped_not_even_inside_branches():
    def body(b, x, flag):
        def effect():
            b.emit(call_packed("log", x))
            b.emit(Exp()(x))
            return x

        b.emit_if(flag, effect, lambda: x)
        return x

    params = [*X, ("flag", tensor(dtype="bool"))]
    module = graph(params, body, dataflow=False, pure=False)
    after = DeadCodeElimination()(module)
    verify_module(after)
    assert operators(after) == ["If", "log"]


def test_a_nested_function_that_nobody_calls_is_dropped():
    def body(b, x):
        y = b.var("y", tensor(N))
        b.emit_local_function((y,), lambda: b.emit(Exp()(y)))
        return x

    module = graph([("x", tensor(N))], body, dataflow=False)
    assert operators(DeadCodeElimination()(module)) == []


def test_equal_values_are_computed_once():
    def before(b, x):
        return b.emit_output(Add()(b.emit(Exp()(x)), b.emit(Exp()(x))))

    def expected(b, x):
        y = b.emit(Exp()(x))
        return b.emit_output(Add()(y, y))

    check(EliminateCommonSubexpr(), graph(X, before), graph(X, expected))


def test_values_that_differ_only_in_the_sign_of_zero_are_not_merged():
    def body(b, x):
        plus = b.emit(Add()(x, rx.constant([0.0], "float32")))
        minus = b.emit(Add()(x, rx.constant([-0.0], "float32")))
        return b.emit_output(Add()(plus, minus))

    module = graph([("x", tensor(N))], body)
    assert EliminateCommonSubexpr()(module) is module


def test_equal_values_of_which_one_is_changed_later_are_not_merged():
    def body(b, x):
        kept, changed = b.emit(Exp()(x)), b.emit(Exp()(x))
        b.emit(call_packed("update", changed))
        return rx.make_tuple(kept, changed)

    module = graph(X, body, dataflow=False, pure=False)
    assert EliminateCommonSubexpr()(module) is module


def test_impure_calls_are_not_merged():
    def body(b, x):
        del x
        return rx.make_tuple(b.emit(call_packed("random")), b.emit(call_packed("random")))

    module = graph(X, body, dataflow=False, pure=False)
    assert EliminateCommonSubexpr()(module) is module


def test_pure_packed_calls_of_one_function_are_merged():
    def body(b, x):
        first, second = b.emit(call_pure_packed("f", x)), b.emit(call_pure_packed("f", x))
        return b.emit_output(rx.make_tuple(first, second, b.emit(call_pure_packed("g", x))))

    assert operators(EliminateCommonSubexpr()(graph(X, body))) == ["f", "g", "Tuple"]


def test_a_value_from_one_branch_is_not_used_in_the_other():
    def body(b, x, flag):
        value = b.emit_if(flag, lambda: b.emit(Exp()(x)), lambda: b.emit(Exp()(x)))
        return b.emit(Add()(value, b.emit(Exp()(x))))

    params = [*X, ("flag", tensor(dtype="bool"))]
    module = graph(params, body, dataflow=False)
    after = EliminateCommonSubexpr()(module)
    verify_module(after)
    assert operators(after) == ["If", "exp", "exp", "exp", "add"]


def test_a_value_local_to_a_dataflow_block_is_not_used_after_it():
    def body(b, x):
        with b.dataflow():
            first = b.emit_output(Tanh()(b.emit(Exp()(x))))
        with b.dataflow():
            return b.emit_output(Add()(first, b.emit(Exp()(x))))

    module = graph(X, body, dataflow=False)
    after = EliminateCommonSubexpr()(module)
    verify_module(after)
    assert after is module


def test_non_dataflow_form_has_neither_blocks_nor_local_variables():
    def body(b, x):
        return b.emit_output(Tanh()(b.emit(Exp()(x))))

    expected = graph(X, lambda b, x: b.emit(Tanh()(b.emit(Exp()(x)))), dataflow=False)
    check(ToNonDataflow(), graph(X, body), expected)


def test_weaker_annotations_survive_canonicalization():
    def body(b, x):
        return b.emit_output(Exp()(x))

    module = graph(
        [("x", tensor_type(None, FLOAT32, 2)), ("o", ObjectType())], lambda b, x, o: body(b, x)
    )
    function = module["main"]
    weak = replace(function, ret_type=ObjectType(), type=replace_ret(function.type))
    verify_module(module.with_function("main", weak))
    assert Canonicalize()(module.with_function("main", weak))["main"].ret_type is ObjectType()


def replace_ret(kind):
    return type(kind)(kind.params, ObjectType(), kind.pure)


def test_a_copy_that_is_changed_in_place_is_not_dropped_before_it_is_changed():
    def copied(b, x):
        y = b.emit(BroadcastTo()(x, rx.shape_expr(N, M)))
        b.emit(call_packed("bump", y, type_args=(TupleType(()),)))
        return x

    module = graph(X, copied, dataflow=False, pure=False)
    assert operators(Canonicalize()(module)) == ["broadcast_to", "bump"]


def test_reads_before_and_after_a_change_are_not_merged():
    def reads(b, x):
        before = b.emit(Exp()(x))
        again = b.emit(Exp()(x))
        b.emit(call_packed("bump", x, type_args=(TupleType(()),)))
        after = b.emit(Exp()(x))
        return rx.make_tuple(before, again, after)

    module = graph(X, reads, dataflow=False, pure=False)
    merged = Canonicalize()(EliminateCommonSubexpr()(module))
    assert operators(merged) == ["exp", "bump", "exp"]


def test_a_change_in_a_branch_counts():
    def reads(b, x, c):
        before = b.emit(Exp()(x))

        def bump():
            b.emit(call_packed("bump", x, type_args=(TupleType(()),)))
            return x

        b.emit_if(c, bump, lambda: x)
        after = b.emit(Exp()(x))
        return rx.make_tuple(before, after)

    params = [*X, ("c", tensor(dtype="bool"))]
    module = graph(params, reads, dataflow=False, pure=False)
    assert operators(EliminateCommonSubexpr()(module)).count("exp") == 2


def test_an_output_that_is_an_operand_is_that_operand_not_a_copy_of_its_variable():
    place = (Layer("model", "same", "Transpose"),)

    def before(b, x):
        y = b.emit(Exp()(x))
        return b.emit_output(PermuteDims((0, 1))(y, span=place))

    verify_module(Canonicalize()(graph(X, before)))
