"""`transect bench`: latency, in turns with ONNX Runtime in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transect.cli.request import Outcome, Request
from transect.cli.session import Inputs, loaded, make_inputs
from transect.support import flags
from transect.support.errors import InputError

_WARM_UP = 3
_REST = 0.02
"""Seconds between turns: the other's threads stay awake for a while, and would take cores."""


def bench(request: Request, *, rounds: int, compare: bool) -> Outcome:
    """JSON keys: model, dims, inputs, threads, rounds, load_seconds, results (by name "transect",
    "onnxruntime": median, least, most, quartiles, all in seconds), ratio (of the medians, above 1
    where transect is faster; null alone), notes."""
    begin = time.perf_counter()
    model = loaded(request)
    load_seconds = time.perf_counter() - begin
    inputs = make_inputs(request, model.signature)
    runners: dict[str, Callable[[], Any]] = {"transect": lambda: model(*inputs.arguments)}
    notes: list[str] = []
    if compare:
        other, note = _onnxruntime(request, inputs)
        if other is not None:
            runners["onnxruntime"] = other
        if note:
            notes.append(note)
    times = in_turns(runners, rounds)
    results = {name: _statistics(spent) for name, spent in times.items()}
    ratio = None
    if "onnxruntime" in results:
        ratio = results["onnxruntime"]["median"] / results["transect"]["median"]
    data = {
        "model": request.model,
        "dims": dict(inputs.sizes),
        "inputs": inputs.to_json(),
        "threads": flags.num_threads(),
        "rounds": rounds,
        "load_seconds": load_seconds,
        "results": results,
        "ratio": ratio,
        "notes": notes,
    }

    def show(console: Console) -> None:
        threads = flags.num_threads()
        console.print(escape(f"{request.model}: {threads} threads, {rounds} rounds; {inputs}"))
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for title in ("median ms", "quartiles", "best", "worst"):
            table.add_column(title, justify="right")
        for name, found in results.items():
            low, high = (f"{value * 1e3:.3f}" for value in found["quartiles"])
            row = (f"{found[key] * 1e3:.3f}" for key in ("median", "least", "most"))
            median, least, most = row
            table.add_row(name, median, f"{low} to {high}", least, most)
        console.print(table)
        if ratio is not None:
            word = "faster" if ratio >= 1 else "slower"
            console.print(f"transect is {max(ratio, 1 / ratio):.2f} times {word}")
        for note in notes:
            console.print(escape(note))

    return Outcome(data, show)


def in_turns(runners: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """The seconds of `rounds` calls of each, in turns. A turn begins with a call that is not timed
    and wakes the threads of whose turn it is."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(_WARM_UP + rounds):
        for name, call in runners.items():
            if len(runners) > 1:
                time.sleep(_REST)
                call()
            begin = time.perf_counter()
            call()
            spent = time.perf_counter() - begin
            if number >= _WARM_UP:
                times[name].append(spent)
    return times


def _statistics(spent: list[float]) -> dict[str, Any]:
    low, median, high = np.percentile(spent, (25, 50, 75)).tolist()
    return {"median": median, "quartiles": [low, high], "least": min(spent), "most": max(spent)}


def _onnxruntime(request: Request, inputs: Inputs) -> tuple[Callable[[], Any] | None, str]:
    """The model in ONNX Runtime, or why it is not there."""
    if Path(request.model).suffix != ".onnx":
        return None, "ONNX Runtime runs only .onnx models"
    if find_spec("onnxruntime") is None:
        return None, "ONNX Runtime is not installed: pip install onnxruntime"
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = flags.num_threads()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(
            request.model, options, providers=["CPUExecutionProvider"]
        )
        names = [item.name for item in session.get_inputs()]
        feeds = dict(zip(names, inputs.arguments, strict=True))
        session.run(None, feeds)
    except Exception as error:  # noqa: BLE001 (its exception classes have no common base)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, MemoryError):
            raise InputError(reason) from None
        return None, f"ONNX Runtime cannot run it: {reason}"
    return lambda: session.run(None, feeds), ""
