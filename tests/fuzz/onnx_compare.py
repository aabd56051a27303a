"""Running random ONNX graphs on both sides: transect, and ONNX Runtime without optimizations.

`python -m tests.fuzz.onnx_compare --count 10000 --first 0` searches long; a graph that differs is
printed with its seed and cut down to the nodes that are needed to show it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime

import transect
from tests.fuzz.guarded import Guard, exact_workspaces, guarded
from tests.fuzz.onnx_graphs import random_graph
from transect.support.errors import TransectError

Feeds = Sequence[dict[str, np.ndarray]]


def reference(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The model in ONNX Runtime as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def difference(model: onnx.ModelProto, feeds: Feeds, *, guards: bool = False) -> str | None:
    """What differs, None if nothing does; "invalid" if ONNX Runtime refuses the graph.

    guards: all memory lies flush against pages that cannot be touched, in turns before it and
    behind it; an access out of bounds ends the process.
    """
    try:
        session = reference(model)
        expected = [session.run(None, feed) for feed in feeds]
    except Exception as error:  # noqa: BLE001 - its exceptions have no common class
        return f"invalid: {str(error)[:300]}"
    try:
        with exact_workspaces() if guards else nullcontext():
            compiled = transect.compile(model, cache=False)
    except TransectError as error:
        return f"refused: {error}"
    names = [item.name for item in model.graph.input]
    for number, (feed, wanted) in enumerate(zip(feeds, expected, strict=True)):
        guard = Guard(behind=number % 2 == 0)
        run = guarded(compiled, guard) if guards else compiled
        try:
            got = run(*(feed[name] for name in names))
        except (TransectError, ValueError, TypeError, RuntimeError) as error:
            return f"failed: {error}"
        damage = guard.damage()
        if damage is not None:
            return f"damaged: {damage}"
        results = got if isinstance(got, tuple) else (got,)
        for info, a, b in zip(model.graph.output, results, wanted, strict=True):
            found = mismatch(np.asarray(a), np.asarray(b))
            if found:
                return f"wrong: {info.name}: {found}"
    return None


def mismatch(a: np.ndarray, b: np.ndarray) -> str | None:
    """How two outputs differ beyond what the order of float32 sums explains."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
    if a.dtype != np.float32:
        return None if np.array_equal(a, b) else f"{np.sum(a != b)} of {a.size} elements differ"
    finite = np.abs(b[np.isfinite(b)])
    scale = float(finite.max()) if finite.size else 1.0
    close = np.isclose(a, b, rtol=1e-3, atol=1e-4 * max(scale, 1e-3), equal_nan=True)
    if close.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    return f"{np.sum(~close)} of {a.size} elements differ; at {at}: {a[at]} instead of {b[at]}"


def kind(found: str | None) -> str:
    """The first word of a difference."""
    return "same" if found is None else found.partition(":")[0]


def reduced(model: onnx.ModelProto, feeds: Feeds, found: str) -> onnx.ModelProto:
    """A smaller model with the same kind of difference: fewer outputs, then the nodes they need."""
    smallest = model
    for info in model.graph.output:
        single = onnx.ModelProto()
        single.CopyFrom(model)
        del single.graph.output[:]
        single.graph.output.append(info)
        needed: set[str] = {info.name}
        kept: list[onnx.NodeProto] = []
        for node in reversed(single.graph.node):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
                needed |= {n for a in node.attribute for inner in a.g.node for n in inner.input}
        del single.graph.node[:]
        single.graph.node.extend(reversed(kept))
        if len(kept) < len(smallest.graph.node) and kind(difference(single, feeds)) == kind(found):
            smallest = single
    return smallest


def search(seeds: Sequence[int], *, guards: bool = False) -> Counter[str]:
    """Compare the graphs of some seeds; prints what differs."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        graph = random_graph(seed)
        model, feeds = graph.model(), graph.feeds()
        if guards:
            print(f"last {seed}", flush=True)
        found = difference(model, feeds, guards=guards)
        counts[kind(found)] += 1
        if found is not None:
            print(f"seed {seed}: {found}")
            if kind(found) != "invalid" and not guards:
                print(onnx.printer.to_text(reduced(model, feeds, found)))
            sys.stdout.flush()
    return counts


def main() -> None:
    """Search in chunks, each in a process of its own, so that a crash is found as well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=100)
    parser.add_argument("--guards", action="store_true", help="all memory beside guard pages")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    if options.inside:
        for name, count in search(seeds, guards=options.guards).items():
            print(f"count {name} {count}")
        return
    total: Counter[str] = Counter()
    for start in range(seeds.start, seeds.stop, options.chunk):
        size = min(options.chunk, seeds.stop - start)
        command = [sys.executable, "-m", "tests.fuzz.onnx_compare", "--inside"]
        command += ["--first", str(start), "--count", str(size)]
        command += ["--guards"] * options.guards
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = ""
        for line in done.stdout.splitlines():
            if line.startswith("last "):
                last = f", at {line}"
            elif line.startswith("count "):
                _, name, count = line.split()
                total[name] += int(count)
            else:
                print(line)
        if done.returncode:
            total["crash"] += 1
            print(f"seeds from {start}{last}: exit status {done.returncode}\n{done.stderr[-2000:]}")
        print(f"-- to {start + size}: {dict(total)}", flush=True)


if __name__ == "__main__":
    main()
