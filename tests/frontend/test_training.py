"""Steps of optimizers, against the reference implementation of onnx."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import transect
from transect.support.errors import ImportModelError

DOMAIN = "ai.onnx.preview.training"
NORM = {"norm_coefficient": 0.25}
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("Adagrad", 1, {**NORM, "decay_factor": 0.125, "epsilon": 1e-3}),
    ("Adam", 2, {**NORM, "alpha": 0.75, "beta": 0.5, "norm_coefficient_post": 0.125}),
    ("Adam", 2, {}),
    ("Momentum", 1, {**NORM, "alpha": 0.75, "beta": 0.5, "mode": "standard"}),
    ("Momentum", 1, {**NORM, "alpha": 0.75, "beta": 0.5, "mode": "nesterov"}),
]


def training(kind: str, names: list[str], results: list[str], attributes: dict[str, Any]) -> Any:
    """A model of one step."""
    infos = [
        helper.make_tensor_value_info("r", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("t", TensorProto.INT64, []),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in names),
    ]
    step = helper.make_node(kind, ["r", "t", *names], results, domain=DOMAIN, **attributes)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in results]
    graph = helper.make_graph([step], "step", infos, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("tensors", [1, 2])
@pytest.mark.parametrize(("kind", "states", "attributes"), CASES)
def test_a_step(kind: str, states: int, attributes: dict[str, Any], tensors: int) -> None:
    names = [f"v{number}" for number in range(tensors * (states + 2))]
    results = [f"y{number}" for number in range(tensors * (states + 1))]
    proto = training(kind, names, results, attributes)
    model, reference = transect.compile(proto, cache=False), ReferenceEvaluator(proto)
    for count in (0, 3):
        random = np.random.default_rng(count)
        values = {name: random.uniform(0.5, 2, 5).astype(np.float32) for name in names}
        inputs = {"r": np.float32(0.5), "t": np.int64(count), **values}
        inputs = {name: np.asarray(value) for name, value in inputs.items()}
        for ours, theirs in zip(model(**inputs), reference.run(None, inputs), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_state_that_is_missing() -> None:
    proto = training("Adam", ["x", "g", "v"], ["y"], {})
    with pytest.raises(ImportModelError, match="3 tensors, not a multiple of 4"):
        transect.compile(proto, cache=False)
