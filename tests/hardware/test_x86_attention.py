"""Attention on x86: one nest that keeps the meaning, with whole rows of a few queries at a time."""

from __future__ import annotations

import numpy as np
import pytest

import transect
from tests.hardware.attention_programs import attention, operands
from transect.hardware import schedule_rules
from transect.hardware.kernel import KernelInfo
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.hardware.x86 import AVX2, SAPPHIRE_RAPIDS, TARGETS, host
from transect.hardware.x86.attention import AttentionRule
from transect.ir.expr import Var, as_int
from transect.ir.function import IRModule
from transect.plan import Planner, RandomPolicy
from transect.target import Target
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule
from transect.tir.stmt import Block
from transect.tir.transform import lowering
from transect.tir.visit import walk_stmts
from transect.transform import Context, Pipeline

SYMBOLS = tuple(Var(name) for name in "bhnmde")
TOLERANCE = 2e-6


def scheduled(func: PrimFunc, target: Target, seed: int | None = None) -> PrimFunc:
    planner = Planner(target=target) if seed is None else Planner(RandomPolicy(seed), target=target)
    context = Context(target=target, planner=planner)
    made = ScheduleKernels(schedule_rules("x86"))(IRModule.of(f=func), context)["f"]
    assert isinstance(made, PrimFunc)
    assert made.attrs["tir.schedule_rules"][0] == "x86.attention", made.attrs
    assert "tir.schedule_refusals" not in made.attrs
    return made


def info_of(func: PrimFunc) -> KernelInfo:
    info = KernelInfo.of(func)
    assert info is not None
    return info


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("target", [AVX2, SAPPHIRE_RAPIDS], ids=str)
@pytest.mark.parametrize("heads_inside", [False, True])
def test_schedules_keep_the_meaning(seed: int | None, target: Target, heads_inside: bool) -> None:
    sizes = (1, 2, 5, 11, 3, 6)
    func = attention(*sizes, mask=True, heads_inside=heads_inside)
    arrays, exact = operands(*sizes, mask=True, heads_inside=heads_inside)
    output = np.full(exact.shape, np.nan, np.float32)
    interpret(scheduled(func, target, seed), *arrays, output)
    np.testing.assert_allclose(output, exact, rtol=TOLERANCE, atol=TOLERANCE)


SHAPES = [
    (1, 1, 1, 1, 1, 1),
    (1, 2, 1, 300, 64, 64),
    (2, 3, 7, 13, 5, 3),
    (1, 2, 130, 129, 64, 64),
    (1, 1, 33, 47, 17, 70),
    (3, 1, 12, 16, 16, 16),
    (1, 2, 0, 5, 8, 8),
    (1, 1, 197, 197, 64, 64),
]


def agrees(model: transect.CompiledModel, sizes: tuple[int, ...], seed: int, **form: bool) -> None:
    arrays, exact = operands(*sizes, **form, seed=seed)  # pyright: ignore[reportArgumentType]
    # Room around the output shows writes beyond it.
    room = np.full(exact.size + 128, 99, np.float32)
    output = room[64 : 64 + exact.size].reshape(exact.shape)
    model(*arrays, output)
    np.testing.assert_allclose(output, exact, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(sizes))
    assert (room[:64] == 99).all(), sizes
    assert (room[64 + exact.size :] == 99).all(), sizes


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("heads_inside", [False, True])
def test_symbolic_sizes_compiled(mask: bool, heads_inside: bool) -> None:
    func = attention(*SYMBOLS, mask=mask, heads_inside=heads_inside)
    model = transect.compile(func, target=host(), cache=False)
    for sizes in SHAPES:
        agrees(model, sizes, 0, mask=mask, heads_inside=heads_inside)
    rng = np.random.default_rng(1)
    for seed in range(30):
        sizes = (*rng.integers(1, 3, 2).tolist(), *rng.integers(1, 80, 4).tolist())
        agrees(model, sizes, seed, mask=mask, heads_inside=heads_inside)


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_static_sizes_compiled(sizes: tuple[int, ...]) -> None:
    model = transect.compile(attention(*sizes, mask=True), target=host(), cache=False)
    agrees(model, sizes, 0, mask=True, heads_inside=False)


@pytest.mark.parametrize("length", [128, Var("s")])
def test_only_a_block_of_rows_of_scores_is_held(length: Var | int) -> None:
    func = attention(1, 2, length, length, 64, 64)
    context = Context(target=SAPPHIRE_RAPIDS)
    passes = lowering(SAPPHIRE_RAPIDS)
    place = next(n for n, item in enumerate(passes) if type(item).__name__ == "PlanAllocations")
    module = Pipeline(*passes[: place + 1])(
        IRModule.of(f=scheduled(func, SAPPHIRE_RAPIDS)), context
    )
    made = module["f"]
    assert isinstance(made, PrimFunc)
    buffers = [
        item for s in walk_stmts(made.body) if isinstance(s, Block) for item in s.alloc_buffers
    ]
    rows = [item for item in buffers if item.name in ("t", "p_common")]
    assert len(rows) == 2
    for item in rows:
        *_, held, width = item.shape
        assert (as_int(held) or 10**6) <= 64, item.shape
        assert width is length or as_int(width) == length
    # The panels of keys and values are those of one batch.
    packed = [item for item in buffers if item.name.endswith("_global")]
    assert packed
    assert all(as_int(item.shape[0]) == as_int(item.shape[1]) == 1 for item in packed)


def test_exponentials_are_computed_once_and_rows_divided_once() -> None:
    made = repr(scheduled(attention(1, 2, 128, 128, 64, 64), SAPPHIRE_RAPIDS))
    assert made.count("T.exp(") <= 2, "full vectors, and what is left over"
    assert "/ w[" in made
    assert "p[" not in made


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_sites(target: Target) -> None:
    func = attention(1, 12, 128, 128, 64, 64)
    rule, info = AttentionRule(), info_of(func)
    stated = rule.space(info, target)
    tile = Planner(target=target).choose(stated[0]).parameters
    rows, vectors = tile["rows"], tile["vectors"]
    assert isinstance(rows, int)
    assert isinstance(vectors, int)
    assert rows * vectors + vectors + 1 <= target.vector_registers
    assert rows >= 4
    asked = Schedule(func, decide=Planner(target=target).choose, target=str(target))
    rule.apply(asked, info, target)
    assert set(asked.trace.answers) == {str(site.key) for site in stated}


def test_factors_of_rows_go_where_there_are_fewer() -> None:
    def choice(m: int, e: int) -> str:
        info = info_of(attention(1, 1, 64, m, 16, e))
        return Planner(target=AVX2).choose(AttentionRule().space(info, AVX2)[1]).name

    assert choice(512, 64) == "of results"
    assert choice(16, 256) == "of weights"


def test_the_schedule_replays() -> None:
    func = attention(1, 2, 20, 33, 8, 8, mask=True)
    made = Schedule(func, decide=Planner(target=AVX2).choose, target=str(AVX2))
    AttentionRule().apply(made, info_of(func), AVX2)
    again = Schedule(func)
    again.replay(again.load_trace(made.trace.to_json()))
    assert repr(again.func) == repr(made.func)
