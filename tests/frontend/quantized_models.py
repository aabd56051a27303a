"""A small convolutional net and a small transformer, and what ONNX Runtime's quantizer makes of
them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from tests.frontend.onnx_models import Graph

Inputs = Mapping[str, np.ndarray]


def conv_net() -> onnx.ModelProto:
    """x (batch, 3, 12, 12): convolutions, plain and by channel, a residual, pools, a classifier."""
    random = np.random.default_rng(3)
    g = Graph(17)

    def weight(*dims: int) -> str:
        return g.constant(random.normal(0, 0.4, dims), np.float32)

    x = g.input("x", ["batch", 3, 12, 12])
    a = g.op("Relu", g.op("Conv", x, weight(8, 3, 3, 3), weight(8), pads=[1, 1, 1, 1]))
    b = g.op("Conv", a, weight(8, 1, 3, 3), weight(8), group=8, pads=[1, 1, 1, 1])
    c = g.op("Clip", b, g.constant(0.0, np.float32), g.constant(6.0, np.float32))
    d = g.op("Conv", c, weight(8, 8, 1, 1), weight(8))
    e = g.op("Add", a, d)
    f = g.op("MaxPool", e, kernel_shape=[2, 2], strides=[2, 2])
    h = g.op("LeakyRelu", g.op("Conv", f, weight(16, 8, 3, 3), strides=[2, 2]), alpha=0.1)
    i = g.op("Concat", h, g.op("Mul", h, g.op("Sigmoid", h)), axis=1)
    j = g.op("AveragePool", i, kernel_shape=[2, 2])
    k = g.op("Flatten", g.op("GlobalAveragePool", j))
    g.output(g.op("Softmax", g.op("Gemm", k, weight(32, 10), weight(10)), axis=-1))
    return g.model()


def transformer() -> onnx.ModelProto:
    """x (batch, length, 16): one layer of attention with 2 heads, and a perceptron."""
    random = np.random.default_rng(4)
    g = Graph(17)

    def weight(*dims: int) -> str:
        return g.constant(random.normal(0, 0.3, dims), np.float32)

    def norm(value: str) -> str:
        return g.op("LayerNormalization", value, weight(16), weight(16))

    def linear(value: str, inner: int, outer: int) -> str:
        return g.op("Add", g.op("MatMul", value, weight(inner, outer)), weight(outer))

    def heads(value: str, order: list[int]) -> str:
        split = g.op("Reshape", value, g.constant([0, 0, 2, 8], np.int64))
        return g.op("Transpose", split, perm=order)

    x = g.input("x", ["batch", "length", 16])
    y = norm(x)
    q, k, v = (
        heads(linear(y, 16, 16), order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = g.op("Mul", g.op("MatMul", q, k), g.constant(8**-0.5, np.float32))
    mixed = g.op(
        "Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3]
    )
    z = g.op("Add", x, linear(g.op("Reshape", mixed, g.constant([0, 0, 16], np.int64)), 16, 16))
    inner = linear(norm(z), 16, 32)
    half = g.op("Erf", g.op("Mul", inner, g.constant(2**-0.5, np.float32)))
    one = g.constant(0.5, np.float32)
    gelu = g.op("Mul", g.op("Mul", inner, g.op("Add", half, g.constant(1.0, np.float32))), one)
    g.output(g.op("Add", z, linear(gelu, 32, 16)))
    return g.model()


def sample(name: str, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a model of this file."""
    random = np.random.default_rng(100 * batch + seed)
    dims = (batch, 3, 12, 12) if name == "conv_net" else (batch, 5 + batch, 16)
    return {"x": random.normal(0, 1, dims).astype(np.float32)}


class _Reader(CalibrationDataReader):
    def __init__(self, name: str) -> None:
        self.left = [sample(name, 2, seed) for seed in range(4)]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


MODELS = {"conv_net": conv_net, "transformer": transformer}
_SEVEN_BITS = {"reduce_range": True}
"""Where a processor has no dot product of bytes, ONNX Runtime adds two products in 16 bits, which
saturate for larger weights."""
STATIC: dict[str, dict[str, Any]] = {
    "qdq": {"quant_format": QuantFormat.QDQ},
    "qdq per channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "qdq signed": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8},
    "qdq 16 bits": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt16,
        "extra_options": {"UseQDQContribOps": True},
    },
    "operators": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        **_SEVEN_BITS,
    },
    "operators per channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
    "operators unsigned weights": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
    },
}
"""Options of static quantization."""
DYNAMIC: dict[str, dict[str, Any]] = {
    "dynamic": {"weight_type": QuantType.QInt8, **_SEVEN_BITS},
    "dynamic unsigned": {"weight_type": QuantType.QUInt8},
    "dynamic per channel": {
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        **_SEVEN_BITS,
    },
}
"""Options of dynamic quantization."""


def quantized(name: str, way: str, folder: Path) -> onnx.ModelProto:
    """A model quantized; `way` is a key of STATIC or DYNAMIC."""
    path, source = folder / "quantized.onnx", folder / "float.onnx"
    onnx.save(MODELS[name](), source)
    if way in DYNAMIC:
        quantize_dynamic(source, path, **DYNAMIC[way])
    else:
        quantize_static(source, path, _Reader(name), **STATIC[way])
    return onnx.load(path)
