"""Operators that give another shape, make tensors, slice and index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.relax_op.support import check, floats, integers, onnx_oracle, run, same
from transect.tir.index_map import index_map

X = floats(3, 4, 5)


@pytest.mark.parametrize("shape", [(12, 5), (60,), (3, 2, 2, 5), (3, -1), (5, 4, 3), (3, 1, 20)])
def test_reshape(shape: tuple[int, ...]) -> None:
    check(X.reshape(shape), "reshape", X, shape, symbolic=(3,) if shape[0] == -1 else ())


def test_reshape_with_a_symbolic_rest() -> None:
    check(X.reshape(-1, 10), "reshape", X, (-1, 10), symbolic=(3,))
    check(X.reshape(3, -1), "reshape", X, (3, -1))
    check(np.zeros((0, 6), "float32"), "reshape", np.zeros((0, 2, 3), "float32"), (0, 6))
    check(np.ones((), "float32"), "reshape", np.ones((1, 1), "float32"), ())
    check(np.ones((1, 1), "float32"), "reshape", np.ones((), "float32"), (1, 1))


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("flatten", {}, X.reshape(-1)),
        ("nn.batch_flatten", {}, X.reshape(3, 20)),
        ("expand_dims", {"axis": (0, -1)}, X[None, ..., None]),
        ("expand_dims", {"axis": 1}, X[:, None]),
        ("permute_dims", {}, X.transpose()),
        ("permute_dims", {"axes": (1, -1, 0)}, X.transpose(1, 2, 0)),
        ("repeat", {"repeats": 3, "axis": 1}, np.repeat(X, 3, 1)),
        ("repeat", {"repeats": 2}, np.repeat(X, 2)),
        ("repeat", {"repeats": 0, "axis": -1}, np.repeat(X, 0, -1)),
        ("tile", {"repeats": (2, 1, 3)}, np.tile(X, (2, 1, 3))),
        ("tile", {"repeats": (2, 1, 3, 1)}, np.tile(X, (2, 1, 3, 1))),
        ("tile", {"repeats": 2}, np.tile(X, 2)),
        ("flip", {"axis": 1}, np.flip(X, 1)),
        ("flip", {}, np.flip(X)),
        ("triu", {}, np.triu(X)),
        ("tril", {}, np.tril(X)),
        ("zeros_like", {}, np.zeros_like(X)),
        ("ones_like", {"dtype": "int32"}, np.ones(X.shape, "int32")),
        ("size", {}, np.array(60)),
    ],
)
def test_one_tensor(name: str, fields: dict[str, Any], expected: np.ndarray) -> None:
    check(expected, name, X, symbolic=(3, 4, 5), **fields)


def test_squeeze() -> None:
    x = floats(1, 3, 1)
    check(x[0], "squeeze", x, axis=0, symbolic=(3,))
    check(x[0, :, 0], "squeeze", x)


@pytest.mark.parametrize("k", [-2, 0, 1, 7])
def test_triangles(k: int) -> None:
    check(np.triu(X, k), "triu", X, k)
    check(np.tril(X, k), "tril", X, k, symbolic=(4, 5))


def test_broadcast_to() -> None:
    x = floats(3, 1)
    check(np.broadcast_to(x, (2, 3, 4)), "broadcast_to", x, (2, 3, 4))
    check(np.broadcast_to(np.float32(2), (2, 3)), "broadcast_to", np.array(2, "float32"), (2, 3))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_and_stack(axis: int) -> None:
    parts = (X, X * 2, X[:, :0] if axis == 1 else X)
    check(np.concatenate(parts, axis), "concat", parts, axis=axis, symbolic=(3, 4, 5))
    check(np.stack((X, X + 1), axis), "stack", (X, X + 1), axis=axis, symbolic=(3, 4, 5))


def test_concat_without_an_axis() -> None:
    check(np.arange(5), "concat", (np.arange(2), np.arange(2, 5)), axis=None)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (2, [(0, 3), (3, 5)]),
        (4, [(0, 2), (2, 4), (4, 5), (5, 5)]),
        ((1, 3), [(0, 1), (1, 3), (3, 5)]),
        ((2, 9), [(0, 2), (2, 5), (5, 5)]),
    ],
)
def test_split(cut: Any, expected: list[tuple[int, int]]) -> None:
    parts = [X[..., a:b] for a, b in expected]
    check(parts, "split", X, indices_or_sections=cut, axis=-1, symbolic=(3, 5))


def test_meshgrid() -> None:
    vectors = (np.arange(3), np.arange(4, 6), np.arange(4))
    for indexing in ("ij", "xy"):
        expected = np.meshgrid(*vectors, indexing=indexing)
        check(list(expected), "meshgrid", vectors, indexing=indexing, symbolic=(3,))


def test_constants() -> None:
    check(np.full((2, 3), 7, "int32"), "full", (2, 3), np.array(7, "int32"))
    check(np.full((2, 3), 7, "float16"), "full", (2, 3), 7, dtype="float16")
    check(np.zeros((2, 0), "float32"), "zeros", (2, 0))
    check(np.ones((), "bool"), "ones", (), dtype="bool")
    check(np.full_like(X, 2), "full_like", X, 2.0)
    check(np.eye(3, 4, 1, dtype="float32"), "eye", 3, 4, 1)
    check(np.eye(3, dtype="int8"), "eye", 3, dtype="int8")
    check(np.eye(3, 4, -1, dtype="float32"), "eye_like", X[..., 0], -1)


@pytest.mark.parametrize("given", [(5,), (2, 7), (0, 10, 3), (10, 0, -3), (5, 2), (0, 1, 7)])
def test_arange(given: tuple[int, ...]) -> None:
    check(np.arange(*given), "arange", *given)
    check(np.arange(*given).astype("float32"), "arange", *given, dtype="float32")


def test_arange_of_floats() -> None:
    check(np.arange(0.5, 3, 0.25, dtype="float32"), "arange", 0.5, 3.0, 0.25)
    check(np.arange(3, 0.5, -1, dtype="float32"), "arange", 3.0, 0.5, -1.0)


def test_one_hot() -> None:
    indices = np.array([[0, 2], [-1, 5]])
    for axis in (-1, 0, 1):
        expected = onnx_oracle(
            "OneHot", indices, np.array(4), np.array([-1.5, 2.5], "float32"), axis=axis
        )
        check(expected, "one_hot", indices, 2.5, -1.5, depth=4, axis=axis, symbolic=(2,))


def test_hamming_window() -> None:
    check(np.hamming(9)[:8].astype("float32"), "hamming_window", 8, periodic=True)
    check(np.hamming(8).astype("float32"), "hamming_window", 8, periodic=False)
    check(np.ones(1, "float32"), "hamming_window", 1)


@pytest.mark.parametrize(
    "selection",
    [
        slice(None, None, None),
        slice(1, 3),
        slice(1, -1),
        slice(-3, None),
        slice(None, None, -1),
        slice(3, 0, -2),
        slice(-1, -100, -1),
        slice(2, 100, 2),
        slice(100, None),
        slice(3, 1),
        slice(None, -100, -1),
        slice(100, 1, -1),
        slice(-100, 2),
    ],
)
def test_strided_slice(selection: slice) -> None:
    step = selection.step or 1
    far = 2**63 - 1
    begin = selection.start if selection.start is not None else (0 if step > 0 else far)
    end = selection.stop if selection.stop is not None else (far if step > 0 else -far)
    for axis in (0, 1):
        expected = X[selection] if axis == 0 else X[:, selection]
        check(expected, "strided_slice", X, (axis,), (begin,), (end,), (step,), symbolic=(3, 4))


def test_strided_slice_of_several_axes() -> None:
    check(
        X[1:, ::-1, 1:4:2],
        "strided_slice",
        X,
        (0, 1, -1),
        (1, -1, 1),
        (2**31 - 1, -9, 4),
        (1, -1, 2),
    )
    check(X[:, 1:2], "strided_slice", X, (1,), (1,), (2,), assume_inbound=True, symbolic=(3, 4))


def test_slice_scatter() -> None:
    values = floats(3, 2, 5, seed=1)
    expected = X.copy()
    expected[:, 1:4:2] = values
    check(expected, "slice_scatter", X, values, 1, 4, 2, axis=1, symbolic=(3,))


def test_take() -> None:
    indices = np.array([[0, -1], [2, 1]])
    for axis in (0, 1, -1):
        check(np.take(X, indices, axis), "take", X, indices, axis=axis, symbolic=(3, 5))
    check(np.take(X, 2, 1), "take", X, 2, axis=1)
    check(np.take(X, indices + 30), "take", X, indices + 30)
    far = np.array([-7, 9, 100])
    check(np.take(X, far, 1, mode="wrap"), "take", X, far, axis=1, mode="wrap")
    check(np.take(X, far, 1, mode="clip"), "take", X, far, axis=1, mode="clip", symbolic=(4,))
    unsigned = np.array([2, 0], "uint8")
    check(X[unsigned], "take", X, unsigned, axis=0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_and_scatter_elements(axis: int) -> None:
    indices = integers(2, 3, 4, low=-3, high=3, dtype="int64")
    expected = onnx_oracle("GatherElements", X, indices, axis=axis)
    check(expected, "gather_elements", X, indices, axis=axis, symbolic=(5,))
    updates = floats(2, 3, 4, seed=2)
    for reduction in ("add", "mul", "min", "max"):
        expected = onnx_oracle(
            "ScatterElements", X, indices, updates, axis=axis, reduction=reduction
        )
        check(expected, "scatter_elements", X, indices, updates, axis=axis, reduction=reduction)
    places = np.arange(3)[None, :, None] * np.ones((2, 1, 4), "int64")
    expected = onnx_oracle("ScatterElements", X, places, updates, axis=1)
    check(expected, "scatter_elements", X, places, updates, axis=1, symbolic=(5,))


def test_gather_nd() -> None:
    indices = np.array([[[0, 1], [2, -1]]])
    check(onnx_oracle("GatherND", X, indices), "gather_nd", X, indices, symbolic=(5,))
    batched = np.array([[1], [3], [0]])
    expected = onnx_oracle("GatherND", X, batched, batch_dims=1)
    check(expected, "gather_nd", X, batched, batch_dims=1, symbolic=(5,))


def test_scatter_nd() -> None:
    indices = np.array([[0, 1], [2, -1], [0, 1]])
    updates = floats(3, 5, seed=1)
    for reduction in ("add", "mul", "min", "max"):
        expected = onnx_oracle("ScatterND", X, indices, updates, reduction=reduction)
        check(expected, "scatter_nd", X, indices, updates, reduction=reduction, symbolic=(4,))
    expected = onnx_oracle("ScatterND", X, indices[:2], updates[:2])
    check(expected, "scatter_nd", X, indices[:2], updates[:2])


def test_advanced_indexing() -> None:
    i, j = np.array([[0], [2]]), np.array([1, -1, 3])
    check(X[i, j], "index_tensor", X, (i, j), symbolic=(5,))
    values = floats(2, 3, 5, seed=1)
    expected = X.copy()
    expected[i, j] = values
    check(expected, "index_put", X, (i, j), values, symbolic=(5,))
    repeated = np.array([1, 1, 0])
    expected = X.copy()
    np.add.at(expected, repeated, np.float32(2))
    check(expected, "index_put", X, (repeated,), np.full((1, 1), 2, "float32"), accumulate=True)


def test_reverse_sequence() -> None:
    lengths = np.array([4, 1, 3])
    expected = onnx_oracle("ReverseSequence", X, lengths, time_axis=1, batch_axis=0)
    check(expected, "reverse_sequence", X, lengths, symbolic=(3, 4, 5))


def test_collapse_sum() -> None:
    for target in ((5,), (4, 1), (1, 1, 1), (3, 4, 5), (1, 5), ()):
        skipped = X.ndim - len(target)
        axes = tuple(range(skipped)) + tuple(
            k for k in range(skipped, 3) if target[k - skipped] == 1 != X.shape[k]
        )
        expected = X.sum(axes, keepdims=True).reshape(target)
        check(expected, "collapse_sum_to", X, target)
        check(expected, "collapse_sum_like", X, np.ones(target, "float32"), symbolic=(3, 4, 5))


def test_layout_transform() -> None:
    x = floats(2, 8, 3)
    packed = index_map(lambda n, c, w: (n, c // 4, w, c % 4), ["n", "c", "w"])
    expected = x.reshape(2, 2, 4, 3).transpose(0, 1, 3, 2)
    check(expected, "layout_transform", x, index_map=packed, symbolic=(2, 3))
    padded = np.concatenate([floats(2, 5, 3), np.full((2, 3, 3), 9, "float32")], 1)
    expected = padded.reshape(2, 2, 4, 3).transpose(0, 1, 3, 2)
    check(
        expected, "layout_transform", padded[:, :5], index_map=packed, pad_value=9.0, symbolic=(2,)
    )
    joined = index_map(lambda n, c, w: (c * 3 + w, n), ["n", "c", "w"])
    check(x.reshape(2, 24).transpose(), "layout_transform", x, index_map=joined)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_pad(mode: str) -> None:
    extra = {"constant_values": 1.5} if mode == "constant" else {}
    for widths in (((1, 2), (0, 0), (2, 3)), ((5, 7), (1, 0), (0, 11))):
        expected = np.pad(X, widths, mode, **extra)
        flat = [item for pair in widths for item in pair]
        value = 1.5 if mode == "constant" else 0.0
        check(
            expected, "nn.pad", X, pad_width=flat, pad_mode=mode, pad_value=value, symbolic=(3, 4)
        )


def test_negative_padding_crops() -> None:
    check(X[1:, :, :-2], "nn.pad", X, pad_width=((-1, 0), (0, 0), (0, -2)), symbolic=(3,))
    expected = np.pad(X[1:], ((0, 2), (0, 0), (0, 0)))
    check(expected, "nn.pad", X, pad_width=(-1, 2, 0, 0, 0, 0), symbolic=(3,))


def test_pixel_shuffle() -> None:
    x = floats(2, 12, 3, 5)
    expected = onnx_oracle("DepthToSpace", x, blocksize=2, mode="CRD")
    check(expected, "nn.pixel_shuffle", x, upscale_factor=2, symbolic=(2, 3, 5))
    check(x, "nn.pixel_unshuffle", expected, downscale_factor=2)


def test_wrapped_indices_of_an_empty_result() -> None:
    same(run("take", X, np.zeros((0,), "int64"), axis=1), X[:, :0])
