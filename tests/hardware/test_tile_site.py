"""The CPU cost model over populations, and tile sizes as a site of the plan."""

import numpy as np
import pytest

from benchmarks.features import Tiled
from tests.schedule.programs import chain
from transect.hardware.cpu_cost import CpuCost
from transect.hardware.tile_site import chosen, tile_site
from transect.hardware.x86 import AVX2, ICELAKE
from transect.ir.expr import Var
from transect.plan import Planner, Problem, typical_size
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.schedule import Schedule


@pytest.fixture(scope="module")
def tiled() -> Tiled:
    return Tiled.of(500, 768, 640)


def seconds(tiled: Tiled, target: Target, rows: int, vectors: int) -> float:
    answer = (
        CpuCost()
        .of(tiled.schedule.func, target)
        .evaluate({tiled.rows: [rows], tiled.vectors: [vectors]})
    )
    return float(answer.seconds[0])


def test_a_population_is_scored_like_concrete_schedules(tiled: Tiled) -> None:
    found = (
        CpuCost()
        .of(tiled.schedule.func, ICELAKE)
        .evaluate({tiled.rows: np.array([2, 6, 7, 14]), tiled.vectors: np.array([3, 4, 2, 2])})
    )
    for place, tile in enumerate(((2, 3), (6, 4), (7, 2), (14, 2))):
        decided = CpuCost().of(tiled.at(*tile).func, ICELAKE).evaluate({})
        np.testing.assert_allclose(decided.seconds, found.seconds[place], rtol=1e-12)
        np.testing.assert_allclose(decided.live, found.live[place])


def test_operations_count_what_the_tiles_compute(tiled: Tiled) -> None:
    prediction = CpuCost().of(tiled.schedule.func, ICELAKE)
    found = prediction.evaluate({tiled.rows: [5, 16], tiled.vectors: [1, 1]})
    # 500 rows are whole tiles of five, and 512 in tiles of sixteen.
    assert list(found.operations) == [2 * 500 * 768 * 640, 2 * 512 * 768 * 640]


def test_registers_are_accumulators_vectors_and_one_element(tiled: Tiled) -> None:
    prediction = CpuCost().of(tiled.schedule.func, ICELAKE)
    found = prediction.evaluate({tiled.rows: [14, 6], tiled.vectors: [2, 4]})
    assert list(found.live) == [14 * 2 + 2 + 1, 6 * 4 + 4 + 1]
    narrow = CpuCost().of(tiled.schedule.func, AVX2).evaluate({tiled.rows: [6], tiled.vectors: [1]})
    # Sixteen lanes are two registers of eight.
    assert list(narrow.live) == [6 * 2 + 2 + 1]


def test_few_accumulators_wait_for_their_latency(tiled: Tiled) -> None:
    assert seconds(tiled, ICELAKE, 1, 1) > 6 * seconds(tiled, ICELAKE, 14, 2)
    assert seconds(tiled, ICELAKE, 2, 1) > 3 * seconds(tiled, ICELAKE, 14, 2)


def test_more_registers_than_there_are_cost_time(tiled: Tiled) -> None:
    assert seconds(tiled, ICELAKE, 16, 6) > seconds(tiled, ICELAKE, 6, 4)


def test_each_target_gets_its_own_tile(tiled: Tiled) -> None:
    options = {}
    for target in (ICELAKE, AVX2):
        site = tile_site(tiled.schedule, target)
        numbers = chosen(site.options[0], (tiled.rows, tiled.vectors))
        options[target.arch] = numbers
        native = 16 // target.lanes()
        rows, vectors = numbers[tiled.rows], numbers[tiled.vectors]
        assert (rows + 1) * vectors * native + 1 <= target.vector_registers
        assert rows * vectors * native >= 4 * target.fma_per_cycle
    assert options["icelake-server"] != options["x86-64-v3"]


def test_the_costs_of_options_are_what_the_model_predicts(tiled: Tiled) -> None:
    site = tile_site(tiled.schedule, ICELAKE, keep=5)
    assert len(site.options) == 5
    costs = [option.cost.seconds(ICELAKE, typical_size) for option in site.options]
    assert costs == sorted(costs)
    for option, cost in zip(site.options, costs, strict=True):
        numbers = chosen(option, (tiled.rows, tiled.vectors))
        expected = seconds(tiled, ICELAKE, numbers[tiled.rows], numbers[tiled.vectors])
        assert cost == pytest.approx(expected, rel=1e-6)
    answer = Planner(target=ICELAKE).choose(site)
    assert answer == site.options[0]
    assert Problem((site,), target=ICELAKE).seconds(answer.cost) == costs[0]


def test_conditions_leave_only_what_they_allow(tiled: Tiled) -> None:
    site = tile_site(tiled.schedule, ICELAKE, conditions=[tiled.rows * tiled.vectors <= 8])
    for option in site.options:
        numbers = chosen(option, (tiled.rows, tiled.vectors))
        assert numbers[tiled.rows] * numbers[tiled.vectors] <= 8


def test_conditions_that_leave_nothing_are_named(tiled: Tiled) -> None:
    with pytest.raises(ScheduleError, match="the conditions leave no assignment"):
        tile_site(tiled.schedule, ICELAKE, conditions=[tiled.rows > 1000])


def test_a_decision_without_candidates_is_named() -> None:
    s = Schedule(chain(10, 6))
    s.split(s.get_loops(s.get_block("b"))[0], [None, Var("tile")])
    with pytest.raises(ScheduleError, match="tile_site: no candidates for tile"):
        tile_site(s, ICELAKE)


def test_a_parallel_loop_shares_the_work_as_evenly_as_it_divides() -> None:
    s = Schedule(chain(4096, 4096))
    tile = s.decision("tile", [256, 512, 4096])
    s.compute_inline(s.get_block("b"))
    outer, _ = s.split(s.get_loops(s.get_block("c"))[0], [None, tile])
    s.parallel(outer)
    answer = CpuCost().of(s.func, ICELAKE).evaluate({tile: np.array([256, 512, 4096])})
    assert np.all(answer.launches == 1)
    assert answer.core[0] == pytest.approx(answer.core[1], rel=0.01)
    assert answer.core[2] > 7 * answer.core[0]
    # Bound by memory or not, the plan's Cost says the same.
    for place, seconds in enumerate(answer.seconds):
        cost = answer.cost(place, ICELAKE).seconds(ICELAKE, typical_size)
        assert cost == pytest.approx(seconds, rel=1e-6)
