"""Traces replay, serialise and print; choices are sites of the plan."""

import pytest

from tests.schedule.programs import matmul
from transect.ir.expr import Var
from transect.ir.structural import structural_mismatch
from transect.plan import Option, Plan, Planner, RandomPolicy, Site
from transect.support.errors import InputError, ScheduleError
from transect.tir.schedule import Schedule, Trace, subject_of

N, M, D = Var("n"), Var("m"), Var("d")


def tiled(s: Schedule) -> None:
    y = s.get_block("y")
    copy = s.cache_write(y, 0, "local")
    i, j, k = s.get_loops(y)
    tile = s.sample_categorical([2, 4, 8], role="tile")
    i0, i1 = s.split(i, [None, tile])
    j0, j1 = s.split(j, [(M + 3) // 4, 4])
    s.reorder(i0, j0, k, i1, j1)
    s.reverse_compute_at(copy, j0)
    s.decompose_reduction(y, k)
    s.unroll(i1)


def test_replay_gives_an_equal_program() -> None:
    func = matmul(N, M, D)
    first, second = Schedule(func), Schedule(func)
    tiled(first)
    second.replay(first.trace)
    assert structural_mismatch(first.func, second.func) is None


def test_json_round_trip() -> None:
    func = matmul(N, M, D)
    first, second = Schedule(func), Schedule(func)
    tiled(first)
    text = first.trace.to_json()
    second.replay(second.load_trace(text))
    assert structural_mismatch(first.func, second.func) is None
    assert second.load_trace(text).to_json() == text


def test_prints_as_python_that_runs() -> None:
    func = matmul(N, M, D)
    first, second = Schedule(func), Schedule(func)
    y = first.get_block("y")
    i, _, k = first.get_loops(y)
    outer, inner = first.split(i, [None, 4])
    first.unroll(inner)
    first.parallel(outer)
    first.decompose_reduction(y, k)
    text = str(first.trace)
    assert "l3, l4 = sch.split(l0, factors=(None, 4))" in text
    exec(text, {"sch": second})
    assert structural_mismatch(first.func, second.func) is None


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other", "steps": []}', "[1]"])
def test_refuse_what_is_no_trace(text: str) -> None:
    with pytest.raises(InputError):
        Schedule(matmul(N, M, D)).load_trace(text)


def test_choices_are_sites_with_stable_keys() -> None:
    seen: list[Site] = []

    def decide(site: Site) -> Option:
        seen.append(site)
        return site.options[1]

    func = matmul(N, M, D)
    s = Schedule(func, decide=decide, target="x86-test")
    tiled(s)
    assert [option.name for option in seen[0].options] == ["2", "4", "8"]
    assert str(seen[0].key) == f"sample:tile@{subject_of(func)}/x86-test"
    assert s.trace.answers == {str(seen[0].key): "4"}
    other = matmul(Var("a"), Var("b"), Var("c"))
    assert subject_of(other) == subject_of(func)


def test_a_plan_fixes_a_choice_and_random_policies_differ() -> None:
    func = matmul(N, M, D)
    tiles: set[int] = set()
    for seed in range(12):
        s = Schedule(func, decide=Planner(RandomPolicy(seed)).choose)
        tiles.add(s.sample_categorical([2, 4, 8], role="tile"))
    assert len(tiles) > 1
    fixed = Planner(given=Plan({"sample:tile": "8"}))
    assert Schedule(func, decide=fixed.choose).sample_categorical([2, 4, 8], role="tile") == 8


def test_perfect_tiles_multiply_to_the_extent() -> None:
    s = Schedule(matmul(12, 8, 4), decide=lambda site: site.options[-1])
    loop = s.get_loops(s.get_block("y"))[0]
    tile = s.sample_perfect_tile(loop, 3, role="rows", max_innermost_factor=4)
    assert tile[0] * tile[1] * tile[2] == 12
    assert tile[2] <= 4
    s.split(loop, tile)


def test_perfect_tile_of_a_symbolic_loop_is_refused() -> None:
    s = Schedule(matmul(N, M, D))
    with pytest.raises(ScheduleError, match="has the symbolic extent n"):
        s.sample_perfect_tile(s.get_loops(s.get_block("y"))[0], 2, role="rows")


def test_a_refused_primitive_leaves_no_trace() -> None:
    s = Schedule(matmul(N, M, D))
    k = s.get_loops(s.get_block("y"))[2]
    before, trace = s.func, s.trace
    with pytest.raises(ScheduleError):
        s.parallel(k)
    assert s.func is before
    assert s.trace is trace


def test_empty_trace() -> None:
    assert str(Trace()) == ""
