"""Host overhead: a model of many serial kernels of 16 floats, against the same loop in Python.

Run: python benchmarks/host_overhead.py [kernels]
Both sides allocate their result anew in every call and are timed in turn, in one process; each
figure is the median of the rounds. The Python side calls numpy with outputs given, so that it
allocates no intermediate either.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import transect
from transect.ir.dtype import FLOAT32
from transect.ir.expr import IntImm, Var
from transect.ir.function import IRModule
from transect.ir.types import tensor_type
from transect.relax.block_builder import BlockBuilder
from transect.relax.call import call_tir
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc

SIZE = 16
ROUNDS = 15
CALLS = 2000


def kernel(step: int) -> PrimFunc:
    """y = x * 1.5 + step, for 16 floats; `step` keeps the kernels from being one function."""
    builder = FunctionBuilder(f"kernel{step}")
    x = builder.input("x", (SIZE,), "float32")

    def element(i: Var) -> object:
        return x[i] * 1.5 + float(step)

    return builder.finish(builder.compute((SIZE,), element, name="y")).with_attrs(
        global_symbol=None
    )


def serial_model(count: int) -> IRModule:
    """x -> kernel0 -> kernel1 -> …, outside of dataflow blocks, where nothing is fused."""
    builder = BlockBuilder()
    kind = tensor_type((IntImm(SIZE),), FLOAT32)
    x = builder.var("x", kind)
    with builder.function("main", (x,), pure=False):
        y = x
        for step in range(count):
            name = builder.add_function(kernel(step), f"kernel{step}")
            y = builder.emit(call_tir(name, [y], kind))
        builder.emit_func_output(y)
    return builder.finish()


def python_loop(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same with numpy."""
    scratch = [np.empty(SIZE, np.float32), np.empty(SIZE, np.float32)]
    scale = np.float32(1.5)
    steps = [np.float32(step) for step in range(count)]

    def run(x: np.ndarray) -> np.ndarray:
        current = x
        for number, step in enumerate(steps[:-1]):
            target = scratch[number % 2]
            np.multiply(current, scale, out=target)
            current = np.add(target, step, out=target)
        result = np.multiply(current, scale)
        return np.add(result, steps[-1], out=result)

    return run


def seconds_per_call(run: Callable[[np.ndarray], object], x: np.ndarray, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run(x)
    return (time.perf_counter() - start) / calls


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    one = transect.compile(serial_model(1), cache=False)
    many = transect.compile(serial_model(count), cache=False)
    loop = python_loop(count)
    np.testing.assert_allclose(many(x), loop(x), rtol=1e-5)
    np.testing.assert_allclose(one(x), x * np.float32(1.5), rtol=1e-6)
    times: dict[str, list[float]] = {"one": [], "many": [], "loop": []}
    for _ in range(ROUNDS):
        times["one"].append(seconds_per_call(one, x, CALLS))
        times["many"].append(seconds_per_call(many, x, CALLS))
        times["loop"].append(seconds_per_call(loop, x, CALLS // 20))
    first, all_of_them, python = (statistics.median(times[k]) for k in ("one", "many", "loop"))
    each = (all_of_them - first) / (count - 1)
    left = len(many.stages["LowerToHost"].functions) - 1
    print(f"one kernel            {first * 1e6:8.2f} us a call")
    print(
        f"{left} kernels           {all_of_them * 1e6:8.2f} us a call, {each * 1e9:.1f} ns a kernel"
    )
    print(f"the same in Python    {python * 1e6:8.2f} us, {python / count * 1e9:.1f} ns a kernel")
    print(f"ratio, Python to compiled: {python / all_of_them:.1f}")
    if left != count:
        raise SystemExit(f"the compiler left {left} of {count} kernels: the figures mean nothing")


if __name__ == "__main__":
    main()
