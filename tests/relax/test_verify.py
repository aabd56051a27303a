"""The verifier refuses what breaks a rule of graph functions, and says where."""

from __future__ import annotations

import pytest

from tests.relax.programs import double, tensor
from transect.ir.dtype import FLOAT32, INT32
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.types import CallableType, ObjectType, TupleType, tensor_type
from transect.relax import expr as rx
from transect.relax.block_builder import make_function
from transect.relax.call import (
    call_packed,
    call_pure_packed,
    call_tir,
    call_tir_inplace,
    global_func,
)
from transect.relax.op.binary import Add
from transect.relax.op.elementwise import Exp
from transect.relax.verify import verify_module
from transect.support.errors import VerifyError
from transect.support.span import Span

N, M = Var("n"), Var("m")
X = rx.Var("x", tensor(N))
SPAN = (Span("model.py", 7, 4, 7, 10, "    exp(x)"),)


def module(*blocks, result=X, params=(X,), pure=True, others=None, **changes):
    body = rx.SeqExpr(tuple(blocks), result, result.type)
    function = replace(make_function(params, body, pure=pure), **changes)
    return IRModule({"main": function, **(others or {})}, {}, {})


def bind(var, value):
    return rx.VarBinding(var, value, SPAN)


def block(*bindings, dataflow=False):
    return rx.BindingBlock(bindings, dataflow)


def var(name, kind=None, *, dataflow=False):
    return rx.Var(name, tensor(N) if kind is None else kind, dataflow)


Y, LOCAL = var("y"), var("local", dataflow=True)
STRANGER = var("stranger")
EXP = Exp()(X)

FAULTS = {
    "undefined variable": (
        module(block(bind(Y, Exp()(STRANGER)))),
        "stranger is not defined",
    ),
    "bound twice": (module(block(bind(Y, EXP), bind(Y, EXP))), "y is bound twice"),
    "dataflow variable outside": (
        module(block(bind(LOCAL, EXP), dataflow=True), block(bind(Y, Exp()(LOCAL)))),
        "local is used outside its dataflow block",
    ),
    "dataflow variable as result": (
        module(block(bind(LOCAL, EXP), dataflow=True), result=LOCAL),
        "local is used outside its dataflow block",
    ),
    "dataflow variable in an ordinary block": (
        module(block(bind(LOCAL, EXP))),
        "the dataflow variable local is outside a dataflow block",
    ),
    "nested call": (module(block(bind(Y, Exp()(EXP)))), "an operand is not a variable"),
    "unbound result": (module(result=EXP), "is not bound to a variable"),
    "effect in a dataflow block": (
        module(block(bind(var("o", ObjectType()), call_packed("f", X)), dataflow=True), pure=False),
        "call_packed may have an effect, but this is a dataflow block",
    ),
    "effect in a pure function": (
        module(block(bind(var("o", ObjectType()), call_packed("f", X)))),
        "the function is declared pure",
    ),
    "a type that cannot be derived": (
        module(block(bind(Y, replace(EXP, type=tensor(N, 4))))),
        "the value claims type",
    ),
    "a variable of another type": (
        module(block(bind(var("y", tensor(N, dtype=INT32)), EXP))),
        "y has type",
    ),
    "undefined dimension": (
        module(block(bind(var("y", tensor(M)), call_pure_packed("f", X, type_args=(tensor(M),))))),
        "uses the symbolic variable m, which nothing defines",
    ),
    "dimension that is not plain": (
        module(params=(var("x", tensor(N * 2)),), result=rx.make_tuple()),
        "uses the symbolic variable n, which nothing defines",
    ),
    "impossible cast": (
        module(block(rx.MatchCast(X, tensor(N, M), var("y", tensor(N, M))))),
        "can never be",
    ),
    "wrong return type": (module(ret_type=tensor(N, 1)), "not the declared"),
    "wrong function type": (module(type=CallableType((), X.type)), "the function's type"),
    "unknown function": (
        module(block(bind(Y, call_tir("nothing", [X], tensor(N))))),
        "the module has no function 'nothing'",
    ),
    "tensor program on another dtype": (
        module(
            block(bind(Y, call_tir("double", [X], tensor(N, dtype=INT32)))),
            others={"double": double(Var("k"))},
        ),
        "the dtype",
    ),
    "tensor program on another rank": (
        module(
            block(bind(Y, call_tir("double", [X], tensor(N, 1)))),
            others={"double": double(Var("k"))},
        ),
        "the rank 1, got 2",
    ),
    "tensor program with too few inputs": (
        module(
            block(bind(Y, call_tir("double", [], tensor(N)))), others={"double": double(Var("k"))}
        ),
        "2 inputs and outputs, got 1",
    ),
    "tensor program on contradicting sizes": (
        module(
            block(bind(Y, call_tir("double", [X], tensor(N + 1)))),
            others={"double": double(Var("k"))},
        ),
        "dimension 0 of buffer y of double",
    ),
    "tensor program on sizes that cannot be compared": (
        module(
            block(bind(Y, call_tir("double", [X], tensor(M)))),
            params=(X, var("other", tensor(M))),
            others={"double": double(Var("k"))},
        ),
        "cannot be proved equal",
    ),
    "overwriting a tensor of another shape": (
        module(
            block(bind(Y, call_tir_inplace("double", [X], (0,), tensor(N + 1)))),
            others={"double": double(Var("k"))},
        ),
        "cannot overwrite input 0",
    ),
    "a reference of another type": (
        module(
            block(bind(Y, rx.Call(global_func("f", CallableType((), X.type)), (), X.type))),
            others={"f": make_function((STRANGER,), rx.SeqExpr((), STRANGER, STRANGER.type))},
        ),
        "referred to as",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault):
    program, message = FAULTS[fault]
    with pytest.raises(VerifyError) as caught:
        verify_module(program)
    assert message in caught.value.message


def test_the_error_shows_the_binding_with_its_neighbours_and_its_source():
    before, after = var("before"), var("after")
    wrong = bind(Y, Exp()(STRANGER))
    program = module(block(bind(before, EXP), wrong, bind(after, EXP)))
    with pytest.raises(VerifyError) as caught:
        verify_module(program)
    assert [note[:2] for note in caught.value.notes] == ["  ", "->", "  "]
    assert caught.value.span == SPAN
    assert "exp(x)" in str(caught.value)


def test_equal_but_differently_written_shapes_are_accepted():
    z = var("z", tensor(N * 2))
    verify_module(module(block(bind(var("y", tensor(N + N)), Add()(z, z))), params=(X, z)))


def test_a_weaker_declared_type_is_accepted():
    weak = var("y", tensor_type(None, FLOAT32, 1))
    verify_module(module(block(bind(weak, EXP)), result=weak))


def test_a_tuple_of_outputs_is_matched_one_by_one():
    kinds = TupleType((tensor(N), tensor(N)))
    pair = block(bind(rx.Var("pair", kinds), call_tir("double", [], kinds)))
    verify_module(module(pair, others={"double": double(Var("k"))}))
    with pytest.raises(VerifyError, match="cannot be proved equal"):
        verify_module(module(pair, others={"double": double(3)}))
