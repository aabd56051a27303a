"""CompiledModel.profile: where the time of a call goes, by the nodes of the model.

The program is compiled once more with its calls timed (`profile_calls`), so that the ordinary one
pays nothing; this file runs it and makes a report of what it wrote down.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transect import runtime
from transect.driver.native import native
from transect.driver.peak import Peak, described_peak, measured_peak
from transect.driver.profile_calls import (
    EVENT_COUNT,
    EVENT_FIELDS,
    EVENTS,
    Layout,
    RegionKind,
    TimedCall,
    Work,
    time_calls,
    work_by_name,
)
from transect.ir.dtype import FLOAT32, FLOAT64
from transect.ir.function import IRModule
from transect.plan.cost import bandwidth
from transect.relax.transform.lower_to_host import SIGNATURE
from transect.runtime import Signature
from transect.support.errors import InputError
from transect.support.span import Layer, Origin, Spans
from transect.target import Target, host_target
from transect.tir.function import PrimFunc

_PLANNED, _PROGRAMS, _LOWERED = "PlanGraph", "CollapseAxes", "LowerToHost"
"""The stages that the work of programs is read from: what libraries stand for is seen before the
first, all others after the second. The last one is timed."""

_PLAIN_WIDTH = 140
"""Of tables that are not written to a terminal."""

_INCLUSIVE = ("model", "function")
"""Kinds of regions whose time is that of others inside them."""


@dataclass(frozen=True)
class Region:
    """One place of the host program: a kernel, library routine, packed function or copy.

    nodes: of the model, all that were fused into it; for a program in script "file:line".
    calls, seconds, operations, bytes: of the run with the median time; the latter two are 0 if
    unknown. share: of the machine's peak at what limits the region more, `bound`:
    "compute", or the memory level that holds its data ("L1" to "L3", "memory"); 0 and "" if
    that is unknown.
    A "function" is a call of another graph function; the calls in it are listed by themselves.
    """

    kind: RegionKind
    name: str
    function: str
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    calls: int
    seconds: float
    operations: int
    bytes: int
    share: float
    bound: str

    @property
    def gflops(self) -> float:
        """10^9 operations per second."""
        return self.operations / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def bandwidth(self) -> float:
        """10^9 bytes per second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The region as JSON data; times in seconds, rates in 10^9 per second."""
        return {
            "kind": self.kind,
            "name": self.name,
            "function": self.function,
            "nodes": list(self.nodes),
            "operators": list(self.operators),
            "calls": self.calls,
            "seconds": self.seconds,
            "operations": self.operations,
            "bytes": self.bytes,
            "gflops": self.gflops,
            "gbytes_per_second": self.bandwidth,
            "share_of_peak": self.share,
            "bound": self.bound,
        }


@dataclass(frozen=True)
class Event:
    """One call of a region in the run that the trace shows; times in nanoseconds from its start."""

    region: int
    begin: int
    end: int


@dataclass(frozen=True)
class Profile:
    """Where the time of one call of a model goes.

    seconds: of the whole call, the median of `runs`; spread: the shortest and the longest.
    regions: in the order of the program. events: of the run with the median time, the first 32768.
    lost: how many more there were. results: what the last run returned.
    """

    model: str
    runs: int
    seconds: float
    spread: tuple[float, float]
    peak: Peak
    threads: int
    regions: tuple[Region, ...]
    events: tuple[Event, ...]
    lost: int
    results: Any

    @property
    def busy(self) -> float:
        """The seconds within kernels, libraries, packed functions and copies."""
        return sum(r.seconds for r in self.regions if r.kind not in _INCLUSIVE)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON data; times in seconds, rates in 10^9 per second."""
        return {
            "model": self.model,
            "runs": self.runs,
            "seconds": self.seconds,
            "seconds_least": self.spread[0],
            "seconds_most": self.spread[1],
            "threads": self.threads,
            "peak": {
                "gflops": self.peak.operations / 1e9,
                "gbytes_per_second": self.peak.bandwidth / 1e9,
                "source": self.peak.source,
            },
            "regions": [region.to_json() for region in self.regions],
        }

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")

    def trace(self, path: str | Path) -> None:
        """Write the run with the median time as a Chrome trace (chrome://tracing, Perfetto)."""
        events: list[dict[str, Any]] = []
        for event in self.events:
            region = self.regions[event.region - 1] if event.region else None
            record: dict[str, Any] = {
                "ph": "X",
                "pid": 1,
                "tid": 1,
                "ts": event.begin / 1e3,
                "dur": (event.end - event.begin) / 1e3,
                "name": self.model if region is None else _title(region),
                "cat": "model" if region is None else region.kind,
            }
            if region is not None:
                record["args"] = {
                    key: value
                    for key, value in region.to_json().items()
                    if key in ("name", "nodes", "operators", "gflops", "gbytes_per_second")
                }
            events.append(record)
        data = {"traceEvents": events, "displayTimeUnit": "ms"}
        Path(path).write_text(json.dumps(data), encoding="utf-8")

    def show(self, console: Console | None = None, *, limit: int = 40) -> None:
        """Print the table, the regions that take longest first, at most `limit` of them."""
        if console is None:
            console = Console()
            if not console.is_terminal:
                console = Console(width=_PLAIN_WIDTH)
        console.print(self.table(limit=limit))

    def table(self, *, limit: int = 40) -> Table:
        """The regions that take longest, as a table of rich."""
        low, high = self.spread
        outside = max(0.0, self.seconds - self.busy)
        caption = (
            f"{self.seconds * 1e3:.3f} ms a call ({low * 1e3:.3f} to {high * 1e3:.3f} in "
            f"{self.runs} runs, {self.threads} threads), {outside * 1e3:.3f} ms of it between "
            f"regions; peak {self.peak.operations / 1e9:.0f} GFLOP/s, "
            f"{self.peak.bandwidth / 1e9:.0f} GB/s ({self.peak.source})"
        )
        table = Table(
            title=self.model,
            caption=caption,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
        )
        for name in ("us", "%", "calls", "GFLOP/s", "GB/s", "% peak"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("bound by", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        table.add_column("nodes", overflow="fold")
        # What functions do is listed by itself.
        regions = (region for region in self.regions if region.kind not in _INCLUSIVE)
        ordered = sorted(regions, key=lambda region: -region.seconds)
        for region in ordered[:limit]:
            portion = 100 * region.seconds / self.seconds if self.seconds else 0.0
            table.add_row(
                f"{region.seconds * 1e6:.1f}",
                f"{portion:.1f}",
                str(region.calls),
                _rate(region.gflops),
                _rate(region.bandwidth),
                f"{100 * region.share:.0f}" if region.share else "",
                region.bound,
                region.name if region.kind in ("library", "packed") else region.kind,
                escape(_compact(region.nodes) or region.name),
            )
        rest = ordered[limit:]
        if rest:
            seconds = sum(region.seconds for region in rest)
            portion = 100 * seconds / self.seconds if self.seconds else 0.0
            more = f"{len(rest)} more regions"
            table.add_row(f"{seconds * 1e6:.1f}", f"{portion:.1f}", *[""] * 6, more)
        return table

    def __str__(self) -> str:
        console = Console(width=_PLAIN_WIDTH, color_system=None)
        with console.capture() as text:
            self.show(console)
        return text.get().rstrip()


class Profiler:
    """The timed variant of a compiled model, made on first use.

    stages: gives the program after each pass. bind: the arguments of a call in order.
    """

    def __init__(
        self,
        stages: Callable[[], Mapping[str, IRModule]],
        name: str,
        target: Target,
    ) -> None:
        self._stages = stages
        self._name = name
        self._target = target
        self._lock = threading.Lock()

    def run(self, arguments: Sequence[Any], runs: int, *, measure_peak: bool = True) -> Profile:
        """Run the model once to warm up, then `runs` times."""
        if runs < 1:
            raise InputError(f"{runs} runs", remedy="give a positive number")
        with self._lock:  # Compiled by one thread; the runs of several do not disturb each other.
            model, timed, record = self._variant
        peak = measured_peak if measure_peak and self._target == host_target() else None
        samples: list[tuple[float, np.ndarray[Any, Any]]] = []
        result: Any = None
        for number in range(runs + 1):
            cells = np.zeros(record.size, np.int64)
            begin = time.perf_counter()
            result = model(*arguments, cells)
            seconds = time.perf_counter() - begin
            whole = int(cells[record.region(0)][1])
            if number:
                samples.append((whole / 1e9 if whole else seconds, cells))
        return self._report(timed, record, samples, result, peak)

    @cached_property
    def _variant(self) -> tuple[runtime.CompiledModel, tuple[TimedCall, ...], Layout]:
        stages = dict(self._stages())
        lowered = stages.get(_LOWERED)
        if lowered is None or SIGNATURE not in lowered[self._name].attrs:
            raise InputError(
                f"{self._name} is a tensor program, which has no calls to time",
                remedy="call it from a graph function and profile that",
            )
        names = list(stages)
        planned = stages[_PROGRAMS]
        before = stages[names[names.index(_PLANNED) - 1]]
        programs: dict[str, tuple[PrimFunc, Work]] = {}
        for name, work in work_by_name(before, planned).items():
            func = planned[name]
            if isinstance(func, PrimFunc):
                programs[name] = func, work
        module, timed, record = time_calls(lowered, self._name, programs)
        signature = Signature.from_json(module[self._name].attrs[SIGNATURE])
        return native(module, signature, self._target), timed, record

    def _memory(self, moved: float, peak: Peak) -> tuple[str, float]:
        """The level of memory that holds what one call touches, and its bytes per second."""
        cores = self._target.cores
        for number, size in enumerate(self._target.caches[:3], 1):
            # The first two levels are each core's own.
            if moved <= size * (cores if number < 3 else 1):
                level = f"L{number}"
                return level, bandwidth(self._target, level, cores)
        return "memory", peak.bandwidth

    def _report(
        self,
        timed: Sequence[TimedCall],
        record: Layout,
        samples: Sequence[tuple[float, np.ndarray[Any, Any]]],
        result: Any,
        peak: Callable[[str], Peak] | None,
    ) -> Profile:
        def best(call: TimedCall) -> Peak:
            if peak is None:
                return described_peak(self._target, call.dtype)
            return peak("float64" if call.dtype is FLOAT64 else "float32")

        # One run for everything: regions never add up to more than the call they are part of.
        ordered = sorted(samples, key=lambda sample: sample[0])
        middle, cells = ordered[len(ordered) // 2]
        regions: list[Region] = []
        for number, call in enumerate(timed[1:], 1):
            calls, nanoseconds, operations, moved = cells[record.region(number)].tolist()
            nodes, operators = _names(call.spans)
            seconds, limit = nanoseconds / 1e9, best(call)
            level, rate = self._memory(moved / max(1, calls), limit)
            needed = {"compute": operations / limit.operations, level: moved / rate}
            bound = max(needed, key=lambda what: needed[what])
            share = needed[bound] / seconds if seconds else 0.0
            regions.append(
                Region(
                    call.kind,
                    call.callee,
                    call.function,
                    nodes,
                    operators,
                    calls,
                    seconds,
                    operations,
                    moved,
                    share,
                    bound if share else "",
                )
            )
        count = int(cells[EVENT_COUNT])
        rows = cells[record.events :].reshape(EVENTS, EVENT_FIELDS)[:count]
        start = int(rows[:, 1].min(initial=2**62))
        events = tuple(Event(int(r), int(b) - start, int(e) - start) for r, b, e in rows)
        calls_made = int(sum(cells[record.region(i)][0] for i in range(len(timed))))
        return Profile(
            self._name,
            len(samples),
            middle,
            (ordered[0][0], ordered[-1][0]),
            best(TimedCall("model", self._name, self._name, (), FLOAT32)),
            self._target.cores,
            tuple(regions),
            events,
            calls_made - count,
            result,
        )


def _compact(names: Sequence[str]) -> str:
    """The names, each without its folder where that is the folder of the one before."""
    shown: list[str] = []
    last = None
    for name in names:
        folder, _, leaf = name.rpartition("/")
        shown.append(leaf if folder == last else name)
        last = folder
    return ", ".join(shown)


def _rate(value: float) -> str:
    return f"{value:.1f}" if value else ""


def _title(region: Region) -> str:
    return ", ".join(region.nodes) or region.name


def _names(spans: Spans) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that spans name, and their operators."""
    nodes = dict.fromkeys(map(_name, spans))
    operators = dict.fromkeys(s.operator for s in spans if isinstance(s, Layer))
    return tuple(nodes), tuple(operators)


def _name(origin: Origin) -> str:
    if isinstance(origin, Layer):
        return origin.name
    return f"{Path(origin.file).name}:{origin.line}"
