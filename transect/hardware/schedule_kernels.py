"""ScheduleKernels: the schedule rules of a target, applied to the tensor programs of a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transect.hardware.kernel import KernelInfo
from transect.hardware.rule import ScheduleRule
from transect.hardware.single_row import with_single_row
from transect.ir.function import BaseFunc, IRModule
from transect.plan import Planner
from transect.support.errors import ScheduleError
from transect.tir.analysis.blocks import block_sites
from transect.tir.function import SCHEDULED, PrimFunc
from transect.tir.schedule import Schedule, subject_of
from transect.transform import Context, Pass


@dataclass(frozen=True)
class ScheduleKernels(Pass):
    """Schedule every PrimFunc that its author did not.

    rules: tried in order, as long as blocks are left; the first that matches and applies takes its
    blocks. planner: answers the choices; by default one with the context's policy and plan.
    Requires PrimFuncs at the block level. Leaves those with the attribute "tir.is_scheduled", and
    whatever is not made of plain loop nests, as they are; the others get that attribute,
    "tir.schedule_rules", the names of the rules that applied, and "tir.schedule_refusals": why
    rules that match did not apply.
    """

    rules: Sequence[ScheduleRule]
    planner: Planner | None = None

    def run(self, module: IRModule, context: Context) -> IRModule:
        """The module with its tensor programs scheduled."""
        planner = self.planner or context.planner

        def visit(name: str, func: BaseFunc) -> BaseFunc:
            del name
            if not isinstance(func, PrimFunc) or func.attrs.get(SCHEDULED):
                return func

            def schedule(func: PrimFunc) -> PrimFunc:
                return schedule_function(func, self.rules, planner, context)

            scheduled = schedule(func)
            applied = scheduled.attrs.get("tir.schedule_rules", ())
            if not any(rule.single_row and rule.name in applied for rule in self.rules):
                return scheduled
            return with_single_row(func, scheduled, schedule, planner, context.target)

        return module.map_functions(visit)


def schedule_function(
    func: PrimFunc, rules: Sequence[ScheduleRule], planner: Planner, context: Context
) -> PrimFunc:
    """`func` scheduled by the rules that match it; itself if none does."""
    info = KernelInfo.of(func)
    if info is None:
        return func
    sch = Schedule(func, decide=planner.choose, subject=subject_of(func), target=context.target)
    applied: list[str] = []
    refused: list[str] = []
    while info.pending:
        done = _first_that_applies(sch, info, rules, context, applied, refused)
        if done is None:
            break
        sch, handled = done
        sites = block_sites(sch.func)
        known = {name for name in info.pending if name not in handled}
        pending = tuple(site.block.name for site in sites if site.block.name in known)
        if len(pending) >= len(info.pending):
            break  # A rule that takes nothing would be asked for ever.
        info = replace(info, func=sch.func, sites=sites, pending=pending)
    reasons = {"tir.schedule_refusals": tuple(refused)} if refused else {}
    if not applied:
        return func.with_attrs(**reasons) if refused else func
    rules_applied = {SCHEDULED: True, "tir.schedule_rules": tuple(applied)}
    return sch.func.with_attrs(**rules_applied, **reasons)


def _first_that_applies(
    sch: Schedule,
    info: KernelInfo,
    rules: Sequence[ScheduleRule],
    context: Context,
    applied: list[str],
    refused: list[str],
) -> tuple[Schedule, tuple[str, ...]] | None:
    for rule in rules:
        if not rule.suits(context.target) or not rule.matches(info):
            continue
        attempt = sch.copy()
        try:
            handled = rule.apply(attempt, info, context.target)
        except ScheduleError as error:
            # The program turned out not to allow it: the next rule is for more general programs.
            refused.append(f"{rule.name}: {error.message}")
            continue
        applied.append(rule.name)
        return attempt, handled
    return None
