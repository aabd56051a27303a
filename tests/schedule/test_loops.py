"""split, fuse, reorder, loop_partition, merge, add_unit_loop: meaning kept, or refused."""

import pytest

from tests.schedule.programs import blur, chain, check, matmul, normalized, row_sum
from transect.ir.expr import Var, as_int
from transect.support.errors import ScheduleError
from transect.tir.schedule import Schedule

SIZES = [{"n": n, "m": m} for n, m in ((1, 1), (3, 17), (16, 8), (33, 5))]


def test_split_exact_leaves_no_predicate() -> None:
    schedule = check(
        lambda: chain(8, 6), lambda s: s.split(s.get_loops(s.get_block("c"))[0], [None, 4])
    )
    assert "T.where" not in repr(schedule.func)


@pytest.mark.parametrize("factors", [[None, 4], [3, None], [2, None, 2], [None, 1, 5]])
def test_split_with_tail_static(factors: list[int | None]) -> None:
    check(lambda: chain(7, 6), lambda s: s.split(s.get_loops(s.get_block("c"))[0], factors))


@pytest.mark.parametrize("factors", [[None, 4], [None, 2, 3]])
def test_split_symbolic(factors: list[int | None]) -> None:
    n, m = Var("n"), Var("m")
    check(lambda: chain(n, m), lambda s: s.split(s.get_loops(s.get_block("b"))[1], factors), *SIZES)


def test_split_with_a_term_as_factor() -> None:
    n, m = Var("n"), Var("m")

    def edit(s: Schedule) -> None:
        s.split(s.get_loops(s.get_block("c"))[0], [None, m + 1])

    check(lambda: chain(n, m), edit, *SIZES)


def test_split_of_a_split_keeps_both_predicates() -> None:
    def edit(s: Schedule) -> None:
        outer, _ = s.split(s.get_loops(s.get_block("c"))[0], [None, 3])
        s.split(outer, [None, 2])

    check(lambda: chain(7, 2), edit)


def test_fuse_and_split_again() -> None:
    n, m = Var("n"), Var("m")

    def edit(s: Schedule) -> None:
        fused = s.fuse(*s.get_loops(s.get_block("c")))
        s.split(fused, [None, 4])

    check(lambda: chain(n, m), edit, *SIZES)


def test_reorder_moves_named_loops_only() -> None:
    def edit(s: Schedule) -> None:
        i, j, k = s.get_loops(s.get_block("y"))
        s.reorder(k, i)
        assert [s.get(loop).var.name for loop in s.get_loops(s.get_block("y"))] == [
            "k0",
            "i1",
            "i0",
        ]
        s.reorder(j, k)

    check(lambda: matmul(3, 4, 5), edit)


def test_loop_partition_covers_every_iteration_once() -> None:
    n, m = Var("n"), Var("m")

    def edit(s: Schedule) -> None:
        i = s.get_loops(s.get_block("c"))[0]
        main, rest = s.loop_partition(i, [n // 4 * 4, None])
        s.split(main, [None, 4])
        assert as_int(s.get(rest).extent) is None

    schedule = check(lambda: chain(n, m), edit, *SIZES)
    assert "T.where" not in repr(schedule.func)
    assert schedule.get_block("c_1")


def test_merge_of_neighbours() -> None:
    def edit(s: Schedule) -> None:
        s.merge(s.get_loops(s.get_block("b"))[0], s.get_loops(s.get_block("c"))[0])
        assert len(s.get_child_blocks(s.get_loops(s.get_block("b"))[0])) == 2

    check(lambda: chain(4, 5), edit)


def test_add_unit_loop() -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("c")
        s.add_unit_loop(block)
        assert len(s.get_loops(block)) == 3

    check(lambda: chain(2, 3), edit)


def test_handles_survive_edits_around_them() -> None:
    s = Schedule(matmul(8, 8, 8))
    block = s.get_block("y")
    i, j, k = s.get_loops(block)
    inner = s.split(j, [None, 4])[1]
    s.reorder(k, i)
    s.unroll(inner)
    assert s.get(k).var.name == "k0"
    assert s.get(block).name == "y"
    assert s.get(inner).kind == "unrolled"


def refusal(func: object, edit: object) -> str:
    s = Schedule(func)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ScheduleError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    assert "here:" in str(caught.value) or "help:" in str(caught.value)
    return str(caught.value)


def test_refuse_gone_handle() -> None:
    def edit(s: Schedule) -> None:
        loop = s.get_loops(s.get_block("c"))[0]
        s.split(loop, [None, 2])
        s.unroll(loop)

    assert "no longer in the program" in refusal(chain(4, 4), edit)


def test_refuse_handle_of_another_schedule() -> None:
    other = Schedule(chain(4, 4))
    loop = other.get_loops(other.get_block("c"))[0]
    assert "is of another schedule" in refusal(chain(4, 4), lambda s: s.unroll(loop))


def test_refuse_unknown_block_names_those_there_are() -> None:
    text = refusal(chain(4, 4), lambda s: s.get_block("x"))
    assert "no block is named 'x'" in text
    assert "the function has: root, b, c" in text


def _loop(name: str, position: int = 0):
    return lambda s: s.get_loops(s.get_block(name))[position]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.split(_loop("c")(s), [None, None]), "leave more than one extent open"),
        (lambda s: s.split(_loop("c")(s), [2, 1]), "which may be fewer than its 4"),
        (lambda s: s.split(_loop("c")(s), [None, 0]), "is not known to be at least 1"),
        (lambda s: s.fuse(_loop("c")(s), _loop("b", 1)(s)), "is not all of its body"),
        (lambda s: s.reorder(_loop("c")(s), _loop("c")(s)), "it is named twice"),
        (lambda s: s.reorder(_loop("c")(s), _loop("b")(s)), "is not perfectly nested in it"),
        (lambda s: s.loop_partition(_loop("c")(s), [5, None]), "may have more than its 4"),
        (lambda s: s.loop_partition(_loop("c")(s), [None, None]), "more than one part open"),
        (lambda s: s.merge(_loop("c")(s), _loop("b")(s)), "does not stand right before it"),
        (lambda s: s.split(s.get_block("c"), [None, 2]), "a loop is needed"),
    ],
)
def test_refusals(edit: object, message: str) -> None:
    assert message in refusal(chain(4, 4), edit)


