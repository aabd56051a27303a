"""tile_site: the choice of tile sizes as a site of the plan, answered by the cost model.

A rule schedules the program once with decision variables; the best few assignments of their
candidates become options. Nothing is lowered, compiled or measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from transect.arith.population import Array, compile_terms, grid
from transect.hardware.cpu_cost import Answer, CpuCost
from transect.ir.expr import Expr, Var
from transect.plan import Option, Site
from transect.support.errors import ScheduleError
from transect.target import Target
from transect.tir.schedule import Schedule

_CHUNK = 16384
COPIES = 512
"""The largest body that is worth unrolling, in vectors."""


def tile_site(
    sch: Schedule,
    target: Target,
    candidates: Mapping[Var, Sequence[int]] | None = None,
    *,
    role: str = "tile",
    conditions: Sequence[Expr] = (),
    keep: int = 8,
    copies: int = COPIES,
    model: CpuCost | None = None,
) -> Site:
    """The site whose options are the best assignments of `candidates`, the fastest first.

    candidates: the numbers that each decision variable of `sch.func` may be, by default those that
    `sch.decision` was given; of a symbolic size, a typical one. conditions: over
    these variables, all of which an assignment must fulfil. keep: how many options. copies: the
    largest unrolled body, in vectors. model: the cost model. An option's parameters are the
    numbers by the names of the variables; `chosen` reads them back.

    Assignments that need more vector registers than there are come in only if none is left
    otherwise. Raises ScheduleError if the conditions leave none.
    """
    candidates = sch.candidates if candidates is None else candidates
    prediction = (model or CpuCost()).of(sch.func, target)
    missing = [var.name for var in prediction.variables if var not in candidates]
    if missing:
        raise ScheduleError(
            f"tile_site: no candidates for {', '.join(missing)}",
            span=sch.func.span,
            remedy="give numbers for each decision variable, and a typical one for each size",
        )
    values = grid(candidates)
    if conditions:
        holds = np.ones(len(next(iter(values.values()))), bool)
        for truth in compile_terms(conditions)(values):
            holds &= truth
        values = {var: column[holds] for var, column in values.items()}
    count = len(next(iter(values.values()))) if values else 1
    if count == 0:
        raise ScheduleError(
            "tile_site: the conditions leave no assignment",
            span=sch.func.span,
            remedy="give more candidates",
            notes=[repr(item) for item in conditions],
        )
    answers: list[Option] = []
    scored: list[tuple[Array, Array]] = []
    for start in range(0, count, _CHUNK):
        part = {var: column[start : start + _CHUNK] for var, column in values.items()}
        found = prediction.evaluate(part)
        size = min(_CHUNK, count - start)
        fits = fitting(found, target, size, copies)
        scored.append((np.broadcast_to(found.seconds, size), fits))
    seconds = np.concatenate([item for item, _ in scored])
    fits = np.concatenate([item for _, item in scored])
    if fits.any():
        seconds = np.where(fits, seconds, np.inf)
    order = np.argsort(seconds, kind="stable")[:keep]
    best = {var: column[order] for var, column in values.items()}
    found = prediction.evaluate(best)
    for place in range(len(order)):
        if not np.isfinite(seconds[order[place]]):
            break
        numbers = {var.name: int(column[place]) for var, column in best.items()}
        name = " ".join(f"{key}={number}" for key, number in numbers.items())
        answers.append(Option(name, numbers, found.cost(place, target)))
    return Site(sch.site_key("tile", role), tuple(answers), label=role, span=sch.func.span)


def fitting(found: Answer, target: Target, count: int, copies: int = COPIES) -> Array:
    """Which of `count` candidates need no more registers than there are, and not too much code."""
    return np.broadcast_to(
        (found.live <= target.vector_registers) & (found.copies <= copies), count
    )


def chosen(option: Option, variables: Sequence[Var]) -> dict[Var, int]:
    """The numbers of an option of a tile site, by variable."""
    return {var: option.number(var.name) for var in variables}
