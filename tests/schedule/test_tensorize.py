"""blockize and tensorize: what they make, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen.support import compiled
from transect.hardware import find_target, this_machine
from transect.ir.structural import structural_equal
from transect.script import parse
from transect.support.errors import InputError, ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule
from transect.tir.tensor_intrin import TensorIntrin

DOT = "x86.avx512_vnni.vpdpbusd_16"
TARGET = find_target("x86-icelake")
HAS_DOT = not TensorIntrin.get(DOT).missing(this_machine())


def prim_func(text: str, **names: Any) -> PrimFunc:
    found = parse(text, **names)
    assert isinstance(found, PrimFunc)
    return found


def product(
    packed: str = "(3, 8, 16, 4)", at: str = "vj // 16, vk // 4, vj % 16, vk % 4"
) -> PrimFunc:
    """C = A @ B of bytes, with B in tiles."""
    return prim_func(f"""
@T.prim_func
def product(a: T.handle, B: T.Buffer({packed}, "int8"), c: T.handle):
    n = T.int64()
    A = T.match_buffer(a, (n, 32), "uint8")
    C = T.match_buffer(c, (n, 48), "int32")
    for i, j, k in T.grid(n, 48, 32):
        with T.block("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = 0
            C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "int32") * T.cast(B[{at}], "int32")
""")


def tiled(func: PrimFunc, columns: int = 16, group: int = 4) -> tuple[Schedule, list[Any]]:
    sch = Schedule(func, target=TARGET)
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    j0, j1 = sch.split(j, [None, columns])
    k0, k1 = sch.split(k, [None, group])
    sch.reorder(i, j0, k0, j1, k1)
    return sch, [i, j0, k0, j1, k1]


def operands(rows: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    a = rng.integers(0, 256, (rows, 32), np.uint8)
    b = rng.integers(-128, 128, (3, 8, 16, 4), np.int8)
    flat = b.transpose(0, 2, 1, 3).reshape(48, 32).astype(np.int32)
    return a, b, a.astype(np.int32) @ flat.T


def agrees(func: PrimFunc, rows: int = 5) -> None:
    a, b, expected = operands(rows)
    result = np.full(expected.shape, -1, np.int32)
    interpret(func, a, b, result)
    np.testing.assert_array_equal(result, expected)
    if HAS_DOT:
        result = np.full(expected.shape, -1, np.int32)
        compiled(func, target=this_machine())(a, b, result)
        np.testing.assert_array_equal(result, expected)


# --- blockize ---


def test_blockize_a_map() -> None:
    before = prim_func("""
@T.prim_func
def double(A: T.Buffer((128,), "float32"), B: T.Buffer((128,), "float32")):
    for i0, i1 in T.grid(8, 16):
        with T.block("B"):
            vi = T.axis.spatial(128, i0 * 16 + i1)
            B[vi] = A[vi] * T.float32(2)
""")
    expected = prim_func("""
@T.prim_func
def double(A: T.Buffer((128,), "float32"), B: T.Buffer((128,), "float32")):
    for i0 in range(8):
        with T.block("B_o"):
            vio = T.axis.spatial(8, i0)
            T.reads(A[vio * 16 : vio * 16 + 16])
            T.writes(B[vio * 16 : vio * 16 + 16])
            for i1 in range(16):
                with T.block("B"):
                    vi = T.axis.spatial(16, i1)
                    T.reads(A[vio * 16 + vi])
                    T.writes(B[vio * 16 + vi])
                    B[vio * 16 + vi] = A[vio * 16 + vi] * T.float32(2)
""")
    sch = Schedule(before)
    inner = sch.get_block("B")
    outer = sch.blockize(sch.get_loops(inner)[1])
    assert structural_equal(sch.func, expected), sch.func
    assert sch.get(outer).name == "B_o"
    assert sch.get(inner).name == "B"


@pytest.mark.parametrize("keep", [True, False])
def test_blockize_moves_the_init_out(keep: bool) -> None:
    sch, (_, _, _, j1, _) = tiled(product())
    outer = sch.get(sch.blockize(j1, preserve_unit_iters=keep))
    assert outer.init is not None
    assert [item.kind for item in outer.iter_vars] == ["spatial", "spatial", "reduce"]
    agrees(sch.func)
    inner = sch.get(sch.get_block("C"))
    assert inner.init is None
    assert len(inner.iter_vars) == (3 if keep else 2)


def test_blockize_a_whole_reduction() -> None:
    sch, (_, j0, k0, _, _) = tiled(product())
    sch.blockize(k0)
    agrees(sch.func)
    again, (_, j0, _, _, _) = tiled(product())
    again.blockize(j0)
    agrees(again.func)


def test_blockize_blocks_that_are_neighbours() -> None:
    before = prim_func("""
