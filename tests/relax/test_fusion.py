"""Which calls may be fused, and the fused programs."""

import numpy as np
import pytest

from tests.relax.programs import graph, operators, tensor
from transect.ir.expr import Var
from transect.ir.types import ShapeType
from transect.relax import expr as rx
from transect.relax.call import call_packed
from transect.relax.interpret import interpret
from transect.relax.op.binary import Add, Multiply
from transect.relax.op.elementwise import Exp, Tanh
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.manipulate import BroadcastTo, PermuteDims, Reshape
from transect.relax.op.nn_activation import Softmax
from transect.relax.op.reduce import Sum
from transect.relax.transform.fuse_tir import FuseOps, FuseTIR
from transect.relax.transform.fusion import FusionGroup, fusion_candidates, fusion_groups
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.verify import verify_module
from transect.support.errors import InputError
from transect.tir.analysis import PatternKind
from transect.tir.function import SCHEDULED, PrimFunc
from transect.tir.verify import verify_func

N, M, K = Var("n"), Var("m"), Var("k")
RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def fused(params, body, *arrays, **options):
    """The module after fusion, checked to compute what it computed before."""
    before = LegalizeOps()(graph(params, body, **options))
    after = FuseOps()(before)
    verify_module(after)
    for function in after.functions.values():
        if isinstance(function, PrimFunc):
            verify_func(function)
    expected, result = interpret(before, "main", *arrays), interpret(after, "main", *arrays)
    np.testing.assert_allclose(np.asarray(result), np.asarray(expected), rtol=1e-5)
    assert operators(FuseOps()(after)) == operators(after), "a second run finds nothing more"
    return after


def test_a_chain_of_element_by_element_operators_is_one_program():
    after = fused(
        [("x", tensor(N))], lambda b, x: b.emit_output(Tanh()(Exp()(Add()(x, x)))), array(5)
    )
    assert operators(after) == ["fused_add_exp_tanh"]
    assert list(after) == ["main", "fused_add_exp_tanh"]


def test_an_epilogue_joins_its_contraction():
    def body(b, x, w, bias):
        return b.emit_output(Tanh()(Add()(Matmul()(x, w), bias)))

    params = [("x", tensor(N, K)), ("w", tensor(K, M)), ("bias", tensor(M))]
    after = fused(params, body, array(2, 3), array(3, 4), array(4))
    assert operators(after) == ["fused_matmul_add_tanh"]


def test_a_program_that_its_author_scheduled_is_not_fused():
    before = LegalizeOps()(
        graph([("x", tensor(N))], lambda b, x: b.emit_output(Tanh()(Exp()(Add()(x, x)))))
    )
    exp = before["exp"]
    assert isinstance(exp, PrimFunc)
    after = FuseOps()(before.with_function("exp", exp.with_attrs(**{SCHEDULED: True})))
    assert operators(after) == ["add", "exp", "tanh"]


def test_what_is_computed_before_a_contraction_stays_outside():
    def body(b, x, w):
        return b.emit_output(Matmul()(Exp()(x), w))

    after = fused([("x", tensor(N, K)), ("w", tensor(K, M))], body, array(2, 3), array(3, 4))
    assert operators(after) == ["exp", "matmul"]


def test_two_contractions_are_never_one_program():
    def body(b, x, w):
        return b.emit_output(Exp()(Matmul()(Tanh()(Matmul()(x, w)), w)))

    after = fused([("x", tensor(N, N)), ("w", tensor(N, N))], body, array(3, 3), array(3, 3))
    assert operators(after) == ["fused_matmul_tanh", "fused_matmul_exp"]


def test_two_contractions_that_meet_are_not_joined():
    def body(b, x, w):
        return b.emit_output(Add()(Matmul()(x, w), Matmul()(w, x)))

    after = fused([("x", tensor(N, N)), ("w", tensor(N, N))], body, array(3, 3), array(3, 3))
    assert sorted(operators(after)) == ["fused_matmul_add", "matmul"]


def test_what_feeds_a_reduction_joins_it_and_what_follows_does_not():
    def body(b, x):
        return b.emit_output(Exp()(Sum(axis=(1,))(Exp()(x))))

    after = fused([("x", tensor(N, M))], body, array(2, 3))
    assert operators(after) == ["fused_exp_sum", "exp_1"]


def test_a_transposition_after_a_contraction_stays_outside():
    def body(b, x, w):
        return b.emit_output(PermuteDims()(Matmul()(x, w)))

    after = fused([("x", tensor(N, K)), ("w", tensor(K, M))], body, array(2, 3), array(3, 4))
    assert operators(after) == ["matmul", "permute_dims"]


def test_a_broadcast_of_a_contraction_is_no_epilogue():
    def body(b, x, w):
        y = b.emit(Matmul()(x, w))
        z = b.emit(Tanh()(y))
        return b.emit_output(BroadcastTo()(z, rx.shape_expr(4, N, M)))

    after = fused([("x", tensor(N, K)), ("w", tensor(K, M))], body, array(2, 3), array(3, 4))
    assert operators(after) == ["fused_matmul_tanh", "broadcast_to"]


