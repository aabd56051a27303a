"""Policies: feasible answers, exact optimum, partial plans, striking out, replay."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from transect.ir.dtype import FLOAT32
from transect.ir.expr import Var
from transect.plan import (
    Cost,
    Exclusion,
    ExhaustivePolicy,
    GreedyPolicy,
    Option,
    PairCost,
    Plan,
    Planner,
    Problem,
    RandomPolicy,
    Site,
    SiteKey,
)
from transect.plan.cost import bandwidth
from transect.support.errors import InputError, PlanError
from transect.target import Target


def key(kind: str, subject: str) -> SiteKey:
    return SiteKey(kind, subject, "test")


def seconds(value: float) -> Cost:
    return Cost(calls=value)


def matmul_and_gelu() -> Problem:
    """The library is faster alone, but only generated code can take the next operator in."""
    tile = Site(
        key("tile", "matmul"), (Option("8x32", cost=seconds(0)), Option("4x16", cost=seconds(3)))
    )
    implementation = Site(
        key("implementation", "matmul"),
        (
            Option("library", cost=seconds(10)),
            Option("generated", cost=seconds(11), children=(tile,)),
        ),
        label="matmul",
    )
    fusion = Site(
        key("fusion", "matmul-gelu"),
        (Option("no"), Option("yes", cost=seconds(0))),
        label="matmul-gelu",
    )
    return Problem(
        (implementation, fusion),
        pair_costs=(PairCost(((fusion.key, "no"),), seconds(5)),),
        exclusions=(
            Exclusion(
                ((implementation.key, "library"), (fusion.key, "yes")),
                "a library takes no epilogue",
            ),
        ),
    )


def answer(plan: Plan, kind: str) -> str | None:
    return next((v for k, v in plan.answers.items() if k.startswith(f"{kind}:")), None)


def test_greedy_decides_each_site_alone() -> None:
    plan = GreedyPolicy().solve(matmul_and_gelu())
    assert answer(plan, "implementation") == "library"
    assert answer(plan, "fusion") == "no"
    assert answer(plan, "tile") is None, "a site under an option that was not taken has no answer"


def test_exhaustive_sees_that_fusing_changes_the_best_implementation() -> None:
    plan = ExhaustivePolicy().solve(matmul_and_gelu())
    assert (answer(plan, "implementation"), answer(plan, "fusion")) == ("generated", "yes")
    assert answer(plan, "tile") == "8x32"


def test_random_answers_are_feasible_reproducible_and_differ() -> None:
    problem = matmul_and_gelu()
    plans = [RandomPolicy(seed).solve(problem).answers for seed in range(20)]
    assert plans == [RandomPolicy(seed).solve(problem).answers for seed in range(20)]
    assert len({tuple(sorted(plan.items())) for plan in plans}) > 2
    for plan in plans:
        assert not (
            plan[str(key("implementation", "matmul"))] == "library"
            and plan[str(key("fusion", "matmul-gelu"))] == "yes"
        )


@pytest.mark.parametrize("policy", [GreedyPolicy(), ExhaustivePolicy(), RandomPolicy(3)])
def test_fixed_answers_are_honoured_and_the_others_adapt(policy: GreedyPolicy) -> None:
    plan = policy.solve(matmul_and_gelu(), Plan({"fusion:*": "yes"}))
    assert answer(plan, "implementation") == "generated"
    reasons = {d.label: d.reason for d in plan.decisions}
    assert reasons["fusion:matmul-gelu"] == "fixed by the given plan"


@pytest.mark.parametrize("policy", [GreedyPolicy(), ExhaustivePolicy(), RandomPolicy(3)])
def test_contradictory_fixed_answers_say_why(policy: GreedyPolicy) -> None:
    with pytest.raises(PlanError, match="a library takes no epilogue"):
        policy.solve(matmul_and_gelu(), Plan({"fusion:*": "yes", "implementation:*": "library"}))


def test_forbidding_every_option_is_an_error() -> None:
    with pytest.raises(PlanError, match="forbids every option of implementation:matmul"):
        GreedyPolicy().solve(
            matmul_and_gelu(), Plan(forbidden={"implementation:*": ("library", "generated")})
        )


def test_unknown_option_lists_the_options() -> None:
    with pytest.raises(PlanError, match="no option 'mkl'") as error:
        GreedyPolicy().solve(matmul_and_gelu(), Plan({"implementation:matmul": "mkl"}))
    assert "library, generated" in str(error.value)


def test_a_preference_yields_where_it_is_impossible() -> None:
    hint = Plan({"fusion:*": "no"}, preferred={"implementation:*": "generated"})
    assert answer(GreedyPolicy().solve(matmul_and_gelu(), hint), "implementation") == "generated"


def test_striking_out_an_option_and_solving_again() -> None:
    problem = matmul_and_gelu()
    again = problem.without(key("implementation", "matmul"), "library")
    assert answer(GreedyPolicy().solve(again), "implementation") == "generated"
    with pytest.raises(PlanError, match="no option of implementation:matmul applies"):
        again.without(key("implementation", "matmul"), "generated")


def test_exhaustive_solves_unconnected_sites_apart() -> None:
    sites = tuple(
        Site(key("tile", f"region{i}"), tuple(Option(str(j), cost=seconds(j)) for j in range(8)))
        for i in range(200)
    )
    plan = ExhaustivePolicy(limit=1000).solve(Problem(sites))
    assert set(plan.answers.values()) == {"0"}


def test_exhaustive_refuses_what_is_too_large() -> None:
    sites = tuple(
        Site(key("tile", f"region{i}"), tuple(Option(str(j), cost=seconds(1)) for j in range(8)))
        for i in range(12)
    )
    pairs = tuple(PairCost(((a.key, "0"), (b.key, "1")), seconds(1)) for a, b in pairwise(sites))
    with pytest.raises(PlanError, match="more than 50 combinations"):
        ExhaustivePolicy(limit=50).solve(Problem(sites, pair_costs=pairs))


def test_plan_round_trips_through_json_and_replays() -> None:
    plan = RandomPolicy(7).solve(matmul_and_gelu())
    loaded = Plan.from_json(plan.to_json())
    assert loaded == plan
    assert GreedyPolicy().solve(matmul_and_gelu(), loaded).answers == plan.answers


def test_a_file_that_is_not_a_plan() -> None:
    with pytest.raises(InputError, match="not a plan"):
        Plan.from_json("{}")


def test_planner_shares_the_answer_of_equal_sites() -> None:
    site = Site(key("tile", "a"), tuple(Option(str(i), cost=seconds(1)) for i in range(50)))
    planner = Planner(RandomPolicy(1))
    assert planner.choose(site) is planner.choose(site)
    assert len(planner.plan.decisions) == 1


def test_explain_shows_every_option_with_its_cost() -> None:
    text = GreedyPolicy().solve(matmul_and_gelu()).explain()
    assert "implementation:matmul: library" in text
    assert "generated" in text
    assert "us predicted" in text


def test_roofline_cost() -> None:
    cost = Cost(operations={FLOAT32: 2e9}, traffic={"memory": 1e6}, efficiency=0.5, threads=1)
    problem = Problem(())
    expected = 2e9 / problem.target.peak(FLOAT32) / 0.5
    assert problem.seconds(cost) == pytest.approx(expected)


def test_an_answer_is_good_for_several_scales_of_sizes() -> None:
    """Fixed costs pay off for large sizes only: how much so counts in the mean, not in seconds."""
    size = Var("n")
    options = (
        Option("plain", cost=Cost(calls=size * 1e-6)),
        Option("prepared", cost=Cost(calls=size * 0.5e-6 + 40e-6)),
    )
    one = Site(key("tile", "a"), options)
    several = replace(one, scales=(1, 4, 16))
    problem = Problem((one, several))
    assert problem.times(one) == pytest.approx({"plain": 64e-6, "prepared": 72e-6})
    slower = {"plain": (1, 256 / 168, 1024 / 552), "prepared": (72 / 64, 1, 1)}
    expected = {name: 64e-6 * sum(of) / 3 for name, of in slower.items()}
    assert problem.times(several) == pytest.approx(expected)
    for policy in (GreedyPolicy(), ExhaustivePolicy()):
        for site, best in ((one, "plain"), (several, "prepared")):
            assert policy.solve(Problem((site,))).answers == {str(site.key): best}
    free = Option("free")
    assert problem.times(replace(several, options=(options[0], free))) == pytest.approx(
        {"plain": 64e-6, "free": 0.0}
    )


def test_a_target_tells_its_own_rates() -> None:
    target = Target("x86", "generic", extra={"bytes_per_cycle": {"L2": 50}})
    assert bandwidth(target, "L2", 2) == 100 * target.clock
    assert bandwidth(target, "L3", 1) == bandwidth(Target("x86", "generic"), "L3", 1)
    with pytest.raises(InputError, match="bytes_per_cycle") as error:
        bandwidth(replace(target, extra={"bytes_per_cycle": 50}), "L2", 1)
    assert error.value.remedy is not None


def test_a_name_that_fits_no_choice_is_an_error() -> None:
    planner = Planner(given=Plan({"implementatoin:*": "generated"}))
    planner.solve(matmul_and_gelu())
    with pytest.raises(PlanError, match="no choice has that name") as error:
        planner.check_all_used()
    assert "there is 'implementation:matmul'" in str(error.value)


def test_a_saved_plan_may_be_of_a_larger_program() -> None:
    planner = Planner(given=Plan({str(key("tile", "gone")): "8x32", "fusion:*": "no"}))
    planner.solve(matmul_and_gelu())
    planner.check_all_used()