@T.prim_func
def chain(A: T.Buffer((8, 16), "float32"), C: T.Buffer((8, 16), "float32")):
    B = T.alloc_buffer((8, 16), "float32")
    for i in range(8):
        for j in range(16):
            with T.block("B"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = A[vi, vj] * T.float32(2)
        for j in range(16):
            with T.block("C"):
                vi, vj = T.axis.remap("SS", [i, j])
                C[vi, vj] = B[vi, vj] + T.float32(1)
""")
    sch = Schedule(before)
    b, c = sch.get_block("B"), sch.get_block("C")
    outer = sch.get(sch.blockize([b, c]))
    assert [item.kind for item in outer.iter_vars] == ["spatial"]
    (loop,) = sch.get_loops(sch.get_block("B_o"))
    sch.parallel(loop)
    assert sch.get(b).name == "B"
    assert sch.get(c).name == "C"
    a = np.arange(128, dtype=np.float32).reshape(8, 16)
    result = np.zeros_like(a)
    interpret(sch.func, a, result)
    np.testing.assert_array_equal(result, a * 2 + 1)


def test_blockize_refuses_a_tile_that_does_not_divide() -> None:
    sch = Schedule(product())
    block = sch.get_block("C")
    _, j, _ = sch.get_loops(block)
    _, inside = sch.split(j, [None, 20])
    with pytest.raises(ScheduleError, match="not made of whole tiles of 20") as error:
        sch.blockize(inside)
    assert "pad_domain" in str(error.value)


def test_blockize_refuses_a_stride() -> None:
    sch = Schedule(product())
    _, j, k = sch.get_loops(sch.get_block("C"))
    outer, inner = sch.split(j, [16, None])
    sch.reorder(inner, outer, k)
    with pytest.raises(ScheduleError, match="not a multiple of what the loops inside"):
        sch.blockize(outer)


def test_blockize_refuses_several_nests() -> None:
    func = prim_func("""
@T.prim_func
def two(A: T.Buffer((8, 4), "float32"), B: T.Buffer((8, 4), "float32")):
    for i in range(8):
        for j in range(4):
            with T.block("x"):
                vi, vj = T.axis.remap("SS", [i, j])
                A[vi, vj] = T.float32(1)
        for j in range(4):
            with T.block("y"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = T.float32(1)
""")
    sch = Schedule(func)
    (loop, _) = sch.get_loops(sch.get_block("x"))
    with pytest.raises(ScheduleError, match=r"its blocks: x, y"):
        sch.blockize(loop)


# --- tensorize ---


@pytest.mark.parametrize("decompose", [False, True])
def test_tensorize_a_symbolic_product(decompose: bool) -> None:
    sch, (_, _, k0, j1, _) = tiled(product())
    if decompose:
        sch.decompose_reduction(sch.get_block("C"), k0)
    block = sch.get(sch.tensorize(j1, DOT))
    assert block.annotations["tensor_intrin"] == DOT
    assert [match.buffer.name for match in block.match_buffers] == ["A", "B", "C"]
    agrees(sch.func)
    printed = parse(repr(sch.func))
    assert structural_equal(printed, sch.func)
    agrees(printed)


def test_tensorize_takes_a_block_and_an_intrinsic_itself() -> None:
    known = TensorIntrin.get(DOT)
    mine = TensorIntrin("test.mine", known.description, known.implementation)
    sch, (_, _, k0, j1, _) = tiled(product())
    sch.tensorize(sch.blockize(j1), mine)
    sch.unroll(k0)
    assert TensorIntrin.get("test.mine") is mine
    twin = Schedule(product(), target=TARGET)
    twin.replay(sch.load_trace(sch.trace.to_json()))
    assert structural_equal(twin.func, sch.func)
    agrees(sch.func)


def test_loops_in_another_order_and_operands_on_other_sides_match() -> None:
    known = TensorIntrin.get(DOT)
    turned = prim_func("""
@T.prim_func
def description(
    A: T.Buffer((4,), "uint8", offset_factor=1),
    B: T.Buffer((16, 4), "int8", offset_factor=1),
    C: T.Buffer((16,), "int32", offset_factor=1),
):
    with T.block("root"):
        T.reads(C[0:16], A[0:4], B[0:16, 0:4])
        T.writes(C[0:16])
        for k, i in T.grid(4, 16):
            with T.block("update"):
                vk, vi = T.axis.remap("RS", [k, i])
                C[vi] = T.cast(B[vi, vk], "int32") * T.cast(A[vk], "int32") + C[vi]
""")
    mine = TensorIntrin("test.turned", turned, known.implementation)
    sch, (_, _, _, j1, _) = tiled(product())
    sch.tensorize(j1, mine)
    agrees(sch.func)


def test_the_description_runs_where_the_interpreter_does_not_know_the_instruction() -> None:
    known = TensorIntrin.get(DOT)
    strange = parse(repr(known.implementation).replace("vpdpbusd.512", "unheard.of"))
    assert isinstance(strange, PrimFunc)
    mine = TensorIntrin("test.strange", known.description, strange)
    sch, (_, _, _, j1, _) = tiled(product())
    sch.tensorize(j1, mine)
    a, b, expected = operands()
    result = np.zeros_like(expected)
    interpret(sch.func, a, b, result)
    np.testing.assert_array_equal(result, expected)


def test_an_intrinsic_as_tvm_spells_it() -> None:
    known = TensorIntrin.get(DOT)
    ported = prim_func("""
@T.prim_func
def implementation(
    A: T.Buffer((4,), "uint8", offset_factor=1),
    B: T.Buffer((16, 4), "int8", offset_factor=1),
    C: T.Buffer((16,), "int32", offset_factor=1),
) -> None:
    with T.block("root"):
        T.reads(C[0:16], A[0:4], B[0:16, 0:4])
        T.writes(C[0:16])
        A_u8x4 = A.vload([0], "uint8x4")
        A_i32 = T.reinterpret(A_u8x4, dtype="int32")
        B_i8x64 = B.vload([0, 0], dtype="int8x64")
        C_i32x16 = C.vload([0], dtype="int32x16")
        C[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
            T.uint32(0),
            C_i32x16,
            T.reinterpret(T.broadcast(A_i32, 16), dtype="uint8x64"),
            B_i8x64,
            dtype="int32x16",
        )
""")
    TensorIntrin.register("test.ported", known.description, ported)
    sch, (_, _, _, j1, _) = tiled(product())
    sch.tensorize(j1, "test.ported")
    agrees(sch.func)


@pytest.mark.parametrize(
    ("columns", "group", "message"),
    [
        (8, 4, r"over vj \(spatial, 8\), vk \(reduce, 4\); the description runs over vi"),
        (16, 8, r"vk \(reduce, 8\)"),
    ],
)  # fmt: skip
def test_refuses_other_extents(columns: int, group: int, message: str) -> None:
    sch, (_, _, _, j1, _) = tiled(product(), columns, group)
    with pytest.raises(ScheduleError, match=message) as error:
        sch.tensorize(j1, DOT)
    assert "split and reorder" in str(error.value)
    assert sch.get(j1).extent.value == columns


def test_refuses_a_block_whose_loops_leave_out_part_of_its_domain() -> None:
    known = TensorIntrin.get(DOT)
    half = repr(known.description).replace("T.grid(16, 4)", "T.grid(8, 4)")
    half = half.replace('T.axis.remap("SR", [i, k])', "T.axis.spatial(16, i), T.axis.reduce(4, k)")
    half = half.replace("root", "whole")
    sch = Schedule(prim_func(half), target=TARGET)
    with pytest.raises(ScheduleError, match="loops inside run over 8 values of 'vi', whose domain"):
        sch.tensorize(sch.get_block("whole"), DOT)


@pytest.mark.parametrize("keep", [True, False])
def test_unit_variables_may_stay_or_go(keep: bool) -> None:
    sch, (i, _, _, j1, _) = tiled(product())
    sch.split(i, [None, 1])
    sch.tensorize(j1, DOT, preserve_unit_iters=keep)
    agrees(sch.func)


def test_refuses_another_dtype() -> None:
    func = parse(repr(product()).replace('"int8"', '"uint8"'))
    sch, (_, _, _, j1, _) = tiled(func)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ScheduleError, match="'B' holds uint8, 'B' of the description int8"):
        sch.tensorize(j1, DOT)


def test_refuses_a_layout_that_is_not_packed() -> None:
    sch, (_, _, _, j1, _) = tiled(product("(48, 32)", "vj, vk"))
    with pytest.raises(ScheduleError, match=r"dimension 0 of 'B' are 32 elements apart, in 'B'"):
        sch.tensorize(j1, DOT)


def test_refuses_dimensions_that_are_turned() -> None:
    sch, (_, _, _, j1, _) = tiled(product("(8, 3, 4, 16)", "vk // 4, vj // 16, vk % 4, vj % 16"))
    with pytest.raises(ScheduleError, match="not the same up to an offset"):
        sch.tensorize(j1, DOT)


def test_refuses_another_computation() -> None:
    func = parse(repr(product()).replace("C[vi, vj] + T.Cast", "C[vi, vj] - T.Cast"))
    sch, (_, _, _, j1, _) = tiled(func)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ScheduleError, match="does not fit: it computes"):
        sch.tensorize(j1, DOT)


def test_refuses_what_the_target_lacks() -> None:
    sch, (_, _, _, j1, _) = tiled(product())
    plain = Schedule(product(), target=find_target("x86-avx2"))
    block = plain.get_block("C")
    with pytest.raises(ScheduleError, match=r"lacks avx512_vnni, avx512f, which x86\.avx5"):
        plain.tensorize(plain.get_loops(block)[1], DOT)
    with pytest.raises(ScheduleError, match="lacks a processor of the kind 'arm'"):
        sch.tensorize(j1, "arm.dotprod.sdot_4")


def test_refuses_an_unknown_name() -> None:
    sch, (_, _, _, j1, _) = tiled(product())
    with pytest.raises(InputError, match="no tensor intrinsic 'nothing'"):
        sch.tensorize(j1, "nothing")


def test_two_intrinsics_of_one_name_are_refused() -> None:
    known = TensorIntrin.get(DOT)
    TensorIntrin.register("test.twice", known.description, known.implementation)
    with pytest.raises(InputError, match=r"another tensor intrinsic named 'test\.twice'"):
        TensorIntrin.register("test.twice", known.description, known.implementation)
    TensorIntrin.register("test.twice", known.description, known.implementation, True)


def test_an_intrinsic_whose_parts_differ_is_refused() -> None:
    known = TensorIntrin.get(DOT)
    other = TensorIntrin.get("x86.avx512_vnni.vpdpbusd_8")
    with pytest.raises(InputError, match=r"parameter 'B' is int8 \(16, 4\).*int8 \(8, 4\)"):
        TensorIntrin("test.wrong", known.description, other.implementation)


# --- random schedules ---


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_tiles_keep_the_result(data: st.DataObject) -> None:
    sch, loops = tiled(product())
    decompose = data.draw(st.booleans(), "decompose")
    depth = data.draw(st.integers(2 if decompose else 0, 4), "depth")
    if decompose:
        sch.decompose_reduction(sch.get_block("C"), loops[2])
    if data.draw(st.booleans(), "tensorize"):
        sch.tensorize(loops[3], DOT)
    else:
        sch.blockize(loops[depth], preserve_unit_iters=data.draw(st.booleans(), "units"))
    around = sch.get_loops(sch.get_block("C_o"))
    if len(around) > 1 and data.draw(st.booleans(), "parallel"):
        sch.parallel(around[0])
    if around and data.draw(st.booleans(), "split"):
        sch.split(around[-1], [None, 3])
    a, b, expected = operands(data.draw(st.integers(1, 7), "rows"))
    result = np.full(expected.shape, -1, np.int32)
    interpret(sch.func, a, b, result)
    np.testing.assert_array_equal(result, expected)
