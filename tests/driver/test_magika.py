"""magika's model and its small sibling give the scores that ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import transect
from tests.driver.programs import (
    magika_inputs,
    magika_path,
    small_magika,
    small_magika_inputs,
)
from tests.frontend.onnx_models import expected


@pytest.mark.slow
def test_magika() -> None:
    model = transect.compile(magika_path())
    proto = onnx.load(str(magika_path()))
    assert str(model.signature) == (
        "main(bytes: int32 (unk__214, 2048)) -> float32 (unk__214, 214)"
    )
    for batch in (1, 3, 8):
        inputs = magika_inputs(batch)
        scores = model(**inputs)
        (wanted,) = expected(proto, inputs)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
        np.testing.assert_array_equal(scores.argmax(1), wanted.argmax(1))
    assert model(**magika_inputs(0)).shape == (0, 214)


def test_small_magika() -> None:
    model = transect.compile(small_magika())
    for batch in (1, 2, 31):
        inputs = small_magika_inputs(batch)
        (wanted,) = expected(small_magika(), inputs)
        np.testing.assert_allclose(model(**inputs), wanted, atol=1e-6)
    assert model(**small_magika_inputs(0)).shape == (0, 10)


def test_the_sibling_has_every_operator_of_the_model() -> None:
    operators = {node.op_type for node in onnx.load(str(magika_path())).graph.node}
    assert operators == {node.op_type for node in small_magika().graph.node}
