"""Loops: a function that calls itself last, in the interpreter, as a host function, as machine
code."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.build import compiled, elementwise, matmul, tensor
from transect.ir.dtype import FLOAT32, HANDLE, INT64
from transect.ir.expr import EQ, LT, Pointer, Var, as_expr
from transect.ir.types import PrimType
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import call_tir_inplace
from transect.relax.interpret import interpret
from transect.relax.loop import while_loop
from transect.relax.transform.lower_to_host import SIGNATURE, LowerToHost
from transect.relax.transform.plan_memory import PlanMemory
from transect.relax.verify import verify_module
from transect.runtime import Signature
from transect.support.errors import InferenceError, InputError
from transect.tir.buffer import buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter
from transect.tir.interpreter.host import AnyList
from transect.tir.op import if_then_else
from transect.tir.stmt import Allocate, BufferStore, For, While
from transect.tir.visit import walk_stmts

f32 = np.float32
N, D, TIMES = Var("n"), Var("d"), Var("times")


def count_up(i):
    return rx.prim_value(i.type.value + 1)


def below(limit):
    return lambda i, *_: rx.prim_value(LT(i.type.value, limit))


def loop(params, body, state, result=lambda *final: rx.make_tuple(*final[1:])):
    """main(*params, times): `state = body(i, *state)` that many times."""
    b = BlockBuilder()
    variables = [b.var(f"x{number}", kind) for number, kind in enumerate(params)]
    times = b.var("times", PrimType(INT64, TIMES))
    with b.function("main", (*variables, times)):
        final = while_loop(
            b,
            below(TIMES),
            lambda i, *items: (count_up(i), *body(b, variables, i, *items)),
            [rx.prim_value(0), *state(variables)],
        )
        b.emit_func_output(result(*final))
    verify_module(b.module)
    return b.module


def append():
    """x (n, d), then a row of zeros."""
    n, d = Var("n"), Var("d")
    b = FunctionBuilder("append")
    x = b.input("x", (n, d), "float32")
    out = b.compute(
        (n + 1, d), lambda i, j: if_then_else(LT(i, n), x[i, j], as_expr(0.0, FLOAT32)), name="out"
    )
    return b.finish(out).with_attrs(global_symbol=None)


def scale_row():
    """x (n, d) with row `at` doubled, in place."""
    n, d, at = Var("n"), Var("d"), Var("at")
    x = buffer("x", (n, d), FLOAT32)
    handle = Var("x_handle", HANDLE, Pointer(FLOAT32))
    j = Var("j")
    body = For(j, as_expr(0), d, "serial", BufferStore(x, x[at, j] * 2.0, (at, j)))
    return PrimFunc((handle, at), {handle: x}, body, {})


def product():
    """A matrix product and a map in each iteration; what is captured: w and d."""
    kernel = elementwise(lambda v: v * 0.5, rank=2)
    return loop(
        [tensor(N, D), tensor(D, D)],
        lambda b, x, i, y: [b.emit_call_tir(kernel, [b.emit_call_tir(matmul(), [y, x[1]])])],
        lambda x: [x[0]],
    )


def growing():
    """A row more in each iteration, beside a state of fixed size."""
    kernel = elementwise(lambda v: v + 1.0, rank=2)
    return loop(
        [tensor(N, D)],
        lambda b, x, i, y, z: [b.emit_call_tir(append(), [y]), b.emit_call_tir(kernel, [z])],
        lambda x: [x[0], x[0]],
    )


def swapping():
    """Two states of equal size that change places, and two objects that do."""
    kernel = elementwise(lambda v: v + 1.0, rank=2)
    return loop(
        [tensor(N, D), tensor(N, D)],
        lambda b, x, i, y, z, p, q: [
            z,
            b.emit_call_tir(kernel, [y]),
            q,
            b.emit_call_tir(append(), [p]),
        ],
        lambda x: [x[0], x[1], x[0], x[1]],
    )


def in_place():
    """A state of which each iteration changes a row."""

    def body(b, x, i, y):
        callee = b.add_function(scale_row(), "scale_row")
        kind = y.type
        row = b.emit(call_tir_inplace(callee, [y], (0,), kind, [i.type.value % N]))
        return [row]

    return loop([tensor(N, D)], body, lambda x: [x[0]])


def nested():
    """A loop in a loop, as often as the outer one has run."""
    kernel = elementwise(lambda v: v + 1.0, rank=2)

    def body(b, x, i, y):
        inner = while_loop(
            b,
            below(i.type.value),
            lambda j, z: (count_up(j), b.emit_call_tir(kernel, [z])),
            [rx.prim_value(0), y],
        )
        return [inner[1]]

    return loop([tensor(N, D)], body, lambda x: [x[0]])


def branching():
    """A branch inside, one side of which leaves the state as it is."""
    kernel = elementwise(lambda v: v + 1.0, rank=2)

    def body(b, x, i, y):
        even = rx.prim_value(EQ(i.type.value % 2, as_expr(0)))
        return [b.emit_if(even, lambda: b.emit_call_tir(kernel, [y]), lambda: y)]

    return loop([tensor(N, D)], body, lambda x: [x[0]])


PROGRAMS = [product, growing, swapping, in_place, nested, branching]


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize("make", PROGRAMS)
def test_compiled_and_interpreted_loops_agree(make, plan):
    module = make()
    arrays = [
        np.random.rand(3, 4),
        np.random.rand(4, 4) if make is product else np.random.rand(3, 4),
    ]
    params = module["main"].params
    arrays = [array.astype(f32) for array in arrays][: len(params) - 1]
    model = compiled(module, plan=plan)
    for times in (0, 1, 2, 7):
        want = interpret(module, "main", *arrays, times)
        for a, b in zip(want, model(*arrays, times), strict=True):
            np.testing.assert_allclose(np.asarray(b), a, rtol=1e-5)


@pytest.mark.parametrize("make", PROGRAMS)
def test_the_host_function_interpreted_agrees(make):
    module = make()
    arrays = [np.random.rand(4, 4).astype(f32) for _ in module["main"].params[1:]]
    want = interpret(module, "main", *arrays, 3)
    interface = Signature.from_json(LowerToHost()(module)["main"].attrs[SIGNATURE])
    places = [np.empty_like(item) for item in want]
    destinations = [p for p, o in zip(places, interface.outputs, strict=True) if o.kind != "owned"]
    owned = AnyList([None])
    hosted = LowerToHost()(PlanMemory()(module))
    lists = [owned] * (len(destinations) < len(places))
    Interpreter(hosted).call("main", *arrays, 3, *destinations, *lists)
    waiting = iter(owned.slots if len(places) - len(destinations) < 2 else owned.slots[0])
    for place, output, expected in zip(places, interface.outputs, want, strict=True):
        got = next(waiting) if output.kind == "owned" else place
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_state_of_fixed_size_takes_no_memory_in_an_iteration():
    hosted = LowerToHost()(PlanMemory()(product()))
    (inside,) = [s for s in walk_stmts(hosted["loop"].body) if isinstance(s, While)]
    assert not [s for s in walk_stmts(inside.body) if isinstance(s, Allocate)]


@pytest.mark.parametrize("make", [product, growing, swapping])
def test_a_loop_takes_no_stack_and_leaks_nothing(make):
    model = compiled(make())
    arrays = [np.zeros((1, 1), f32) for _ in range(len(make()["main"].params) - 1)]
    times = 1_000_000 if make is product else 3_000
    model(*arrays, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model(*arrays, times)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 8_000


def test_the_interpreter_takes_no_stack():
    module = loop([tensor(N)], lambda b, x, i, y: [y], lambda x: [x[0]])
    got = interpret(module, "main", np.ones(2, f32), 2_000)
    np.testing.assert_array_equal(got[0], np.ones(2, f32))


def test_dimensions_that_change_get_variables_and_others_stay():
    final = growing()["main"].body.body.items
    grown, fixed = (item.type.shape for item in final)
    assert fixed == (N, D)
    assert grown[1] is D
    assert isinstance(grown[0], Var)
    assert grown[0] is not N


def test_a_body_of_the_wrong_number_of_values_is_refused():
    with pytest.raises(InputError, match="gives 1 values, not 2"):
        loop([tensor(N)], lambda b, x, i, y: [], lambda x: [x[0]])


def test_a_body_of_the_wrong_dtype_is_refused():
    wrong = rx.constant(np.zeros(3, np.int32))
    with pytest.raises(InferenceError, match=r"state 1 of loop is .*float32.*int32"):
        loop([tensor(3)], lambda b, x, i, y: [wrong], lambda x: [x[0]])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_random_permutations_of_states(data):
    """What goes where in an iteration is arbitrary: copies, swaps, cycles, new values, objects."""
    count = data.draw(st.integers(1, 4))
    step = elementwise(lambda v: v * 0.5 + 1.0, rank=2)
    ways = [
        (data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(["same", "map", "grow"])))
        for _ in range(count)
    ]

    def body(b, x, i, *items):
        made = {"same": lambda v: v, "map": lambda v: b.emit_call_tir(step, [v])}
        made["grow"] = lambda v: b.emit_call_tir(append(), [v])
        return [made[way](items[source]) for source, way in ways]

    module = loop([tensor(N, D)] * count, body, lambda x: x)
    arrays = [np.random.rand(number + 1, 2).astype(f32) for number in range(count)]
    arrays = [np.random.rand(2, 2).astype(f32) for _ in arrays]
    model = compiled(module)
    for times in (0, 1, 3, 6):
        want = interpret(module, "main", *arrays, times)
        for a, b in zip(want, model(*arrays, times), strict=True):
            np.testing.assert_allclose(np.asarray(b), a, rtol=1e-5)
