"""transform_layout and set_axis_separator: every block follows the buffer, or it is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schedule.expecting import expect, refusal
from tests.schedule.layout_maps import MAPS
from tests.schedule.programs import chain, check, matmul, normalized, run
from transect.arith.evaluate import evaluate
from transect.ir.expr import Var
from transect.script import tir as T
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.index_image import arrange
from transect.tir.index_map import IndexMap, index_map_of
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule

N, M, D = Var("n"), Var("m"), Var("d")
SIZES = [{"n": n, "m": m} for n, m in ((1, 1), (3, 17), (16, 8), (9, 5))]


@T.prim_func
def twice(A: T.Buffer((14,), "float32"), C: T.Buffer((14,), "float32")):
    B = T.alloc_buffer((14,), "float32")
    for i in range(14):
        with T.block("B"):
            vi = T.axis.spatial(14, i)
            B[vi] = A[vi] * T.float32(2)
    for j in range(14):
        with T.block("C"):
            vj = T.axis.spatial(14, j)
            C[vj] = B[vj] + T.float32(1)


def tiles(i: Var) -> list[object]:
    return [i // 4, i % 4]


def test_the_writer_fills_the_padding() -> None:
    @T.prim_func
    def expected(A: T.Buffer((14,), "float32"), C: T.Buffer((14,), "float32")):
        B = T.alloc_buffer((4, 4), "float32")
        for i_0, i_1 in T.grid(4, 4):
            with T.block("B"):
                v0, v1 = T.axis.remap("SS", [i_0, i_1])
                T.reads(A[v0 * 4 + v1])
                T.writes(B[v0, v1])
                B[v0, v1] = T.if_then_else(
                    v0 * 4 + v1 < 14, A[v0 * 4 + v1] * T.float32(2), T.float32(0)
                )
        for j in range(14):
            with T.block("C"):
                vj = T.axis.spatial(14, j)
                T.reads(B[vj // 4, vj % 4])
                T.writes(C[vj])
                C[vj] = B[vj // 4, vj % 4] + T.float32(1)

    s = expect(
        twice,
        lambda s: s.transform_layout(s.get_block("B"), ("write", 0), tiles, pad_value=0),
        expected,
    )
    assert len(s.get_loops(s.get_block("B"))) == 2


def test_a_writer_without_padding_keeps_its_domain() -> None:
    @T.prim_func
    def expected(A: T.Buffer((14,), "float32"), C: T.Buffer((14,), "float32")):
        B = T.alloc_buffer((2, 7), "float32")
        for i in range(14):
            with T.block("B"):
                vi = T.axis.spatial(14, i)
                T.reads(A[vi])
                T.writes(B[vi % 2, vi // 2])
                B[vi % 2, vi // 2] = A[vi] * T.float32(2)
        for j in range(14):
            with T.block("C"):
                vj = T.axis.spatial(14, j)
                T.reads(B[vj % 2, vj // 2])
                T.writes(C[vj])
                C[vj] = B[vj % 2, vj // 2] + T.float32(1)

    def edit(s: Schedule) -> None:
        block = s.get_block("C")
        loops = s.get_loops(block)
        s.transform_layout(block, "B", lambda i: (i % 2, i // 2))
        assert s.get_loops(block) == loops

    expect(twice, edit, expected)


def test_a_writer_that_is_no_map_gets_its_padding_before_it() -> None:
    @T.prim_func
    def expected(A: T.Buffer((3, 5), "float32"), S: T.Buffer((3,), "float32")):
        R = T.alloc_buffer((2, 2), "float32")
        for i_0, i_1 in T.grid(2, 2):
            with T.block("R_padding"):
                v0, v1 = T.axis.remap("SS", [i_0, i_1])
                T.where(not (i_0 * 2 + i_1 < 3))
                T.reads()
                T.writes(R[v0, v1])
                R[v0, v1] = T.float32(7)
        for i, k in T.grid(3, 5):
            with T.block("R"):
                vi, vk = T.axis.remap("SR", [i, k])
                T.reads(A[vi, vk])
                T.writes(R[vi // 2, vi % 2])
                with T.init():
                    R[vi // 2, vi % 2] = T.float32(0)
                R[vi // 2, vi % 2] = R[vi // 2, vi % 2] + A[vi, vk]
        for j in range(3):
            with T.block("S"):
                vj = T.axis.spatial(3, j)
                T.reads(R[vj // 2, vj % 2])
                T.writes(S[vj])
                S[vj] = R[vj // 2, vj % 2]

    @T.prim_func
    def before(A: T.Buffer((3, 5), "float32"), S: T.Buffer((3,), "float32")):
        R = T.alloc_buffer((3,), "float32")
        for i, k in T.grid(3, 5):
            with T.block("R"):
                vi, vk = T.axis.remap("SR", [i, k])
                with T.init():
                    R[vi] = T.float32(0)
                R[vi] = R[vi] + A[vi, vk]
        for j in range(3):
            with T.block("S"):
                vj = T.axis.spatial(3, j)
                S[vj] = R[vj]

    expect(
        before,
        lambda s: s.transform_layout(
            s.get_block("R"), ("write", 0), lambda i: (i // 2, i % 2), pad_value=7
        ),
        expected,
    )


@pytest.mark.parametrize("pad_value", [0, 2.5, lambda a, b, c: a + c])
def test_symbolic_sizes(pad_value: object) -> None:
    def edit(s: Schedule) -> None:
        block = s.get_block("b")
        s.transform_layout(block, ("write", 0), lambda i, j: (j // 4, i, j % 4), pad_value)

    check(lambda: chain(N, M), edit, *SIZES)


def test_symbolic_sizes_of_a_reduction() -> None:
    def edit(s: Schedule) -> None:
        s.transform_layout(s.get_block("t"), ("write", 0), tiles, pad_value=0)

    schedule = check(lambda: normalized(N, M), edit, *SIZES)
    assert schedule.get_block("t_padding")


def test_the_padding_holds_its_value() -> None:
    """Seen by a program that returns the buffer: a parameter whose writer fills it."""
    s = Schedule(chain(6, 5))
    s.transform_layout(s.get_block("c"), "c", lambda i, j: (i, j // 4, j % 4), pad_value=3)
    _, out = run(s.func, {})
    assert out.shape == (6, 2, 4)
    np.testing.assert_array_equal(out[:, 1, 1:], 3)


def test_an_argument_of_a_function_of_indices_is_named_by_its_place() -> None:
    s = Schedule(chain(4, 8))
    (buffer,) = (region.buffer for region in s.get(s.get_block("b")).writes)
    s.transform_layout(s.get_block("c"), buffer, (1, 0))
    assert "b[v_i1_1, v_i0_1]" in repr(s.func)


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_parameters_hold_arranged_arrays(n: int, m: int, data: st.DataObject) -> None:
    """The signature changes: arguments that are laid out alike give the same result."""
    function = data.draw(st.sampled_from(MAPS[2]))
    name = data.draw(st.sampled_from("xwy"))
    s = Schedule(matmul(n, m, 4))
    s.transform_layout(s.get_block("y"), name, function, pad_value=9)
    index_map, _ = index_map_of(function, 2)
    before = run(s.source, {})
    arrays = [
        arrange(array, index_map, pad_value=9) if buffer.name == name else array
        for buffer, array in zip(s.source.buffers, before, strict=True)
    ]
    for buffer, array in zip(s.func.buffers, arrays, strict=True):
        assert [evaluate(extent, {}) for extent in buffer.shape] == list(array.shape)
    expected = arrays[-1].copy()
    arrays[-1][...] = np.nan
    interpret(s.func, *arrays)
    np.testing.assert_array_equal(arrays[-1], expected)


def test_a_symbolic_parameter() -> None:
    s = Schedule(matmul(N, M, D))
    s.transform_layout(s.get_block("y"), ("read", 1), lambda k, j: (j // 8, k, j % 8), pad_value=0)
    assert "(m + 7) // 8" in repr(s.func)
    x, w = np.ones((3, 5), np.float32), np.ones((5, 9), np.float32)
    y = np.zeros((3, 9), np.float32)
    layout, _ = index_map_of(lambda k, j: (j // 8, k, j % 8), 2)
    interpret(s.func, x, arrange(w, layout), y)
    np.testing.assert_array_equal(y, 5)


def test_assumed_injective_maps_are_taken_as_they_are() -> None:
    def swizzle(i: Var, j: Var) -> list[object]:
        return [i, (i + j) % 4]

    check(
        lambda: chain(N, 4),
        lambda s: s.transform_layout(
            s.get_block("b"), ("write", 0), swizzle, assume_injective_transform=True
        ),
        {"n": 5},
    )
    text = refusal(
        chain(N, 4), lambda s: s.transform_layout(s.get_block("b"), ("write", 0), swizzle)
    )
    assert "is not known to be one to one: i + j shares index 'i' with others" in text
    assert "the map: T.index_map(lambda i, j: (i, (i + j) % 4))" in text


def test_separators_among_the_outputs() -> None:
    s = Schedule(chain(4, 8))
    block = s.get_block("b")
    s.transform_layout(
        block, ("write", 0), lambda i, j: (j // 4, i, IndexMap.AXIS_SEPARATOR, j % 4)
    )
    assert s.get(block).writes[0].buffer.axis_separators == (2,)
    s.set_axis_separator(block, "b", [])
    assert s.get(block).writes[0].buffer.axis_separators == ()


def test_separators_of_a_parameter_change_the_signature_alone() -> None:
    schedule = check(
        lambda: chain(N, M), lambda s: s.set_axis_separator(s.get_block("c"), "c", [1]), *SIZES
    )
    assert "axis_separators=[1]" in repr(schedule.func)


def test_traces_print_maps_as_functions() -> None:
    s = Schedule(chain(N, M))
    block = s.get_block("b")
    s.transform_layout(block, ("write", 0), lambda i, j: (j // 4, i, j % 4), lambda a, b, c: a + c)
    s.transform_block_layout(s.get_block("c"), lambda i, j: (j, i))
    text = str(s.trace)
    assert "index_map=lambda i, j: (j // 4, i, j % 4)" in text
    other = Schedule(chain(N, M))
    exec(text, {"sch": other})
    replayed = Schedule(chain(N, M))
    replayed.replay(replayed.load_trace(s.trace.to_json()))
    assert str(other.func) == str(s.func) == str(replayed.func)


def opaque() -> PrimFunc:
    @T.prim_func
    def func(A: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")):
        B = T.alloc_buffer((8,), "float32")
        for i in range(8):
            with T.block("B"):
                vi = T.axis.spatial(8, i)
                B[vi] = A[vi]
        for i in range(2):
            with T.block("C"):
                vi = T.axis.spatial(2, i)
                T.reads(B[vi * 4 : vi * 4 + 4])
                T.writes(C[vi * 4 : vi * 4 + 4])
                part = T.match_buffer(B[vi * 4 : vi * 4 + 4], (4,))
                for j in range(4):
                    C[vi * 4 + j] = part[j]

    return func


def vectors() -> PrimFunc:
    @T.prim_func
    def func(A: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")):
        for i in range(2):
            with T.block("C"):
                vi = T.axis.spatial(2, i)
                C[T.ramp(vi * 4, 1, 4)] = A[T.ramp(vi * 4, 1, 4)]

    return func


def pointer() -> PrimFunc:
    @T.prim_func
    def func(A: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")):
        B = T.alloc_buffer((8,), "float32")
        for i in range(8):
            with T.block("B"):
                vi = T.axis.spatial(8, i)
                B[vi] = A[vi]
        with T.block("C"):
            T.reads(B[0:8])
            T.writes(C[0:8])
            T.evaluate(T.call_extern("int32", "copy", C.data, T.address_of(B[0])))

    return func


def strided() -> PrimFunc:
    @T.prim_func
    def func(A: T.Buffer((8,), "float32", strides=(2,)), C: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.block("C"):
                vi = T.axis.spatial(8, i)
                C[vi] = A[vi]

    return func


def whole_numbers() -> PrimFunc:
    b = FunctionBuilder("whole")
    a = b.input("a", (6,), "int8")
    c = b.compute((6,), lambda i: a[i] + a[i], name="b")
    return b.finish([b.compute((6,), lambda i: c[i], name="c")])


def test_declared_regions_of_an_opaque_block_follow() -> None:
    """A block with an opaque call says itself what it reads: the box of the new places."""

    @T.prim_func
    def func(A: T.Buffer((16,), "float32"), C: T.Buffer((16,), "float32")):
        B = T.alloc_buffer((16,), "float32")
        for i in range(16):
            with T.block("B"):
                vi = T.axis.spatial(16, i)
                B[vi] = A[vi]
        for i in range(4):
            with T.block("C"):
                vi = T.axis.spatial(4, i)
                T.reads(B[vi * 4 : vi * 4 + 4])
                T.writes(C[vi * 4 : vi * 4 + 4])
                T.evaluate(T.call_extern("int32", "tick", 0))
                for j in range(4):
                    C[vi * 4 + j] = B[vi * 4 + j]

    s = Schedule(func)
    block = s.get_block("C")
    s.transform_layout(block, ("read", 0), tiles)
    assert "T.reads(B[vi_1, 0:4])" in repr(s.func)
    assert "B[vi_1, j]" in repr(s.func)


@pytest.mark.parametrize(
    ("func", "edit", "message"),
    [
        (
            chain(4, 5),
            lambda s: s.transform_layout(
                s.get_block("b"), ("write", 0), lambda i, j: (i, j // 4, j % 4)
            ),
            "the new shape (4, 2, 4) of 'b' has padding, as its sizes are not known to divide",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(s.get_block("b"), ("write", 0), lambda i: i),
            "an index map of 1 indices where there are 2",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(s.get_block("b"), ("write", 0), lambda i, j: (i, j // 2)),
            "is not known to be one to one: ",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(s.get_block("b"), "z", (1, 0)),
            "it has no buffer 'z'",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(s.get_block("b"), ("read", 3), (1, 0)),
            "it has no read 3",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(s.get_block("b"), ("both", 0), (1, 0)),
            "'both' is neither 'read' nor 'write'",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(s.get_block("b"), "b", (1, 2)),
            "(1, 2) are not positions of i0, i1",
        ),
        (
            chain(4, N),
            lambda s: (
                s.transform_layout(s.get_block("b"), "a", lambda i, j: (i, j // 4, j % 4), 0),
                s.transform_layout(s.get_block("c"), "c", lambda i, j: (i, j // 4, j % 4), 0),
            ),
            "no parameter would tell the size n: 'c' would have the shape (4, (n + 3) // 4, 4)",
        ),
        (
            opaque(),
            lambda s: s.transform_layout(s.get_block("B"), "B", tiles),
            "block 'C' matches a region of 'B'",
        ),
        (
            pointer(),
            lambda s: s.transform_layout(s.get_block("B"), "B", tiles),
            "'B' is used through a pointer",
        ),
        (
            strided(),
            lambda s: s.transform_layout(s.get_block("C"), "A", tiles),
            "'A' has strides or an offset of its own",
        ),
        (
            whole_numbers(),
            lambda s: s.transform_layout(s.get_block("b"), "b", tiles, 2.5),
            "the pad value 2.5 is not of the dtype int8 of 'b'",
        ),
        (
            normalized(6, 4),
            lambda s: (
                s.bind(s.get_loops(s.get_block("t"))[0], "blockIdx.x"),
                s.transform_layout(s.get_block("t"), "t", tiles, 0),
            ),
            "the padding of 't' would be filled outside its threads",
        ),
        (
            vectors(),
            lambda s: s.transform_layout(s.get_block("C"), "C", tiles),
            "'C' is accessed by vectors",
        ),
        (
            chain(4, 5),
            lambda s: s.transform_layout(
                s.get_block("b"),
                "b",
                lambda i, j: (i, j // 4, j % 4),
                lambda a, b: a,
            ),
            "an index map of 2 indices where there are 3",
        ),
        (
            chain(N, 4),
            lambda s: s.transform_layout(
                s.get_block("b"),
                "b",
                lambda i, j: (i, (i + j) % 4),
                0,
                assume_injective_transform=True,
            ),
            "where the padding is cannot be told",
        ),
        (
            chain(N, 4),
            lambda s: s.transform_layout(
                s.get_block("b"), "b", lambda i, j: (i, j - 1), assume_injective_transform=True
            ),
            "the index j - 1 of 'b' is not known to be in a box from 0",
        ),
        (
            chain(4, 5),
            lambda s: s.set_axis_separator(s.get_block("b"), "b", [2]),
            "(2,) do not cut the 2 axes of 'b' into groups",
        ),
    ],
)
def test_refusals(func: PrimFunc, edit: object, message: str) -> None:
    assert message in refusal(func, edit)  # pyright: ignore[reportArgumentType]


def test_a_refusal_prints_the_block_and_says_what_to_do() -> None:
    text = refusal(
        chain(4, 5),
        lambda s: s.transform_layout(
            s.get_block("b"), ("write", 0), lambda i, j: (i, j // 4, j % 4)
        ),
    )
    assert text.startswith("transform_layout: block 'b': ")
    assert 'with T.block("b"' in text
    assert "help: give a pad_value" in text
