"""Every ONNX operator that is covered, compiled, against ONNX Runtime: static and dynamic shapes.

The cases of a family share a model, because compiling one is quicker than compiling each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import transect
from tests.frontend.cases import FAMILIES, Case
from tests.frontend.onnx_models import Graph, expected
from transect.frontend.onnx.operators import CONVERTERS

SIZES = {"n": 3, "m": 5, "k": 6, "w": 8}
OTHER_SIZES = [{"n": 1, "m": 2, "k": 1, "w": 4}, {"n": 17, "m": 33, "k": 9, "w": 21}]


def joined(
    cases: list[Case], dynamic: bool, opset: int = 17, sizes: Mapping[str, int] = SIZES
) -> tuple[onnx.ModelProto, list[str]]:
    """A model of all the cases, and for each output the case that it belongs to."""
    g = Graph(opset)
    owners: list[str] = []
    for number, item in enumerate(cases):
        names = [
            g.input(f"x{number}_{i}", [d if dynamic else sizes.get(str(d), d) for d in dims], dtype)
            for i, (dims, dtype, _) in enumerate(item.inputs)
        ]
        results = item.build(g, *names)
        # A result of its own, because a model may not return its input.
        for result in results if isinstance(results, tuple) else (results,):
            g.output(g.op("Identity", result))
            owners.append(item.name)
    return g.model(), owners


def values(cases: list[Case], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Random inputs of the model of these cases."""
    random = np.random.default_rng(len(cases))
    found: dict[str, np.ndarray] = {}
    for number, item in enumerate(cases):
        for i, (dims, dtype, (low, high)) in enumerate(item.inputs):
            shape = tuple(sizes.get(d, d) for d in dims)
            drawn: Any = (
                random.uniform(low, high, shape)
                if np.dtype(dtype).kind == "f"
                else random.integers(int(low), int(high), shape)
            )
            found[f"x{number}_{i}"] = np.asarray(drawn, dtype)
    return found


def check(cases: list[Case], dynamic: bool, opset: int = 17) -> None:
    proto, owners = joined(cases, dynamic, opset)
    model = transect.compile(proto, cache=False)
    for sizes in [SIZES, *(OTHER_SIZES if dynamic else [])]:
        inputs = values(cases, sizes)
        results = model(**inputs)
        results = results if isinstance(results, tuple) else (results,)
        wanted = expected(proto, inputs)
        assert len(results) == len(wanted) == len(owners)
        for owner, ours, theirs in zip(owners, results, wanted, strict=True):
            assert ours.dtype == theirs.dtype, owner
            assert ours.shape == theirs.shape, owner
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5, err_msg=owner)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, dynamic: bool) -> None:
    check(list(FAMILIES[family]()), dynamic)


def test_no_operator_is_without_a_case() -> None:
    """Each is named by a test of this folder."""
    named = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    converters = {kind for table in CONVERTERS.values() for kind in table}
    assert not sorted(kind for kind in converters if f'"{kind}"' not in named)
