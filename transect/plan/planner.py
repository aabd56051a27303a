"""Planner: one compile's memory of its choices, so that equal regions share an answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from transect.plan.cost import Sizes
from transect.plan.policy import GreedyPolicy, Policy
from transect.plan.problem import Option, Plan, Problem, Site, typical_size
from transect.target import Target, host_target


@dataclass
class Planner:
    """Asks `policy`, after `given` (what an expert fixed) and what was answered before.

    `plan` is all that was decided so far: it saves as JSON and, given to another compile of the
    same program, replays it exactly. sizes: what symbolic dimensions are assumed to be.
    """

    policy: Policy = field(default_factory=GreedyPolicy)
    given: Plan = field(default_factory=Plan)
    target: Target = field(default_factory=host_target)
    sizes: Sizes = typical_size
    plan: Plan = field(default_factory=Plan)

    def known(self) -> Plan:
        """What is settled: the given plan, and what was answered before."""
        return self.given.merged(Plan(self.plan.answers))

    def record(self, answer: Plan) -> None:
        """Make the answers of a solved problem part of `plan`."""
        before = self.plan.answers
        fresh = tuple(d for d in answer.decisions if d.site not in before)
        self.plan = Plan({**before, **answer.answers}, decisions=(*self.plan.decisions, *fresh))

    def solve(self, problem: Problem) -> Plan:
        """The answers to `problem`, which become part of `plan`."""
        answer = self.policy.solve(problem, self.known())
        self.record(answer)
        return answer

    def choose(self, site: Site) -> Option:
        """The answer to a site that nothing else depends on: a problem of one."""
        settled = self.plan.answers.get(str(site.key))
        if settled is not None:
            return site.option(settled)
        answer = self.solve(Problem((site,), target=self.target, sizes=self.sizes))
        return site.option(answer.answers[str(site.key)])
