"""Classify this repository's own files with the model of the `magika` package.

The model is compiled by transect and checked against ONNX Runtime at three batch sizes. Prints
what each file is, then a table of latency, compile time and error.
Run it with `python examples/magika_demo.py`.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import transect

BATCHES = (1, 8, 32)
WARM_UP, ROUNDS = 10, 15
REPOSITORY = Path(__file__).resolve().parents[1]


def model_folder() -> Path:
    """Where the installed package keeps its model; the package itself is not imported."""
    spec = importlib.util.find_spec("magika")
    if spec is None or spec.origin is None:
        raise SystemExit("the package magika is not installed: pip install magika==1.0.3")
    return Path(spec.origin).parent / "models" / "standard_v3_3"


def features(content: bytes, config: dict[str, int]) -> np.ndarray:
    """What the model looks at: the first and the last bytes, without the white space around."""
    head, tail, padding = config["beg_size"], config["end_size"], config["padding_token"]
    first = content[: config["block_size"]].lstrip()[:head]
    last = content[-config["block_size"] :].rstrip()[-tail:]
    result = np.full(head + tail, padding, np.int32)
    result[: len(first)] = np.frombuffer(first, np.uint8)
    result[head + tail - len(last) :] = np.frombuffer(last, np.uint8)
    return result


def repository_files() -> list[Path]:
    """Source and text files of this repository, large enough for the model, in a fixed order."""
    hidden = (path for path in sorted(REPOSITORY.rglob("*")) if path.is_file())
    files = [
        path
        for path in hidden
        if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts[:-1])
        and "__pycache__" not in path.parts
        and path.stat().st_size >= 64
    ]
    kinds: dict[str, int] = {}
    chosen: list[Path] = []
    for path in files:
        kinds[path.suffix] = kinds.get(path.suffix, 0) + 1
        if kinds[path.suffix] <= 12:
            chosen.append(path)
    return chosen[: max(BATCHES)]


def latency(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median milliseconds of two functions that take turns.

    Both have threads that stay awake for a while: each turn starts when the other's sleep, with a
    call that is not timed and wakes its own.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + ROUNDS):
        for function, spent in zip((first, second), times, strict=True):
            time.sleep(0.02)
            function()
            start = time.perf_counter()
            function()
            if number >= WARM_UP:
                spent.append(time.perf_counter() - start)
    return statistics.median(times[0]) * 1e3, statistics.median(times[1]) * 1e3


def main() -> None:
    folder = model_folder()
    path = folder / "model.onnx"
    config = json.loads((folder / "config.min.json").read_text(encoding="utf-8"))
    labels: list[str] = config["target_labels_space"]

    with tempfile.TemporaryDirectory() as empty:
        start = time.perf_counter()
        model = transect.compile(path, cache=Path(empty))
        cold = time.perf_counter() - start
        start = time.perf_counter()
        transect.compile(path, cache=Path(empty))
        warm = time.perf_counter() - start

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = transect.num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    console = Console()
    files = repository_files()
    inputs = np.stack([features(file.read_bytes(), config) for file in files])
    scores = model(inputs)
    expected = session.run(None, {name: inputs})[0]

    found = Table(title="This repository's files", show_edge=False)
    for title in ("file", "is", "score", "ONNX Runtime says"):
        found.add_column(title)
    for file, row, other in zip(files, scores, expected, strict=True):
        found.add_row(
            str(file.relative_to(REPOSITORY)),
            labels[int(row.argmax())],
            f"{row.max():.3f}",
            labels[int(other.argmax())],
        )
    console.print(found)
    if not np.array_equal(scores.argmax(1), expected.argmax(1)):
        raise SystemExit("transect and ONNX Runtime disagree about a file")

    table = Table(title=f"{path.name}: {transect.num_threads()} threads", show_edge=False)
    for title in ("batch", "transect ms", "ONNX Runtime ms", "ratio", "largest error"):
        table.add_column(title, justify="right")
    for batch in BATCHES:
        part = np.resize(inputs, (batch, inputs.shape[1]))
        ours, theirs = latency(
            lambda part=part: model(part), lambda part=part: session.run(None, {name: part})
        )
        error = float(np.max(np.abs(model(part) - session.run(None, {name: part})[0])))
        if not error < 1e-4:
            raise SystemExit(f"batch {batch}: the scores differ by {error}")
        table.add_row(
            str(batch), f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}x", f"{error:.1e}"
        )
    console.print(table)
    console.print(
        f"compile time: {cold:.2f} s with an empty cache, {warm * 1e3:.0f} ms from the cache"
    )


if __name__ == "__main__":
    main()
