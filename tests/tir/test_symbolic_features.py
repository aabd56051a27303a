"""The features of programs with decision variables, against their lowered code."""

import random
from collections import Counter
from contextlib import suppress

from tests.schedule.programs import blur, chain, matmul, normalized, row_sum
from tests.tir.lowered_counts import count_lowered
from transect.arith.evaluate import evaluate
from transect.hardware.x86 import ICELAKE
from transect.ir.expr import Expr, Var
from transect.support.errors import ScheduleError
from transect.tir.analysis import ProgramFeatures, program_features
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
            s.rfactor(loop, axis=r.randrange(2))
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


def test_200_random_schedules_cost_what_their_lowered_code_does() -> None:
    checked = skipped = decided = 0
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
        assert found == expected, (
            f"seed {seed}, {values}: {found - expected} too many, {expected - found} too few\n"
            f"{s.trace}\n{s.func}"
        )
        checked += 1
        decided += bool(values)
    # Most schedules are counted exactly, and most have something to decide.
    assert skipped < 60
    assert decided > 100
