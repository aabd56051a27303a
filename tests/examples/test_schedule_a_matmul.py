"""examples/schedule_a_matmul.py: every step is right, and the last ones use registers."""

import re

import numpy as np
import pytest

import transect
from examples import schedule_a_matmul as example
from transect.tir.schedule import Schedule
from transect.tir.stmt import For
from transect.tir.visit import walk_stmts


def test_it_prints_the_program_and_its_speed_after_each_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SECONDS", 0.0)
    example.main((13, 130, 24))
    text = capsys.readouterr().out
    names = ["naive", "layout", "tile", "vectorize", "cache_write", "unroll", "unroll", "prefetch"]
    names += ["parallel"]
    said = re.findall(rf"^# ({'|'.join(names)})", text, re.MULTILINE)
    assert said == names
    rate = r"^# [\d.]+ GFLOP/s, [\d.]+% of the machine's peak$"
    assert len(re.findall(rate, text, re.MULTILINE)) == len(names)
    assert text.count("def matmul(") == len(names), "the program after each step"
    assert "sch.parallel(" in text, "the trace, as Python"


@pytest.mark.parametrize("sizes", [(1, 1, 1), (6, 64, 2), (7, 65, 3), (20, 200, 33)])
def test_every_step_computes_the_product_of_sizes_that_do_not_divide(
    sizes: tuple[int, int, int],
) -> None:
    m, n, k = sizes
    random = np.random.default_rng(0)
    a, b = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
    sch = Schedule(example.matmul(m, n, k))
    for step in example.steps(sch):
        program = sch.func.with_attrs(**{"tir.is_scheduled": True})
        c = np.full((m, n), np.nan, np.float32)
        transect.compile(program, cache=False)(a, example.packed(b, program), c)
        np.testing.assert_allclose(c, a.astype(np.float64) @ b, atol=1e-5 * k, err_msg=step)


def test_the_schedule_is_short_and_ends_parallel() -> None:
    sch = Schedule(example.matmul(64, 128, 32))
    for _ in example.steps(sch):
        pass
    kinds = {stmt.kind for stmt in walk_stmts(sch.func.body) if isinstance(stmt, For)}
    assert {"parallel", "vectorized", "unrolled"} <= kinds
