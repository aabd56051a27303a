"""Operators of the domain ai.onnx.ml on numbers: picking, thresholds, maps of labels, scaling.

Those on strings and maps, and ensembles of trees, are not covered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transect.frontend.onnx.node import Converter, Node, Result
from transect.frontend.onnx.operators.elementwise import one
from transect.ir.dtype import BOOL, FLOAT32, INT64, as_dtype
from transect.relax.expr import Value, constant


def array_feature_extractor(node: Node) -> Result:
    """The elements at some positions of the last axis; of a vector, as one row."""
    value, places = node.value(0), node.value(1)
    if len(node.shape(places)) != 1:
        places = node.emit("flatten", places)
    rank = len(node.shape(value))
    found = node.emit("take", value, places, axis=rank - 1)
    return node.emit("expand_dims", found, axis=(0,)) if rank == 1 else found


def binarizer(node: Node) -> Result:
    """1 where an element is above the threshold, else 0."""
    value = node.value(0)
    above = node.emit("greater", value, node.scalar(node.attribute("threshold", 0.0), value))
    return node.emit("astype", above, dtype=node.dtype(value))


def scaler(node: Node) -> Result:
    """(x - offset) * scale, in float32."""
    value = node.value(0)
    if node.dtype(value) is not FLOAT32:
        value = node.emit("astype", value, dtype=FLOAT32)
    offset, scale = (np.asarray(node.attribute(name, [d]), np.float32) for name, d in _SCALE)
    return node.emit("multiply", node.emit("subtract", value, constant(offset)), constant(scale))


_SCALE = (("offset", 0.0), ("scale", 1.0))


def imputer(node: Node) -> Result:
    """A value in place of every element that is missing, which a number or NaN marks."""
    value = node.value(0)
    kind = "int64s" if node.dtype(value).is_integral else "floats"
    new = node.attribute(f"imputed_value_{kind}", [0])
    marker = node.attribute(f"replaced_value_{kind.removesuffix('s')}", 0)
    replaced = constant(np.asarray(new), node.dtype(value))
    if isinstance(marker, float) and np.isnan(marker):
        missing = node.emit("isnan", value)
    else:
        missing = node.emit("equal", value, node.scalar(marker, value))
    return node.emit("where", missing, replaced, value)


def label_encoder(node: Node) -> Result:
    """The value of each key; a default for what is no key. A NaN is a key from version 4 on."""
    value = node.value(0)
    keys, values, default = (_table(node, what) for what in ("keys", "values", "default"))
    if keys is None or values is None or keys.shape != values.shape:
        raise node.error("keys and values are needed, of one length")
    if "O" in (keys.dtype.kind, values.dtype.kind) or keys.dtype.kind == "U":
        raise node.error("strings are not covered", "map them before the model")
    if default is None:
        default = np.asarray([-1 if values.dtype.kind == "i" else -0.0], values.dtype)
    known = constant(keys, node.dtype(value))
    apart = node.emit("expand_dims", value, axis=(len(node.shape(value)),))
    same = node.emit("equal", apart, known)
    if node.opset >= 4 and keys.dtype.kind == "f" and np.isnan(keys).any():
        both = node.emit("logical_and", node.emit("isnan", apart), constant(np.isnan(keys)))
        same = node.emit("logical_or", same, both)
    # The first key that is equal, or, as no position is as small, the default at the end.
    count = len(keys)
    position = node.emit("argmax", node.emit("astype", same, dtype=as_dtype("int32")), axis=-1)
    found = node.emit("max", node.emit("astype", same, dtype=as_dtype("int32")), axis=(-1,))
    place = node.emit(
        "where", node.emit("astype", found, dtype=BOOL), position, constant(count, INT64)
    )
    table = np.concatenate([values, default.reshape(-1)[:1].astype(values.dtype)])
    return node.emit("take", constant(table), place, axis=0)


def _table(node: Node, what: str) -> np.ndarray | None:
    """The keys, the values or the default, in any of the forms that an attribute may have."""
    one_value = what == "default"
    forms: dict[str, Any] = {"tensor": None, "int64": np.int64, "float": np.float32, "string": None}
    for form, dtype in forms.items():
        name = f"{what}_{form}" if one_value or form == "tensor" else f"{what}_{form}s"
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype).reshape(-1)
    return None


def linear_regressor(node: Node) -> Result:
    """x times a matrix, plus a vector, in float32."""
    value: Value = node.value(0)
    targets = node.attribute("targets", 1)
    if node.attribute("post_transform", "NONE") not in ("NONE", b"NONE"):
        raise node.error("a transform of the result is not covered")
    if node.dtype(value) is not FLOAT32:
        value = node.emit("astype", value, dtype=FLOAT32)
    weights = np.asarray(node.attribute("coefficients", []), np.float32).reshape(targets, -1)
    result = node.emit("matmul", value, constant(np.ascontiguousarray(weights.T)))
    if "intercepts" in node.attributes:
        offset = np.asarray(node.attributes["intercepts"], np.float32)
        result = node.emit("add", result, constant(offset))
    return result


CLASSIC: dict[str, tuple[Converter, ...]] = {
    "ArrayFeatureExtractor": one(array_feature_extractor),
    "Binarizer": one(binarizer),
    "Imputer": one(imputer),
    "LabelEncoder": one(label_encoder),
    "LinearRegressor": one(linear_regressor),
    "Scaler": one(scaler),
}
"""Converters of the domain ai.onnx.ml."""
