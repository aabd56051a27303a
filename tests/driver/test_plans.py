"""Plans end to end: random ones are right, saved ones replay, given ones are obeyed or refused."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transect
from tests.driver.programs import (
    SEED,
    magika_inputs,
    magika_path,
    seed_inputs,
    seed_reference,
    small_magika,
    small_magika_inputs,
)
from tests.frontend.onnx_models import expected
from transect import ExhaustivePolicy, GreedyPolicy, Plan, RandomPolicy
from transect.codegen.llvm.compile import compile_module
from transect.driver import CompiledModel
from transect.driver.services import library_offers
from transect.ir.function import IRModule
from transect.ir.structural import structural_hash
from transect.library import Offer
from transect.plan import Cost, Policy, Problem, Site
from transect.plan.policy import Choice, site_seconds, total_seconds
from transect.script import ir as I
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import InputError, PlanError
from transect.target import Target, host_target
from transect.tir.function import PrimFunc

SEED_SIZES = [(4, 3, 5), (1, 1, 1), (0, 7, 2), (33, 70, 17)]


def answers(plan: Plan, kind: str) -> dict[str, str]:
    """What was chosen at the sites of one kind, by label."""
    return {d.label: d.chosen for d in plan.decisions if d.label.startswith(f"{kind}:")}


def check_seed(model: CompiledModel) -> None:
    for size in SEED_SIZES:
        inputs = seed_inputs(*size)
        np.testing.assert_allclose(model(**inputs), seed_reference(**inputs), rtol=1e-4)


# --- the random policy ----------------------------------------------------------------------


def test_seed_under_random_plans() -> None:
    plans: set[str] = set()
    for number in range(20):
        model = transect.compile(SEED, policy=RandomPolicy(number), cache=False)
        plans.add(json.dumps(dict(model.plan.answers), sort_keys=True))
        check_seed(model)
    assert len(plans) >= 10, "the plans hardly differ"


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_small_magika_under_random_plans(first: int) -> None:
    program = small_magika()
    samples = [small_magika_inputs(batch) for batch in (1, 3)]
    wanted = [expected(program, inputs)[0] for inputs in samples]
    plans: set[str] = set()
    for number in range(first, first + 5):
        model = transect.compile(program, policy=RandomPolicy(number), cache=False)
        plans.add(json.dumps(dict(model.plan.answers), sort_keys=True))
        for inputs, scores in zip(samples, wanted, strict=True):
            np.testing.assert_allclose(model(**inputs), scores, rtol=1e-4, atol=1e-6)
    assert len(plans) == 5


@pytest.mark.slow
def test_magika_under_random_plans() -> None:
    inputs = magika_inputs(1)
    plans: list[Mapping[str, str]] = []
    default = transect.compile(magika_path(), cache=False)(**inputs)
    for number in range(2):
        model = transect.compile(magika_path(), policy=RandomPolicy(number), cache=False)
        np.testing.assert_allclose(model(**inputs), default, atol=1e-4)
        plans.append(model.plan.answers)
    assert plans[0] != plans[1]


# --- replay ---------------------------------------------------------------------------------


def kernels(model: CompiledModel) -> dict[str, Any]:
    """What must be equal in every process: each kernel, scheduled and lowered, and the code."""
    lowered = model.stages["LowerSignature"]
    hashes: dict[str, Any] = {
        stage: {name: structural_hash(f) for name, f in model.stages[stage].functions.items()}
        for stage in ("ScheduleKernels", "LowerSignature")
    }
    objects = compile_module(lowered, host_target()).objects
    return {**hashes, "code": hashlib.sha256(b"".join(objects)).hexdigest()}


REPLAY = """
import json, sys
import transect
from tests.driver.programs import SEED, small_magika
from tests.driver.test_plans import kernels
found = {}
for name, program in {"seed": SEED, "small": small_magika()}.items():
    plan = transect.Plan.load(f"{sys.argv[1]}/{name}.json")
    found[name] = kernels(transect.compile(program, plan=plan, cache=False))
