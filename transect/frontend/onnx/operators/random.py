"""Random numbers and what samples with them.

A node without a seed gets one from its own name: its numbers differ from those of other nodes, and
are the same in every run.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import onnx

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.ir.dtype import BOOL, FLOAT32, DType, as_dtype
from transect.ir.expr import IntImm
from transect.relax.expr import Value, constant, prim_value, shape_expr


def seed_of(node: Node) -> int:
    """The seed of a node."""
    given = node.attribute("seed", None)
    if given is None:
        return zlib.crc32(f"{node.op_type} {node.layer.name}".encode())
    return int.from_bytes(struct.pack("<f", float(given)), "little")


def _dtype(node: Node, default: DType) -> DType:
    code = node.attribute("dtype", 0)
    return as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code)) if code else default


def distribution(name: str, like: bool, **parameters: tuple[str, float]) -> tuple[Converter, ...]:
    """A tensor of random numbers, of a shape or like another; field -> (attribute, default)."""

    def convert(node: Node) -> Result:
        fields: dict[str, Any] = {
            field: float(node.attribute(attribute, default))
            for field, (attribute, default) in parameters.items()
        }
        size = shape_expr(*node.attribute("shape", []))
        own = FLOAT32
        if like:
            size = node.shape_of(node.shape(node.value(0)))
            own = node.dtype(node.value(0))
        dtype = _dtype(node, own)
        return node.emit(name, size, seed=seed_of(node), dtype=dtype, **fields)

    return one(convert)


def _uniform_like(node: Node, value: Value) -> Value:
    size = node.shape_of(node.shape(value))
    return node.emit("random.uniform", size, seed=seed_of(node), dtype=node.dtype(value))


def bernoulli(node: Node) -> Result:
    """1 with the probability that each element says, else 0."""
    value = node.value(0)
    drawn = node.emit("less", _uniform_like(node, value), value)
    return node.emit("astype", drawn, dtype=_dtype(node, node.dtype(value)))


def multinomial(node: Node) -> Result:
    """Classes drawn with the probabilities that rows of logarithms say."""
    value = node.value(0)
    batch, _ = node.shape(value)
    count = node.attribute("sample_size", 1)
    wide = node.emit("astype", value, dtype=FLOAT32)
    odds = node.emit("nn.softmax", wide, axis=-1)
    samples = node.simplify(batch * count)
    size = node.shape_of([samples, IntImm(1)])
    drawn = node.emit("random.uniform", size, seed=seed_of(node))
    rows = node.emit("arange", prim_value(samples))
    index = node.emit("floor_divide", rows, constant(np.asarray(count, np.int64)))
    column = node.emit("expand_dims", index, axis=1)
    picked = node.emit("multinomial_from_uniform", odds, drawn, column)
    result = node.emit("reshape", picked, node.shape_of([batch, IntImm(count)]))
    code = node.attribute("dtype", onnx.TensorProto.INT32)
    return node.emit("astype", result, dtype=as_dtype(onnx.helper.tensor_dtype_to_np_dtype(code)))


def dropout(node: Node) -> Result:
    """The operand, or in training with elements dropped at random and the others grown; and which
    are kept."""
    value = node.value(0)
    ratio = node.constant(1) if node.has(1) else np.asarray(node.attribute("ratio", 0.5))
    training = node.constant(2) if node.has(2) else np.asarray(False)
    idle = training is not None and not training.any()
    if idle or (ratio is not None and not ratio.any()):
        if node.outputs == 1:
            return node.operand(0)
        return [value, node.emit("ones", node.shape_of(node.shape(value)), dtype=BOOL)]
    size = node.shape_of(node.shape(value))
    drawn = node.emit("random.uniform", size, seed=seed_of(node))
    limit: Value = constant(np.asarray(0.5 if ratio is None else ratio, np.float32))
    if node.has(1):
        limit = node.emit("astype", node.value(1), dtype=FLOAT32)
    if training is None:
        limit = node.emit("where", node.value(2), limit, constant(np.asarray(0, np.float32)))
    kept = node.emit("greater_equal", drawn, limit)
    rest = node.emit("subtract", constant(np.asarray(1, np.float32)), limit)
    grown = node.emit("divide", value, node.emit("astype", rest, dtype=node.dtype(value)))
    return [node.emit("where", kept, grown, node.scalar(0, value)), kept]


RANDOM: dict[str, tuple[Converter, ...]] = {
    "Bernoulli": one(bernoulli),
    "Dropout": one(dropout),
    "Multinomial": one(multinomial),
    "RandomNormal": distribution("random.normal", False, mean=("mean", 0), scale=("scale", 1)),
    "RandomNormalLike": distribution("random.normal", True, mean=("mean", 0), scale=("scale", 1)),
    "RandomUniform": distribution("random.uniform", False, low=("low", 0), high=("high", 1)),
    "RandomUniformLike": distribution("random.uniform", True, low=("low", 0), high=("high", 1)),
}
"""Converters of random operators."""
