"""Parallel loops: every iteration runs once, errors reach the caller, both thread pools work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tvm_ffi

from tests.codegen.support import compiled
from transect.ir.dtype import HANDLE, VOID
from transect.ir.expr import IntImm, Var
from transect.script import tir as T
from transect.tir.buffer import buffer
from transect.tir.function import PrimFunc
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import AssertStmt, BufferStore, Evaluate, For, seq


@T.prim_func
def squares(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n", "m"), "float32")):
    for i in T.parallel(n):
        for j in range(m):
            with T.block("y"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = x[vi, vj] * x[vi, vj] + T.Cast("float32", vi)


@T.prim_func
def nested(y: T.Buffer(("n", "n"), "int64")):
    for i in T.parallel(n):
        for j in T.parallel(n):
            with T.block("y"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = y[vi, vj] + vi * n + vj


@T.prim_func
def with_scratch(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n", "m"), "float32")):
    for i in T.parallel(n):
        with T.block("row"):
            vi = T.axis.spatial(n, i)
            row = T.alloc_buffer((m,), "float32")
            for j in range(m):
                with T.block("fill"):
                    vj = T.axis.spatial(m, j)
                    row[vj] = x[vi, vj] + T.float32(1)
            for j in range(m):
                with T.block("reverse"):
                    vj = T.axis.spatial(m, j)
                    y[vi, vj] = row[m - 1 - vj]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 1000), (1000, 64), (0, 4), (4, 0)])
def test_every_iteration_runs_once(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).random(shape, np.float32)
    y = np.full(shape, np.nan, np.float32)
    compiled(squares)(x, y)
    np.testing.assert_allclose(y, x * x + np.arange(shape[0], dtype=np.float32)[:, None], rtol=1e-6)


def test_nested_loops_run_serially_inside() -> None:
    y = np.zeros((300, 300), np.int64)
    compiled(nested)(y)
    np.testing.assert_array_equal(y.ravel(), np.arange(90000))


def test_each_thread_has_its_own_workspace() -> None:
    x = np.random.default_rng(1).random((200, 5000), np.float32)
    y = np.zeros_like(x)
    f = compiled(with_scratch)
    for _ in range(3):
        f(x, y)
        np.testing.assert_array_equal(y, (x + 1)[:, ::-1])


def test_callers_on_several_threads_do_not_disturb_each_other() -> None:
    f = compiled(with_scratch)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).random((50, 4000), np.float32)
        y = np.zeros_like(x)
        try:
            for _ in range(10):
                f(x, y)
                np.testing.assert_array_equal(y, (x + 1)[:, ::-1])
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def held_up(threads: str) -> None:
    """The first iteration waits for all that another thread can run meanwhile."""
    count = 100
    others, ran = threading.Event(), []

    def step(i: int) -> None:
        ran.append(i)
        if len(ran) == count - most:
            others.set()
        if i == 0:
            assert others.wait(60)

    # Iterations of the piece that the first one is in.
    most = max(1, count // (8 * int(threads)))
    tvm_ffi.register_global_func("test.parallel.step", step, override=True)
    i, n = Var("i"), Var("n")
    call = Evaluate(INTRINSICS["call_packed"]("test.parallel.step", i, dtype=VOID))
    compiled(PrimFunc((n,), {}, For(i, IntImm(0), n, "parallel", call)))(count)
    assert sorted(ran) == list(range(count))


def failing_loop() -> PrimFunc:
    """for i in parallel(n): fail if x[i] is negative; y[i, :] = x[i]."""
    n, i, j = Var("n"), Var("i"), Var("j")
    x, y = buffer("x", (n,), "int64"), buffer("y", (n, 1000), "int64")
    check = AssertStmt(x[i] >= 0, ("x[", i, "] is ", x[i]), "IndexError")
    fill = For(j, IntImm(0), IntImm(1000), "serial", BufferStore(y, x[i], (i, j)))
    loop = For(i, IntImm(0), n, "parallel", seq(check, fill))
    a, b = Var("a", HANDLE), Var("b", HANDLE)
    return PrimFunc((a, b), {a: x, b: y}, loop)


def test_an_assert_inside_fails_the_call_after_the_join() -> None:
    f = compiled(failing_loop())
    x, y = np.arange(500), np.zeros((500, 1000), np.int64)
    f(x, y)
    np.testing.assert_array_equal(y[:, 999], x)
    for place in (0, 250, 499):
        bad = x.copy()
        bad[place] = -7
        with pytest.raises(IndexError, match=rf"x\[{place}\] is -7"):
            f(bad, y)
    f(x, y)


_CHILD = """
import os
if os.environ["TRANSECT_OPENMP"] == "1":
    import torch  # It brings libgomp, which is shared then.
import numpy as np
from tests.codegen.test_parallel import failing_loop, held_up, nested, squares
from tests.codegen.support import compiled
f = compiled(squares)
x = np.random.default_rng(0).random((500, 500), np.float32)
for _ in range(30):
    y = np.zeros_like(x)
    f(x, y)
    assert np.allclose(y, x * x + np.arange(500, dtype=np.float32)[:, None])
g = compiled(nested)
z = np.zeros((300, 300), np.int64)
g(z)
assert (z.ravel() == np.arange(90000)).all()
h = compiled(failing_loop())
a = np.arange(500)
a[77] = -1
try:
    h(a, np.zeros((500, 1000), np.int64))
except IndexError as error:
    assert "x[77] is -1" in str(error)
else:
    raise SystemExit("no error")
del f, g, h
if os.environ["TRANSECT_OPENMP"] == "1":
    assert any("libgomp" in line for line in open("/proc/self/maps"))
threads = os.environ["TRANSECT_NUM_THREADS"]
if threads != "1":
    held_up(threads)
print("done")
"""


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("openmp", ["0", "1"])
def test_both_pools_with_any_number_of_threads(openmp: str, threads: str) -> None:
    environment = {**os.environ, "TRANSECT_OPENMP": openmp, "TRANSECT_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr


def test_errors_of_packed_calls_inside_keep_their_class() -> None:
    def fail(i: int) -> None:
        if i == 3:
            raise KeyError("from Python")

    tvm_ffi.register_global_func("test.parallel.fail", fail, override=True)
    i, n = Var("i"), Var("n")
    call = Evaluate(INTRINSICS["call_packed"]("test.parallel.fail", i, dtype=VOID))
    f = compiled(PrimFunc((n,), {}, For(i, IntImm(0), n, "parallel", call)))
    with pytest.raises(KeyError, match="from Python"):
        f(100000)
    f(3)
