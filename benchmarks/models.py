"""Whole models beside ONNX Runtime and OpenVINO: right answers, latency, compile time, memory.

Run: python -m benchmarks.models [--only NAME ...] [--exporter script|dynamo] [--threads 2]
[--libraries off]; off: ours calls none, all its code is generated.
Needs the extra `models`. Each framework runs in a process of its own that sleeps while another one
is timed; they take turns on the same inputs, every size of a model from one compile. The worst
error is that against ONNX Runtime, relative to the largest magnitude of an output. Memory is the
largest that the process ever held (VmHWM), imports, compile and runs included; "warm" is a second
process that finds the compiled model in the cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tools.models import ARCHITECTURES, PACKAGED, Dims, Exporter, Inputs, export, feed

FRAMEWORKS = ("transect", "onnxruntime", "openvino")
ROUNDS = 15
SECONDS = 6.0
"""Most time spent on one size of one model after the first rounds, all frameworks together."""
TOLERANCE = 2e-3
"""Worst error accepted between frameworks, relative to the largest magnitude: they sum float32 in
different orders over up to fifty layers."""

Runner = Callable[[Inputs], list[np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A model file and the sizes to run it with."""

    name: str
    path: Path
    inputs: list[tuple[Dims, Inputs]]


@dataclass
class Row:
    """What was measured for one size. Times in milliseconds, medians; spread: (10%, 90%)."""

    model: str
    dims: Dims
    milliseconds: dict[str, float]
    spread: dict[str, tuple[float, float]]
    error: float

    @property
    def ratio(self) -> float:
        """The time of the better peer over ours: above 1 is faster."""
        peers = [v for k, v in self.milliseconds.items() if k != "transect"]
        return min(peers) / self.milliseconds["transect"]


@dataclass
class Model:
    """What was measured for one model. Seconds; bytes."""

    name: str
    rows: list[Row] = field(default_factory=list[Row])
    load_seconds: dict[str, float] = field(default_factory=dict[str, float])
    warm_seconds: float = 0.0
    peak: dict[str, int] = field(default_factory=dict[str, int])
    warm_peak: int = 0
    cache_entries: int = 0


# --- one framework in a process ---------------------------------------------------------------


def load_transect(path: str, threads: int, libraries: bool) -> Runner:
    """The model compiled, or taken from the cache."""
    del threads  # set through TRANSECT_NUM_THREADS
    import transect

    model = transect.compile(path, libraries=None if libraries else ())
    names = [parameter.name for parameter in model.signature.parameters]

    def run(inputs: Inputs) -> list[np.ndarray]:
        result = model(*[inputs[name] for name in names])
        return list(result) if isinstance(result, tuple) else [result]

    return run


def load_onnxruntime(path: str, threads: int, libraries: bool) -> Runner:
    """The model in ONNX Runtime with its default optimizations."""
    del libraries
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def load_openvino(path: str, threads: int, libraries: bool) -> Runner:
    """The model in OpenVINO, for latency, in float32 as the others."""
    del libraries
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = core.compile_model(core.read_model(path), "CPU", settings)
    request, count = model.create_infer_request(), len(model.outputs)

    def run(inputs: Inputs) -> list[np.ndarray]:
        request.infer(inputs, share_inputs=True, share_outputs=True)
        return [request.get_output_tensor(number).data for number in range(count)]

    return run


LOADERS: dict[str, Callable[[str, int, bool], Runner]] = {
    "transect": load_transect,
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
}


