"""The interpreter against numpy, and its lockstep path against its ordered one."""

import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from transect.ir.dtype import HANDLE, INT32, VOID
from transect.ir.expr import (
    LT,
    Broadcast,
    Call,
    Div,
    Expr,
    IntImm,
    Mod,
    Ramp,
    Range,
    Select,
    StringImm,
    Var,
    as_expr,
    const,
    true,
    truncdiv,
    truncmod,
)
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.support.errors import ExecutionError, InputError, InputTypeError
from transect.tir import op
from transect.tir.buffer import Buffer, BufferLoad, BufferRegion, buffer
from transect.tir.builder import ARGMAX, FunctionBuilder, serial, store, when
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter, interpret
from transect.tir.interpreter.host import AnyList
from transect.tir.interpreter.independence import judge
from transect.tir.interpreter.linear import Scope
from transect.tir.schedule import Schedule
from transect.tir.stmt import (
    Allocate,
    AssertStmt,
    Bind,
    Block,
    BlockRealize,
    BufferStore,
    DeclBuffer,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    MatchBufferRegion,
    SeqStmt,
    Stmt,
    While,
    seq,
)
from transect.tir.verify import verify_func

RNG = np.random.default_rng(7)


def both(func: PrimFunc, *inputs: np.ndarray, out: tuple[tuple[int, ...], str]) -> np.ndarray:
    """The output of `func` by both paths, which must agree bit for bit."""
    verify_func(func)
    results = []
    for vectorize in (True, False):
        result = np.zeros(out[0], out[1] if out[1] != "bfloat16" else ml_dtypes.bfloat16)
        interpret(func, *inputs, result, vectorize=vectorize)
        results.append(result)
    assert results[0].tobytes() == results[1].tobytes()
    return results[0]


def flat(body: Callable[..., Stmt], **shapes: tuple[tuple[int, ...], str]) -> PrimFunc:
    """A function without blocks over these buffers."""
    buffers = [buffer(name, shape, dtype) for name, (shape, dtype) in shapes.items()]
    handles = [Var(item.name, "handle") for item in buffers]
    return PrimFunc(tuple(handles), dict(zip(handles, buffers, strict=True)), body(*buffers))


def loop(extent: object, body: Callable[[Var], Stmt], kind: str = "serial", **more: object) -> For:
    stop = as_expr(extent)
    i = Var("i")
    return For(i, IntImm(0), stop, kind, body(i), **more)


def test_matmul_with_symbolic_shapes() -> None:
    n, m, d = Var("n"), Var("m"), Var("d")
    b = FunctionBuilder()
    x, w = b.input("x", (n, d)), b.input("w", (d, m))
    f = b.finish(b.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j]))
    for shape in ((3, 4, 5), (1, 7, 2), (0, 3, 2), (2, 2, 0)):
        a = RNG.standard_normal((shape[0], shape[2])).astype("float32")
        c = RNG.standard_normal((shape[2], shape[1])).astype("float32")
        got = both(f, a, c, out=((shape[0], shape[1]), "float32"))
        if shape[2]:
            np.testing.assert_allclose(got, a @ c, rtol=1e-5, atol=1e-6)


def test_reduction_over_a_long_axis_keeps_the_order() -> None:
    b = FunctionBuilder()
    x = b.input("x", (2, 3000))
    f = b.finish(b.reduce((2,), (3000,), lambda i, k: x[i, k]))
    data = (RNG.standard_normal((2, 3000)) * 100).astype("float32")
    got = both(f, data, out=((2,), "float32"))
    expected = [np.add.accumulate(row)[-1] for row in data]
    assert got.tobytes() == np.array(expected, "float32").tobytes()


@pytest.mark.parametrize("combiner", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "bfloat16"])
def test_combiners(combiner: str, dtype: str) -> None:
    b = FunctionBuilder()
    x = b.input("x", (3, 4, 5), dtype)
    f = b.finish(b.reduce((4,), (3, 5), lambda j, i, k: x[i, j, k], combiner))
    data = (RNG.standard_normal((3, 4, 5)) * 3).astype(
        ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    )
    both(f, data, out=((4,), dtype))


def test_nan_propagates_in_max() -> None:
    b = FunctionBuilder()
    x = b.input("x", (4,))
    f = b.finish(b.reduce((), (4,), lambda k: x[k], "max"))
    assert np.isnan(both(f, np.array([1, np.nan, 3, 2], "float32"), out=((), "float32")))


