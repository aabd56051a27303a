"""What ONNX's own schemas say of a node, above all the functions that define it by other operators,
and the functions of the model.

How a body is put in place of its call is in `graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference

from transect.frontend.onnx.weights import Array
from transect.ir.expr import as_int
from transect.ir.types import TensorType, Type

FunctionKey = tuple[str, str, str]
"""Domain, name, overload."""


def domain_of(node: onnx.NodeProto) -> str:
    """The domain of an operator, ONNX's own spelled out."""
    return node.domain or "ai.onnx"


def model_functions(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """The functions that a model brings with it."""
    return {(item.domain or "ai.onnx", item.name, item.overload): item for item in model.functions}


def schema_of(node: onnx.NodeProto, opset: int) -> Any:
    """The definition of an operator at a version of its domain, None if the installed onnx has
    none: an OpSchema, whose stubs do not know of functions."""
    return _schema(domain_of(node), node.op_type, opset)


@cache
def _schema(domain: str, op_type: str, opset: int) -> Any:
    name = "" if domain == "ai.onnx" else domain
    if not onnx.defs.has(op_type, name):
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, name)
    except onnx.defs.SchemaError:
        return None


def attribute_kinds(node: onnx.NodeProto, opset: int) -> Mapping[str, int] | None:
    """The kind that each attribute of an operator must have, None if it is not known."""
    schema = schema_of(node, opset)
    if schema is None:
        return None
    return {name: int(item.type) for name, item in schema.attributes.items()}


def most_operands(node: onnx.NodeProto, opset: int) -> int | None:
    """How many operands an operator may have, None if it is not known."""
    schema = schema_of(node, opset)
    return None if schema is None else int(schema.max_input)


def fixed_body(node: onnx.NodeProto, opset: int) -> onnx.FunctionProto | None:
    """The body that the schema has for a node whatever its operands are, None if there is none."""
    schema = schema_of(node, opset)
    if schema is None or not schema.has_function:
        return None
    version = _version(schema.function_opset_versions, opset)
    return onnx.FunctionProto.FromString(schema.get_function_with_opset_version(version))


def has_typed_body(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the schema makes a body for a node once its operands' types are known."""
    schema = schema_of(node, opset)
    return schema is not None and schema.has_context_dependent_function


def typed_body(
    node: onnx.NodeProto, opset: int, types: Callable[[], Sequence[Type | None]]
) -> onnx.FunctionProto | None:
    """The body that the schema makes for a node with operands of these types, if it can."""
    schema = schema_of(node, opset)
    if schema is None or not schema.has_context_dependent_function:
        return None
    version = _version(schema.context_dependent_function_opset_versions, opset)
    described = [_type_proto(kind).SerializeToString() for kind in types()]
    data = schema.get_context_dependent_function_with_opset_version(
        version, node.SerializeToString(), described
    )
    return onnx.FunctionProto.FromString(data) if data else None


def objection(
    node: onnx.NodeProto, opset: int, types: Sequence[Type | None], values: Mapping[str, Array]
) -> str | None:
    """What onnx finds wrong with a node whose operands have these types, and where they are known
    these values; None if it finds nothing. It sees nothing of subgraphs."""
    if any(item.HasField("g") or item.graphs for item in node.attribute):
        return None
    inputs = {
        name: onnx.ValueInfoProto(name=name, type=_type_proto(kind))
        for name, kind in zip(node.input, types, strict=True)
        if name and name not in values
    }
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in values.items()]
    graph = onnx.helper.make_graph([node], "node", [*inputs.values()], [], weights)
    versions = [onnx.helper.make_opsetid(node.domain, opset)]
    try:
        model = onnx.helper.make_model(graph, opset_imports=versions)
        onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        return str(error).strip().partition("\n")[0]
    return None


def default_attributes(
    node: onnx.NodeProto, function: onnx.FunctionProto, opset: int
) -> dict[str, onnx.AttributeProto]:
    """What a function's attributes are where a call leaves them out."""
    found = {item.name: item for item in function.attribute_proto}
    schema = schema_of(node, opset)
    if schema is not None:
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                found[name] = attribute.default_value
    return found


def versions_of(function: onnx.FunctionProto, around: Mapping[str, int]) -> Mapping[str, int]:
    """The versions of the operators in a function's body."""
    return {**around, **{item.domain or "ai.onnx": item.version for item in function.opset_import}}


def _version(known: Sequence[int], opset: int) -> int:
    """The newest version that `opset` reaches, or the oldest there is: a body states the versions
    of its own operators."""
    return max((version for version in known if version <= opset), default=min(known))


def _type_proto(kind: Type | None) -> onnx.TypeProto:
    made = onnx.TypeProto()
    if isinstance(kind, TensorType) and kind.dtype is not None:
        made.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(kind.dtype.numpy)
        if kind.shape is not None:
            made.tensor_type.shape.SetInParent()
            for dim in kind.shape:
                number = as_int(dim)
                entry = made.tensor_type.shape.dim.add()
                if number is not None:
                    entry.dim_value = number
    return made
