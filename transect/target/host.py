"""The description of the machine this process runs on, read from the operating system."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

from transect.support import flags
from transect.target.target import Target

_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNIT = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_VECTOR_FEATURES = frozenset(
    {
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "avx_vnni",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
    }
)

_ARM_FEATURES = {"asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16"}
"""What Linux and what LLVM call the extensions of Arm's processors."""


@cache
def host_target() -> Target:
    """This machine. Unknown facts keep the defaults of Target, which are modest."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        found = frozenset(_cpuinfo().get("Features", "").split()) & frozenset(_ARM_FEATURES)
        features = frozenset(_ARM_FEATURES[name] for name in found)
        return Target(
            name="arm",
            arch="host",
            features=features,
            vector_registers=32,
            cores=flags.num_threads(),
            fma_per_cycle=2,
            caches=_caches() or (32 << 10, 1 << 20),
        )
    if machine not in ("x86_64", "amd64"):
        return Target(name=machine, arch="generic", cores=flags.num_threads())
    info = _cpuinfo()
    features = frozenset(info.get("flags", "").split()) & _VECTOR_FEATURES
    bits = 512 if "avx512f" in features else 256 if "avx2" in features else 128
    return Target(
        name="x86",
        arch="host",
        features=features,
        vector_bits=bits,
        vector_registers=32 if bits == 512 else 16,
        cores=flags.num_threads(),
        clock=_clock(info),
        fma_per_cycle=2 if "fma" in features else 1,
        caches=_caches() or (32 << 10, 1 << 20),
    )


def processor() -> str:
    """What tells this processor from others that code may not run on: its name and features."""
    info = _cpuinfo()
    return f"{platform.machine()} {info.get('model name', '')} {info.get('flags', '')}"


def _clock(info: dict[str, str]) -> float:
    """The highest frequency in Hz. What a core runs at just now would differ at every look."""
    highest = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if highest.exists():
        return float(highest.read_text(encoding="utf-8")) * 1e3
    return float(info.get("cpu MHz", "2500")) * 1e6


@cache
def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _caches() -> tuple[int, ...]:
    sizes: dict[int, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (index / "type").read_text(encoding="utf-8").strip() == "Instruction":
            continue
        match = _SIZE.match((index / "size").read_text(encoding="utf-8"))
        if match:
            sizes[int((index / "level").read_text(encoding="utf-8"))] = (
                int(match[1]) * _UNIT[match[2]]
            )
    return tuple(sizes[level] for level in sorted(sizes))