def test_refuse_merge_of_unequal_ranges() -> None:
    def edit(s: Schedule) -> None:
        s.merge(s.get_loops(s.get_block("b"))[0], s.get_loops(s.get_block("c"))[0])

    assert "not provably that of loop" in refusal(blur(4), edit)


def test_refuse_reshaping_a_parallel_loop() -> None:
    def edit(s: Schedule) -> None:
        loop = s.get_loops(s.get_block("c"))[0]
        s.parallel(loop)
        s.split(loop, [None, 2])

    assert "it is already parallel" in refusal(chain(4, 4), edit)


def test_refuse_fusing_results_with_a_sum_that_may_be_empty() -> None:
    sch = Schedule(matmul(Var("n"), 8, Var("d")))
    _, j, k = sch.get_loops("y")
    with pytest.raises(ScheduleError, match="may have no iteration") as error:
        sch.fuse(j, k)
    assert "decompose_reduction" in str(error.value)


def test_fuse_results_with_a_sum_that_has_terms() -> None:
    sizes = [{"n": n} for n in (0, 1, 5)]
    check(lambda: matmul(Var("n"), 8, 3), lambda s: s.fuse(*s.get_loops("y")[1:]), *sizes)


def test_fuse_results_with_a_sum_that_starts_elsewhere() -> None:
    def edit(s: Schedule) -> None:
        loops = s.get_loops("y")
        s.decompose_reduction("y", loops[0])
        s.fuse(*loops)

    n, d = Var("n"), Var("d")
    check(lambda: matmul(n, 8, d), edit, *({"n": n, "d": d} for n, d in ((2, 0), (0, 3), (3, 4))))


def test_refuse_partition_of_a_reduction() -> None:
    text = refusal(row_sum(4, 6), lambda s: s.loop_partition(_loop("s", 1)(s), [3, None]))
    assert "would be initialised in each part" in text
    assert "decompose_reduction first" in text


def test_refuse_reorder_that_reads_before_writing() -> None:
    # Both blocks under one pair of loops: c of (i, j) needs b of the next column.
    def edit(s: Schedule) -> None:
        b, c = s.get_block("b"), s.get_block("c")
        i, _ = s.get_loops(c)
        s.compute_at(b, i)
        _, j = s.get_loops(c)
        s.reorder(j, i)

    assert "is not perfectly nested" in refusal(chain(4, 4), edit)


def test_a_reduction_is_not_merged_with_what_reads_its_results() -> None:
    s = Schedule(normalized(4, 4))
    with pytest.raises(ScheduleError, match="different iterations may touch the same elements"):
        s.merge(s.get_loops("t")[1], s.get_loops("o")[1])


def test_the_first_term_of_a_sum_stays_first() -> None:
    s = Schedule(row_sum(6, 4))
    outer, inner = s.split(s.fuse(*s.get_loops("s")), [None, 3])
    with pytest.raises(ScheduleError, match="might no longer come first"):
        s.reorder(inner, outer)
