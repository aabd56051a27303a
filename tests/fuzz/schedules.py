"""Random schedules of random programs, static and symbolic: whatever is not refused keeps the
meaning, and its trace, printed or as JSON, gives the same program again.

`python -m tests.fuzz.schedules --count 10000 --seed 1` runs more of them. Dtypes and operations
are those whose results do not depend on the order of a reduction.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.outcome import assert_agree, compiled, interpreted, outcome
from tests.fuzz.programs import data
from tests.fuzz.values import Values
from tests.schedule.examples import gather
from tests.schedule.layout_maps import MAPS, THREE
from tests.schedule.programs import blur, chain, matmul, normalized, padded, row_sum
from transect.arith.evaluate import evaluate
from transect.ir.dtype import DType, as_dtype
from transect.ir.expr import Expr, IntImm, Var
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.ir.traverse import free_vars, substitute
from transect.support.errors import ScheduleError
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.builder.statements import store
from transect.tir.function import PrimFunc
from transect.tir.schedule import BlockRV, LoopRV, Schedule
from transect.tir.stmt import Block, For
from transect.tir.verify import verify_module
from transect.tir.visit import walk_stmts

_EXACT = ("float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "bool")
Pick = Callable[[int], int]
"""Draws a number in [0, count)."""

# --- programs -------------------------------------------------------------------------------


def window(n: Var | int, m: Var | int) -> PrimFunc:
    """b = 2a; c[i, j] = the largest of a 3 × 2 window of b, which does not leave it."""
    builder = FunctionBuilder("window")
    a = builder.input("a", (n + 2, m + 1), "float32")
    b = builder.compute((n + 2, m + 1), lambda i, j: a[i, j] * 2.0, name="b")
    c = builder.reduce((n, m), (3, 2), lambda i, j, u, v: b[i + u, j + v], combiner="max", name="c")
    return builder.finish([c])


def updated(n: Var | int) -> PrimFunc:
    """t = a, then t = 2t in place, t = t + a in place, c = t."""
    builder = FunctionBuilder("updated")
    a = builder.input("a", (n,), "float32")
    t = builder.allocate((n,), "float32", name="t")
    c = builder.allocate((n,), "float32", name="c")
    builder.block((n,), lambda i: store(t, (i,), a[i]), name="t0")
    builder.block((n,), lambda i: store(t, (i,), t[i] * 2.0), name="t1")
    builder.block((n,), lambda i: store(t, (i,), t[i] + a[i]), name="t2")
    builder.block((n,), lambda i: store(c, (i,), t[i]), name="c0")
    return builder.finish([c])


def branches(n: Var | int, m: Var | int) -> PrimFunc:
    """b = a + 1; c = 3a; d = b * c; each read by several."""
    builder = FunctionBuilder("branches")
    a = builder.input("a", (n, m), "float32")
    b = builder.compute((n, m), lambda i, j: a[i, j] + 1.0, name="b")
    c = builder.compute((m, n), lambda i, j: a[j, i] * 3.0 + b[j, i], name="c")
    return builder.finish([builder.compute((n, m), lambda i, j: b[i, j] * c[j, i], name="d")])


PROGRAMS: list[Callable[[], PrimFunc]] = [
    lambda: chain(Var("n"), Var("m")),
    lambda: chain(6, 5),
    lambda: blur(7),
    lambda: matmul(Var("n"), Var("m"), 4),
    lambda: matmul(Var("n"), 8, Var("m"), bias=True),
    lambda: matmul(5, 6, 4, bias=True),
    lambda: row_sum(Var("n"), 8),
    lambda: normalized(4, Var("m")),
    lambda: window(Var("n"), 4),
    lambda: window(5, 4),
    lambda: padded(Var("n"), Var("m")),
    lambda: updated(Var("n")),
    lambda: branches(Var("n"), Var("m")),
    gather,
]


class _Blocks(Values):
    """Draws chains of maps and reductions, each of what came before."""

    def size(self) -> Expr:
        return self.pick([self.n, self.m, IntImm(4), IntImm(6)])

    def build(self) -> PrimFunc:
        builder = FunctionBuilder("main")
        self.n, self.m = Var("n"), Var("m")
        kinds = [self.dtype() for _ in range(2)]
        self.readable = [
            builder.input("a", (self.n, self.m), kinds[0]),
            builder.input("b", (self.m,), kinds[1]),
        ]
        for number in range(self.number(1, 3)):
            self.readable.append(self.piece(builder, number))
        return builder.finish(self.readable[-1:])

    def piece(self, builder: FunctionBuilder, number: int) -> Buffer:
        dtype, name = self.dtype(), f"piece{number}"
        shape = (self.size(), self.size())[: self.number(1, 2)]

        def value(*indices: Var) -> Expr:
            return self.value(dtype, list(indices))

        if self.chance():
            return builder.compute(shape, value, name=name)
        combiner = self.pick(["any", "all"] if dtype.is_bool else ["sum", "max", "min"])
        return builder.reduce(shape, (self.size(),), value, combiner=combiner, name=name)

    def value(self, dtype: DType, indices: list[Var]) -> Expr:
        """Floats are loads, or simple sums of them: small multiples of a quarter."""
        return self.leaf(dtype, indices) if dtype.is_float else self.expr(dtype, indices, 2)


# --- steps ----------------------------------------------------------------------------------


@dataclass
class Scene:
    """What a step may choose from: some block and loop, and others beside them."""

    s: Schedule
    pick: Pick
    block: BlockRV
    loops: list[LoopRV]
    near: BlockRV
    others: list[LoopRV]

    @staticmethod
    def of(s: Schedule, pick: Pick) -> Scene:
        blocks = s.get_child_blocks(s.get_block("root"))
        block, near = blocks[pick(len(blocks))], blocks[pick(len(blocks))]
        return Scene(s, pick, block, s.get_loops(block), near, s.get_loops(near))

    def among(self, items: list[Any]) -> Any:
        """One of several. Raises ScheduleError if there is none."""
        if not items:
            raise ScheduleError("nothing to choose from")
        return items[self.pick(len(items))]

    @property
    def loop(self) -> LoopRV:
        """A loop around the block."""
        return self.among(self.loops)

    @property
    def other(self) -> LoopRV:
        """A loop around the other block."""
        return self.among(self.others)

    def beside(self, neighbours: Callable[[BlockRV], list[BlockRV]]) -> LoopRV:
        """A loop around one of the blocks that the block reads from, or that read from it."""
        return self.among(self.s.get_loops(self.among(neighbours(self.block))))

    @property
    def scope(self) -> str:
        return self.among(["local", "global"])


def _split(c: Scene) -> None:
    loop = c.loop
    extent = c.s.get(loop).extent
    factors = c.among(
        [[None, 2], [None, 3], [2, None], [None, 2, 2], [1, None], [extent // 2 + 1, None]]
    )
    exact = isinstance(extent, IntImm) and c.pick(4) == 0
    c.s.split(loop, factors, bool(c.pick(2)), exact)


def _partition(c: Scene) -> None:
    loop = c.loop
    half = c.s.get(loop).extent // 2
    c.s.loop_partition(loop, c.among([[1, None], [None, 1], [half, None], [half], [1, 1]]))


def _fuse(c: Scene) -> None:
    start = c.pick(max(len(c.loops), 1))
    c.s.fuse(*c.loops[start : start + 2], preserve_unit_iters=bool(c.pick(2)))


def _reorder(c: Scene) -> None:
    c.s.reorder(*dict.fromkeys([c.loop, c.loop]))


def _sampled_tile(c: Scene) -> None:
    loop = c.loop
    c.s.split(loop, c.s.sample_perfect_tile(loop, 2, 4))


def _sampled_location(c: Scene) -> None:
    move = c.among([c.s.compute_at, c.s.reverse_compute_at])
    move(c.block, c.s.sample_compute_location(c.block))


def _consumers(c: Scene) -> list[BlockRV] | None:
    return c.among([None, None, [c.near], [c.block, c.near]])


def _ring(c: Scene) -> None:
    with suppress(ScheduleError):
        c.s.compute_at(c.block, c.beside(c.s.get_consumers))
    c.s.rolling_buffer(c.block, 0)


def _inplace(c: Scene) -> None:
    with suppress(ScheduleError):
        c.s.decompose_reduction(c.block, c.among(c.loops[:1]))
    c.s.cache_inplace(c.block, c.pick(2), c.scope)


def _wider(c: Scene) -> None:
    kind = c.among(["read", "write"])
    block: Block = c.s.get(c.block)
    regions = block.reads if kind == "read" else block.writes
    number = c.pick(max(len(regions), 1))
    if number >= len(regions):
        raise ScheduleError("no region")
    more = c.pick(3)
    ends = [(r.min - more, r.min + r.extent + 1) for r in regions[number].ranges]
    own = {item.var: n for n, item in enumerate(block.iter_vars)}

    def ranges(*variables: Var) -> list[tuple[Expr, Expr]]:
        values = {var: variables[n] for var, n in own.items()}
        return [(substitute(a, values), substitute(b, values)) for a, b in ends]

    c.s.annotate_buffer_access(c.block, number, kind, ranges)


def _maps(c: Scene, rank: int) -> Any:
    return c.among(list(MAPS.get(rank, THREE)))


def _layout(c: Scene) -> None:
    block: Block = c.s.get(c.block)
    buffer = c.among([item.buffer for item in (*block.reads, *block.writes)])
    if buffer in c.s.func.buffers:
        raise ScheduleError("parameters change the signature: they have a test of their own")
    c.s.transform_layout(c.block, buffer, _maps(c, buffer.ndim), c.pick(2) or None)


def _block_layout(c: Scene) -> None:
    c.s.transform_block_layout(c.block, _maps(c, len(c.s.get(c.block).iter_vars)))


def _reindexed(c: Scene) -> None:
    copy = c.among([c.s.reindex_cache_read, c.s.reindex_cache_write])
    copy(c.block, 0, "local", _maps(c, len(c.s.get(c.block).iter_vars)))


def _turned(c: Scene) -> None:
    count = len(c.s.get(c.block).iter_vars)
    turn = c.pick(max(count, 1))
    c.s.reorder_block_iter_var(c.block, [(n + turn) % count for n in range(count)])


def _precise(c: Scene) -> None:
    kind = c.s.get(c.block).writes[0].buffer.dtype
    if str(kind) != "float32":
        raise ScheduleError("only widening keeps the results")
    c.s.unsafe_set_dtype(c.block, 0, "float64")


STEPS: dict[str, Callable[[Scene], object]] = {
    "split": _split,
    "split_again": _split,
    "fuse": _fuse,
    "reorder": _reorder,
    "loop_partition": _partition,
    "merge": lambda c: c.s.merge(c.loop, c.beside(c.s.get_consumers)),
    "add_unit_loop": lambda c: c.s.add_unit_loop(c.among([c.block, *c.loops])),
    "parallel": lambda c: c.s.parallel(c.loop),
    "vectorize": lambda c: c.s.vectorize(c.loop),
    "unroll": lambda c: c.s.unroll(c.loop),
    "bind": lambda c: c.s.bind(c.loop, c.among(["blockIdx.x", "threadIdx.x"])),
    "compute_inline": lambda c: c.s.compute_inline(c.block),
    "reverse_compute_inline": lambda c: c.s.reverse_compute_inline(c.block),
    "compute_at": lambda c: c.s.compute_at(
        c.block, c.beside(c.s.get_consumers), bool(c.pick(2)), c.pick(3) - 2
    ),
    "compute_at_last": lambda c: c.s.compute_at(c.block, c.beside(c.s.get_consumers)),
    "compute_at_any": lambda c: c.s.compute_at(c.block, c.other),
    "reverse_compute_at": lambda c: c.s.reverse_compute_at(
        c.block, c.beside(c.s.get_producers), bool(c.pick(2)), c.pick(4) - 2
    ),
    "reverse_compute_at_last": lambda c: c.s.reverse_compute_at(
        c.block, c.beside(c.s.get_producers)
    ),
    "reverse_compute_at_any": lambda c: c.s.reverse_compute_at(c.block, c.other),
    "cache_read": lambda c: c.s.cache_read(c.block, c.pick(2), c.scope, _consumers(c)),
    "cache_write": lambda c: c.s.cache_write(c.block, 0, c.scope, _consumers(c)),
    "cache_inplace": _inplace,
    "cache_index": lambda c: c.s.cache_index(c.block, c.scope, c.pick(2)),
    "reindex_cache_read": lambda c: c.s.reindex_cache_read(
        c.block, c.pick(2), "global", c.among([(0, 1), (1, 0), (2, 0), (0,)])
    ),
    "read_at": lambda c: c.s.read_at(c.loop, c.block, c.pick(2), c.scope),
    "write_at": lambda c: c.s.write_at(c.loop, c.block, 0, c.scope),
    "rolling_buffer": _ring,
    "decompose_reduction": lambda c: c.s.decompose_reduction(c.block, c.loop),
    "rfactor": lambda c: c.s.rfactor(c.loop, c.pick(2)),
    "pad_domain": lambda c: c.s.pad_domain(
        c.block, [1 + c.pick(4) for _ in c.s.get(c.block).iter_vars]
    ),
    "transform_layout": _layout,
    "transform_block_layout": _block_layout,
    "reindex": lambda c: c.s.reindex(c.block, (c.among(["read", "write"]), c.pick(2))),
    "reindex_cache": _reindexed,
    "reorder_block_iter_var": _turned,
    "pad_einsum": lambda c: c.s.pad_einsum(
        c.block, [1 + c.pick(4) for _ in c.s.get(c.block).iter_vars]
    ),
    "fold_reduction": lambda c: c.s.fold_reduction(c.block),
    "decompose_padding": lambda c: c.s.decompose_padding(c.block, c.loop),
    "set_axis_separator": lambda c: c.s.set_axis_separator(c.block, ("write", 0), [1]),
    "set_scope": lambda c: c.s.set_scope(c.block, 0, c.scope),
    "storage_align": lambda c: c.s.storage_align(c.block, 0, c.pick(2), 4, c.pick(4)),
    "annotate": lambda c: c.s.annotate(c.among([c.block, *c.loops]), "hint", c.pick(4)),
    "annotate_buffer_access": _wider,
    "unsafe_set_dtype": _precise,
    "sample_categorical": lambda c: c.s.split(
        c.loop, [None, c.s.sample_categorical([2, 3, 4], [0.5, 0.25, 0.25])]
    ),
    "sample_perfect_tile": _sampled_tile,
    "sample_compute_location": _sampled_location,
}


# --- cases ----------------------------------------------------------------------------------


@dataclass
class Case:
    """A program under a schedule, and arguments to run both with."""

    schedule: Schedule
    arguments: list[np.ndarray]
    applied: list[str] = field(default_factory=list[str])

    def __repr__(self) -> str:
        return f"{self.schedule.source}\n\n{self.schedule.trace}\n\n{self.schedule.func}"

    @property
    def modules(self) -> tuple[IRModule, IRModule]:
        """The program before and after."""
        return IRModule.of(main=self.schedule.source), IRModule.of(main=self.schedule.func)

    @property
    def compiles(self) -> bool:
        """Whether a processor can run it: no threads of a grid, no memory of several dimensions."""
        threads = any(isinstance(s, For) and s.thread for s in walk_stmts(self.schedule.func.body))
        return not threads and "set_axis_separator" not in self.applied


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A random schedule of a random program."""
    generated = draw(st.booleans())
    made = _Blocks(draw, [], _EXACT).build() if generated else draw(st.sampled_from(PROGRAMS))()
    schedule = Schedule(made.with_attrs(global_symbol="main"), decide=_decider(draw))
    case = Case(schedule, [])
    for name in draw(st.lists(st.sampled_from(list(STEPS)), min_size=4, max_size=12)):
        with suppress(ScheduleError):
            STEPS[name](Scene.of(schedule, lambda count: draw(st.integers(0, count - 1))))
            case.applied.append(name)
    # Generated programs also read outside of loops over n and m, where those must not be empty.
    smallest = 1 if generated else 0
    sizes = {name: draw(st.integers(smallest, 9)) for name in ("n", "m")}
    case.arguments = [
        data(draw, tuple(_size(dim, sizes) for dim in item.shape), as_dtype(item.dtype))
        for item in schedule.source.buffers
    ]
    return case


