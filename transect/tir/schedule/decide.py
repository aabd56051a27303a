"""The primitives of decision variables: decision, decide_sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transect.ir.expr import Var
from transect.ir.node import replace
from transect.support.errors import ScheduleError
from transect.tir.decisions import decision_vars, folded, numbers
from transect.tir.function import PrimFunc
from transect.tir.schedule.edit import Edit, Primitive, Target
from transect.tir.schedule.tree import ForwardingSubstitution
from transect.tir.stmt import BlockRealize


@dataclass(frozen=True)
class Decision(Primitive):
    """A number that is chosen later, to use in factors, multiples and extents.

    candidates: positive numbers that it may become. The program is as it was until another
    primitive uses the variable:

        t = sch.decision("t", [4, 8])            for i_0, i_1 in T.grid(99 // t + 1, t):
        sch.split(i, [None, t])          ->          …
    """

    var: Var
    candidates: tuple[int, ...]
    name: ClassVar[str] = "decision"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        if not self.candidates or min(self.candidates) < 1:
            raise ScheduleError(
                f"decision {self.var.name!r}: candidates {self.candidates}",
                span=func.span,
                remedy="give positive numbers",
            )
        return Edit(func)


@dataclass(frozen=True)
class DecideSizes(Primitive):
    """Numbers in place of decision variables.

    values: pairs of a variable and its number. Variables that the program does not have are
    passed over; others stay open.

        for i_0, i_1 in T.grid(99 // t + 1, t):        for i_0, i_1 in T.grid(13, 8):
            with T.block("B"):                    ->       with T.block("B"):
                vi = T.axis.spatial(100, t * i_0 + i_1)        vi = T.axis.spatial(100, 8 * i_0 + i_1)
                T.where(t * i_0 + i_1 < 100)                   T.where(8 * i_0 + i_1 < 100)
    """  # noqa: E501

    values: tuple[tuple[Var, int], ...]
    name: ClassVar[str] = "decide_sizes"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        open_ = decision_vars(func)
        for var, value in self.values:
            if value < 1:
                raise ScheduleError(
                    f"decide_sizes: {var.name} = {value}",
                    span=func.span,
                    remedy="a decision variable is a positive number",
                )
            if var not in open_ and var in func.params:
                raise ScheduleError(
                    f"decide_sizes: {var.name!r} is a parameter, not a decision variable",
                    span=func.span,
                    remedy=f"the open ones are: {', '.join(v.name for v in open_) or 'none'}",
                )
        swap = ForwardingSubstitution(numbers(dict(self.values)), simplify=folded)
        body = swap.visit(func.body)
        assert isinstance(body, BlockRealize)
        return Edit(replace(func, body=body), swap.forward)
