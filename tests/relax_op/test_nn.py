"""Convolutions, pooling, normalizations, softmax, losses, quantization, resampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.relax_op.support import check, floats, integers, onnx_oracle, run, same

LETTERS = {1: "W", 2: "HW", 3: "DHW"}
SIZES = {1: (9,), 2: (7, 9), 3: (5, 4, 6)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("strides", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (2, 1, 1, 2), (1, 1, 1, 4)],
)
def test_conv(rank: int, strides: int, padding: int, dilation: int, groups: int) -> None:
    window = (3, 2, 3)[:rank] if rank < 3 else (2, 2, 2)
    x, w = floats(11, 4, *SIZES[rank]), floats(8, 4 // groups, *window, seed=1)
    expected = onnx_oracle(
        "Conv",
        x,
        w,
        strides=[strides] * rank,
        pads=[padding] * (2 * rank),
        dilations=[dilation] * rank,
        group=groups,
    )
    fields: dict[str, Any] = {
        "strides": strides, "padding": padding, "dilation": dilation, "groups": groups
    }  # fmt: skip
    check(expected, f"nn.conv{rank}d", x, w, symbolic=(11, 9), tolerance=1e-4, **fields)


def test_conv_in_another_layout_and_with_one_sided_padding() -> None:
    x, w = floats(2, 4, 7, 9), floats(6, 4, 3, 2, seed=1)
    expected = onnx_oracle("Conv", x, w, pads=[1, 0, 2, 1])
    check(
        expected.transpose(0, 2, 3, 1),
        "nn.conv2d",
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)),
        np.ascontiguousarray(w.transpose(2, 3, 1, 0)),
        padding=(1, 0, 2, 1),
        data_layout="NHWC",
        kernel_layout="HWIO",
        tolerance=1e-4,
    )
    check(
        expected.transpose(0, 2, 3, 1),
        "nn.conv2d",
        x,
        w,
        padding=(1, 0, 2, 1),
        out_layout="NHWC",
        tolerance=1e-4,
    )


def test_conv_of_small_integers_into_wide_ones() -> None:
    x = integers(1, 3, 5, 5, low=-128, high=128, dtype="int8")
    w = integers(2, 3, 3, 3, low=-128, high=128, seed=1, dtype="int8")
    expected = onnx_oracle("Conv", x.astype("float32"), w.astype("float32")).astype("int32")
    check(expected, "nn.conv2d", x, w, out_dtype="int32")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("strides", "padding", "dilation", "groups", "extra"),
    [(1, 0, 1, 1, 0), (2, 1, 1, 1, 1), (3, 1, 2, 1, 0), (2, 0, 1, 2, 0)],
)
def test_conv_transpose(
    rank: int, strides: int, padding: int, dilation: int, groups: int, extra: int
) -> None:
    sizes = (5,) if rank == 1 else (3, 5) if rank == 2 else (2, 3, 3)
    x, w = floats(2, 4, *sizes), floats(4, 6 // groups, *(3, 2, 2)[:rank], seed=1)
    expected = onnx_oracle(
        "ConvTranspose",
        x,
        w,
        strides=[strides] * rank,
        pads=[padding] * (2 * rank),
        dilations=[dilation] * rank,
        group=groups,
        output_padding=[extra] * rank,
    )
    fields: dict[str, Any] = {
        "strides": strides, "padding": padding, "dilation": dilation, "groups": groups,
        "output_padding": extra,
    }  # fmt: skip
    check(expected, f"nn.conv{rank}d_transpose", x, w, symbolic=(5,), tolerance=1e-4, **fields)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("window", "strides", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_max_pool(rank: int, ceil_mode: bool, window: int, strides: int, padding: int) -> None:
    x = floats(2, 3, *SIZES[rank])
    expected = onnx_oracle(
        "MaxPool",
        x,
        kernel_shape=[window] * rank,
        strides=[strides] * rank,
        pads=[padding] * (2 * rank),
        ceil_mode=int(ceil_mode),
    )
    fields: dict[str, Any] = {"pool_size": window, "strides": strides, "padding": padding}
    check(expected, f"nn.max_pool{rank}d", x, ceil_mode=ceil_mode, symbolic=(2, 9), **fields)


def test_max_pool_with_dilation() -> None:
    x = floats(2, 3, 7, 9)
    expected = onnx_oracle("MaxPool", x, kernel_shape=[2, 3], dilations=[2, 2])
    check(expected, "nn.max_pool2d", x, pool_size=(2, 3), dilation=2, symbolic=(9,))


def test_max_pool_of_integers_and_nan() -> None:
    x = np.full((1, 1, 3), -128, "int8")
    check(x, "nn.max_pool1d", x, pool_size=3, padding=1)
    y = np.array([[[1.0, math.nan, 3.0, 4.0]]], "float32")
    check(np.array([[[math.nan, 4.0]]], "float32"), "nn.max_pool1d", y, pool_size=2, strides=2)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize(("window", "strides", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_avg_pool(rank: int, count: bool, window: int, strides: int, padding: int) -> None:
    x = floats(2, 3, *SIZES[rank])
    expected = onnx_oracle(
        "AveragePool",
        x,
        kernel_shape=[window] * rank,
        strides=[strides] * rank,
        pads=[padding] * (2 * rank),
        count_include_pad=int(count),
    )
    fields: dict[str, Any] = {"pool_size": window, "strides": strides, "padding": padding}
    check(expected, f"nn.avg_pool{rank}d", x, count_include_pad=count, symbolic=(2, 9), **fields)


def test_avg_pool_of_windows_that_are_cut_off() -> None:
    x = np.arange(1, 8, dtype="float32").reshape(1, 1, 7)
    fields: dict[str, Any] = {"pool_size": 3, "strides": 3, "ceil_mode": True}
    check(np.array([[[2, 5, 7]]], "float32"), "nn.avg_pool1d", x, **fields)
    padded = {**fields, "padding": (0, 1)}
    expected = np.array([[[2, 5, 3.5]]], "float32")
    check(expected, "nn.avg_pool1d", x, count_include_pad=True, **padded)
    check(np.array([[[2, 5, 7]]], "float32"), "nn.avg_pool1d", x, **padded)


def adaptive(x: np.ndarray, sizes: tuple[int, ...], reduce: Any) -> np.ndarray:
    """Parts [floor(i n / k), ceil((i + 1) n / k)) of each spatial axis, joined."""
    result = np.empty((*x.shape[:2], *sizes), x.dtype)
    for place in np.ndindex(*sizes):
        part = tuple(
            slice(i * n // k, -(-(i + 1) * n // k))
            for i, n, k in zip(place, x.shape[2:], sizes, strict=True)
        )
        axes = tuple(range(2, x.ndim))
        result[(..., *place)] = reduce(x[(..., *part)], axis=axes)
    return result


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 4, 13])
def test_adaptive_pool(rank: int, size: int) -> None:
    x = floats(2, 3, *SIZES[rank])
    for kind, reduce in (("avg", np.mean), ("max", np.max)):
        expected = adaptive(x, (size,) * rank, reduce)
        name = f"nn.adaptive_{kind}_pool{rank}d"
        check(expected, name, x, output_size=size, symbolic=(2, 9) if size < 4 else ())


def test_adaptive_pool_without_a_size_changes_nothing() -> None:
    x = floats(2, 3, 4, 5)
    check(x, "nn.adaptive_avg_pool2d", x, symbolic=(4, 5))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis: int) -> None:
    x = floats(3, 4, 5) * 50
    x[0, 0, 0] = -np.inf
    check(onnx_oracle("Softmax", x, axis=axis), "nn.softmax", x, axis=axis, symbolic=(3, 4))
    expected = onnx_oracle("LogSoftmax", x, axis=axis)
    check(expected, "nn.log_softmax", x, axis=axis, symbolic=(4, 5))


def test_softmax_of_nothing() -> None:
    x = np.zeros((2, 0), "float32")
    check(x, "nn.softmax", x, axis=1)
    check(np.zeros((0, 3), "float32"), "nn.softmax", np.zeros((0, 3), "float32"), axis=1)


def test_layer_norm() -> None:
    x, gamma, beta = floats(2, 3, 4) + 10, floats(3, 4, seed=1), floats(3, 4, seed=2)
    expected = onnx_oracle("LayerNormalization", x, gamma, beta, axis=1, epsilon=1e-4)
    fields: dict[str, Any] = {"axes": (1, 2), "epsilon": 1e-4, "tolerance": 1e-4}
    check(expected, "nn.layer_norm", x, gamma, beta, symbolic=(2, 3, 4), **fields)
    plain = onnx_oracle("LayerNormalization", x, np.ones_like(gamma), axis=1, epsilon=1e-4)
    check(plain, "nn.layer_norm", x, gamma, beta, scale=False, center=False, **fields)
    check(plain, "nn.layer_norm", x, **fields)


def test_rms_norm() -> None:
    x, weight = floats(2, 3, 4), floats(4, seed=1)
    expected = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-5) * weight
    check(expected, "nn.rms_norm", x, weight, axes=-1, symbolic=(2, 3, 4))


def test_group_and_instance_norm() -> None:
    x, gamma, beta = floats(2, 6, 5, 3) + 3, floats(6, seed=1), floats(6, seed=2)
    expected = onnx_oracle("InstanceNormalization", x, gamma, beta)
    check(expected, "nn.instance_norm", x, gamma, beta, symbolic=(2, 5, 3), tolerance=1e-4)
    check(expected, "nn.group_norm", x, gamma, beta, num_groups=6, tolerance=1e-4)
    grouped = x.reshape(2, 2, 3, 5, 3).astype("float64")
    mean, var = grouped.mean((2, 3, 4), keepdims=True), grouped.var((2, 3, 4), keepdims=True)
    normal = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    expected = (normal * gamma[:, None, None] + beta[:, None, None]).astype("float32")
    check(
        expected, "nn.group_norm", x, gamma, beta, num_groups=2, symbolic=(2, 5, 3), tolerance=1e-4
    )


def test_batch_norm() -> None:
    x = floats(2, 3, 4, 5)
    gamma, beta, mean = (floats(3, seed=k) for k in (1, 2, 3))
    var = np.abs(floats(3, seed=4)) + 0.5
    expected = onnx_oracle("BatchNormalization", x, gamma, beta, mean, var, epsilon=1e-3)
    operands = (x, gamma, beta, mean, var)
    check((expected, mean, var), "nn.batch_norm", *operands, epsilon=1e-3, symbolic=(2, 4, 5))
    trained = run("nn.batch_norm", *operands, training=True, momentum=0.25)
    batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    same(trained[1], (0.75 * mean + 0.25 * batch_mean).astype("float32"))
    same(trained[2], (0.75 * var + 0.25 * batch_var).astype("float32"))
    normal = (x - batch_mean[:, None, None]) / np.sqrt(batch_var[:, None, None] + 1e-5)
    same(trained[0], (normal * gamma[:, None, None] + beta[:, None, None]).astype("float32"), 1e-4)


def test_dropout_drops_nothing() -> None:
    x = floats(3, 4)
    check((x, np.ones_like(x)), "nn.dropout", x, rate=0.7, symbolic=(3,))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_nll_loss(reduction: str) -> None:
    x, targets, weights = floats(4, 3, 5), integers(4, 5, low=0, high=3), floats(3, seed=2) ** 2
    targets[0, 0] = 2
    for ignore, given in ((-100, weights), (2, weights), (2, None)):
        expected = onnx_oracle(
            "NegativeLogLikelihoodLoss", x, targets, given, reduction=reduction, ignore_index=ignore
        )
        check(
            expected,
            "nn.nll_loss",
            x,
            targets,
            given,
            reduction=reduction,
            ignore_index=ignore,
            symbolic=(4, 5),
        )


def test_nll_loss_ignores_targets_out_of_range() -> None:
    x = floats(3, 2)
    targets = np.array([0, -100, 1], "int64")
    check(-(x[0, 0] + x[2, 1]), "nn.nll_loss", x, targets, reduction="sum")


def test_cross_entropy_with_logits() -> None:
    x, labels = floats(4, 3), floats(4, 3, seed=1)
    check(-(x * labels).sum() / np.float32(4), "nn.cross_entropy_with_logits", x, labels)
    check(-(x[0] * labels[0]).sum(), "nn.cross_entropy_with_logits", x[0], labels[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantize(dtype: str) -> None:
    x = np.array([[-1000, -0.75, -0.25, 0.0], [0.25, 0.75, 1.25, 1000]], "float32")
    scale, zero = np.array(0.5, "float32"), np.array(3, dtype)
    expected = onnx_oracle("QuantizeLinear", x, scale, zero)
    check(expected, "quantize", x, scale, zero, out_dtype=dtype, symbolic=(2,))
    check(
        onnx_oracle("DequantizeLinear", expected, scale, zero), "dequantize", expected, scale, zero
    )
    scales, zeros = np.array([0.5, 2], "float32"), np.array([3, 7], dtype)
    expected = onnx_oracle("QuantizeLinear", x, scales, zeros, axis=0)
    check(expected, "quantize", x, scales, zeros, axis=0, out_dtype=dtype)
    floats_again = onnx_oracle("DequantizeLinear", expected, scales, zeros, axis=0)
    check(floats_again, "dequantize", expected, scales, zeros, axis=0, symbolic=(4,))


MODES = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("size", [(7, 10), (3, 2), (1, 5), (4, 5)])
def test_resize(mode: str, method: str, size: tuple[int, int]) -> None:
    x = floats(2, 3, 4, 5)
    rounding = {"nearest_mode": "round_prefer_floor"} if method == "nearest" else {}
    expected = onnx_oracle(
        "Resize",
        x,
        None,
        None,
        np.array([2, 3, *size]),
        mode=method,
        coordinate_transformation_mode=mode,
        **rounding,
    )
    check(
        expected,
        "image.resize2d",
        x,
        size,
        method="nearest_neighbor" if method == "nearest" else method,
        coordinate_transformation_mode=mode,
        rounding_method="round_prefer_floor",
        symbolic=(2, 4, 5),
        tolerance=1e-4,
    )


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resize_rounding(rounding: str) -> None:
    x = floats(1, 1, 8)
    for size in (3, 12, 16, 20):
        expected = onnx_oracle(
            "Resize", x, None, None, np.array([1, 1, size]), nearest_mode=rounding
        )
        check(
            expected,
            "image.resize1d",
            x,
            (size,),
            method="nearest_neighbor",
            rounding_method=rounding,
        )


def test_resize_crops() -> None:
    x = floats(1, 1, 6, 6)
    roi = (0.2, -0.3, 0.9, 1.1)
    expected = onnx_oracle(
        "Resize",
        x,
        np.array([0, 0, *roi[:2], 1, 1, *roi[2:]], "float32"),
        None,
        np.array([1, 1, 5, 4]),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
    )
    check(
        expected,
        "image.resize2d",
        x,
        (5, 4),
        roi=roi,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
        tolerance=1e-4,
    )


def test_resize_cubic_excludes_taps_outside() -> None:
    x = floats(1, 1, 4, 4)
    expected = onnx_oracle(
        "Resize",
        x,
        None,
        None,
        np.array([1, 1, 7, 7]),
        mode="cubic",
        cubic_coeff_a=-0.5,
        exclude_outside=1,
    )
    check(
        expected,
        "image.resize2d",
        x,
        (7, 7),
        method="cubic",
        cubic_alpha=-0.5,
        cubic_exclude=1,
        tolerance=1e-4,
    )


def test_resize_in_another_layout() -> None:
    x = floats(1, 2, 3, 4)
    expected = run("image.resize2d", x, (5, 7))
    moved = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    check(expected.transpose(0, 2, 3, 1), "image.resize2d", moved, (5, 7), layout="NHWC")


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_grid_sample(align: bool, padding: str, method: str) -> None:
    x, grid = floats(11, 3, 4, 5), floats(11, 2, 6, 7, seed=1)
    expected = onnx_oracle(
        "GridSample",
        x,
        np.ascontiguousarray(grid.transpose(0, 2, 3, 1)),
        align_corners=int(align),
        padding_mode=padding,
        mode="linear" if method == "bilinear" else method,
    )
    check(
        expected,
        "image.grid_sample",
        x,
        grid,
        align_corners=align,
        padding_mode=padding,
        method=method,
        symbolic=(11, 4, 5),
        tolerance=1e-4,
    )


@pytest.mark.parametrize("align", [False, True])
def test_affine_grid(align: bool) -> None:
    theta = floats(2, 2, 3)
    expected = onnx_oracle("AffineGrid", theta, np.array([2, 1, 4, 5]), align_corners=int(align))
    check(expected.transpose(0, 3, 1, 2), "image.affine_grid", theta, (4, 5), align_corners=align)
