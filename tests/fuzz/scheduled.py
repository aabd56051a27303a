"""Random programs of blocks under random schedules, and arguments to run both with.

Dtypes and operations are those whose results do not depend on the order of a reduction.
"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import strategies as st

from tests.fuzz.programs import Program, data
from tests.fuzz.values import Values
from tests.schedule.test_fuzz import PROGRAMS, STEPS, step
from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, IntImm, Var
from transect.ir.function import IRModule
from transect.support.errors import ScheduleError
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

_EXACT = ("float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "bool")
_STEPS = tuple(name for name in STEPS if name != "bind")


class _Blocks(Values):
    """Draws chains of maps and reductions, each of what came before."""

    def size(self) -> Expr:
        return self.pick([self.n, self.m, IntImm(4), IntImm(6)])

    def build(self) -> PrimFunc:
        builder = FunctionBuilder("main")
        self.n, self.m = Var("n"), Var("m")
        kinds = [self.dtype() for _ in range(2)]
        self.readable = [
            builder.input("a", (self.n, self.m), kinds[0]),
            builder.input("b", (self.m,), kinds[1]),
        ]
        for number in range(self.number(1, 3)):
            self.readable.append(self.piece(builder, number))
        return builder.finish(self.readable[-1:])

    def piece(self, builder: FunctionBuilder, number: int) -> Buffer:
        dtype, name = self.dtype(), f"piece{number}"
        shape = (self.size(), self.size())[: self.number(1, 2)]

        def value(*indices: Var) -> Expr:
            return self.value(dtype, list(indices))

        if self.chance():
            return builder.compute(shape, value, name=name)
        combiner = self.pick(["any", "all"] if dtype.is_bool else ["sum", "max", "min"])
        return builder.reduce(shape, (self.size(),), value, combiner=combiner, name=name)

    def value(self, dtype: DType, indices: list[Var]) -> Expr:
        """Floats are loads, or simple sums of them: small multiples of a quarter."""
        return self.leaf(dtype, indices) if dtype.is_float else self.expr(dtype, indices, 2)


@st.composite
def scheduled(draw: st.DrawFn) -> tuple[Program, Program]:
    """The same program before and after a random schedule without threads."""
    generated = draw(st.booleans())
    made = _Blocks(draw, [], _EXACT).build() if generated else draw(st.sampled_from(PROGRAMS))()
    source = made.with_attrs(global_symbol="main")
    schedule = Schedule(source)
    for name in draw(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=8)):
        with suppress(ScheduleError):
            step(schedule, name, lambda count: draw(st.integers(0, count - 1)))
    # Generated programs also read outside of loops over n and m, where those must not be empty.
    smallest = 1 if generated else 0
    sizes = {name: draw(st.integers(smallest, 9)) for name in ("n", "m")}
    arguments = [
        data(draw, tuple(_size(dim, sizes) for dim in item.shape), as_dtype(item.dtype))
        for item in source.buffers
    ]
    before, after = (IRModule.of(main=func) for func in (source, schedule.func))
    return Program(before, arguments), Program(after, arguments)


def _size(dim: Expr, sizes: dict[str, int]) -> int:
    return sizes[dim.name] if isinstance(dim, Var) else int(dim.value)
