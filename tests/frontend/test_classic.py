"""Operators of ai.onnx.ml on numbers, compiled, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import transect
from tests.frontend.onnx_models import expected

NAN = float("nan")
CASES: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
    ("Binarizer", np.array([[1.0, -1.0, 0.5]], np.float32), {"threshold": 0.5}),
    ("Scaler", np.array([[1.0, 2.0]], np.float32), {"offset": [1.0, 3.0], "scale": [2.0, 0.5]}),
    ("Scaler", np.array([[1, 2]], np.int64), {"offset": [1.0], "scale": [2.0]}),
    (
        "Imputer",
        np.array([[1.0, NAN]], np.float32),
        {"imputed_value_floats": [7.0], "replaced_value_float": NAN},
    ),
    (
        "Imputer",
        np.array([[1, -2]], np.int64),
        {"imputed_value_int64s": [7, 8], "replaced_value_int64": -2},
    ),
    (
        "LabelEncoder",
        np.array([[3, 1], [9, 4]], np.int64),
        {"keys_int64s": [1, 3, 4], "values_floats": [0.5, 1.5, 2.5], "default_float": -7.0},
    ),
    (
        "LabelEncoder",
        np.array([1.5, NAN, 2.0], np.float32),
        {"keys_floats": [NAN, 1.5], "values_int64s": [10, 20], "default_int64": -1},
    ),
    (
        "LinearRegressor",
        np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
        {"coefficients": [1.0, 2.0, 3.0, 4.0], "intercepts": [0.5, -0.5], "targets": 2},
    ),
)


@pytest.mark.parametrize(("kind", "x", "attributes"), CASES)
def test_agrees_with_onnx_runtime(kind: str, x: np.ndarray, attributes: dict[str, Any]) -> None:
    version = 4 if kind == "LabelEncoder" else 2
    node = helper.make_node(kind, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    dims = [f"d{axis}" if axis == 0 else size for axis, size in enumerate(x.shape)]
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", code, dims)],
        [onnx.ValueInfoProto(name="y")],
    )
    opsets = [helper.make_opsetid("ai.onnx.ml", version), helper.make_opsetid("", 17)]
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )
    (wanted,) = expected(model, {"x": x})
    found: Any = transect.compile(model, cache=False)(x)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
