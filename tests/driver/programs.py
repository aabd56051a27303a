"""The two programs that go through the whole compiler, and a small sibling of the second."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx

from examples.one_program import MyIRModule as SEED
from examples.one_program import reference as seed_reference
from tests.frontend.onnx_models import Graph


def seed_inputs(n: int, m: int, d: int) -> dict[str, np.ndarray]:
    """Inputs of the seed program."""
    random = np.random.default_rng(n + 100 * m + 10_000 * d)
    x = random.standard_normal((n, d), np.float32) / max(1, d)
    return {"x": x, "w": random.standard_normal((d, m), np.float32)}


def magika_path() -> Path:
    """The model file of the package magika, which is not imported for it."""
    spec = importlib.util.find_spec("magika")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / "standard_v3_3" / "model.onnx"


LENGTH, VOCABULARY, CHANNELS, FEATURES, LABELS = 64, 17, 16, 24, 10


def small_magika() -> onnx.ModelProto:
    """What magika's model does, operator by operator, at a hundredth of the size.

    Bytes to one-hot vectors, a dense layer, gelu by tanh, layer normalisation written out, a
    convolution of [5, 1], gelu, the global maximum, layer normalisation, a dense layer, softmax
    written out; the batch is dynamic, and shapes are computed inside the graph.
    """
    random = np.random.default_rng(7)
    g = Graph(opset=15)

    def weight(*shape: int) -> str:
        return g.constant(random.standard_normal(shape) / np.sqrt(shape[-1]), np.float32)

    def floats(*values: float) -> tuple[str, ...]:
        return tuple(g.constant(value, np.float32) for value in values)

    tokens = g.input("bytes", ["batch", LENGTH], np.int32)
    sizes = g.op("Cast", g.op("Shape", tokens), to=onnx.TensorProto.INT32)
    zero, one = g.constant([0], np.int64), g.constant([1], np.int64)
    batch = g.op("Slice", sizes, zero, one, zero)

    def shape(*rest: int) -> str:
        items = [g.constant([item], np.int32) for item in rest]
        joined = g.op("Concat", batch, *items, axis=0)
        return g.op("Cast", joined, to=onnx.TensorProto.INT64)

    def gelu(x: str) -> str:
        half, unit, cubic, scale = floats(0.5, 1.0, 0.044715, 0.7978845608)
        inner = g.op("Add", x, g.op("Mul", x, g.op("Mul", x, g.op("Mul", cubic, x))))
        inner = g.op("Add", unit, g.op("Tanh", g.op("Mul", scale, inner)))
        return g.op("Mul", x, g.op("Mul", half, inner))

    def normalised(x: str, count: int, kept: list[int], scale: str, bias: str) -> str:
        share, least, epsilon = floats(1 / count, 0.0, 1e-3)
        options = {"keepdims": 0, "noop_with_empty_axes": 1}
        mean = g.op("Mul", g.op("ReduceSum", x, one, **options), share)
        square = g.op("Mul", g.op("ReduceSum", g.op("Mul", x, x), one, **options), share)
        variance = g.op("Max", least, g.op("Sub", square, g.op("Mul", mean, mean)))
        wide = shape(*kept)
        variance = g.op("Expand", g.op("Reshape", variance, wide), wide)
        deviation = g.op("Reciprocal", g.op("Sqrt", g.op("Add", variance, epsilon)))
        centred = g.op("Sub", x, g.op("Expand", g.op("Reshape", mean, wide), wide))
        return g.op("Add", g.op("Mul", centred, g.op("Mul", deviation, scale)), bias)

    column = g.op("Reshape", tokens, g.constant([-1, LENGTH, 1], np.int64))
    column = g.op("Expand", column, shape(LENGTH, 1))
    classes = g.constant(np.arange(VOCABULARY).reshape(1, 1, -1), np.int32)
    hot = g.op("Cast", g.op("Equal", column, classes), to=onnx.TensorProto.FLOAT)
    x = gelu(g.op("Add", g.op("MatMul", hot, weight(VOCABULARY, 8)), weight(1, 1, 8)))
    width = LENGTH * 8 // CHANNELS
    x = g.op("Reshape", x, shape(CHANNELS, width))
    x = normalised(x, CHANNELS, [1, width], weight(1, CHANNELS, 1), weight(1, CHANNELS, 1))
    x = g.op("Unsqueeze", x, g.constant([3], np.int64))
    x = g.op("Transpose", x, perm=[0, 2, 1, 3])
    x = g.op("Conv", x, weight(FEATURES, width, 5, 1), kernel_shape=[5, 1])
    x = g.op("Squeeze", x, g.constant([3], np.int64))
    x = gelu(g.op("Add", x, weight(1, FEATURES, 1)))
    x = g.op("Squeeze", g.op("GlobalMaxPool", x), g.constant([2], np.int64))
    x = normalised(x, FEATURES, [1], weight(1, FEATURES), weight(1, FEATURES))
    x = g.op("Add", g.op("MatMul", x, weight(FEATURES, LABELS)), weight(1, LABELS))
    row = shape(1)
    top = g.op("Reshape", g.op("ReduceMax", x, axes=[1], keepdims=0), row)
    powers = g.op("Exp", g.op("Sub", x, g.op("Expand", top, row)))
    total = g.op("ReduceSum", powers, one, keepdims=0, noop_with_empty_axes=1)
    g.output(g.op("Div", powers, g.op("Expand", g.op("Reshape", total, row), row)))
    return g.model()


def small_magika_inputs(batch: int) -> dict[str, np.ndarray]:
    """Inputs of the small sibling."""
    random = np.random.default_rng(batch)
    return {"bytes": random.integers(0, VOCABULARY, (batch, LENGTH)).astype(np.int32)}


def magika_inputs(batch: int) -> dict[str, np.ndarray]:
    """Inputs of magika's model: 256 stands for padding."""
    random = np.random.default_rng(batch)
    return {"bytes": random.integers(0, 257, (batch, 2048)).astype(np.int32)}


__all__ = [
    "SEED",
    "magika_inputs",
    "magika_path",
    "seed_inputs",
    "seed_reference",
    "small_magika",
    "small_magika_inputs",
]
