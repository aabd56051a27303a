"""Shapes computed inside a graph stay shapes: nothing about them is left to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import transect
from tests.frontend.onnx_models import Graph, expected
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.relax import expr as rx
from transect.relax.visit import bindings

INT64, INT32 = TensorProto.INT64, TensorProto.INT32

Build = Callable[[Graph, str], str]
"""From the input (n, 6, m) to a shape of as many elements."""


def ints(g: Graph, *values: int) -> str:
    return g.constant(list(values), np.int64)


def concat(g: Graph, *parts: str) -> str:
    return g.op("Concat", *parts, axis=0)


def dimension(g: Graph, x: str, axis: int) -> str:
    """One dimension, as exporters ask for it: a vector of one element."""
    return g.op(
        "Unsqueeze", g.op("Gather", g.op("Shape", x), g.constant(axis, np.int64)), ints(g, 0)
    )


def gathered(g: Graph, x: str) -> str:
    return concat(g, dimension(g, x, 0), ints(g, -1))


def sliced(g: Graph, x: str) -> str:
    head = g.op("Slice", g.op("Shape", x), ints(g, 0), ints(g, 1), ints(g, 0), ints(g, 1))
    return concat(g, head, ints(g, 2, 3), dimension(g, x, -1))


def cast_twice(g: Graph, x: str) -> str:
    small = g.op("Cast", g.op("Shape", x), to=INT32)
    head = g.op("Slice", small, ints(g, 0), ints(g, 1), ints(g, 0))
    joined = concat(g, head, g.constant([6], np.int32), g.constant([-1], np.int32))
    return g.op("Cast", joined, to=INT64)


def multiplied(g: Graph, x: str) -> str:
    rows = g.op("Mul", dimension(g, x, 0), dimension(g, x, 1))
    return concat(g, rows, dimension(g, x, 2))


def divided(g: Graph, x: str) -> str:
    half = g.op("Div", dimension(g, x, 1), ints(g, 2))
    return concat(g, dimension(g, x, 0), ints(g, 2), half, dimension(g, x, 2))


def summed(g: Graph, x: str) -> str:
    more = g.op("Sub", g.op("Add", dimension(g, x, 1), ints(g, 5)), ints(g, 5))
    return concat(g, more, g.op("Neg", ints(g, 1)))


def sized(g: Graph, x: str) -> str:
    return concat(g, ints(g, 1), g.op("Unsqueeze", g.op("Size", x), ints(g, 0)))


def chosen(g: Graph, x: str) -> str:
    is_known = g.op("Equal", ints(g, 3, -1), ints(g, 3, -7))
    return concat(g, g.op("Where", is_known, ints(g, 2, 9), ints(g, 5, -1)), ints(g, 3))


def filled(g: Graph, x: str) -> str:
    one = onnx.numpy_helper.from_array(np.array([1], np.int64))
    ones = g.op("ConstantOfShape", ints(g, 2), value=one)
    return concat(g, ones, dimension(g, x, 0), ints(g, -1))


def squeezed(g: Graph, x: str) -> str:
    scalar = g.op("Squeeze", dimension(g, x, 0), ints(g, 0))
    vector = g.op("Reshape", g.op("Identity", scalar), ints(g, 1))
    return concat(g, vector, ints(g, 0, -1))


def compared(g: Graph, x: str) -> str:
    return concat(g, g.op("Max", dimension(g, x, 1), ints(g, 2)), ints(g, -1))


def backwards(g: Graph, x: str) -> str:
    return g.op("Slice", g.op("Shape", x), ints(g, -1), ints(g, -(2**62)), ints(g, 0), ints(g, -1))


SHAPES: list[Build] = [
    gathered, sliced, cast_twice, multiplied, divided, summed, sized, chosen, filled, squeezed,
    compared, backwards,
]  # fmt: skip


def reshaping(build: Build) -> onnx.ModelProto:
    g = Graph()
    x = g.input("x", ["n", 6, "m"])
    g.output(g.op("Reshape", x, build(g, x)))
    return g.model()


@pytest.mark.parametrize("build", SHAPES)
def test_reshape_to_a_computed_shape(build: Build) -> None:
    proto = reshaping(build)
    model = transect.compile(proto, cache=False)
    main = model.stages["input"]["main"]
    assert isinstance(main, rx.Function)
    calls = [item.value for item in bindings(main) if isinstance(item.value, rx.Call)]
    assert [call.op.name for call in calls] == ["reshape"], "a shape is computed as a tensor"
    for n, m in ((2, 5), (1, 1), (7, 3)):
        x = np.random.default_rng(n).standard_normal((n, 6, m)).astype(np.float32)
        (wanted,) = expected(proto, {"x": x})
        np.testing.assert_array_equal(model(x), wanted)


@pytest.mark.parametrize("build", [gathered, multiplied, cast_twice, squeezed])
def test_no_kernel_is_left_of_a_reshape(build: Build) -> None:
    """One copy to the result, and no more."""
    module = transect.compile(reshaping(build), cache=False).stages["PlanMemory"]
    assert len(module.functions) <= 2


def test_a_shape_and_its_tensor_are_both_there() -> None:
    """A shape that is also data: added to a tensor, and returned."""
    g = Graph()
    x = g.input("x", ["n", 6, "m"])
    dims = g.op("Shape", x)
    scale = g.op("Cast", g.op("Gather", dims, g.constant(2, np.int64)), to=TensorProto.FLOAT)
    flat = g.op("Reshape", x, concat(g, dimension(g, x, 0), ints(g, -1)))
    g.output(g.op("Mul", flat, scale), g.op("Identity", dims), g.op("Size", x))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    for n, m in ((2, 5), (1, 3), (4, 1)):
        x = np.random.default_rng(n).standard_normal((n, 6, m)).astype(np.float32)
        for ours, theirs in zip(model(x), expected(proto, {"x": x}), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_expand_and_fill_to_a_computed_shape() -> None:
    g = Graph()
    x, like = g.input("x", [1, "m"]), g.input("like", ["n", "m"])
    g.output(g.op("Expand", x, g.op("Shape", like)), g.op("ConstantOfShape", g.op("Shape", like)))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    for n, m in ((3, 4), (0, 2), (1, 1)):
        inputs = {"x": np.ones((1, m), np.float32), "like": np.zeros((n, m), np.float32)}
        for ours, theirs in zip(model(**inputs), expected(proto, inputs), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_an_empty_batch_keeps_its_shape() -> None:
    model = transect.compile(reshaping(gathered), cache=False)
    assert model(np.zeros((0, 6, 5), np.float32)).shape == (0, 30)
    assert model(np.zeros((4, 6, 0), np.float32)).shape == (4, 0)


def test_dimensions_without_a_name() -> None:
    g = Graph()
    x = g.input("x", ["n", 4])
    g.output(g.op("Relu", x))
    proto = g.model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    model = transect.compile(proto, cache=False)
    assert str(model.signature) == "main(x: float32 (x_0, 4)) -> float32 (x_0, 4)"
    assert model(np.ones((3, 4), np.float32)).shape == (3, 4)


def test_dimensions_with_names_that_python_does_not_allow() -> None:
    """Two that differ only in what is not allowed stay two."""
    g = Graph()
    for number, name in enumerate(("batch size", "batch-size", "1st")):
        g.output(g.op("Neg", g.input(f"x{number}", [name, 2])))
    model = transect.compile(g.model(), cache=False)
    values = [np.ones((rows, 2), np.float32) for rows in (3, 4, 5)]
    for value, result in zip(values, model(*values), strict=True):
        np.testing.assert_array_equal(result, -value)
    assert list(model.signature.dimensions()) == ["batch_size", "batch_size_1", "_1st"]


@pytest.mark.parametrize("target", [[4, 6], [-1, 2], [0, -1], [24, -1], [-1, 24]], ids=str)
def test_reshape_by_data(target: list[int]) -> None:
    """Only a run knows where 0 and -1 stand."""
    proto = by_data("Reshape", [2])
    inputs = {"x": np.ones((4, 6), np.float32), "given": np.array(target)}
    (wanted,) = expected(proto, inputs)
    assert transect.compile(proto, cache=False)(**inputs).shape == wanted.shape


def by_data(kind: str, dims: list[int]) -> onnx.ModelProto:
    """A model of one operator on x (n, 6) and numbers that only a run knows."""
    g = Graph()
    g.output(g.op(kind, g.input("x", ["n", 6]), g.input("given", dims, np.int64)))
    return g.model()


@pytest.mark.parametrize("target", [[5, 5], [-1, 7], [-2, 12]], ids=str)
def test_reshape_by_data_that_does_not_fit(target: list[int]) -> None:
    model = transect.compile(by_data("Reshape", [2]), cache=False)
    with pytest.raises(ValueError, match="expected"):
        model(np.ones((4, 6), np.float32), np.array(target))


@pytest.mark.parametrize("target", [[4, 6], [1, 6], [4, 1], [1, 1]], ids=str)
def test_expand_by_data(target: list[int]) -> None:
    proto = by_data("Expand", [2])
    inputs = {"x": np.ones((4, 6), np.float32), "given": np.array(target)}
    (wanted,) = expected(proto, inputs)
    np.testing.assert_array_equal(transect.compile(proto, cache=False)(**inputs), wanted)


def test_a_negative_size_fails() -> None:
    g = Graph()
    g.output(g.op("ConstantOfShape", g.input("given", [2], np.int64)))
    model = transect.compile(g.model(), cache=False)
    assert model(np.array([2, 3])).shape == (2, 3)
    with pytest.raises(ValueError, match="is -2, expected 0"):
        model(np.array([-2, -3]))


def test_sizes_that_pass_through_floats() -> None:
    """As exporters write half of a size, and the padding to a multiple."""
    g = Graph()
    x = g.input("x", ["n", 6, "m"])
    length = g.op("Cast", dimension(g, x, 2), to=TensorProto.FLOAT)
    half = g.op("Floor", g.op("Mul", length, g.constant([0.5], np.float32)))
    blocks = g.op("Ceil", g.op("Div", length, g.constant([8.0], np.float32)))
    sizes = [g.op("Cast", item, to=INT64) for item in (half, blocks)]
    g.output(g.op("ConstantOfShape", concat(g, *sizes)))
    proto = g.model()
    main = OnnxFrontend().load(proto)["main"]
    assert isinstance(main, rx.Function)
    assert [item.value.op.name for item in bindings(main)] == ["full"]
    model = transect.compile(proto, cache=False)
    for m in (1, 8, 9, 31):
        inputs = {"x": np.ones((1, 6, m), np.float32)}
        assert model(**inputs).shape == expected(proto, inputs)[0].shape


def of_unknown_rank(g: Graph, result: str) -> onnx.ModelProto:
    """A model whose result has dimensions of which ONNX's own inference knows nothing."""
    output = onnx.helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(g.nodes, "graph", g.inputs, [output], g.weights)
    opsets = [onnx.helper.make_opsetid("", g.opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMax", "ReduceMean"])
def test_reduce_over_axes_by_data(kind: str, keepdims: int) -> None:
    g = Graph(18)
    x, axes = g.input("x", ["n", 6, "m"]), g.input("axes", [2], np.int64)
    proto = of_unknown_rank(g, g.op(kind, x, axes, keepdims=keepdims))
    model = transect.compile(proto, cache=False)
    data = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    for chosen in ([0, 1], [-1, 0], [2, 1]):
        inputs = {"x": data, "axes": np.array(chosen)}
        (wanted,) = expected(proto, inputs)
        np.testing.assert_allclose(model(**inputs), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["Squeeze", "Unsqueeze"])
def test_axes_of_size_one_by_data(kind: str) -> None:
    g = Graph()
    x, axes = g.input("x", ["n", 1, "m"]), g.input("axes", [1], np.int64)
    proto = of_unknown_rank(g, g.op(kind, x, axes))
    model = transect.compile(proto, cache=False)
    for shape, axis in (((1, 1, 3), 0), ((1, 1, 3), 1), ((2, 1, 1), -1), ((2, 1, 1), 1)):
        inputs = {"x": np.ones(shape, np.float32), "axes": np.array([axis])}
        assert model(**inputs).shape == expected(proto, inputs)[0].shape


@pytest.mark.parametrize(
    ("kind", "left", "right", "attributes"),
    [
        ("Sub", ["n", 3], ["m", 3], {}),
        ("Sub", ["n", 3], ["m", 1], {}),
        ("PRelu", ["n", 3], ["m", 3], {}),
        ("MatMul", ["n", 4, 3], ["m", 3, 2], {}),
        ("Einsum", ["n", 4, 3], ["m", 3, 2], {"equation": "bij,bjk->bik"}),
        ("Einsum", ["n", 3], ["m", 3], {"equation": "ij,ij->j"}),
    ],
)
def test_sizes_that_broadcast_when_the_model_runs(
    kind: str, left: list[int | str], right: list[int | str], attributes: dict[str, Any]
) -> None:
    """Which of two sizes is 1 only the run knows."""
    g = Graph()
    g.output(g.op(kind, g.input("a", left), g.input("b", right), **attributes))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    for n, m in ((4, 1), (1, 4), (4, 4), (1, 1)):
        if kind == "PRelu" and n < m:
            continue  # its slope does not enlarge it
        random = np.random.default_rng(n * 8 + m)
        sizes = {"n": n, "m": m}
        a, b = (
            random.standard_normal([sizes.get(d, d) for d in dims]).astype(np.float32)
            for dims in (left, right)
        )
        (wanted,) = expected(proto, {"a": a, "b": b})
        np.testing.assert_allclose(model(a, b), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"broadcast|expected"):
        model(*(np.ones([k, *dims[1:]], np.float32) for k, dims in ((2, left), (3, right))))


def test_a_part_that_shrinks_to_one_broadcasts() -> None:
    """Two sizes of the same variable, one of which is 1 for small ones."""
    g = Graph()
    x = g.input("x", ["n", 2])
    part = g.op("Slice", x, ints(g, 0), ints(g, 2**62), ints(g, 0), ints(g, 3))
    g.output(g.op("Add", x, part))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    for n in (1, 2, 3):
        x = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
        np.testing.assert_array_equal(model(x), expected(proto, {"x": x})[0])


def test_a_slice_of_at_most_one_broadcasts_against_two() -> None:
    """They are never equal, but one is 1 for all sizes except 0."""
    g = Graph()
    x = g.input("x", ["n"])
    part = g.op("Slice", x, ints(g, 0), ints(g, 1), ints(g, 0))
    g.output(g.op("Mul", part, g.input("y", [2])))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    y = np.array([2, 3], np.float32)
    for n in (1, 4):
        x = np.arange(5, n + 5, dtype=np.float32)
        np.testing.assert_array_equal(model(x, y), expected(proto, {"x": x, "y": y})[0])
    with pytest.raises(ValueError, match="broadcast"):
        model(np.ones(0, np.float32), y)


@pytest.mark.parametrize("start", [-100, -(2**63) + 1, -1, 2, 100])
@pytest.mark.parametrize("dims", [["n"], [4]])
def test_a_slice_backwards_from_before_the_first(start: int, dims: list[int | str]) -> None:
    """Begins before the first element are the first, whether the size is known or not."""
    g = Graph()
    x = g.input("x", dims)
    places = ints(g, start), ints(g, -(2**63) + 1), ints(g, 0), ints(g, -1)
    g.output(g.op("Slice", x, *places), g.op("Slice", g.op("Shape", x), *places))
    proto = g.model()
    model = transect.compile(proto, cache=False)
    for n in (4,) if dims == [4] else (0, 1, 4):
        x = np.arange(n, dtype=np.float32)
        for result, wanted in zip(model(x), expected(proto, {"x": x}), strict=True):
            np.testing.assert_array_equal(result, wanted)
