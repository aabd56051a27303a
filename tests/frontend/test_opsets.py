"""Operators whose meaning or form changed from one opset to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import transect
from tests.frontend.cases import NM, Case, case, node, with_constants
from tests.frontend.onnx_models import Graph, expected
from tests.frontend.test_operators import check
from transect.frontend.onnx.reader import NEWEST_OPSET, OLDEST_OPSET

# ONNX Runtime may be behind the newest opset of onnx.
NEWEST_OF_ORACLE = 22


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OF_ORACLE + 1))
def test_in_every_opset(opset: int) -> None:
    cases = [
        case("Relu", node("Relu"), NM),
        case("Softmax", node("Softmax", axis=1), NM),
        case("Reshape", with_constants("Reshape", [0, -1]), NM),
    ]
    check(cases, dynamic=False, opset=opset)


def old(node: onnx.NodeProto, opset: int, *weights: onnx.TensorProto) -> onnx.ModelProto:
    """A model of one node from x (2, 3, 3) to y, in an opset that has to be lifted."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c"])
    graph = helper.make_graph([node], "old", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_opsets_before_the_oldest() -> None:
    """Broadcasting along an axis, a shape as an attribute, slopes of channels."""
    x = np.arange(18.0, dtype=np.float32).reshape(2, 3, 3) - 9
    weight = np.array([1.0, 2.0, 3.0], np.float32)
    w = numpy_helper.from_array(weight, "w")
    add = helper.make_node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)
    suffix = helper.make_node("Add", ["x", "w"], ["y"], broadcast=1)
    reshape = helper.make_node("Reshape", ["x"], ["y"], shape=[0, 1, -1])
    prelu = helper.make_node("PRelu", ["x", "w"], ["y"])
    cases = [
        (old(add, 6, w), x + weight[:, None]),
        (old(suffix, 6, w), x + weight),
        (old(reshape, 1), x.reshape(2, 1, 9)),
        (old(prelu, 6, w), np.where(x < 0, x * weight[:, None], x)),
    ]
    for model, wanted in cases:
        np.testing.assert_array_equal(transect.compile(model, cache=False)(x), wanted)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 20])
def test_where_forms_changed(opset: int) -> None:
    cases = [case(kind, node(kind), NM) for kind in ("Softmax", "LogSoftmax", "Dropout")]
    cases.append(case("Softmax 0", node("Softmax", axis=0), NM))
    check([*cases, *changed(opset)], dynamic=True, opset=opset)


def changed(opset: int) -> list[Case]:
    """The forms that operands and attributes have in this opset."""

    def axes(kind: str, since: int, name: str = "axes") -> Callable[..., str]:
        if opset < since:
            return lambda g, x: g.op(kind, x, **{name: [0, 2]})
        return with_constants(kind, [0, 2])

    def clip(g: Graph, x: str) -> str:
        if opset < 11:
            return g.op("Clip", x, min=-1.0, max=0.5)
        return g.op("Clip", x, g.constant(-1, np.float32), g.constant(0.5, np.float32))

    def sliced(g: Graph, x: str) -> str:
        if opset < 10:
            return g.op("Slice", x, axes=[1, 2], starts=[1, 0], ends=[-1, 1000])
        return with_constants("Slice", [1, 0], [-1, 1000], [1, 2])(g, x)

    def split(g: Graph, x: str) -> tuple[str, ...]:
        if opset < 13:
            return g.op("Split", x, outputs=2, axis=1, split=[1, 3])
        return g.op("Split", x, g.constant([1, 3], np.int64), outputs=2, axis=1)

    def split_evenly(g: Graph, x: str) -> tuple[str, ...]:
        if opset < 18:
            return g.op("Split", x, outputs=2, axis=1)
        return g.op("Split", x, outputs=2, axis=1, num_outputs=2)

    cases = [
        case("ReduceSum", axes("ReduceSum", 13), NM),
        case("ReduceMean", axes("ReduceMean", 18), NM),
        case("ReduceMax", axes("ReduceMax", 18), NM),
        case("ReduceL2", axes("ReduceL2", 18), NM),
        case("Unsqueeze", axes("Unsqueeze", 13), ("m", 3)),
        case("Squeeze", axes("Squeeze", 13), (1, "m", 1)),
        case("Clip", clip, NM),
        case("Slice", sliced, NM),
        case("Split", split, NM),
        case("Split evenly", split_evenly, NM),
    ]
    if opset >= 9:
        cases.append(case("Where", _where, NM))
    if opset >= 20:
        cases.append(case("Gelu", node("Gelu"), NM))
        cases.append(case("Gelu tanh", node("Gelu", approximate="tanh"), NM))
    return cases


def _where(g: Graph, x: str) -> str:
    zero = g.constant(0, np.float32)
    return g.op("Where", g.op("Greater", x, zero), x, zero)


@pytest.mark.parametrize("opset", range(NEWEST_OF_ORACLE + 1, NEWEST_OPSET + 1))
def test_opsets_that_only_onnx_knows(opset: int) -> None:
    g = Graph(opset)
    x = g.input("x", ["n", 4])
    g.output(g.op("Softmax", g.op("Relu", x)))
    value = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    reference = ReferenceEvaluator(g.model()).run(None, {"x": value})[0]
    np.testing.assert_allclose(transect.compile(g.model())(value), reference, rtol=1e-5)


def test_the_oracle_is_as_new_as_this_file_says() -> None:
    g = Graph(NEWEST_OF_ORACLE)
    g.output(g.op("Relu", g.input("x", [2])))
    np.testing.assert_array_equal(expected(g.model(), {"x": np.ones(2, np.float32)})[0], [1, 1])
