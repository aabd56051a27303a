"""cache_common and factor_out: meaning kept, or refused."""

import numpy as np
import pytest

from tests.schedule.programs import chain, check, matmul, normalized
from transect.ir.expr import Expr, Var
from transect.support.errors import ScheduleError
from transect.tir import op
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.schedule import Schedule

N, M = Var("n"), Var("m")
SIZES = [{"n": n, "m": m} for n, m in ((1, 1), (3, 17), (9, 5))]


def powers(n: Expr | int, m: Expr | int) -> PrimFunc:
    """s[i] = sum of |a[i, :] - b[i]|; c = |a - b| * 2: in two blocks, with other variables."""
    builder = FunctionBuilder("powers")
    a = builder.input("a", (n, m), "float32")
    b = builder.input("b", (n,), "float32")
    s = builder.reduce((n,), (m,), lambda i, k: op.abs(a[i, k] - b[i]), name="s")
    return builder.finish(
        [builder.compute((n, m), lambda p, q: op.abs(a[p, q] - b[p]) * 2.0 + s[p], name="c")]
    )


def weighted(n: Expr | int, m: Expr | int, *, divide: bool) -> PrimFunc:
    """y[i, j] = sum over k of x[i, k] (/ or *) w[i] * v[k, j], with d = 4."""
    builder = FunctionBuilder("weighted")
    x = builder.input("x", (n, 4), "float32")
    w = builder.input("w", (n,), "float32")
    v = builder.input("v", (4, m), "float32")
    p = builder.compute((n, 4), lambda i, k: x[i, k] / w[i] if divide else x[i, k] * w[i], name="p")
    return builder.finish(
        [builder.reduce((n, m), (4,), lambda i, j, k: p[i, k] * v[k, j], name="y")]
    )


def refusal(func: PrimFunc, edit: object) -> str:
    s = Schedule(func)
    with pytest.raises(ScheduleError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    return str(caught.value)


def test_what_two_blocks_compute_is_computed_once() -> None:
    made = check(
        lambda: powers(N, M),
        lambda s: s.cache_common(s.get_block("s"), s.get_block("c")),
        *SIZES,
    )
    text = repr(made.func)
    assert text.count("T.abs(") + text.count("T.fabs(") == 1
    assert made.get_block("c_common")


def test_nothing_in_common_is_refused() -> None:
    text = refusal(chain(N, M), lambda s: s.cache_common(s.get_block("b"), s.get_block("c")))
    assert "cache_common: block 'b': it computes nothing that block 'c' computes" in text


def test_blocks_out_of_order_are_refused() -> None:
    text = refusal(powers(N, M), lambda s: s.cache_common(s.get_block("c"), s.get_block("s")))
    assert "block 's' does not come after it" in text


def test_factors_of_a_sum() -> None:
    def edit(s: Schedule) -> None:
        s.compute_inline(s.get_block("p"))
        s.factor_out(s.get_block("y"))

    made = check(lambda: weighted(N, M, divide=False), edit, *SIZES)
    assert "y[v0, v1] = y_sum[v0, v1] * w[v0]" in repr(made.func)


def test_divisors_of_a_sum() -> None:
    func = weighted(5, 7, divide=True)
    made = Schedule(func)
    made.compute_inline(made.get_block("p"))
    made.factor_out(made.get_block("y"))
    assert repr(made.func).count(" / ") == 1
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(1, 2, shape).astype(np.float32) for shape in ((5, 4), (5,), (4, 7))]
    results = [np.full((5, 7), np.nan, np.float32) for _ in range(2)]
    interpret(func, *arrays, results[0])
    interpret(made.func, *arrays, results[1])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


def test_terms_without_a_common_factor_are_refused() -> None:
    text = refusal(matmul(3, 4, 5), lambda s: s.factor_out(s.get_block("y")))
    assert "factor_out: block 'y': no factor of" in text


def test_other_reductions_are_refused() -> None:
    text = refusal(normalized(3, 4), lambda s: s.factor_out(s.get_block("t")))
    assert "it does not sum" in text
