"""Operators on positions, compiled, against ONNX Runtime: random ranks, sizes, dtypes, attributes.

Dimensions are dynamic by turns; limits, axes and counts come as inputs, so that only a run knows
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import transect
from tests.frontend.onnx_models import Graph, expected

FLOATS = (np.float32, np.float64)
NUMBERS = (*FLOATS, np.int32, np.int64)
ANY = (*NUMBERS, np.int8, np.uint8, np.bool_)


class Draw:
    """A model with one node, whose inputs and attributes are drawn at random."""

    def __init__(self, seed: int, opset: int) -> None:
        self.random = np.random.default_rng(seed)
        self.graph = Graph(opset)
        self.inputs: dict[str, np.ndarray] = {}

    def number(self, low: int, high: int) -> int:
        """An integer of [low, high]."""
        return int(self.random.integers(low, high + 1))

    def sizes(self, rank: int, low: int = 1) -> list[int]:
        """Extents."""
        return [self.number(low, 5) for _ in range(rank)]

    def one_of(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[self.number(0, len(choices) - 1)]

    def values(self, sizes: list[int], dtype: Any) -> np.ndarray:
        """Numbers, some of them equal."""
        drawn = self.random.integers(-4 if np.dtype(dtype).kind in "if" else 0, 5, sizes)
        return np.asarray(drawn, dtype)

    def input(self, array: np.ndarray, *, fixed: bool = False) -> str:
        """An input, its dimensions dynamic by turns."""
        name = f"x{len(self.inputs)}"
        dynamic = not fixed and self.number(0, 2) > 0
        dims = [f"{name}_{i}" if dynamic else size for i, size in enumerate(array.shape)]
        self.inputs[name] = array
        return self.graph.input(name, dims, array.dtype)

    def now_or_later(self) -> Callable[[np.ndarray], str]:
        """How all limits of a node are given: as weights, or as inputs of known size."""

        def later(array: np.ndarray) -> str:
            return self.input(array, fixed=True)

        return self.one_of(self.graph.constant, later)

    def check(self, kind: str, *operands: str, outputs: int = 1, **attributes: Any) -> None:
        """The compiled node agrees with ONNX Runtime, or fails where that does."""
        found = self.graph.op(kind, *operands, outputs=outputs, **attributes)
        self.graph.output(*([found] if outputs == 1 else found))
        proto = self.graph.model()
        wanted = expected(proto, self.inputs)
        results: Any = transect.compile(proto, cache=False)(**self.inputs)
        results = results if isinstance(results, tuple) else (results,)
        for ours, theirs in zip(results, wanted, strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def gather(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4)), d.one_of(*ANY))
    axis = d.number(-x.ndim, x.ndim - 1)
    n = x.shape[axis]
    indices = d.random.integers(-n, n, d.sizes(d.number(0, 2)))
    d.check(
        "Gather", d.input(x), d.input(np.asarray(indices, d.one_of(np.int32, np.int64))), axis=axis
    )


def gather_elements(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4)), d.one_of(*ANY))
    axis = d.number(-x.ndim, x.ndim - 1)
    n = x.shape[axis]
    sizes = [d.number(1, size) for size in x.shape]
    sizes[axis] = d.number(1, 6)
    indices = d.random.integers(-n, n, sizes)
    d.check("GatherElements", d.input(x), d.input(indices), axis=axis)


def places(d: Draw, sizes: list[int], shape: list[int]) -> np.ndarray:
    """Indices into axes of these sizes."""
    columns = [d.random.integers(-n, n, shape) for n in sizes]
    return np.stack(columns, -1)


def gather_nd(d: Draw) -> None:
    batch = d.number(0, 1)
    sizes = d.sizes(d.number(batch + 1, 4))
    depth = d.number(1, len(sizes) - batch)
    where = places(d, sizes[batch : batch + depth], [*sizes[:batch], *d.sizes(d.number(0, 2))])
    x = d.values(sizes, d.one_of(*ANY))
    # Of the same batch: their first dimensions must be known to agree.
    d.check("GatherND", d.input(x, fixed=True), d.input(where, fixed=True), batch_dims=batch)


def scatter_elements(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 3)), d.one_of(*NUMBERS))
    axis = d.number(-x.ndim, x.ndim - 1)
    n = x.shape[axis]
    sizes = [d.number(1, size) for size in x.shape]
    sizes[axis] = d.number(1, 6)
    reduction = d.one_of("none", "add", "mul", "min", "max")
    indices = d.random.integers(-n, n, sizes)
    updates = d.values(sizes, x.dtype)
    names = [d.input(item, fixed=True) for item in (x, indices, updates)]
    d.check("ScatterElements", *names, axis=axis, reduction=reduction)


def scatter_nd(d: Draw) -> None:
    sizes = d.sizes(d.number(1, 3))
    depth = d.number(1, len(sizes))
    shape = d.sizes(d.number(0, 2))
    where = places(d, sizes[:depth], shape)
    x = d.values(sizes, d.one_of(*NUMBERS))
    updates = d.values([*shape, *sizes[depth:]], x.dtype)
    names = [d.input(item, fixed=True) for item in (x, where, updates)]
    d.check("ScatterND", *names, reduction=d.one_of("none", "add", "mul", "min", "max"))


def top_k(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 3)), d.one_of(*NUMBERS))
    axis = d.number(-x.ndim, x.ndim - 1)
    k = np.asarray([d.number(0, x.shape[axis])])
    known = d.now_or_later()
    d.check("TopK", d.input(x), known(k), outputs=2, axis=axis, largest=d.number(0, 1))


def slice_(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4)), d.one_of(*ANY))
    count = d.number(1, x.ndim)
    axes = d.random.permutation(x.ndim)[:count] - x.ndim * d.random.integers(0, 2, count)
    starts, ends = (d.random.integers(-7, 8, count) for _ in range(2))
    steps = d.random.choice([-2, -1, 1, 2, 3], count)
    known = d.now_or_later()
    d.check("Slice", d.input(x), *(known(item) for item in (starts, ends, axes, steps)))


def split(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 3), 2), d.one_of(*ANY))
    axis = d.number(-x.ndim, x.ndim - 1)
    first = d.number(0, x.shape[axis])
    sizes = d.graph.constant([first, x.shape[axis] - first])
    d.check("Split", d.input(x), sizes, outputs=2, axis=axis)


def range_(d: Draw) -> None:
    dtype = d.one_of(*NUMBERS)
    limits = [d.number(-6, 6), d.number(-6, 6), d.one_of(-2, -1, 1, 2, 3)]
    known = d.now_or_later()
    d.check("Range", *(known(np.asarray(item, dtype)) for item in limits))


def tile(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4)), d.one_of(*NUMBERS))
    known = d.now_or_later()
    d.check("Tile", d.input(x), known(d.random.integers(0, 4, x.ndim)))


def cum_sum(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4), 0), d.one_of(*NUMBERS))
    axis = np.asarray(d.number(-x.ndim, x.ndim - 1))
    known = d.now_or_later()
    d.check("CumSum", d.input(x), known(axis), exclusive=d.number(0, 1), reverse=d.number(0, 1))


def trilu(d: Draw) -> None:
    x = d.values(d.sizes(d.number(2, 4)), d.one_of(np.float32, np.int64))
    known = d.now_or_later()
    d.check("Trilu", d.input(x), known(np.asarray(d.number(-6, 6))), upper=d.number(0, 1))


def one_hot(d: Draw) -> None:
    indices = d.random.integers(-6, 7, d.sizes(d.number(1, 3)))
    axis = d.number(-indices.ndim - 1, indices.ndim)
    known = d.now_or_later()
    # ONNX Runtime has these three dtypes for int64 indices.
    depth = known(np.asarray(d.number(1, 5)))
    values = d.graph.constant(np.asarray([2, 5], d.one_of(np.float32, np.int64)))
    d.check("OneHot", d.input(indices), depth, values, axis=axis)


def reverse_sequence(d: Draw) -> None:
    x = d.values(d.sizes(d.number(2, 4)), d.one_of(*NUMBERS))
    time = d.number(0, 1)
    lengths = d.random.integers(1, x.shape[time] + 1, x.shape[1 - time])
    names = [d.input(item, fixed=True) for item in (x, lengths)]
    d.check("ReverseSequence", *names, time_axis=time, batch_axis=1 - time)


def hardmax(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4)), np.float32)
    d.check("Hardmax", d.input(x), axis=d.number(-x.ndim, x.ndim - 1))


def arg_max(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4)), d.one_of(np.float32, np.int32))
    d.check(
        d.one_of("ArgMax", "ArgMin"),
        d.input(x),
        axis=d.number(-x.ndim, x.ndim - 1),
        keepdims=d.number(0, 1),
        select_last_index=d.number(0, 1),
    )


def nonzero(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 4), 0), d.one_of(np.float32, np.int64, np.bool_, np.uint8))
    d.check("NonZero", d.input(x))


def compress(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 3)), d.one_of(*NUMBERS))
    axis = d.number(-x.ndim, x.ndim)
    attributes = {} if axis == x.ndim else {"axis": axis}
    extent = x.size if axis == x.ndim else x.shape[axis]
    condition = d.random.integers(0, 2, d.number(1, extent)).astype(np.bool_)
    d.check("Compress", d.input(x), d.input(condition), **attributes)


def unique(d: Draw) -> None:
    x = d.values(d.sizes(d.number(1, 3)), d.one_of(np.float32, np.int64))
    axis = d.number(-x.ndim, x.ndim)
    attributes = {} if axis == x.ndim else {"axis": axis}
    d.check("Unique", d.input(x), outputs=4, sorted=d.number(0, 1), **attributes)


def non_max_suppression(d: Draw) -> None:
    batch, classes, count = d.number(1, 2), d.number(1, 3), d.number(1, 12)
    boxes = d.random.uniform(0, 2, (batch, count, 4)).astype(np.float32)
    scores = d.random.integers(0, 8, (batch, classes, count)).astype(np.float32)
    limits = [
        np.asarray([d.number(0, count)]),
        np.asarray([d.one_of(0.2, 0.5)], np.float32),
        np.asarray([d.number(-1, 6)], np.float32),
    ]
    names = [d.input(item, fixed=True) for item in (boxes, scores, *limits[: d.number(1, 3)])]
    d.check("NonMaxSuppression", *names, center_point_box=d.number(0, 1))


KINDS: tuple[Callable[[Draw], None], ...] = (
    gather, gather_elements, gather_nd, scatter_elements, scatter_nd, top_k, slice_, split, range_,
    tile, cum_sum, trilu, one_hot, reverse_sequence, hardmax, arg_max, nonzero, compress, unique,
    non_max_suppression,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agrees_with_onnx_runtime(kind: Callable[[Draw], None], seed: int) -> None:
    kind(Draw(seed, opset=18))


MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
REFERENCE: dict[str, tuple[int, tuple[np.ndarray, ...], dict[str, Any]]] = {
    "EyeLike": (17, (MATRIX,), {"k": 1, "dtype": 7}),
    "Hardmax": (13, (MATRIX.reshape(3, 2, 2),), {"axis": 1}),
    "CumProd": (26, (MATRIX, np.array(1)), {"exclusive": 1, "reverse": 1}),
    "TensorScatter": (
        24,
        (np.zeros((2, 4, 2), np.float32), np.ones((2, 3, 2), np.float32), np.array([2, 0])),
        {"mode": "circular"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFERENCE)
def test_agrees_with_the_reference(kind: str) -> None:
    opset, arrays, attributes = REFERENCE[kind]
    graph = Graph(opset)
    names = [graph.input(f"x{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]
    graph.output(graph.op(kind, *names, **attributes))
    model = graph.model()
    inputs = dict(zip(names, arrays, strict=True))
    (wanted,) = ReferenceEvaluator(model).run(None, inputs)
    found: Any = transect.compile(model, cache=False)(**inputs)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
