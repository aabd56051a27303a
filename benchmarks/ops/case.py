"""A row of the table: one operator, who computes it, and what is to be reached. How it is measured:
all take turns, so that what else the machine does meets them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from benchmarks.ops.peak import Peak

OURS = "transect"
Call = Callable[[], Any]
"""Computes once; what it gives is an array, or has one by `numpy_of`."""
ROUNDS = 6
PAUSE = 0.004
"""Seconds between two that take turns: threads of the former one stop to look for work."""
TURN = 0.04
"""Seconds of one turn, at least one call."""


@dataclass(frozen=True)
class Goal:
    """What the row is to reach. peak: the least share of the peak of arithmetic, or of bandwidth
    for rows that move memory. ratio: the least speed relative to the best of `peers`, or of all."""

    peak: float = 0.0
    ratio: float = 0.0
    peers: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.peak:.0%} of peak"] if self.peak else []
        if self.ratio:
            parts.append(f"{self.ratio:.2f}x {' or '.join(self.peers) or 'best peer'}")
        return ", ".join(parts) or "reported"


@dataclass(frozen=True)
class Case:
    """An operator on given inputs.

    model: what all that take ONNX run, its weights constant. inputs: by name. exact: the result in
    float64. operations: multiplications and additions, 0 for rows that move memory. moved: bytes
    read and written at least. unit: whose peak counts (see `peak.UNITS`). peers: by name; each is
    prepared by a call. own: ours, if it is not the model as it is. timed: peers that measure
    themselves, in seconds. tolerance: error relative to the largest magnitude.
    """

    family: str
    name: str
    model: onnx.ModelProto
    inputs: Mapping[str, np.ndarray]
    exact: Callable[[], np.ndarray]
    peers: Mapping[str, Callable[[], Call]]
    goal: Goal
    operations: float = 0.0
    moved: int = 0
    unit: str = "float32"
    own: Callable[[], Call] | None = None
    timed: Mapping[str, Callable[[], float]] = field(default_factory=dict[str, Callable[[], float]])
    tolerance: float = 1e-5


@dataclass
class Row:
    """What was measured. seconds: the least of a call, by who. errors: the same way. peak:
    operations or bytes a second that the machine reached in turn. failed: who could not run."""

    family: str
    name: str
    threads: int
    goal: Goal
    work: float
    unit: str
    is_arithmetic: bool
    tolerance: float
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    errors: dict[str, float] = field(default_factory=dict[str, float])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    peak: float = 0.0

    @property
    def share(self) -> float:
        """Of the peak."""
        return self.work / self.seconds[OURS] / self.peak if OURS in self.seconds else 0.0

    @property
    def best_peer(self) -> str:
        """The fastest of those that the goal is about."""
        peers = [name for name in self.seconds if name != OURS]
        wanted = [name for name in peers if name in self.goal.peers] or peers
        return min(wanted, key=lambda name: self.seconds[name], default="")

    @property
    def ratio(self) -> float:
        """The time of the best peer over ours: above 1 is faster."""
        if OURS not in self.seconds or not self.best_peer:
            return 0.0
        return self.seconds[self.best_peer] / self.seconds[OURS]

    @property
    def is_right(self) -> bool:
        """Whether all results are."""
        return OURS in self.errors and all(e <= self.tolerance for e in self.errors.values())

    @property
    def is_reached(self) -> bool:
        """Whether ours is right and reaches the goal."""
        return self.is_right and self.share >= self.goal.peak and self.ratio >= self.goal.ratio


def measure(case: Case, threads: int, peak: Peak, own: Callable[[], Call], rounds: int) -> Row:
    """Prepare all, compare their results with the exact one, and let them take turns."""
    work = case.operations or case.moved
    row = Row(
        case.family, case.name, threads, case.goal, work, case.unit, case.operations > 0,
        case.tolerance,
    )  # fmt: skip
    calls: dict[str, Call] = {}
    exact = case.exact()
    for name, prepare in {OURS: case.own or own, **case.peers}.items():
        try:
            calls[name] = prepare()
            row.errors[name] = _error(numpy_of(calls[name]()), exact)
        except Exception as error:  # noqa: BLE001 - the table says who could not run, and why
            calls.pop(name, None)
            row.failed[name] = f"{type(error).__name__}: {error}".split("\n", 1)[0][:200]
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        row.peak = max(row.peak, peak.rate())
        for name, call in calls.items():
            time.sleep(PAUSE)
            times[name] += _turn(call)
        for name, clock in case.timed.items():
            time.sleep(PAUSE)
            times.setdefault(name, []).append(clock())
    row.seconds = {name: min(of) for name, of in times.items()}
    return row


def _turn(call: Call) -> list[float]:
    """Seconds of single calls; the first wakes up what sleeps."""
    call()
    times: list[float] = []
    end = time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def numpy_of(result: Any) -> np.ndarray:
    """The result as float64."""
    if hasattr(result, "to_dense") and getattr(result, "is_mkldnn", False):
        result = result.to_dense()
    if hasattr(result, "double"):
        result = result.double().numpy()
    return np.asarray(result).astype(np.float64)


def _error(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, relative to the largest magnitude."""
    if found.shape != exact.shape:
        raise ValueError(f"shape {found.shape} instead of {exact.shape}")
    scale = float(np.max(np.abs(exact), initial=1e-30))
    return float(np.max(np.abs(found - exact), initial=0.0)) / scale
