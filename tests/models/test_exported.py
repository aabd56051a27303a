"""Networks as torch's exporters write them, small: one compile for every size, as ONNX Runtime.

TRANSECT_FUZZ_PLANS=20 answers every choice at random in 20 ways instead of 2.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import transect
from tools.models import ARCHITECTURES, Exporter, Inputs, export, feed
from transect.plan import RandomPolicy

pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

PLANS = int(os.environ.get("TRANSECT_FUZZ_PLANS", "2"))
CASES = [
    (name, exporter, kind)
    for name, architecture in ARCHITECTURES.items()
    for kind in ("static", "dynamic")
    for exporter in (architecture.exporters if kind == "static" else architecture.dynamic_exporters)
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exported models lie."""
    return tmp_path_factory.mktemp("exported")


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_same(
    model: transect.CompiledModel, peer: onnxruntime.InferenceSession, inputs: Inputs
) -> None:
    """The outputs agree, relative to their largest magnitude."""
    names = [item.name for item in peer.get_inputs()]
    given = [inputs[name] for name in names]
    (expected,) = peer.run(None, dict(zip(names, given, strict=True)))
    found = model(*given)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.max(np.abs(found - expected)) <= 1e-4 * max(1.0, float(np.max(np.abs(expected))))


@pytest.mark.parametrize(("name", "exporter", "kind"), CASES)
def test_one_compile_serves_every_size(
    folder: Path, name: str, exporter: Exporter, kind: str
) -> None:
    architecture = ARCHITECTURES[name]
    path = export(architecture, folder, exporter, dynamic=kind == "dynamic", small=True)
    model, peer = transect.compile(path), session(path)
    sizes = architecture.small_sizes if kind == "dynamic" else architecture.small_sizes[:1]
    for seed, dims in enumerate(sizes):
        assert_same(model, peer, feed(architecture, dims, small=True, seed=seed))


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_whatever_is_chosen_the_answers_stay(folder: Path, name: str) -> None:
    architecture = ARCHITECTURES[name]
    exporter = architecture.dynamic_exporters[0]
    path = export(architecture, folder, exporter, dynamic=True, small=True)
    peer = session(path)
    for seed in range(PLANS):
        model = transect.compile(path, policy=RandomPolicy(seed))
        for dims in architecture.small_sizes[:2]:
            assert_same(model, peer, feed(architecture, dims, small=True, seed=seed))
