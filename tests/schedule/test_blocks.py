"""Moving, inlining and caching blocks: meaning kept, or refused."""

import pytest

from tests.schedule.programs import blur, chain, check, matmul, normalized, row_sum
from transect.ir.expr import Var
from transect.script import tir as T
from transect.support.errors import ScheduleError
from transect.tir.builder import FunctionBuilder
from transect.tir.builder.statements import store
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

SIZES = [{"n": n, "m": m} for n, m in ((1, 1), (3, 17), (16, 8), (9, 5))]
N, M, D = Var("n"), Var("m"), Var("d")


def loop(s: Schedule, name: str, position: int = 0):
    return s.get_loops(s.get_block(name))[position]


def refusal(func: PrimFunc, edit: object) -> str:
    s = Schedule(func)
    with pytest.raises(ScheduleError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    assert s.get_output_blocks()
    return str(caught.value)


@T.prim_func
def triangle(x: T.Buffer((6, 6), "float32"), y: T.Buffer((6,), "float32")):
    for i in range(6):
        for k in range(i + 1):
            with T.block("s"):
                vi, vk = T.axis.remap("SR", [i, k])
                with T.init():
                    y[vi] = T.float32(0)
                y[vi] = y[vi] + x[vi, vk]


def test_compute_inline() -> None:
    schedule = check(lambda: chain(N, M), lambda s: s.compute_inline(s.get_block("b")), *SIZES)
    assert "alloc_buffer" not in repr(schedule.func)


def test_compute_inline_into_a_stencil() -> None:
    check(lambda: blur(6), lambda s: s.compute_inline(s.get_block("b")))


def test_reverse_compute_inline() -> None:
    schedule = check(
        lambda: chain(N, M), lambda s: s.reverse_compute_inline(s.get_block("c")), *SIZES
    )
    assert "alloc_buffer" not in repr(schedule.func)
    assert schedule.get_block("b")


def test_compute_at_makes_only_what_is_needed() -> None:
    schedule = check(lambda: blur(6), lambda s: s.compute_at(s.get_block("b"), loop(s, "c")))
    assert "for ax0 in range(2)" in repr(schedule.func)


def test_compute_at_of_tiles_with_tails() -> None:
    def edit(s: Schedule) -> None:
        outer, _ = s.split(loop(s, "c"), [None, 4])
        s.compute_at(s.get_block("b"), outer)

    check(lambda: chain(N, M), edit, *SIZES)


def test_compute_at_of_a_reduction() -> None:
    check(lambda: normalized(N, M), lambda s: s.compute_at(s.get_block("t"), loop(s, "o")), *SIZES)


def test_reverse_compute_at_of_tiles_with_tails() -> None:
    def edit(s: Schedule) -> None:
        i, j, k = s.get_loops(s.get_block("y"))
        i0, i1 = s.split(i, [None, 4])
        j0, j1 = s.split(j, [None, 8])
        s.reorder(i0, j0, k, i1, j1)
        s.reverse_compute_at(s.get_block("z"), j0)
        s.decompose_reduction(s.get_block("y"), k)

    sizes = [{"n": 3, "m": 9, "d": 2}, {"n": 8, "m": 16, "d": 5}, {"n": 1, "m": 1, "d": 1}]
    check(lambda: matmul(N, M, D, bias=True), edit, *sizes)


def test_reverse_compute_at_of_a_padded_reduction_over_rows() -> None:
    def largest_squares(n: Var | int, m: Var | int) -> PrimFunc:
        builder = FunctionBuilder("largest_squares")
        x = builder.input("x", (n, m), "float32")
        e = builder.compute((n, m), lambda i, j: x[i, j] * x[i, j], name="e")
        t = builder.reduce((n,), (m,), lambda i, k: e[i, k], combiner="max", name="t")
        return builder.finish([builder.compute((n,), lambda i: t[i] + 1.0, name="o")])

    def edit(s: Schedule) -> None:
        t = s.get_block("t")
        # What is read of a row is cut off at its end, min(k, m - 1): still only of one row.
        s.pad_domain(t, [1, 8])
        s.reverse_compute_at(t, loop(s, "e"))

    check(lambda: largest_squares(N, M), edit, *SIZES)


def test_a_reader_of_a_rolling_buffer_stays_in_its_loop() -> None:
    def edit(s: Schedule) -> None:
        b, c = s.get_block("b"), s.get_block("c")
        s.compute_at(b, loop(s, "c"))
        s.rolling_buffer(b, 0)
        copy = s.reindex(c, ("write", 0))
        s.compute_at(c, s.get_loops(copy)[0])

    assert "writes the same elements of 'b' again" in refusal(blur(7), edit)


def test_register_tile_with_packed_operand() -> None:
    def edit(s: Schedule) -> None:
        y = s.get_block("y")
        copy = s.cache_write(y, 0, "local")
        s.reverse_compute_inline(s.get_block("z"))
        pack = s.reindex_cache_read(y, 1, "global", (2, 1))
        s.pad_domain(pack, [1, 8])
        s.pad_domain(y, [4, 8, 1])
        i, j, k = s.get_loops(y)
        i0, i1 = s.split(i, [None, 4])
        j0, j1 = s.split(j, [None, 8])
        s.reorder(j0, i0, k, i1, j1)
        s.reverse_compute_at(copy, i0)
        s.compute_at(pack, j0)
        s.decompose_reduction(y, k)
        s.vectorize(j1)
        s.unroll(i1)
        s.parallel(j0)

    sizes = [{"n": 3, "m": 9, "d": 2}, {"n": 8, "m": 16, "d": 5}, {"n": 5, "m": 1, "d": 3}]
    check(lambda: matmul(N, M, D, bias=True), edit, *sizes)


def test_pad_domain_of_a_reduction() -> None:
    schedule = check(
        lambda: normalized(N, M), lambda s: s.pad_domain(s.get_block("t"), [1, 4]), *SIZES
    )
    assert "T.Select" in repr(schedule.func)


def test_pad_domain_of_a_sum_from_the_end() -> None:
    """What the padding adds lies before the first element, not behind the last."""

    def backwards() -> PrimFunc:
        builder = FunctionBuilder("backwards")
        x = builder.input("x", (3, 11), "float32")
        y = builder.reduce((3,), (11,), lambda i, k: x[i, 10 - k], name="y")
        return builder.finish([builder.compute((3,), lambda i: y[i] + 1.0, name="z")])

    schedule = check(backwards, lambda s: s.pad_domain(s.get_block("y"), [1, 8]), {})
    assert "T.min" in repr(schedule.func)


def test_rfactor_with_lanes() -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("t")
        s.pad_domain(block, [1, 8])
        _, lane = s.split(loop(s, "t", 1), [None, 8])
        parts = s.rfactor(lane, factor_axis=-1)
        s.vectorize(s.get_loops(parts)[-1])

    check(lambda: normalized(N, M), edit, *SIZES)


def test_rfactor_of_a_sum() -> None:
    def edit(s: Schedule) -> None:
        _, inner = s.split(loop(s, "s", 1), [None, 4])
        s.rfactor(inner)

    check(lambda: row_sum(N, 12), edit, {"n": 5})


def test_rfactor_of_parts_of_any_number() -> None:
    def edit(s: Schedule) -> None:
        s.pad_domain(s.get_block("s"), [1, 4])
        outer, _ = s.split(loop(s, "s", 1), [None, 4])
        parts = s.rfactor(outer)
        assert repr(s.get(parts).writes[0].buffer.shape[0]) == "(m + 3) // 4"

    check(lambda: row_sum(N, M), edit, *SIZES)
    check(lambda: row_sum(N, M), lambda s: s.rfactor(loop(s, "s", 1), 1), *SIZES)


def test_fold_a_sum_in_pairs() -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("s")
        s.fold_reduction(block)
        assert len(s.get_loops(block)) == 1

    schedule = check(lambda: row_sum(N, 5), edit, {"n": 3})
    text = repr(schedule.func)
    assert "T.init()" not in text
    assert "x[v_i0, 0] + x[v_i0, 1] + (x[v_i0, 2] + x[v_i0, 3]) + x[v_i0, 4]" in text, text


def test_fold_partial_results_and_move_them() -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("t")
        s.pad_domain(block, [1, 8])
        _, lane = s.split(loop(s, "t", 1), [None, 8])
        parts = s.rfactor(lane, factor_axis=-1)
        s.compute_at(parts, s.get_loops(block)[0])
        s.fold_reduction(block)

    check(lambda: normalized(N, M), edit, *SIZES)


def test_decompose_at_an_outer_loop() -> None:
    check(
        lambda: row_sum(N, M),
        lambda s: s.decompose_reduction(s.get_block("s"), loop(s, "s")),
        *SIZES,
    )


def test_set_scope_and_storage_align() -> None:
    def edit(s: Schedule) -> None:
        s.set_scope(s.get_block("b"), 0, "shared")
        s.storage_align(s.get_block("b"), 0, 0, 32, 8)
        s.annotate(loop(s, "c"), "hint", 3)
        s.unannotate(loop(s, "c"), "hint")

    schedule = check(lambda: chain(4, 4), edit)
    assert 'scope="shared"' in repr(schedule.func)
    assert schedule.get(schedule.get_block("b")).annotations["buffer_dim_align"] == ((0, 0, 32, 8),)


def two_readers() -> PrimFunc:
    builder = FunctionBuilder("two_readers")
    a = builder.input("a", (4,), "float32")
    b = builder.compute((4,), lambda i: a[i] * 2.0, name="b")
    c = builder.compute((4,), lambda i: b[i] + 1.0, name="c")
    return builder.finish([builder.compute((4,), lambda i: b[i] + c[i], name="d")])


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (chain(4, 4), lambda s: s.compute_inline(s.get_block("c")), "is a parameter"),
        (row_sum(4, 4), lambda s: s.compute_inline(s.get_block("s")), "is 'reduce'"),
        (
            normalized(4, 4),
            lambda s: s.reverse_compute_inline(s.get_block("o")),
            "none of its inputs",
        ),
        (
            matmul(4, 4, 4, bias=True),
            lambda s: s.reverse_compute_inline(s.get_block("z")),
            "iteration variable 'v_k0' is 'reduce'",
        ),
        (blur(4), lambda s: s.reverse_compute_inline(s.get_block("c")), "none of its inputs"),
        (
            blur(4),
            lambda s: s.reverse_compute_at(s.get_block("c"), loop(s, "b")),
            "it needs more of 'b' than one iteration makes",
        ),
        (
            chain(4, 4),
            lambda s: s.compute_at(s.get_block("c"), loop(s, "b")),
            "it writes the parameter 'c'",
        ),
        (
            two_readers(),
            lambda s: s.compute_at(s.get_block("b"), loop(s, "d")),
            "block 'c' reads 'b' outside loop 'i0'",
        ),
        (
            matmul(4, 4, 4, bias=True),
            lambda s: s.reverse_compute_at(s.get_block("z"), loop(s, "y", 2)),
            "loop 'k0' runs over the reduction of block 'y'",
        ),
        (
            chain(4, 4),
            lambda s: s.compute_at(s.get_block("b"), loop(s, "b")),
            "it is under loop 'i0' already",
        ),
        (chain(4, 4), lambda s: s.cache_read(s.get_block("c"), 1, "shared"), "it has no read 1"),
        (chain(4, 4), lambda s: s.cache_write(s.get_block("c"), 1, "local"), "it has no write 1"),
        (
            row_sum(4, 4),
            lambda s: (
                s.decompose_reduction(s.get_block("s"), loop(s, "s", 1)),
                s.cache_write(s.get_block("s"), 0, "local"),
            ),
            "the cache would start without its contents",
        ),
        (
            chain(4, 4),
            lambda s: s.decompose_reduction(s.get_block("c"), loop(s, "c")),
            "it has no init",
        ),
        (
            row_sum(4, 4),
            lambda s: (
                s.reorder(loop(s, "s", 1), loop(s, "s")),
                s.decompose_reduction(s.get_block("s"), loop(s, "s", 1)),
            ),
            "the sum would start anew in each of its iterations",
        ),
        (row_sum(4, 4), lambda s: s.rfactor(loop(s, "s")), "over one reduction variable alone"),
        (triangle, lambda s: s.rfactor(loop(s, "s", 1)), "its extent i + 1 changes with loop 'i'"),
        (
            row_sum(4, 6),
            lambda s: s.rfactor(s.split(loop(s, "s", 1), [None, 4])[1]),
            "split by a factor that divides the extent",
        ),
        (row_sum(4, M), lambda s: s.fold_reduction(s.get_block("s")), "no loop of a constant"),
        (row_sum(4, 65), lambda s: s.fold_reduction(s.get_block("s")), "65 values, more than 64"),
        (chain(4, 4), lambda s: s.fold_reduction(s.get_block("c")), "no reduction of one store"),
        (
            row_sum(4, 4),
            lambda s: (
                s.reorder(loop(s, "s", 1), loop(s, "s")),
                s.fold_reduction(s.get_block("s")),
            ),
            "its reduction loops are not the innermost ones",
        ),
        (
            chain(4, 4),
            lambda s: s.pad_domain(s.get_block("c"), [8, 8]),
            "it writes the parameter 'c', which cannot grow",
        ),
        (chain(4, 4), lambda s: s.pad_domain(s.get_block("b"), [8]), "are not 2 positive numbers"),
        (
            chain(4, 4),
            lambda s: s.set_scope(s.get_block("c"), 0, "local"),
            "which the caller made",
        ),
        (
            chain(4, 4),
            lambda s: s.storage_align(s.get_block("b"), 0, 5, 32, 8),
            "has no dimension 5",
        ),
        (chain(4, 4), lambda s: s.unannotate(loop(s, "c"), "x"), "no annotation 'x'"),
        (
            matmul(4, 4, 4),
            lambda s: s.reindex_cache_read(s.get_block("y"), 1, "global", (1,)),
            "is indexed by other iteration variables",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    assert message in refusal(func, edit)


def test_refusal_points_at_the_block_and_says_what_to_do() -> None:
    text = refusal(chain(4, 4), lambda s: s.compute_inline(s.get_block("c")))
    assert text.startswith("compute_inline: block 'c': ")
    assert 'with T.block("c"' in text
    assert "help: inline producers into their readers; outputs stay" in text


def test_refuse_inlining_what_is_overwritten_before_it_is_read() -> None:
    builder = FunctionBuilder("overwritten")
    a = builder.input("a", (4,), "float32")
    t = builder.allocate((4,), "float32", name="t")
    b = builder.allocate((4,), "float32", name="b")
    c = builder.allocate((4,), "float32", name="c")
    builder.block((4,), lambda i: store(t, (i,), a[i]), name="t1")
    builder.block((4,), lambda i: store(b, (i,), t[i] * 2.0), name="b1")
    builder.block((4,), lambda i: store(t, (i,), a[i] * 5.0), name="t2")
    builder.block((4,), lambda i: store(c, (i,), b[i] + t[i]), name="c1")
    text = refusal(builder.finish([c]), lambda s: s.compute_inline(s.get_block("b1")))
    assert "block 't2' overwrites what it reads before all readers have run" in text