print(json.dumps(found))
"""


def test_a_saved_plan_gives_identical_kernels_in_a_new_process(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {}
    for name, program in {"seed": SEED, "small": small_magika()}.items():
        model = transect.compile(program, policy=RandomPolicy(5), cache=False)
        wanted[name] = kernels(model)
        default = kernels(transect.compile(program, cache=False))
        assert default["code"] != wanted[name]["code"], "the plan makes no difference"
        model.plan.save(tmp_path / f"{name}.json")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPLAY, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "4321"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert json.loads(run.stdout) == wanted


def test_a_replayed_plan_says_that_it_was_given() -> None:
    model = transect.compile(SEED, policy=RandomPolicy(2), cache=False)
    again = transect.compile(SEED, plan=Plan.from_json(model.plan.to_json()), cache=False)
    assert again.plan.answers == model.plan.answers
    assert {decision.reason for decision in again.plan.decisions} == {"fixed by the given plan"}


# --- plans that an expert gives ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "implementation"),
    [
        (Plan({"implementation:*": "generated"}), "generated"),
        (Plan({"implementation:*": "openblas.gemm"}), "openblas.gemm"),
        (Plan(forbidden={"implementation:*": ("generated",)}), "openblas.gemm"),
        (Plan(forbidden={"implementation:*": ("openblas.gemm",)}), "generated"),
        (Plan(preferred={"implementation:*": "openblas.gemm"}), "openblas.gemm"),
        (Plan(preferred={"implementation:tir_mm*": "generated"}), "generated"),
    ],
)
def test_an_implementation_is_fixed_forbidden_or_preferred(plan: Plan, implementation: str) -> None:
    model = transect.compile(SEED, plan=plan, policy=RandomPolicy(1), cache=False)
    assert answers(model.plan, "implementation") == {"implementation:tir_mm lv0": implementation}
    libraries = [
        f.attrs["library"]
        for f in model.stages["PlanGraph"].functions.values()
        if "library" in f.attrs
    ]
    assert libraries == ([implementation] if implementation != "generated" else [])
    check_seed(model)


def test_without_libraries_all_code_is_generated() -> None:
    wants = Plan(preferred={"implementation:*": "openblas.gemm"})
    called = transect.compile(SEED, plan=wants, libraries=("openblas",), cache=False)
    alone = transect.compile(SEED, plan=wants, libraries=(), cache=False)
    label = "implementation:tir_mm lv0"
    assert answers(called.plan, "implementation") == {label: "openblas.gemm"}
    assert answers(alone.plan, "implementation") == {label: "generated"}
    (decision,) = [d for d in alone.plan.decisions if d.label == label]
    assert [name for name, _ in decision.options] == ["generated"]
    check_seed(alone)


def test_the_cache_tells_apart_what_libraries_may_be_called(tmp_path: Path) -> None:
    wants = Plan(preferred={"implementation:*": "openblas.gemm"})
    found = [
        set(answers(model.plan, "implementation").values())
        for libraries in (None, (), None)
        for model in [transect.compile(SEED, plan=wants, libraries=libraries, cache=tmp_path)]
    ]
    assert found == [{"openblas.gemm"}, {"generated"}, {"openblas.gemm"}]


def test_a_library_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="no library 'mkl'") as caught:
        transect.compile(SEED, libraries=("mkl",))
    assert "there are: openblas; () for none" in str(caught.value)


def test_a_tile_is_fixed() -> None:
    plan = Plan({"implementation:*": "generated", "schedule:*register tile": "4x16"})
    model = transect.compile(SEED, plan=plan, cache=False)
    assert answers(model.plan, "schedule")["schedule:body register tile"] == "4x16"
    check_seed(model)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            Plan({"implementation:*": "mkl"}),
            "the choice implementation:tir_mm lv0 has no option 'mkl'",
        ),
        (
            Plan(forbidden={"implementation:*": ("generated", "openblas.gemm")}),
            "the plan forbids every option of implementation:tir_mm lv0",
        ),
        (
            Plan({"fusion:*": "perhaps"}),
            "the choice fusion:flatten lv1 -> exp gv0 has no option 'perhaps'",
        ),
        (
            Plan({"implementation:*": "generated", "schedule:*register tile": "3x7"}),
            "the choice schedule:body register tile has no option '3x7'",
        ),
    ],
)
def test_plans_that_contradict_the_program(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        transect.compile(SEED, plan=plan, cache=False)
    assert caught.value.message == message
    assert caught.value.remedy is not None


n = T.symbolic("n")


@I.ir_module
class MatmulChain:
    """A product and what generated code can do to it while it is in registers."""

    @R.function
    def main(
        x: R.Tensor[(n, 64), "float32"],
        w: R.Tensor[(64, 96), "float32"],
        b: R.Tensor[(96,), "float32"],
    ):
        with R.dataflow():
            y = R.matmul(x, w)
            biased = R.add(y, b)
            z = R.nn.relu(biased)
            R.output(z)
        return z


def check_chain(model: CompiledModel) -> None:
    random = np.random.default_rng(3)
    for rows in (0, 1, 50):
        x = random.standard_normal((rows, 64), np.float32)
        w = random.standard_normal((64, 96), np.float32)
        b = random.standard_normal(96, np.float32)
        np.testing.assert_allclose(model(x, w, b), np.maximum(x @ w + b, 0), rtol=1e-4, atol=1e-4)


def test_a_library_and_a_fusion_that_it_cannot_do_contradict_each_other() -> None:
    plan = Plan({"implementation:*": "openblas.gemm", "fusion:matmul*": "yes"})
    with pytest.raises(PlanError) as caught:
        transect.compile(MatmulChain, plan=plan, cache=False)
    text = str(caught.value)
    assert "is possible with the other answers" in text
    assert "openblas.gemm computes the product alone" in text
    assert "help: fix fewer answers, or others" in text


@pytest.mark.parametrize("fused", ["yes", "no"])
def test_fusion_is_fixed(fused: str) -> None:
    plan = Plan({"implementation:*": "generated", "fusion:*": fused})
    model = transect.compile(MatmulChain, plan=plan, cache=False)
    assert set(answers(model.plan, "fusion").values()) == {fused}
    kernels_of_main = [f for f in model.stages["PlanGraph"].functions.values() if _is_kernel(f)]
    assert len(kernels_of_main) == (1 if fused == "yes" else 3)
    check_chain(model)


def _is_kernel(function: Any) -> bool:
    return isinstance(function, PrimFunc)


# --- exhaustive and greedy ----------------------------------------------------------------------


@dataclass(frozen=True)
class Watched(Policy):
    """A policy whose problems and answers are kept."""

    inner: Policy
    seen: list[tuple[Problem, Choice]] = field(default_factory=list[tuple[Problem, Choice]])

    def choose_all(self, problem: Problem, fixed: Plan) -> tuple[Choice, str]:
        choice, reason = self.inner.choose_all(problem, fixed)
        self.seen.append((problem, choice))
        return choice, reason

    def of_the_graph(self) -> tuple[Problem, Choice]:
        """The problem that holds the implementations and the fusions."""
        return next(item for item in self.seen if any(_is_fusion(s) for s in item[0].sites))


def _is_fusion(site: Site) -> bool:
    return site.key.kind == "fusion"


@pytest.fixture
def cheap_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenBLAS, at half of what fusing the product with its user saves below the generated code."""
    watched = Watched(GreedyPolicy())
    transect.compile(MatmulChain, policy=watched, cache=False)
    problem, _ = watched.of_the_graph()
    implementation = next(s for s in problem.sites if s.key.kind == "implementation")
    generated = site_seconds(problem, implementation)["generated"]
    fusion = next(s for s in problem.sites if s.title.startswith("fusion:matmul"))
    apart = problem.seconds(fusion.option("no").cost) - problem.seconds(fusion.option("yes").cost)
    assert apart > 0
    cost = Cost(calls=generated - apart / 2)

    def offers(func: PrimFunc, target: Target, names: object = None) -> tuple[Offer, ...]:
        del names
        return tuple(replace(offer, cost=cost) for offer in library_offers(func, target))

    # By its name in sys.modules: in its package, the name is that of the function.
    monkeypatch.setattr(sys.modules["transect.driver.pipeline"], "library_offers", offers)


