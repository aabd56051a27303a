"""x86 processors: their descriptions as numbers. How kernels are scheduled is in `schedule`.

Sources: Agner Fog's instruction tables and the vendors' optimization manuals; bandwidths are for
streaming reads of one core and of a desktop or small server socket.
"""

from __future__ import annotations

from dataclasses import replace

from transect.target import Target, host_target

_AVX2 = frozenset({"sse4_2", "avx", "avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

AVX2 = Target(
    name="x86",
    arch="x86-64-v3",
    features=_AVX2,
    vector_bits=256,
    vector_registers=16,
    cores=4,
    clock=3.0e9,
    fma_per_cycle=2,
    caches=(32 << 10, 512 << 10, 8 << 20),
    bandwidth=12e9,
    bandwidth_all=30e9,
)
"""Any x86-64 with AVX2 and FMA: Haswell (2013) and Zen (2017) onwards."""

ICELAKE = Target(
    name="x86",
    arch="icelake-server",
    features=_AVX512 | {"avx512_vnni"},
    vector_bits=512,
    vector_registers=32,
    cores=8,
    clock=2.9e9,
    fma_per_cycle=2,
    caches=(48 << 10, 1280 << 10, 24 << 20),
    bandwidth=12e9,
    bandwidth_all=120e9,
)
"""Ice Lake servers: two 512-bit multiply-add units a core."""

SAPPHIRE_RAPIDS = Target(
    name="x86",
    arch="sapphirerapids",
    features=_AVX512
    | {"avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"},
    vector_bits=512,
    vector_registers=32,
    cores=8,
    clock=2.7e9,
    fma_per_cycle=2,
    caches=(48 << 10, 2 << 20, 60 << 20),
    bandwidth=12e9,
    bandwidth_all=150e9,
    # Measured: 1.7e9/s at 3 GHz, where there are 6e9/s of vfmadd and vpdpbusd.
    extra={
        "intrin_rates": {
            "x86.avx512_bf16.vdpbf16ps_16": 0.5,
            "x86.avx512_bf16.vdpbf16ps_8": 1.0,
        }
    },
)
"""Sapphire Rapids servers."""

ZNVER4 = Target(
    name="x86",
    arch="znver4",
    features=_AVX512 | {"avx512_vnni", "avx512_bf16"},
    vector_bits=512,
    vector_registers=32,
    cores=8,
    clock=3.6e9,
    # 512-bit operations take both 256-bit units.
    fma_per_cycle=1,
    caches=(32 << 10, 1 << 20, 32 << 20),
    bandwidth=21e9,
    bandwidth_all=60e9,
    extra={
        "intrin_rates": {
            "x86.avx512_vnni.vpdpbusd_16": 1.0,
            "x86.avx512_bf16.vdpbf16ps_8": 2.0,
        }
    },
)
"""Zen 4: 512-bit instructions on 256-bit units."""

TARGETS: dict[str, Target] = {
    "x86-avx2": AVX2,
    "x86-icelake": ICELAKE,
    "x86-sapphirerapids": SAPPHIRE_RAPIDS,
    "x86-znver4": ZNVER4,
}
"""The named targets; "host" is this machine."""


def host() -> Target:
    """This machine: what the operating system tells, with the rates of the nearest named target."""
    found = host_target()
    if "avx512_bf16" in found.features and "avx512_fp16" not in found.features:
        like = ZNVER4
    elif "amx_tile" in found.features:
        like = SAPPHIRE_RAPIDS
    elif "avx512f" in found.features:
        like = ICELAKE
    else:
        like = AVX2
    return replace(
        found,
        fma_per_cycle=like.fma_per_cycle if "fma" in found.features else 1,
        bandwidth=like.bandwidth,
        bandwidth_all=min(like.bandwidth_all, like.bandwidth * found.cores),
        extra={**found.extra, **like.extra},
    )