def _decider(draw: st.DrawFn) -> Callable[[Any], Any]:
    return lambda site: draw(st.sampled_from(site.options))


def _size(dim: Expr, sizes: dict[str, int]) -> int:
    return int(evaluate(dim, {var: sizes[var.name] for var in free_vars([dim])}))


def check_case(case: Case, *, run_compiled: bool) -> None:
    """Everything that must hold of a case."""
    before, after = case.modules
    verify_module(after)
    text = str(case.schedule.trace)
    again = Schedule(case.schedule.source)
    exec(text, {"sch": again})
    mismatch = structural_mismatch(case.schedule.func, again.func)
    assert mismatch is None, f"{mismatch}\n{text}"
    loaded = Schedule(case.schedule.source)
    loaded.replay(loaded.load_trace(case.schedule.trace.to_json()))
    assert structural_mismatch(case.schedule.func, loaded.func) is None
    want = outcome(interpreted(before), case.arguments)
    assert_agree(outcome(interpreted(after), case.arguments), want)
    if run_compiled and case.compiles:
        assert_agree(outcome(compiled(after), case.arguments), want)


def run(count: int, start: int, *, compiled_part: int = 5, shrink: bool = True) -> Counter[str]:
    """Check `count` random cases, about one in `compiled_part` compiled too.

    Returns how often each step was applied. The same `start` gives the same cases.
    """
    applied: Counter[str] = Counter()
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(), st.integers(0, compiled_part - 1))
    def every(case: Case, part: int) -> None:
        applied.update(case.applied)
        check_case(case, run_compiled=part == 0)

    every()
    return applied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=250)
    options = parser.parse_args()
    os.environ["TRANSECT_CHECK"] = "1"
    total: Counter[str] = Counter()
    failures = 0
    for number, done in enumerate(range(0, options.count, options.chunk)):
        count = min(options.chunk, options.count - done)
        try:
            # Far apart, so that the runs of two seeds have no chunk in common.
            total += run(count, options.seed * 1_000_000 + number)
        except Exception:  # noqa: BLE001 - whatever it is, the other chunks run as well.
            failures += 1
            traceback.print_exc()
        print(f"{done + count} cases, {failures} chunks failed", flush=True)
    for name, times in total.most_common():
        print(f"{times:8} {name}")
    sys.exit(min(failures, 1))


if __name__ == "__main__":
    main()
