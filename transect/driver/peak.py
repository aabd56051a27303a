"""What this machine reaches at best, measured: multiply-adds in registers, and copying memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from transect.driver.entry import prim_func_signature
from transect.driver.native import native
from transect.ir.dtype import DType, as_dtype
from transect.ir.function import IRModule
from transect.script import parse
from transect.target import Target, host_target
from transect.tir.function import PrimFunc

_CHAINS = 12
"""Independent vectors: enough to keep two units of four cycles' latency busy."""

_STEPS = 200_000
_COPIED = 64 << 20
_SECONDS = 0.2

_MULTIPLY_ADD = """
from transect.script import tir as T

@T.prim_func
def main(out: T.Buffer(({cores}, {width}), "{dtype}")):
    T.func_attr({{"global_symbol": "main", "tir.is_scheduled": True}})
    for core in T.parallel({cores}):
        with T.block("multiply_add"):
            c = T.axis.spatial({cores}, core)
            sums = T.alloc_buffer(({width},), "{dtype}", scope="local")
            for chain in T.unroll({chains}):
                for lane in T.vectorized({lanes}):
                    sums[chain * {lanes} + lane] = out[c, chain * {lanes} + lane]
            for step in range({steps}):
                for chain in T.unroll({chains}):
                    for lane in T.vectorized({lanes}):
                        sums[chain * {lanes} + lane] = T.fma(
                            sums[chain * {lanes} + lane],
                            T.{dtype}(0.999), T.{dtype}(0.001)
                        )
            for chain in T.unroll({chains}):
                for lane in T.vectorized({lanes}):
                    out[c, chain * {lanes} + lane] = sums[chain * {lanes} + lane]
"""

_COPY = """
from transect.script import tir as T

@T.prim_func
def main(
    source: T.Buffer(({parts}, {size}), "float32"), out: T.Buffer(({parts}, {size}), "float32")
):
    T.func_attr({{"global_symbol": "main", "tir.is_scheduled": True}})
    for part in T.parallel({parts}):
        for i in range({size} // 16):
            for lane in T.vectorized(16):
                with T.block("copy"):
                    p = T.axis.spatial({parts}, part)
                    j = T.axis.spatial({size}, i * 16 + lane)
                    out[p, j] = source[p, j]
"""


@dataclass(frozen=True)
class Peak:
    """The most that a machine does in a second, all cores together. source: "measured", or
    "target" for what its description says."""

    operations: float
    bandwidth: float
    source: str


def described_peak(target: Target, dtype: DType) -> Peak:
    """What the target's description says."""
    return Peak(target.peak(dtype) * target.cores, target.bandwidth_all, "target")


@cache
def measured_peak(name: str) -> Peak:
    """Of this machine, for float32 or float64; takes about a second, once per process and dtype.

    Operations: multiply-adds of values in registers, two each. Bandwidth: a copy of 64 MiB, the
    bytes read and written.
    """
    target = host_target()
    return Peak(_operations(target, name), _bandwidth(), "measured")


def _operations(target: Target, name: str) -> float:
    dtype = as_dtype(name)
    lanes = target.lanes(dtype)
    out = np.zeros((target.cores, _CHAINS * lanes), dtype.numpy)
    text = _MULTIPLY_ADD.format(
        cores=target.cores,
        width=_CHAINS * lanes,
        lanes=lanes,
        chains=_CHAINS,
        steps=_STEPS,
        dtype=name,
    )
    return 2.0 * out.size * _STEPS / _best(partial(_callable(text, target), out))


@cache
def _bandwidth() -> float:
    target = host_target()
    size = _COPIED // 4 // target.cores // 16 * 16
    source = np.zeros((target.cores, size), np.float32)
    text = _COPY.format(parts=target.cores, size=size)
    run = _callable(text, target)
    return 2.0 * source.nbytes / _best(partial(run, source, np.zeros_like(source)))


def _callable(text: str, target: Target) -> Callable[..., Any]:
    func = parse(text)
    assert isinstance(func, PrimFunc)
    return native(IRModule.of(main=func), prim_func_signature("main", func), target)


def _best(run: Callable[[], Any]) -> float:
    """The shortest of several calls, in seconds; the first one only warms up."""
    run()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
