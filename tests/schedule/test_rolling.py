"""rolling_buffer: what consecutive iterations share is kept in a ring, or refused."""

import pytest

from tests.schedule.examples import loop, ring
from tests.schedule.programs import blur, chain, check, expect, run
from transect.ir.expr import Var
from transect.script import tir as T
from transect.support.errors import ScheduleError
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

N, M = Var("n"), Var("m")
SIZES = [{"n": n, "m": m} for n, m in ((3, 3), (4, 9), (16, 8), (9, 5))]


def stencil(n: Var | int, m: Var | int) -> PrimFunc:
    """b = 2a; c[i, j] = sum over a 3 × 3 window of b."""
    builder = FunctionBuilder("stencil")
    a = builder.input("a", (n + 2, m + 2), "float32")
    b = builder.compute((n + 2, m + 2), lambda i, j: a[i, j] * 2.0, name="b")
    return builder.finish(
        [builder.reduce((n, m), (3, 3), lambda i, j, u, v: b[i + u, j + v], name="c")]
    )


@T.prim_func
def rolled(a: T.Buffer((7,), "float32"), c: T.Buffer((6,), "float32")):
    b = T.alloc_buffer((2,), "float32")
    for i0 in range(6):
        for ax0 in range(2):
            with T.block("b"):
                vi = T.axis.spatial(7, i0 + ax0)
                T.where(i0 == 0 or T.LT(0, ax0))
                b[vi % 2] = a[vi] * 2.0
        with T.block("c"):
            vi = T.axis.remap("S", [i0])
            T.reads(b[0:2])
            T.writes(c[vi])
            c[vi] = b[vi % 2] + b[(vi + 1) % 2]


def test_a_stencil_over_one_axis() -> None:
    expect(check(lambda: blur(6), ring).func, rolled)


def test_tiles_that_overlap() -> None:
    def edit(s: Schedule) -> None:
        outer, _ = s.split(loop(s, "c"), [None, 3])
        s.compute_at("b", outer)
        s.rolling_buffer("b", "b")

    schedule = check(lambda: blur(12), edit)
    assert 'b = T.alloc_buffer((4,), "float32")' in repr(schedule.func)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_window_over_two_axes(depth: int) -> None:
    """With both loops around it rows are kept in the ring, and columns are not made again."""

    def edit(s: Schedule) -> None:
        s.compute_at("b", loop(s, "c", depth - 1))
        s.rolling_buffer("b", 0)

    schedule = check(lambda: stencil(4, 5), edit)
    assert 'b = T.alloc_buffer((3, 7), "float32")' in repr(schedule.func)


def test_starts_anew_in_each_iteration_of_an_outer_loop() -> None:
    def edit(s: Schedule) -> None:
        _, inner = s.split(loop(s, "c"), [None, 3])
        s.compute_at("b", inner)
        s.rolling_buffer("b", 0)

    check(lambda: blur(11), edit)


def test_each_element_is_made_once() -> None:
    builder = FunctionBuilder("counted")
    a = builder.input("a", (8,), "float32")
    b = builder.compute((8,), lambda i: a[i] * 2.0, name="b")
    s = Schedule(builder.finish([builder.compute((6,), lambda i: b[i] + b[i + 2], name="c")]))
    ring(s)
    realize = s.get_sref("b").parent
    assert realize is not None
    # Where the window is not new its first two elements were made before.
    assert "T.where(i0 == 0 or 1 < ax0)" in repr(s.func)
    assert run(s.func, {})[-1].shape == (6,)


def _parallel_outside(s: Schedule) -> None:
    outer, inner = s.split(loop(s, "c"), [None, 3])
    s.compute_at("b", inner)
    s.parallel(outer)
    s.rolling_buffer("b", 0)


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (blur(6), lambda s: s.rolling_buffer("b", 0), "no loop is around it and the blocks"),
        (blur(6), lambda s: s.rolling_buffer("c", 0), "'c' is a parameter"),
        (chain(4, 4), ring, "make overlapping parts of 'b'"),
        (blur(6), _parallel_outside, "loop 'i0_0' around it is parallel"),
        (blur(6), lambda s: (ring(s), s.parallel(loop(s, "c"))), "touch the same elements of 'b'"),
        (
            blur(6),
            lambda s: (ring(s), s.compute_inline("b")),
            "do not tell its iteration",
        ),
        (
            blur(6),
            lambda s: (ring(s), s.rolling_buffer("b", 0)),
            "leaves out part of its domain",
        ),
        (
            blur(6),
            lambda s: (
                s.compute_at("b", loop(s, "c")),
                s.annotate_buffer_access("b", 0, "write", lambda i: ((i - 1, i + 2),)),
                s.rolling_buffer("b", 0),
            ),
            "it is said to write more of 'b'",
        ),
        (
            blur(6),
            lambda s: (
                s.compute_at("b", loop(s, "c")),
                s.annotate_buffer_access("b", 0, "write", lambda i: ((i, i + 2),)),
                s.rolling_buffer("b", 0),
            ),
            "it is said to write more of 'b'",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    s = Schedule(func)
    with pytest.raises(ScheduleError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    assert message in str(caught.value)
