"""Products as instructions: which are found, what is made of them, and that results stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import transect
from tests.fuzz.guarded import Guard, exact_workspaces, guarded
from transect.driver.services import operand_tilings
from transect.hardware import find_target, this_machine
from transect.hardware.instructions import instructions_of, with_intrinsics
from transect.hardware.kernel import KernelInfo
from transect.hardware.x86.schedule import RULES
from transect.hardware.x86.tensorized import TensorizedRule
from transect.ir.function import IRModule
from transect.plan import Planner, Site
from transect.relax import expr as rx
from transect.script import parse
from transect.support.errors import InputError, UnsupportedError
from transect.tir.analysis.blocks import block_sites
from transect.tir.analysis.contraction import Contraction, find_contraction
from transect.tir.analysis.tensor_candidate import Tiling, candidates
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule
from transect.tir.schedule.tiles import tile_axes, to_tiles
from transect.tir.tensor_intrin import TensorIntrin

DOT = "x86.avx512_vnni.vpdpbusd_16"
BFLOAT = "x86.avx512_bf16.vdpbf16ps_16"
ICELAKE = find_target("x86-icelake")
NEEDS_DOT = pytest.mark.skipif(
    bool(TensorIntrin.get(DOT).missing(this_machine())), reason="no dot product of bytes here"
)
NEEDS_BFLOAT = pytest.mark.skipif(
    bool(TensorIntrin.get(BFLOAT).missing(this_machine())), reason="no bfloat16 dot product here"
)


def product(
    rows: int | str, depth: int, columns: int, types: tuple[str, str, str], at: str = "vk, vj"
) -> PrimFunc:
    """C = A @ B, or A times the transpose of B."""
    left, right, result = types
    shape = (depth, columns) if at == "vk, vj" else (columns, depth)
    declared = "" if isinstance(rows, int) else f"{rows} = T.int64()"
    found = parse(f"""
@T.prim_func
def product(a: T.handle, B: T.Buffer({shape}, "{right}"), c: T.handle):
    {declared or "pass"}
    A = T.match_buffer(a, ({rows}, {depth}), "{left}")
    C = T.match_buffer(c, ({rows}, {columns}), "{result}")
    for i, j, k in T.grid({rows}, {columns}, {depth}):
        with T.block("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.cast(0, "{result}")
            C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "{result}") * T.cast(B[{at}], "{result}")
""")
    assert isinstance(found, PrimFunc)
    return found


BYTES = ("uint8", "int8", "int32")


def contraction(func: PrimFunc) -> Contraction:
    (site,) = block_sites(func)
    found = find_contraction(site)
    assert found is not None
    return found


def scheduled(func: PrimFunc, answers: dict[str, str] | None = None) -> Schedule:
    """By the rule for tensorized products. answers: options by role, where not the best."""
    info = KernelInfo.of(func)
    assert info is not None
    planner = Planner(target=ICELAKE)

    def decide(site: Site) -> Any:
        for role, name in (answers or {}).items():
            if role in site.key.role:
                return site.option(name)
        return planner.choose(site)

    sch = Schedule(func, decide=decide, target=ICELAKE)
    rule = TensorizedRule()
    assert rule.matches(info)
    rule.apply(sch, info, ICELAKE)
    return sch


# --- what is found ---


def names(func: PrimFunc, target: transect.Target = ICELAKE) -> list[str]:
    return [c.intrin.name for c in candidates(contraction(func), instructions_of(target))]


def test_bytes_are_found_for_dot_products() -> None:
    assert DOT in names(product(8, 32, 48, BYTES))
    assert DOT in names(product(8, 32, 48, BYTES, "vj, vk"))
    assert DOT in names(product("n", 31, 47, BYTES))


@pytest.mark.parametrize("types", [("int16", "int8", "int32"), ("uint8", "int8", "float32")])
def test_other_types_are_not(types: tuple[str, str, str]) -> None:
    assert not names(product(8, 32, 48, types))


def test_targets_without_the_instruction_have_none() -> None:
    func = product(8, 32, 48, BYTES)
    plain = replace(find_target("x86-avx2"), features=frozenset({"sse4_2", "avx"}))
    assert not names(func, plain)
    assert not operand_tilings(contraction(func), plain)


@pytest.mark.parametrize(
    "types", [BYTES, ("int8", "int8", "int32"), ("uint8", "uint8", "int32")], ids=str
)
def test_pairs_of_words_take_bytes_of_any_sign(types: tuple[str, str, str]) -> None:
    """Where there is no dot product of bytes; exact, also where sums in 16 bits would saturate."""
    avx2 = find_target("x86-avx2")
    (name,) = names(product(8, 32, 48, types), avx2)
    assert name.startswith("x86.avx2.vpmaddwd")
    bytes_of = [np.iinfo(kind) for kind in types[:2]]
    rng = np.random.default_rng(0)
    for depth, columns in ((64, 96), (31, 50)):
        x, w = (
            rng.choice([kind.min, kind.max, 1], shape).astype(kind.dtype)
            for kind, shape in zip(bytes_of, ((37, depth), (depth, columns)), strict=True)
        )
        model = transect.compile(layers(types, "n", w), avx2, cache=False)
        assert f"instruction: {name}" in str(model.explain())
        for rows in (1, 4, 37):
            expected = x[:rows].astype(np.int32) @ w.astype(np.int32) + np.arange(columns)
            np.testing.assert_array_equal(np.asarray(model(x[:rows])), np.maximum(expected, 0))


def test_an_operand_with_its_sum_across_rows_is_not_taken() -> None:
    found = parse("""
