"""Positions that a run computes wrongly: an error that names the node, never a wild access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import transect
from tests.frontend.onnx_models import Graph

Build = Callable[[Graph, str, str], str]

CASES: dict[str, tuple[Build, list[int | str], Any]] = {
    "Gather": (lambda g, x, i: g.op("Gather", x, i), ["n"], [0, 4, 5]),
    "Gather negative": (lambda g, x, i: g.op("Gather", x, i), ["n"], [0, -6]),
    "Gather fused": (lambda g, x, i: g.op("Exp", g.op("Gather", x, i)), ["n"], [2**40]),
    "GatherElements": (lambda g, x, i: g.op("GatherElements", x, i, axis=1), [2, "n"], [[0], [3]]),
    "GatherND": (lambda g, x, i: g.op("GatherND", x, i), ["n", 2], [[0, 0], [5, 0]]),
    "ScatterElements": (
        lambda g, x, i: g.op("ScatterElements", x, i, g.op("Cast", i, to=1)), [1, 3], [[0, 1, 5]],
    ),
    "ScatterND": (
        lambda g, x, i: g.op("ScatterND", x, i, g.constant(np.zeros((1, 3), np.float32))),
        [1, 1], [[-6]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_index_out_of_range_names_the_node(name: str) -> None:
    build, dims, indices = CASES[name]
    g = Graph()
    x, i = g.input("x", ["rows", 3]), g.input("i", dims, np.int64)
    g.output(build(g, x, i))
    model = transect.compile(g.model(), cache=False)
    values, places = np.ones((5, 3), np.float32), np.array(indices)
    with pytest.raises(IndexError, match="is out of range for an axis of") as caught:
        model(values, places)
    notes = " ".join(getattr(caught.value, "__notes__", ()))
    assert f"{name.split()[0]} node" in notes
    # The model still works, in the same process.
    model(values, np.zeros_like(places))


def test_an_index_into_nothing_is_out_of_range() -> None:
    g = Graph()
    x, i = g.input("x", ["rows", 3]), g.input("i", ["n"], np.int64)
    g.output(g.op("Gather", x, i))
    model = transect.compile(g.model(), cache=False)
    with pytest.raises(IndexError, match="index 0 is out of range for an axis of 0"):
        model(np.ones((0, 3), np.float32), np.zeros(1, np.int64))
    assert model(np.ones((0, 3), np.float32), np.zeros(0, np.int64)).shape == (0, 3)


def test_an_error_among_many_rows_on_several_cores() -> None:
    g = Graph()
    x, i = g.input("x", ["rows", 64]), g.input("i", ["n"], np.int64)
    g.output(g.op("Gather", x, i))
    model = transect.compile(g.model(), cache=False)
    places = np.zeros(20_000, np.int64)
    places[[5_000, 15_000]] = 7
    with pytest.raises(IndexError, match="index 7 is out of range for an axis of 7"):
        model(np.ones((7, 64), np.float32), places)


def test_more_than_there_are() -> None:
    g = Graph()
    x, k = g.input("x", ["n"]), g.input("k", [1], np.int64)
    values, _ = g.op("TopK", x, k, outputs=2)
    g.output(values)
    model = transect.compile(g.model(), cache=False)
    x_values = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(model(x_values, np.array([2])), [3, 2])
    with pytest.raises(ValueError, match="k = 5 of an axis of 4"):
        model(x_values, np.array([5]))
    with pytest.raises(ValueError, match="k"):
        model(x_values, np.array([-1]))


def test_a_range_that_does_not_move() -> None:
    g = Graph()
    limits = [g.input(name, [], np.int64) for name in ("start", "limit", "delta")]
    g.output(g.op("Range", *limits))
    model = transect.compile(g.model(), cache=False)
    np.testing.assert_array_equal(model(*map(np.asarray, (5, 0, -2))), [5, 3, 1])
    with pytest.raises(ValueError, match="the step is 0"):
        model(*map(np.asarray, (5, 0, 0)))


def test_a_sequence_longer_than_its_axis() -> None:
    g = Graph()
    x, lengths = g.input("x", [2, "t"]), g.input("lengths", [2], np.int64)
    g.output(g.op("ReverseSequence", x, lengths, time_axis=1, batch_axis=0))
    model = transect.compile(g.model(), cache=False)
    with pytest.raises(IndexError, match="a sequence of 4 in an axis of 3"):
        model(np.ones((2, 3), np.float32), np.array([1, 4]))
