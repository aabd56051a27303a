"""Seconds from a model file to a callable, beside ONNX Runtime's, in fresh processes taking turns.

Cold: an empty cache. Warm: the same file again in a new process. Imports are timed apart.
Run with `python benchmarks/compile_time.py [--model FILE] [--rounds N] [--json]`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_TRANSECT = """
import json, sys, time
import numpy as np
start = time.perf_counter()
import transect
transect.compile
imported = time.perf_counter()
model = transect.compile(sys.argv[1])
compiled = time.perf_counter()
result = model(np.load(sys.argv[2]))
np.save(sys.argv[3], result)
print(json.dumps({"import": imported - start, "load": compiled - imported}))
"""
_RUNTIME = """
import json, sys, time
import numpy as np
start = time.perf_counter()
import onnxruntime
imported = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
compiled = time.perf_counter()
result = session.run(None, {session.get_inputs()[0].name: np.load(sys.argv[2])})[0]
np.save(sys.argv[3], result)
print(json.dumps({"import": imported - start, "load": compiled - imported}))
"""
_PEER = "ONNX Runtime"


def demo_model() -> Path:
    """The model of the magika package."""
    spec = importlib.util.find_spec("magika")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install magika==1.0.3, or give --model")
    return Path(spec.origin).parent / "models" / "standard_v3_3" / "model.onnx"


def run(program: str, model: Path, folder: Path, cache: Path) -> dict[str, float]:
    """One fresh process; its result is left in folder/result.npy."""
    environment = {**os.environ, "TRANSECT_CACHE_DIR": str(cache)}
    arguments = [str(model), str(folder / "input.npy"), str(folder / "result.npy")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model: Path = options.model or demo_model()

    samples: dict[str, list[dict[str, float]]] = {"cold": [], "warm": [], _PEER: []}
    programs = ((_PEER, _RUNTIME), ("cold", _TRANSECT), ("warm", _TRANSECT))
    expected = np.empty(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = np.random.default_rng(0).integers(0, 257, (2, 2048)).astype(np.int32)
        np.save(folder / "input.npy", tokens)
        for number in range(options.rounds):
            for title, program in programs:
                samples[title].append(run(program, model, folder, folder / f"cache{number}"))
                result = np.load(folder / "result.npy")
                if title == _PEER:
                    expected = result
                elif not np.allclose(result, expected, rtol=1e-4, atol=1e-5):
                    raise SystemExit(f"{title}: wrong result")

    peer = statistics.median(item["load"] for item in samples[_PEER])
    rows = {
        title: {
            "import_s": statistics.median(item["import"] for item in items),
            "load_s": statistics.median(item["load"] for item in items),
            "load_min_s": min(item["load"] for item in items),
            "load_max_s": max(item["load"] for item in items),
            "ratio_to_peer": statistics.median(item["load"] for item in items) / peer,
        }
        for title, items in samples.items()
    }
    if options.json:
        print(
            json.dumps({"model": model.name, "rounds": options.rounds, "results": rows}, indent=1)
        )
        return
    print(f"{model.name}: median of {options.rounds} fresh processes, results checked")
    print(f"{'':14}{'import s':>10}{'load s':>10}{'min':>8}{'max':>8}{'x peer':>8}")
    for title, row in rows.items():
        print(
            f"{title:14}{row['import_s']:10.3f}{row['load_s']:10.3f}{row['load_min_s']:8.3f}"
            f"{row['load_max_s']:8.3f}{row['ratio_to_peer']:8.1f}"
        )


if __name__ == "__main__":
    main()
