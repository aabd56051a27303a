"""LSTM, GRU and RNN against ONNX Runtime: random attributes, one compile for two sizes each."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import transect
from transect.support.errors import ImportModelError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
WITH_ALPHA = ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu")
WITH_BETA = ("Affine", "ScaledTanh", "HardSigmoid")
ACTIVATIONS = (*WITH_ALPHA, "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")


class Case:
    """One node with random attributes, operands and opset."""

    def __init__(self, op: str, seed: int) -> None:
        self.op, self.random = op, np.random.default_rng(seed)
        self.direction = str(self.random.choice(["forward", "reverse", "bidirectional"]))
        self.directions = 2 if self.direction == "bidirectional" else 1
        self.inputs, self.hidden = map(int, self.random.integers(1, 7, 2))
        self.attributes = {"hidden_size": self.hidden, "direction": self.direction}
        self.choose_attributes()
        d, g = self.directions, GATES[op] * self.hidden
        self.weights = {"W": self.array(d, g, self.inputs), "R": self.array(d, g, self.hidden)}
        optional = ["B", "lens", "h0", *(["c0", "P"] if op == "LSTM" else [])]
        self.names = ["X", "W", "R", *(n if self.often(0.5) else "" for n in optional)]
        if "B" in self.names:
            self.weights["B"] = self.array(d, 2 * g)
        if "P" in self.names:
            self.weights["P"] = self.array(d, 3 * self.hidden)

    def often(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def array(self, *shape: int) -> np.ndarray:
        return (0.4 * self.random.standard_normal(shape)).astype(np.float32)

    def choose_attributes(self) -> None:
        if self.often(0.5):
            names = self.random.choice(ACTIVATIONS, FUNCTIONS[self.op] * self.directions)
            self.attributes["activations"] = [str(name) for name in names]
            for what, having in (("alpha", WITH_ALPHA), ("beta", WITH_BETA)):
                values = self.random.uniform(0.1, 1, sum(name in having for name in names))
                if len(values):
                    self.attributes[f"activation_{what}"] = values.tolist()
        if self.often(0.3):
            self.attributes["clip"] = float(self.random.uniform(0.05, 1))
        if self.op == "LSTM" and self.often(0.3):
            self.attributes["input_forget"] = 1
        if self.op == "GRU" and self.often(0.5):
            self.attributes["linear_before_reset"] = 1

    def model(self) -> onnx.ModelProto:
        d, h = self.directions, self.hidden
        dims = {"X": ["s", "b", self.inputs], "lens": ["b"], "h0": [d, "b", h], "c0": [d, "b", h]}
        infos = [
            helper.make_tensor_value_info(
                name, TensorProto.INT32 if name == "lens" else TensorProto.FLOAT, dims[name]
            )
            for name in self.names
            if name in dims
        ]
        outputs = ["Y", "Yh", *(["Yc"] if self.op == "LSTM" else [])]
        if self.often(0.2):
            outputs[0] = ""
        node = helper.make_node(self.op, self.names, outputs, name="node", **self.attributes)
        graph = helper.make_graph(
            [node],
            "graph",
            infos,
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs if o],
            [onnx.numpy_helper.from_array(v, k) for k, v in self.weights.items()],
        )
        opset = int(self.random.choice([7, 11, 14, 17, 22]))
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )

    def feed(self) -> dict[str, np.ndarray]:
        steps, batch = map(int, self.random.integers(1, 7, 2))
        d, h = self.directions, self.hidden
        made = {
            "X": self.array(steps, batch, self.inputs),
            "lens": self.random.integers(1, steps + 1, batch).astype(np.int32),
            "h0": self.array(d, batch, h),
            "c0": self.array(d, batch, h),
        }
        return {name: made[name] for name in self.names if name in made}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("seed", range(4))
def test_random_nodes_agree_with_onnx_runtime(op, seed):
    case = Case(op, seed)
    model = case.model()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    compiled = transect.compile(model, cache=False)
    for _ in range(2):
        feed = case.feed()
        got = compiled(*feed.values())
        got = got if isinstance(got, tuple | list) else [got]
        for expected, result in zip(session.run(None, feed), got, strict=True):
            assert expected.shape == np.asarray(result).shape
            np.testing.assert_allclose(np.asarray(result), expected, rtol=2e-4, atol=2e-5)


def test_an_unknown_activation_is_refused():
    case = Case("RNN", 0)
    case.attributes |= {"activations": ["Sine"] * case.directions}
    with pytest.raises(ImportModelError, match="activations are sine"):
        transect.compile(case.model(), cache=False)
