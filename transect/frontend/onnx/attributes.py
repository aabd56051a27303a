"""The attributes of a node as Python values, those that refer to a function's included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from transect.frontend.onnx.weights import Array, Weights

Given = Mapping[str, onnx.AttributeProto]
"""What the call of a function gives its attributes."""

_KIND = onnx.AttributeProto


def resolved(node: onnx.NodeProto, given: Given) -> dict[str, onnx.AttributeProto]:
    """A node's attributes by name. One that refers to an attribute of the function around it is
    what the call gives, and is left out where the call leaves it out."""
    found: dict[str, onnx.AttributeProto] = {}
    for item in node.attribute:
        actual = given.get(item.ref_attr_name) if item.ref_attr_name else item
        if actual is not None:
            found[item.name] = actual
    return found


def with_attributes(node: onnx.NodeProto, attributes: Given) -> onnx.NodeProto:
    """A node with these attributes in place of its own."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    del made.attribute[:]
    for name, item in attributes.items():
        made.attribute.add().CopyFrom(item)
        made.attribute[-1].name = name
    return made


def plain(attributes: Given, weights: Weights) -> dict[str, Any]:
    """Attributes as Python values: numbers, strings, arrays, graphs, and lists of them."""
    return {name: _READERS[item.type](item, weights) for name, item in attributes.items()}


def kind_name(kind: int) -> str:
    """What ONNX calls a kind of attributes."""
    names = {number: name for name, number in onnx.AttributeProto.AttributeType.items()}
    return names.get(kind, str(kind))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _tensor(tensor: onnx.TensorProto, weights: Weights) -> Array:
    return weights.array(tensor, f"the constant {tensor.name!r}")


_READERS: dict[int, Callable[[onnx.AttributeProto, Weights], Any]] = {
    _KIND.FLOAT: lambda item, _: item.f,
    _KIND.INT: lambda item, _: item.i,
    _KIND.STRING: lambda item, _: _text(item.s),
    _KIND.TENSOR: lambda item, weights: _tensor(item.t, weights),
    _KIND.GRAPH: lambda item, _: item.g,
    _KIND.SPARSE_TENSOR: lambda item, weights: weights.dense(item.sparse_tensor, "a constant"),
    _KIND.TYPE_PROTO: lambda item, _: item.tp,
    _KIND.FLOATS: lambda item, _: list(item.floats),
    _KIND.INTS: lambda item, _: list(item.ints),
    _KIND.STRINGS: lambda item, _: [_text(text) for text in item.strings],
    _KIND.TENSORS: lambda item, weights: [_tensor(tensor, weights) for tensor in item.tensors],
    _KIND.GRAPHS: lambda item, _: list(item.graphs),
    _KIND.SPARSE_TENSORS: lambda item, weights: [
        weights.dense(tensor, "a constant") for tensor in item.sparse_tensors
    ],
    _KIND.TYPE_PROTOS: lambda item, _: list(item.type_protos),
}
