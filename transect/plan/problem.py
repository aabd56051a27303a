"""Problem: the choices of a pass, stated before anything is changed. Plan: the answers.

Solving is the business of a policy; applying the answers that of the pass that asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Self

from transect.ir.expr import Var
from transect.plan.cost import Cost, Sizes
from transect.support.errors import InputError, PlanError
from transect.support.span import Spans
from transect.target import Target, host_target

_LISTED = 12
"""How many options of a choice `Plan.explain` lists."""

Parameter = bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class SiteKey:
    """What a choice is about, the same in every process.

    kind: of the choice ("implementation", "fusion", "tile"). subject: the structural hash of what
    is decided about and its bounds. target: of the code. role: which of the subject's choices.
    """

    kind: str
    subject: str
    target: str
    role: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.role}@{self.subject}/{self.target}"


@dataclass(frozen=True)
class Option:
    """One answer to a site. children: the sites that exist only if it is taken."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    cost: Cost = field(default_factory=Cost)
    children: tuple[Site, ...] = ()

    def number(self, name: str) -> int:
        """A parameter that is an integer."""
        value = self.parameters[name]
        assert isinstance(value, int)
        return value

    def flag(self, name: str) -> bool:
        """A parameter that is true or false."""
        value = self.parameters[name]
        assert isinstance(value, bool)
        return value


@dataclass(frozen=True)
class Site:
    """A choice among options. label: for people, such as "matmul lv0"; span: in their program.
    scales: multiples of representative sizes that the answer should be good for."""

    key: SiteKey
    options: tuple[Option, ...]
    label: str = ""
    span: Spans = ()
    scales: tuple[int, ...] = (1,)

    def option(self, name: str) -> Option:
        """The option of that name. Raises PlanError if there is none."""
        for option in self.options:
            if option.name == name:
                return option
        raise PlanError(
            f"the choice {self.title} has no option {name!r}",
            span=self.span,
            remedy=f"one of: {', '.join(option.name for option in self.options)}",
        )

    @property
    def title(self) -> str:
        """kind and label, as hints and reports name the site."""
        return f"{self.key.kind}:{self.label or self.key.role}"

    def walk(self) -> Iterator[Site]:
        """This site and all sites nested under its options."""
        yield self
        for option in self.options:
            for child in option.children:
                yield from child.walk()


@dataclass(frozen=True)
class Joint:
    """Something that depends on several answers: each (site, option) pair must be chosen."""

    answers: tuple[tuple[SiteKey, str], ...]


@dataclass(frozen=True)
class PairCost(Joint):
    """An extra cost when all `answers` are chosen, such as a conversion between two layouts."""

    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Exclusion(Joint):
    """`answers` cannot be chosen together; `reason` says why."""

    reason: str = ""


def typical_size(_: object) -> int:
    """The size that a symbolic dimension is assumed to have when nothing is known of it."""
    return 64


@dataclass(frozen=True)
class _Scaled:
    """Sizes, times a number."""

    sizes: Sizes
    scale: int

    def __call__(self, var: Var) -> int:
        return self.scale * self.sizes(var)


