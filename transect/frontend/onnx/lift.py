"""Models older than the oldest opset that converters know, brought to it by onnx's own converter.

What is wrong with a model otherwise is found in `reader` and `coverage`.
"""

from __future__ import annotations

import onnx
import onnx.checker
from onnx import helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError, infer_shapes
from onnx.version_converter import ConvertError, convert_version

from transect.frontend.onnx.reader import OLDEST_OPSET, is_standard, opset_of
from transect.support.errors import ImportModelError

_FIRST_WITH_OPSETS = 3
"""The version of the file format from which on models say which opset they use."""

_ALONG_AN_AXIS = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "PRelu", "Pow", "Sub", "Xor"}
)


def lifted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with opset OLDEST_OPSET or newer. Raises ImportModelError where it has no form.

    The weights stay out of the conversion, which needs only their types: they may lie in other
    files, and be large.
    """
    opset = opset_of(model)
    if opset >= OLDEST_OPSET:
        return model
    graph = model.graph
    inputs = {item.name for item in graph.input}
    weights = [_type(item) for item in graph.initializer if item.name not in inputs]
    bare = onnx.ModelProto(
        ir_version=max(model.ir_version, _FIRST_WITH_OPSETS),
        opset_import=[item for item in model.opset_import if not is_standard(item.domain)],
        graph=onnx.GraphProto(
            name=graph.name or name,
            node=graph.node,
            input=[*graph.input, *weights],
            output=graph.output,
            value_info=graph.value_info,
        ),
    )
    bare.opset_import.add(domain="", version=opset)
    try:
        inferred = infer_shapes(bare)
        onnx.checker.check_model(inferred)  # pyright: ignore[reportUnknownMemberType]
        _broadcast_from_the_last(inferred.graph)
        made = convert_version(inferred, OLDEST_OPSET)
    except (ValidationError, ConvertError, InferenceError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ImportModelError(
            f"{name} uses opset {opset}, and onnx cannot convert it to {OLDEST_OPSET}: {reason}",
            remedy="export it again with a newer opset",
        ) from error
    added = {item.name for item in weights}
    kept = [item for item in made.graph.input if item.name not in added]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    made.graph.initializer.extend(graph.initializer)
    made.graph.sparse_initializer.extend(graph.sparse_initializer)
    made.functions.extend(model.functions)
    return made


def _type(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)


def _broadcast_from_the_last(graph: onnx.GraphProto) -> None:
    """Give second operands that broadcast along an axis in the middle, as opset 6 has them,
    dimensions of 1 behind: onnx's converter leaves them where they are."""
    infos = [*graph.input, *graph.value_info, *graph.output]
    shapes = {item.name: item.type.tensor_type.shape.dim for item in infos}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(graph.node):
        axis = next((item.i for item in node.attribute if item.name == "axis"), None)
        if node.op_type == "PRelu":
            axis = 1
        if axis is not None and node.op_type in _ALONG_AN_AXIS:
            first, second = (shapes.get(name, ()) for name in node.input)
            behind = len(first) - axis - len(second)
            if len(second) and behind > 0:
                axes = list(range(len(second), len(second) + behind))
                name = f"{node.input[1]}.along.{number}"
                nodes.append(helper.make_node("Unsqueeze", [node.input[1]], [name], axes=axes))
                node.input[1] = name
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
