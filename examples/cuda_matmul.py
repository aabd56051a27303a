"""A tensor program on an NVIDIA GPU: one compile, many sizes, checked against numpy.

Run it on a machine with a GPU and the `cuda` extra. It binds the loops of a matrix product to
threads in two ways, compiles both for the GPU it finds, and runs each for several sizes.
"""

import sys
from dataclasses import replace

import numpy as np

from transect.codegen.cuda import build
from transect.hardware.cuda import SM_80
from transect.hardware.cuda.launch import Launcher, device_arch, device_count
from transect.hardware.cuda.schedule import bind_flat, bind_tiled_contraction
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

SIZES = [(1, 1, 1), (7, 5, 3), (64, 64, 64), (33, 130, 257), (1000, 777, 511), (2048, 2048, 2048)]


def matmul() -> PrimFunc:
    """Y[n, m] = X[n, d] @ W[d, m], float32, all sizes symbolic."""
    n, m, d = Var("n"), Var("m"), Var("d")
    builder = FunctionBuilder("tir_mm")
    x = builder.input("X", (n, d), "float32")
    w = builder.input("W", (d, m), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="Y")
    return builder.finish([y])


def scheduled(tiled: bool) -> PrimFunc:
    """The product with its loops bound to threads, with or without tiles in shared memory."""
    schedule = Schedule(matmul())
    block = schedule.get_block("Y")
    if tiled:
        bind_tiled_contraction(schedule, block, 16)
    else:
        bind_flat(schedule, block, 256)
    return schedule.func


def main() -> int:
    """Compile, run, compare; the exit status says whether all results were right."""
    if device_count() == 0:
        print("no NVIDIA GPU with a driver here")
        return 1
    arch = device_arch()
    target = replace(SM_80, arch=arch)
    module = build(IRModule.of(flat=scheduled(False), tiled=scheduled(True)), target)
    print(f"compiled for {arch}: {len(module.cubin)} bytes of machine code for both programs")
    heads = ("program", "n", "m", "d", "error", "bound", "us", "GFLOP/s")
    print("{:8} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>9}".format(*heads))
    rng = np.random.default_rng(0)
    wrong = 0
    with Launcher(module) as launcher:
        for n, m, d in SIZES:
            x = rng.standard_normal((n, d), dtype=np.float32)
            w = rng.standard_normal((d, m), dtype=np.float32)
            exact = x.astype(np.float64) @ w.astype(np.float64)
            # Rounding errors of d products and sums in float32, added up.
            scale = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64)
            bound = float((d + 1) * np.finfo(np.float32).eps * scale.max())
            for name in module.functions:
                y = np.full((n, m), np.nan, np.float32)  # What is not written shows.
                launcher.run(name, x, w, y)
                error = float(np.abs(y - exact).max())
                y[...] = np.nan
                seconds = launcher.run(name, x, w, y, repeat=10)
                right = error <= bound and bool(np.isfinite(y).all())
                wrong += not right
                rate = 2 * n * m * d / seconds / 1e9
                print(
                    f"{name:8} {n:5} {m:5} {d:5} {error:10.2e} {bound:10.2e} "
                    f"{seconds * 1e6:10.1f} {rate:9.1f}{'' if right else '  WRONG'}"
                )
    print("all right" if not wrong else f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
