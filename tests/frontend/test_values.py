"""Element-wise operators at random and extreme values of every dtype, against ONNX Runtime.

One model for each dtype holds all the operators that ONNX Runtime has for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

import transect

REFUSALS = (state.InvalidGraph, state.NotImplemented, state.InvalidArgument, state.Fail)

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Cos",
    "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
BINARY = (
    "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Or", "PRelu", "Sub", "Sum", "Xor",
)  # fmt: skip
# Divisors are not zero, and shifts less than the width: what else they do is tested elsewhere.
WITH_SECOND = {"Div": "d", "Mod": "d", "BitShift": "s"}
DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32",
          "int64", "uint64", "bool")  # fmt: skip
TOLERANCE = {"float16": 4e-3, "float32": 2e-4, "float64": 1e-6}
"""Relative; ONNX Runtime computes some functions of float64 in float32."""
UNEQUAL = {
    ("Sign", "float16"),  # ONNX Runtime says 0 of NaN here, and NaN for other dtypes.
    ("Shrink", "float64"), ("Shrink", "int8"), ("Shrink", "uint8"), ("Shrink", "int16"),
    ("Shrink", "uint16"),
    ("Shrink", "int32"), ("Shrink", "uint32"), ("Shrink", "int64"), ("Shrink", "uint64"),
    ("HardSwish", "float16"), ("HardSigmoid", "float16"),
}  # fmt: skip
"""Where ONNX Runtime rounds the parameters to integers, or otherwise than its own operators do."""


def node(kind: str, dtype: str, name: str) -> onnx.NodeProto:
    attributes: dict[str, Any] = {}
    if kind == "BitShift":
        attributes["direction"] = "RIGHT"
    if kind == "Mod" and dtype.startswith("float"):
        attributes["fmod"] = 1
    second = "b" if kind in BINARY else WITH_SECOND.get(kind)
    operands = ["a"] if second is None else ["a", second]
    return helper.make_node(kind, operands, [name], name, **attributes)


def model(dtype: str, kinds: tuple[str, ...]) -> onnx.ModelProto:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info(name, code, ["n"]) for name in "abds"]
    outputs = [onnx.ValueInfoProto(name=kind) for kind in kinds]
    nodes = [node(kind, dtype, kind) for kind in kinds]
    graph = helper.make_graph(nodes, "values", inputs, outputs)
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(proto: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def is_known(kind: str, dtype: str) -> bool:
    """Whether ONNX Runtime has the operator for the dtype."""
    try:
        session(model(dtype, (kind,)))
    except REFUSALS:
        return False
    return True


@cache
def compiled(dtype: str) -> tuple[tuple[str, ...], Any, Any]:
    """The operators, ONNX Runtime's model and ours."""
    kinds = [
        kind
        for kind in (*UNARY, *BINARY, *WITH_SECOND)
        if (kind, dtype) not in UNEQUAL and is_known(kind, dtype)
    ]
    proto = model(dtype, tuple(kinds))
    return tuple(kinds), session(proto), transect.compile(proto, cache=False)


def elements(dtype: str) -> st.SearchStrategy[Any]:
    """Values of a dtype, often special ones."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return st.booleans()
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        low, high = int(limits.min), int(limits.max)
        special = [low, low + 1, high, high - 1, 0, 1, 2]
        return st.one_of(st.sampled_from(special), st.integers(max(low, -9), 9))
    info = np.finfo(kind)
    special = [
        0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -2.5, 1.0, -1.0, np.inf, -np.inf, np.nan, float(info.max),
        float(info.min), float(info.tiny), -float(info.tiny), 89.0, -89.0, 710.0, -710.0,
    ]  # fmt: skip
    return st.one_of(st.sampled_from(special), st.floats(-20, 20, width=16))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_against_onnxruntime(dtype: str, data: st.DataObject) -> None:
    kinds, theirs, ours = compiled(dtype)
    kind = np.dtype(dtype)
    size = data.draw(st.integers(1, 70))
    a, b = (
        np.array(data.draw(st.lists(elements(dtype), min_size=size, max_size=size)), kind)
        for _ in range(2)
    )
    numeric = kind.kind in "iuf"
    d = np.where(b == 0, kind.type(3), b) if numeric else b
    if kind.kind == "i":
        # The quotient of the least integer and -1 has its own test.
        d = np.where(d == -1, kind.type(2), d)
    s = (b % kind.type(8 * kind.itemsize)).astype(kind) if kind.kind == "u" else b
    inputs = {"a": a, "b": b, "d": d, "s": s}
    # ONNX Runtime refuses inputs that no operator of the model takes.
    taken = {item.name for item in theirs.get_inputs()}
    want = theirs.run(None, {name: value for name, value in inputs.items() if name in taken})
    for name, got, wanted in zip(kinds, ours(**inputs), want, strict=True):
        assert got.dtype == wanted.dtype, name
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(got, wanted, err_msg=name)
            continue
        tolerance = TOLERANCE[wanted.dtype.name]
        smallest = float(np.finfo(wanted.dtype).tiny) * 4
        np.testing.assert_allclose(
            got.astype(np.float64),
            wanted.astype(np.float64),
            rtol=tolerance,
            atol=max(smallest, tolerance / 10),
            err_msg=name,
        )
