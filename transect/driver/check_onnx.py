"""An ONNX model as `check` sees it: its tensors by name, and those who can run it.

ONNX Runtime is optional; `onnx.reference`, which `onnx` brings, runs single nodes in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from transect.driver.check_graph import NamedValue
from transect.support import flags
from transect.support.errors import InputError
from transect.support.span import Layer

Array = np.ndarray[Any, Any]

_FOLDED = 1024
"""Integer operands of a node run alone are constants up to this size: they may be shapes."""


class OnnxModel:
    """An ONNX model: the outputs of its nodes are its values."""

    def __init__(self, model: Any) -> None:
        """model: a path or an onnx.ModelProto, which is not changed."""
        self.proto = onnx.ModelProto()
        if isinstance(model, str | Path):
            path = Path(model)
            if not path.is_file():
                raise InputError(f"no model at {path}")
            self.proto = onnx.load(str(path))  # pyright: ignore[reportUnknownMemberType] (PathLike of anything)
            self.title = path.name
        else:
            self.proto.CopyFrom(model)
            self.title = model.graph.name or "the model"
        graph = self.proto.graph
        self._outputs = list(graph.output)
        weights = {item.name for item in graph.initializer}
        self.inputs = tuple(item.name for item in graph.input if item.name not in weights)
        self.outputs = tuple(item.name for item in graph.output)
        self._nodes = {
            name: node
            for node in graph.node
            if node.op_type != "Constant"
            for name in node.output
            if name
        }
        self.values = tuple(
            NamedValue(name, node.name or name, node.op_type, (self._layer(node),))
            for name, node in self._nodes.items()
        )
        self.quantized = any("Quantize" in n.op_type or "QLinear" in n.op_type for n in graph.node)

    def _layer(self, node: onnx.NodeProto) -> Layer:
        return Layer(self.title, node.name or next(iter(node.output), ""), node.op_type)

    def variant(self, names: Sequence[str]) -> onnx.ModelProto:
        """The model with these values as its outputs; the same object every time."""
        known = {item.name: item for item in self._outputs}
        outputs = self.proto.graph.output
        del outputs[:]
        for name in names:
            outputs.append(known.get(name) or onnx.helper.make_empty_tensor_value_info(name))
        return self.proto

    def initializer(self, name: str) -> Array | None:
        """The weight or constant of this name, if there is one."""
        for item in self.proto.graph.initializer:
            if item.name == name:
                return numpy_helper.to_array(item)
        for node in self.proto.graph.node:
            if node.op_type == "Constant" and name in node.output:
                return run_in_reference(self._one(node, {}), {})[0]
        return None

    def operands(self, name: str, known: Mapping[str, Array]) -> dict[str, Array] | None:
        """What the node of a value reads, subgraphs included; None if not all of it is known."""
        found: dict[str, Array] = {}
        for operand in _read_by(self._nodes[name]):
            value = known.get(operand)
            if value is None:
                value = self.initializer(operand)
            if value is None:
                return None
            found[operand] = value
        return found

    def alone(self, name: str, operands: Mapping[str, Array]) -> onnx.ModelProto:
        """A model of the node of a value alone. Its small integer operands are constants."""
        return self._one(self._nodes[name], operands, [name])

    def _one(
        self, node: onnx.NodeProto, operands: Mapping[str, Array], wanted: Sequence[str] = ()
    ) -> onnx.ModelProto:
        helper = onnx.helper
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in operands.items()
            if not is_folded(array)
        ]
        constants = [
            numpy_helper.from_array(array, name)
            for name, array in operands.items()
            if is_folded(array)
        ]
        names = wanted or [name for name in node.output if name]
        outputs = [helper.make_empty_tensor_value_info(name) for name in names]
        graph = helper.make_graph([node], self.title, inputs, outputs, constants)
        return helper.make_model(
            graph,
            opset_imports=self.proto.opset_import,
            functions=self.proto.functions,
            ir_version=self.proto.ir_version,
        )


def is_folded(array: Array) -> bool:
    """Whether an operand of a node run alone becomes a constant."""
    return array.dtype.kind in "iub" and array.size <= _FOLDED


def widened(array: Array) -> Array:
    """Floats as float64, everything else as it is."""
    return array.astype(np.float64) if array.dtype.kind not in "biucOSU" else array


def in_float64(model: onnx.ModelProto, operands: Mapping[str, Array]) -> Array | None:
    """The first output of a node alone, computed in float64; None if onnx.reference cannot."""
    wide = {name: widened(array) for name, array in operands.items() if not is_folded(array)}
    try:
        found = run_in_reference(model, wide)
    except InputError:
        return None
    return np.asarray(found[0])


def outputs_in_float64(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array] | None:
    """The outputs of a whole model computed in float64; None if onnx.reference cannot."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    try:
        found = run_in_reference(wide, {name: widened(array) for name, array in feeds.items()})
    except InputError:
        return None
    return [np.asarray(item) for item in found]


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _widen(graph: onnx.GraphProto) -> None:
    """Make the floats of a graph float64: weights, constants, and what is cast to."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            elif attribute.name in ("to", "dtype", "output_dtype") and attribute.i in _FLOATS:
                attribute.i = onnx.TensorProto.DOUBLE
        for inner in _subgraphs(node):
            _widen(inner)
    for tensor in tensors:
        if tensor.data_type in _FLOATS:
            array = widened(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def has_runtime() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec("onnxruntime") is not None


def run_in_runtime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Any]:
    """The outputs of a model from ONNX Runtime, its optimizations off.

    Raises InputError, with what it says, if it cannot.
    """
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = flags.num_threads()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, dict(feeds)))
    except Exception as error:  # noqa: BLE001 (its exception classes have no common base)
        first = str(error).strip().splitlines()[:1]
        raise InputError(f"ONNX Runtime cannot run the model: {' '.join(first)}") from None


def run_in_reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Any]:
    """The outputs of a model from onnx.reference. Raises InputError if it cannot."""
    try:
        evaluator: Any = ReferenceEvaluator(model)
        return list(evaluator.run(None, dict(feeds)))
    except Exception as error:  # noqa: BLE001 (operators raise what they like)
        raise InputError(f"onnx.reference cannot run the model: {error}") from None


def _read_by(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads, those that its subgraphs take from outside included."""
    names = dict.fromkeys(name for name in node.input if name)
    for graph in _subgraphs(node):
        inside = {item.name for item in graph.input} | {item.name for item in graph.initializer}
        for inner in graph.node:
            names.update(dict.fromkeys(n for n in _read_by(inner) if n not in inside))
            inside.update(inner.output)
        names.update(dict.fromkeys(o.name for o in graph.output if o.name not in inside))
    return list(names)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
