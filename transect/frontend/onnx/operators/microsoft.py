"""Fused operators that ONNX Runtime's optimizers write (domain com.microsoft): products with an
activation, activations with a bias, normalisations of sums.

Source: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.activation import WITH_ATTRIBUTES
from transect.frontend.onnx.operators.convolution import conv
from transect.frontend.onnx.operators.elementwise import one
from transect.frontend.onnx.operators.nn import gemm
from transect.frontend.onnx.operators.norm import rms_normalization
from transect.frontend.onnx.operators.quantize import optional
from transect.ir.dtype import FLOAT32, INT32, INT64
from transect.ir.expr import IntImm
from transect.relax.expr import Value, constant, prim_value

# --- products ----------------------------------------------------------------------------------


def fused_matmul(node: Node) -> Result:
    """alpha * A' * B', where either may be transposed in its last two dimensions (transA), or have
    its rows before its batch (transBatchA)."""
    a, b = (_arranged(node, node.value(i), side) for i, side in enumerate("AB"))
    product = node.emit("matmul", a, b)
    alpha = node.attribute("alpha", 1.0)
    return product if alpha == 1.0 else node.emit("multiply", product, node.scalar(alpha, product))


def _arranged(node: Node, value: Value, side: str) -> Value:
    rank = len(node.shape(value))
    axes = list(range(rank))
    if node.attribute(f"transBatch{side}", 0):
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if node.attribute(f"trans{side}", 0) and rank > 1:
        axes[-2:] = axes[:-3:-1]
    return (
        value if axes == list(range(rank)) else node.emit("permute_dims", value, axes=tuple(axes))
    )


_PLAIN = {
    "Gelu": "nn.gelu",
    "Relu": "nn.relu",
    "Sigmoid": "sigmoid",
    "Softplus": "nn.softplus",
    "Tanh": "tanh",
}


def activated(node: Node, value: Value, parameters: list[float]) -> Value:
    """The activation that the attribute `activation` names. parameters: its own, in the order of
    the attributes of the ONNX operator (alpha, beta, gamma; of Clip the limits)."""
    kind = node.attribute("activation", "")
    if not kind:
        return value
    if kind in _PLAIN:
        return node.emit(_PLAIN[kind], value)
    if kind in WITH_ATTRIBUTES:
        name, defaults = WITH_ATTRIBUTES[kind]
        given = dict(zip(defaults, parameters, strict=False))
        return node.emit(name, value, **{**defaults, **given})
    if kind == "Clip":
        low, high = (node.scalar(limit, value) for limit in (*parameters, np.inf)[:2])
        return node.emit("minimum", node.emit("maximum", value, low), high)
    if kind == "HardSigmoid":
        slope, offset = (node.scalar(item, value) for item in (*parameters, *(0.2, 0.5))[:2])
        line = node.emit("add", node.emit("multiply", value, slope), offset)
        upper = node.emit("minimum", line, node.scalar(1.0, value))
        return node.emit("maximum", upper, node.scalar(0.0, value))
    raise node.error(f"the activation {kind!r} is not covered")


def fused_gemm(node: Node) -> Result:
    """Gemm, then an activation."""
    names = [f"activation_{name}" for name in ("alpha", "beta", "gamma")]
    given = [node.attribute(name, 0.0) for name in names if name in node.attributes]
    return activated(node, _one_value(node, gemm(node)), given)


def fused_conv(node: Node) -> Result:
    """Conv, plus a tensor like its result, then an activation."""
    result = _one_value(node, conv(node))
    if node.has(3):
        result = node.emit("add", result, node.value(3))
    return activated(node, result, list(node.attribute("activation_params", [])))


def _one_value(node: Node, result: Result) -> Value:
    if not isinstance(result, Value):
        raise node.error("expected one tensor")
    return result


# --- activations -------------------------------------------------------------------------------


def biased_map(name: str) -> Callable[[Node], Result]:
    """Graph operator `name` of x + bias, the bias optional."""

    def convert(node: Node) -> Result:
        value = node.value(0)
        if node.has(1):
            value = node.emit("add", value, node.value(1))
        return node.emit(name, value)

    return convert


def quick_gelu(node: Node) -> Result:
    """x * sigmoid(alpha * x)."""
    value = node.value(0)
    gate = node.emit("multiply", value, node.scalar(node.attribute("alpha", 1.702), value))
    return node.emit("multiply", value, node.emit("sigmoid", gate))


# --- normalisations ----------------------------------------------------------------------------


def skip_layer_normalization(node: Node) -> Result:
    """Layer normalization of input + skip + bias; the fourth output is that sum."""
    return _normalized_sum(node, bias=4, shift=3)


def skip_rms_normalization(node: Node) -> Result:
    """Division of input + skip + bias by its root mean square; the fourth output is that sum."""
    return _normalized_sum(node, bias=3, shift=None)


def _normalized_sum(node: Node, bias: int, shift: int | None) -> Result:
    if node.wants(1) or node.wants(2):
        raise node.error("its mean and deviation as outputs are not covered")
    total = node.emit("add", node.value(0), node.value(1))
    if node.has(bias):
        total = node.emit("add", total, node.value(bias))
    epsilon = node.attribute("epsilon", 1e-12)
    if shift is None:
        result = node.emit("nn.rms_norm", total, node.value(2), axes=(-1,), epsilon=epsilon)
    else:
        result = layer_norm(node, total, node.value(2), optional(node, shift), epsilon)
    nothing = constant(np.zeros(0, np.float32))
    return [result, nothing, nothing, total]


def layer_norm(
    node: Node, value: Value, scale: Value, shift: Value | None, epsilon: float
) -> Value:
    """Normalisation over the last dimension."""
    parameters = [scale] if shift is None else [scale, shift]
    return node.emit(
        "nn.layer_norm", value, *parameters, axes=(-1,), epsilon=epsilon, center=shift is not None
    )


def simplified_layer_normalization(node: Node) -> Result:
    """RMSNormalization by its older name; the inverse root mean square if it is asked for."""
    result = _one_value(node, rms_normalization(node))
    if not node.wants(1):
        return result
    value = node.value(0)
    rank = len(node.shape(value))
    axes = tuple(range(node.axis(node.attribute("axis", -1), rank), rank))
    wide = value if node.dtype(value) is FLOAT32 else node.emit("astype", value, dtype=FLOAT32)
    square = node.emit("mean", node.emit("multiply", wide, wide), axis=axes, keepdims=True)
    epsilon = node.scalar(node.attribute("epsilon", 1e-5), wide)
    return [result, node.emit("rsqrt", node.emit("add", square, epsilon))]


def embed_layer_normalization(node: Node) -> Result:
    """Layer normalization of the sum of the rows of tables for words, positions and segments; the
    number of positions that a mask keeps; the sum itself."""
    words, segments = node.value(0), optional(node, 1)
    batch, length = node.shape(words)
    total = node.emit("take", node.value(2), words, axis=0)
    if node.has(8):
        places = node.emit("take", node.value(3), node.value(8), axis=0)
    else:
        rows = node.emit("arange", prim_value(IntImm(0)), prim_value(length), dtype=INT64)
        places = node.emit("take", node.value(3), rows, axis=0)
    total = node.emit("add", total, places)
    if segments is not None and node.has(4):
        total = node.emit("add", total, node.emit("take", node.value(4), segments, axis=0))
    result = layer_norm(
        node, total, node.value(5), optional(node, 6), node.attribute("epsilon", 1e-12)
    )
    if node.has(7) and node.attribute("mask_index_type", 1):
        kept = node.emit("sum", node.value(7), axis=(1,))
    else:
        kept = node.emit("zeros", node.shape_of([batch]), dtype=INT32)
    return [result, kept, total]


MICROSOFT: dict[str, tuple[Converter, ...]] = {
    "BiasGelu": one(biased_map("nn.gelu")),
    "EmbedLayerNormalization": one(embed_layer_normalization),
    "FastGelu": one(biased_map("nn.gelu_tanh")),
    "FusedConv": one(fused_conv),
    "FusedGemm": one(fused_gemm),
    "FusedMatMul": one(fused_matmul),
    "Gelu": one(biased_map("nn.gelu")),
    "QuickGelu": one(quick_gelu),
    "SimplifiedLayerNormalization": one(simplified_layer_normalization),
    "SkipLayerNormalization": one(skip_layer_normalization),
    "SkipSimplifiedLayerNormalization": one(skip_rms_normalization),
    "TransposeMatMul": one(fused_matmul),
}
"""Converters of ONNX Runtime's fused operators."""

ONNX_DOMAIN = {"SimplifiedLayerNormalization": MICROSOFT["SimplifiedLayerNormalization"]}
"""What ONNX Runtime adds to ONNX's own domain."""
