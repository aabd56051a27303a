"""NVIDIA GPUs: their descriptions as numbers. `schedule` binds threads, `launch` runs kernels.

Sources: the CUDA C++ Programming Guide (features per compute capability) and the vendor's data
sheets; bandwidths are what a copy reaches.
"""

from __future__ import annotations

from transect.target import Target, host_target


def _gpu(arch: str, **facts: object) -> Target:
    fields: dict[str, object] = {
        "name": "cuda",
        "arch": arch,
        "vector_bits": 128,
        "vector_registers": 255,
        "warp": 32,
        "launch": 4e-6,
        "host": host_target(),
        **facts,
    }
    return Target(**fields)  # pyright: ignore[reportArgumentType]


SM_80 = _gpu(
    "sm_80",
    cores=108,
    clock=1.41e9,
    # 64 float32 lanes a multiprocessor, counted as vectors of four.
    fma_per_cycle=16,
    caches=(192 << 10, 40 << 20),
    bandwidth=1.4e12 / 108,
    bandwidth_all=1.4e12,
    shared_memory=163 << 10,
)
"""A100."""

SM_90A = _gpu(
    "sm_90a",
    cores=132,
    clock=1.7e9,
    fma_per_cycle=32,
    caches=(256 << 10, 50 << 20),
    bandwidth=3.0e12 / 132,
    bandwidth_all=3.0e12,
    shared_memory=227 << 10,
)
"""H100 and H200."""

SM_100A = _gpu(
    "sm_100a",
    cores=148,
    clock=1.85e9,
    fma_per_cycle=32,
    caches=(256 << 10, 126 << 20),
    bandwidth=7.0e12 / 148,
    bandwidth_all=7.0e12,
    shared_memory=227 << 10,
)
"""B200."""

TARGETS: dict[str, Target] = {"cuda-sm80": SM_80, "cuda-sm90a": SM_90A, "cuda-sm100a": SM_100A}
"""The named targets."""
