"""reindex, reindex_cache_read, reindex_cache_write: copies at iteration variables."""

import pytest

from tests.schedule.expecting import expect, refusal
from tests.schedule.programs import blur, chain, check, matmul, padded, row_sum
from transect.ir.expr import Var
from transect.script import tir as T
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

N, M, D = Var("n"), Var("m"), Var("d")
SIZES = [{"n": n, "m": m, "d": d} for n, m, d in ((1, 1, 1), (3, 17, 4), (16, 8, 5), (9, 5, 7))]


@T.prim_func
def turned(A: T.Buffer((6, 4), "float32"), B: T.Buffer((4, 6), "float32")):
    for i, j in T.grid(4, 6):
        with T.block("B"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vj, vi] * T.float32(2)


def windows(n: int) -> PrimFunc:
    """y[i] = sum of x[2 i + k] w[k], three of them."""
    b = FunctionBuilder("windows")
    x = b.input("x", (2 * n + 1,), "float32")
    w = b.input("w", (3,), "float32")
    return b.finish([b.reduce((n,), (3,), lambda i, k: x[i * 2 + k] * w[k], name="y")])


def test_reindex_a_read() -> None:
    @T.prim_func
    def expected(A: T.Buffer((6, 4), "float32"), B: T.Buffer((4, 6), "float32")):
        A_reindex = T.alloc_buffer((4, 6), "float32")
        for i, j in T.grid(4, 6):
            with T.block("A_reindex"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A[vj, vi])
                T.writes(A_reindex[vi, vj])
                A_reindex[vi, vj] = A[vj, vi]
        for i, j in T.grid(4, 6):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A_reindex[vi, vj])
                T.writes(B[vi, vj])
                B[vi, vj] = A_reindex[vi, vj] * T.float32(2)

    def edit(s: Schedule) -> None:
        copy = s.reindex(s.get_block("B"), ("read", 0))
        assert s.get(copy).name == "A_reindex"

    expect(turned, edit, expected)
    expect(turned, lambda s: s.reindex(s.get_block("B"), "A"), expected)


def test_reindex_makes_a_window_plain() -> None:
    schedule = check(
        lambda: windows(5),
        lambda s: (
            s.reindex(s.get_block("y"), ("read", 0)),
            s.reindex(s.get_block("y"), ("write", 0)),
        ),
    )
    assert "x_reindex[v_i0, v_k0] * w[v_k0]" in repr(schedule.func)


def test_reindex_cache_read_at_a_map() -> None:
    @T.prim_func
    def expected(A: T.Buffer((6, 4), "float32"), B: T.Buffer((4, 6), "float32")):
        A_shared = T.alloc_buffer((2, 4, 4), "float32", scope="shared")
        for j, i in T.grid(6, 4):
            with T.block("A_shared"):
                vj, vi = T.axis.remap("SS", [j, i])
                T.reads(A[vj, vi])
                T.writes(A_shared[vj // 4, vi, vj % 4])
                A_shared[vj // 4, vi, vj % 4] = A[vj, vi]
        for i, j in T.grid(4, 6):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A_shared[vj // 4, vi, vj % 4])
                T.writes(B[vi, vj])
                B[vi, vj] = A_shared[vj // 4, vi, vj % 4] * T.float32(2)

    expect(
        turned,
        lambda s: s.reindex_cache_read(
            s.get_block("B"), 0, "shared", lambda i, j: (j // 4, i, j % 4)
        ),
        expected,
    )


def test_positions_are_short_for_a_map() -> None:
    by_map, by_position = Schedule(turned), Schedule(turned)
    by_map.reindex_cache_read(by_map.get_block("B"), 0, "local", lambda i, j: (j, i))
    by_position.reindex_cache_read(by_position.get_block("B"), 0, "local", (1, 0))
    assert str(by_map.func) == str(by_position.func)


def test_reindex_cache_write() -> None:
    @T.prim_func
    def expected(A: T.Buffer((6, 4), "float32"), B: T.Buffer((4, 6), "float32")):
        B_local = T.alloc_buffer((6, 4), "float32", scope="local")
        for i, j in T.grid(4, 6):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A[vj, vi])
                T.writes(B_local[vj, vi])
                B_local[vj, vi] = A[vj, vi] * T.float32(2)
        for j, i in T.grid(6, 4):
            with T.block("B_local"):
                vj, vi = T.axis.remap("SS", [j, i])
                T.reads(B_local[vj, vi])
                T.writes(B[vi, vj])
                B[vi, vj] = B_local[vj, vi]

    expect(
        turned,
        lambda s: s.reindex_cache_write(s.get_block("B"), 0, "local", lambda i, j: (j, i)),
        expected,
    )


def test_symbolic_sizes_of_a_reduction() -> None:
    def edit(s: Schedule) -> None:
        y = s.get_block("y")
        s.reindex_cache_read(y, 0, "global", lambda i, j, k: (i // 4, k, i % 4))
        s.reindex_cache_read(y, 1, "global", lambda i, j, k: (j // 8, k, j % 8))
        copy = s.reindex_cache_write(y, 0, "global", lambda i, j, k: (j, i))
        i, j = s.get_loops(copy)
        s.reorder(j, i)

    check(lambda: matmul(N, M, D), edit, *SIZES)


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (
            blur(4),
            lambda s: s.reindex(s.get_block("c"), ("read", 0)),
            "it does not read 'b' at one place",
        ),
        (
            chain(4, 4),
            lambda s: s.reindex(s.get_block("c"), ("write", 2)),
            "it has no write 2",
        ),
        (
            matmul(4, 4, 4),
            lambda s: s.reindex_cache_read(s.get_block("y"), 1, "global", lambda i, j, k: (j,)),
            "'w' is indexed by other iteration variables than the map: v_k0",
        ),
        (
            matmul(4, 4, 4),
            lambda s: s.reindex_cache_read(s.get_block("y"), 1, "global", lambda i, j: (i, j)),
            "an index map of 2 indices where there are 3",
        ),
        (
            matmul(4, 4, 4),
            lambda s: s.reindex_cache_read(
                s.get_block("y"), 1, "global", lambda i, j, k: (k, j // 2)
            ),
            "the map is not known to be one to one",
        ),
        (
            matmul(4, 4, 4),
            lambda s: s.reindex_cache_write(
                s.get_block("y"), 0, "local", lambda i, j, k: (i, j, k)
            ),
            "the map uses a reduction variable, along which the result is not finished",
        ),
        (
            row_sum(4, 4),
            lambda s: (
                s.decompose_reduction(s.get_block("s"), s.get_loops(s.get_block("s"))[1]),
                s.reindex_cache_write(s.get_block("s"), 0, "local", lambda i, k: (i,)),
            ),
            "the cache would start without its contents",
        ),
        (
            padded(4, 4),
            lambda s: s.reindex(s.get_block("p"), ("read", 0)),
            "it reads 'a' at v_i0 - 1 under a condition, and without it that may be outside",
        ),
        (
            chain(9, 4),
            lambda s: (
                s.loop_partition(
                    s.split(s.get_loops(s.get_block("c"))[0], [None, 2])[0], [None, 1]
                ),
                s.reindex(s.get_block("c"), ("write", 0)),
            ),
            "its loops are not known to run over all of its domain",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    text = refusal(func, edit)  # pyright: ignore[reportArgumentType]
    assert message in text
    assert "here:\n" in text
