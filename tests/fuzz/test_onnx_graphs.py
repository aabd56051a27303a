"""Random ONNX graphs agree with ONNX Runtime. TRANSECT_FUZZ_EXAMPLES=10000 compares more of them;
`python -m tests.fuzz.onnx_compare` searches for hours and cuts down what it finds."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.onnx_compare import difference
from tests.fuzz.onnx_graphs import random_graph

EXAMPLES = int(os.environ.get("TRANSECT_FUZZ_EXAMPLES", "300"))
CHUNK = 20


@pytest.mark.parametrize("first", range(0, EXAMPLES, CHUNK))
def test_agrees_with_onnx_runtime(first: int) -> None:
    for seed in range(first, min(first + CHUNK, EXAMPLES)):
        graph = random_graph(seed)
        assert difference(graph.model(), graph.feeds()) is None, f"seed {seed}"


def test_a_graph_comes_from_its_seed() -> None:
    first, second = random_graph(7), random_graph(7)
    assert first.model() == second.model()
