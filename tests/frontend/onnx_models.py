"""Writing small ONNX models, and what ONNX Runtime says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

Dims = Sequence[int | str]


class Graph:
    """An ONNX graph in the making. Values are named by the strings that the methods return."""

    def __init__(self, opset: int = 17) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []

    def input(self, name: str, dims: Dims, dtype: Any = np.float32) -> str:
        """A parameter of the model; a dimension is a number or a name."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A weight."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *operands: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; its result, or a tuple of its results."""
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, operands, names, name=names[0], **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def output(self, *values: str) -> None:
        """Make values results of the model, in order."""
        self.outputs += values

    def model(self) -> onnx.ModelProto:
        """The model, checked by onnx."""
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        made = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8), strict_mode=True
        )
        onnx.checker.check_model(made)
        return made


def expected(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], *, optimize: bool = True
) -> list[np.ndarray]:
    """The outputs that ONNX Runtime computes. optimize: whether it may rewrite the model."""
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))
