"""Random graph programs: compiled by the whole pipeline, they compute what the interpreter does.

TRANSECT_FUZZ_EXAMPLES=1000 runs more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.relax.graphs import PACKED, Graph, graphs
from transect.driver import compile
from transect.driver.verify import verify_module
from transect.plan import RandomPolicy
from transect.relax.interpret import interpret
from transect.runtime import register_function, remove_function
from transect.runtime.arrays import as_numpy

EXAMPLES = int(os.environ.get("TRANSECT_FUZZ_EXAMPLES", "60"))


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The packed functions that programs call."""
    for name, function in PACKED.items():
        register_function(name, function)
    yield
    for name in PACKED:
        remove_function(name)


def assert_same(got: Any, want: Any, where: str) -> None:
    """The same numbers, and tuples of the same items."""
    if isinstance(want, tuple):
        assert len(got) == len(want)
        for number, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
        return
    a, b = as_numpy(got), as_numpy(want)
    if a is None or b is None:
        assert tuple(got) == tuple(want), where
        return
    assert (a.shape, a.dtype) == (b.shape, b.dtype), where
    if b.dtype.kind != "f":
        np.testing.assert_array_equal(a, b, where)
        return
    scale = np.nanmax(np.abs(np.where(np.isfinite(b), b, 0)), initial=1)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale, err_msg=where)


@given(graphs())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_compiled_agrees_with_interpreted(graph: Graph) -> None:
    verify_module(graph.module)
    model = compile(graph.module, cache=False, policy=RandomPolicy(len(repr(graph))))
    for n in (5, 1, 0):
        wanted, given = graph.arguments(n), graph.arguments(n)
        want = interpret(graph.module, "main", *wanted, packed=PACKED)
        got = model(*given)
        assert_same(got, want, f"n={n}")
        assert_same(tuple(given), tuple(wanted), f"n={n}, the arguments")
