"""The x86 rules: every schedule they can give keeps the meaning, for static and symbolic sizes."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.schedule.programs import chain, matmul, normalized, row_sum, run
from transect.hardware import schedule_rules
from transect.hardware.kernel import KernelInfo
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.hardware.x86 import TARGETS, ZNVER4
from transect.hardware.x86.contraction import ContractionRule
from transect.hardware.x86.roles import roles
from transect.ir.dtype import FLOAT32
from transect.ir.expr import Expr, Var, maximum
from transect.ir.function import IRModule
from transect.plan import Option, Planner, RandomPolicy, Site
from transect.tir.builder import FunctionBuilder
from transect.tir.builder.statements import store
from transect.tir.function import SCHEDULED, PrimFunc
from transect.tir.schedule import Schedule
from transect.tir.stmt import For
from transect.tir.transform.inject_prefetch import PREFETCH, PREFETCH_NEXT, PREFETCH_NEXT_ROWS
from transect.tir.visit import walk_stmts
from transect.transform import Context

N, M, D = Var("n"), Var("m"), Var("d")
RULES = schedule_rules("x86")


def transposed(n: Var | int, m: Var | int, d: Var | int) -> PrimFunc:
    """y = x @ w.T: neighbouring columns are not side by side in w."""
    builder = FunctionBuilder("transposed")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (m, d), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[j, k], name="y")
    return builder.finish([y])


def mapped(n: int, m: int, d: int) -> PrimFunc:
    """y = t @ w, t = (x * 2 + 1) * (x * 2 - 1) * x: a map that is not worth repeating."""
    builder = FunctionBuilder("mapped")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (d, m), "float32")

    def element(i: Var, k: Var) -> Expr:
        twice = x[i, k] * 2.0
        return (twice + 1.0) * (twice - 1.0) * x[i, k]

    t = builder.compute((n, d), element, name="t")
    y = builder.reduce((n, m), (d,), lambda i, j, k: t[i, k] * w[k, j], name="y")
    return builder.finish([y])


def epilogue(n: Var | int, m: Var | int, d: Var | int) -> PrimFunc:
    """z = (y + b) * (y + b + 1) * 2 + (y + b), y = x @ w: several maps read one result."""
    builder = FunctionBuilder("epilogue")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (d, m), "float32")
    b = builder.input("b", (m,), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    t = builder.compute((n, m), lambda i, j: y[i, j] + b[j], name="t")
    u = builder.compute((n, m), lambda i, j: t[i, j] + 1.0, name="u")
    v = builder.compute((n, m), lambda i, j: t[i, j] * u[i, j] * 2.0, name="v")
    return builder.finish([builder.compute((n, m), lambda i, j: v[i, j] + t[i, j], name="z")])


def conv1d(length: Var | int) -> PrimFunc:
    """A convolution of 3 channels to 5, kernel 3, over positions that end where the input does."""
    builder = FunctionBuilder("conv1d")
    x = builder.input("x", (2, 3, length), "float32")
    w = builder.input("w", (5, 3, 3), "float32")
    size = length - 2
    y = builder.reduce(
        (2, 5, size), (3, 3), lambda b, o, p, c, k: x[b, c, p + k] * w[o, c, k], name="y"
    )
    return builder.finish([y])


def column_sum(n: Var | int, m: Var | int) -> PrimFunc:
    """z[j] = 2 * sum of x[:, j] squared."""
    builder = FunctionBuilder("column_sum")
    x = builder.input("x", (n, m), "float32")
    t = builder.compute((n, m), lambda i, j: x[i, j] * x[i, j], name="t")
    y = builder.reduce((m,), (n,), lambda j, k: t[k, j], name="y")
    return builder.finish([builder.compute((m,), lambda j: y[j] * 2.0, name="z")])


def centred(n: Var | int, m: Var | int) -> PrimFunc:
    """o[b, i, j] = x[b, i, j] - max of x[b, :, j]."""
    builder = FunctionBuilder("centred")
    x = builder.input("x", (2, n, m), "float32")
    t = builder.reduce((2, m), (n,), lambda b, j, k: x[b, k, j], combiner="max", name="t")
    return builder.finish(
        [builder.compute((2, n, m), lambda b, i, j: x[b, i, j] - t[b, j], name="o")]
    )


def pool(length: Var | int) -> PrimFunc:
    """The largest of three neighbours."""
    builder = FunctionBuilder("pool")
    x = builder.input("x", (2, length), "float32")
    size = length - 2
    y = builder.reduce((2, size), (3,), lambda i, j, k: x[i, j + k], combiner="max", name="y")
    return builder.finish([y])


def softmax(n: Var | int, m: Var | int) -> PrimFunc:
    """Like softmax, with exact arithmetic: (x - max) / 2 ** 3 summed and taken off again."""
    builder = FunctionBuilder("softmax")
    x = builder.input("x", (n, m), "float32")
    t = builder.reduce((n,), (m,), lambda i, k: x[i, k], combiner="max", name="t")
    e = builder.compute((n, m), lambda i, j: (x[i, j] - t[i]) * 0.125, name="e")
    s = builder.reduce((n,), (m,), lambda i, k: e[i, k], name="s")
    return builder.finish([builder.compute((n, m), lambda i, j: e[i, j] - s[i], name="o")])


def plane_sum(n: Var | int, m: Var | int) -> PrimFunc:
    """y[b] = sum of x[b, :, :]."""
    builder = FunctionBuilder("plane_sum")
    x = builder.input("x", (3, n, m), "float32")
    return builder.finish([builder.reduce((3,), (n, m), lambda b, i, j: x[b, i, j], name="y")])


def strided_pool(length: Var | int) -> PrimFunc:
    """The largest of three neighbours, every second time."""
    builder = FunctionBuilder("strided_pool")
    x = builder.input("x", (2, length * 2 + 1), "float32")
    y = builder.reduce((2, length), (3,), lambda i, j, k: x[i, j * 2 + k], combiner="max", name="y")
    return builder.finish([y])


def turned(n: Var | int, m: Var | int) -> PrimFunc:
    """o[b, i, j] = x[j, b, i] + 1."""
    builder = FunctionBuilder("turned")
    x = builder.input("x", (m, 2, n), "float32")
    return builder.finish([builder.compute((2, n, m), lambda b, i, j: x[j, b, i] + 1.0, name="o")])


def kept_row(n: Var | int, m: Var | int) -> PrimFunc:
    """Like softmax: a row of results that two readers share, and a factor once a row."""
    builder = FunctionBuilder("kept_row")
    x = builder.input("x", (n, m), "float32")
    t = builder.reduce((n,), (m,), lambda i, k: x[i, k], combiner="max", name="t")

    def element(i: Var, j: Var) -> Expr:
        d = x[i, j] - t[i]
        return d * d * d + d * d + d * 2.0 + 1.0

    e = builder.compute((n, m), element, name="e")
    s = builder.reduce((n,), (m,), lambda i, k: e[i, k], name="s")
    f = builder.compute((n,), lambda i: s[i] * 0.5 + s[i] * 0.25 + 1.0, name="f")
    return builder.finish([builder.compute((n, m), lambda i, j: e[i, j] * f[i], name="o")])


PROGRAMS: dict[str, tuple[Callable[[], PrimFunc], str]] = {
    "matmul": (lambda: matmul(N, M, D), "x86.contraction"),
    "matmul bias": (lambda: matmul(N, M, 5, bias=True), "x86.contraction"),
    "matmul static": (lambda: matmul(13, 70, 9, bias=True), "x86.contraction"),
    "matmul of many rows": (lambda: matmul(133, 70, 9, bias=True), "x86.contraction"),
    "map and matmul of many rows": (lambda: mapped(133, 70, 9), "x86.contraction"),
    "epilogue": (lambda: epilogue(N, M, D), "x86.contraction"),
    "epilogue static": (lambda: epilogue(13, 70, 9), "x86.contraction"),
    "row times matrix": (lambda: epilogue(1, 529, D), "x86.vector_matrix"),
    "row times a matrix of any width": (lambda: epilogue(1, M, D), "x86.vector_matrix"),
    "row times matrix static": (lambda: matmul(1, 512, 8), "x86.vector_matrix"),
    "transposed": (lambda: transposed(N, M, D), "x86.contraction"),
    "conv1d": (lambda: conv1d(23), "x86.contraction"),
    "column sum": (lambda: column_sum(N, M), "x86.columns"),
    "column sum static": (lambda: column_sum(9, 70), "x86.columns"),
    "centred": (lambda: centred(N, M), "x86.columns"),
    "pool": (lambda: pool(37), "x86.columns"),
    "softmax": (lambda: softmax(N, M), "x86.rows"),
    "softmax static": (lambda: softmax(5, 40), "x86.rows"),
    "softmax of two rows at once": (lambda: softmax(6, 40), "x86.rows"),
    "normalized": (lambda: normalized(N, M), "x86.rows"),
    "row sum": (lambda: row_sum(N, M), "x86.rows"),
    "kept row": (lambda: kept_row(N, M), "x86.rows"),
    "kept row static": (lambda: kept_row(3, 72), "x86.rows"),
    "kept rows, two at once": (lambda: kept_row(4, 72), "x86.rows"),
    "plane sum": (lambda: plane_sum(N, M), "x86.rows"),
    "plane sum static": (lambda: plane_sum(5, 7), "x86.rows"),
    "strided pool": (lambda: strided_pool(37), "x86.columns"),
    "turned": (lambda: turned(N, M), "x86.elementwise"),
    "turned static": (lambda: turned(16, 33), "x86.elementwise"),
    "chain": (lambda: chain(N, M), "x86.elementwise"),
}
SIZES = [{"n": 1, "m": 1, "d": 1}, {"n": 9, "m": 35, "d": 3}, {"n": 4, "m": 64, "d": 8}]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_schedules_keep_the_meaning(name: str, seed: int | None) -> None:
    make, rule = PROGRAMS[name]
    func = make()
    planner = Planner(target=ZNVER4) if seed is None else Planner(RandomPolicy(seed), target=ZNVER4)
    context = Context(target=ZNVER4, planner=planner)
    scheduled = ScheduleKernels(RULES)(IRModule.of(f=func), context)["f"]
    assert isinstance(scheduled, PrimFunc)
    assert scheduled.attrs["tir.schedule_rules"][0] == rule, scheduled.attrs
    assert "tir.schedule_refusals" not in scheduled.attrs
    symbolic = any(isinstance(e, Var) for value in func.buffers for e in value.shape)
    for sizes in SIZES if symbolic else [{}]:
        for before, after in zip(run(func, sizes), run(scheduled, sizes), strict=True):
            np.testing.assert_array_equal(before, after)


def test_an_authors_schedule_is_left_alone() -> None:
    func = chain(N, M).with_attrs(**{SCHEDULED: True})
    module = IRModule.of(f=func)
    assert ScheduleKernels(RULES)(module, Context(target=ZNVER4)) is module


def test_spaces_state_the_sites_that_applying_asks_for() -> None:
    for make, _ in PROGRAMS.values():
        func = make()
        info = KernelInfo.of(func)
        assert info is not None
        rule = next(rule for rule in RULES if rule.matches(info))
        stated = {str(site.key) for site in rule.space(info, ZNVER4)}
        asked = Schedule(func, decide=Planner(target=ZNVER4).choose, target=str(ZNVER4))
        rule.apply(asked, info, ZNVER4)
        assert set(asked.trace.answers) == stated


def test_fused_contractions_take_the_answers_of_the_plan() -> None:
    """PlanGraph nests the sites of the unfused product under its implementation; the product with
    its neighbours fused asks for no others."""
    alone = KernelInfo.of(matmul(N, 70, 9))
    assert alone is not None
    planner = Planner(RandomPolicy(3), target=ZNVER4)
    nested = ContractionRule().space(alone, ZNVER4)
    answers = {str(site.key): planner.choose(site).name for site in nested}
    asked: list[str] = []

    def decide(site: Site) -> Option:
        asked.append(str(site.key))
        return next(option for option in site.options if option.name == answers[str(site.key)])

    fused = epilogue(N, 70, 9)
    info = KernelInfo.of(fused)
    assert info is not None
    sch = Schedule(fused, decide=decide, target=str(ZNVER4))
    handled = ContractionRule().apply(sch, info, ZNVER4)
    assert set(asked) == set(answers)
    assert set(info.pending) <= set(handled)


def test_random_policies_give_different_schedules() -> None:
    programs: set[str] = set()
    for seed in range(6):
        context = Context(target=ZNVER4, planner=Planner(RandomPolicy(seed), target=ZNVER4))
        programs.add(repr(ScheduleKernels(RULES)(IRModule.of(f=matmul(N, M, D)), context)["f"]))
    assert len(programs) > 2


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_register_tiles_fit_the_registers(target) -> None:
    info = KernelInfo.of(matmul(512, 768, 768))
    assert info is not None
    tile = ContractionRule().space(info, target)[0]
    for option in tile.options:
        rows, vectors = option.number("rows"), option.number("vectors")
        read = vectors if rows > 1 else 1  # What is used once is read in place.
        assert rows * vectors + read + 1 <= target.vector_registers
    chosen = Planner(target=target).choose(tile).parameters
    # Enough independent sums to hide the latency of a multiply-add, and rows that are reused.
    assert chosen["rows"] * chosen["vectors"] >= 4 * target.fma_per_cycle
    assert chosen["rows"] >= 4
    assert target.peak(FLOAT32) == 2 * target.clock * target.fma_per_cycle * target.lanes()


def test_a_single_row_takes_a_single_row_tile() -> None:
    info = KernelInfo.of(matmul(1, 768, 768))
    assert info is not None
    tile = ContractionRule().space(info, ZNVER4)[0]
    assert Planner(target=ZNVER4).choose(tile).parameters["rows"] == 1


@pytest.mark.parametrize(("sizes", "packs"), [((512, 768, 3072), True), ((8, 256, 128), False)])
def test_columns_that_do_not_fit_the_cache_are_packed(
    sizes: tuple[int, int, int], packs: bool
) -> None:
    info = KernelInfo.of(matmul(*sizes))
    assert info is not None
    packing = ContractionRule().space(info, ZNVER4)[1]
    assert Planner(target=ZNVER4).choose(packing).parameters["pack"] is packs


def _annotations(func: PrimFunc) -> list[dict[str, object]]:
    """Those of the loops of a program as the default schedules have it, the outermost first."""
    context = Context(target=ZNVER4, planner=Planner(target=ZNVER4))
    scheduled = ScheduleKernels(RULES)(IRModule.of(f=func), context)["f"]
    assert isinstance(scheduled, PrimFunc)
    loops = [stmt for stmt in walk_stmts(scheduled.body) if isinstance(stmt, For)]
    return [dict(loop.annotations) for loop in loops if loop.annotations]


def test_copies_of_columns_fetch_rows_ahead() -> None:
    for sizes in ((512, 768, 3072), (127, M, 1023)):
        assert {PREFETCH: 16} in _annotations(matmul(*sizes))


@pytest.mark.parametrize(("columns", "few"), [(64, True), (4096, False)])
def test_rows_that_many_panels_read_are_not_fetched_again(columns: int, few: bool) -> None:
    fetching = [found for found in _annotations(matmul(96, columns, 64)) if PREFETCH_NEXT in found]
    assert fetching
    assert all((PREFETCH_NEXT_ROWS in found) is few for found in fetching)


def test_roles_follow_the_last_dimension_of_the_output() -> None:
    info = KernelInfo.of(conv1d(16))
    assert info is not None
    found = roles(info.contractions()[0])
    assert found is not None
    assert found.columns.buffer.name == "x"
    assert found.contiguous
    assert not roles(KernelInfo.of(transposed(4, 4, 4)).contractions()[0]).contiguous  # pyright: ignore[reportOptionalMemberAccess]


def test_opaque_programs_are_left_alone() -> None:
    builder = FunctionBuilder("scan")
    a = builder.input("a", (4,), "float32")
    from_store = builder.allocate((4,), "float32", name="b")
    builder.block((4,), lambda i: scan_step(from_store, a, i), kinds="N", name="b")
    func = builder.finish([from_store])
    scheduled = ScheduleKernels(RULES)(IRModule.of(f=func), Context(target=ZNVER4))["f"]
    assert SCHEDULED not in scheduled.attrs


def scan_step(b, a, i):
    """b[i] = a[i] + b[max(i - 1, 0)]."""
    return store(b, (i,), a[i] + b[maximum(i - 1, 0)])
