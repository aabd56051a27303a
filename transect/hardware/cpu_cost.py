"""CpuCost: how long a scheduled program takes on a CPU, for a whole population of tile sizes.

Each statement is bound by the units it needs in every step of its innermost loop, by the latency of
what it accumulates, and by the bytes that its footprints draw from each level of the caches. All
numbers come from the target and the fields here; nothing is measured. Source of the form: the
roofline with in-core ceilings (Williams 2009), footprints as in cache-aware tiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from transect.arith.population import Population, compile_terms
from transect.ir.dtype import FLOAT32, as_dtype
from transect.ir.expr import Expr, Var
from transect.plan import Cost
from transect.plan.cost import bandwidth
from transect.target import Target
from transect.tir.analysis.instructions import (
    MemoryAccess,
    NestFeatures,
    ProgramFeatures,
    program_features,
)
from transect.tir.analysis.linear import ONE, multiply
from transect.tir.analysis.nests import Level
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc

Array = Any
"""A numpy array with one number for each candidate, or a number for all."""

_LINE, _PAGE = 64, 4096
"""Bytes of a cache line, and of a page, which is what one way of a first-level cache holds."""

_POLYNOMIALS = {
    "exp": 12.0, "exp_nonpositive": 10.0, "exp2": 10.0, "log": 16.0, "tanh": 18.0, "erf": 18.0,
    "sigmoid": 20.0, "sqrt": 10.0, "rsqrt": 12.0, "div": 8.0, "sin": 20.0, "cos": 20.0, "fabs": 1.0,
    "floor": 1.0,
}  # fmt: skip
"""What one vector of a function takes, in multiply-adds (codegen/llvm/elementary.py)."""


@dataclass(frozen=True)
class CpuCost:
    """The weights of the model; cycles where nothing else is said.

    latency: of an addition or multiply-add. function: of an intrinsic that has no number here, in
    multiply-adds. loads, stores: memory instructions a core starts per cycle, of whole vectors;
    single elements: `scalar_loads`. width: instructions that are decoded per cycle. step: for the
    end of an iteration. exit: for leaving a loop. fill: the share of a cache that one nest's data
    may take. contention: what a load takes though it runs beside arithmetic. stall: the share of
    transfers between caches that computing does not hide; collision: the same of lines that evict
    each other while they are in use. Source of these three: least squares over register tiles of
    nine matrix products, 32 to 1024 rows, on a Sapphire Rapids core (benchmarks/features --rank
    measures such tiles).
    """

    latency: float = 4.0
    function: float = 20.0
    loads: float = 2.0
    scalar_loads: float = 2.0
    stores: float = 1.0
    width: float = 4.0
    step: float = 1.0
    exit: float = 6.0
    fill: float = 0.75
    contention: float = 0.15
    stall: float = 0.1
    collision: float = 0.25

    def of(self, func: PrimFunc, target: Target) -> Prediction:
        """The model of one program."""
        return Prediction(self, target, program_features(func))


@dataclass(frozen=True)
class Answer:
    """What a population costs, one number for each candidate.

    seconds: of a call. core: seconds that the cores compute or wait for their own caches.
    operations: of floating point, a multiply-add counts two. traffic: bytes by level, "L3" and
    "memory". launches: of parallel regions. threads: how many share the work. live: vector
    registers that the most demanding statement needs. copies: of the largest unrolled body.
    """

    seconds: Array
    core: Array
    operations: Array
    traffic: Mapping[str, Array]
    launches: Array
    threads: Array
    live: Array
    copies: Array

    def cost(self, place: int, target: Target) -> Cost:
        """The prediction for one candidate as the plan's Cost, of the same seconds."""

        def at(value: Array) -> float:
            return float(np.ravel(value)[min(place, np.size(value) - 1)])

        threads = max(1, int(at(self.threads)))
        ideal = at(self.operations) / target.peak(FLOAT32) / threads
        core = at(self.core)
        traffic = {level: at(number) for level, number in self.traffic.items()}
        if not 0.0 < ideal <= core:
            # Little or no arithmetic of floats: what computing takes beyond moving.
            rest = max(0.0, core - _moving(target, traffic, threads))
            return Cost({}, traffic, at(self.launches), calls=rest, threads=threads)
        return Cost(
            {FLOAT32: at(self.operations)},
            traffic,
            at(self.launches),
            efficiency=ideal / core,
            threads=threads,
        )


