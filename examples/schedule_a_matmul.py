"""From three plain loops to a fast matrix product, one schedule primitive after another.

Run it with `python examples/schedule_a_matmul.py [M N K]`; TRANSECT_NUM_THREADS=1 for one core.
After every step it prints the program and how fast it runs, in GFLOP/s and as a share of the
multiply-adds that this machine was measured to do.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np

import transect
from transect.driver.peak import measured_peak
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

ROWS, VECTORS, LANES = 6, 4, 16
"""The register tile: 6 x 64 sums fill 24 of the 32 registers of 512 bits; 4 hold a row of B and
one an element of A. Half as many vectors would be loaded too often for each multiply-add."""
SECONDS = 1.0


def matmul(m: int, n: int, k: int) -> PrimFunc:
    """C[m, n] = A[m, k] @ B[k, n], float32."""
    builder = FunctionBuilder("matmul")
    a = builder.input("A", (m, k), "float32")
    b = builder.input("B", (k, n), "float32")
    c = builder.reduce((m, n), (k,), lambda i, j, x: a[i, x] * b[x, j], name="C")
    return builder.finish(c)


def steps(sch: Schedule) -> Iterator[str]:
    """Schedule it, stopping after each step to say what was done."""
    yield "naive"
    block = sch.get_block("C")
    i, j, k = sch.get_loops(block)
    tiles, rows = sch.split(i, [None, ROWS])
    panels, columns = sch.split(j, [None, VECTORS * LANES])
    sch.reorder(panels, tiles, k, rows, columns)
    yield "tile: a panel of columns for all rows, a tile of it for the whole sum"
    packed = sch.reindex_cache_read(block, 1, "global", [2, 1])
    sch.compute_at(packed, panels, preserve_unit_loops=True)
    yield "pack B: the columns of a panel lie side by side, and stay in the second-level cache"
    vectors, lanes = sch.split(columns, [None, LANES])
    sch.vectorize(lanes)
    copied, part = sch.split(sch.get_loops(packed)[-1], [None, LANES])
    sch.vectorize(part)
    yield "vectorize: a register of columns at a time"
    copy = sch.cache_write(block, 0, "local")
    sch.reverse_compute_at(copy, tiles, preserve_unit_loops=True)
    sch.vectorize(sch.split(sch.get_loops(copy)[-1], [None, LANES])[1])
    start = sch.decompose_reduction(block, k)
    yield "cache_write: the sums of a tile have a place of their own, written to C once"
    for tile in ((rows, vectors), sch.get_loops(start)[2:4], sch.get_loops(copy)[2:4]):
        for loop in tile:
            sch.unroll(loop)
    yield "unroll: every sum of the tile gets a register"
    sch.unroll(copied)
    sch.annotate(sch.get_loops(packed)[1], "prefetch", 16)
    yield "prefetch: rows of B lie far apart, and each panel reads a little of all of them"
    sch.unroll(sch.split(k, [None, 2])[1])
    yield "unroll pairs of products: fewer branches, and loads further ahead"
    sch.parallel(panels)
    yield "parallel: panels on all cores"


def speed(program: PrimFunc, sizes: tuple[int, int, int]) -> float:
    """Operations a second. Raises AssertionError for a wrong result."""
    m, n, k = sizes
    model = transect.compile(program.with_attrs(**{"tir.is_scheduled": True}), cache=False)
    random = np.random.default_rng(0)
    a, b = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
    c = np.full((m, n), np.nan, np.float32)
    model(a, b, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=0, atol=1e-5 * k)
    best, end = np.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        model(a, b, c)
        best = min(best, time.perf_counter() - begin)
    return 2 * m * n * k / best


def main(sizes: tuple[int, int, int] = (1024, 1024, 1024)) -> None:
    """Print the program and its speed after each step."""
    sch = Schedule(matmul(*sizes))
    for step in steps(sch):
        print(f"# {step}\n{sch.func}")
        rate = speed(sch.func, sizes)
        measured_peak.cache_clear()  # The clock moves: what counts is the peak of this second.
        share = rate / measured_peak("float32").operations
        print(f"# {rate / 1e9:.1f} GFLOP/s, {share:.1%} of the machine's peak\n")
    print(f"# The schedule:\n{sch.trace}")


if __name__ == "__main__":
    given = tuple(map(int, sys.argv[1:4]))
    main((given[0], given[1], given[2]) if len(given) == 3 else (1024, 1024, 1024))
