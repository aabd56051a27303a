"""The features of programs with decision variables, against their lowered code."""

import random
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest

from tests.schedule.programs import blur, chain, matmul, normalized, row_sum, run
from tests.tir.lowered_counts import count_lowered
from transect.arith.evaluate import evaluate
from transect.hardware.x86 import ICELAKE
from transect.ir.expr import Expr, Var
from transect.ir.traverse import walk
from transect.support.errors import ScheduleError
from transect.tir.analysis import ProgramFeatures, program_features
from transect.tir.analysis.nests import Nest
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.decisions import decide, decision_vars
from transect.tir.function import PrimFunc
from transect.tir.schedule import LoopRV, Schedule

PROGRAMS = (
    lambda r: chain(r.randint(2, 20), r.randint(2, 20)),
    lambda r: blur(r.randint(2, 30)),
    lambda r: matmul(r.randint(2, 9), r.randint(2, 20), r.randint(2, 8)),
    lambda r: matmul(r.randint(2, 9), r.randint(2, 20), r.randint(2, 8), bias=True),
    lambda r: row_sum(r.randint(2, 12), r.randint(2, 12)),
    lambda r: normalized(r.randint(2, 9), r.randint(2, 20)),
)
STEPS = (
    "split", "split", "split", "fuse", "reorder", "parallel", "unroll", "compute_inline",
    "reverse_compute_inline", "cache_read", "cache_write", "compute_at", "reverse_compute_at",
    "decompose", "rfactor", "pad", "partition", "merge", "vectorize", "vectorize",
)  # fmt: skip


def random_factor(s: Schedule, r: random.Random) -> Expr:
    """A decision variable, new or used before, a multiple of one, or a number."""
    known = decision_vars(s.func)
    if known and r.random() < 0.3:
        return r.choice(known)
    fresh = Var(f"t{len(known)}")
    return fresh * r.choice([2, 4]) if r.random() < 0.2 else fresh


