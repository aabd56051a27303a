"""How fast candidates are scored from symbolic features, beside concrete schedules one at a time.

`python -m benchmarks.features` prints candidates a second, the cost model's answer included, after
checking that both ways agree. `--rank` measures register tiles of matrix products and prints how
well the model's order agrees with theirs (Spearman); `--rank --compile` only fills the cache, so
that a timed run on another core does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

import transect
from transect.arith.population import grid
from transect.hardware.cpu_cost import CpuCost, Prediction
from transect.hardware.tile_site import chosen, tile_site
from transect.hardware.x86 import host
from transect.ir.expr import Expr, Var
from transect.runtime import CompiledModel
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

POPULATION = 10_000
ONE_BY_ONE = 24
LANES = 16
SIZES = ((256, 256, 256), (512, 512, 512), (128, 768, 768), (384, 1536, 384), (96, 2048, 512))
ROWS, VECTORS = tuple(range(1, 17)), (1, 2, 3, 4, 6, 8)
MEASURED = 28


def matmul(n: int, m: int, d: int) -> PrimFunc:
    """y = x @ w."""
    builder = FunctionBuilder("matmul")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (d, m), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    return builder.finish([y])


@dataclass(frozen=True)
class Tiled:
    """A matrix product scheduled with decision variables: rows and vectors of a register tile."""

    schedule: Schedule
    rows: Var
    vectors: Var

    @staticmethod
    def of(n: int, m: int, d: int) -> Tiled:
        """x @ w of (n, d) and (d, m)."""
        sch = Schedule(matmul(n, m, d))
        rows, vectors = sch.decision("rows", ROWS), sch.decision("vectors", VECTORS)
        Tiled.tile(sch, rows, vectors)
        return Tiled(sch, rows, vectors)

    @staticmethod
    def tile(sch: Schedule, rows: Expr | int, vectors: Expr | int) -> None:
        """Panels of columns outside, the reduction unbroken, results in registers."""
        block = sch.get_block("y")
        copy = sch.cache_write(block, 0, "local")
        sch.pad_domain(block, [rows, vectors * LANES, 1])
        i, j, k = sch.get_loops(block)
        i_tile, i_row = sch.split(i, [None, rows])
        j_panel, j_vector, j_lane = sch.split(j, [None, vectors, LANES])
        sch.reorder(j_panel, i_tile, k, i_row, j_vector, j_lane)
        sch.reverse_compute_at(copy, i_tile)
        init = sch.decompose_reduction(block, k)
        init_loops = sch.get_loops(init)[-3:]
        *_, copy_row, copy_column = sch.get_loops(copy)
        copy_loops = [copy_row, *sch.split(copy_column, [None, LANES])]
        for row, vector, lane in ((i_row, j_vector, j_lane), init_loops, copy_loops):
            sch.vectorize(lane)
            sch.unroll(vector)
            sch.unroll(row)

    def at(self, rows: int, vectors: int) -> Schedule:
        """The schedule with numbers."""
        sch = self.schedule.copy()
        sch.decide_sizes({self.rows: rows, self.vectors: vectors})
        return sch


def throughput() -> None:
    """Candidates a second, from terms and one at a time."""
    target, model = host(), CpuCost()
    started = time.perf_counter()
    tiled = Tiled.of(500, 768, 640)
    scheduled = time.perf_counter()
    prediction = model.of(tiled.schedule.func, target)
    stated = time.perf_counter()
    rng = np.random.default_rng(0)
    values = {
        tiled.rows: rng.integers(2, 25, POPULATION),
        tiled.vectors: rng.integers(2, 13, POPULATION),
    }
    times: list[float] = []
    for _ in range(9):
        start = time.perf_counter()
        answer = prediction.evaluate(values)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    alone: list[float] = []
    for place in range(ONE_BY_ONE):
        start = time.perf_counter()
        concrete = Schedule(matmul(500, 768, 640))
        Tiled.tile(concrete, *(int(column[place]) for column in values.values()))
        single = model.of(concrete.func, target).evaluate({})
        alone.append(time.perf_counter() - start)
        for name in ("seconds", "core", "operations", "live", "copies"):
            one, all_ = getattr(single, name), np.ravel(getattr(answer, name))
            np.testing.assert_allclose(one, all_[place % all_.size], rtol=1e-9, err_msg=name)
    one = statistics.median(alone)
    print(f"schedule with decision variables {1e3 * (scheduled - started):8.2f} ms, once")
    print(f"features and compiled terms      {1e3 * (stated - scheduled):8.2f} ms, once")
    rate = POPULATION / seconds
    print(f"{POPULATION} candidates at once         {seconds * 1e3:8.2f} ms, {rate:10.0f} a second")
    print(f"one concrete schedule at a time  {one * 1e3:8.2f} ms, {1 / one:10.0f} a second")
    print(f"ratio {one * POPULATION / seconds:.0f}; {ONE_BY_ONE} compared, equal")


def candidates(tiled: Tiled, prediction: Prediction) -> list[tuple[int, int]]:
    """Tiles to measure: the predicted best, and others evenly down to the slowest that fit."""
    target = host()
    values = grid({tiled.rows: ROWS, tiled.vectors: VECTORS})
    found = prediction.evaluate(values)
    fits = np.flatnonzero(found.live <= target.vector_registers)
    order = fits[np.argsort(found.seconds[fits], kind="stable")]
    picked = order[np.unique(np.linspace(0, len(order) - 1, MEASURED).astype(int))]
    return [(int(values[tiled.rows][p]), int(values[tiled.vectors][p])) for p in picked]


def compiled(tiled: Tiled, rows: int, vectors: int) -> CompiledModel:
    """The kernel of one tile."""
    func = tiled.at(rows, vectors).func.with_attrs(**{"tir.is_scheduled": True})
    return transect.compile(func, target=host())


def rank(only_compile: bool, verbose: bool) -> bool:
    """Compare the model's order of tiles with measured times; whether all results are right."""
    target, model, right = host(), CpuCost(), True
    correlations: list[float] = []
    heads = ("product", "spearman", "chosen", "best", "chosen/best", "GFLOP/s")
    print("{:16} {:>8} {:>8} {:>8} {:>12} {:>8}".format(*heads))
    for n, m, d in SIZES:
        tiled = Tiled.of(n, m, d)
        prediction = model.of(tiled.schedule.func, target)
        tiles = candidates(tiled, prediction)
        kernels = [compiled(tiled, *tile) for tile in tiles]
        if only_compile:
            continue
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(s, dtype=np.float32) for s in ((n, d), (d, m)))
        out = np.empty((n, m), np.float32)
        exact = x.astype(np.float64) @ w
        times = [float("inf")] * len(tiles)
        for kernel in kernels:
            kernel(x, w, out)
            right &= bool(np.abs(out - exact).max() < 1e-4 * np.abs(exact).max())
        for _ in range(5):
            for place, kernel in enumerate(kernels):
                start = time.perf_counter()
                kernel(x, w, out)
                times[place] = min(times[place], time.perf_counter() - start)
        found = prediction.evaluate(
            {tiled.rows: [t[0] for t in tiles], tiled.vectors: [t[1] for t in tiles]}
        )
        correlation = float(spearmanr(found.seconds, times).statistic)
        correlations.append(correlation)
        site = tile_site(tiled.schedule, target)
        own = tuple(chosen(site.options[0], (tiled.rows, tiled.vectors)).values())
        best = int(np.argmin(times))
        taken = times[tiles.index(own)] if own in tiles else float("nan")
        rate = 2e-9 * n * m * d / taken
        print(
            f"{f'{n}x{m}x{d}':16} {correlation:8.3f} {'{}x{}'.format(*own):>8} "
            f"{'{}x{}'.format(*tiles[best]):>8} {taken / times[best]:12.3f} {rate:8.1f}"
        )
        if verbose:
            for tile, predicted, measured in zip(tiles, found.seconds, times, strict=True):
                print(
                    f"    {tile} predicted {predicted * 1e6:9.1f} us, took {measured * 1e6:9.1f} us"
                )
    if correlations:
        print(f"mean {statistics.mean(correlations):.3f}; results {'right' if right else 'WRONG'}")
    return right


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("-v", action="store_true", help="every tile that was measured")
    options = parser.parse_args()
    if options.rank:
        return int(not rank(options.compile, options.v))
    throughput()
    return 0


if __name__ == "__main__":
    sys.exit(main())
