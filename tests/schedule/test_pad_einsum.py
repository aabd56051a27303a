"""pad_einsum and decompose_padding: padding with zeros, and padding taken out again."""

import numpy as np
import pytest

from tests.schedule.expecting import expect, refusal
from tests.schedule.programs import blur, chain, check, matmul, normalized, padded, row_sum
from transect.ir.expr import Var
from transect.script import tir as T
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule

N, M, D = Var("n"), Var("m"), Var("d")
SIZES = [{"n": n, "m": m, "d": d} for n, m, d in ((1, 1, 1), (3, 17, 4), (16, 8, 5), (9, 5, 7))]


def test_operands_are_copied_and_the_result_is_copied_out() -> None:
    @T.prim_func
    def before(
        A: T.Buffer((5, 7), "float32"), B: T.Buffer((7, 8), "float32"),
        C: T.Buffer((5, 8), "float32"),
    ):  # fmt: skip
        for i, j, k in T.grid(5, 8, 7):
            with T.block("C"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]

    @T.prim_func
    def expected(
        A: T.Buffer((5, 7), "float32"), B: T.Buffer((7, 8), "float32"),
        C: T.Buffer((5, 8), "float32"),
    ):  # fmt: skip
        C_global = T.alloc_buffer((8, 8), "float32")
        A_pad = T.alloc_buffer((8, 8), "float32")
        B_pad = T.alloc_buffer((8, 8), "float32")
        for i, k in T.grid(8, 8):
            with T.block("A_pad"):
                vi, vk = T.axis.remap("SS", [i, k])
                T.reads(A[vi, vk])
                T.writes(A_pad[vi, vk])
                A_pad[vi, vk] = T.if_then_else(vi < 5 and vk < 7, A[vi, vk], T.float32(0))
        for k, j in T.grid(8, 8):
            with T.block("B_pad"):
                vk, vj = T.axis.remap("SS", [k, j])
                T.reads(B[vk, vj])
                T.writes(B_pad[vk, vj])
                B_pad[vk, vj] = T.if_then_else(vk < 7, B[vk, vj], T.float32(0))
        for i, j, k in T.grid(8, 8, 8):
            with T.block("C"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                T.reads(A_pad[vi, vk], B_pad[vk, vj])
                T.writes(C_global[vi, vj])
                with T.init():
                    C_global[vi, vj] = T.float32(0)
                C_global[vi, vj] = C_global[vi, vj] + A_pad[vi, vk] * B_pad[vk, vj]
        for i, j in T.grid(5, 8):
            with T.block("C_global"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(C_global[vi, vj])
                T.writes(C[vi, vj])
                C[vi, vj] = C_global[vi, vj]

    def edit(s: Schedule) -> None:
        block = s.get_block("C")
        loops = s.get_loops(block)
        s.pad_einsum(block, [4, 8, 4])
        assert s.get_loops(block) == loops

    expect(before, edit, expected)


def test_symbolic_sizes() -> None:
    check(lambda: matmul(N, M, D), lambda s: s.pad_einsum(s.get_block("y"), [4, 8, 2]), *SIZES)


def test_what_divides_is_left_alone() -> None:
    s = Schedule(matmul(8, 8, 8))
    before = s.func
    s.pad_einsum(s.get_block("y"), [4, 8, 2])
    assert s.func is before


def test_an_intermediate_result_grows() -> None:
    schedule = check(
        lambda: matmul(N, M, D, bias=True),
        lambda s: s.pad_einsum(s.get_block("y"), [4, 8, 1]),
        *SIZES,
    )
    assert "y_global" not in repr(schedule.func)


def test_the_copies_can_be_inlined() -> None:
    def edit(s: Schedule) -> None:
        y = s.get_block("y")
        s.pad_einsum(y, [4, 8, 1])
        s.compute_inline(s.get_block("x_pad"))

    check(lambda: matmul(N, M, D), edit, *SIZES)


def test_a_maximum_is_masked_where_zero_is_not_neutral() -> None:
    schedule = check(
        lambda: normalized(N, M), lambda s: s.pad_einsum(s.get_block("t"), [1, 4]), *SIZES
    )
    assert "T.Select" in repr(schedule.func)


def scaled_sum() -> PrimFunc:
    """y[i] = sum of x[i, k] s[i]: what stands still along k may be infinite."""
    b = FunctionBuilder("scaled_sum")
    x = b.input("x", (2, 3), "float32")
    s = b.input("s", (2,), "float32")
    return b.finish([b.reduce((2,), (3,), lambda i, k: x[i, k] * s[i], name="y")])


def test_infinity_times_the_padding_does_not_reach_the_sum() -> None:
    schedule = Schedule(scaled_sum())
    schedule.pad_einsum(schedule.get_block("y"), [1, 4])
    out = np.zeros(2, np.float32)
    interpret(schedule.func, np.ones((2, 3), np.float32), np.array([np.inf, 1], np.float32), out)
    np.testing.assert_array_equal(out, [np.inf, 3])
    assert "T.Select" in repr(schedule.func)


def test_products_of_integers_of_two_widths() -> None:
    def make() -> PrimFunc:
        b = FunctionBuilder("int8")
        x = b.input("x", (N, D), "int8")
        w = b.input("w", (D, M), "int8")
        return b.finish([
            b.reduce(
                (N, M), (D,), lambda i, j, k: x[i, k].astype("int32") * w[k, j].astype("int32"),
                name="y",
            )
        ])  # fmt: skip

    def edit(s: Schedule) -> None:
        s.pad_einsum(s.get_block("y"), [4, 16, 4])
        assert "T.Select" not in repr(s.func)

    s = Schedule(make())
    edit(s)
    x = np.arange(15, dtype=np.int8).reshape(3, 5)
    w = np.arange(35, dtype=np.int8).reshape(5, 7) - 17
    out = np.zeros((3, 7), np.int32)
    interpret(s.func, x, w, out)
    np.testing.assert_array_equal(out, x.astype(np.int32) @ w.astype(np.int32))


@T.prim_func
def bordered(A: T.Buffer((128,), "int32"), B: T.Buffer((140,), "int32")):
    for i in range(140):
        with T.block("B"):
            vi = T.axis.spatial(140, i)
            B[vi] = T.if_then_else(vi >= 6 and vi < 134, A[vi - 6], 0)


def test_decompose_padding() -> None:
    @T.prim_func
    def expected(A: T.Buffer((128,), "int32"), B: T.Buffer((140,), "int32")):
        for i in range(140):
            with T.block("B_pad_const"):
                vi = T.axis.spatial(140, i)
                T.reads()
                T.writes(B[vi])
                B[vi] = 0
        for j in range(128):
            with T.block("B"):
                vj = T.axis.spatial(128, j)
                T.reads(A[vj])
                T.writes(B[vj + 6])
                B[vj + 6] = A[vj]

    def edit(s: Schedule) -> None:
        block = s.get_block("B")
        (loop,) = s.get_loops(block)
        assert s.can_decompose_padding(block, loop)
        fill = s.decompose_padding(block, loop)
        assert s.get(fill).name == "B_pad_const"
        assert s.get_loops(block) == [loop]
        assert not s.can_decompose_padding(block, loop)

    expect(bordered, edit, expected)


@pytest.mark.parametrize("position", [0, 1])
def test_decompose_symbolic_padding(position: int) -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("p")
        s.decompose_padding(block, s.get_loops(block)[position])

    schedule = check(lambda: padded(N, M), edit, *SIZES)
    assert ("T.where" in repr(schedule.func)) == (position == 1)


def test_decompose_padding_of_split_loops_gives_a_predicate() -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("p")
        i, j = s.get_loops(block)
        s.split(i, [None, 2])
        s.decompose_padding(block, j)

    check(lambda: padded(N, M), edit, *SIZES)


def test_decompose_the_padding_of_a_layout() -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("b")
        s.transform_layout(block, "b", lambda i, j: (i, j // 4, j % 4), pad_value=1)
        s.decompose_padding(block, s.get_loops(block)[0])

    check(lambda: chain(N, M), edit, *SIZES)


def overlapping() -> PrimFunc:
    b = FunctionBuilder("varies")
    a = b.input("a", (4,), "float32")
    return b.finish([b.compute((6,), lambda i: T.if_then_else(i < 4, a[i], a[0]), name="c")])


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (
            matmul(4, 4, 4),
            lambda s: s.pad_einsum(s.get_block("y"), [8, 8]),
            "(8, 8) are not 3 positive numbers",
        ),
        (
            blur(4),
            lambda s: s.pad_einsum(s.get_block("c"), [8]),
            "the index v_i0 + 1 of 'b' is no iteration variable that starts at 0",
        ),
        (
            padded(4, 4),
            lambda s: s.pad_einsum(s.get_block("p"), [4, 4]),
            "which is no sum of products",
        ),
        (
            matmul(5, 4, 4),
            lambda s: (
                s.split(s.get_loops(s.get_block("y"))[0], [None, 2]),
                s.pad_einsum(s.get_block("y"), [8, 8, 8]),
            ),
            "it has a predicate",
        ),
        (
            row_sum(4, 5),
            lambda s: (
                s.decompose_reduction(s.get_block("s"), s.get_loops(s.get_block("s"))[1]),
                s.pad_einsum(s.get_block("s"), [1, 4]),
            ),
            "'s' has other writers",
        ),
        (
            chain(4, 4),
            lambda s: s.decompose_padding(s.get_block("b"), s.get_loops(s.get_block("b"))[0]),
            "which is no choice between a value and padding",
        ),
        (
            overlapping(),
            lambda s: s.decompose_padding(s.get_block("c"), s.get_loops(s.get_block("c"))[0]),
            "its padding a[0] is not the same everywhere",
        ),
        (
            padded(4, 4),
            lambda s: s.decompose_padding(s.get_block("p"), s.get_loops(s.get_block("c"))[0]),
            "loop 'i0' is not around it",
        ),
        (
            padded(4, 4),
            lambda s: (
                s.compute_at(s.get_block("p"), s.get_loops(s.get_block("c"))[0]),
                s.decompose_padding(s.get_block("p"), s.get_loops(s.get_block("c"))[0]),
            ),
            "block 'c' is in loop 'i0' as well",
        ),
        (
            row_sum(4, 5),
            lambda s: s.decompose_padding(s.get_block("s"), s.get_loops(s.get_block("s"))[0]),
            "is 'reduce'",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    text = refusal(func, edit)  # pyright: ignore[reportArgumentType]
    assert message in text
    assert "here:\n" in text
