"""Operators that are defined by others: functions of a model, and the bodies of ONNX's schemas."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

import transect
from tests.frontend.onnx_models import Graph, expected
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.relax.visit import bindings
from transect.support.errors import ImportModelError
from transect.support.span import Layer

CALLED = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[n, 4] x) => (float[n, 4] y)
{ y = own.outer <scale = 3.0> (x) }
<domain: "own", opset_import: ["" : 17, "own" : 1]>
outer <scale> (a) => (c)
{
  b = own.scaled <factor: float = @scale> (a)
  c = own.scaled (b)
}
<domain: "own", opset_import: ["" : 17]>
scaled <factor: float = 2.0> (a) => (d)
{
  f = Constant <value_float: float = @factor> ()
  d = Mul (a, f)
}
"""


def test_functions_of_the_model() -> None:
    """One calls another, with an attribute of its own, and without, by default."""
    proto = parser.parse_model(CALLED)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(transect.compile(proto, cache=False)(x), x * 6)


def test_what_a_function_computes_goes_by_the_name_of_its_call() -> None:
    proto = parser.parse_model(CALLED)
    proto.graph.node[0].name = "the call"
    main = OnnxFrontend().load(proto)["main"]
    names = [
        place.name for b in bindings(main) for place in b.value.span if isinstance(place, Layer)
    ]
    assert names
    assert set(names) == {"the call"}


def test_a_function_that_calls_itself() -> None:
    proto = parser.parse_model(CALLED)
    proto.functions[1].node[1].CopyFrom(helper.make_node("outer", ["a"], ["d"], domain="own"))
    proto.functions[1].opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(ImportModelError, match="the function outer calls itself"):
        OnnxFrontend().load(proto)


def test_a_function_with_an_operator_that_is_not_covered() -> None:
    proto = parser.parse_model(CALLED)
    proto.functions[1].node[1].op_type = "Frobnicate"
    with pytest.raises(ImportModelError) as caught:
        OnnxFrontend().load(proto)
    assert "Frobnicate (opset 17): 1 node, first 'd'" in str(caught.value)


def test_a_body_of_a_schema_that_depends_on_types() -> None:
    g = Graph()
    scores = g.input("scores", ["n", 5])
    labels = g.input("labels", ["n"], np.int64)
    g.output(g.op("SoftmaxCrossEntropyLoss", scores, labels, reduction="sum"))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    for n in (1, 6):
        random = np.random.default_rng(n)
        inputs = {
            "scores": random.standard_normal((n, 5)).astype(np.float32),
            "labels": random.integers(0, 5, n),
        }
        (wanted,) = expected(proto, inputs)
        np.testing.assert_allclose(model(**inputs), wanted, rtol=1e-5)


def test_a_fixed_body_of_a_schema() -> None:
    g = Graph(18)
    x = g.input("x", ["n", 3, 4, 4])
    g.output(g.op("MeanVarianceNormalization", x, axes=[0, 2, 3]))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(model(x), expected(proto, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_a_converter_wins_over_a_body() -> None:
    """Relu has a body of Max since opset 18."""
    g = Graph(18)
    g.output(g.op("Relu", g.input("x", ["n"])))
    main = OnnxFrontend().load(g.model())["main"]
    assert [b.value.op.name for b in bindings(main)] == ["nn.relu"]


def test_a_function_wins_over_a_converter() -> None:
    """What a model brings with it says what it means, even under a name of ONNX's."""
    function = onnx.FunctionProto(domain="", name="Relu")
    function.input.append("a")
    function.output.append("b")
    function.node.append(helper.make_node("Neg", ["a"], ["b"]))
    function.opset_import.append(helper.make_opsetid("", 17))
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], functions=[function], ir_version=8
    )
    x = np.array([1, -2], np.float32)
    np.testing.assert_array_equal(transect.compile(proto, cache=False)(x), -x)
