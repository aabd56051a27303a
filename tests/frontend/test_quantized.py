"""Models that ONNX Runtime's quantizer wrote, at several batch sizes from one compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import transect
from tests.frontend.onnx_models import expected
from tests.frontend.quantized_models import DYNAMIC, MODELS, STATIC, quantized, sample


def output_step(model: onnx.ModelProto) -> float:
    """The scale of the model's output."""
    last = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    assert last.op_type == "DequantizeLinear"
    scale = next(item for item in model.graph.initializer if item.name == last.input[1])
    return float(onnx.numpy_helper.to_array(scale).item())


def steps_apart(name: str, way: str) -> int:
    """How many steps of its scale an output may be from ONNX Runtime's.

    Between the integers of a QDQ model everything is computed in floats. Means of integers, as
    the pools of the convolutional net take, often lie halfway between two steps, where the order of
    additions decides to which side they fall. One step of the logits is up to 16 of the softmax.
    """
    return 20 if name == "conv_net" and way.startswith("qdq") else 1


@pytest.mark.parametrize("way", STATIC)
@pytest.mark.parametrize("name", MODELS)
def test_static(name: str, way: str, tmp_path: Path) -> None:
    """Equal but for sums of floats that lie between two steps."""
    proto = quantized(name, way, tmp_path)
    model = transect.compile(proto, cache=False)
    step = output_step(proto)
    for batch in (1, 2, 7):
        inputs = sample(name, batch, 9)
        (want,) = expected(proto, inputs, optimize=False)
        got = model(**inputs)
        np.testing.assert_allclose(got, want, rtol=0, atol=step * (steps_apart(name, way) + 0.01))
        if steps_apart(name, way) == 1:
            assert np.mean(got != want) < 0.02


@pytest.mark.parametrize("way", DYNAMIC)
@pytest.mark.parametrize("name", MODELS)
def test_dynamic(name: str, way: str, tmp_path: Path) -> None:
    proto = quantized(name, way, tmp_path)
    model = transect.compile(proto, cache=False)
    for batch in (1, 2, 7):
        inputs = sample(name, batch, 9)
        (want,) = expected(proto, inputs, optimize=False)
        np.testing.assert_allclose(model(**inputs), want, rtol=1e-4, atol=1e-5)
