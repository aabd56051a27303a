"""Sequences and optionals whose length is known while importing, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import transect
from tests.frontend.onnx_models import Graph, expected
from transect.support.errors import ImportModelError


def number(g: Graph, value: int) -> str:
    return g.constant(value, np.int64)


def check(g: Graph, **feeds: np.ndarray) -> None:
    """All outputs, tensors or sequences of them, are those of ONNX Runtime."""
    proto = g.model()
    results = transect.compile(proto, cache=False)(**feeds)
    wanted = expected(proto, feeds)
    for ours, theirs in zip(results if len(wanted) > 1 else [results], wanted, strict=True):
        if isinstance(theirs, list):
            assert len(ours) == len(theirs)
        pairs = zip(ours, theirs, strict=True) if isinstance(theirs, list) else [(ours, theirs)]
        for a, b in pairs:
            np.testing.assert_array_equal(np.asarray(a), b)
            assert np.shape(a) == np.shape(b)


X = np.arange(24.0, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize("position", [None, 0, 1, 2, -1, -2])
def test_insert(position: int | None) -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    pair = g.op("SequenceConstruct", x, g.op("Neg", x))
    place = [] if position is None else [number(g, position)]
    longer = g.op("SequenceInsert", pair, g.op("Abs", x), *place)
    g.output(longer, g.op("SequenceLength", longer))
    check(g, x=X)


@pytest.mark.parametrize("position", [None, 0, 2, -1, -3])
def test_erase_and_take(position: int | None) -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    items = g.op("SequenceConstruct", x, g.op("Neg", x), g.op("Mul", x, x))
    place = [] if position is None else [number(g, position)]
    rest = g.op("SequenceErase", items, *place)
    g.output(*(g.op("SequenceAt", rest, number(g, k)) for k in (0, 1, -1, -2)))
    check(g, x=X)


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    [
        (None, {"axis": 1}),
        (None, {"axis": -1, "keepdims": 0}),
        (4, {"axis": 1}),
        ([1, 5], {"axis": 1, "keepdims": 0}),
        ([1, 2, 3], {"axis": 1}),
        ([1, 3], {}),
    ],
)
def test_split(sizes: Any, attributes: dict[str, Any]) -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    parts = [] if sizes is None else [g.constant(sizes, np.int64)]
    g.output(g.op("SplitToSequence", x, *parts, **attributes))
    check(g, x=X)


@pytest.mark.parametrize("attributes", [{"axis": 0}, {"axis": -1}, {"axis": -1, "new_axis": 1}])
def test_concat(attributes: dict[str, int]) -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    items = g.op("SequenceConstruct", x, g.op("Neg", x))
    g.output(g.op("ConcatFromSequence", items, **attributes))
    check(g, x=X)


def test_grown_from_nothing_and_mapped() -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    items = g.op("SequenceInsert", g.op("SequenceEmpty"), x)
    items = g.op("SequenceInsert", items, g.op("Neg", x))
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6]) for name in "ab"]
    body = helper.make_graph(
        [helper.make_node("Sub", ["a", "b"], ["c"])],
        "body",
        info,
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", 6])],
    )
    g.output(g.op("SequenceMap", items, x, body=body))
    check(g, x=X)


def test_optionals() -> None:
    g = Graph(opset=18)
    x = g.input("x", ["n", 6])
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 6])
    filled, empty = g.op("Optional", x), g.op("Optional", type=kind)
    g.output(
        g.op("OptionalGetElement", filled),
        g.op("OptionalHasElement", filled),
        g.op("OptionalHasElement", empty),
        g.op("OptionalHasElement", x),
        g.op("OptionalHasElement"),
    )
    check(g, x=X)


def test_lengths_that_only_the_run_knows_are_refused() -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    g.output(g.op("SequenceLength", g.op("SplitToSequence", x)))
    with pytest.raises(ImportModelError, match="parts of 1 of an axis of n"):
        transect.compile(g.model(), cache=False)


@pytest.mark.parametrize("position", [2, -3])
def test_positions_beyond_the_ends_are_refused(position: int) -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    items = g.op("SequenceConstruct", x, x)
    g.output(g.op("SequenceAt", items, number(g, position)))
    with pytest.raises(ImportModelError, match=f"position {position} of a sequence of 2"):
        transect.compile(g.model(), cache=False)


def test_a_sequence_is_no_tensor() -> None:
    g = Graph()
    x = g.input("x", ["n", 6])
    g.output(g.op("SequenceConstruct", x))
    proto = g.model()
    proto.graph.node.append(helper.make_node("Relu", [proto.graph.output[0].name], ["y"]))
    proto.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    with pytest.raises(ImportModelError, match="an operand is a sequence, not a tensor"):
        transect.compile(proto, cache=False)
