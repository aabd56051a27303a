"""What nests that stream through memory fetch ahead, and what rows of unknown length keep close."""

import numpy as np
import pytest

import transect
from tests.schedule.programs import chain
from transect.hardware import schedule_rules
from transect.hardware.kernel import KernelInfo
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.hardware.x86 import AVX2, ZNVER4
from transect.hardware.x86.streams import fetch_site
from transect.ir.expr import Expr, Var, as_int
from transect.ir.function import IRModule
from transect.ir.traverse import free_vars
from transect.plan import Planner
from transect.target import Target
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.stmt import Allocate, BlockRealize, For
from transect.tir.transform import lowering
from transect.tir.transform.inject_prefetch import PREFETCH
from transect.tir.visit import walk_stmts
from transect.transform import Context, Pipeline

B, N, M = Var("b"), Var("n"), Var("m")
RULES = schedule_rules("x86")


def rows(b: Var | int, n: Var | int, m: Var | int) -> PrimFunc:
    """o[b, i, j] = e[b, i, j] + sum of e[b, i, :], e = (x - max of x[b, i, :])**2 * 2 + 1."""
    builder = FunctionBuilder("rows")
    x = builder.input("x", (b, n, m), "float32")
    t = builder.reduce((b, n), (m,), lambda p, i, k: x[p, i, k], combiner="max", name="t")

    def element(p: Var, i: Var, j: Var) -> Expr:
        d = x[p, i, j] - t[p, i]
        return d * d * d * d + d * d * d + d * d * 2.0 + 1.0

    e = builder.compute((b, n, m), element, name="e")
    s = builder.reduce((b, n), (m,), lambda p, i, k: e[p, i, k], name="s")
    return builder.finish(
        [builder.compute((b, n, m), lambda p, i, j: e[p, i, j] + s[p, i], name="o")]
    )


def scheduled(func: PrimFunc, target: Target = ZNVER4) -> PrimFunc:
    context = Context(target=target, planner=Planner(target=target))
    made = ScheduleKernels(RULES)(IRModule.of(f=func), context)["f"]
    assert isinstance(made, PrimFunc)
    return made


def distances(func: PrimFunc) -> list[int]:
    """How many iterations ahead its loops fetch."""
    loops = (stmt for stmt in walk_stmts(func.body) if isinstance(stmt, For))
    return [int(loop.annotations[PREFETCH]) for loop in loops if PREFETCH in loop.annotations]


@pytest.mark.parametrize(
    ("func", "target", "expected"),
    [
        # A cache line an iteration, 2 KiB ahead; from a near cache nothing.
        (chain(4096, 1024), ZNVER4, [32]),
        (chain(4096, 1024), AVX2, [32]),
        (chain(16, 1024), ZNVER4, []),
        # Rows of 512 bytes, written out, one or two at once; of 4 KiB, four vectors a step; of
        # unknown length.
        (rows(8, 2047, 128), ZNVER4, [4]),
        (rows(8, 2048, 128), ZNVER4, [2]),
        (rows(8, 512, 1024), ZNVER4, [8]),
        (rows(B, N, M), ZNVER4, [8]),
        (rows(2, 4, 128), ZNVER4, []),
    ],
)  # fmt: skip
def test_what_comes_from_far_is_fetched_ahead(
    func: PrimFunc, target: Target, expected: list[int]
) -> None:
    assert distances(scheduled(func, target)) == expected


def test_the_plan_can_say_otherwise() -> None:
    info = KernelInfo.of(chain(4096, 1024))
    assert info is not None
    site = fetch_site(info, "s", ZNVER4)
    near, ahead = site.options
    assert (near.parameters["ahead"], ahead.parameters["ahead"]) == (0, 2048)
    seconds = [option.cost.seconds(ZNVER4, lambda var: 1) for option in site.options]
    assert seconds[1] < seconds[0]


def test_two_rows_at_once_where_registers_hold_them() -> None:
    func = rows(3, 6, 128)
    made = scheduled(func)
    outermost = next(stmt for stmt in walk_stmts(made.body) if isinstance(stmt, For))
    assert as_int(outermost.extent) == 9
    for other in (rows(3, 5, 128), rows(3, 6, 256)):
        single = scheduled(other)
        outermost = next(stmt for stmt in walk_stmts(single.body) if isinstance(stmt, For))
        assert as_int(outermost.extent) == as_int(other.buffers[0].shape[1]) * 3
    x = np.random.default_rng(0).integers(-2, 3, (3, 6, 128)).astype(np.float32)
    d = x - x.max(axis=-1, keepdims=True)
    e = d**4 + d**3 + d**2 * 2 + 1
    out = np.empty_like(x)
    transect.compile(func, cache=False)(x, out)
    np.testing.assert_array_equal(out, e + e.sum(-1, keepdims=True))


def test_rows_of_unknown_extents_are_whole_and_close() -> None:
    """No condition asks whether a row of a fused loop exists, and what is kept of a row takes the
    place of one row."""
    made = scheduled(rows(B, N, M))
    for stmt in walk_stmts(made.body):
        if isinstance(stmt, BlockRealize) and stmt.block.name != "root":
            assert not {B, N} & set(free_vars([stmt.predicate])), stmt.block.name
    module = IRModule.of(main=made.with_attrs(global_symbol="main"))
    lowered = Pipeline(*lowering(ZNVER4))(module, Context(target=ZNVER4))["main"]
    assert isinstance(lowered, PrimFunc)
    unknown = [
        [extent for extent in stmt.extents if as_int(extent) != 1]
        for stmt in walk_stmts(lowered.body)
        if isinstance(stmt, Allocate) and any(as_int(e) is None for e in stmt.extents)
    ]
    assert [len(extents) for extents in unknown] == [1]


def test_one_compile_serves_all_lengths() -> None:
    func = rows(B, N, M)
    model = transect.compile(func, cache=False)
    random = np.random.default_rng(0)
    for shape in ((1, 1, 1), (2, 3, 16), (3, 2, 65), (2, 2, 100), (1, 5, 1000), (0, 3, 5)):
        x = random.integers(-2, 3, shape).astype(np.float32)
        d = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
        e = d**4 + d**3 + d**2 * 2 + 1
        out = np.empty_like(x)
        model(x, out)
        np.testing.assert_array_equal(out, e + e.sum(-1, keepdims=True), err_msg=str(shape))
