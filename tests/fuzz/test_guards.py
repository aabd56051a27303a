"""Random ONNX graphs with all memory beside pages that cannot be touched, in other processes.

`python -m tests.fuzz.onnx_compare --guards --count 1000` runs more of them.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest

import transect
from tests.frontend.onnx_models import Graph
from tests.fuzz.guarded import PAGE, Guard, exact_workspaces, guarded

GRAPHS, CHUNK = 30, 10

BEYOND = """
import sys
from tests.fuzz.guarded import Guard
behind = sys.argv[1] == "behind"
block = Guard(behind).block(1000, 8)
import ctypes
place = block.address + 1000 if behind else block.address - 1
print(ctypes.c_char.from_address(place).value)
"""


@pytest.mark.parametrize("side", ["behind", "before"])
def test_a_guard_page_stops_who_touches_it(side: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEYOND, side], capture_output=True, check=False, timeout=60
    )
    assert done.returncode < 0


@pytest.mark.parametrize("behind", [True, False])
def test_what_is_written_beside_an_array_is_seen(behind: bool) -> None:
    guard = Guard(behind)
    array = guard.copy(np.zeros(10, np.uint8))
    end = array.ctypes.data + 10
    assert (end % PAGE == 0) is behind
    assert guard.damage() is None
    array = guard.copy(np.zeros(10, np.uint8))
    ctypes.memset(array.ctypes.data - 1 if behind else array.ctypes.data + 10, 0, 1)
    assert guard.damage() == "written beside blocks of [10] bytes"


def test_workspaces_and_results_of_the_program_are_guarded() -> None:
    g = Graph()
    x = g.input("x", ["n", 3])
    joined = g.op("MatMul", g.op("Softmax", x), g.constant(np.eye(3), np.float32))
    g.output(g.op("NonZero", g.op("CumSum", joined, g.constant(np.array(1)))))
    with exact_workspaces():
        model = transect.compile(g.model(), cache=False)
    guard = Guard(behind=True)
    sizes: list[int] = []
    take = guard.take
    guard.take = lambda alignment, size: sizes.append(size) or take(alignment, size)  # type: ignore[method-assign]
    guard.__post_init__()
    found = guarded(model, guard)(np.ones((5, 3), np.float32))
    assert found.shape == (2, 15)
    assert sizes, "the program took no memory for itself"
    assert guard.damage() is None


@pytest.mark.parametrize("first", range(0, GRAPHS, CHUNK))
def test_random_graphs_stay_within_their_memory(first: int) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.onnx_compare", "--inside"]
    command += ["--guards", "--first", str(first), "--count", str(CHUNK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-3000:]}"
    assert f"count same {CHUNK}" in done.stdout
