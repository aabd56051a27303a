"""What the x86 rules make, compiled: the same numbers as the unscheduled program interpreted, at
sizes that leave partial tiles, partial vectors and nothing at all."""

from collections.abc import Callable

import numpy as np
import pytest

import transect
from tests.hardware.test_x86_rules import (
    centred,
    column_sum,
    conv1d,
    epilogue,
    kept_row,
    plane_sum,
    pool,
    softmax,
    strided_pool,
    transposed,
    turned,
)
from tests.schedule.programs import chain, matmul, row_sum
from transect.hardware.kernel import KernelInfo
from transect.hardware.x86 import ICELAKE, host
from transect.hardware.x86.contraction import ContractionRule
from transect.ir.expr import EQ, Var
from transect.plan import Planner
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule.layout import panel_axis, to_panels

N, M, D = Var("n"), Var("m"), Var("d")


def outer(n: Var | int, m: Var | int) -> PrimFunc:
    """o[i, j] = 1 where a[i] == b[j], else 0."""
    builder = FunctionBuilder("outer")
    a = builder.input("a", (n,), "int32")
    b = builder.input("b", (m,), "int32")
    return builder.finish(
        [builder.compute((n, m), lambda i, j: EQ(a[i], b[j]).astype("float32"), name="o")]
    )


PROGRAMS: dict[str, Callable[[], PrimFunc]] = {
    "matmul": lambda: matmul(N, M, D),
    "matmul static": lambda: matmul(13, 70, 9),
    "row times matrix": lambda: matmul(1, M, D),
    "row times wide matrix": lambda: epilogue(1, 529, D),
    "row times wide matrix static": lambda: matmul(1, 1024, 19, bias=True),
    "matmul bias": lambda: matmul(N, M, D, bias=True),
    "epilogue": lambda: epilogue(N, M, D),
    "epilogue static": lambda: epilogue(13, 70, 9),
    "transposed": lambda: transposed(N, M, D),
    "conv1d": lambda: conv1d(135),
    "column sum": lambda: column_sum(N, M),
    "column sum static": lambda: column_sum(9, 70),
    "centred": lambda: centred(N, M),
    "pool": lambda: pool(37),
    "softmax": lambda: softmax(N, M),
    "kept row": lambda: kept_row(N, M),
    "kept row in registers": lambda: kept_row(3, 128),
    "kept rows, two at once": lambda: kept_row(4, 72),
    "kept row with a rest": lambda: kept_row(3, 1000),
    "plane sum": lambda: plane_sum(N, M),
    "plane sum static": lambda: plane_sum(7, 7),
    "strided pool": lambda: strided_pool(37),
    "turned": lambda: turned(N, M),
    "turned static": lambda: turned(33, 48),
    "turned whole lines": lambda: turned(64, 96),
    "few rows become columns": lambda: turned(3, 300),
    "few columns become rows": lambda: turned(300, 3),
    "turned, one extent known": lambda: turned(3, M),
    "row sum": lambda: row_sum(N, M),
    "row sum static": lambda: row_sum(3, 508),
    "chain": lambda: chain(N, M),
    "chain static": lambda: chain(5, 41),
    "outer": lambda: outer(N, M),
}
SIZES = [
    {"n": 1, "m": 1, "d": 1},
    {"n": 7, "m": 13, "d": 3},
    {"n": 13, "m": 7, "d": 1},
    {"n": 17, "m": 135, "d": 5},
    {"n": 8, "m": 64, "d": 2},
    {"n": 0, "m": 13, "d": 3},
    {"n": 7, "m": 0, "d": 3},
    {"n": 7, "m": 33, "d": 0},
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_programs_agree_with_the_interpreter(name: str) -> None:
    func = PROGRAMS[name]()
    model = transect.compile(func, target=host(), cache=False)
    symbolic = any(isinstance(e, Var) for value in func.buffers for e in value.shape)
    rng = np.random.default_rng(0)
    for sizes in SIZES if symbolic else [{}]:
        arrays = []
        for buffer in func.buffers:
            shape = [sizes[e.name] if isinstance(e, Var) else e.value for e in buffer.shape]
            # Small integers: sums are exact in any order.
            arrays.append(rng.integers(-8, 8, shape).astype(buffer.dtype.numpy))
        expected = [array.copy() for array in arrays]
        interpret(func, *expected)
        # Room around the output shows writes beyond it.
        room = np.full(arrays[-1].size + 128, 99, arrays[-1].dtype)
        output = room[64 : 64 + arrays[-1].size].reshape(arrays[-1].shape)
        model(*arrays[:-1], output)
        np.testing.assert_array_equal(output, expected[-1], err_msg=str(sizes))
        around = np.concatenate([room[:64], room[64 + output.size :]])
        assert (around == 99).all(), sizes


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("columns", [128, 144, 200])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_few_rows_over_several_panels(rows: int, columns: int, width: int) -> None:
    func = panel_axis(*_product(rows, columns, 40), width)
    model = transect.compile(func, target=host(), cache=False)
    random = np.random.default_rng(0)
    a = random.integers(-8, 8, (rows, 40)).astype(np.float32)
    b = random.integers(-8, 8, (40, columns)).astype(np.float32)
    c = np.full((rows, columns), np.nan, np.float32)
    model(a, to_panels(b, (0, 1), width), c)
    np.testing.assert_array_equal(c, a @ b)


def test_one_row_reads_several_panels_at_a_time() -> None:
    func = panel_axis(*_product(1, 4096, 4096), 32)
    info = KernelInfo.of(func)
    assert info is not None
    tile = ContractionRule().space(info, ICELAKE)[0]
    chosen = Planner(target=ICELAKE).choose(tile).parameters
    assert chosen == {"rows": 1, "vectors": 4 * 32 // ICELAKE.lanes()}


def _product(rows: int, columns: int, inner: int) -> tuple[PrimFunc, Buffer]:
    """a @ b, and b."""
    builder = FunctionBuilder("product")
    a = builder.input("a", (rows, inner), "float32")
    b = builder.input("b", (inner, columns), "float32")
    c = builder.reduce((rows, columns), (inner,), lambda i, j, k: a[i, k] * b[k, j], name="c")
    return builder.finish([c]), b