class Prediction:
    """One program's costs as functions of its decision variables."""

    def __init__(self, model: CpuCost, target: Target, features: ProgramFeatures) -> None:
        self.model, self.target, self.features = model, target, features
        self._terms: dict[Expr, int] = {}
        self._nests = [_NestCost(self, item) for item in features.nests]
        self._loops = [
            (self.want(item.steps), self.want(item.runs), item.loop) for item in features.loops
        ]
        self._compiled: Population = compile_terms(self._terms)

    @property
    def variables(self) -> tuple[Var, ...]:
        """The decision variables and sizes that the prediction depends on."""
        return self._compiled.variables

    def want(self, term: Expr) -> int:
        """The place of a term among those that are evaluated."""
        return self._terms.setdefault(term, len(self._terms))

    def evaluate(self, values: Mapping[Var, Array]) -> Answer:
        """The cost of all candidates; `values` holds one array for each variable."""
        found = [np.asarray(item, np.float64) for item in self._compiled(values)]
        model, target = self.model, self.target
        core: Array = 0.0
        operations: Array = 0.0
        traffic: dict[str, Array] = {}
        threads: Array = 1.0
        live: Array = 0.0
        copies: Array = 1.0
        for nest in self._nests:
            share, balance = nest.parallel(found)
            core = core + nest.cycles(found) * balance / share / target.clock
            operations = operations + nest.operations(found)
            for level, amount in nest.traffic(found).items():
                traffic[level] = traffic.get(level, 0.0) + amount
            threads = np.maximum(threads, share)
            live = np.maximum(live, nest.live(found))
            copies = np.maximum(copies, nest.copies(found))
        launches: Array = 0.0
        for steps, runs, loop in self._loops:
            if loop.kind == "parallel":
                launches = launches + found[runs]
            else:
                cycles = found[steps] * model.step + found[runs] * model.exit
                core = core + cycles / threads / target.clock
        seconds = np.maximum(core, _moving(target, traffic, threads)) + launches * target.launch
        return Answer(seconds, core, operations, traffic, launches, threads, live, copies)


def _moving(target: Target, traffic: Mapping[str, Array], threads: Array) -> Array:
    """Seconds to move bytes by level, as `Cost.seconds` counts them."""
    total: Array = 0.0
    for level, amount in traffic.items():
        if level == "memory":
            rate = np.minimum(target.bandwidth_all, target.bandwidth * threads)
        else:
            rate = bandwidth(target, level, 1) * threads
        total = total + amount / rate
    return total


@dataclass(frozen=True)
class _Access:
    """Loads or stores of a step: instructions of vectors and of single elements, as products of
    the places of the extents that repeat them."""

    access: MemoryAccess
    repeats: tuple[int, ...]
    hoisted: bool


@dataclass(frozen=True)
class _Places:
    """Where the footprint of a buffer is among the terms: elements and elements along the last
    axis by depth, and the extent of that axis, None for a buffer of one axis."""

    elements: list[int]
    rows: list[int]
    last: int | None


