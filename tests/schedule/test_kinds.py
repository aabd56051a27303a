"""parallel, vectorize, unroll, bind: only where iterations are independent."""

import pytest

from tests.schedule.programs import blur, chain, check, matmul, normalized, row_sum
from transect.ir.expr import Var
from transect.support.errors import ScheduleError
from transect.tir.schedule import Schedule


def loop(s: Schedule, name: str, position: int = 0):
    return s.get_loops(s.get_block(name))[position]


def test_parallel_of_spatial_loops() -> None:
    n, m = Var("n"), Var("m")
    schedule = check(
        lambda: chain(n, m), lambda s: s.parallel(loop(s, "c")), {"n": 3, "m": 4}, {"n": 0, "m": 4}
    )
    assert "T.parallel(n)" in repr(schedule.func)


def test_parallel_of_fused_rows_of_several_blocks() -> None:
    def edit(s: Schedule) -> None:
        row = loop(s, "o")
        s.compute_at(s.get_block("t"), row)
        s.parallel(row)

    check(lambda: normalized(5, 7), edit)


def test_parallel_of_fused_and_split_reduction() -> None:
    n, m = Var("n"), Var("m")

    def edit(s: Schedule) -> None:
        i, j, _ = s.get_loops(s.get_block("y"))
        outer, inner = s.split(s.fuse(i, j), [None, 4])
        s.parallel(outer)
        s.vectorize(inner)

    check(lambda: matmul(n, m, 3), edit, {"n": 3, "m": 5})


def test_vectorize_and_unroll() -> None:
    def edit(s: Schedule) -> None:
        _, inner = s.split(loop(s, "c", 1), [None, 4])
        s.vectorize(inner)
        s.unroll(loop(s, "b"))

    check(lambda: chain(3, 10), edit)


def test_bind() -> None:
    def edit(s: Schedule) -> None:
        s.bind(loop(s, "c"), "blockIdx.x")
        s.bind(loop(s, "c", 1), "threadIdx.x")

    check(lambda: chain(3, 4), edit)


def refusal(func: object, edit: object) -> str:
    s = Schedule(func)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ScheduleError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    return str(caught.value)


@pytest.mark.parametrize("kind", ["parallel", "vectorize", "bind"])
def test_refuse_reduction_loops(kind: str) -> None:
    def edit(s: Schedule) -> None:
        k = loop(s, "s", 1)
        s.bind(k, "threadIdx.x") if kind == "bind" else getattr(s, kind)(k)

    text = refusal(row_sum(4, 6), edit)
    assert "block 's' accumulates over it: its iteration variable is 'reduce'" in text
    assert "rfactor" in text
    assert "for k0 in range(6)" in text


def test_refuse_parallel_over_a_shared_intermediate() -> None:
    # Iteration i of the loop writes b[i] and reads b[i + 1], which iteration i + 1 writes.
    def edit(s: Schedule) -> None:
        b, c = loop(s, "b"), loop(s, "c")
        first, _ = s.loop_partition(b, [4, 1])
        del first, c

    s = Schedule(blur(4))
    edit(s)
    with pytest.raises(ScheduleError, match="does not stand right before it"):
        s.merge(loop(s, "b"), loop(s, "c"))


def test_refuse_merge_that_would_read_too_early() -> None:
    from_blur = Schedule(blur(4))
    first, rest = from_blur.loop_partition(loop(from_blur, "c"), [3, 1])
    del first, rest
    with pytest.raises(ScheduleError):
        from_blur.merge(loop(from_blur, "b"), loop(from_blur, "c"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.bind(loop(s, "c"), "threadIdx.w"), "there is no thread axis 'threadIdx.w'"),
        (lambda s: (s.unroll(loop(s, "c")), s.parallel(loop(s, "c"))), "it is already unrolled"),
        (
            lambda s: (s.bind(loop(s, "c"), "blockIdx.x"), s.bind(loop(s, "c", 1), "blockIdx.x")),
            "is bound to blockIdx.x already",
        ),
        (
            lambda s: (s.vectorize(loop(s, "c", 1)), s.vectorize(loop(s, "c"))),
            "loop 'i1' inside it is vectorized",
        ),
    ],
)
def test_refusals(edit: object, message: str) -> None:
    assert message in refusal(chain(4, 4), edit)


@pytest.mark.parametrize("kind", ["vectorize", "unroll"])
def test_refuse_symbolic_extents(kind: str) -> None:
    n = Var("n")
    text = refusal(chain(n, 4), lambda s: getattr(s, kind)(loop(s, "c")))
    assert "its extent n is not a constant" in text
    assert "split it by a constant factor" in text
