"""From three plain loops to a fast matrix product, one schedule primitive after another.

Run it with `python examples/schedule_a_matmul.py [M N K]`; TRANSECT_NUM_THREADS=1 for one core.
After every step it prints the program and how fast it runs, in GFLOP/s and as a share of the
multiply-adds that this machine was measured to do. The first step gives B another layout, the one
of weights that are packed once for many products; the program takes it so from then on.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np

import transect
from transect.driver.peak import measured_peak
from transect.ir.expr import as_int
from transect.target import host_target
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

HOST = host_target()
LANES = HOST.lanes()
ROWS, VECTORS = 6, (HOST.vector_registers - 1) // 7
"""The register tile: 6 x 64 sums fill 24 of the 32 registers of AVX-512, 4 hold a row of B and one
an element of A; 6 x 16 sums fill 12 of the 16 of AVX2. Fewer would be loaded too often for each
multiply-add."""
PANEL = VECTORS * LANES
TILES = 16
"""So many tiles of rows of A stay in the second-level cache while all of B goes by."""
SECONDS, TURN = 3.0, 0.3


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
    sch.transform_layout(block, ("read", 1), lambda x, j: (j // PANEL, x, j % PANEL), 0.0)
    yield "layout: the columns of a panel of B lie side by side; it is packed once, ahead"
    i, j, k = sch.get_loops(block)
    blocks, tiles, rows = sch.split(i, [None, TILES, ROWS])
    panels, vectors, lanes = sch.split(j, [None, VECTORS, LANES])
    sch.reorder(blocks, panels, tiles, k, rows, vectors, lanes)
    yield "tile: all panels of columns for some rows, a tile of each for the whole sum"
    sch.vectorize(lanes)
    yield "vectorize: a register of columns at a time"
    copy = sch.cache_write(block, 0, "local")
    sch.reverse_compute_at(copy, tiles, preserve_unit_loops=True)
    sch.vectorize(sch.split(sch.get_loops(copy)[-1], [None, LANES])[1])
    start = sch.decompose_reduction(block, k)
    yield "cache_write: the sums of a tile have a place of their own, written to C once"
    for tile in ((rows, vectors), sch.get_loops(start)[3:5], sch.get_loops(copy)[3:5]):
        for loop in tile:
            sch.unroll(loop)
    yield "unroll: every sum of the tile gets a register"
    groups, products = sch.split(k, [None, 4])
    sch.unroll(products)
    yield "unroll four products: fewer branches, and loads further ahead"
    sch.annotate(groups, "prefetch_next", TILES)
    yield "prefetch: each tile fetches a part of the next panel into the second-level cache"
    sch.parallel(panels)
    yield "parallel: panels on all cores"


def speed(program: PrimFunc, sizes: tuple[int, int, int]) -> tuple[float, float]:
    """Operations a second of the program and of the machine, which take turns as the clock moves:
    the best of each. Raises AssertionError for a wrong result."""
    m, n, k = sizes
    model = transect.compile(program.with_attrs(**{"tir.is_scheduled": True}), cache=False)
    random = np.random.default_rng(0)
    a, b = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
    c = np.full((m, n), np.nan, np.float32)
    given = packed(b, program)
    model(a, given, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=0, atol=1e-5 * k)
    best, peak, end = np.inf, 0.0, time.perf_counter() + SECONDS
    while not peak or time.perf_counter() < end:
        turn, begin = time.perf_counter() + TURN, 0.0
        while begin < turn:
            begin = time.perf_counter()
            model(a, given, c)
            best = min(best, time.perf_counter() - begin)
        measured_peak.cache_clear()
        peak = max(peak, measured_peak("float32").operations)
    return 2 * m * n * k / best, peak


def packed(b: np.ndarray, program: PrimFunc) -> np.ndarray:
    """B in the layout that a program reads: as it is, or [panel, k, column of the panel]."""
    shape = [as_int(extent) or 0 for extent in program.buffers[1].shape]
    if len(shape) == 2:
        return b
    whole = np.zeros((shape[1], shape[0] * shape[2]), b.dtype)
    whole[:, : b.shape[1]] = b
    return np.ascontiguousarray(whole.reshape(shape[1], shape[0], shape[2]).transpose(1, 0, 2))


def main(sizes: tuple[int, int, int] = (1024, 1024, 1024)) -> None:
    """Print the program and its speed after each step."""
    sch = Schedule(matmul(*sizes))
    for step in steps(sch):
        print(f"# {step}\n{sch.func}")
        rate, peak = speed(sch.func, sizes)
        print(f"# {rate / 1e9:.1f} GFLOP/s, {rate / peak:.1%} of the machine's peak\n")
    print(f"# The schedule:\n{sch.trace}")


if __name__ == "__main__":
    given = tuple(map(int, sys.argv[1:4]))
    main((given[0], given[1], given[2]) if len(given) == 3 else (1024, 1024, 1024))
