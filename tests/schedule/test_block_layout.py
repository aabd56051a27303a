"""transform_block_layout and reorder_block_iter_var: the same instances, otherwise counted."""

import pytest

from tests.schedule.expecting import expect, refusal
from tests.schedule.programs import chain, check, matmul, padded, row_sum
from transect.ir.expr import Var
from transect.script import tir as T
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

N, M, D = Var("n"), Var("m"), Var("d")
SIZES = [{"n": n, "m": m, "d": d} for n, m, d in ((1, 1, 1), (3, 17, 4), (16, 8, 5), (9, 5, 7))]


@T.prim_func
def scaled(A: T.Buffer(("n", 6), "float32"), B: T.Buffer(("n", 6), "float32")):
    n = T.int64()
    for i, j in T.grid(n, 6):
        with T.block("B"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vi, vj] * T.float32(2)


def test_joined_variables_are_taken_apart_in_the_indices() -> None:
    @T.prim_func
    def expected(A: T.Buffer(("n", 6), "float32"), B: T.Buffer(("n", 6), "float32")):
        n = T.int64()
        for i_j in range(n * 6):
            with T.block("B"):
                v = T.axis.spatial(n * 6, i_j)
                T.reads(A[v // 6, v % 6])
                T.writes(B[v // 6, v % 6])
                B[v // 6, v % 6] = A[v // 6, v % 6] * T.float32(2)

    expect(
        scaled,
        lambda s: s.transform_block_layout(s.get_block("B"), lambda i, j: (i * 6 + j,)),
        expected,
    )


def test_split_variables_leave_plain_sums_and_a_predicate() -> None:
    @T.prim_func
    def expected(A: T.Buffer(("n", 6), "float32"), B: T.Buffer(("n", 6), "float32")):
        n = T.int64()
        for j, i_0, i_1 in T.grid(6, (n + 3) // 4, 4):
            with T.block("B"):
                vj, v0, v1 = T.axis.remap("SSS", [j, i_0, i_1])
                T.where(i_0 * 4 + i_1 < n)
                T.reads(A[v0 * 4 + v1, vj])
                T.writes(B[v0 * 4 + v1, vj])
                B[v0 * 4 + v1, vj] = A[v0 * 4 + v1, vj] * T.float32(2)

    def edit(s: Schedule) -> None:
        block = s.get_block("B")
        _, j = s.get_loops(block)
        s.transform_block_layout(block, lambda i, j: (j, i // 4, i % 4))
        assert s.get_loops(block)[0] is j, "the loop of a variable that stays keeps its handle"

    expect(scaled, edit, expected)


def test_a_reduction_keeps_its_kind() -> None:
    def edit(s: Schedule) -> None:
        y = s.get_block("y")
        s.transform_block_layout(y, lambda i, j, k: (j // 8, k // 2, i, j % 8, k % 2))
        assert [item.kind for item in s.get(y).iter_vars] == [
            "spatial", "reduce", "spatial", "spatial", "reduce",
        ]  # fmt: skip

    check(lambda: matmul(N, M, D), edit, *SIZES)


def test_the_new_loops_are_scheduled_like_any() -> None:
    def edit(s: Schedule) -> None:
        y = s.get_block("y")
        s.transform_block_layout(y, lambda i, j, k: (i // 4, j, k, i % 4))
        i, _, k, inner = s.get_loops(y)
        s.decompose_reduction(y, k)
        s.parallel(i)
        s.vectorize(inner)

    check(lambda: matmul(N, M, D), edit, *SIZES)


def test_a_tiled_buffer_and_block_have_plain_indices() -> None:
    """What a tensor intrinsic needs to match: no quotient is left."""

    def edit(s: Schedule) -> None:
        y = s.get_block("y")
        s.pad_einsum(y, [4, 8, 2])
        s.transform_layout(y, ("read", 0), lambda i, k: (i // 4, k // 2, i % 4, k % 2))
        s.transform_layout(y, ("read", 1), lambda k, j: (j // 8, k // 2, k % 2, j % 8))
        s.transform_layout(y, ("write", 0), lambda i, j: (i // 4, j // 8, i % 4, j % 8))
        s.transform_block_layout(y, lambda i, j, k: (i // 4, j // 8, k // 2, i % 4, j % 8, k % 2))
        text = repr(s.get(y))
        assert "//" not in text.replace("T.axis", "").split("T.reads")[1]
        assert "T.where" not in text

    check(lambda: matmul(N, M, D), edit, *SIZES)


def test_reorder_block_iter_var() -> None:
    @T.prim_func
    def expected(A: T.Buffer(("n", 6), "float32"), B: T.Buffer(("n", 6), "float32")):
        n = T.int64()
        for i, j in T.grid(n, 6):
            with T.block("B"):
                vj = T.axis.spatial(6, j)
                vi = T.axis.spatial(n, i)
                T.reads(A[vi, vj])
                T.writes(B[vi, vj])
                B[vi, vj] = A[vi, vj] * T.float32(2)

    def edit(s: Schedule) -> None:
        block = s.get_block("B")
        s.reorder_block_iter_var(block, [1, 0])
        assert s.get(block).iter_vars[1].var.name == "vi"

    expect(scaled, edit, expected)
    check(
        lambda: matmul(N, M, D),
        lambda s: s.reorder_block_iter_var(s.get_block("y"), [2, 0, 1]),
        *SIZES,
    )


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (
            matmul(4, 4, 4),
            lambda s: s.transform_block_layout(s.get_block("y"), lambda i, j, k: (i, j * 4 + k)),
            "would be spatial and of the reduction at once",
        ),
        (
            chain(4, 4),
            lambda s: s.transform_block_layout(s.get_block("c"), lambda i, j: (i, j // 2)),
            "is not known to be one to one: parts of loop 'i1' overlap or leave a gap",
        ),
        (
            row_sum(4, 7),
            lambda s: s.transform_block_layout(
                s.get_block("s"), lambda i, k: (i, (k + 1) // 4, (k + 1) % 4)
            ),
            "the first instances of its reduction would lie in the padding",
        ),
        (
            chain(4, 6),
            lambda s: (
                s.split(s.get_loops(s.get_block("c"))[0], [None, 2]),
                s.transform_block_layout(s.get_block("c"), lambda i, j: (j, i)),
            ),
            "iteration variable 'v_i0' does not have a loop of its own",
        ),
        (
            chain(5, 6),
            lambda s: (
                s.split(s.get_loops(s.get_block("c"))[0], [None, 2]),
                s.transform_block_layout(s.get_block("c"), lambda i, j: (j, i)),
            ),
            "it has the predicate",
        ),
        (
            chain(4, 6),
            lambda s: (
                s.compute_at(s.get_block("b"), s.get_loops(s.get_block("c"))[0]),
                s.transform_block_layout(s.get_block("c"), lambda i, j: (j, i)),
            ),
            "other loops or blocks stand",
        ),
        (
            chain(4, 6),
            lambda s: (
                s.parallel(s.get_loops(s.get_block("c"))[0]),
                s.transform_block_layout(s.get_block("c"), lambda i, j: (j, i)),
            ),
            "it is already parallel",
        ),
        (
            padded(4, 4),
            lambda s: s.reorder_block_iter_var(s.get_block("c"), [0, 0]),
            "(0, 0) is no order of its 2 iteration variables",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    text = refusal(func, edit)  # pyright: ignore[reportArgumentType]
    assert message in text
    assert "here:\n" in text
