"""Normalisations."""

from __future__ import annotations

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.windows import channel_vector
from transect.ir.dtype import FLOAT32
from transect.ir.expr import IntImm
from transect.relax.expr import Value, constant, tuple_item


def batch_normalization(node: Node) -> Result:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, per channel; in training with the moments of
    the batch, and then the moved averages as well."""
    value = node.value(0)
    rank = len(node.shape(value)) - 2
    scale, bias, mean, variance = (node.value(i) for i in range(1, 5))
    small = node.attribute("epsilon", 1e-5)
    training = node.attribute("training_mode", 0) if node.opset >= 14 else node.outputs > 1
    if training:
        momentum = 1 - node.attribute("momentum", 0.9)
        found = node.emit(
            "nn.batch_norm", value, scale, bias, mean, variance,
            epsilon=small, momentum=momentum, training=True,
        )  # fmt: skip
        return [tuple_item(found, i) for i in range(3)]
    if node.dtype(value) is not node.dtype(variance):
        return _mixed(node, value)
    epsilon = node.scalar(small, variance)
    deviation = node.emit("sqrt", node.emit("add", variance, epsilon))
    factor = node.emit("divide", scale, deviation)
    offset = node.emit("subtract", bias, node.emit("multiply", mean, factor))
    scaled = node.emit("multiply", value, channel_vector(node, factor, rank))
    return node.emit("add", scaled, channel_vector(node, offset, rank))


def _mixed(node: Node, value: Value) -> Value:
    """Batch normalization whose statistics have another dtype than the data, in float32."""
    wide = node.emit("astype", value, dtype=FLOAT32)
    vectors = [node.emit("astype", node.value(i), dtype=FLOAT32) for i in range(1, 5)]
    epsilon = node.attribute("epsilon", 1e-5)
    found = node.emit("nn.batch_norm", wide, *vectors, epsilon=epsilon)
    return node.emit("astype", tuple_item(found, 0), dtype=node.dtype(value))


def instance_normalization(node: Node) -> Result:
    """Normalisation over the spatial dimensions, then scale and bias per channel."""
    return node.emit(
        "nn.instance_norm",
        node.value(0),
        node.value(1),
        node.value(2),
        epsilon=node.attribute("epsilon", 1e-5),
    )


def group_normalization(node: Node) -> Result:
    """Normalisation over groups of channels, then scale and bias per channel; before opset 21 per
    group."""
    value = node.value(0)
    groups = node.attribute("num_groups", 1)
    channels = node.shape(value)[1]
    parameters = [node.value(1), node.value(2)]
    if node.opset < 21:
        per_group = node.simplify(channels // groups)
        for i, parameter in enumerate(parameters):
            column = node.emit("reshape", parameter, node.shape_of([IntImm(groups), IntImm(1)]))
            wide = node.emit("broadcast_to", column, node.shape_of([IntImm(groups), per_group]))
            parameters[i] = node.emit("reshape", wide, node.shape_of([channels]))
    return node.emit(
        "nn.group_norm",
        value,
        *parameters,
        num_groups=groups,
        epsilon=node.attribute("epsilon", 1e-5),
    )


def _fits(node: Node, parameter: Value, value: Value, axis: int) -> bool:
    """Whether a parameter has exactly the dimensions that are normalised."""
    found, wanted = node.shape(parameter), node.shape(value)[axis:]
    return len(found) == len(wanted) and all(
        node.analyzer.can_prove_equal(a, b) for a, b in zip(found, wanted, strict=True)
    )


def layer_normalization(node: Node) -> Result:
    """Normalisation over the dimensions from `axis` on, then scale and bias; the mean and the
    inverse deviation if they are asked for."""
    value = node.value(0)
    rank = len(node.shape(value))
    axis = node.axis(node.attribute("axis", -1), rank)
    axes = tuple(range(axis, rank))
    epsilon = node.attribute("epsilon", 1e-5)
    parameters = [node.value(1), *([node.value(2)] if node.has(2) else [])]
    if all(_fits(node, item, value, axis) for item in parameters):
        result = node.emit(
            "nn.layer_norm", value, *parameters, axes=axes, epsilon=epsilon, center=node.has(2)
        )
    else:
        result = node.emit(
            "nn.layer_norm", value, axes=axes, epsilon=epsilon, center=False, scale=False
        )
        result = node.emit("multiply", result, parameters[0])
        for bias in parameters[1:]:
            result = node.emit("add", result, bias)
    if node.outputs == 1:
        return result
    stash = FLOAT32 if node.attribute("stash_type", 1) == 1 else node.dtype(value)
    wide = value if node.dtype(value) is stash else node.emit("astype", value, dtype=stash)
    mean = node.emit("mean", wide, axis=axes, keepdims=True)
    variance = node.emit("variance", wide, axis=axes, keepdims=True)
    inverse = node.emit("rsqrt", node.emit("add", variance, node.scalar(epsilon, wide)))
    return [result, mean, inverse]


def rms_normalization(node: Node) -> Result:
    """Division by the root mean square over the dimensions from `axis` on, then scale."""
    value, scale = node.value(0), node.value(1)
    rank = len(node.shape(value))
    axis = node.axis(node.attribute("axis", -1), rank)
    epsilon = node.attribute("epsilon", 1e-5)
    axes = tuple(range(axis, rank))
    if _fits(node, scale, value, axis):
        return node.emit("nn.rms_norm", value, scale, axes=axes, epsilon=epsilon)
    dims = node.shape_of(node.shape(value)[axis:])
    ones = node.emit("ones", dims, dtype=node.dtype(value))
    normal = node.emit("nn.rms_norm", value, ones, axes=axes, epsilon=epsilon)
    return node.emit("multiply", normal, scale)


def lp_normalization(node: Node) -> Result:
    """Division by the norm along one axis; 0 where that is 0."""
    value = node.value(0)
    axis = node.axis(node.attribute("axis", -1), len(node.shape(value)))
    if node.attribute("p", 2) == 1:
        norm = node.emit("sum", node.emit("abs", value), axis=(axis,), keepdims=True)
    else:
        squares = node.emit("multiply", value, value)
        norm = node.emit("sqrt", node.emit("sum", squares, axis=(axis,), keepdims=True))
    zero = constant(np.asarray(0), node.dtype(value))
    quotient = node.emit("divide", value, norm)
    return node.emit("where", node.emit("equal", norm, zero), zero, quotient)


def local_response_normalization(node: Node) -> Result:
    """x / (bias + alpha / size * the sum of squares of neighbouring channels) ** beta."""
    return node.emit(
        "nn.local_response_norm",
        node.value(0),
        size=node.attribute("size", 1),
        alpha=node.attribute("alpha", 1e-4),
        beta=node.attribute("beta", 0.75),
        bias=node.attribute("bias", 1.0),
    )


NORM: dict[str, tuple[Converter, ...]] = {
    "BatchNormalization": one(batch_normalization),
    "GroupNormalization": one(group_normalization),
    "InstanceNormalization": one(instance_normalization),
    "LRN": one(local_response_normalization),
    "LayerNormalization": one(layer_normalization),
    "LpNormalization": one(lp_normalization),
    "RMSNormalization": one(rms_normalization),
}
"""Converters of normalisations."""
