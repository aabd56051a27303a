"""cache_read and cache_write with consumers, cache_inplace, cache_index, read_at, write_at."""

import pytest

from tests.schedule.examples import contraction, gather, loop
from tests.schedule.programs import chain, check, expect, row_sum
from transect.ir.expr import Var
from transect.script import tir as T
from transect.support.errors import ScheduleError
from transect.tir.builder import FunctionBuilder
from transect.tir.builder.statements import store
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

SIZES = [{"n": n, "m": m} for n, m in ((1, 1), (3, 17), (16, 8), (9, 5))]
N, M = Var("n"), Var("m")


def two_readers() -> PrimFunc:
    """c = a + 1, d = a + c."""
    builder = FunctionBuilder("two_readers")
    a = builder.input("a", (4,), "float32")
    c = builder.compute((4,), lambda i: a[i] + 1.0, name="c")
    return builder.finish([builder.compute((4,), lambda i: a[i] + c[i], name="d")])


def divided() -> PrimFunc:
    """c[i, j] = a[i // j], with i // 0 in a domain that a schedule may narrow."""
    builder = FunctionBuilder("divided")
    a = builder.input("a", (4,), "float32")
    return builder.finish([builder.compute((4, 4), lambda i, j: a[i // j], name="c")])


def refusal(func: PrimFunc, edit: object) -> str:
    s = Schedule(func)
    with pytest.raises(ScheduleError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    assert s.func is not None
    return str(caught.value)


@T.prim_func
def all_readers(a: T.Buffer((4,), "float32"), d: T.Buffer((4,), "float32")):
    c = T.alloc_buffer((4,), "float32")
    a_shared = T.alloc_buffer((4,), "float32", scope="shared")
    for ax0 in range(4):
        with T.block("a_shared"):
            v0 = T.axis.remap("S", [ax0])
            T.reads(a[v0])
            T.writes(a_shared[v0])
            a_shared[v0] = a[v0]
    for i0 in range(4):
        with T.block("c"):
            v_i0 = T.axis.remap("S", [i0])
            T.reads(a_shared[v_i0])
            T.writes(c[v_i0])
            c[v_i0] = a_shared[v_i0] + 1.0
    for i0_1 in range(4):
        with T.block("d"):
            v_i0_1 = T.axis.remap("S", [i0_1])
            T.reads(a_shared[v_i0_1], c[v_i0_1])
            T.writes(d[v_i0_1])
            d[v_i0_1] = a_shared[v_i0_1] + c[v_i0_1]


def test_cache_read_serves_all_readers() -> None:
    s = check(two_readers, lambda s: s.cache_read("d", "a", "shared"))
    expect(s.func, all_readers)


def test_cache_read_for_some_readers() -> None:
    s = check(two_readers, lambda s: s.cache_read("d", "a", "shared", ["d"]))
    assert "a[v_i0] + 1.0" in repr(s.func)
    assert "a_shared[v_i0_1] + c[v_i0_1]" in repr(s.func)


def test_cache_read_leaves_readers_of_what_was_there_before() -> None:
    """t is written, read, written again and read again: only the second reader sees the copy."""

    def make() -> PrimFunc:
        builder = FunctionBuilder("rewritten")
        a = builder.input("a", (4,), "float32")
        t = builder.allocate((4,), "float32", name="t")
        b = builder.allocate((4,), "float32", name="b")
        c = builder.allocate((4,), "float32", name="c")
        builder.block((4,), lambda i: store(t, (i,), a[i]), name="t1")
        builder.block((4,), lambda i: store(b, (i,), t[i] * 2.0), name="b1")
        builder.block((4,), lambda i: store(t, (i,), a[i] * 5.0), name="t2")
        builder.block((4,), lambda i: store(c, (i,), b[i] + t[i]), name="c1")
        return builder.finish([c])

    s = check(make, lambda s: s.cache_read("c1", "t", "local"))
    assert "t[i0_1] * 2.0" in repr(s.func) or "t[v_i0_1] * 2.0" in repr(s.func)
    assert "was" not in refusal(make(), lambda s: s.cache_read("c1", "t", "local", ["b1", "c1"]))


@T.prim_func
def cached_for_reader(a: T.Buffer((4, 2), "float32"), c: T.Buffer((4, 2), "float32")):
    b = T.alloc_buffer((4, 2), "float32")
    b_local = T.alloc_buffer((4, 2), "float32", scope="local")
    for i0, i1 in T.grid(4, 2):
        with T.block("b"):
            vi, vj = T.axis.remap("SS", [i0, i1])
            b_local[vi, vj] = a[vi, vj] * 2.0
    for ax0, ax1 in T.grid(4, 2):
        with T.block("b_local"):
            vi, vj = T.axis.remap("SS", [ax0, ax1])
            b[vi, vj] = b_local[vi, vj]
    for i0_1, i1_1 in T.grid(4, 2):
        with T.block("c"):
            vi, vj = T.axis.remap("SS", [i0_1, i1_1])
            c[vi, vj] = b_local[vi, vj] + 1.0


@T.prim_func
def repeated(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32"), n: T.int64):
    for _, i in T.grid(n, 4):
        with T.block("b"):
            vi = T.axis.spatial(4, i)
            b[vi] = a[vi] * 2.0


def test_cache_write_for_a_reader() -> None:
    s = check(lambda: chain(4, 2), lambda s: s.cache_write("b", 0, "local", ["c"]))
    expect(s.func, cached_for_reader)


@T.prim_func
def in_place(x: T.Buffer((4, 6), "float32"), s: T.Buffer((4,), "float32")):
    s_local = T.alloc_buffer((4,), "float32", scope="local")
    for i0_init in range(4):
        with T.block("s_init"):
            vi = T.axis.remap("S", [i0_init])
            T.reads()
            T.writes(s[vi])
            s[vi] = 0.0
    for ax0 in range(4):
        with T.block("s_local"):
            v0 = T.axis.remap("S", [ax0])
            s_local[v0] = s[v0]
    for i0, k0 in T.grid(4, 6):
        with T.block("s"):
            vi, vk = T.axis.remap("SR", [i0, k0])
            T.reads(s_local[vi], x[vi, vk])
            T.writes(s_local[vi])
            s_local[vi] = s_local[vi] + x[vi, vk]
    for ax0_1 in range(4):
        with T.block("s_local_out"):
            v0_1 = T.axis.remap("S", [ax0_1])
            s[v0_1] = s_local[v0_1]


def test_cache_inplace() -> None:
    def edit(s: Schedule) -> None:
        s.decompose_reduction("s", loop(s, "s"))
        copy_in, copy_out = s.cache_inplace("s", 0, "local")
        assert s.get(copy_in).name == "s_local"
        assert s.get(copy_out).name == "s_local_out"

    expect(check(lambda: row_sum(4, 6), edit).func, in_place)
    check(lambda: row_sum(N, M), edit, *SIZES)


@T.prim_func
def indexed(a: T.Buffer((4, 6), "float32"), c: T.Buffer((8, 6), "float32")):
    c_index_0 = T.alloc_buffer((8,), "int64")
    for ax0 in range(8):
        with T.block("c_index_0"):
            v0 = T.axis.remap("S", [ax0])
            T.reads()
            T.writes(c_index_0[v0])
            c_index_0[v0] = v0 // 2
    for i0, i1 in T.grid(8, 6):
        with T.block("c"):
            vi, vj = T.axis.remap("SS", [i0, i1])
            T.reads(a[0:4, 0:6], c_index_0[vi])
            T.writes(c[vi, vj])
            c[vi, vj] = a[c_index_0[vi], (vi + vj) % 6] + a[c_index_0[vi], vj]


def test_cache_index_of_what_is_repeated() -> None:
    expect(check(gather, lambda s: s.cache_index("c", "global", 1)).func, indexed)


def test_cache_index_of_all() -> None:
    s = check(gather, lambda s: s.cache_index("c", "local"))
    assert len(s.get_producers("c")) == 2


@T.prim_func
def read_at_loop(a: T.Buffer((8, 6), "float32"), c: T.Buffer((8, 6), "float32")):
    b = T.alloc_buffer((8, 6), "float32")
    b_shared = T.alloc_buffer((8, 6), "float32", scope="shared")
    for i0, i1 in T.grid(8, 6):
        with T.block("b"):
            vi, vj = T.axis.remap("SS", [i0, i1])
            b[vi, vj] = a[vi, vj] * 2.0
    for i0_1 in range(8):
        for ax1 in range(6):
            with T.block("b_shared"):
                vi, vj = T.axis.remap("SS", [i0_1, ax1])
                T.block_attr({"auto_copy": 1})
                b_shared[vi, vj] = b[vi, vj]
        for i1_1 in range(6):
            with T.block("c"):
                vi, vj = T.axis.remap("SS", [i0_1, i1_1])
                c[vi, vj] = b_shared[vi, vj] + 1.0


def test_read_at() -> None:
    def edit(s: Schedule) -> None:
        assert s.get(s.read_at(loop(s, "c"), "c", "b", "shared")).name == "b_shared"

    expect(check(lambda: chain(8, 6), edit).func, read_at_loop)
    check(lambda: chain(N, M), edit, *SIZES)


@T.prim_func
def write_at_loop(a: T.Buffer((8, 6), "float32"), c: T.Buffer((8, 6), "float32")):
    b = T.alloc_buffer((8, 6), "float32")
    c_local = T.alloc_buffer((8, 6), "float32", scope="local")
    for i0, i1 in T.grid(8, 6):
        with T.block("b"):
            vi, vj = T.axis.remap("SS", [i0, i1])
            b[vi, vj] = a[vi, vj] * 2.0
    for i0_1 in range(8):
        for i1_1 in range(6):
            with T.block("c"):
                vi, vj = T.axis.remap("SS", [i0_1, i1_1])
                c_local[vi, vj] = b[vi, vj] + 1.0
        for ax1 in range(6):
            with T.block("c_local"):
                vi, vj = T.axis.remap("SS", [i0_1, ax1])
                T.block_attr({"auto_copy": 1})
                c[vi, vj] = c_local[vi, vj]


def test_write_at() -> None:
    def edit(s: Schedule) -> None:
        assert s.get(s.write_at(loop(s, "c"), "c", "c", "local")).name == "c_local"

    expect(check(lambda: chain(8, 6), edit).func, write_at_loop)
    check(lambda: chain(N, M), edit, *SIZES)


def test_write_at_of_a_tiled_reduction() -> None:
    def edit(s: Schedule) -> None:
        i, j, k = s.get_loops("y")
        j0, j1 = s.split(j, [None, 4])
        s.reorder(i, j0, k, j1)
        s.write_at(j0, "y", 0, "local")
        s.read_at(k, "y", "w", "local")

    check(contraction, edit, {"n": 3, "m": 9, "d": 2}, {"n": 2, "m": 8, "d": 5})


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (
            two_readers(),
            lambda s: s.cache_read("c", 0, "local", ["root"]),
            "block 'root': it does not read 'a' beside block 'c'",
        ),
        (
            chain(4, 4),
            lambda s: s.cache_read("c", "x", "local"),
            "block 'c' does not read a buffer 'x'",
        ),
        (
            chain(4, 4),
            lambda s: s.cache_write("b", 0, "local", ["b"]),
            "block 'b': it does not just read 'b' after block 'b'",
        ),
        (chain(4, 4), lambda s: s.cache_inplace("c", 0, "local"), "it does not write 'b'"),
        (
            repeated,
            lambda s: s.cache_write("b", 0, "local"),
            "its loops are not known to run over all of its domain",
        ),
        (
            chain(4, 4),
            lambda s: (
                s.loop_partition(s.add_unit_loop(loop(s, "c")), [1, None]),
                s.cache_write("c_1", 0, "local"),
            ),
            "its loops are not known to run over all of its domain",
        ),
        (
            row_sum(4, 4),
            lambda s: (
                s.decompose_reduction("s", loop(s, "s", 1)),
                s.cache_inplace("s", 0, "local"),
            ),
            "block 's_init' of the same nest uses 's' too",
        ),
        (
            divided(),
            lambda s: s.cache_index("c", "local"),
            "may divide by zero where the block does not run",
        ),
        (chain(4, 4), lambda s: s.cache_index("c", "local"), "no index that it computes"),
        (gather(), lambda s: s.cache_index("c", "local", 2), "occurs more than 2 times"),
        (
            chain(4, 4),
            lambda s: s.read_at(loop(s, "b"), "c", 0, "local"),
            "read_at: block 'c': loop 'i0' is not around it",
        ),
        (
            chain(4, 4),
            lambda s: s.write_at(loop(s, "b"), "c", 0, "local"),
            "write_at: block 'c': loop 'i0' is not around it",
        ),
        (
            row_sum(4, 4),
            lambda s: s.write_at(loop(s, "s", 1), "s", 0, "local"),
            "write_at: reverse_compute_at: block 's_local': loop 'k0' runs over the reduction",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    assert message in refusal(func, edit)
