"""Arm processors (AArch64): their descriptions as numbers. Code for them is emitted, not yet run.

Sources: Arm's software optimization guides of the Neoverse N1 and V1 and of the Cortex-A72.
"""

from __future__ import annotations

from dataclasses import replace

from transect.target import Target, host_target

_NEON = frozenset({"neon"})

CORTEX_A72 = Target(
    name="arm",
    arch="cortex-a72",
    features=_NEON,
    vector_bits=128,
    vector_registers=32,
    cores=4,
    clock=1.8e9,
    fma_per_cycle=1,
    caches=(32 << 10, 1 << 20),
    bandwidth=4e9,
    bandwidth_all=5e9,
)
"""Armv8.0: NEON alone."""

NEOVERSE_N1 = Target(
    name="arm",
    arch="neoverse-n1",
    features=_NEON | {"dotprod"},
    vector_bits=128,
    vector_registers=32,
    cores=16,
    clock=2.5e9,
    fma_per_cycle=2,
    caches=(64 << 10, 1 << 20, 32 << 20),
    bandwidth=15e9,
    bandwidth_all=150e9,
)
"""Neoverse N1 servers: dot products of bytes."""

NEOVERSE_V1 = Target(
    name="arm",
    arch="neoverse-v1",
    features=_NEON | {"dotprod", "i8mm", "bf16"},
    vector_bits=128,
    vector_registers=32,
    cores=16,
    clock=2.6e9,
    fma_per_cycle=4,
    caches=(64 << 10, 1 << 20, 32 << 20),
    bandwidth=20e9,
    bandwidth_all=250e9,
)
"""Neoverse V1 servers: matrix products of bytes and bfloat16 as well."""

TARGETS: dict[str, Target] = {
    "arm-cortex-a72": CORTEX_A72,
    "arm-neoverse-n1": NEOVERSE_N1,
    "arm-neoverse-v1": NEOVERSE_V1,
}
"""The named targets."""


def host() -> Target:
    """This machine: what the operating system tells, with the rates of the nearest named target."""
    found = host_target()
    like = CORTEX_A72
    if "i8mm" in found.features:
        like = NEOVERSE_V1
    elif "dotprod" in found.features:
        like = NEOVERSE_N1
    return replace(
        found,
        clock=like.clock,
        fma_per_cycle=like.fma_per_cycle,
        bandwidth=like.bandwidth,
        bandwidth_all=min(like.bandwidth_all, like.bandwidth * found.cores),
    )
