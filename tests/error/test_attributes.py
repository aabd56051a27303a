"""Attributes, positions and arities that no ONNX model may have: an error that names the node, not
a loop without end and not a wild access."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import transect
from tests.error.test_sizes import unchecked
from tests.frontend.onnx_models import Graph
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.support.errors import ImportModelError, TransectError

FAR = 2**31
LEAST, MOST = -(2**63), 2**63 - 1
IMAGE = [1, 3, 8, 8]
KERNEL = np.ones((4, 3, 3, 3), np.float32)
TRANSPOSED = np.ones((3, 4, 3, 3), np.float32)
Case = tuple[str, list[np.ndarray], dict[str, Any], str]

CASES: list[Case] = [
    # operator, its weights, its attributes, words of the error
    *(
        (kind, [], attributes, words)
        for kind in ("AveragePool", "MaxPool", "LpPool")
        for attributes, words in (
            ({"kernel_shape": [FAR, FAR]}, "does not fit 8 padded"),
            ({"kernel_shape": [FAR, FAR], "pads": [FAR // 2] * 4}, "steps, more than"),
            ({"kernel_shape": [FAR, FAR], "auto_pad": "SAME_UPPER"}, "steps, more than"),
            ({"kernel_shape": [3, 3], "dilations": [FAR] * 2, "pads": [FAR] * 4}, "steps"),
            ({"kernel_shape": [0, 0]}, "pool_size must be positive"),
            ({"kernel_shape": [-2, 2]}, "pool_size must be positive"),
            ({"kernel_shape": [2, 2], "strides": [0, 1]}, "strides must be positive"),
            ({"kernel_shape": [2, 2], "pads": [-1] * 4}, "must not be negative"),
        )
    ),
    ("Conv", [KERNEL], {"pads": [FAR] * 4}, "steps, more than"),
    ("Conv", [KERNEL], {"dilations": [FAR] * 2}, "does not fit 8 padded"),
    ("Conv", [KERNEL], {"strides": [0, 1]}, "strides must be positive"),
    ("Conv", [KERNEL], {"group": 0}, "groups must be positive"),
    ("Conv", [KERNEL], {"dilations": [0, 0]}, "dilation must be positive"),
    ("ConvTranspose", [TRANSPOSED], {"strides": [0, 0]}, "strides must be positive"),
    ("ConvTranspose", [TRANSPOSED], {"pads": [2**40] * 4}, "with a negative dimension"),
    ("ConvTranspose", [TRANSPOSED], {"output_shape": [2**60, 3]}, "more than can be addressed"),
    ("ConvTranspose", [TRANSPOSED], {"output_padding": [99, -5]}, "output_padding must be"),
    ("LRN", [], {"size": 0}, "size must be positive"),
    ("DepthToSpace", [], {"blocksize": 0}, "the numbers of elements differ"),
    ("DepthToSpace", [], {"blocksize": 2**62}, "does not fit in int64"),
    ("MaxRoiPool", [np.zeros((1, 5), np.float32)], {"pooled_shape": [FAR] * 2}, "more than can be"),
    *(
        ("RoiAlign", [np.zeros((1, 4), np.float32), np.array([0])], attributes, words)
        for attributes, words in (
            ({"sampling_ratio": 2**40}, "steps, more than"),
            ({"sampling_ratio": -4}, "must not be negative"),
            ({"output_height": FAR, "output_width": FAR}, "steps, more than"),
            ({"output_height": 0}, "must be positive"),
        )
    ),
    ("Einsum", [], {"equation": "ijkl->ijklm"}, "is in no operand"),
    ("Einsum", [], {"equation": "ijk...l...->i"}, "cannot read"),
    ("Einsum", [], {"equation": "ijkl,ijkl->"}, "names 2 operands, got 1"),
    ("Slice", [np.array(v) for v in ([0], [1], [0], [0])], {}, "a step of 0"),
    ("Slice", [np.array(v) for v in ([0, 0], [1])], {}, "2 begins, 1 ends"),
    ("Slice", [np.array(v) for v in ([0, 0], [1, 1], [1, -3])], {}, "name one twice"),
    ("Split", [], {"num_outputs": 0}, "num_outputs is 0"),
    ("Split", [], {"num_outputs": 2}, "but it has 1 outputs"),
    ("Relu", [KERNEL], {}, "has 2 operands, at most 1"),
    ("Relu", [], {"alpha": 0.5}, "has no attribute 'alpha' at opset 19"),
    ("Softmax", [], {"axes": [1]}, "has no attribute 'axes'"),
    ("ConvTranspose", [TRANSPOSED], {"output_shape": [0, 9]}, "not 2 positive sizes"),
    ("ConvTranspose", [TRANSPOSED], {"output_shape": [9]}, "not 2 positive sizes"),
    ("STFT", [np.array(0), np.ones(4, np.float32)], {}, "must"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[2]}")
def test_attributes_that_cannot_be(case: Case) -> None:
    kind, weights, attributes, words = case
    g = Graph(19)
    dims = [1, 8, 1] if kind == "STFT" else IMAGE
    g.output(g.op(kind, g.input("x", dims), *map(g.constant, weights), **attributes))
    with pytest.raises(TransectError, match=words) as caught:
        OnnxFrontend().load(unchecked(g))
    assert f"{kind} node" in str(caught.value)


def test_a_hidden_size_that_is_not_that_of_the_weights() -> None:
    g = Graph()
    w, r = np.ones((1, 8, 4), np.float32), np.ones((1, 8, 2), np.float32)
    operands = g.input("x", ["n", 1, 4]), g.constant(w), g.constant(r)
    g.output(g.op("LSTM", *operands, hidden_size=3))
    with pytest.raises(ImportModelError, match="hidden_size is 3, but its weights are for 2"):
        OnnxFrontend().load(unchecked(g))


def test_a_huge_window_over_dimensions_that_vary() -> None:
    g = Graph()
    x = g.input("x", [1, 3, "h", "w"])
    g.output(g.op("MaxPool", x, kernel_shape=[FAR, FAR], pads=[FAR // 2] * 4))
    with pytest.raises(TransectError, match="MaxPool node"):
        OnnxFrontend().load(g.model())


@pytest.mark.parametrize("size", [5, 2**40, MOST])
def test_a_normalization_over_more_channels_than_there_are(size: int) -> None:
    g = Graph()
    g.output(g.op("LRN", g.input("x", IMAGE), size=size, alpha=float(size)))
    found = transect.compile(unchecked(g), cache=False)(np.ones(IMAGE, np.float32))
    np.testing.assert_allclose(found, np.full(IMAGE, 4**-0.75), rtol=1e-6)


def regions(kind: str) -> Any:
    """A model that pools 2 x 2 cells of regions; it takes images, regions and their images."""
    g = Graph()
    x = g.input("x", ["n", 1, 4, 4])
    if kind == "RoiAlign":
        boxes, images = g.input("boxes", ["r", 4]), g.input("images", ["r"], np.int64)
        g.output(g.op(kind, x, boxes, images, output_height=2, output_width=2))
    else:
        g.output(g.op(kind, x, g.input("boxes", ["r", 5]), pooled_shape=[2, 2]))
    model = transect.compile(g.model(), cache=False)

    def run(image: float, box: list[float]) -> np.ndarray:
        x_values = np.ones((2, 1, 4, 4), np.float32)
        if kind == "RoiAlign":
            return model(x_values, np.array([box], np.float32), np.array([image], np.int64))
        return model(x_values, np.array([[image, *box]], np.float32))

    return run


@pytest.mark.parametrize("kind", ["RoiAlign", "MaxRoiPool"])
def test_regions_of_images_that_do_not_exist(kind: str) -> None:
    run = regions(kind)
    for image in (2, -1, 2**40):
        with pytest.raises(IndexError, match=r"a region of image -?\d+ of 2") as caught:
            run(image, [0, 0, 3, 3])
        assert f"{kind} node" in " ".join(caught.value.__notes__)
    np.testing.assert_allclose(run(1, [0, 0, 3, 3]), np.ones((1, 1, 2, 2)))


@pytest.mark.parametrize("kind", ["RoiAlign", "MaxRoiPool"])
def test_regions_far_larger_than_their_image_end(kind: str) -> None:
    run = regions(kind)
    for box in ([-1e9, -1e9, 1e9, 1e9], [0, 0, 1e30, 1e30], [np.nan] * 4, [-np.inf] * 2 + [9, 9]):
        found = run(0, box)
        assert found.shape == (1, 1, 2, 2)
        assert np.all((found >= 0) & (found <= 1))


@pytest.mark.parametrize("place", [LEAST, -5, 16, MOST])
def test_places_outside_of_what_is_unpooled(place: int) -> None:
    g = Graph()
    x, i = g.input("x", [1, 1, 2, 2]), g.input("i", [1, 1, 2, 2], np.int64)
    g.output(g.op("MaxUnpool", x, i, kernel_shape=[2, 2], strides=[2, 2]))
    model = transect.compile(g.model(), cache=False)
    places = np.full((1, 1, 2, 2), place)
    if place == -5:  # It counts from the end.
        assert model(np.ones((1, 1, 2, 2), np.float32), places).shape == (1, 1, 4, 4)
        return
    with pytest.raises(IndexError, match="is out of range for an axis of 16") as caught:
        model(np.ones((1, 1, 2, 2), np.float32), places)
    assert "MaxUnpool node" in " ".join(caught.value.__notes__)


# --- what only a run knows ----------------------------------------------------------------------


def test_slices_with_any_bounds() -> None:
    g = Graph()
    x = g.input("x", ["n"])
    begin, end, step = (g.input(name, [1], np.int64) for name in ("begin", "end", "step"))
    g.output(g.op("Slice", x, begin, end, g.constant(np.array([0])), step))
    model = transect.compile(g.model(), cache=False)
    values = np.arange(5, dtype=np.float32)
    numbers = (LEAST, -MOST, -100, -6, -2, 0, 3, 5, 100, 2**40, MOST)
    for low in numbers:
        for high in numbers:
            for by in (LEAST, -2, -1, 1, 3, MOST):
                found = model(values, *(np.array([item]) for item in (low, high, by)))
                # ONNX begins at the first element where Python finds nothing before it.
                first = max(low, -5) if by < 0 else low
                np.testing.assert_array_equal(found, values[first:high:by], f"{low}:{high}:{by}")
    with pytest.raises(ValueError, match="step_is_not_zero") as caught:
        model(values, np.array([0]), np.array([5]), np.array([0]))
    assert "Slice node" in " ".join(caught.value.__notes__)


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [
        *((np.float32, v) for v in ((0, np.inf, 1), (0, np.nan, 1), (np.nan, 1, 1), (0, 1e30, 1))),
        *((np.float32, v) for v in ((-np.inf, np.inf, 1), (0, 1, 1e-30), (1, 0, -1e-30))),
        *((np.int64, v) for v in ((LEAST, MOST, 1), (MOST, LEAST, -1), (LEAST, 0, MOST))),
    ],
)
def test_ranges_without_an_end(dtype: Any, limits: tuple[float, ...]) -> None:
    g = Graph()
    g.output(g.op("Range", *(g.input(name, [], dtype) for name in ("start", "limit", "delta"))))
    model = transect.compile(g.model(), cache=False)
    with pytest.raises(ValueError, match="range: it has no end") as caught:
        model(*(np.array(value, dtype) for value in limits))
    assert "Range node" in " ".join(caught.value.__notes__)
    np.testing.assert_array_equal(model(*(np.array(v, dtype) for v in (5, 0, -2))), [5, 3, 1])
    assert model(*(np.array(v, dtype) for v in (5, 0, 2))).shape == (0,)


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
def test_a_position_in_an_empty_axis(kind: str) -> None:
    g = Graph()
    g.output(g.op(kind, g.input("x", ["n", "m"]), axis=0))
    model = transect.compile(g.model(), cache=False)
    with pytest.raises(ValueError, match="axis_has_elements") as caught:
        model(np.ones((0, 2), np.float32))
    assert f"{kind} node" in " ".join(caught.value.__notes__)
    assert model(np.ones((0, 0), np.float32)).shape == (1, 0)


def test_a_transform_that_does_not_move() -> None:
    g = Graph()
    x, step = g.input("x", [1, "n", 1]), g.input("step", [], np.int64)
    g.output(g.op("STFT", x, step, "", g.constant(np.array(4))))
    model = transect.compile(unchecked(g), cache=False)
    assert model(np.ones((1, 8, 1), np.float32), np.array(2)).shape == (1, 3, 3, 2)
    with pytest.raises(ValueError, match="step_is_positive"):
        model(np.ones((1, 8, 1), np.float32), np.array(0))


# --- subgraphs of a wrong form ------------------------------------------------------------------


def body(inputs: int, outputs: int) -> onnx.GraphProto:
    """Of a loop over a state of one float vector, when it has 3 inputs and 2 outputs."""
    kinds = [(TensorProto.INT64, []), (TensorProto.BOOL, []), *[(TensorProto.FLOAT, [2])] * 2]
    given = [helper.make_tensor_value_info(f"i{k}", *kinds[k]) for k in range(inputs)]
    nodes = [helper.make_node("Identity", ["i1"], ["o0"]), helper.make_node("Relu", ["x"], ["o1"])]
    made = [onnx.ValueInfoProto(name=f"o{k}") for k in range(outputs)]
    return helper.make_graph(nodes, "body", given, made)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 2), (4, 2), (3, 1), (3, 0)])
def test_loops_with_a_body_of_another_arity(inputs: int, outputs: int) -> None:
    g = Graph()
    x, count, go = g.input("x", [2]), g.constant(np.array(3)), g.constant(np.array(True))
    g.output(g.op("Loop", count, go, x, body=body(inputs, outputs)))
    with pytest.raises(ImportModelError, match=f"takes {inputs} values and gives {outputs}") as e:
        OnnxFrontend().load(unchecked(g))
    assert "Loop node" in str(e.value)


def branch(*results: str) -> onnx.GraphProto:
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in results]
    return helper.make_graph(nodes, "b", [], [onnx.ValueInfoProto(name=name) for name in results])


def test_branches_that_give_different_numbers_of_values() -> None:
    g = Graph()
    g.input("x", [2])
    condition = g.input("c", [], np.bool_)
    g.output(g.op("If", condition, then_branch=branch("a"), else_branch=branch("a", "b")))
    with pytest.raises(ImportModelError, match="the branches give 1 and 2 values"):
        OnnxFrontend().load(unchecked(g))


@pytest.mark.parametrize("count", [0, 9, -1])
def test_scans_with_a_wrong_number_of_inputs(count: int) -> None:
    inside = helper.make_graph(
        [helper.make_node("Relu", ["s"], ["t"])],
        "body",
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, [2])],
        [onnx.ValueInfoProto(name="t")],
    )
    g = Graph()
    g.output(g.op("Scan", g.input("x", [3, 2]), body=inside, num_scan_inputs=count))
    with pytest.raises(ImportModelError, match="Scan node"):
        OnnxFrontend().load(unchecked(g))