def random_step(s: Schedule, name: str, r: random.Random) -> None:
    """One primitive with random arguments. Raises ScheduleError if it is refused."""
    blocks = s.get_child_blocks(s.get_block("root"))
    block = r.choice(blocks)
    loops = s.get_loops(block)
    loop = r.choice(loops)
    other = r.choice(s.get_loops(r.choice(blocks)))
    factor = random_factor(s, r)
    match name:
        case "compute_inline" | "reverse_compute_inline":
            getattr(s, name)(block)
        case "cache_read" | "cache_write":
            getattr(s, name)(block, r.randrange(2), "local")
        case "pad":
            s.pad_domain(block, [r.choice([1, factor]) for _ in s.get(block).iter_vars])
        case "compute_at" | "reverse_compute_at":
            getattr(s, name)(block, other)
        case "split":
            s.split(loop, r.choice([[None, factor], [factor, None], [None, factor, 2], [None, 4]]))
        case "partition":
            extent = s.get(loop).extent
            s.loop_partition(loop, [extent // factor * factor, None])
        case "fuse":
            start = r.randrange(len(loops))
            s.fuse(*loops[start : start + 2])
        case "reorder":
            s.reorder(*dict.fromkeys([r.choice(loops), r.choice(loops)]))
        case "merge":
            s.merge(loop, other)
        case "decompose":
            s.decompose_reduction(block, loop)
        case "rfactor":
            s.rfactor(loop, factor_axis=r.randrange(2))
        case "vectorize":
            vectorize_innermost(s, loops)
        case _:
            getattr(s, name)(loop)


def vectorize_innermost(s: Schedule, loops: list[LoopRV]) -> None:
    """What schedules do: the innermost loop of a block becomes vectors."""
    s.vectorize(loops[-1])


def random_schedule(r: random.Random) -> Schedule:
    """A random program under random primitives, split by decision variables."""
    s = Schedule(r.choice(PROGRAMS)(r))
    for _ in range(r.randint(2, 9)):
        with suppress(ScheduleError):
            random_step(s, r.choice(STEPS), r)
    return s


def numbers(func: PrimFunc, r: random.Random) -> dict[Var, int]:
    return {var: r.randint(1, 6) for var in decision_vars(func)}


def evaluated(features: ProgramFeatures, values: dict[Var, int]) -> Counter[tuple[str, ...]]:
    found = {key: int(evaluate(term, values)) for key, term in features.counts().items()}
    return Counter({key: number for key, number in found.items() if number})


def comparable(counts: Counter[tuple[str, ...]], params: set[str]) -> Counter[tuple[str, ...]]:
    """Lowering shrinks intermediate buffers, and with them the distance of lanes."""
    joined: Counter[tuple[str, ...]] = Counter()
    for key, number in counts.items():
        if key[0] in ("load", "store") and key[2] not in params and key[1] != "scalar":
            key = (key[0], "vector", key[2])
        joined[key] += number
    return joined


def steps(counts: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """Takes the iterations of loops out of the counts."""
    return Counter({key: counts.pop(key) for key in list(counts) if key[0] == "steps"})


def test_200_random_schedules_cost_what_their_lowered_code_does() -> None:
    checked = skipped = decided = stepped = 0
    seed = 0
    while checked < 200:
        seed += 1
        r = random.Random(seed)
        s = random_schedule(r)
        features = program_features(s.func)
        if not features.exact:
            skipped += 1
            continue
        values = numbers(s.func, r)
        func = decide(s.func, values)
        params = {item.name for item in func.buffers}
        expected = comparable(count_lowered(func, ICELAKE), params)
        found = comparable(evaluated(features, values), params)
        loops, expected_loops = steps(found), steps(expected)
        if features.steps_exact:
            assert loops == expected_loops, f"seed {seed}, {values}\n{s.func}"
            stepped += 1
        assert found == expected, (
            f"seed {seed}, {values}: {found - expected} too many, {expected - found} too few\n"
            f"{s.trace}\n{s.func}"
        )
        checked += 1
        decided += bool(values)
    # Most schedules are counted exactly, and most have something to decide.
    assert skipped < 30
    assert decided > 100
    assert stepped > 80


def enumerated(nest: Nest, depth: int, values: dict[Var, int], buffer: Buffer) -> int:
    """How many elements of a buffer one nest touches below a depth, by listing them."""
    extents = [int(evaluate(item.extent, values)) for item in nest.levels]
    extents[:depth] = [1] * depth
    axes = np.meshgrid(*(np.arange(extent) for extent in extents), indexing="ij")
    points: dict[Var, object] = {
        item.var: axis.ravel() for item, axis in zip(nest.levels, axes, strict=True)
    }
    points |= values
    count = int(np.prod(extents))
    running = np.ones(count, bool)
    for condition in nest.conditions:
        running &= np.broadcast_to(np.asarray(evaluate(condition, points)), count)
    for var, value in nest.values.items():
        points[var] = evaluate(value, points)
    loads = [item for item in walk(nest.stmt.value) if isinstance(item, BufferLoad)]
    places = [item.indices for item in loads if item.buffer is buffer]
    if nest.stmt.buffer is buffer:
        places.append(nest.stmt.indices)
    found: set[tuple[int, ...]] = set()
    for indices in places:
        columns = [
            np.broadcast_to(np.asarray(evaluate(index, points)), count)[running]
            for index in indices
        ]
        found.update(zip(*(column.tolist() for column in columns), strict=True))
    return len(found)


def test_footprints_are_the_touched_elements() -> None:
    exact = compared = 0
    for seed in range(80):
        r = random.Random(seed)
        s = random_schedule(r)
        values = numbers(s.func, r)
        for item in program_features(s.func).nests:
            if not item.nest.exact:
                continue
            for touched in item.touched:
                for depth, (size, sure) in enumerate(
                    zip(touched.elements, touched.exact, strict=True)
                ):
                    found = int(evaluate(size, values))
                    expected = enumerated(item.nest, depth, values, touched.buffer)
                    if expected == 0:
                        continue  # A part of a loop that has no iterations.
                    where = f"seed {seed}, {values}, {touched.buffer.name} at {depth}\n{s.func}"
                    assert found >= expected, where
                    if sure:
                        assert found == expected, where
                    compared += 1
                    exact += found == expected
    assert exact > 0.9 * compared


@pytest.mark.parametrize("seed", range(40))
def test_decided_schedules_keep_the_meaning(seed: int) -> None:
    r = random.Random(seed)
    s = random_schedule(r)
    for _ in range(3):
        func = decide(s.func, numbers(s.func, r))
        for before, after in zip(run(s.source, {}), run(func, {}), strict=True):
            np.testing.assert_array_equal(before, after, err_msg=f"{s.trace}\n{func}")
