"""PlanGraph states, solves and applies; DispatchLibraries puts a library's program in place."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.plan import (
    Cost,
    ExhaustivePolicy,
    GreedyPolicy,
    Option,
    Plan,
    Planner,
    Policy,
    Problem,
    Site,
    SiteKey,
)
from transect.plan.policy import Choice
from transect.relax import expr as rx
from transect.relax.transform.dispatch_libraries import Dispatch, DispatchLibraries
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.plan_graph import PlanGraph
from transect.relax.verify import verify_module as verify_graphs
from transect.relax.visit import bindings
from transect.script import ir as I
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import InputError, PlanError
from transect.target import Target
from transect.tir.analysis import sole_contraction
from transect.tir.function import PrimFunc
from transect.transform import Context

n = T.symbolic("n")
MICROSECOND = 1e-6


@I.ir_module
class Before:
    @T.prim_func(private=True)
    def product(
        X: T.Buffer[(n, 64), "float32"],
        W: T.Buffer[(64, 32), "float32"],
        Y: T.Buffer[(n, 32), "float32"],
    ):
        for i, j, k in T.grid(n, 32, 64):
            with T.block("product"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    Y[vi, vj] = T.float32(0)
                Y[vi, vj] += X[vi, vk] * W[vk, vj]

    @T.prim_func(private=True)
    def shift(X: T.Buffer[(n, 32), "float32"], Y: T.Buffer[(n, 32), "float32"]):
        for i, j in T.grid(n, 32):
            with T.block("shift"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj] + T.float32(1)

    @R.function
    def main(
        x: R.Tensor[(n, 64), "float32"], w: R.Tensor[(64, 32), "float32"]
    ) -> R.Tensor[(n, 32), "float32"]:
        R.func_attr({"global_symbol": "main"})
        with R.dataflow():
            y = R.call_tir(product, [x, w], R.Tensor[(n, 32), "float32"])
            z = R.call_tir(shift, [y], R.Tensor[(n, 32), "float32"])
            R.output(z)
        return z


@T.prim_func
def stand_in(
    X: T.Buffer[(n, 64), "float32"],
    W: T.Buffer[(64, 32), "float32"],
    Y: T.Buffer[(n, 32), "float32"],
):
    T.call_extern("fake_gemm", X.data, W.data, Y.data, n, dtype="void")


@I.ir_module
class Dispatched:
    @T.prim_func(private=True)
    def shift(X: T.Buffer[(n, 32), "float32"], Y: T.Buffer[(n, 32), "float32"]):
        for i, j in T.grid(n, 32):
            with T.block("shift"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj] + T.float32(1)

    @T.prim_func(private=True)
    def fake_gemm(
        X: T.Buffer[(n, 64), "float32"],
        W: T.Buffer[(64, 32), "float32"],
        Y: T.Buffer[(n, 32), "float32"],
    ):
        T.func_attr({"library": "fake.gemm"})
        T.call_extern("fake_gemm", X.data, W.data, Y.data, n, dtype="void")

    @R.function
    def main(
        x: R.Tensor[(n, 64), "float32"], w: R.Tensor[(64, 32), "float32"]
    ) -> R.Tensor[(n, 32), "float32"]:
        R.func_attr({"global_symbol": "main"})
        with R.dataflow():
            y = R.call_tir(fake_gemm, [x, w], R.Tensor[(n, 32), "float32"])
            z = R.call_tir(shift, [y], R.Tensor[(n, 32), "float32"])
            R.output(z)
        return z


@dataclass(frozen=True)
class Fake:
    """An offer of a library that does not exist."""

    routine: str
    cost: Cost
    program: PrimFunc


@dataclass(frozen=True)
class Watched(Policy):
    """A policy whose problems are kept."""

    inner: Policy
    seen: list[Problem] = field(default_factory=list[Problem])

    def choose_all(self, problem: Problem, fixed: Plan) -> tuple[Choice, str]:
        self.seen.append(problem)
        return self.inner.choose_all(problem, fixed)


def graph(module: IRModule = Before) -> rx.Function:
    main = module["main"]
    assert isinstance(main, rx.Function)
    return main


def planned(
    library: float, generated: float, policy: Policy, plan: Plan | None = None
) -> tuple[IRModule, Problem, Plan]:
    """Before, planned with a library and a generated program of these predicted microseconds."""

    def offers(func: PrimFunc, target: Target) -> tuple[Fake, ...]:
        assert sole_contraction(func) is not None, "offers are for contractions"
        return (Fake("fake.gemm", Cost(calls=library * MICROSECOND), stand_in),)

    def space(func: PrimFunc, target: Target) -> tuple[Site, ...]:
        key = SiteKey("schedule", "product", str(target), "tile")
        slow = Option("slow", cost=Cost(calls=9 * generated * MICROSECOND))
        return (Site(key, (slow, Option("fast", cost=Cost(calls=generated * MICROSECOND)))),)

    watched = Watched(policy)
    planner = Planner(watched, plan or Plan())
    module = PlanGraph(offers, space)(Before, Context(planner=planner))
    verify_graphs(module)
    return module, watched.seen[0], planner.plan


def kernels(module: IRModule) -> list[PrimFunc]:
    return [f for f in module.functions.values() if isinstance(f, PrimFunc)]


def answers(plan: Plan) -> dict[str, str]:
    return {decision.label: decision.chosen for decision in plan.decisions}


# --- the problem --------------------------------------------------------------------------------


def test_the_problem_is_stated_whole() -> None:
    module, problem, _ = planned(5, 50, GreedyPolicy())
    assert module is not Before
    implementation, fusion = problem.sites
    assert implementation.title == "implementation:product y"
    assert [option.name for option in implementation.options] == ["generated", "fake.gemm"]
    (tile,) = implementation.option("generated").children
    assert [option.name for option in tile.options] == ["slow", "fast"]
    assert implementation.option("fake.gemm").children == ()
    assert fusion.title == "fusion:product y -> shift z"
    assert [option.name for option in fusion.options] == ["yes", "no"]
    (exclusion,) = problem.exclusions
    assert set(exclusion.answers) == {(implementation.key, "fake.gemm"), (fusion.key, "yes")}
    assert exclusion.reason == "fake.gemm computes the product alone"
    assert problem.seconds(fusion.option("no").cost) > problem.seconds(fusion.option("yes").cost)
    assert implementation.span == Before["product"].span


def test_stating_a_problem_changes_nothing() -> None:
    text = repr(Before)
    planned(5, 50, GreedyPolicy())
    assert repr(Before) == text


def test_keys_are_equal_for_equal_programs() -> None:
    first = [site.key for site in planned(5, 50, GreedyPolicy())[1].sites]
    second = [site.key for site in planned(7, 9, ExhaustivePolicy())[1].sites]
    assert first == second
    assert len(set(first)) == 2


# --- what is applied ----------------------------------------------------------------------------


def test_a_cheap_library_takes_the_call() -> None:
    module, _, plan = planned(5, 50, GreedyPolicy())
    assert structural_mismatch(module, Dispatched) is None
    assert module["fake_gemm"].attrs["library"] == "fake.gemm"
    assert answers(plan) == {
        "implementation:product y": "fake.gemm",
        "fusion:product y -> shift z": "no",
    }


def test_an_expensive_library_leaves_it_and_the_calls_fuse() -> None:
    module, _, plan = planned(500, 50, GreedyPolicy())
    (kernel,) = kernels(module)
    assert "library" not in kernel.attrs
    assert len([b for b in bindings(graph(module)) if isinstance(b.value, rx.Call)]) == 1
    assert answers(plan)["implementation:product y"] == "generated"
    assert answers(plan)["fusion:product y -> shift z"] == "yes"
    assert list(answers(plan).values()).count("fast") == 1, "the tile is part of the answer"


@pytest.mark.parametrize(
    ("policy", "implementation", "fusion"),
    [(GreedyPolicy(), "fake.gemm", "no"), (ExhaustivePolicy(), "generated", "yes")],
)
def test_fusing_changes_which_implementation_is_best(
    policy: Policy, implementation: str, fusion: str
) -> None:
    """Alone the library is a little cheaper, but not by what passing through memory costs."""
    _, _, plan = planned(49.9, 50, policy)
    assert answers(plan)["implementation:product y"] == implementation
    assert answers(plan)["fusion:product y -> shift z"] == fusion


def test_a_given_plan_is_applied() -> None:
    plan = Plan({"implementation:*": "generated", "fusion:*": "no"})
    module, _, made = planned(5, 50, GreedyPolicy(), plan)
    assert structural_mismatch(module, Before) is None
    assert answers(made)["fusion:product y -> shift z"] == "no"


def test_answers_that_exclude_each_other() -> None:
    plan = Plan({"implementation:*": "fake.gemm", "fusion:*": "yes"})
    with pytest.raises(PlanError) as caught:
        planned(5, 50, ExhaustivePolicy(), plan)
    assert "note: fake.gemm computes the product alone" in str(caught.value)


def test_a_plan_replays() -> None:
    first, _, plan = planned(49.9, 50, ExhaustivePolicy())
    again, _, replayed = planned(1, 50, GreedyPolicy(), Plan(plan.answers))
    assert structural_mismatch(first, again) is None
    assert replayed.answers == plan.answers


def test_a_graph_without_choices_is_left_alone() -> None:
    @R.function
    def main(x: R.Tensor[(n,), "float32"]):
        return R.exp(x)

    module = LegalizeOps()(IRModule.of(main=main))

    def refuse(func: PrimFunc, target: Target) -> tuple[Any, ...]:
        raise AssertionError("there is no contraction")

    assert PlanGraph(refuse, refuse)(module) is module


# --- DispatchLibraries alone --------------------------------------------------------------------


def variable(name: str) -> rx.Var:
    return next(binding.var for binding in bindings(graph()) if binding.var.name == name)


def test_a_call_is_dispatched_and_its_program_goes() -> None:
    calls = {variable("y"): Dispatch("fake.gemm", stand_in)}
    module = DispatchLibraries(calls)(Before)
    verify_graphs(module)
    assert structural_mismatch(module, Dispatched) is None


def test_a_program_that_others_call_stays() -> None:
    module = Before.with_function("product", Before["product"].with_attrs(global_symbol="product"))
    result = DispatchLibraries({variable("y"): Dispatch("fake.gemm", stand_in)})(module)
    assert "product" in result
    assert "fake_gemm" in result


def test_nothing_to_dispatch() -> None:
    assert structural_mismatch(DispatchLibraries({})(Before), Before) is None


def test_a_call_that_is_not_there() -> None:
    ghost = rx.Var("ghost", variable("y").type)
    with pytest.raises(InputError, match="the module has no call bound to ghost"):
        DispatchLibraries({ghost: Dispatch("fake.gemm", stand_in)})(Before)