def test_ways_that_part_and_meet_again_are_one_program():
    def body(b, x):
        y = b.emit(Exp()(x))
        return b.emit_output(Add()(b.emit(Tanh()(y)), b.emit(Multiply()(y, y))))

    after = fused([("x", tensor(N))], body, array(4))
    assert operators(after) == ["fused_exp_tanh_multiply_add"]


def test_a_value_that_is_used_outside_is_not_swallowed():
    def body(b, x):
        y = b.emit_output(Exp()(x))
        z = b.emit_output(Tanh()(y))
        return rx.make_tuple(y, z)

    after = fused([("x", tensor(N))], body, array(4))
    assert operators(after) == ["exp", "tanh"]


def test_no_computation_moves_across_an_impure_call():
    def body(b, x):
        with b.dataflow():
            y = b.emit_output(Exp()(x))
        b.emit(call_packed("update", y))
        with b.dataflow():
            return b.emit_output(Tanh()(b.emit(Exp()(y))))

    module = LegalizeOps()(graph([("x", tensor(N))], body, dataflow=False, pure=False))
    after = FuseOps()(module)
    verify_module(after)
    assert operators(after) == ["exp", "update", "fused_exp_tanh"]


def test_a_view_between_two_programs_is_computed_inside():
    def body(b, x):
        flat = b.emit(Reshape()(Exp()(x), rx.shape_expr(N * M)))
        return b.emit_output(Tanh()(flat))

    after = fused([("x", tensor(N, M))], body, array(2, 3))
    assert operators(after) == ["fused_exp_reshape_tanh"]


def test_a_softmax_is_left_whole():
    after = fused(
        [("x", tensor(N, M))], lambda b, x: b.emit_output(Softmax()(Exp()(x))), array(2, 3)
    )
    assert operators(after)[-1].endswith("softmax")


def test_operands_used_twice_are_passed_once():
    def body(b, x, y):
        return b.emit_output(Add()(b.emit(Multiply()(x, y)), b.emit(Exp()(x))))

    after = fused([("x", tensor(N)), ("y", tensor(N))], body, array(4), array(4))
    (call,) = [b.value for block in after["main"].body.blocks for b in block.bindings]
    assert len(call.args[1].items) == 2


def test_dimensions_that_no_input_has_alone_become_scalars():
    def body(b, x, s):
        big = b.emit(BroadcastTo()(x, s))
        return b.emit_output(Exp()(big))

    shape = ShapeType((N, M), 2)
    module = LegalizeOps()(
        graph([("x", tensor(1)), ("s", shape)], lambda b, x, s: body(b, x, rx.shape_expr(N, M)))
    )
    after = FuseOps()(module)
    verify_module(after)
    assert operators(after) == ["fused_broadcast_to_exp"]
    x = array(1)
    np.testing.assert_allclose(
        interpret(after, "main", x, (2, 3)), np.exp(np.broadcast_to(x, (2, 3))), rtol=1e-6
    )


def test_candidates_say_what_joins_on_the_way():
    def body(b, x):
        y = b.emit(Exp()(x), "y")
        z = b.emit(Tanh()(y), "z")
        return b.emit_output(Add()(y, z), "w")

    module = LegalizeOps()(graph([("x", tensor(N))], body))
    edges = fusion_candidates(module["main"], module)
    named = [(e.producer.name, e.consumer.name, [v.name for v in e.through]) for e in edges]
    assert named == [("y", "w", ["z"]), ("z", "w", [])]
    assert edges[0].producer_kind is PatternKind.ELEMENTWISE


def test_only_the_chosen_edges_are_fused():
    module = LegalizeOps()(
        graph([("x", tensor(N))], lambda b, x: b.emit_output(Tanh()(Exp()(Tanh()(x)))))
    )
    function = module["main"]
    edges = fusion_candidates(function, module)
    groups = fusion_groups("main", function, module, edges[1:])
    after = FuseTIR(tuple(groups))(module)
    verify_module(after)
    assert operators(after) == ["tanh", "fused_exp_tanh"]


def test_a_group_that_is_not_there_is_refused():
    module = LegalizeOps()(graph([("x", tensor(N))], lambda b, x: b.emit_output(Exp()(x))))
    group = FusionGroup("main", (rx.Var("nothing", tensor(N)),))
    with pytest.raises(InputError, match="nothing"):
        FuseTIR((group,))(module)


@pytest.mark.parametrize("value", [2.5, -0.0, float("inf"), float("-inf")])
def test_constants_of_rank_0_become_part_of_the_program(value):
    def body(b, x):
        return b.emit_output(Exp()(Multiply()(x, rx.constant(np.float32(value)))))

    after = fused([("x", tensor(N))], body, np.array([1.5, -2.0], np.float32))
    program = after["fused_multiply_exp"]
    assert len(program.buffers) == 2
