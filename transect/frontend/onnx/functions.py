"""Operators that are defined by other operators: functions of the model, and of ONNX's own schemas.

How a body is put in place of its call is in `graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import onnx
import onnx.defs

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


def attribute_kinds(node: onnx.NodeProto, opset: int) -> Mapping[str, int]:
    """The kind that each attribute of an operator must have, as far as the operator is known."""
    schema = schema_of(node, opset)
    if schema is None:
        return {}
    return {name: int(item.type) for name, item in schema.attributes.items()}


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
