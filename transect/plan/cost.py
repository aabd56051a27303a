"""Cost: what an option is predicted to take, as terms over shape and decision variables.

Evaluating a Cost needs a target and sizes; nothing here measures anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from transect.arith.evaluate import evaluate
from transect.ir.dtype import FLOAT32, DType
from transect.ir.expr import Expr, Var
from transect.ir.traverse import free_vars
from transect.target import Target

Amount = Expr | float
"""A number, or a term over shape variables."""

Sizes = Callable[[Var], int]
"""A representative value of a symbolic dimension, for prediction only."""


class Predicted(Protocol):
    """An amount that a cost model knows."""

    def number(self, sizes: Sizes) -> float:
        """Its value with representative sizes in place of variables."""
        ...


@dataclass(frozen=True)
class Cost:
    """A prediction in the units of the machine, turned into seconds by `seconds`.

    operations: scalar operations by element dtype (a multiply-add counts two).
    traffic: bytes moved, by memory level: "memory", or "L1", "L2", "L3" for what stays in a cache.
    launches: parallel regions or kernels started. calls: seconds of fixed overhead.
    efficiency: fraction of the peak rate that the code is expected to reach, in (0, 1].
    threads: how many cores share the work; None for all.
    """

    operations: Mapping[DType, Amount | Predicted] = field(
        default_factory=dict[DType, "Amount | Predicted"]
    )
    traffic: Mapping[str, Amount] = field(default_factory=dict[str, Amount])
    launches: Amount = 0
    calls: Amount = 0.0
    efficiency: float = 1.0
    threads: int | None = None

    def seconds(self, target: Target, sizes: Sizes) -> float:
        """The roofline: the larger of the compute and the memory time, plus the fixed costs."""
        threads = target.cores if self.threads is None else min(self.threads, target.cores)
        compute = sum(
            number(amount, sizes)
            / target.peak(dtype if dtype.is_float or dtype.is_integral else FLOAT32)
            for dtype, amount in self.operations.items()
        )
        memory = sum(
            number(amount, sizes) / bandwidth(target, level, threads)
            for level, amount in self.traffic.items()
        )
        work = max(compute / (self.efficiency * threads), memory)
        return work + number(self.launches, sizes) * target.launch + number(self.calls, sizes)


def number(amount: Amount | Predicted, sizes: Sizes) -> float:
    """The value of an amount with representative sizes in place of its variables."""
    if isinstance(amount, Expr):
        return _value(amount, sizes)
    return float(amount) if isinstance(amount, int | float) else amount.number(sizes)


@lru_cache(maxsize=1 << 14)
def _value(amount: Expr, sizes: Sizes) -> float:
    # The options of many sites share their amounts.
    return float(evaluate(amount, {var: sizes(var) for var in free_vars([amount])}))


# Bytes per cycle that one core moves from each cache level: typical of the wide cores of the last
# decade; a target may say better in `extra["bytes_per_cycle"]`.
_BYTES_PER_CYCLE = {"L1": 64.0, "L2": 32.0, "L3": 12.0}


def bandwidth(target: Target, level: str, threads: int) -> float:
    """Bytes per second from a memory level, for `threads` cores together."""
    if level == "memory":
        return min(target.bandwidth_all, target.bandwidth * threads)
    own = target.numbers("bytes_per_cycle")
    return own.get(level, _BYTES_PER_CYCLE[level]) * target.clock * threads
