"""Operators beside torch, oneDNN, ONNX Runtime and OpenBLAS, with libraries off for ours.

Run: python -m benchmarks.ops [WORD ...] [--threads 1,2] [--quick] [--markdown FILE] [--json FILE]
WORDs choose rows by parts of their names. Needs the extra `models`. Every number of threads is
measured in a process of its own, on as many cores. In each row all take turns, the machine's peak
among them: multiply-adds in registers, or reading as many bytes in order as the row moves. Of each
turn the fastest call counts, and of the rounds the median; results are compared with float64. Ours
is what `transect.compile` makes of an ONNX model of one operator with constant weights, called with
its result allocated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.ops import convolutions, others, peak, products
from benchmarks.ops.case import OURS, ROUNDS, Case, Row, measure
from benchmarks.ops.peers import ours

_MEANS = {"conv, own layout": 0.90}
"""The least share of the peak that is to be reached in the geometric mean of a family."""
_THREADS = "TRANSECT_BENCHMARK_THREADS"


def main() -> int:
    """Run what the command line asks for; whether all results were right."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], prog="python -m benchmarks.ops"
    )
    parser.add_argument("words", nargs="*", help="parts of names of rows; all rows by default")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, one after another")
    parser.add_argument("--quick", action="store_true", help="one round instead of several")
    parser.add_argument("--markdown", type=Path, help="write a table to this file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--list", action="store_true", help="print the names of rows")
    options = parser.parse_args()
    if _THREADS in os.environ:
        return _serve(int(os.environ[_THREADS]), options)
    found: list[dict[str, object]] = []
    codes: list[int] = []
    for threads in map(int, options.threads.split(",")):
        part = Path(f"{options.json or options.markdown or 'ops'}.{threads}.part")
        codes.append(_run(threads, part, options))
        if part.exists():
            found += json.loads(part.read_text())
            part.unlink()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.markdown:
        options.markdown.write_text(_markdown(found))
    return max(codes)


def _run(threads: int, part: Path, options: argparse.Namespace) -> int:
    """One process with as many cores and threads; it writes its rows to `part`."""
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        print(f"{threads} threads: there are only {len(cores)} cores", file=sys.stderr)
        return 1
    count = str(threads)
    environment = {
        **os.environ,
        _THREADS: count,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TRANSECT_NUM_THREADS": count,
        # 2^18 cycles: its threads yield and look again for 30 ms after each call otherwise.
        "OPENBLAS_THREAD_TIMEOUT": "18",
    }
    command = [sys.executable, "-m", "benchmarks.ops", *options.words, "--json", str(part)]
    command += ["--quick"] * options.quick + ["--list"] * options.list
    return subprocess.run(
        command,
        env=environment,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores[:threads]),
    ).returncode


def _serve(threads: int, options: argparse.Namespace) -> int:
    """Measure with this number of threads, which the environment of this process says, too."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(mode=False)
    chosen = [
        case
        for case in _cases(threads)
        if not options.words or any(word in f"{case.family} {case.name}" for word in options.words)
    ]
    if options.list:
        print("\n".join(f"{case.family}: {case.name}" for case in chosen))
        return 0
    loops = peak.arithmetic(threads)
    rates = {name: loop.rate() for name, loop in loops.items()}
    listed = ", ".join(f"{name} {rate / 1e9:.0f} G/s" for name, rate in rates.items())
    print(f"\npeak on {threads} thread{'s' * (threads > 1)}: {listed}", flush=True)
    rows: list[Row] = []
    for case in chosen:
        if case.operations:
            # A processor without instructions for a dtype computes it in float32.
            of_unit = {name for name in loops if name.split()[0] == case.unit}
            of_float = {name for name in loops if name.split()[0] == "float32"}
            loop = loops[max(of_unit or of_float, key=lambda name: rates[name])]
        else:
            loop = peak.reading(case.moved, threads)
        rows.append(measure(case, threads, loop, ours(case), 1 if options.quick else ROUNDS))
        _show(rows[-1])
        options.json.write_text(json.dumps([_record(row) for row in rows], indent=1))
    return int(not all(row.is_right for row in rows))


def _cases(threads: int) -> Iterator[Case]:
    """All rows, in the order of the table."""
    for family in (products, convolutions, others):
        yield from family.cases(threads)


def _show(row: Row) -> None:
    """A line for the row and one for each that took part."""
    amount = f"{row.work / 1e9:.3f} G{'op' if row.is_arithmetic else 'B'}"
    print(f"{row.family}: {row.name}  ({amount}; goal: {row.goal})")
    for name in sorted(row.rounds, key=row.seconds):
        error = f"error {row.errors[name]:.0e}" if name in row.errors else ""
        wrong = "  WRONG" if row.errors.get(name, 0.0) > row.tolerance else ""
        seconds = row.seconds(name)
        print(
            f"    {name:32} {seconds * 1e6:11.1f} us {row.work / seconds / 1e9:8.1f} G/s "
            f"{row.share(name):7.1%}  {error}{wrong}"
        )
    for name, why in row.failed.items():
        print(f"    {name:32} cannot: {why}")
    print(
        f"    {row.ratio:.2f}x {row.best_peer}, {row.share():.1%} of "
        f"{statistics.median(row.peaks) / 1e9:.0f} G/s: {_verdict(row)}",
        flush=True,
    )


def _verdict(row: Row) -> str:
    if not row.is_right:
        return "WRONG" if OURS in row.errors else "FAILED"
    absent = f", without {', '.join(row.failed)}" if row.failed else ""
    if not (row.goal.peak or row.goal.ratio):
        return f"reported{absent}"
    return ("reached" if row.is_reached else "MISSED") + absent


def _record(row: Row) -> dict[str, object]:
    """The row as JSON, with what follows from it."""
    return {
        **asdict(row),
        "seconds": {name: row.seconds(name) for name in row.rounds},
        "share": row.share(),
        "ratio": row.ratio,
        "best_peer": row.best_peer,
        "goal": str(row.goal),
        "verdict": _verdict(row),
    }


def _markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The table, and the geometric mean of each family."""
    lines = [
        "| threads | work | G/s | of peak | best peer | its G/s | ratio | goal | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    means: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for row in records:
        title = f"{row['family']}: {row['name']}"
        if OURS not in row["seconds"]:
            lines.append(f"| {row['threads']} | {title} | | | | | | {row['goal']} | FAILED |")
            continue
        rate, best = row["work"] / row["seconds"][OURS] / 1e9, row["best_peer"]
        theirs = f"{row['work'] / row['seconds'][best] / 1e9:.1f}" if best else ""
        lines.append(
            f"| {row['threads']} | {title} | {rate:.1f} | {row['share']:.0%} | {best} | {theirs} "
            f"| {row['ratio']:.2f} | {row['goal']} | {row['verdict']} |"
        )
        means.setdefault((row["threads"], row["family"]), []).append((row["share"], row["ratio"]))
    lines += [
        "",
        "Geometric means:",
        "",
        "| threads | rows | of peak | ratio | goal | |",
        "|---|---|---|---|---|---|",
    ]
    for (threads, family), found in means.items():
        share, ratio = (statistics.geometric_mean(of) for of in zip(*found, strict=True))
        least = _MEANS.get(family)
        goal = (
            f"{least:.0%} of peak | {'reached' if share >= least else 'MISSED'}" if least else "|"
        )
        lines.append(
            f"| {threads} | {len(found)} x {family} | {share:.0%} | {ratio:.2f} | {goal} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
