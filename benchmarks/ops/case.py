"""A row of the table: one operator, who computes it, and what is to be reached. How it is measured:
all take turns, so that what else the machine does meets them all.
"""

from __future__ import annotations

import statistics
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
ROUNDS = 9
PAUSE = 0.06
"""Seconds between two that take turns: threads of the former one look for work for up to 30 ms and
would take a core from the next one."""
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
    """What was measured. rounds: by who, the least seconds of a call in each of its turns. errors:
    by who. peaks: operations or bytes a second that the machine reached in each round. failed: who
    could not run.

    Shares and ratios are medians of those of the single rounds: the clock moves from one second
    to the next by a tenth, and what else runs on the machine takes more.
    """

    family: str
    name: str
    threads: int
    goal: Goal
    work: float
    unit: str
    is_arithmetic: bool
    tolerance: float
    rounds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    errors: dict[str, float] = field(default_factory=dict[str, float])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    peaks: list[float] = field(default_factory=list[float])

    def seconds(self, who: str) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds[who])

    def share(self, who: str = OURS) -> float:
        """Of the peak that was measured in the same round."""
        if who not in self.rounds:
            return 0.0
        pairs = zip(self.rounds[who], self.peaks, strict=True)
        return statistics.median(self.work / seconds / peak for seconds, peak in pairs)

    def ratio_to(self, who: str) -> float:
        """The time of another one over ours in the same round: above 1, ours is faster."""
        pairs = zip(self.rounds[OURS], self.rounds[who], strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    @property
    def best_peer(self) -> str:
        """The fastest of those that the goal is about."""
        peers = [name for name in self.rounds if name != OURS]
        wanted = [name for name in peers if name in self.goal.peers] or peers
        return min(wanted, key=self.ratio_to, default="") if OURS in self.rounds else ""

    @property
    def ratio(self) -> float:
        """To the best peer."""
        return self.ratio_to(self.best_peer) if self.best_peer else 0.0

    @property
    def is_right(self) -> bool:
        """Whether all results are."""
        return OURS in self.errors and all(e <= self.tolerance for e in self.errors.values())

    @property
    def is_reached(self) -> bool:
        """Whether ours is right and reaches the goal."""
        return self.is_right and self.share() >= self.goal.peak and self.ratio >= self.goal.ratio


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
    row.rounds = {name: [] for name in (*calls, *case.timed)}
    for _ in range(rounds):
        time.sleep(PAUSE)
        row.peaks.append(peak.rate())
        for name, call in calls.items():
            time.sleep(PAUSE)
            row.rounds[name].append(_turn(call))
        for name, clock in case.timed.items():
            time.sleep(PAUSE)
            row.rounds[name].append(clock())
    return row


def _turn(call: Call) -> float:
    """The least seconds of a call; the first, which wakes up what sleeps, does not count."""
    call()
    times: list[float] = []
    end = time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


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