@pytest.mark.usefixtures("cheap_library")
def test_exhaustive_sees_that_fusing_changes_the_best_implementation() -> None:
    greedy, exhaustive = Watched(GreedyPolicy()), Watched(ExhaustivePolicy())
    alone = transect.compile(MatmulChain, policy=greedy, cache=False)
    together = transect.compile(MatmulChain, policy=exhaustive, cache=False)
    assert list(answers(alone.plan, "implementation").values()) == ["openblas.gemm"]
    assert list(answers(together.plan, "implementation").values()) == ["generated"]
    assert answers(alone.plan, "fusion")["fusion:matmul y -> add biased"] == "no"
    assert set(answers(together.plan, "fusion").values()) == {"yes"}
    seconds = [total_seconds(*policy.of_the_graph()) for policy in (greedy, exhaustive)]
    assert seconds[1] < seconds[0]
    check_chain(alone)
    check_chain(together)


@pytest.mark.parametrize("program", [SEED, MatmulChain])
@pytest.mark.parametrize("make", [GreedyPolicy, RandomPolicy])
def test_no_policy_beats_the_exhaustive_one(program: IRModule, make: Callable[[], Policy]) -> None:
    other, exhaustive = Watched(make()), Watched(ExhaustivePolicy())
    for policy in (other, exhaustive):
        transect.compile(program, policy=policy, cache=False)
    assert total_seconds(*exhaustive.of_the_graph()) <= total_seconds(*other.of_the_graph())