@dataclass(frozen=True)
class Problem:
    """Sites, what depends on several of them, and what costs are evaluated with."""

    sites: tuple[Site, ...]
    pair_costs: tuple[PairCost, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    target: Target = field(default_factory=host_target)
    sizes: Sizes = typical_size

    def seconds(self, cost: Cost) -> float:
        """The predicted time of a cost on this problem's target and sizes."""
        return cost.seconds(self.target, self.sizes)

    def times(self, site: Site) -> dict[str, float]:
        """The predicted time of each option of a site, without its children.

        Of several scales: that of the best option at representative sizes, times how much slower
        an option is than the best one in the mean over the scales.
        """
        if site.scales == (1,):
            seconds_of = self._seconds_at(1, site)
            return {o.name: s for o, s in zip(site.options, seconds_of, strict=True)}
        found = {scale: self._seconds_at(scale, site) for scale in (1, *site.scales)}
        least = {scale: min(seconds) for scale, seconds in found.items()}
        slower = [1.0] * len(site.options)
        if all(least.values()):
            ratios = ([s / least[scale] for s in found[scale]] for scale in site.scales)
            slower = [mean(of) for of in zip(*ratios, strict=True)]
            found[1] = [least[1]] * len(site.options)
        return {
            option.name: seconds * times
            for option, seconds, times in zip(site.options, found[1], slower, strict=True)
        }

    def _seconds_at(self, scale: int, site: Site) -> list[float]:
        sizes = self.sizes if scale == 1 else _Scaled(self.sizes, scale)
        return [option.cost.seconds(self.target, sizes) for option in site.options]

    def without(self, key: SiteKey, option: str) -> Problem:
        """The problem with one option struck out, because it turned out not to apply.

        Raises PlanError if the site would have none left.
        """

        def strike(site: Site) -> Site:
            options = tuple(
                replace(item, children=tuple(strike(child) for child in item.children))
                for item in site.options
                if not (site.key == key and item.name == option)
            )
            if not options:
                raise PlanError(f"no option of {site.title} applies", span=site.span)
            return replace(site, options=options)

        return replace(self, sites=tuple(strike(site) for site in self.sites))


@dataclass(frozen=True)
class Decision:
    """How one site was answered: the options with their predicted seconds, and what decided."""

    site: str
    label: str
    chosen: str
    options: tuple[tuple[str, float], ...]
    reason: str


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not the name of an option")
    return value


@dataclass(frozen=True)
class Plan:
    """Answers by site, complete or partial; with how they came about if a policy gave them.

    answers: option names by site key text, or by a pattern over `kind:label` ("fusion:*") when an
    expert writes them. forbidden: options never to take, preferred: options to take where they
    are possible, both by the same patterns.
    """

    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    forbidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    preferred: Mapping[str, str] = field(default_factory=dict[str, str])
    decisions: tuple[Decision, ...] = ()

    @cached_property
    def _has_patterns(self) -> bool:
        # What a compile answers itself is by key: thousands of answers, and none to be matched.
        return any(character in pattern for pattern in self.answers for character in "*?[")

    def fixed(self, site: Site) -> str | None:
        """The answer this plan fixes for a site, if any. Raises PlanError for an unknown option."""
        name = self.answers.get(str(site.key))
        if name is None and (self._has_patterns or site.title in self.answers):
            name = next(
                (a for pattern, a in self.answers.items() if fnmatchcase(site.title, pattern)), None
            )
        return None if name is None else site.option(name).name

    def allowed(self, site: Site) -> tuple[Option, ...]:
        """The options that this plan leaves open. Raises PlanError if it forbids them all."""
        name = self.fixed(site)
        if name is not None:
            return (site.option(name),)
        banned = {
            option
            for pattern, options in self.forbidden.items()
            if pattern == str(site.key) or fnmatchcase(site.title, pattern)
            for option in options
        }
        left = tuple(option for option in site.options if option.name not in banned)
        if not left:
            raise PlanError(
                f"the plan forbids every option of {site.title}",
                span=site.span,
                remedy=f"allow one of: {', '.join(option.name for option in site.options)}",
            )
        wanted = next(
            (o for pattern, o in self.preferred.items() if fnmatchcase(site.title, pattern)), None
        )
        return tuple(option for option in left if option.name == wanted) or left

    def merged(self, other: Plan) -> Plan:
        """Both plans' answers; `other` wins where they differ."""
        return Plan(
            {**self.answers, **other.answers},
            {**self.forbidden, **other.forbidden},
            {**self.preferred, **other.preferred},
            (*self.decisions, *other.decisions),
        )

    def to_json(self) -> str:
        """The plan as JSON text, which `from_json` reads."""
        record = {
            "format": "transect.plan.1",
            "answers": dict(self.answers),
            "forbidden": {key: list(names) for key, names in self.forbidden.items()},
            "preferred": dict(self.preferred),
            "decisions": [
                {
                    "site": d.site,
                    "label": d.label,
                    "chosen": d.chosen,
                    "options": list(d.options),
                    "reason": d.reason,
                }
                for d in self.decisions
            ],
        }
        return json.dumps(record, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that `to_json` wrote. Raises InputError if the text is something else."""
        try:
            record: Any = json.loads(text)
            if record["format"] != "transect.plan.1":
                raise InputError(
                    f"a plan of format {record['format']!r}", remedy="expected transect.plan.1"
                )
            decisions = tuple(
                Decision(
                    d["site"],
                    d["label"],
                    d["chosen"],
                    tuple((n, float(s)) for n, s in d["options"]),
                    d["reason"],
                )
                for d in record["decisions"]
            )
            forbidden = {
                str(key): tuple(_text(name) for name in names)
                for key, names in record["forbidden"].items()
            }
            answers, preferred = (
                {str(key): _text(name) for key, name in record[part].items()}
                for part in ("answers", "preferred")
            )
            return cls(answers, forbidden, preferred, decisions)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"not a plan: {error}", remedy="give what Plan.save wrote") from error

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a plan from a JSON file."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def explain(self) -> str:
        """For every site: what was chosen, what else was possible at which predicted cost, why.

        Of very many options the cheapest are listed and the rest counted.
        """
        lines: list[str] = []
        for decision in self.decisions:
            lines.append(f"{decision.label}: {decision.chosen}  ({decision.reason})")
            cheapest = sorted(seconds for _, seconds in decision.options)[:_LISTED]
            shown = [
                (name, seconds)
                for name, seconds in decision.options
                if name == decision.chosen or seconds <= cheapest[-1]
            ][: _LISTED + 1]
            if all(name != decision.chosen for name, _ in shown):
                shown += [item for item in decision.options if item[0] == decision.chosen]
            for name, seconds in shown:
                mark = "*" if name == decision.chosen else " "
                lines.append(f"  {mark} {name:<24} {seconds * 1e6:12.2f} us predicted")
            if len(shown) < len(decision.options):
                lines.append(f"    and {len(decision.options) - len(shown)} others")
        return "\n".join(lines) if lines else "nothing was left to choose"

    def __str__(self) -> str:
        return self.explain()
