"""Policies: who answers a problem. Greedy by predicted cost, at random, or exhaustively.

Every policy sees the whole problem before it answers, honours a partial plan and exclusions, and
says for each site what decided. Learned and measured search lives in `tune`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from transect.plan.problem import Decision, Joint, Option, Plan, Problem, Site, SiteKey
from transect.support.errors import PlanError

Choice = dict[SiteKey, str]
"""Option names by site, of the sites that exist under it."""


class Policy(ABC):
    """Answers problems. Subclasses are frozen dataclasses."""

    @abstractmethod
    def choose_all(self, problem: Problem, fixed: Plan) -> tuple[Choice, str]:
        """An answer for every site that exists under the others, and what decided.

        Raises PlanError if the fixed answers and exclusions leave none.
        """

    def solve(self, problem: Problem, fixed: Plan | None = None) -> Plan:
        """A plan that answers `problem`, with `fixed` honoured."""
        given = fixed or Plan()
        choice, reason = self.choose_all(problem, given)
        decisions: list[Decision] = []
        for site in active_sites(problem.sites, choice):
            open_options = given.allowed(site)
            if given.fixed(site) is not None:
                why = "fixed by the given plan"
            elif len(site.options) == 1:
                why = "the only option"
            elif len(open_options) == 1:
                why = "all others are ruled out by the given plan"
            else:
                why = reason
            costs = tuple(site_seconds(problem, site).items())
            decisions.append(Decision(str(site.key), site.title, choice[site.key], costs, why))
        return Plan({str(key): name for key, name in choice.items()}, decisions=tuple(decisions))


def site_seconds(problem: Problem, site: Site) -> dict[str, float]:
    """The predicted time of each option with the best answers of its own children."""
    own = problem.times(site)
    return {
        option.name: own[option.name]
        + sum(min(site_seconds(problem, child).values()) for child in option.children)
        for option in site.options
    }


def active_sites(sites: tuple[Site, ...], choice: Choice) -> Iterator[Site]:
    """The sites that exist under `choice`, each before its children; equal keys once."""
    seen: set[SiteKey] = set()
    stack = list(reversed(sites))
    while stack:
        site = stack.pop()
        if site.key in seen or site.key not in choice:
            continue
        seen.add(site.key)
        yield site
        stack.extend(reversed(site.option(choice[site.key]).children))


def total_seconds(problem: Problem, choice: Choice) -> float:
    """The predicted time of a complete choice: its options and what depends on several."""
    own = sum(problem.times(site)[choice[site.key]] for site in active_sites(problem.sites, choice))
    return own + sum(
        problem.seconds(pair.cost) for pair in problem.pair_costs if holds(pair, choice)
    )


def holds(joint: Joint, choice: Choice) -> bool:
    """Whether all the answers that `joint` names are chosen."""
    return all(choice.get(key) == name for key, name in joint.answers)


def _violated(problem: Problem, choice: Choice) -> str | None:
    for exclusion in problem.exclusions:
        if holds(exclusion, choice):
            return exclusion.reason or "excluded"
    return None


def _impossible(problem: Problem, site: Site, choice: Choice) -> PlanError:
    reasons = sorted(
        {e.reason for e in problem.exclusions if any(key == site.key for key, _ in e.answers)}
    )
    return PlanError(
        f"no option of {site.title} is possible with the other answers",
        span=site.span,
        notes=[f"{key}: {name}" for key, name in choice.items()][:8] + reasons,
        remedy="fix fewer answers, or others",
    )


@dataclass(frozen=True)
class GreedyPolicy(Policy):
    """Site by site in the order stated, the option that adds the least predicted time.

    Sites whose answer the given plan fixes come first, so that the others adapt to them; a dead
    end is left by backtracking.
    """

    def choose_all(self, problem: Problem, fixed: Plan) -> tuple[Choice, str]:
        """See Policy."""
        sites = sorted(problem.sites, key=lambda site: fixed.fixed(site) is None)
        choice = _search(problem, fixed, list(sites), {}, partial(_cheapest_first, problem))
        return choice, "the least predicted time, decided alone"


def _cheapest_first(
    problem: Problem, site: Site, options: list[Option], choice: Choice
) -> list[Option]:
    """The options by the time that each adds to a choice."""
    own = site_seconds(problem, site)

    def added(option: Option) -> float:
        after = {**choice, site.key: option.name}
        return own[option.name] + sum(
            problem.seconds(pair.cost)
            for pair in problem.pair_costs
            if holds(pair, after) and not holds(pair, choice)
        )

    return sorted(options, key=added)


@dataclass(frozen=True)
class RandomPolicy(Policy):
    """Any possible answer, reproducible by its seed: for tests and as a start of searches."""

    seed: int = 0

    def choose_all(self, problem: Problem, fixed: Plan) -> tuple[Choice, str]:
        """See Policy."""
        # Seeded by the sites as well: equal problems get equal answers, others independent ones.
        generator = random.Random(f"{self.seed} {[str(site.key) for site in problem.sites]}")
        choice = _search(
            problem, fixed, list(problem.sites), {},
            lambda _site, options, _partial: _shuffled(generator, options),
        )  # fmt: skip
        return choice, f"at random, seed {self.seed}"


def _shuffled(generator: random.Random, options: list[Option]) -> list[Option]:
    """The options in a random order, by their parameter "probability" where they have one."""
    if not any("probability" in option.parameters for option in options):
        return generator.sample(options, len(options))

    def key(option: Option) -> float:
        # Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).
        weight = float(option.parameters.get("probability", 1.0))  # pyright: ignore[reportArgumentType]
        return generator.random() ** (1 / weight) if weight > 0 else -1.0

    return sorted(options, key=key, reverse=True)


def _search(
    problem: Problem,
    fixed: Plan,
    sites: list[Site],
    start: Choice,
    order: Callable[[Site, list[Option], Choice], list[Option]],
) -> Choice:
    """The first complete choice in depth-first order, `order` sorting the options of a site."""

    def possible(pending: list[Site], choice: Choice) -> Iterator[tuple[list[Site], Choice]]:
        site, rest = pending[0], pending[1:]
        if site.key in choice:
            yield rest, choice
            return
        for option in order(site, list(fixed.allowed(site)), choice):
            after = {**choice, site.key: option.name}
            if _violated(problem, after) is None:
                yield [*option.children, *rest], after

    # An explicit stack of alternatives: problems have thousands of sites.
    pending, choice = sites, start
    alternatives: list[Iterator[tuple[list[Site], Choice]]] = []
    failed: PlanError | None = None
    while pending:
        alternatives.append(possible(pending, choice))
        while alternatives:
            step = next(alternatives[-1], None)
            if step is not None:
                pending, choice = step
                break
            failed = failed or _impossible(problem, pending[0], choice)
            alternatives.pop()
        else:
            raise failed or PlanError("the problem has no solution")
    return choice


@dataclass(frozen=True)
class ExhaustivePolicy(Policy):
    """The least predicted time over all combinations, exact.

    Sites that share no pair cost or exclusion are solved apart. limit: the most combinations to
    look at in one such group; more raises PlanError.
    """

    limit: int = 1_000_000

    def choose_all(self, problem: Problem, fixed: Plan) -> tuple[Choice, str]:
        """See Policy."""
        choice: Choice = {}
        for group in _components(problem):
            choice |= self._best(problem, fixed, group)
        return choice, "the least predicted time over all combinations"

    def _best(self, problem: Problem, fixed: Plan, sites: list[Site]) -> Choice:
        keys = {site.key for root in sites for site in root.walk()}
        pairs = [p for p in problem.pair_costs if all(key in keys for key, _ in p.answers)]
        times = {id(site): problem.times(site) for root in sites for site in root.walk()}

        best: tuple[float, Choice] | None = None
        blocked: Site | None = None
        looked = 0
        stack: list[tuple[list[Site], Choice, float]] = [(sites, {}, 0.0)]
        while stack:
            pending, choice, spent = stack.pop()
            looked += 1
            if looked > self.limit:
                raise PlanError(
                    f"more than {self.limit} combinations of {len(keys)} choices",
                    remedy="raise the limit, fix some answers, or use GreedyPolicy",
                )
            if best is not None and spent >= best[0]:
                continue
            if not pending:
                best = (spent, choice)
                continue
            site, rest = pending[0], pending[1:]
            if site.key in choice:
                stack.append((rest, choice, spent))
                continue
            # Cheapest last, so that it is looked at first and bounds the rest.
            own = times[id(site)]
            for option in sorted(fixed.allowed(site), key=lambda o: own[o.name], reverse=True):
                after = {**choice, site.key: option.name}
                if _violated(problem, after) is not None:
                    blocked = site
                    continue
                extra = sum(
                    problem.seconds(p.cost)
                    for p in pairs
                    if holds(p, after) and not holds(p, choice)
                )
                stack.append(([*option.children, *rest], after, spent + own[option.name] + extra))
        if best is None:
            raise _impossible(problem, blocked or sites[0], {})
        return best[1]


def _components(problem: Problem) -> list[list[Site]]:
    """The top-level sites in groups that nothing joint connects, in order of first site."""
    root_of = {site.key: index for index, root in enumerate(problem.sites) for site in root.walk()}
    group = list(range(len(problem.sites)))

    def find(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for joint in (*problem.pair_costs, *problem.exclusions):
        members = [find(root_of[key]) for key, _ in joint.answers if key in root_of]
        for member in members[1:]:
            group[find(member)] = find(members[0])
    # Equal keys are one decision, wherever they stand.
    first: dict[SiteKey, int] = {}
    for index, root in enumerate(problem.sites):
        for site in root.walk():
            group[find(index)] = find(first.setdefault(site.key, index))
    groups: dict[int, list[Site]] = {}
    for index, site in enumerate(problem.sites):
        groups.setdefault(find(index), []).append(site)
    return list(groups.values())
