"""ONNX's own backend suite, compiled: how many cases pass, and what the others need.

Run: python -m benchmarks.onnx_suite [--only TEXT] [--jobs N] [--json FILE] [--peer onnxruntime]
Every case runs in a worker process with a time limit, so that a crash or a hang is one result among
the others. A case passes if all its outputs have the type, the shape and (within the tolerances of
the suite) the values that ONNX states, for all of its data sets. The cases of kind "real" are the
models of the `onnx` package with weights made up, run on the inputs of ONNX's own runner.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import transect
from transect.runtime import functions
from transect.support.errors import TransectError

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
LIMIT_SECONDS = 120.0

Session = Callable[[Sequence[Any]], Sequence[Any]]
"""A prepared model: inputs in order to outputs in order."""


@dataclass(frozen=True)
class Verdict:
    """What became of one case.

    outcome: "pass", "python" (right, but with a call of Python in it), "refused" (an error of
    transect's own that says why), "wrong", "error" (any other exception), "crash", "hang".
    """

    name: str
    operators: tuple[str, ...]
    outcome: str
    detail: str = ""
    seconds: float = 0.0


def cases() -> dict[str, TestCase]:
    """All cases of the installed `onnx` by name."""
    found: dict[str, TestCase] = {}
    for kind in KINDS:
        for case in load_model_tests(kind=kind):
            found[f"{kind}/{case.name}"] = case
    return found


def model_of(case: TestCase) -> onnx.ModelProto:
    """The model of a case, wherever it lies."""
    if case.model is not None:
        return case.model
    if case.model_dir is not None:
        return onnx.load(Path(case.model_dir) / "model.onnx")
    return onnx.load(light_model(case))


def light_model(case: TestCase) -> Path:
    """The file of a case of kind "real"; its url is a path in the sources of `onnx`."""
    return Path(onnx.__file__).parent / str(case.url).removeprefix("onnx/")


def data_sets(case: TestCase, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    """Inputs and expected outputs."""
    if case.data_sets is not None:
        for inputs, outputs in case.data_sets:
            yield [as_array(item) for item in inputs], [as_array(item) for item in outputs]
    elif case.model_dir is not None:
        for folder in sorted(Path(case.model_dir).glob("test_data_set*")):
            yield (
                stored(folder, "input", model.graph.input),
                stored(folder, "output", model.graph.output),
            )
    else:
        weights = {item.name for item in model.graph.initializer}
        inputs = [
            Runner.generate_dummy_data(item, seed=0, name=case.model_name, random=False)
            for item in model.graph.input
            if item.name not in weights
        ]
        file = light_model(case)
        expected = file.with_name(f"{file.stem}_output_0.pb")
        yield inputs, [onnx.numpy_helper.to_array(onnx.load_tensor(expected))]


def as_array(item: Any) -> Any:
    """A tensor of the suite as an array."""
    return onnx.numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def stored(folder: Path, what: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    """The values in the numbered files of a data set."""
    found: list[Any] = []
    for info, number in zip(infos, range(len(list(folder.glob(f"{what}_*.pb")))), strict=False):
        path = folder / f"{what}_{number}.pb"
        if info.type.HasField("sequence_type"):
            sequence = onnx.SequenceProto.FromString(path.read_bytes())
            found.append(onnx.numpy_helper.to_list(sequence))
        elif info.type.HasField("optional_type"):
            optional = onnx.OptionalProto.FromString(path.read_bytes())
            found.append(onnx.numpy_helper.to_optional(optional))
        else:
            found.append(onnx.numpy_helper.to_array(onnx.load_tensor(path)))
    return found


def transect_session(model: onnx.ModelProto) -> Session:
    """The model compiled by transect, past the cache."""
    compiled = transect.compile(model, cache=False)

    def run(inputs: Sequence[Any]) -> Sequence[Any]:
        result = compiled(*inputs)
        return result if isinstance(result, tuple) and len(model.graph.output) != 1 else [result]

    return run


def onnxruntime_session(model: onnx.ModelProto) -> Session:
    """The model in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=False)))


SESSIONS: dict[str, Callable[[onnx.ModelProto], Session]] = {
    "transect": transect_session,
    "onnxruntime": onnxruntime_session,
}


