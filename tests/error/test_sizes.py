"""Sizes that are absurd, negative, or contradict each other, in a model and in its inputs: an error
that names the node before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import transect
from tests.frontend.onnx_models import Graph
from transect.support.errors import ImportModelError, InferenceError, TransectError

HUGE = 2**62
Build = Callable[[Graph, str, str], str]


def unchecked(g: Graph) -> onnx.ModelProto:
    """The model of a graph that onnx would refuse."""
    outputs = [onnx.ValueInfoProto(name=name) for name in g.outputs]
    graph = helper.make_graph(g.nodes, "graph", g.inputs, outputs, g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=8)


X = np.arange(6, dtype=np.float32).reshape(3, 2)

# An operator, the form of its second operand, and what that must not be.
OPERATORS: dict[str, tuple[Build, list[int | str], list[Any]]] = {
    "ConstantOfShape": (
        lambda g, _x, s: g.op("ConstantOfShape", s), [1], [[HUGE], [-1], [2**63 - 1], [2**44]],
    ),
    "Expand": (
        lambda g, x, s: g.op("Expand", x, s), [3], [[HUGE, 3, 2], [-2, 3, 2], [1, 2, 2]],
    ),
    "Tile": (
        lambda g, x, s: g.op("Tile", x, s), [2], [[1, HUGE], [2**40, 2**40], [-1, 1]],
    ),
    "Pad": (
        lambda g, x, s: g.op("Pad", x, s), [4],
        [[0, HUGE, 0, 0], [0, HUGE, 0, HUGE], [0, -3, 0, 0]],
    ),
    "Reshape": (
        lambda g, x, s: g.op("Reshape", x, s), [2],
        [[5, -1], [-2, 3], [HUGE, 4], [2**32, 2**32], [-1, -1]],
    ),
    "Resize": (
        lambda g, x, s: g.op("Resize", x, "", "", s), [2], [[HUGE, 1], [-3, 1], [2**40, 2**40]],
    ),
    "OneHot": (
        lambda g, x, s: g.op(
            "OneHot", g.op("Cast", x, to=7), s, g.constant(np.array([0, 1], np.float32))
        ),
        [1], [[HUGE], [2**44], [-1]],
    ),
    "TopK": (lambda g, x, s: g.op("TopK", x, s, outputs=2)[0], [1], [[HUGE], [3], [-1]]),
    "Split": (
        lambda g, x, s: g.op("Split", x, s, outputs=2, axis=0)[0], [2],
        [[1, 3], [-1, 4], [2**63 - 1, 4], [HUGE, -HUGE]],
    ),
    "CumSum": (lambda g, x, s: g.op("CumSum", x, g.op("Squeeze", s)), [1], [[2], [-3], [HUGE]]),
    "Unsqueeze": (lambda g, x, s: g.op("Unsqueeze", x, s), [1], [[3], [-4], [HUGE]]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_sizes_that_a_run_computes(name: str) -> None:
    build, dims, wrong = OPERATORS[name]
    g = Graph()
    x, s = g.input("x", ["n", 2]), g.input("s", dims, np.int64)
    g.output(build(g, x, s))
    model = transect.compile(unchecked(g), cache=False)
    for sizes in wrong:
        with pytest.raises((ValueError, MemoryError)) as caught:
            model(x=X, s=np.array(sizes))
        assert f"{name} node" in " ".join(getattr(caught.value, "__notes__", ())), sizes


CONSTANT = ["ConstantOfShape", "Expand", "Tile", "Pad", "Reshape", "Resize", "OneHot"]


@pytest.mark.parametrize("name", CONSTANT)
def test_sizes_that_a_model_stores(name: str) -> None:
    build, _, wrong = OPERATORS[name]
    for sizes in wrong:
        g = Graph()
        x = g.input("x", [3, 2])
        g.output(build(g, x, g.constant(np.array(sizes))))
        with pytest.raises((TransectError, ValueError, MemoryError)) as caught:
            transect.compile(unchecked(g), cache=False)(X)
        text = f"{caught.value} {' '.join(getattr(caught.value, '__notes__', ()))}"
        assert f"{name} node" in text or "Unable to allocate" in text, (sizes, text)


def test_a_range_that_is_too_long() -> None:
    g = Graph()
    g.output(g.op("Range", *(g.constant(np.array(v)) for v in (-(2**63), 2**63 - 1, 1))))
    with pytest.raises(ImportModelError, match="Range node"):
        transect.compile(unchecked(g), cache=False)


def test_inputs_that_cannot_exist() -> None:
    g = Graph()
    x = g.input("x", [HUGE, HUGE])
    g.output(g.op("Concat", x, x, axis=0))
    with pytest.raises(ImportModelError, match="Concat node"):
        transect.compile(unchecked(g), cache=False)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_nothing_to_pad_with(mode: str) -> None:
    g = Graph()
    x, widths = g.input("x", ["n", 2]), g.input("widths", [4], np.int64)
    g.output(g.op("Pad", x, widths, mode=mode))
    model = transect.compile(g.model(), cache=False)
    empty = np.zeros((0, 2), np.float32)
    with pytest.raises(ValueError, match="padded_has_elements_to_read") as caught:
        model(empty, np.array([1, 1, 1, 1]))
    assert "Pad node" in " ".join(caught.value.__notes__)
    assert model(empty, np.array([0, 1, 0, 1])).shape == (0, 4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_nothing_to_resize(mode: str) -> None:
    g = Graph()
    x, sizes = g.input("x", [1, 1, "h", "w"]), g.input("sizes", [4], np.int64)
    g.output(g.op("Resize", x, "", "", sizes, mode=mode))
    model = transect.compile(g.model(), cache=False)
    empty = np.zeros((1, 1, 0, 2), np.float32)
    with pytest.raises(ValueError, match="resized_has_elements_to_read") as caught:
        model(empty, np.array([1, 1, 3, 3]))
    assert "Resize node" in " ".join(caught.value.__notes__)
    assert model(empty, np.array([1, 1, 0, 3])).shape == (1, 1, 0, 3)


def test_positions_beyond_the_other_axes() -> None:
    """Off the axis that indices are along, there may be more of them than there are rows."""
    for name in ("GatherElements", "ScatterElements"):
        g = Graph()
        x, i = g.input("x", ["n", 2]), g.input("i", ["a", "b"], np.int64)
        more = [g.op("Cast", i, to=1)] if name == "ScatterElements" else []
        g.output(g.op(name, x, i, *more, axis=1))
        model = transect.compile(g.model(), cache=False)
        with pytest.raises(
            IndexError, match="position 3 is out of range for an axis of 3"
        ) as caught:
            model(X, np.zeros((4, 2), np.int64))
        assert f"{name} node" in " ".join(caught.value.__notes__)
        model(X, np.zeros((3, 1), np.int64))


def test_a_shape_divided_by_zero() -> None:
    for kind in ("Div", "Mod"):
        g = Graph()
        x = g.input("x", ["n", "m"])
        shape = g.op("Shape", x)
        n, m = (g.op("Gather", shape, g.constant(np.array([k]))) for k in (0, 1))
        g.output(g.op("ConstantOfShape", g.op(kind, n, m)))
        model = transect.compile(g.model(), cache=False)
        assert model(np.ones((5, 3), np.float32)).shape == ((1,) if kind == "Div" else (2,))
        with pytest.raises(ValueError, match=r"undefined size for n=5, m=0|divisor_is_not_zero"):
            model(np.ones((5, 0), np.float32))


@pytest.mark.parametrize("kind", ["MatMul", "Concat", "Add"])
def test_dimensions_that_contradict(kind: str) -> None:
    g = Graph()
    x, w = g.input("x", ["n", "k"]), g.input("w", ["j", "m"])
    g.output(g.op(kind, x, w, **({"axis": 0} if kind == "Concat" else {})))
    model = transect.compile(g.model(), cache=False)
    with pytest.raises(ValueError, match=r"expected|differ") as caught:
        model(np.ones((2, 3), np.float32), np.ones((4, 5), np.float32))
    assert f"{kind} node" in " ".join(caught.value.__notes__)


def test_what_constants_compute_wrongly_fails_when_it_runs() -> None:
    """Folding them leaves the error to the run, where it names the node."""
    g = Graph()
    x = g.input("x", ["n"])
    taken = g.op("Gather", g.constant(np.ones(100, np.float32)), g.constant(np.array([100])))
    g.output(g.op("Add", x, taken))
    model = transect.compile(g.model(), cache=False)
    with pytest.raises(IndexError, match="index 100 is out of range for an axis of 100") as caught:
        model(np.ones(1, np.float32))
    assert "Gather node" in " ".join(caught.value.__notes__)


def test_padding_that_is_known_to_crop_too_much() -> None:
    g = Graph()
    x = g.input("x", ["n", 2])
    g.output(g.op("Pad", x, g.constant(np.array([0, -3, 0, 0]))))
    with pytest.raises(InferenceError, match="cannot be cropped by"):
        transect.compile(g.model(), cache=False)
