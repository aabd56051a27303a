"""Plans that cannot be read or obeyed: what is wrong with them, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import transect
from tests.driver.programs import SEED
from transect import ExhaustivePolicy, Plan
from transect.support.errors import InputError, PlanError


def record(**changed: Any) -> str:
    """A plan of the right format with some parts changed."""
    parts = {"answers": {}, "forbidden": {}, "preferred": {}, "decisions": []}
    return json.dumps({"format": "transect.plan.1", **parts, **changed})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a plan"),
        ("not json", "not a plan"),
        ("[]", "not a plan"),
        ("3", "not a plan"),
        ("{}", "not a plan"),
        (record(format="transect.plan.99"), "a plan of format 'transect.plan.99'"),
        ('{"format": "transect.plan.1"}', "not a plan"),
        (record(answers=3), "not a plan"),
        (record(answers={"fusion:*": 3}), "not a plan: 3 is not the name of an option"),
        (record(preferred={"fusion:*": None}), "not a plan: None is not the name of an option"),
        (record(forbidden=[]), "not a plan"),
        (record(forbidden={"fusion:*": [1]}), "not a plan: 1 is not the name of an option"),
        (record(decisions=[{"site": "x"}]), "not a plan"),
        (record(decisions=7), "not a plan"),
    ],
)
def test_text_that_is_no_plan(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Plan.load(path)
    assert caught.value.message.startswith(message)
    assert caught.value.remedy is not None


def test_a_plan_of_the_right_format(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(record(answers={"fusion:*": "no"}), encoding="utf-8")
    assert Plan.load(path) == Plan({"fusion:*": "no"})


def test_a_plan_for_another_program_fixes_nothing_here() -> None:
    """Site keys name what is decided about, so a plan of another program answers no site."""
    other = Plan({"implementation:@0123456789abcdef/x86": "openblas.gemm"})
    model = transect.compile(SEED, plan=other, cache=False)
    assert "fixed by the given plan" not in {d.reason for d in model.plan.decisions}


def test_too_many_combinations_for_the_exhaustive_policy() -> None:
    with pytest.raises(PlanError) as caught:
        transect.compile(SEED, policy=ExhaustivePolicy(limit=3), cache=False)
    assert caught.value.message.startswith("more than 3 combinations of ")
    assert caught.value.remedy == "raise the limit, fix some answers, or use GreedyPolicy"
