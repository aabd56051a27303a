"""The cache among processes: compiles that race, that are killed, and what they share."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import pytest

import transect
from tests.driver.programs import small_magika, small_magika_inputs
from tests.frontend.onnx_models import Graph, expected
from transect.driver import Cache
from transect.runtime import file_of

T = TypeVar("T")

COMPILE = """
import sys, time
from pathlib import Path
import numpy as np
import transect
print("ready", flush=True)
sys.stdin.readline()
model = transect.compile(sys.argv[1], cache=Path(sys.argv[2]))
print("compiled", flush=True)
np.save(sys.argv[3], model(np.load(sys.argv[4])))
"""


def start(file: Path, folder: Path, number: int) -> subprocess.Popen[str]:
    """A process that compiles `file` when it is told to, and leaves its result in `folder`."""
    arguments = [file, folder / "cache", folder / f"out{number}.npy", folder / "in.npy"]
    return subprocess.Popen(
        [sys.executable, "-c", COMPILE, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_magika(), str(path))
    np.save(tmp_path / "in.npy", small_magika_inputs(3)["bytes"])
    return path


def test_processes_that_compile_one_model_at_once(file: Path, tmp_path: Path) -> None:
    processes = [start(file, tmp_path, number) for number in range(3)]
    try:
        assert [hear(process) for process in processes] == ["ready\n"] * 3
        for process in processes:
            say(process)
        for process in processes:
            assert hear(process) == "compiled\n"
            assert process.wait(60) == 0
    finally:
        for process in processes:
            end(process)
    wanted = expected(small_magika(), small_magika_inputs(3))[0]
    for number in range(3):
        np.testing.assert_allclose(np.load(tmp_path / f"out{number}.npy"), wanted, rtol=1e-4)
    assert len(Cache(tmp_path / "cache").entries()) == 1


def test_a_compile_killed_at_any_point_leaves_a_cache_that_works(
    file: Path, tmp_path: Path
) -> None:
    seen_alive = 0
    for number, delay in enumerate((0.05, 0.3, 0.8, 1.6)):
        process = start(file, tmp_path, number)
        try:
            assert hear(process) == "ready\n"
            say(process)
            time.sleep(delay)
            seen_alive += process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
        finally:
            end(process)
    assert seen_alive, "nothing was killed"
    inputs = small_magika_inputs(3)
    result = transect.compile(file, cache=tmp_path / "cache")(**inputs)
    np.testing.assert_allclose(result, expected(small_magika(), inputs)[0], rtol=1e-4, atol=1e-6)
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(left) == 1, "what killed writers left behind was not removed"


# --- what is shared -----------------------------------------------------------------------------


def weighty() -> onnx.ModelProto:
    """One weight that is used as it is, and one that is large and folded."""
    g = Graph()
    rng = np.random.default_rng(1)
    table = g.constant(rng.standard_normal((20_000, 16)), np.float32)
    rows = g.op("Gather", table, g.input("ids", ["n"], np.int64))
    factor = g.op("Exp", g.constant(rng.standard_normal((600, 600)), np.float32))
    left = g.op("Slice", factor, *(g.constant([v], np.int64) for v in (0, 16, 0)))
    g.output(g.op("MatMul", rows, left))
    return g.model()


def mapped_files() -> set[str]:
    return set(re.findall(r"(/\S+)$", Path("/proc/self/maps").read_text(), re.MULTILINE))


@pytest.mark.parametrize("external", [False, True])
def test_weights_are_mapped_from_the_file_of_the_model(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "weighty.onnx"
    options = {"save_as_external_data": True, "location": "w.bin"} if external else {}
    proto = weighty()
    ids = np.array([0, 19_999, 7])
    wanted = expected(proto, {"ids": ids})[0]
    onnx.save(proto, str(path), **options)
    for _ in range(2):  # compiled, then from the cache
        model = transect.compile(path, cache=tmp_path / "cache")
        np.testing.assert_allclose(model(ids), wanted, rtol=1e-4, atol=1e-4)
        places = [file_of(array) for array in model._artifact.constants if array.nbytes > 1 << 20]
        home = tmp_path / ("w.bin" if external else "weighty.onnx")
        assert [place and place[0] for place in places] == [home]
        assert str(home) in mapped_files()
    (entry,) = Cache(tmp_path / "cache").entries()
    assert entry.metadata["model"] == str(path)
    assert entry.size < 1 << 20, "the table was copied into the cache"


def test_what_was_folded_is_mapped_from_the_cache(tmp_path: Path) -> None:
    g = Graph()
    weight = np.random.default_rng(2).standard_normal((700, 700)).astype(np.float32)
    g.output(g.op("Add", g.input("x", ["n", 700]), g.op("Exp", g.constant(weight, np.float32))))
    path = tmp_path / "folded.onnx"
    onnx.save(g.model(), str(path))
    x = np.zeros((700, 700), np.float32)
    for _ in range(2):
        model = transect.compile(path, cache=tmp_path / "cache")
        np.testing.assert_allclose(model(x), np.exp(weight), rtol=1e-5)
    (entry,) = Cache(tmp_path / "cache").entries()
    assert entry.size > weight.nbytes
    assert any(entry.key in name for name in mapped_files())


def test_the_cache_may_be_cleared_while_a_model_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "weighty.onnx"
    onnx.save(weighty(), str(path))
    ids = np.array([3, 4])
    model = transect.compile(path, cache=tmp_path / "cache")
    wanted = model(ids)
    assert Cache(tmp_path / "cache").clear() > 0
    assert Cache(tmp_path / "cache").entries() == []
    np.testing.assert_array_equal(model(ids), wanted)
    np.testing.assert_array_equal(transect.compile(path, cache=tmp_path / "cache")(ids), wanted)


def test_a_model_that_changes_while_it_is_compiled_is_not_stored(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = sys.modules["transect.driver.compile"]  # the package shows the function of that name
    original = driver.load_model_file

    def touched(model: Path) -> object:
        module = original(model)
        replacement = file.with_suffix(".new")
        replacement.write_bytes(file.read_bytes())
        replacement.replace(file)
        return module

    monkeypatch.setattr(driver, "load_model_file", touched)
    transect.compile(file, cache=tmp_path / "cache")
    assert Cache(tmp_path / "cache").entries() == []


# --- one compile, whatever the sizes and threads ------------------------------------------------


def test_five_sizes_are_one_compile_and_one_entry(file: Path, tmp_path: Path) -> None:
    steps: list[str] = []

    def note(step: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        steps.append(step)

    for batch in (1, 2, 5, 16, 33):
        model = transect.compile(file, cache=tmp_path / "cache", progress=note)
        inputs = small_magika_inputs(batch)
        np.testing.assert_allclose(
            model(**inputs), expected(small_magika(), inputs)[0], rtol=1e-4, atol=1e-6
        )
    assert steps.count("PlanGraph") == 1
    assert steps[0] == "Import"
    assert steps[-1] == "done"
    (entry,) = Cache(tmp_path / "cache").entries()
    before = sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_file())
    for batch in (3, 64):
        model(**small_magika_inputs(batch))
    assert sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_file()) == before
    assert entry.key == before[0].name


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """What `work(number)` gives in threads that begin together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> T:
        barrier.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count), timeout=120))


def test_threads_call_one_model_at_once(file: Path) -> None:
    model = transect.compile(file, cache=False)
    wanted = [model(**small_magika_inputs(number + 1)) for number in range(6)]

    def calls(number: int) -> list[np.ndarray]:
        return [model(**small_magika_inputs(number + 1)) for _ in range(20)]

    for number, results in enumerate(in_threads(6, calls)):
        for result in results:
            np.testing.assert_array_equal(result, wanted[number])


def test_threads_compile_at_once(file: Path, tmp_path: Path) -> None:
    inputs = small_magika_inputs(2)
    wanted = transect.compile(file, cache=False)(**inputs)

    def compiled(number: int) -> np.ndarray:
        folder: Path | bool = tmp_path / "cache" if number % 2 else False
        return transect.compile(file, cache=folder)(**inputs)

    for result in in_threads(4, compiled):
        np.testing.assert_array_equal(result, wanted)
    assert len(Cache(tmp_path / "cache").entries()) == 1
