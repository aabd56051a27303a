"""Models as packages carry them: one compile for every size, with the answers of ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import transect
from tools.models import PACKAGED
from transect.plan import RandomPolicy

PLANS = int(os.environ.get("TRANSECT_FUZZ_PLANS", "1"))


@pytest.mark.parametrize("name", list(PACKAGED))
def test_one_compile_serves_every_size(name: str, tmp_path: Path) -> None:
    packaged = PACKAGED[name]
    model = transect.compile(packaged.path, cache=tmp_path)
    peer = onnxruntime.InferenceSession(packaged.path, providers=["CPUExecutionProvider"])
    for seed, dims in enumerate(packaged.sizes):
        inputs = packaged.feed(dims, seed)
        (expected,) = peer.run(None, {packaged.input: inputs})
        found = model(inputs)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert sum(1 for path in tmp_path.rglob("*") if path.is_file()) == 1


@pytest.mark.parametrize("name", list(PACKAGED))
def test_whatever_is_chosen_the_answers_stay(name: str) -> None:
    packaged = PACKAGED[name]
    peer = onnxruntime.InferenceSession(packaged.path, providers=["CPUExecutionProvider"])
    for seed in range(PLANS):
        model = transect.compile(packaged.path, policy=RandomPolicy(seed))
        inputs = packaged.feed(packaged.sizes[seed % len(packaged.sizes)], seed)
        (expected,) = peer.run(None, {packaged.input: inputs})
        np.testing.assert_allclose(model(inputs), expected, rtol=1e-3, atol=1e-4)
