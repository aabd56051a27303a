"""Random sequences of primitives on random programs: whatever is not refused keeps the meaning."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schedule.layout_maps import MAPS, THREE
from tests.schedule.programs import blur, chain, matmul, normalized, padded, row_sum, run
from transect.ir.expr import Var
from transect.support.errors import ScheduleError
from transect.tir.function import PrimFunc
from transect.tir.schedule import Schedule

PROGRAMS: list[Callable[[], PrimFunc]] = [
    lambda: chain(Var("n"), Var("m")),
    lambda: chain(6, 5),
    lambda: blur(7),
    lambda: matmul(Var("n"), Var("m"), 4),
    lambda: matmul(5, 6, 4, bias=True),
    lambda: row_sum(Var("n"), 8),
    lambda: normalized(4, Var("m")),
    lambda: padded(Var("n"), Var("m")),
]
STEPS = (
    "split", "split", "fuse", "reorder", "parallel", "vectorize", "unroll", "compute_inline",
    "reverse_compute_inline", "cache_read", "cache_write", "compute_at", "reverse_compute_at",
    "decompose", "rfactor", "fold", "pad", "partition", "merge", "reindex", "bind", "layout",
    "layout", "block_layout", "reindex_read", "reindex_write", "reorder_vars", "einsum", "fill",
    "separate",
)  # fmt: skip


def step(s: Schedule, name: str, pick: Callable[[int], int]) -> None:
    """One primitive with drawn arguments. Raises ScheduleError if it is refused."""
    root = s.get_block("root")
    blocks = s.get_child_blocks(root)
    block = blocks[pick(len(blocks))]
    loops = s.get_loops(block)
    other = s.get_loops(blocks[pick(len(blocks))])
    loop = loops[pick(len(loops))] if loops else None
    target = other[pick(len(other))] if other else None
    match name:
        case "compute_inline" | "reverse_compute_inline":
            getattr(s, name)(block)
        case "cache_read" | "cache_write":
            getattr(s, name)(block, pick(2), "local")
        case "reindex":
            s.reindex_cache_read(block, pick(2), "global", [(0, 1), (1, 0), (2, 0), (0,)][pick(4)])
        case "layout":
            buffers = [item.buffer for item in (*s.get(block).reads, *s.get(block).writes)]
            buffer = buffers[pick(len(buffers))]
            # Parameters change the signature: they have a test of their own.
            if buffer not in s.func.buffers:
                maps = MAPS.get(buffer.ndim, THREE)
                s.transform_layout(block, buffer, maps[pick(len(maps))], pick(2) or None)
        case "block_layout":
            maps = MAPS.get(len(s.get(block).iter_vars), THREE)
            s.transform_block_layout(block, maps[pick(len(maps))])
        case "reindex_read" | "reindex_write":
            maps = MAPS.get(len(s.get(block).iter_vars), THREE)
            if pick(3):
                getattr(s, f"reindex_cache_{name[8:]}")(block, 0, "local", maps[pick(len(maps))])
            else:
                s.reindex(block, (name[8:], pick(2)))
        case "reorder_vars":
            count = len(s.get(block).iter_vars)
            turn = pick(max(count, 1))
            s.reorder_block_iter_var(block, [(n + turn) % count for n in range(count)])
        case "einsum":
            s.pad_einsum(block, [1 + pick(4) for _ in s.get(block).iter_vars])
        case "fill" if loop is not None:
            s.decompose_padding(block, loop)
        case "separate":
            s.set_axis_separator(block, ("write", 0), [1])
        case "pad":
            s.pad_domain(block, [1 + pick(4) for _ in s.get(block).iter_vars])
        case "compute_at" | "reverse_compute_at" if target is not None:
            getattr(s, name)(block, target)
        case "split" if loop is not None:
            s.split(loop, [[None, 2], [None, 3], [2, None], [None, 2, 2]][pick(4)])
        case "partition" if loop is not None:
            s.loop_partition(loop, [[1, None], [None, 1], [s.get(loop).extent // 2, None]][pick(3)])
        case "fuse" if loop is not None:
            start = pick(len(loops))
            s.fuse(*loops[start : start + 2])
        case "reorder" if len(loops) > 1:
            a, b = pick(len(loops)), pick(len(loops))
            s.reorder(*({loops[a]: None, loops[b]: None}))
        case "merge" if loop is not None and target is not None:
            s.merge(loop, target)
        case "decompose" if loop is not None:
            s.decompose_reduction(block, loop)
        case "fold":
            s.fold_reduction(block)
        case "rfactor" if loop is not None:
            s.rfactor(loop, axis=pick(2))
        case "bind" if loop is not None:
            s.bind(loop, ["blockIdx.x", "threadIdx.x"][pick(2)])
        case "parallel" | "vectorize" | "unroll" if loop is not None:
            getattr(s, name)(loop)
        case _:
            pass


@settings(max_examples=60)
@given(st.integers(0, len(PROGRAMS) - 1), st.data())
def test_random_schedules_keep_the_meaning(program: int, data: st.DataObject) -> None:
    s = Schedule(PROGRAMS[program]())

    def pick(count: int) -> int:
        return data.draw(st.integers(0, count - 1))

    for name in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=9)):
        with suppress(ScheduleError):
            step(s, name, pick)
    sizes = {"n": data.draw(st.integers(1, 9)), "m": data.draw(st.integers(1, 9))}
    for before, after in zip(run(s.source, sizes), run(s.func, sizes), strict=True):
        np.testing.assert_array_equal(before, after, err_msg=f"{s.trace}\n{s.func}")