@dataclass
class _NestCost:
    """One statement's part of a prediction."""

    whole: Prediction
    features: NestFeatures
    tile: list[Level] = field(init=False)

    def __post_init__(self) -> None:
        item, want = self.features, self.whole.want
        levels = item.nest.levels
        self.tile = _register_tile(levels)
        outer = levels[: len(levels) - len(self.tile)]
        self.step = outer[-1] if outer else None
        self.vector_runs = want(item.vector_runs)
        self.scalar_runs = want(item.scalar_runs)
        self.lanes = want(item.lanes)
        self.unrolled = [
            (level.var, want(level.extent)) for level in self.tile if level.kind == "unrolled"
        ]
        self.bits = max((a.buffer.dtype.bits for a in item.accesses), default=32)
        store = next((a for a in item.accesses if a.write), None)
        self.accumulates = store is not None and any(
            a.buffer is store.buffer and a.depends == store.depends and not a.write
            for a in item.accesses
        )
        self.carried = (
            self.accumulates
            and store is not None
            and self.step is not None
            and self.step.var not in store.depends
        )
        self.store = store
        self.accesses = [self._access(a) for a in item.accesses]
        self.parallel_extents = [want(v.extent) for v in levels if v.kind == "parallel"]
        prefix: Expr = ONE
        self.prefix = [want(prefix)]
        for level in levels:
            prefix = multiply(prefix, level.extent)
            self.prefix.append(want(prefix))
        self.touched = {
            t.buffer: _Places(
                [want(size) for size in t.elements],
                [want(size) for size in t.rows],
                want(t.buffer.shape[-1]) if t.buffer.ndim > 1 else None,
            )
            for t in item.touched
            if not self._in_registers(t.buffer)
        }

    def _in_registers(self, buffer: Buffer) -> bool:
        """Whether a buffer is an accumulator that never reaches memory."""
        return buffer.scope == "local"

    def _access(self, access: MemoryAccess) -> _Access:
        repeats = tuple(place for var, place in self.unrolled if var in access.depends)
        inner = self.step is None or self.step.var in access.depends
        return _Access(access, repeats, not inner or self._in_registers(access.buffer))

    # --- evaluating -------------------------------------------------------------------------

    def native(self, found: Sequence[Array]) -> Array:
        """How many registers one vector of the statement takes."""
        width = max(1, self.whole.target.vector_bits // self.bits)
        return np.ceil(found[self.lanes] / width)

    def copies(self, found: Sequence[Array]) -> Array:
        """How many times the statement stands in the code, as native vectors."""
        return _product(found, [place for _, place in self.unrolled]) * self.native(found)

    def steps(self, found: Sequence[Array]) -> Array:
        """How often the register tile runs."""
        runs = found[self.vector_runs] + found[self.scalar_runs]
        return runs / _product(found, [place for _, place in self.unrolled])

    def live(self, found: Sequence[Array]) -> Array:
        """Vector registers that a step needs: what it accumulates, the vectors it reads and one
        element that is broadcast. A vector that is used once is an operand in memory."""
        native = self.native(found)
        size = _product(found, [place for _, place in self.unrolled])
        total: Array = 0.0
        broadcast = False
        for item in self.accesses:
            count = _product(found, item.repeats)
            if item.access.write:
                total = total + count * native * self.accumulates
            elif self.store is not None and item.access.buffer is self.store.buffer:
                continue
            elif item.access.pattern == "scalar":
                broadcast = True
            else:
                held = np.minimum(count, np.maximum(1.0, count * (count < size)))
                total = total + held * native
        return total + broadcast

    def cycles(self, found: Sequence[Array]) -> Array:
        """Cycles of one core for all steps."""
        model, target = self.whole.model, self.whole.target
        native = self.native(found)
        size = _product(found, [place for _, place in self.unrolled])
        vector, scalar = self._arithmetic()
        arithmetic = (vector * native + scalar) * size / target.fma_per_cycle
        loads: Array = 0.0
        stores: Array = 0.0
        read: Array = 0.0
        instructions = (vector * native + scalar) * size
        for item in self.accesses:
            count = _product(found, item.repeats)
            if item.hoisted:
                continue
            lanes = np.maximum(1.0, found[self.lanes])
            if item.access.pattern == "scalar":
                each, rate = count, model.scalar_loads
            elif item.access.pattern == "contiguous":
                each, rate = count * native, model.loads
            else:
                each, rate = count * lanes, model.scalar_loads
            if item.access.write:
                stores = stores + each / model.stores
            else:
                loads = loads + each / rate
                read = read + each
            instructions = instructions + each
        spilled = np.maximum(0.0, self.live(found) - target.vector_registers)
        loads = loads + spilled / model.loads
        stores = stores + spilled / model.stores
        busy = np.maximum(arithmetic, loads)
        busy = np.maximum(np.maximum(busy, stores), instructions / model.width)
        if self.carried:
            own: frozenset[Var] = frozenset() if self.store is None else self.store.depends
            depth = _product(found, [place for var, place in self.unrolled if var not in own])
            busy = np.maximum(busy, model.latency * depth)
        steps = self.steps(found)
        caches = self._cache_cycles(found)
        waiting = model.contention * steps * read + model.stall * caches
        return np.maximum(steps * busy, caches) + waiting + self._collisions(found) * steps

    def _arithmetic(self) -> tuple[float, float]:
        """Multiply-adds of one run, as vectors and as single elements."""
        sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
        other = {True: 0.0, False: 0.0}
        for op in self.features.operations:
            if op.kind == "mul":
                sums[op.varying][0] += op.count
            elif op.kind == "add":
                sums[op.varying][1] += op.count
            elif op.kind in ("compare", "select", "cast"):
                other[op.varying] += op.count
            else:
                other[op.varying] += op.count * _POLYNOMIALS.get(op.kind, self.whole.model.function)
        # A product that is added is one instruction.
        return max(sums[True]) + other[True], max(sums[False]) + other[False]

    def operations(self, found: Sequence[Array]) -> Array:
        """Floating-point operations."""
        lanes = found[self.lanes]
        total: Array = 0.0
        for op in self.features.operations:
            if not as_dtype(op.dtype).is_float:
                continue
            wide = found[self.vector_runs] * lanes if op.varying else found[self.vector_runs]
            total = total + op.count * (wide + found[self.scalar_runs])
        return total

    def parallel(self, found: Sequence[Array]) -> tuple[Array, Array]:
        """How many cores share the nest, and how much longer the slowest takes than the mean."""
        if not self.parallel_extents:
            return 1.0, 1.0
        tasks = np.maximum(1.0, _product(found, self.parallel_extents))
        share = np.minimum(self.whole.target.cores, tasks)
        return share, np.ceil(tasks / share) * share / tasks

    def _drawn(self, found: Sequence[Array], size: float, period: float) -> Array:
        """Bytes that come into a cache of `size` bytes from beyond it.

        While the data of one iteration of a loop fit, what the iterations share stays. period:
        addresses so far apart share a set of the cache.
        """
        if not self.touched:
            return 0.0
        depths = range(len(self.prefix))
        totals: list[Array] = [0.0 for _ in depths]
        taken: list[Array] = [0.0 for _ in depths]
        for buffer, places in self.touched.items():
            for depth in depths:
                amount = found[places.elements[depth]] * buffer.dtype.bytes
                totals[depth] = totals[depth] + amount
                share = _share_of_sets(found, places, depth, buffer.dtype.bytes, period)
                taken[depth] = taken[depth] + amount / share
        # Nothing fits: every access comes from beyond.
        drawn: Array = totals[-1] * found[self.prefix[-1]]
        for depth in reversed(depths):
            outer = max(0, depth - 1)
            moved = totals[outer] * found[self.prefix[outer]]
            drawn = _where(taken[depth] <= size, moved, drawn)
        return drawn

    def _cache_cycles(self, found: Sequence[Array]) -> Array:
        """Cycles that transfers into the first-level cache take."""
        caches = self.whole.target.caches
        drawn = self._drawn(found, caches[0] * self.whole.model.fill, _PAGE)
        return drawn / _bytes_per_cycle(self.whole.target)

    def _collisions(self, found: Sequence[Array]) -> Array:
        """Cycles of a step for lines that leave the first-level cache while they are in use: rows
        of a buffer so far apart that more of them share a set than it has ways."""
        model, target = self.whole.model, self.whole.target
        # One way is left for what the step reads beside them.
        ways = target.caches[0] * model.fill / _PAGE - 1
        lost: Array = 0.0
        depth = len(self.features.nest.levels) - len(self.tile)
        for buffer, places in self.touched.items():
            if places.last is None:
                continue
            rows = found[places.elements[depth]] / found[places.rows[depth]]
            crowd = _crowd(rows, found[places.last] * buffer.dtype.bytes)
            lost = lost + rows * np.maximum(0.0, crowd - ways) / crowd
        return model.collision * lost * _LINE / _bytes_per_cycle(target)

    def traffic(self, found: Sequence[Array]) -> dict[str, Array]:
        """Bytes from the third level and from memory."""
        fill = self.whole.model.fill
        *inner, last = self.whole.target.caches
        result: dict[str, Array] = {}
        if len(inner) > 1:
            # Which sets pages take here is up to the operating system, or hashed.
            result["L3"] = self._drawn(found, inner[1] * fill, _LINE)
        result["memory"] = self._drawn(found, last * fill, _LINE)
        return result


def _register_tile(levels: Sequence[Level]) -> list[Level]:
    """The innermost loops that are written out: unrolled or vectors."""
    tile: list[Level] = []
    for level in reversed(levels):
        if level.kind not in ("unrolled", "vectorized"):
            break
        tile.insert(0, level)
    return tile


def _bytes_per_cycle(target: Target) -> float:
    """What the second-level cache gives."""
    return bandwidth(target, "L2", 1) / target.clock


_MANY = 32
"""Rows of which is looked at where they lie; more are taken to go on like that."""


def _crowd(rows: Array, apart: Array) -> Array:
    """How many of the lines of `rows` rows, so many bytes apart, share a set of the first-level
    cache, at most; 1 at least."""
    rows, apart = np.broadcast_arrays(np.maximum(1.0, rows), apart)
    count = int(min(_MANY, rows.max()))
    places = np.arange(count).reshape(-1, *[1] * rows.ndim)
    sets = (places * apart.astype(np.int64)) % _PAGE // _LINE
    there = places < rows
    same = (sets[:, None] == sets[None]) & there[:, None] & there[None]
    return np.maximum(1.0, same.sum(axis=0).max(axis=0) * np.maximum(1.0, rows / count))


def _share_of_sets(
    found: Sequence[Array], places: _Places, depth: int, element: int, period: float
) -> Array:
    """Which share of a cache's sets rows of a buffer can take: those that are a multiple of the
    cache's period apart evict each other."""
    if places.last is None or period <= _LINE:
        return 1.0
    apart = np.maximum(1, found[places.last] * element).astype(np.int64)
    row = np.ceil(found[places.rows[depth]] * element / _LINE) * _LINE
    offsets = period / np.gcd(apart, int(period))
    return np.minimum(1.0, offsets * row / period)


def _where(condition: Array, on: Array, off: Array) -> Array:
    return cast("Array", np).where(condition, on, off)


def _product(found: Sequence[Array], places: Sequence[int]) -> Array:
    result: Array = 1.0
    for place in places:
        result = result * found[place]
    return result
