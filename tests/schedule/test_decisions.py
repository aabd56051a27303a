"""Tiles whose sizes are decided later: which primitives take them, and what is refused."""

import numpy as np
import pytest

from tests.schedule.programs import chain, matmul, row_sum, run
from transect.ir.expr import Var, as_int
from transect.ir.sizes import ceildiv
from transect.support.errors import InputError, ScheduleError
from transect.tir.decisions import decide, decision_vars
from transect.tir.schedule import Schedule


@pytest.fixture(autouse=True)
def _check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSECT_CHECK", "1")


def extents(s: Schedule, block: str) -> list[int | None]:
    return [as_int(s.get(loop).extent) for loop in s.get_loops(s.get_block(block))]


def same_results(s: Schedule) -> None:
    for before, after in zip(run(s.source, {}), run(s.func, {}), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_split_by_a_decision_that_may_not_divide_gets_a_predicate() -> None:
    s = Schedule(chain(10, 6))
    tile = s.decision("tile", [1, 4, 16])
    loop = s.get_loops(s.get_block("b"))[0]
    s.split(loop, [None, tile])
    assert decision_vars(s.func) == (tile,)
    assert "T.where(tile * i0_0 + i0_1 < 10)" in str(s.func)
    for number in (1, 4, 16):
        twin = s.copy()
        twin.decide_sizes({tile: number})
        assert extents(twin, "b") == [-(-10 // number), number, 6]
        same_results(twin)


def test_a_domain_padded_to_a_decision_is_split_without_a_predicate() -> None:
    s = Schedule(matmul(10, 7, 5))
    tile = Var("tile")
    block = s.get_block("y")
    s.cache_write(block, 0, "local")
    s.pad_domain(block, [tile, tile * 4, 1])
    i, j, _ = s.get_loops(block)
    s.split(i, [None, tile])
    s.split(j, [None, tile, 4])
    assert "T.where" not in str(s.func)
    s.decide_sizes({tile: 3})
    same_results(s)


def test_factors_that_cover_an_extent_rounded_up_need_no_open_one() -> None:
    s = Schedule(chain(10, 6))
    tile = Var("tile")
    s.split(s.get_loops(s.get_block("b"))[0], [ceildiv(10, tile), tile])
    s.decide_sizes({tile: 4})
    same_results(s)


def test_decisions_can_be_vectors_unrolled_partitions_and_factors_of_reductions() -> None:
    s = Schedule(row_sum(6, 12))
    lanes, part = s.decision("lanes", [4]), s.decision("part", [5])
    block = s.get_block("s")
    s.pad_domain(s.get_block("s"), [1, 1])
    i, k = s.get_loops(block)
    s.loop_partition(i, [6 // part * part, None])
    assert "part" in str(s.func)
    s = Schedule(row_sum(6, 12))
    block = s.get_block("s")
    s.cache_write(block, 0, "local")
    s.pad_domain(block, [1, lanes])
    _, k = s.get_loops(block)
    _, inner = s.split(k, [None, lanes])
    s.rfactor(inner)
    s.unroll(s.get_loops(s.get_block("s"))[-1])
    s.decide_sizes({lanes: 4})
    same_results(s)


def test_handles_stay_valid_when_sizes_are_decided() -> None:
    s = Schedule(chain(10, 6))
    tile = Var("tile")
    outer, inner = s.split(s.get_loops(s.get_block("b"))[0], [None, tile])
    s.decide_sizes({tile: 5})
    assert as_int(s.get(inner).extent) == 5
    s.parallel(outer)
    same_results(s)


def test_a_trace_with_decisions_replays_and_is_saved() -> None:
    s = Schedule(chain(10, 6))
    tile = s.decision("tile", [4])
    s.split(s.get_loops(s.get_block("b"))[0], [None, tile])
    s.decide_sizes({tile: 4})
    again = Schedule(chain(10, 6))
    fresh = again.decision("tile", [4])
    again.replay(again.load_trace(s.trace.to_json()))
    assert decision_vars(again.func) == ()
    assert str(again.func) == str(s.func)
    assert fresh is not tile


def test_a_loop_of_unknown_size_is_still_no_vector() -> None:
    s = Schedule(chain(Var("n"), 6))
    with pytest.raises(ScheduleError, match="its extent n is not a constant"):
        s.vectorize(s.get_loops(s.get_block("b"))[0])


@pytest.mark.parametrize("number", [0, -2])
def test_a_decision_is_positive(number: int) -> None:
    s = Schedule(chain(10, 6))
    tile = Var("tile")
    s.split(s.get_loops(s.get_block("b"))[0], [None, tile])
    with pytest.raises(ScheduleError, match=f"decide_sizes: tile = {number}"):
        s.decide_sizes({tile: number})
    with pytest.raises(InputError, match=f"tile = {number}: a decision is a positive number"):
        decide(s.func, {tile: number})


def test_every_decision_needs_a_number() -> None:
    s = Schedule(chain(10, 6))
    s.split(s.get_loops(s.get_block("b"))[0], [None, Var("tile")])
    with pytest.raises(InputError, match="no number for the decision variable 'tile'"):
        decide(s.func, {})


def test_decisions_have_candidates_and_names_of_their_own() -> None:
    s = Schedule(chain(10, 6))
    s.decision("tile", [1, 2])
    for name, numbers in (("tile", [3]), ("other", []), ("third", [0])):
        with pytest.raises(ScheduleError, match=f"decision {name!r}"):
            s.decision(name, numbers)