def judge(name: str, case: TestCase, peer: str) -> Verdict:
    """Run one case in this process."""
    start = time.perf_counter()
    model = model_of(case)
    operators = tuple(
        sorted({f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node})
    )

    def verdict(outcome: str, detail: object = "") -> Verdict:
        text = " ".join(str(detail).split())[:600]
        return Verdict(name, operators, outcome, text, time.perf_counter() - start)

    try:
        session = SESSIONS[peer](model)
        called.clear()
        for inputs, expected in data_sets(case, model):
            outputs = session(inputs)
            Runner.assert_similar_outputs(expected, outputs, case.rtol, case.atol)
    except AssertionError as error:
        return verdict("wrong", error)
    except TransectError as error:
        return verdict("refused", error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the case's result
        return verdict("error", f"{type(error).__name__}: {error}")
    return verdict("python" if called else "pass", ", ".join(sorted(called)))


called: set[str] = set()
"""The functions in Python that compiled code has called."""


def observe_python() -> None:
    """Let the Python functions that come with transect note that they are called."""

    def observed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            called.add(name)
            return function(*args)

        return call

    for name, function in functions.BUILTIN.items():
        functions.BUILTIN[name] = observed(name, function)


def work(peer: str) -> None:
    """Judge the cases whose names come on standard input; a line of JSON each."""
    warnings.simplefilter("ignore")
    observe_python()
    found = cases()
    out = os.fdopen(os.dup(1), "w")
    # What the libraries print must not come between the lines.
    os.dup2(2, 1)
    for line in sys.stdin:
        name = line.strip()
        print(json.dumps(asdict(judge(name, found[name], peer))), file=out, flush=True)


class Worker:
    """A process that judges cases one after the other."""

    def __init__(self, peer: str) -> None:
        command = [sys.executable, "-m", "benchmarks.onnx_suite", "--worker", "--peer", peer]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.case = ""
        self.since = 0.0

    @property
    def stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, name: str) -> None:
        assert self.process.stdin is not None
        self.case, self.since = name, time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            print(name, file=self.process.stdin, flush=True)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def run_all(names: Sequence[str], peer: str, jobs: int) -> list[Verdict]:
    """Judge cases in `jobs` worker processes; a worker that crashes or hangs is replaced."""
    waiting = list(reversed(names))
    verdicts: list[Verdict] = []
    selector = selectors.DefaultSelector()

    def start() -> None:
        worker = Worker(peer)
        worker.give(waiting.pop())
        selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def retire(worker: Worker) -> None:
        selector.unregister(worker.stdout)
        worker.stop()

    for _ in range(min(jobs, len(waiting))):
        start()
    while selector.get_map():
        for key, _ in selector.select(timeout=1.0):
            worker: Worker = key.data
            line = worker.stdout.readline()
            if line:
                record = json.loads(line)
                verdicts.append(Verdict(**{**record, "operators": tuple(record["operators"])}))
                if waiting:
                    worker.give(waiting.pop())
                else:
                    retire(worker)
                continue
            retire(worker)
            code = worker.process.returncode
            verdicts.append(Verdict(worker.case, (), "crash", f"exit status {code}"))
            if waiting:
                start()
        for key in list(selector.get_map().values()):
            worker = key.data
            # The first case waits for the worker to start and to load the suite.
            if time.monotonic() - worker.since > LIMIT_SECONDS:
                retire(worker)
                verdicts.append(Verdict(worker.case, (), "hang", f"over {LIMIT_SECONDS} s"))
                if waiting:
                    start()
        if sys.stderr.isatty():
            print(f"\r{len(verdicts)} of {len(names)}", end="", file=sys.stderr)
    return verdicts


def report(verdicts: Sequence[Verdict]) -> None:
    """The counts, and what does not pass by the operator that the case is about."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    print(f"{len(verdicts)} cases: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    by_operator: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.outcome not in ("pass", "python"):
            key = verdict.operators[0] if len(verdict.operators) == 1 else "several operators"
            by_operator[key].append(verdict)
    for operator, items in sorted(by_operator.items(), key=lambda item: -len(item[1])):
        kinds = Counter(item.outcome for item in items)
        shares = ", ".join(f"{n} {what}" for what, n in kinds.most_common())
        print(f"  {operator}: {shares}; e.g. {items[0].name}: {items[0].detail[:160]}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write every verdict to this file")
    parser.add_argument("--peer", choices=sorted(SESSIONS), default="transect")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.worker:
        work(options.peer)
        return
    names = [name for name in cases() if options.only in name]
    np.set_printoptions(threshold=20)
    start = time.perf_counter()
    verdicts = run_all(names, options.peer, options.jobs)
    report(verdicts)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps([asdict(item) for item in verdicts], indent=1))


if __name__ == "__main__":
    main()
