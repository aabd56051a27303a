"""Graph functions as machine code: destinations, objects, control flow, checks."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest

from tests.host.build import compiled, elementwise, matmul, tensor
from transect.ir.dtype import BOOL, INT64
from transect.ir.expr import EQ, Var, as_expr
from transect.ir.function import DIMS
from transect.ir.types import (
    ObjectType,
    PrimType,
    ShapeType,
    TupleType,
    tensor_type,
)
from transect.relax import call as special
from transect.relax import expr as rx
from transect.relax.block_builder import BlockBuilder
from transect.relax.op.manipulate import Reshape
from transect.runtime import register_function
from transect.script import from_source
from transect.support.errors import UnsupportedError

f32 = np.float32


def increment():
    return elementwise(lambda x: x + 1.0)


def doubled():
    return elementwise(lambda x: x * 2.0)


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize(("n", "d", "m"), [(3, 4, 5), (1, 1, 1), (0, 4, 5), (3, 0, 5)])
def test_one_compile_serves_every_size(plan, n, d, m):
    vn, vd, vm = Var("n"), Var("d"), Var("m")
    b = BlockBuilder()
    x, w = b.var("x", tensor(vn, vd)), b.var("w", tensor(vd, vm))
    with b.function("main", (x, w)):
        with b.dataflow():
            product = b.emit_call_tir(matmul(), [x, w])
            more = b.emit_call_tir(elementwise(lambda v: v + 1.0, rank=2), [product])
            result = b.emit_output(b.emit_call_tir(elementwise(lambda v: v * 2.0, rank=2), [more]))
        b.emit_func_output(result)
    model = compiled(b, plan=plan)
    xs, ws = np.random.rand(n, d).astype(f32), np.random.rand(d, m).astype(f32)
    np.testing.assert_allclose(model(xs, ws), (xs @ ws + 1) * 2, rtol=1e-5)


def test_contradicting_shapes_are_refused_at_the_entry():
    vn = Var("n")
    b = BlockBuilder()
    x, y = b.var("x", tensor(vn)), b.var("y", tensor(vn))
    with b.function("main", (x, y)):
        b.emit_func_output(b.emit_call_tir(elementwise(lambda u, v: u + v, inputs=2), [x, y]))
    model = compiled(b)
    with pytest.raises(ValueError, match="'n' is 3"):
        model(np.zeros(3, f32), np.zeros(4, f32))


def test_inputs_constants_and_repeated_results_are_copied():
    vn = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(vn))
    constant = rx.constant(np.array([1, 2, 3], f32))
    with b.function("main", (x,)):
        y = b.emit_call_tir(increment(), [x])
        b.emit_func_output(rx.make_tuple(x, constant, rx.make_tuple(y, y), rx.make_tuple()))
    xs = np.arange(4, dtype=f32)
    same, three, (one, two), nothing = compiled(b)(xs)
    np.testing.assert_array_equal(same, xs)
    np.testing.assert_array_equal(three, [1, 2, 3])
    np.testing.assert_array_equal(one, xs + 1)
    np.testing.assert_array_equal(two, xs + 1)
    assert nothing == ()
    assert not any(
        np.shares_memory(a, c) for a, c in [(same, xs), (one, two), (three, constant.data)]
    )


@pytest.fixture
def recorded():
    """A registered function that keeps what it got and adds 1 to it in place."""
    kept = []

    def keep(x):
        kept.append(x)
        x += 1

    register_function("test_host.keep", keep, override=True)
    return kept


def test_a_packed_function_updates_a_result_and_may_keep_it(recorded):
    vn = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(vn))
    with b.function("main", (x,), pure=False):
        y = b.emit_call_tir(doubled(), [x])
        b.emit(special.call_packed("test_host.keep", y))
        z = b.emit_call_tir(doubled(), [y])
        b.emit_func_output(rx.make_tuple(y, z))
    model = compiled(b)
    for n in (3, 5):
        xs = np.arange(n, dtype=f32)
        y, z = model(xs)
        np.testing.assert_array_equal(y, xs * 2 + 1)
        np.testing.assert_array_equal(z, (xs * 2 + 1) * 2)
    # What it kept is still there, and not memory of a later call.
    np.testing.assert_array_equal(recorded[0], [1, 3, 5])
    np.testing.assert_array_equal(recorded[1], [1, 3, 5, 7, 9])


def test_a_packed_function_updates_an_input(recorded):
    vn = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(vn))
    with b.function("main", (x,), pure=False):
        b.emit(special.call_packed("test_host.keep", x))
        b.emit_func_output(b.emit_call_tir(doubled(), [x]))
    model = compiled(b)
    assert model.signature.parameters[0].mutated
    xs = np.arange(3, dtype=f32)
    np.testing.assert_array_equal(model(xs), [2, 4, 6])
    np.testing.assert_array_equal(xs, [1, 2, 3])
    assert recorded[0].ctypes.data == xs.ctypes.data
    xs.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        model(xs)


def test_an_escaping_input_is_checked_too(recorded):
    del recorded
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n"), 4))
    with b.function("main", (x,), pure=False):
        b.emit(special.call_packed("test_host.keep", x))
        b.emit_func_output(x)
    model = compiled(b)
    with pytest.raises(ValueError, match="x"):
        model(np.zeros((2, 3), f32))
    with pytest.raises((TypeError, ValueError)):
        model.entry(np.zeros((2, 4)), np.zeros((2, 4), f32))
    with pytest.raises((TypeError, ValueError)):
        model.entry(1.0)


def test_constants_reach_packed_functions_as_read_only_copies():
    b = BlockBuilder()
    got = []
    register_function("test_host.constant", got.append, override=True)
    with b.function("main", (), pure=False):
        b.emit(
            special.call_packed("test_host.constant", rx.constant(np.array([[1, 2], [3, 4]], f32)))
        )
        b.emit_func_output(rx.make_tuple())
    assert compiled(b)() == ()
    np.testing.assert_array_equal(got[0], [[1, 2], [3, 4]])
    assert not got[0].flags.writeable


def nonzero_module():
    """Data-dependent: the positive elements of x, plus 1."""
    n, m = Var("n"), Var("m")
    b = BlockBuilder()
    x = b.var("x", tensor(n))
    with b.function("main", (x,)):
        found = b.emit(special.call_pure_packed("test_host.positive", x))
        some = b.match_cast(found, tensor(m))
        first = b.emit_call_tir(increment(), [some])
        second = b.emit_call_tir(increment(), [first])
        b.emit_func_output(
            rx.make_tuple(some, b.emit_call_tir(increment(), [second]), rx.prim_value(m))
        )
    return b


@pytest.mark.parametrize("plan", [False, True])
def test_the_shape_of_a_packed_result_binds_variables(plan):
    register_function("test_host.positive", lambda x: x[x > 0], override=True)
    model = compiled(nonzero_module(), plan=plan)
    for xs in (np.array([1, -1, 2], f32), np.array([-1], f32), np.zeros(0, f32)):
        some, more, m = model(xs)
        np.testing.assert_array_equal(some, xs[xs > 0])
        np.testing.assert_array_equal(more, xs[xs > 0] + 3)
        assert m == (xs > 0).sum()


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda x: x.reshape(1, -1), ValueError, "2 dimensions, expected 1"),
        (lambda x: x.astype(np.float64), TypeError, "dtype float32"),
        (lambda x: 3, TypeError, "not a tensor"),
        (lambda x: None, TypeError, "not a tensor"),
    ],
)
def test_packed_results_are_checked(result, error, message):
    register_function("test_host.positive", result, override=True)
    with pytest.raises(error, match=message):
        compiled(nonzero_module())(np.ones(3, f32))


def test_a_match_cast_compares_computed_dimensions():
    n = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(n))
    with b.function("main", (x,)):
        found = b.emit(special.call_pure_packed("test_host.twice", x))
        b.emit_func_output(b.match_cast(found, tensor(n * 2)))
    register_function("test_host.twice", lambda x: np.tile(x, 2), override=True)
    model = compiled(b)
    np.testing.assert_array_equal(model(np.arange(2, dtype=f32)), [0, 1, 0, 1])
    register_function("test_host.twice", lambda x: np.tile(x, 3), override=True)
    with pytest.raises(ValueError, match="is 6, expected 4"):
        compiled(b)(np.arange(2, dtype=f32))


def test_destination_passing_packed_functions():
    def fill(x, y, z):
        y[...] = x + 1
        z[...] = x.sum()

    register_function("test_host.fill", fill, override=True)
    n = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(n))
    with b.function("main", (x,)):
        both = b.emit(
            special.call_dps_packed("test_host.fill", [x], TupleType((tensor(n), tensor())))
        )
        y = b.emit(rx.tuple_item(both, 0))
        b.emit_func_output(rx.make_tuple(b.emit_call_tir(doubled(), [y]), rx.tuple_item(both, 1)))
    y, z = compiled(b)(np.arange(4, dtype=f32))
    np.testing.assert_array_equal(y, [2, 4, 6, 8])
    assert z == 6
    assert z.shape == ()


def branch_module(condition_type, then_case, else_case):
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n")))
    c = b.var("c", condition_type)
    with b.function("main", (x, c), pure=False):
        result = b.emit_if(c, lambda: then_case(b, x), lambda: else_case(b, x))
        b.emit_func_output(result)
    return b


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize("kind", [tensor_type((), BOOL), PrimType(BOOL)])
def test_branches_compute_into_the_same_place(kind, plan):
    def then_case(b, x):
        return b.emit_call_tir(increment(), [b.emit_call_tir(doubled(), [x])])

    model = compiled(branch_module(kind, then_case, lambda b, x: x), plan=plan)
    xs = np.arange(3, dtype=f32)
    take = np.array if not isinstance(kind, PrimType) else bool
    np.testing.assert_array_equal(model(xs, take(True)), xs * 2 + 1)
    np.testing.assert_array_equal(model(xs, take(False)), xs)


def test_branches_of_tuples_scalars_and_objects():
    register_function("test_host.object", lambda x: ("text", x * 3), override=True)

    def then_case(b, x):
        thing = b.emit(special.call_pure_packed("test_host.object", x))
        return rx.make_tuple(rx.prim_value(as_expr(1)), thing)

    def else_case(b, x):
        y = b.emit_call_tir(increment(), [x])
        thing = b.emit(special.call_pure_packed("test_host.object", y))
        return rx.make_tuple(rx.prim_value(as_expr(2)), thing)

    model = compiled(branch_module(PrimType(BOOL), then_case, else_case))
    xs = np.arange(3, dtype=f32)
    for flag, expected, number in ((True, xs * 3, 1), (False, (xs + 1) * 3, 2)):
        got, (text, value) = model(xs, flag)
        assert (got, text) == (number, "text")
        np.testing.assert_array_equal(value, expected)


def test_recursion_is_native():
    n, k = Var("n"), Var("k")
    b = BlockBuilder()
    x, count = b.var("x", tensor(n)), b.var("count", PrimType(INT64, k))
    ref = b.declare("repeat", (x, count), tensor(n))
    with b.function("repeat", (x, count)):
        done = rx.prim_value(EQ(k, as_expr(0)))

        def more():
            y = b.emit_call_tir(increment(), [x])
            return b.emit(rx.Call(ref, (y, rx.prim_value(k - 1)), tensor(n)))

        b.emit_func_output(b.emit_if(done, lambda: x, more))
    model = compiled(b, "repeat")
    for times in (0, 1, 30):
        np.testing.assert_array_equal(model(np.zeros(3, f32), times), np.full(3, times, f32))


def test_calls_between_graph_functions_pass_objects_and_results(recorded):
    n, m = Var("n"), Var("m")
    b = BlockBuilder()
    y = b.var("y", tensor(n))
    with b.function("helper", (y,), private=True, pure=False):
        b.emit(special.call_packed("test_host.keep", y))
        b.emit_func_output(rx.make_tuple(y, b.emit_call_tir(doubled(), [y]), rx.prim_value(n + 1)))
    x = b.var("x", tensor(m, 1))
    with b.function("main", (x,), pure=False):
        kind = TupleType((tensor(4), tensor(4), PrimType(INT64)))
        start = b.emit_call_tir(increment(), [rx.constant(np.zeros(4, f32))])
        result = b.emit(rx.Call(b.global_func("helper"), (start,), kind))
        b.emit_func_output(result)
    changed, twice, number = compiled(b)(np.zeros((3, 1), f32))
    np.testing.assert_array_equal(changed, np.full(4, 2, f32))
    np.testing.assert_array_equal(twice, np.full(4, 4, f32))
    assert number == 5
    assert len(recorded) == 1


def test_shapes_tuples_strings_and_scalars_as_arguments():
    seen = []

    def look(*args):
        seen.append(args)
        return args[1]

    register_function("test_host.look", look, override=True)
    a, c = Var("a"), Var("c")
    b = BlockBuilder()
    s = b.var("s", ShapeType((a, c), 2))
    t = b.var("t", TupleType((tensor(a), PrimType(INT64))))
    o = b.var("o", ObjectType())
    text = rx.StringValue("hello", ObjectType())
    with b.function("main", (s, t, o), pure=False):
        pair = rx.make_tuple(rx.prim_value(a * c), rx.make_tuple(s, text))
        result = b.emit(
            special.call_packed(
                "test_host.look", text, rx.shape_expr(c, a), pair, rx.tuple_item(t, 0), o,
                rx.prim_value(as_expr(1.5)), type_args=(ShapeType(None, 2),),
            )
        )  # fmt: skip
        b.emit_func_output(rx.make_tuple(result, rx.tuple_item(t, 1)))
    model = compiled(b)
    shape, number = model((2, 3), (np.ones(2, f32), 7), "object")
    assert (tuple(shape), number) == ((3, 2), 7)
    first, dims, (product, (again, word)), array, thing, real = seen[0]
    assert (first, dims, product, again, word, thing, real) == (
        "hello",
        (3, 2),
        6,
        (2, 3),
        "hello",
        "object",
        1.5,
    )
    np.testing.assert_array_equal(array, [1, 1])
    with pytest.raises(ValueError, match="is 3, expected 2"):
        model((2, 3), (np.ones(3, f32), 7), "object")


def test_shapes_from_tensors_and_back():
    p, q = Var("p"), Var("q")
    b = BlockBuilder()
    x = b.var("x", tensor(2, dtype="int64"))
    fill = elementwise(lambda v: v + 1, dtype="int64")
    with b.function("main", (x,)):
        shape = b.emit(special.TensorToShape()(x))
        cast = b.match_cast(shape, ShapeType((p, q), 2))
        back = b.emit(special.ShapeToTensor()(cast))
        b.emit_func_output(rx.make_tuple(b.emit_call_tir(fill, [back]), rx.prim_value(p * q)))
    more, product = compiled(b)(np.array([3, 4]))
    np.testing.assert_array_equal(more, [4, 5])
    assert product == 12


def test_assertions_and_bounds():
    n = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(n))
    with b.function("main", (x,), pure=False, attrs={DIMS: {"n": (1, 8)}}):
        check = special.AssertOp(format="needs an even size")
        b.emit(check(rx.prim_value(EQ(n % 2, as_expr(0)))))
        b.emit_func_output(x)
    model = compiled(b)
    assert model(np.zeros(2, f32)).shape == (2,)
    with pytest.raises(AssertionError, match="needs an even size"):
        model(np.zeros(3, f32))
    for size in (0, 10):
        with pytest.raises(ValueError, match=f"n is {size}, outside of its bounds 1 to 8"):
            model(np.zeros(size, f32))


def test_sizes_that_overflow_are_refused():
    n, m = Var("n"), Var("m")
    b = BlockBuilder()
    s = b.var("s", ShapeType((n, m), 2))
    zeros = rx.constant(np.zeros(0, f32))
    with b.function("main", (s,), pure=False):
        y = b.emit(special.call_dps_packed("test_host.never", [zeros], tensor(n, m)))
        b.emit_func_output(b.emit(special.ShapeOf()(y)))
    register_function("test_host.never", lambda *_: pytest.fail("called"), override=True)
    model = compiled(b)
    for shape in ((1 << 40, 1 << 40), (-1, 4), (1 << 62, 4)):
        with pytest.raises((MemoryError, ValueError)):
            model(shape)


INPLACE = """
from transect.script import tir as T

