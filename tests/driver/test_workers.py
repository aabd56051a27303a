"""Workers: the same code as in one process; one that dies or hangs costs time, nothing else."""

from __future__ import annotations

import ctypes
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import transect
from tests.frontend.onnx_models import Graph, expected
from transect.codegen.llvm.compile import translate_here
from transect.codegen.llvm.partition import partition
from transect.codegen.llvm.shared_object import link
from transect.driver.workers import Workers, default_count
from transect.runtime.code import load_code
from transect.support import flags

FUNCTIONS = 40

_TWICE = """define internal i64 @twice(i64 %x) alwaysinline nounwind {
  %y = add i64 %x, %x
  ret i64 %y
}"""
_STEP = """define internal void @step() {
  %v = load i64, ptr @count
  %w = add i64 %v, 1
  store i64 %w, ptr @count
  ret void
}"""


def text_of_many() -> str:
    """A module of functions that share a counter, a string and a helper that is inlined."""
    lines = [
        "@count = internal global i64 0, align 8",
        '@.str.0 = private unnamed_addr constant [3 x i8] c"@a\\00", align 1',
        _TWICE,
        _STEP,
    ]
    for number in range(FUNCTIONS):
        filler = "\n".join(f"  %f{i} = add i64 {i}, {number}" for i in range(150))
        lines.append(
            f'define internal i64 @"f.{number}"(i64 %x) {{\n{filler}\n  call void @step()\n'
            "  %c = load i8, ptr @.str.0\n  %w = zext i8 %c to i64\n"
            f"  %a = call i64 @f.{number}.inner(i64 %x)\n  %y = add i64 %a, %w\n  ret i64 %y\n}}"
        )
        lines.append(
            f"define internal i64 @f.{number}.inner(i64 %x) {{\n"
            f"  %d = call i64 @twice(i64 {number})\n  %y = add i64 %x, %d\n  ret i64 %y\n}}"
        )
    calls = "\n".join(
        f"  %v{number + 1} = call i64 @f.{number}(i64 %v{number})" for number in range(FUNCTIONS)
    )
    lines += [
        f"define i64 @sum() {{\n  %v0 = add i64 0, 0\n{calls}\n  ret i64 %v{FUNCTIONS}\n}}",
        "define i64 @steps() {\n  %v = load i64, ptr @count\n  ret i64 %v\n}",
        "define i32 @__transect_unload() {\n  ret i32 0\n}",
        '!0 = !{!"branch_weights", i32 4000, i32 1}',
        "",
    ]
    return "\n".join(lines)


def run(objects: list[bytes]) -> tuple[int, int]:
    """The sum and the count of steps that the functions of `text_of_many` make."""
    names = ["sum", "steps", "__transect_unload"]
    linked = link(objects, names)
    code = load_code(linked.image, names, linked.imports)
    function = ctypes.CFUNCTYPE(ctypes.c_int64)
    return function(code.address("sum"))(), function(code.address("steps"))()


WANTED = (sum(2 * number + ord("@") for number in range(FUNCTIONS)), FUNCTIONS)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_link_to_the_whole(parts: int) -> None:
    texts = partition(text_of_many(), parts)
    assert len(texts) == parts
    assert run(translate_here(texts, "host", "")) == WANTED
    assert texts == partition(text_of_many(), parts)


def test_small_texts_stay_whole() -> None:
    text = "define i32 @f() {\n  ret i32 1\n}\n"
    assert partition(text, 8) == [text]


def test_workers_compile_what_one_process_does() -> None:
    texts = partition(text_of_many(), 5)
    with Workers(2) as workers:
        assert workers.count == 2
        objects = workers.translate(texts, "host", "")
    assert objects == translate_here(texts, "host", "")
    assert run(objects) == WANTED
    assert workers.count == 0


def is_running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_no_process_stays_behind() -> None:
    with Workers(2) as workers:
        processes = [worker.process.pid for worker in workers._workers]
        assert all(map(is_running, processes))
    assert not any(map(is_running, processes)), "a process or a zombie is left"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(3)", "ended with status"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status"),
        ("import time; time.sleep(60)", "did not answer within 0.5 seconds"),
        ("print('no JSON', flush=True); import time; time.sleep(60)", "ended with status"),
        ("import sys; sys.stdin.buffer.readline(); print('{}', flush=True)", "ended with status"),
    ],
)
def test_a_worker_that_fails_is_replaced_by_this_process(program: str, why: str) -> None:
    texts = partition(text_of_many(), 3)
    started = time.monotonic()
    with Workers(2, seconds=0.5, command=(sys.executable, "-c", program)) as workers:
        processes = [worker.process.pid for worker in workers._workers]
        with pytest.warns(RuntimeWarning, match=why):
            objects = workers.translate(texts, "host", "")
    assert run(objects) == WANTED
    assert time.monotonic() - started < 30
    assert not any(map(is_running, processes))


def test_a_command_that_cannot_be_started() -> None:
    with (
        pytest.warns(RuntimeWarning, match="cannot be started"),
        Workers(2, command=("/no/such/program",)) as workers,
    ):
        assert workers.count == 0
    assert run(workers.translate([text_of_many()], "host", "")) == WANTED


def test_what_llvm_refuses_is_refused_as_in_one_process() -> None:
    with Workers(1) as workers:
        with pytest.raises(RuntimeError, match="parsing error"):
            workers.translate(["define nothing"], "host", "")
        # The worker lives on.
        assert len(workers.translate(["define i32 @f() {\n  ret i32 1\n}\n"], "host", "")) == 1


def test_the_flag_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSECT_WORKERS", "3")
    assert default_count() == 3
    monkeypatch.setenv("TRANSECT_WORKERS", "0")
    assert default_count() == 0
    monkeypatch.delenv("TRANSECT_WORKERS")
    assert 1 <= default_count() <= 16
    assert default_count() <= flags.num_threads()


def large_model() -> onnx.ModelProto:
    """Many small kernels that differ, too many to be worth one process."""
    g = Graph()
    value = g.input("x", ["n", 8])
    for number in range(1, 13):
        power = g.op("Pow", value, g.constant(1 + number / 8, np.float32))
        total = g.op("ReduceSum", power, g.constant([1], np.int64))
        value = g.op("Div", power, total)
    g.output(value)
    return g.model()


def test_a_large_model_is_the_same_with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.abs(np.random.default_rng(0).standard_normal((5, 8), np.float32)) + 0.1
    results: list[np.ndarray] = []
    for count in ("0", "2"):
        monkeypatch.setenv("TRANSECT_WORKERS", count)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results.append(transect.compile(large_model(), cache=False)(x))
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], expected(large_model(), {"x": x})[0], rtol=1e-4)
