"""Planner: one compile's memory of its choices, so that equal regions share an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from transect.plan.cost import Sizes
from transect.plan.policy import GreedyPolicy, Policy
from transect.plan.problem import Option, Plan, Problem, Site, typical_size
from transect.support.errors import PlanError
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

    def check_all_used(self) -> None:
        """Raise PlanError if a name that an expert wrote in the given plan fits no choice made.

        Keys of sites, as saved plans hold them, may be of regions that this program does not have.
        """
        titles = [decision.label for decision in self.plan.decisions]
        for group in (self.given.answers, self.given.forbidden, self.given.preferred):
            for pattern in group:
                if "@" in pattern or any(fnmatchcase(title, pattern) for title in titles):
                    continue
                near = get_close_matches(pattern, titles, 3, 0.3)
                raise PlanError(
                    f"the plan is about {pattern!r}, but no choice has that name",
                    notes=[f"there is {title!r}" for title in near or titles[:3]],
                    remedy="names are kind:label, with * for anything; see print(model.plan)",
                )