@T.prim_func
def product(A: T.Buffer((32, 8), "uint8"), B: T.Buffer((32, 48), "int8"),
            C: T.Buffer((8, 48), "int32")):
    for i, j, k in T.grid(8, 48, 32):
        with T.block("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = 0
            C[vi, vj] = C[vi, vj] + T.cast(A[vk, vi], "int32") * T.cast(B[vk, vj], "int32")
""")
    assert isinstance(found, PrimFunc)
    assert DOT not in names(found)


# --- tiles ---


@pytest.mark.parametrize("at", ["vk, vj", "vj, vk"])
@pytest.mark.parametrize(("depth", "columns"), [(32, 48), (31, 47), (1, 1), (3, 20)])
def test_tiles_hold_what_the_array_held(at: str, depth: int, columns: int) -> None:
    func = product(3, depth, columns, BYTES, at)
    tiling = next(t for _, t in operand_tilings(contraction(func), ICELAKE) if t.lanes == 16)
    rng = np.random.default_rng(0)
    shape = (depth, columns) if at == "vk, vj" else (columns, depth)
    a = rng.integers(0, 256, (3, depth), np.uint8)
    b = rng.integers(-128, 128, shape, np.int8)
    expected, result = (np.zeros((3, columns), np.int32) for _ in range(2))
    interpret(func, a, b, expected)
    packed = to_tiles(b, tiling)
    assert packed.shape == (-(-columns // 16), -(-depth // 4), 16, 4)
    tiled = tile_axes(func, func.buffers[1], tiling)
    interpret(tiled, a, packed, result)
    np.testing.assert_array_equal(result, expected)
    assert all(c.is_tiled() for c in candidates(contraction(tiled), [TensorIntrin.get(DOT)]))


def test_what_is_not_in_tiles_is_not_taken_for_it() -> None:
    (found,) = candidates(contraction(product(8, 32, 48, BYTES)), [TensorIntrin.get(DOT)])
    assert not found.is_tiled()
    assert found.tiling() == Tiling(1, 16, 0, 4, ("columns", "reduce"))


# --- schedules ---


@pytest.mark.parametrize("tile", ["1x1", "2x3", "4x1", "8x3", "14x1"])
@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(8, 32, 48), (5, 31, 37), ("n", 18, 33), (1, 3, 5)]
)
def test_schedules_keep_the_result(tile: str, rows: int | str, depth: int, columns: int) -> None:
    func = product(rows, depth, columns, BYTES)
    tiling = next(t for _, t in operand_tilings(contraction(func), ICELAKE) if t.lanes == 16)
    tiled = tile_axes(func, func.buffers[1], tiling)
    answers = {"instruction": DOT, f"{DOT} tile": tile}
    if int(tile[-1]) > 1 and -(-columns // 16) % int(tile[-1]):
        answers[f"{DOT} tile"] = tile[:-1] + "1"
    sch = scheduled(tiled, answers)
    assert DOT in repr(sch.func)
    rng = np.random.default_rng(0)
    height = rows if isinstance(rows, int) else 11
    a = rng.integers(0, 256, (height, depth), np.uint8)
    b = rng.integers(-128, 128, (depth, columns), np.int8)
    result = np.full((height, columns), -1, np.int32)
    interpret(sch.func, a, to_tiles(b, tiling), result)
    np.testing.assert_array_equal(result, a.astype(np.int32) @ b.astype(np.int32))


def test_loops_are_another_option() -> None:
    func = product(8, 32, 48, BYTES)
    tiling = next(t for _, t in operand_tilings(contraction(func), ICELAKE) if t.lanes == 16)
    tiled = tile_axes(func, func.buffers[1], tiling)
    info = KernelInfo.of(tiled)
    assert info is not None
    (site,) = TensorizedRule().space(info, ICELAKE)
    assert {"loops", DOT} <= {option.name for option in site.options}
    sch = scheduled(tiled, {"instruction": "loops"})
    assert DOT not in repr(sch.func)


def test_rules_ask_for_instructions_before_loops() -> None:
    names = [rule.name for rule in RULES]
    assert names.index("x86.tensorized") < names.index("x86.vector_matrix")
    assert names.index("x86.tensorized") < names.index("x86.contraction")


# --- models ---


HERE = replace(
    this_machine(),
    features=frozenset(item for item in this_machine().features if not item.startswith("amx")),
)
"""This machine without AMX, whose tiles would be chosen where it has them."""


def layers(types: tuple[str, str, str], rows: int | str, data: np.ndarray) -> IRModule:
    left, _, result = types
    depth, columns = data.shape
    symbolic = f'"{rows}"' if isinstance(rows, str) else rows
    # The bias and the maximum are fused into what leaves the registers.
    found = parse(
        f"""
@R.function
def main(x: R.Tensor(({symbolic}, {depth}), "{left}")):
    with R.dataflow():
        h = R.matmul(x, W, out_dtype="{result}")
        y = R.maximum(R.add(h, BIAS), R.const(0, "{result}"))
        R.output(y)
    return y
""",
        W=rx.constant(data),
        BIAS=rx.constant(np.arange(columns).astype(result)),
    )
    return IRModule.of(main=found)


@NEEDS_DOT
@pytest.mark.parametrize("rows", [1, 37, "n"])
@pytest.mark.parametrize(("depth", "columns"), [(64, 96), (31, 50), (4, 16)])
def test_byte_models(rows: int | str, depth: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-128, 128, (depth, columns), np.int8)
    model = transect.compile(layers(BYTES, rows, w), HERE, cache=False)
    assert f"instruction: {DOT}" in str(model.explain())
    for height in [rows] if isinstance(rows, int) else [1, 14, 29]:
        x = rng.integers(0, 256, (height, depth), np.uint8)
        expected = np.maximum(x.astype(np.int32) @ w.astype(np.int32) + np.arange(columns), 0)
        np.testing.assert_array_equal(np.asarray(model(x)), expected)


@NEEDS_BFLOAT
@pytest.mark.parametrize("depth", [64, 33])
def test_bfloat16_models(depth: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((depth, 48)).astype(ml_dtypes.bfloat16)
    types = ("bfloat16", "bfloat16", "float32")
    # As on processors that do it as fast as a multiply-add of vectors.
    target = replace(HERE, extra={})
    model = transect.compile(layers(types, 20, w), target, cache=False)
    assert f"instruction: {BFLOAT}" in str(model.explain())
    x = rng.standard_normal((20, depth)).astype(ml_dtypes.bfloat16)
    expected = np.maximum(x.astype(np.float32) @ w.astype(np.float32) + np.arange(48), 0)
    np.testing.assert_allclose(np.asarray(model(x)), expected, rtol=1e-5, atol=1e-4)


@NEEDS_DOT
def test_a_plan_fixes_the_instruction() -> None:
    w = np.ones((32, 32), np.int8)
    module = layers(BYTES, 4, w)
    best = transect.compile(module, HERE, cache=False)
    again = transect.compile(module, HERE, plan=best.plan, cache=False)
    assert again.plan.answers == best.plan.answers
    assert any(name == DOT for name in best.plan.answers.values())


@NEEDS_DOT
@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(5, 31, 37), ("n", 18, 20), (1, 3, 5)])
def test_kernels_stay_within_their_memory(
    behind: bool, rows: int | str, depth: int, columns: int
) -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-128, 128, (depth, columns), np.int8)
    with exact_workspaces():
        model = transect.compile(layers(BYTES, rows, w), HERE, cache=False)
    guard = Guard(behind=behind)
    x = rng.integers(0, 256, (rows if isinstance(rows, int) else 17, depth), np.uint8)
    found = guarded(model, guard)(x)
    expected = np.maximum(x.astype(np.int32) @ w.astype(np.int32) + np.arange(columns), 0)
    np.testing.assert_array_equal(np.asarray(found), expected)
    assert guard.damage() is None


# --- handing over ---


def test_with_intrinsics_refuses_what_the_target_lacks() -> None:
    with pytest.raises(InputError, match=r"x86-x86-64-v3 lacks avx512_vnni, avx512f, which x86\."):
        with_intrinsics(find_target("x86-avx2"), [TensorIntrin.get(DOT)])


def test_what_is_given_with_a_target_is_offered_and_part_of_the_cache_key() -> None:
    known = TensorIntrin.get(DOT)
    mine = TensorIntrin("test.given", known.description, known.implementation, rate=8.0)
    target = with_intrinsics(ICELAKE, [mine])
    assert mine in instructions_of(target)
    assert mine not in instructions_of(ICELAKE)
    other = with_intrinsics(replace(ICELAKE), [known])
    assert target.extra != other.extra
    assert str(target) == str(ICELAKE)


def test_compile_refuses_processors_of_another_kind() -> None:
    with pytest.raises(UnsupportedError, match="is another kind"):
        transect.compile(product(2, 4, 16, BYTES), target="arm-neoverse-v1", cache=False)
