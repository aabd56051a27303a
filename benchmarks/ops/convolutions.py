"""The distinct convolutions of ResNet-50 and the depthwise ones of MobileNetV2.

Two forms. "NCHW": one operator, tensors as ONNX gives them, conversions included for all. "own
layout": as within a model, where tensors lie as each likes best: ours has channels last at its
borders where that is faster; torch gets channels last or oneDNN's blocks; of ONNX Runtime only the
node itself counts, by its profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
import onnx
import torch

from benchmarks.ops.case import Call, Case, Goal
from benchmarks.ops.peers import compiled, model, ort, ort_node_seconds


@dataclass(frozen=True)
class Conv:
    """A convolution of square images, one image at a time. size: of the input."""

    channels: int
    filters: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        """As the table calls it."""
        stride = f" s{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride} {self.channels}->{self.filters} @{self.size}"

    @property
    def padding(self) -> int:
        """On every side."""
        return self.kernel // 2

    @property
    def operations(self) -> float:
        """Multiplications and additions, those with padding included."""
        out = (self.size + 2 * self.padding - self.kernel) // self.stride + 1
        return 2.0 * out**2 * self.filters * self.channels // self.groups * self.kernel**2


def _stages() -> Iterator[Conv]:
    """ResNet-50 as published (He et al. 2015, table 1): strides stand on the first 1x1."""
    yield Conv(3, 64, 224, 7, 2)
    channels, size = 64, 56
    for width in (64, 128, 256, 512):
        stride = 1 if width == 64 else 2
        yield Conv(channels, width, size, 1, stride)
        if width > 64:
            yield Conv(channels, 4 * width, size, 1, stride)
        size //= stride
        yield Conv(width, width, size, 3)
        yield Conv(width, 4 * width, size, 1)
        yield Conv(4 * width, width, size, 1)
        channels = 4 * width


RESNET50 = tuple(_stages())

MOBILENET_V2 = tuple(
    Conv(channels, channels, size, 3, stride, channels)
    for channels, size, stride in (
        (32, 112, 1), (96, 112, 2), (144, 56, 1), (144, 56, 2), (192, 28, 1), (192, 28, 2),
        (384, 14, 1), (576, 14, 1), (576, 14, 2), (960, 7, 1),
    )
)  # fmt: skip
"""Sandler et al. 2018, table 2."""


def cases(threads: int) -> Iterator[Case]:
    """All rows."""
    for conv in RESNET50:
        yield from _both("conv", conv, threads, Goal(ratio=0.97))
    for conv in MOBILENET_V2:
        yield from _both("depthwise", conv, threads, Goal(ratio=1.2))


def _both(family: str, conv: Conv, threads: int, goal: Goal) -> Iterator[Case]:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, conv.channels, conv.size, conv.size), dtype=np.float32)
    shape = (conv.filters, conv.channels // conv.groups, conv.kernel, conv.kernel)
    w = random.standard_normal(shape, dtype=np.float32)
    attributes = {
        "kernel_shape": [conv.kernel] * 2,
        "strides": [conv.stride] * 2,
        "pads": [conv.padding] * 4,
        "group": conv.groups,
    }
    node = ("Conv", "x w", "y", attributes)
    proto = model([node], {"x": x}, x.dtype, {"w": w}, rank=4)
    plain = torch.from_numpy(x)
    last = plain.to(memory_format=torch.channels_last)
    weight = torch.from_numpy(w)
    options = [conv.padding] * 2, [conv.stride] * 2, [1, 1], conv.groups

    def exact() -> np.ndarray:
        pads, strides, dilation, groups = options
        given = plain.double(), weight.double()
        return torch.conv2d(*given, None, strides, pads, dilation, groups).numpy()

    nchw = Case(
        f"{family}, NCHW",
        conv.name,
        proto,
        {"x": x},
        exact,
        {
            "torch": partial(_eager, plain, weight, conv),
            "oneDNN packed": partial(_packed, plain, weight, conv),
            "ONNX Runtime": ort(proto, {"x": x}, threads),
        },
        Goal(),
        conv.operations,
    )
    yield nchw
    turned = model(
        [
            ("Transpose", "x", "a", {"perm": [0, 3, 1, 2]}),
            ("Conv", "a w", "b", attributes),
            ("Transpose", "b", "y", {"perm": [0, 2, 3, 1]}),
        ],
        {"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))},
        x.dtype,
        {"w": w},
        rank=4,
    )
    yield replace(
        nchw,
        family=f"{family}, own layout",
        peers={
            **nchw.peers,
            "torch, channels last": partial(_eager, last, weight, conv),
            "oneDNN packed, channels last": partial(_packed, last, weight, conv),
            "oneDNN packed, blocked": partial(_blocked, plain, weight, conv),
        },
        goal=goal,
        timed={
            "ONNX Runtime, node": partial(ort_node_seconds, proto, {"x": x}, threads, "Conv"),
        },
        own=partial(_own, nchw, turned),
    )


def _own(nchw: Case, turned: onnx.ModelProto) -> Call:
    """Ours with channels last at the borders of the model, or as given if that is faster."""
    x = np.ascontiguousarray(nchw.inputs["x"].transpose(0, 2, 3, 1))
    last = compiled(turned, {"x": x})
    given = compiled(nchw.model, nchw.inputs)

    def seconds(call: Call) -> float:
        begin = perf_counter()
        call()
        return perf_counter() - begin

    times = [(seconds(given), seconds(last)) for _ in range(30)]
    best = [min(column) for column in zip(*times, strict=True)]
    if best[0] < best[1]:
        return given
    return lambda: last().transpose(0, 3, 1, 2)


def _eager(x: torch.Tensor, weight: torch.Tensor, conv: Conv) -> Call:
    """torch as a user calls it."""
    if x.is_contiguous(memory_format=torch.channels_last):
        weight = weight.to(memory_format=torch.channels_last)
    stride, padding = conv.stride, conv.padding
    return lambda: torch.conv2d(x, weight, None, stride, padding, 1, conv.groups)


def _packed(x: torch.Tensor, weight: torch.Tensor, conv: Conv) -> Call:
    """oneDNN, the weights as it wants them for this input."""
    ops = torch.ops.mkldnn
    options = [conv.padding] * 2, [conv.stride] * 2, [1, 1], conv.groups
    packed = ops._reorder_convolution_weight(weight, *options, list(x.shape))
    return lambda: ops._convolution_pointwise(x, packed, None, *options, "none", [], "")


def _blocked(x: torch.Tensor, weight: torch.Tensor, conv: Conv) -> Call:
    """oneDNN with input and result in blocks of channels, as one convolution hands it to the next:
    the input is what a 1x1 convolution with the identity gives."""
    options = [conv.padding] * 2, [conv.stride] * 2, [1, 1], conv.groups
    one = torch.eye(conv.channels)[:, :, None, None]
    run: Callable[..., torch.Tensor] = torch.ops.aten.mkldnn_convolution
    given = run(x.to_mkldnn(), one, None, [0, 0], [1, 1], [1, 1], 1)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *options, list(x.shape))
    return lambda: run(given, packed, None, *options)
