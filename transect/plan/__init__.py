"""Choices: sites and options, problems and plans, the policies that answer them.

A pass states a Problem, a Policy solves it, the pass applies the Plan. No pass hides a choice in
an `if`.
"""

from transect.plan.cost import Cost, Sizes
from transect.plan.planner import Planner
from transect.plan.policy import ExhaustivePolicy, GreedyPolicy, Policy, RandomPolicy
from transect.plan.problem import (
    Decision,
    Exclusion,
    Option,
    PairCost,
    Plan,
    Problem,
    Site,
    SiteKey,
    typical_size,
)

__all__ = [
    "Cost",
    "Decision",
    "Exclusion",
    "ExhaustivePolicy",
    "GreedyPolicy",
    "Option",
    "PairCost",
    "Plan",
    "Planner",
    "Policy",
    "Problem",
    "RandomPolicy",
    "Site",
    "SiteKey",
    "Sizes",
    "typical_size",
]
