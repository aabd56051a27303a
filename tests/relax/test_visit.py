"""Walking, rewriting and copying graph functions."""

from tests.relax.programs import assert_same, graph, tensor
from transect.ir.dtype import FLOAT32
from transect.ir.expr import Var, as_expr
from transect.ir.types import ObjectType, tensor_type
from transect.relax import expr as rx
from transect.relax.call import call_packed
from transect.relax.op.binary import Add
from transect.relax.op.elementwise import Exp
from transect.relax.verify import verify_function
from transect.relax.visit import (
    Rewriter,
    bindings,
    bound_vars,
    copy_with_fresh_vars,
    defined_symbols,
    free_symbols,
    free_vars,
    use_counts,
    used_symbols,
)
from transect.support.span import Span

N, M = Var("n"), Var("m")


def sample():
    return graph([("x", tensor(N, M))], lambda b, x: b.emit_output(Add()(b.emit(Exp()(x)), x)))[
        "main"
    ]


def branching():
    def body(b, x, flag):
        def other():
            cast = b.match_cast(b.emit(call_packed("f", x)), tensor(M))
            return b.emit(Exp()(cast))

        return b.emit_if(flag, lambda: b.emit(Exp()(x)), other)

    params = [("x", tensor(N)), ("flag", tensor(dtype="bool"))]
    return graph(params, body, dataflow=False, pure=False)["main"]


def test_a_rewriter_that_changes_nothing_returns_the_same_function():
    for function in (sample(), branching()):
        assert Rewriter().run(function) is function


def test_a_copy_shares_no_variable_with_the_original():
    for function in (sample(), branching()):
        copy = copy_with_fresh_vars(function)
        assert_same(copy, function)
        assert not set(bound_vars(copy)) & set(bound_vars(function))
        assert not set(defined_symbols(copy)) & set(defined_symbols(function))
        assert not free_vars(copy)
        verify_function(copy)


def test_a_copy_can_be_given_its_dimensions():
    copy = copy_with_fresh_vars(sample(), {N: as_expr(2), M: as_expr(3)})
    assert copy.ret_type is tensor(2, 3)
    assert not used_symbols(copy)
    verify_function(copy)


def test_rewriting_an_operand_derives_the_types_after_it_anew():
    class Stack(Rewriter):
        def rewrite_call(self, call):
            return rx.Var("stack", tensor(2, 1, 1)) if isinstance(call.op, Exp) else call

    function = Stack().run(sample())
    assert function.ret_type is tensor(2, N, M)
    assert list(bindings(function))[-1].var.type is tensor(2, N, M)


def test_what_replaces_a_binding_keeps_its_span():
    span = (Span("model.py", 3, 0, 3, 9, "exp(x)"),)

    def body(b, x):
        return b.emit_output(Exp()(x, span=span), span=span)

    class Doubled(Rewriter):
        def rewrite_call(self, call):
            return Add()(call.args[0], call.args[0])

    function = Doubled().run(graph([("x", tensor(N))], body)["main"])
    (binding,) = bindings(function)
    assert binding.span == span
    assert binding.value.span == span


def test_a_type_that_escapes_a_branch_forgets_the_variables_bound_inside():
    function = branching()
    assert function.ret_type is tensor_type(None, FLOAT32, 1)
    assert M in defined_symbols(function)
    assert not free_symbols(function)


def test_uses_are_counted_without_the_place_that_binds():
    function = sample()
    (x,) = function.params
    counts = use_counts(function)
    assert counts[x] == 2
    assert counts[next(bindings(function)).var] == 1


def test_free_variables_are_those_bound_outside():
    outside = rx.Var("outside", ObjectType())
    pair = rx.make_tuple(outside, rx.Var("other", ObjectType()))
    assert [var.name for var in free_vars(pair)] == ["outside", "other"]
