"""Target: one machine, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from transect.ir.dtype import FLOAT32, DType
from transect.support.errors import InputError


@dataclass(frozen=True)
class Target:
    """A machine. Rates are per core (CPU) or for the whole device (GPU).

    name: of the folder in `hardware` ("x86", "cuda"). arch: "znver4", "sapphirerapids", "sm_90a".
    features: instruction-set extensions as the compiler spells them ("avx512f").
    vector_bits, vector_registers: of the widest vector unit; for a GPU 128 and 255.
    cores: usable cores, or multiprocessors. clock: Hz. fma_per_cycle: vector multiply-adds a
    core starts per cycle. caches: bytes per level from the nearest, per core for private ones.
    bandwidth: bytes/s from memory of one core; bandwidth_all: of all. launch: seconds to start a
    parallel region, or a kernel. shared_memory: bytes per block; warp: lanes; 0 on a CPU.
    host: the machine that runs the host functions, None if it is this target itself.
    extra: further facts of a vendor's target, for its own rules.
    """

    name: str
    arch: str
    features: frozenset[str] = frozenset()
    vector_bits: int = 128
    vector_registers: int = 16
    cores: int = 1
    clock: float = 2.5e9
    fma_per_cycle: int = 1
    caches: tuple[int, ...] = (32 << 10, 1 << 20)
    bandwidth: float = 12e9
    bandwidth_all: float = 24e9
    launch: float = 1e-6
    shared_memory: int = 0
    warp: int = 0
    host: Target | None = None
    extra: Mapping[str, object] = field(default_factory=dict[str, object])

    def lanes(self, dtype: DType = FLOAT32) -> int:
        """Elements of `dtype` in one vector register, at least 1."""
        return max(1, self.vector_bits // max(8, dtype.bits))

    def numbers(self, name: str) -> Mapping[str, float]:
        """The table `extra[name]`, empty if there is none. Raises InputError for anything else."""
        found = self.extra.get(name)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise InputError(
                f"extra[{name!r}] of target {self} is no table", remedy="numbers by name"
            )
        return cast("Mapping[str, float]", found)

    def peak(self, dtype: DType = FLOAT32) -> float:
        """Operations per second of one core (a multiply-add counts two)."""
        return 2.0 * self.clock * self.fma_per_cycle * self.lanes(dtype)

    def __str__(self) -> str:
        return f"{self.name}-{self.arch}"