def serve(framework: str, threads: int, libraries: bool) -> None:
    """Answer requests, a line of JSON each, until standard input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runner: Runner | None = None
    inputs: Inputs = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            match request["do"]:
                case "load":
                    start = time.perf_counter()
                    runner = LOADERS[framework](request["path"], threads, libraries)
                    answer["seconds"] = time.perf_counter() - start
                case "inputs":
                    with np.load(request["path"]) as stored:
                        inputs = dict(stored)
                case "run":
                    assert runner is not None
                    # What sleeps between turns wakes up in a call that is not timed.
                    runner(inputs)
                    times: list[float] = []
                    for _ in range(request["calls"]):
                        start = time.perf_counter()
                        runner(inputs)
                        times.append(time.perf_counter() - start)
                    answer["times"] = times
                case "outputs":
                    assert runner is not None
                    np.savez(request["path"], *runner(inputs))
                case "peak":
                    status = Path("/proc/self/status").read_text()
                    line = next(item for item in status.splitlines() if item.startswith("VmHWM"))
                    answer["bytes"] = int(line.split()[1]) * 1024
                case other:
                    raise ValueError(other)
        except Exception as error:  # noqa: BLE001 - the other side shows it
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=out, flush=True)


class Process:
    """A framework in a process of its own."""

    def __init__(self, framework: str, options: argparse.Namespace, cache: Path) -> None:
        self.framework = framework
        threads = str(options.threads)
        environment = {
            **os.environ,
            "TRANSECT_NUM_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "TRANSECT_CACHE_DIR": str(cache),
        }
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.models"),
                *("--serve", framework, "--threads", threads, "--libraries", options.libraries),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send a request and wait for the answer. Raises RuntimeError for what went wrong."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.framework} died: exit status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.framework}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


# --- measuring --------------------------------------------------------------------------------


def measure(case: Case, options: argparse.Namespace, work: Path) -> Model:
    """All figures of one model."""
    cache = work / f"cache-{case.name}"
    result = Model(case.name)
    with contextlib.ExitStack() as stack:

        def start(framework: str) -> Process:
            process = Process(framework, options, cache)
            stack.callback(process.close)
            return process

        processes = {name: start(name) for name in FRAMEWORKS}
        for name, process in processes.items():
            result.load_seconds[name] = process.ask("load", path=str(case.path))["seconds"]
        warm = start("transect")
        result.warm_seconds = warm.ask("load", path=str(case.path))["seconds"]
        for number, (dims, inputs) in enumerate(case.inputs):
            stored = work / f"inputs-{number}.npz"
            np.savez(stored, **inputs)
            for process in (*processes.values(), warm):
                process.ask("inputs", path=str(stored))
            outputs = {name: fetch(process, work) for name, process in processes.items()}
            fetch(warm, work)
            error = difference(outputs["transect"], outputs["onnxruntime"])
            if error > TOLERANCE:
                raise RuntimeError(f"{case.name} {dims}: wrong, error {error:.1e}")
            times = interleave(processes)
            result.rows.append(
                Row(
                    case.name,
                    dims,
                    {name: statistics.median(of) * 1e3 for name, of in times.items()},
                    {name: spread(of) for name, of in times.items()},
                    error,
                )
            )
        result.peak = {name: process.ask("peak")["bytes"] for name, process in processes.items()}
        result.warm_peak = warm.ask("peak")["bytes"]
    result.cache_entries = sum(1 for path in cache.rglob("*") if path.is_file())
    return result


def fetch(process: Process, work: Path) -> list[np.ndarray]:
    """The outputs for the inputs it was given."""
    path = work / f"outputs-{process.framework}.npz"
    process.ask("outputs", path=str(path))
    with np.load(path) as stored:
        return [stored[name] for name in stored.files]


def difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The worst error, relative to the largest magnitude of an output."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise RuntimeError(f"{a.dtype}{a.shape} instead of {b.dtype}{b.shape}")
        if a.size:
            scale = max(float(np.max(np.abs(b))), 1e-30)
            worst = max(worst, float(np.max(np.abs(a.astype(np.float64) - b))) / scale)
    return worst


def interleave(processes: dict[str, Process]) -> dict[str, list[float]]:
    """Seconds of single calls, the frameworks in turn."""
    times: dict[str, list[float]] = {name: [] for name in processes}
    for process in processes.values():
        process.ask("run", calls=2)
    start = time.perf_counter()
    for _ in range(ROUNDS):
        for name, process in processes.items():
            times[name] += process.ask("run", calls=3)["times"]
        if time.perf_counter() - start > SECONDS and len(times["transect"]) >= 9:
            break
    return times


def spread(times: Sequence[float]) -> tuple[float, float]:
    """The 10% and 90% quantiles in milliseconds."""
    low, high = np.quantile(times, (0.1, 0.9)) * 1e3
    return float(low), float(high)


# --- cases and report -------------------------------------------------------------------------


def cases(
    names: Sequence[str], folder: Path, exporter: Exporter, kinds: Sequence[str]
) -> list[Case]:
    """The models to measure: exported static and dynamic, and those of packages."""
    found: list[Case] = []
    for name, architecture in ARCHITECTURES.items():
        if names and name not in names:
            continue
        for kind in kinds:
            dynamic = kind == "dynamic"
            possible = architecture.dynamic_exporters if dynamic else architecture.exporters
            chosen = exporter if exporter in possible else possible[0]
            path = export(architecture, folder, chosen, dynamic=dynamic, small=False)
            sizes = architecture.sizes if dynamic else architecture.sizes[:1]
            inputs = [(dims, feed(architecture, dims, small=False)) for dims in sizes]
            found.append(Case(f"{name} {kind}", path, inputs))
    for name, packaged in PACKAGED.items():
        if (names and name not in names) or "dynamic" not in kinds:
            continue
        inputs = [(dims, {packaged.input: packaged.feed(dims)}) for dims in packaged.sizes]
        found.append(Case(name, packaged.path, inputs))
    return found


def show(model: Model) -> None:
    """Print one model's figures."""
    for row in model.rows:
        dims = "x".join(str(size) for size in row.dims.values())
        times = "  ".join(
            f"{name} {row.milliseconds[name]:8.2f} ({low:.2f}-{high:.2f})"
            for name, (low, high) in row.spread.items()
        )
        print(f"{row.model:28} {dims:12} {times}  ratio {row.ratio:5.2f}  error {row.error:.1e}")
    peaks = "  ".join(f"{name} {size / 2**20:.0f}" for name, size in model.peak.items())
    loads = "  ".join(f"{name} {seconds:.2f}" for name, seconds in model.load_seconds.items())
    print(
        f"{'':28} load s: {loads}  warm {model.warm_seconds:.2f};"
        f"  peak MiB: {peaks}  warm {model.warm_peak / 2**20:.0f}",
        flush=True,
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--exporter", choices=("script", "dynamo"), default="script")
    parser.add_argument("--kind", choices=("static", "dynamic", "both"), default="both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--libraries", choices=("on", "off"), default="on", help="whether ours may call any"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/models"), help="of exports")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", choices=FRAMEWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads, options.libraries == "on")
        return
    kinds = ("static", "dynamic") if options.kind == "both" else (options.kind,)
    measured: list[Model] = []
    failed = 0
    for case in cases(options.only, options.folder, options.exporter, kinds):
        with tempfile.TemporaryDirectory() as work:
            try:
                measured.append(measure(case, options, Path(work)))
            except RuntimeError as error:
                failed += 1
                print(f"{case.name:28} FAILED: {error}", flush=True)
                continue
        show(measured[-1])
    if options.json:
        options.json.write_text(json.dumps([asdict(model) for model in measured], indent=1))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
