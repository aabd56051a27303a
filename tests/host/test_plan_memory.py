"""The memory plan: nothing that is needed is overwritten, and memory is shared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.build import compiled, elementwise, matmul, tensor
from transect.arith import Analyzer
from transect.ir.dtype import BOOL
from transect.ir.expr import Expr, IntImm, Var, as_expr, as_int
from transect.ir.structural import structural_equal
from transect.ir.traverse import substitute
from transect.ir.types import PrimType, TensorType, TupleType
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.op.memory import AllocStorage, AllocTensor
from transect.relax.transform.memory_inplace import may_write_over
from transect.relax.transform.memory_layout import Tenant, lay_out
from transect.relax.transform.plan_memory import PlanMemory
from transect.relax.visit import bindings
from transect.runtime import register_function
from transect.tir.builder import FunctionBuilder

f32 = np.float32
N, M = Var("n"), Var("m")


def analyzer():
    result = Analyzer()
    for var in (N, M):
        result.bind(var, (0, None))
    return result


def number(value: Expr, n: int, m: int) -> int:
    found = as_int(Analyzer().simplify(substitute(value, {N: as_expr(n), M: as_expr(m)})))
    assert found is not None
    return found


sizes = st.one_of(
    st.integers(0, 1000).map(as_expr),
    st.tuples(st.integers(1, 8), st.sampled_from([N, M])).map(lambda p: p[1] * (4 * p[0])),
    st.integers(1, 4).map(lambda k: N * M * k),
    st.integers(1, 99).map(lambda k: N * 4 + k),
)
lifetimes = st.tuples(sizes, st.integers(0, 20), st.integers(0, 10))


@settings(max_examples=60, deadline=None)
@given(st.lists(lifetimes, min_size=1, max_size=12), st.integers(0, 50), st.integers(0, 50))
def test_tensors_needed_together_never_overlap(items, n, m):
    tenants = [Tenant(size, first, first + length) for size, first, length in items]
    layout = lay_out(tenants, analyzer())
    places = [
        (number(offset, n, m), number(offset + tenant.size, n, m), tenant)
        for offset, tenant in zip(layout.offsets, tenants, strict=True)
    ]
    total = number(layout.size, n, m)
    for low, high, tenant in places:
        assert low % 64 == 0
        assert low >= 0
        assert high <= total
        for other_low, other_high, other in places:
            apart = tenant.last < other.first or other.last < tenant.first
            assert other is tenant or apart or high <= other_low or other_high <= low


def test_constant_sizes_are_packed_tightly():
    chain = [Tenant(as_expr(640), time, time + 1) for time in range(10)]
    assert as_int(lay_out(chain, analyzer()).size) == 1280


def test_symbolic_sizes_share_places():
    chain = [Tenant(N * 4, time, time + 1) for time in range(10)]
    assert number(lay_out(chain, analyzer()).size, 16, 0) == 128
    smaller = [Tenant(N * 8, 0, 1), Tenant(N * 4, 2, 3), Tenant(N * 16, 4, 5)]
    assert number(lay_out(smaller, analyzer()).size, 16, 0) == 256
    unrelated = [Tenant(N * 4, 0, 1), Tenant(M * 4, 2, 3)]
    for n, m in ((16, 16), (64, 16), (16, 64)):
        assert number(lay_out(unrelated, analyzer()).size, n, m) == 4 * max(n, m)


def test_padded_sizes_share_the_place_of_larger_ones():
    """No proof says which is larger: 96 channels, or 32 with a border of one."""
    large, padded = N * N * 384, (N + 2) * (N + 2) * 128
    layout = lay_out([Tenant(large, 0, 1), Tenant(padded, 2, 3)], analyzer())
    for n in (1, 2, 3, 56):
        wanted = max(number(large, n, 0), number(padded, n, 0))
        assert number(layout.size, n, 0) == -(-wanted // 64) * 64


def chain_module(length, *, dims=(N,)):
    b = BlockBuilder()
    x = b.var("x", tensor(*dims))
    kernel = elementwise(lambda v: v + 1.0, rank=len(dims))
    with b.function("main", (x,)):
        with b.dataflow():
            y = x
            for _ in range(length - 1):
                y = b.emit_call_tir(kernel, [y])
            y = b.emit_output(b.emit_call_tir(kernel, [y]))
        b.emit_func_output(y)
    return b.finish()


def test_before_and_expected():
    before = chain_module(2)
    b = BlockBuilder()
    x = b.var("x", tensor(N))
    kernel = elementwise(lambda v: v + 1.0)
    with b.function("main", (x,)):
        f = b.add_function(kernel, "kernel")
        size = Analyzer().simplify((N * 4 + 63) // 64 * 64)
        storage = b.emit(AllocStorage()(rx.shape_expr(size)), "storage")
        with b.dataflow():
            alloc = b.emit(AllocTensor()(storage, rx.prim_value(0), rx.shape_expr(N)), "alloc")
            lv = b.emit(special.call_tir_inplace(f, [x, alloc], (1,), tensor(N)))
            lv1 = b.emit(special.call_tir(f, [lv], tensor(N)))
            gv = b.emit_output(lv1)
        b.emit_func_output(gv)
    assert structural_equal(PlanMemory()(before), b.finish(), map_free=True)


def arena_sizes(module):
    return [
        binding.value.args[0].values[0]
        for binding in bindings(module["main"])
        if isinstance(binding.value, rx.Call) and isinstance(binding.value.op, AllocStorage)
    ]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_chain_takes_one_or_two_tensors_whatever_its_length(inplace):
    (size,) = arena_sizes(PlanMemory(inplace=inplace)(chain_module(20)))
    assert number(size, 16, 0) == (64 if inplace else 128)
    (size,) = arena_sizes(PlanMemory(inplace=inplace)(chain_module(20, dims=(16,))))
    assert size is IntImm(64 if inplace else 128)


def test_a_plan_is_left_alone_where_nothing_stays_inside():
    module = chain_module(1)
    assert PlanMemory()(module) is module


def test_which_kernels_may_write_over_an_input():
    def program(body, rank=1):
        b = FunctionBuilder("f")
        n = Var("n")
        x = b.input("x", (n,) * rank, "float32")
        return b.finish(b.compute((n,) * rank, lambda *i: body(x, *i), name="y"))

    assert may_write_over(program(lambda x, i: x[i] * x[i]), 0, 1)
    assert not may_write_over(program(lambda x, i: x[i] + x[0]), 0, 1)
    assert not may_write_over(program(lambda x, i, j: x[j, i], rank=2), 0, 1)
    assert not may_write_over(matmul(), 0, 2)
    noalias = program(lambda x, i: x[i]).with_attrs(**{"tir.noalias": True})
    assert not may_write_over(noalias, 0, 1)
    b = FunctionBuilder("two_steps")
    x = b.input("x", (N,), "float32")
    t = b.compute((N,), lambda i: x[i] + 1.0, name="t")
    y = b.compute((N,), lambda i: t[i] + x[i], name="y")
    assert not may_write_over(b.finish(y), 0, 1)


def test_values_used_later_are_not_overwritten():
    b = BlockBuilder()
    x = b.var("x", tensor(N))
    add = elementwise(lambda u, v: u * 2.0 + v, inputs=2)
    with b.function("main", (x,)):
        first = b.emit_call_tir(elementwise(lambda v: v + 1.0), [x])
        second = b.emit_call_tir(elementwise(lambda v: v * 3.0), [first])
        third = b.emit_call_tir(add, [second, second])
        b.emit_func_output(b.emit_call_tir(add, [third, first]))
    xs = np.arange(5, dtype=f32)
    expected = ((xs + 1) * 3 * 3) * 2 + xs + 1
    np.testing.assert_array_equal(compiled(b)(xs), expected)


def test_branches_and_several_outputs():
    b = BlockBuilder()
    x, c = b.var("x", tensor(N)), b.var("c", PrimType(BOOL))
    d = Var("d")
    f = FunctionBuilder("pair")
    source = f.input("x", (d,), "float32")
    both = (
        f.compute((d,), lambda i: source[i] + 1.0, name="p"),
        f.compute((d,), lambda i: source[i] * 2.0, name="q"),
    )
    pair = f.finish(both).with_attrs(global_symbol=None)
    add = elementwise(lambda u, v: u + v, inputs=2)
    with b.function("main", (x, c)):
        kind = TupleType((tensor(N), tensor(N)))
        ref = b.add_function(pair, "pair")
        outer = b.emit(special.call_tir(ref, [x], kind))

        def then_case():
            inner = b.emit(special.call_tir(ref, [rx.tuple_item(outer, 0)], kind))
            return b.emit_call_tir(
                add, [b.emit(rx.tuple_item(inner, 0)), b.emit(rx.tuple_item(inner, 1))]
            )

        def else_case():
            p = b.emit_call_tir(elementwise(lambda v: v - 5.0), [b.emit(rx.tuple_item(outer, 1))])
            return b.emit_call_tir(elementwise(lambda v: v * 7.0), [p])

        y = b.emit_if(c, then_case, else_case)
        b.emit_func_output(b.emit_call_tir(add, [y, b.emit(rx.tuple_item(outer, 1))]))
    module = b.finish()
    assert len(arena_sizes(PlanMemory()(module))) == 1
    xs = np.arange(4, dtype=f32)
    for plan in (False, True):
        model = compiled(module, plan=plan)
        np.testing.assert_array_equal(model(xs, True), (xs + 2) + (xs + 1) * 2 + xs * 2)
        np.testing.assert_array_equal(model(xs, False), (xs * 2 - 5) * 7 + xs * 2)


def test_tensors_of_late_variables_get_an_arena_after_the_match_cast():
    b = BlockBuilder()
    x = b.var("x", tensor(N))
    kernel = elementwise(lambda v: v + 1.0)
    with b.function("main", (x,)):
        y = b.emit_call_tir(kernel, [x])
        z = b.match_cast(
            b.emit(special.call_pure_packed("test_plan.half", b.emit_call_tir(kernel, [y]))),
            tensor(M),
        )
        for _ in range(4):
            z = b.emit_call_tir(kernel, [z])
        b.emit_func_output(z)
    register_function("test_plan.half", lambda v: v[: v.size // 2], override=True)
    module = b.finish()
    early, late = arena_sizes(PlanMemory()(module))
    assert number(early, 16, 0) == 64
    assert number(late, 0, 16) == 64
    np.testing.assert_array_equal(compiled(module)(np.arange(9, dtype=f32)), np.arange(4) + 6)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_graphs_compute_the_same_with_and_without_a_plan(data):
    b = BlockBuilder()
    x = b.var("x", tensor(N))
    add = elementwise(lambda u, v: u * 2.0 - v, inputs=2)
    one = elementwise(lambda v: v + 1.0)
    with b.function("main", (x,)):
        values = [x]
        for _ in range(data.draw(st.integers(1, 10))):
            pick = st.sampled_from(values[-4:])
            if data.draw(st.booleans()):
                values.append(b.emit_call_tir(add, [data.draw(pick), data.draw(pick)]))
            else:
                values.append(b.emit_call_tir(one, [data.draw(pick)]))
        results = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
        b.emit_func_output(rx.make_tuple(*results))
    module = b.finish()
    xs = np.arange(7, dtype=f32)
    plain, planned = compiled(module, plan=False)(xs), compiled(module)(xs)
    for a, c in zip(plain, planned, strict=True):
        np.testing.assert_array_equal(a, c)


def test_types_of_the_new_operators():
    storage = AllocStorage()(rx.shape_expr(N))
    assert isinstance(storage.type, TensorType)
    made = AllocTensor(dtype="float16")(
        rx.Var("s", storage.type), rx.prim_value(64), rx.shape_expr(M, 2)
    )
    assert made.type is tensor(M, 2, dtype="float16")
    with pytest.raises(TypeError, match="storage must be bytes"):
        AllocTensor()(rx.Var("s", tensor(N)), rx.prim_value(0), rx.shape_expr(M))