@T.prim_func(private=True)
def inplace(x: T.Buffer(("n",), "float32")):
    for i in range(n):
        with T.block("x"):
            v = T.axis.remap("S", [i])
            x[v] = x[v] + 1.0
"""


def test_kernels_in_place_write_to_inputs_but_never_to_constants():
    inplace = from_source(INPLACE)
    b = BlockBuilder()
    y = b.var("y", tensor(Var("k")))
    with b.function("helper", (y,), private=True):
        ref = b.add_function(inplace, "inplace")
        b.emit_func_output(b.emit(special.call_tir_inplace(ref, [y], (0,), y.type)))
    x = b.var("x", tensor(Var("n")))
    constant = rx.constant(np.array([1, 2, 3], f32))
    with b.function("main", (x,)):
        z = b.emit(special.call_tir_inplace(ref, [x], (0,), x.type))
        helped = b.emit(rx.Call(b.global_func("helper"), (constant,), tensor(3)))
        own = b.emit(special.call_tir_inplace(ref, [constant], (0,), tensor(3)))
        b.emit_func_output(rx.make_tuple(z, helped, own, constant))
    model = compiled(b)
    assert model.signature.parameters[0].mutated
    for _ in range(2):
        xs = np.arange(4, dtype=f32)
        z, helped, own, same = model(xs)
        np.testing.assert_array_equal(z, [1, 2, 3, 4])
        np.testing.assert_array_equal(xs, z)
        np.testing.assert_array_equal(helped, [2, 3, 4])
        np.testing.assert_array_equal(own, [2, 3, 4])
        np.testing.assert_array_equal(same, [1, 2, 3])


def test_a_closure_is_refused_with_a_remedy():
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n")))
    with b.function("main", (x,), pure=False):
        b.emit(
            special.call_packed(
                "test_host.look",
                b.global_func("other") if "other" in b.module else special.extern("f"),
            )
        )
        b.emit_func_output(x)
    with pytest.raises(UnsupportedError, match="used as a value"):
        compiled(b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "uint8", "bool", "float64"])
def test_dtypes_travel_through(dtype):
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n"), dtype=dtype))
    kernel = elementwise(lambda v: v, dtype=dtype)
    with b.function("main", (x,)):
        b.emit_func_output(b.emit_call_tir(kernel, [b.emit_call_tir(kernel, [x])]))
    xs = np.array([0, 1, 1, 0, 1]).astype(getattr(ml_dtypes, dtype, dtype))
    got = compiled(b)(xs)
    assert got.dtype == xs.dtype
    np.testing.assert_array_equal(got, xs)


def test_unaligned_arrays_are_fine():
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n")))
    with b.function("main", (x,)):
        b.emit_func_output(b.emit_call_tir(increment(), [x]))
    model = compiled(b)
    base = np.arange(40, dtype=f32)
    for start in range(5):
        np.testing.assert_array_equal(model(base[start : start + 33]), base[start : start + 33] + 1)


def test_threads_and_reentrant_callbacks():
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n")))
    with b.function("main", (x,), pure=False):
        y = b.emit_call_tir(increment(), [b.emit_call_tir(increment(), [x])])
        called = b.emit(special.call_packed("test_host.again", y))
        z = b.match_cast(called, tensor(Var("m")))
        b.emit_func_output(b.emit_call_tir(increment(), [b.emit_call_tir(doubled(), [z])]))
    model = compiled(b)
    register_function(
        "test_host.again", lambda y: model(y) if y.size and y[0] < 20 else y, override=True
    )

    def reference(v):
        v = v + 2
        v = reference(v) if v.size and v[0] < 20 else v
        return v * 2 + 1

    failures = []

    def work(seed):
        for n in range(40):
            xs = np.full(n, seed + n, f32)
            got = model(xs)
            if not np.array_equal(got, reference(xs)):
                failures.append((seed, n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_print_writes_to_standard_output(capfd):
    b = BlockBuilder()
    x = b.var("x", tensor(Var("n")))
    with b.function("main", (x,), pure=False):
        y = b.emit_call_tir(increment(), [x])
        b.emit(special.Print(format="got {} of {}")(y, rx.prim_value(as_expr(2))))
        b.emit_func_output(y)
    compiled(b)(np.zeros(2, f32))
    assert "got [1. 1.] of 2" in capfd.readouterr().out


def test_a_view_of_a_new_tensor_is_returned_in_place():
    vn = Var("n")
    b = BlockBuilder()
    x = b.var("x", tensor(vn, 4))
    with b.function("main", (x,)):
        y = b.emit_call_tir(elementwise(lambda v: v + 1.0, rank=2), [x])
        b.emit_func_output(b.emit(Reshape()(y, rx.shape_expr(4, vn))))
    xs = np.arange(20, dtype=f32).reshape(5, 4)
    np.testing.assert_array_equal(compiled(b)(xs), (xs + 1).reshape(4, 5))


@pytest.mark.parametrize("taken", [False, True])
def test_what_a_branch_gives_back_is_a_tensor_of_its_own(recorded, taken):
    vn = Var("n")
    b = BlockBuilder()
    x, c = b.var("x", tensor(vn)), b.var("c", tensor(dtype="bool"))
    with b.function("main", (x, c), pure=False):
        y = b.emit_if(c, lambda: x, lambda: b.emit_call_tir(increment(), [x]))
        b.emit(special.call_packed("test_host.keep", y))
        b.emit_func_output(rx.make_tuple(x, y))
    xs = np.arange(3, dtype=f32)
    same, changed = compiled(b)(xs, np.array(taken))
    np.testing.assert_array_equal(xs, [0, 1, 2])
    np.testing.assert_array_equal(same, [0, 1, 2])
    np.testing.assert_array_equal(changed, np.arange(3) + (1 if taken else 2))
    assert len(recorded) == 1