def test_argmax_takes_the_first() -> None:
    b = FunctionBuilder()
    x = b.input("x", (2, 4))
    f = b.finish(b.reduce_with(ARGMAX, (2,), (4,), lambda i, k: (k, x[i, k])))
    data = np.array([[1, 3, 3, 0], [-np.inf] * 4], "float32")
    index, value = np.zeros(2, "int64"), np.zeros(2, "float32")
    interpret(f, data, index, value)
    assert index.tolist() == [1, 0]
    assert value[0] == 3


def test_integers_wrap_and_divisions_follow_their_kind() -> None:
    values = np.array([-7, -1, 0, 1, 7, 127, -128], "int8")

    def body(x: Buffer, y: Buffer) -> Stmt:
        def row(i: Var) -> Stmt:
            a = x[i]
            results = [a + a, a * a, truncdiv(a, 3), truncmod(a, 3), a // 3, a % 3]
            return seq(*(store(y, (j, i), value) for j, value in enumerate(results)))

        return loop(7, row)

    got = both(flat(body, x=((7,), "int8"), y=((6, 7), "int8")), values, out=((6, 7), "int8"))
    wide = values.astype("int64")
    expected = [
        (wide + wide).astype("int8"),
        (wide * wide).astype("int8"),
        np.trunc(wide / 3),
        np.fmod(wide, 3),
        wide // 3,
        wide % 3,
    ]
    assert np.array_equal(got, np.array(expected, "int8"))


def test_bfloat16_rounds_after_every_operation() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        return loop(4, lambda i: store(y, (i,), x[i] * x[i] + x[i]))

    data = RNG.standard_normal(4).astype(ml_dtypes.bfloat16)
    got = both(flat(body, x=((4,), "bfloat16"), y=((4,), "bfloat16")), data, out=((4,), "bfloat16"))
    product = (data.astype("float32") ** 2).astype(ml_dtypes.bfloat16)
    expected = (product.astype("float32") + data.astype("float32")).astype(ml_dtypes.bfloat16)
    assert np.array_equal(got, expected)


def test_out_of_bounds_names_buffer_and_index() -> None:
    func = flat(
        lambda x, y: loop(5, lambda i: store(y, (i,), x[i + 1])),
        x=((5,), "float32"),
        y=((5,), "float32"),
    )
    for vectorize in (True, False):
        with pytest.raises(ExecutionError, match=r"index 5 of axis 0 of x is outside \[0, 5\)"):
            interpret(func, np.ones(5, "float32"), np.ones(5, "float32"), vectorize=vectorize)


def test_padding_reads_only_inside() -> None:
    b = FunctionBuilder()
    x = b.input("x", (5,))

    def padded(i: Var) -> object:
        inside = (i >= 2) & (i < 7)
        return op.if_then_else(inside, x[i - 2], 0.5)

    got = both(
        b.finish(b.compute((9,), padded)), np.arange(5, dtype="float32"), out=((9,), "float32")
    )
    assert got.tolist() == [0.5, 0.5, 0, 1, 2, 3, 4, 0.5, 0.5]


def test_condition_guards_the_second_operand() -> None:
    b = FunctionBuilder()
    x = b.input("x", (4,), "int64")
    y = b.compute((6,), lambda i: Select((i < 4) & (x[i] > 1), as_expr(1), as_expr(0)))
    got = both(b.finish(y), np.array([0, 2, 5, 1]), out=((6,), "int64"))
    assert got.tolist() == [0, 1, 1, 0, 0, 0]


def test_uninitialised_memory_is_garbage() -> None:
    def body(y: Buffer) -> Stmt:
        t = buffer("t", (4,), "float32")
        u = buffer("u", (4,), "int32")
        return SeqStmt(
            (
                Allocate(t.data, t.dtype, t.shape, {}),
                Allocate(u.data, u.dtype, u.shape, {}),
                store(y, (0,), t[0]),
                store(y, (1,), u[0].astype("float32")),
            )
        )

    got = both(flat(body, y=((2,), "float32")), out=((2,), "float32"))
    assert np.isnan(got[0])
    assert got[1] == np.float32(np.array([0xCDCDCDCD], "uint32").view("int32")[0])


def test_loop_carried_dependence_runs_in_order() -> None:
    func = flat(lambda y: loop(7, lambda i: store(y, (i + 1,), y[i] + 1.0)), y=((8,), "float32"))
    data = np.zeros(8, "float32")
    interpret(func, data)
    assert data.tolist() == list(range(8))


def test_overlapping_store_is_not_taken_for_independent() -> None:
    func = flat(
        lambda y: loop(7, lambda i: store(y, (i // 2,), i.astype("float32"))), y=((4,), "float32")
    )
    assert both(func, out=((4,), "float32")).tolist() == [1, 3, 5, 6]


@pytest.mark.parametrize("kind", ["serial", "parallel", "vectorized", "unrolled"])
def test_imperfect_tiles(kind: str) -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        def inner(io: Var) -> Stmt:
            def element(ii: Var) -> Stmt:
                i = io * 4 + ii
                return when(i < 10, store(y, (i,), x[i] * 2.0))

            return loop(4, element)

        return loop(3, inner, kind)

    data = RNG.standard_normal(10).astype("float32")
    got = both(flat(body, x=((10,), "float32"), y=((10,), "float32")), data, out=((10,), "float32"))
    assert np.array_equal(got, data * 2)


def test_fused_loop() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        return loop(24, lambda f: store(y, (f // 6, f % 6), x[f % 6, f // 6]))

    data = RNG.standard_normal((6, 4)).astype("float32")
    func = flat(body, x=((6, 4), "float32"), y=((4, 6), "float32"))
    assert np.array_equal(both(func, data, out=((4, 6), "float32")), data.T)


def test_triangular_loop() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        return loop(
            5,
            lambda i: seq(
                store(y, (i,), 0.0),
                serial(i + 1, lambda k: store(y, (i,), y[i] + x[k])),
            ),
        )

    data = RNG.standard_normal(5).astype("float32")
    got = both(flat(body, x=((5,), "float32"), y=((5,), "float32")), data, out=((5,), "float32"))
    assert np.array_equal(got, np.add.accumulate(data))


def test_private_accumulator_per_iteration() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        def row(i: Var) -> Stmt:
            t = buffer("t", (1,), "float32")
            return SeqStmt(
                (
                    Allocate(t.data, t.dtype, t.shape, {}),
                    store(t, (0,), 0.0),
                    loop(6, lambda k: store(t, (0,), t[0] + x[i, k])),
                    store(y, (i,), t[0]),
                )
            )

        return loop(5, row, "parallel")

    data = RNG.standard_normal((5, 6)).astype("float32")
    got = both(flat(body, x=((5, 6), "float32"), y=((5,), "float32")), data, out=((5,), "float32"))
    assert np.array_equal(got, np.add.accumulate(data, axis=1)[:, -1])


def test_vectors() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        def block(i: Var) -> Stmt:
            lanes = Ramp(i * 4, IntImm(1), 4)
            value = BufferLoad(x, (lanes,)) * Broadcast(const(3.0, "float32"), 4)
            return BufferStore(
                y, value + BufferLoad(x, (Ramp(i * 4 + 3, IntImm(-1), 4),)), (lanes,)
            )

        return loop(3, block)

    data = RNG.standard_normal(12).astype("float32")
    got = both(flat(body, x=((12,), "float32"), y=((12,), "float32")), data, out=((12,), "float32"))
    assert np.array_equal(got, data * 3 + data.reshape(3, 4)[:, ::-1].reshape(-1))


def test_lane_predicate() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        def block(i: Var) -> Stmt:
            lanes = Ramp(i * 4, IntImm(1), 4)
            mask = Call(op.INTRINSICS["get_active_lane_mask"], (i * 4, IntImm(10)), as_bool(4))
            return BufferStore(y, BufferLoad(x, (lanes,), mask), (lanes,), mask)

        return loop(3, block)

    data = RNG.standard_normal(10).astype("float32")
    got = both(flat(body, x=((10,), "float32"), y=((10,), "float32")), data, out=((10,), "float32"))
    assert np.array_equal(got, data)


def as_bool(lanes: int) -> object:
    return as_expr(True).dtype.with_lanes(lanes)


def test_while_and_bind() -> None:
    def body(y: Buffer) -> Stmt:
        x = Var("x", "int32")
        return While(
            y[0] < const(100, "int32"),
            SeqStmt((Bind(x, y[0] * 2), store(y, (0,), x + const(1, "int32")))),
        )

    func = flat(body, y=((1,), "int32"))
    data = np.zeros(1, "int32")
    interpret(func, data)
    assert data[0] == 127


def test_bound_load_keeps_its_value() -> None:
    def body(y: Buffer) -> Stmt:
        def swap(i: Var) -> Stmt:
            old = Var("old", "float32")
            return SeqStmt((Bind(old, y[i]), store(y, (i,), y[i + 4]), store(y, (i + 4,), old)))

        return loop(4, swap)

    func = flat(body, y=((8,), "float32"))
    data = np.arange(8, dtype="float32")
    interpret(func, data)
    assert data.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_threads_meet_at_a_barrier() -> None:
    def body(x: Buffer, y: Buffer) -> Stmt:
        shared = buffer("shared", (8,), "float32", scope="shared")

        def thread(t: Var) -> Stmt:
            sync = Evaluate(Call(op.INTRINSICS["tvm_storage_sync"], (StringImm("shared"),), VOID))
            return seq(store(shared, (t,), x[t]), sync, store(y, (t,), shared[7 - t]))

        return SeqStmt(
            (
                Allocate(shared.data, shared.dtype, shared.shape, {}),
                loop(8, thread, "thread_binding", thread="threadIdx.x"),
            )
        )

    data = RNG.standard_normal(8).astype("float32")
    func = flat(body, x=((8,), "float32"), y=((8,), "float32"))
    assert np.array_equal(both(func, data, out=((8,), "float32")), data[::-1])


def test_assertion_raises_its_kind_with_values() -> None:
    func = flat(lambda y: AssertStmt(y[0] > 1.0, ("y is ", y[0]), "TypeError"), y=((1,), "float32"))
    with pytest.raises(TypeError, match=r"y is 0.5"):
        interpret(func, np.full(1, 0.5, "float32"))


def test_integer_division_by_zero_is_an_error_where_it_happens() -> None:
    func = flat(
        lambda x, y: loop(4, lambda i: when(x[i] > 0, store(y, (i,), const(12, "int64") // x[i]))),
        x=((4,), "int64"),
        y=((4,), "int64"),
    )
    got = both(func, np.array([1, 0, 3, 4]), out=((4,), "int64"))
    assert got.tolist() == [12, 0, 4, 3]
    bad = flat(
        lambda x, y: loop(4, lambda i: store(y, (i,), const(12, "int64") // x[i])),
        x=((4,), "int64"),
        y=((4,), "int64"),
    )
    for vectorize in (True, False):
        with pytest.raises(ExecutionError, match="division by zero"):
            interpret(bad, np.array([1, 0, 3, 4]), np.zeros(4, "int64"), vectorize=vectorize)


def test_calls_between_functions_and_packed_functions() -> None:
    n = Var("n")
    b = FunctionBuilder("double")
    x = b.input("x", (n,))
    double = b.finish(b.compute((n,), lambda i: x[i] * 2.0))

    def body(a: Buffer, y: Buffer) -> Stmt:
        t = buffer("t", (6,), "float32")
        return SeqStmt(
            (
                Allocate(t.data, t.dtype, t.shape, {}),
                DeclBuffer(t),
                op.call_function("double", a.data, t.data, IntImm(6)),
                op.call_function("double", op.address_of(t[2]), y.data, IntImm(4)),
                Evaluate(op.call_packed("note", IntImm(3))),
            )
        )

    main = flat(body, a=((6,), "float32"), y=((4,), "float32"))
    seen: list[int] = []
    module = IRModule.of(double=double, main=main)
    data, result = np.arange(6, dtype="float32"), np.zeros(4, "float32")
    Interpreter(module, packed={"note": seen.append}).call("main", data, result)
    assert result.tolist() == [8, 12, 16, 20]
    assert seen == [3]


def test_call_extern_by_table() -> None:
    def body(a: Buffer, b: Buffer, c: Buffer) -> Stmt:
        sizes = [const(v, INT32) for v in (101, 111, 111, 2, 4, 3)]
        one, zero = const(1.0, "float32"), const(0.0, "float32")
        lead = [const(v, INT32) for v in (3, 4, 4)]
        args = [*sizes, one, a.data, lead[0], b.data, lead[1], zero, c.data, lead[2]]
        return Evaluate(op.call_extern("cblas_sgemm", *args))

    func = flat(body, a=((2, 3), "float32"), b=((3, 4), "float32"), c=((2, 4), "float32"))
    a, b = (
        RNG.standard_normal((2, 3)).astype("float32"),
        RNG.standard_normal((3, 4)).astype("float32"),
    )
    c = np.full((2, 4), np.nan, "float32")
    interpret(func, a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)
    with pytest.raises(ExecutionError, match="does not know the C function 'nothing'"):
        interpret(
            flat(lambda y: Evaluate(op.call_extern("nothing")), y=((1,), "float32")), a[0, :1]
        )


def test_host_slots() -> None:
    slots = Var("slots", "handle")
    intrinsic = op.INTRINSICS

    def call(name: str, *args: object, dtype: object = VOID) -> Call:
        terms = tuple(StringImm(a) if isinstance(a, str) else as_expr(a) for a in args)
        return Call(intrinsic[name], terms, dtype)

    result = Var("result", "handle")
    body = SeqStmt(
        (
            Bind(slots, call("any_list", const(2, INT32), dtype=slots.dtype)),
            Evaluate(call("alloc_tensor", slots, const(0, INT32), "float32", 2, 3)),
            Evaluate(
                call(
                    "anylist_setitem_call_packed",
                    slots,
                    const(1, INT32),
                    "fill",
                    call("anylist_getitem", slots, const(0, INT32), dtype=slots.dtype),
                )
            ),
            Evaluate(call("anylist_move", result, const(0, INT32), slots, const(1, INT32))),
        )
    )

    def fill(x: np.ndarray) -> np.ndarray:
        x[...] = 4
        return x

    out = AnyList([None])
    interpret(PrimFunc((result,), {}, body), out, packed={"fill": fill})
    assert out.slots[0].shape == (2, 3)
    assert out.slots[0][0, 0] == 4


def test_strided_argument() -> None:
    n, s = Var("n"), Var("s")
    x = buffer("x", (n,), "float32", strides=(s,))
    y = buffer("y", (n,), "float32")
    handles = [Var("x", "handle"), Var("y", "handle")]
    i = Var("i")
    func = PrimFunc(
        tuple(handles),
        dict(zip(handles, (x, y), strict=True)),
        For(i, IntImm(0), n, "serial", store(y, (i,), x[i])),
    )
    data = np.arange(12, dtype="float32")
    result = np.zeros(4, "float32")
    interpret(func, data[1::3], result)
    assert result.tolist() == [1, 4, 7, 10]


def test_output_that_is_not_contiguous_is_written_back() -> None:
    func = flat(lambda y: loop(3, lambda i: store(y, (i,), 1.0)), y=((3,), "float32"))
    data = np.zeros(6, "float32")
    interpret(func, data[::2])
    assert data.tolist() == [1, 0, 1, 0, 1, 0]


def test_arguments_are_checked() -> None:
    n = Var("n")
    b = FunctionBuilder()
    x, w = b.input("x", (n,)), b.input("w", (n,))
    f = b.finish(b.compute((n,), lambda i: x[i] + w[i]))
    one, two = np.ones(2, "float32"), np.ones(3, "float32")
    with pytest.raises(InputError, match="axis 0 of w has 3 elements, expected 2"):
        interpret(f, one, two, one)
    with pytest.raises(InputTypeError, match="x is float32, got an array of float64"):
        interpret(f, one.astype("float64"), one, one)
    with pytest.raises(InputError, match="3 arguments are needed"):
        interpret(f, one)


def test_read_only_memory_is_not_written() -> None:
    func = flat(lambda y: store(y, (0,), 1.0), y=((1,), "float32"))
    data = np.zeros(1, "float32")
    data.flags.writeable = False
    with pytest.raises(ExecutionError, match="read-only"):
        interpret(func, data)


def test_shared_subterms_are_computed_once() -> None:
    b = FunctionBuilder()
    x = b.input("x", (3,))

    def deep(i: Var) -> object:
        value = x[i]
        for _ in range(40):
            value = value * 0.5 + value * 0.5
        return value

    data = np.array([1, 2, 3], "float32")
    started = time.perf_counter()
    assert np.array_equal(both(b.finish(b.compute((3,), deep)), data, out=((3,), "float32")), data)
    assert time.perf_counter() - started < 5


def test_quotients_of_kinds() -> None:
    a, b = IntImm(-7), IntImm(2)
    func = flat(
        lambda y: seq(store(y, (0,), Div(a, b)), store(y, (1,), Mod(a, b))), y=((2,), "int64")
    )
    assert both(func, out=((2,), "int64")).tolist() == [-3, -1]


def test_match_buffer_is_a_view() -> None:
    view = buffer("view", (2, 3), "float32", strides=(Var("s0"), Var("s1")), elem_offset=Var("o"))

    def body(x: Buffer) -> Stmt:
        def tile(i: Var) -> Stmt:
            box = (Range(i * 2, IntImm(2)), Range(IntImm(1), IntImm(3)))
            match = MatchBufferRegion(view, BufferRegion(x, box))
            inner = loop(2, lambda a: loop(3, lambda b: store(view, (a, b), i.astype("float32"))))
            block = Block("tile", (), (), (), inner, match_buffers=(match,))
            return BlockRealize((), true(), block)

        return loop(2, tile)

    func = flat(body, x=((4, 5), "float32"))
    data = np.full((4, 5), -1, "float32")
    interpret(func, data)
    expected = np.full((4, 5), -1, "float32")
    expected[:2, 1:4], expected[2:, 1:4] = 0, 1
    assert np.array_equal(data, expected)


def _matmul() -> PrimFunc:
    n, m, d = Var("n"), Var("m"), Var("d")
    builder = FunctionBuilder("matmul")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (d, m), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    return builder.finish([y])


@pytest.mark.parametrize("vectorize", [True, False])
def test_empty_reduction_gives_the_init_value(vectorize: bool) -> None:
    y = np.full((2, 3), 9, np.float32)
    x, w = np.empty((2, 0), np.float32), np.empty((0, 3), np.float32)
    interpret(_matmul(), x, w, y, vectorize=vectorize)
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("depth", [0, 3, 5])
def test_empty_reduction_of_a_split_loop_gives_the_init_value(vectorize: bool, depth: int) -> None:
    schedule = Schedule(_matmul())
    i, j, k = schedule.get_loops(schedule.get_block("y"))
    outer, inner = schedule.split(k, [None, 4])
    schedule.reorder(outer, i, j, inner)
    x = RNG.integers(-4, 5, (2, depth)).astype(np.float32)
    w = RNG.integers(-4, 5, (depth, 3)).astype(np.float32)
    y = np.full((2, 3), 9, np.float32)
    interpret(schedule.func, x, w, y, vectorize=vectorize)
    np.testing.assert_array_equal(y, x @ w)


@pytest.mark.parametrize("vectorize", [True, False])
def test_ragged_reduction_starts_once(vectorize: bool) -> None:
    """The inner loop of the reduction is empty first, and again at the end."""
    x, y = buffer("x", (3, 4)), buffer("y", (2,))
    v, r, s = (Var(name) for name in ("v", "r", "s"))
    i, a, b = Var("i"), Var("a"), Var("b")
    axes = (
        IterVar(v, Range(as_expr(0), as_expr(2)), "spatial"),
        IterVar(r, Range(as_expr(0), as_expr(3)), "reduce"),
        IterVar(s, Range(as_expr(0), as_expr(4)), "reduce"),
    )
    init, update = store(y, (v,), 0), store(y, (v,), y[v] + x[r, s])
    block = Block("y", axes, (), (), update, init)
    realize = BlockRealize((i, a, b), true(), block)
    inner = For(b, as_expr(0), a * (2 - a) * 4, "serial", realize)
    nest = For(i, as_expr(0), as_expr(2), "serial", For(a, as_expr(0), as_expr(3), "serial", inner))
    data, result = RNG.integers(-4, 5, (3, 4)).astype(np.float32), np.full(2, 9, np.float32)
    handles = (Var("x", HANDLE), Var("y", HANDLE))
    maps = dict(zip(handles, (x, y), strict=True))
    interpret(PrimFunc(handles, maps, nest, {}), data, result, vectorize=vectorize)
    np.testing.assert_array_equal(result, data[1].sum())


def test_predicate_of_lanes_limits_what_a_vector_store_touches() -> None:
    """Rows of 12 by vectors of 8: without the predicate each row would reach into the next."""
    y = buffer("y", (36,))
    i, j = Var("i"), Var("j")
    lanes = Ramp(as_expr(0) + j * 8, as_expr(1), 8)
    index = Ramp(i * 12 + j * 8, as_expr(1), 8)
    value = Broadcast(const(1, "float32"), 8)
    row = BufferStore(y, value, (index,), LT(lanes, Broadcast(as_expr(12), 8)))
    loop = For(i, as_expr(0), as_expr(3), "serial", For(j, as_expr(0), as_expr(2), "serial", row))
    assert judge(loop, Scope()).kind == "independent"
    unlimited = replace(loop, body=replace(loop.body, body=replace(row, predicate=None)))
    assert judge(unlimited, Scope()).kind == "ordered"


def test_offset_by_whole_rows_stays_in_its_column() -> None:
    """Column i of an 8 by 16 matrix: the row of a second store is a constant, not a variable."""
    y = buffer("y", (128,))
    i, row = Var("i"), Var("row")
    every = BufferStore(y, const(1, "float32"), (row * 16 + i,))
    nested = For(row, as_expr(0), as_expr(7), "serial", every)
    last = BufferStore(y, const(2, "float32"), (i + 112,))
    both_stores = SeqStmt((nested, last))
    columns = For(i, as_expr(0), as_expr(16), "serial", both_stores)
    assert judge(columns, Scope()).kind == "independent"
    beside = replace(last, indices=(i + 113,))
    shifted = replace(columns, body=replace(both_stores, stmts=(nested, beside)))
    assert judge(shifted, Scope()).kind == "ordered"


def test_tail_of_a_split_has_one_value_of_its_loop() -> None:
    """Tiles of 4 of 14 elements: the last tile's index holds the number 12, not the loop."""
    y = buffer("y", (16,))
    i, j = Var("i"), Var("j")

    def tile(base: Expr, extent: int) -> For:
        write = BufferStore(y, const(1, "float32"), (base + j,))
        return For(j, as_expr(0), as_expr(extent), "serial", write)

    split = IfThenElse(LT(i, as_expr(3)), tile(i * 4, 4), tile(as_expr(12), 2))
    loop = For(i, as_expr(0), as_expr(4), "serial", split)
    assert judge(loop, Scope()).kind == "independent"
    assert judge(replace(loop, extent=as_expr(5)), Scope()).kind == "ordered"
    overlapping = replace(split, else_case=tile(as_expr(11), 2))
    assert judge(replace(loop, body=overlapping), Scope()).kind == "ordered"


def test_fma_rounds_once() -> None:
    """Sums that rounding in a wider format first would push to a tie, and from there to even."""
    builder = FunctionBuilder("fma")
    a, b, c = (builder.input(name, (2,), "float64") for name in "abc")
    func = builder.finish([builder.compute((2,), lambda i: op.fma(a[i], b[i], c[i]), name="y")])
    one = 1 + 2.0**-52
    x, y, z = np.array([-one, 1e300]), np.array([one, 1e300]), np.array([1.0, 0.0])
    result = both(func, x, y, z, out=((2,), "float64"))
    np.testing.assert_array_equal(result, [-(2.0**-51) - 2.0**-104, np.inf])

    builder = FunctionBuilder("fma")
    a, b, c = (builder.input(name, (1,), "float32") for name in "abc")
    func = builder.finish([builder.compute((1,), lambda i: op.fma(a[i], b[i], c[i]), name="y")])
    x, y, z = (np.array([item], np.float32) for item in (1 + 2.0**-12, 1 + 2.0**-12, 2.0**-90))
    above = 1 + 2.0**-11 + 2.0**-23
    np.testing.assert_array_equal(both(func, x, y, z, out=((1,), "float32")), np.float32(above))


@pytest.mark.parametrize("vectorize", [True, False])
def test_the_first_point_that_fails_is_named(vectorize: bool) -> None:
    x = buffer("x", (2, 3), "int32")
    i, j = Var("i"), Var("j")
    check = AssertStmt(x[i, j] < 9, (x[i, j], " at ", i, ", ", j), "ValueError")
    inner = For(j, as_expr(0), as_expr(3), "serial", check)
    handle = Var("x", HANDLE)
    func = PrimFunc((handle,), {handle: x}, For(i, as_expr(0), as_expr(2), "serial", inner), {})
    data = np.array([[0, 1, 12], [11, 10, 0]], np.int32)
    with pytest.raises(ValueError, match=r"^12 at 0, 2$"):
        interpret(func, data, vectorize=vectorize)
