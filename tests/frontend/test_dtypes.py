"""Element types end to end: inputs, constants, outputs; ONNX's own cases of conversions, and of
what ONNX Runtime does not have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import transect
from transect.support.errors import ImportModelError

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn",
    "int4", "uint4", "int2", "uint2",
)  # fmt: skip


def numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def every_code(name: str) -> np.ndarray:
    """All the bit patterns of a narrow dtype, 256 random ones of a wider."""
    kind = numpy_dtype(name)
    if name == "bool":
        return np.arange(6) % 2 == 1
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        random = np.random.default_rng(2)
        return random.integers(limits.min, limits.max, 64, dtype=kind, endpoint=True)
    integer = getattr(ml_dtypes, "iinfo")(kind) if "int" in name else None  # noqa: B009
    if integer is not None:
        return np.arange(integer.min, integer.max + 1).astype(kind)
    if kind.itemsize == 1:
        return np.arange(16 if "4" in name[:6] else 256, dtype=np.uint8).view(kind)
    random = np.random.default_rng(1)
    return random.integers(0, 1 << 16, 256, dtype=np.uint16).repeat(kind.itemsize // 2).view(kind)


def bits(array: np.ndarray) -> bytes:
    return array.tobytes()


@pytest.mark.parametrize("size", ["n", None], ids=["dynamic", "static"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_constants_and_outputs(dtype: str, size: str | None) -> None:
    """The input is reversed, a constant is joined to it: elements are loaded and stored."""
    array = every_code(dtype)
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    ints = [numpy_helper.from_array(np.array([k], np.int64), f"i{k}") for k in (-1, 0, -(2**40))]
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["x", "i-1", f"i{-(2**40)}", "i0", "i-1"], ["turned"]),
            helper.make_node("Concat", ["turned", "c"], ["y"], axis=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", code, [size or len(array)])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, "c"), *ints],
    )
    opsets = [helper.make_opsetid("", 25)]
    model = transect.compile(
        helper.make_model(graph, opset_imports=opsets, ir_version=13), cache=False
    )
    result = model(array)
    assert result.dtype == array.dtype
    assert bits(result) == bits(np.concatenate([array[::-1], array]))


def test_strings_are_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Equal", ["x", "x"], ["y"], name="names")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.STRING, ["n"])],
        [onnx.ValueInfoProto(name="y")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    with pytest.raises(ImportModelError, match="STRING, which has no counterpart") as info:
        transect.compile(model, cache=False)
    assert "numeric or bool" in str(info.value)


KINDS = (
    "BitCast", "Cast", "CastLike", "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear",
    "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Swish",
    "AffineGrid", "ArrayFeatureExtractor", "DeformConv", "GlobalMaxPool", "GroupNormalization",
    "MelWeightMatrix", "RMSNormalization", "Scatter", "Upsample",
)  # fmt: skip


@cache
def suite() -> list[Any]:
    """ONNX's own cases."""
    with warnings.catch_warnings():
        # The cases overflow on purpose while they are made.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return list(load_model_tests(kind="node"))


def cases(kind: str) -> Iterator[Any]:
    for case in suite():
        if case.model is not None and [n.op_type for n in case.model.graph.node] == [kind]:
            yield case


@pytest.mark.parametrize("kind", KINDS)
def test_cases_of_onnx(kind: str) -> None:
    count = 0
    for case in cases(kind):
        model = transect.compile(case.model, cache=False)
        for inputs, outputs in case.data_sets:
            results = model(*(_array(item) for item in inputs))
            results = results if isinstance(results, tuple) else (results,)
            for got, item in zip(results, outputs, strict=True):
                want = _array(item)
                assert got.dtype == want.dtype, case.name
                np.testing.assert_allclose(
                    got.astype(np.float64),
                    want.astype(np.float64),
                    rtol=case.rtol,
                    atol=case.atol,
                    err_msg=case.name,
                )
        count += 1
    assert count > 0


def _array(item: Any) -> np.ndarray:
    return numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else np.asarray(item)
