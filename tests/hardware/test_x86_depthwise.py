"""Depthwise convolutions with channels last: the rule takes them, and what it makes computes what
the definition says, whatever tile and order the plan chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

import transect
from transect.hardware import schedule_rules
from transect.hardware.kernel import KernelInfo
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.hardware.x86 import TARGETS, host
from transect.hardware.x86.contraction import ContractionRule
from transect.hardware.x86.depthwise import DepthwiseRule
from transect.ir.expr import Expr, Var, logical_and, maximum
from transect.ir.function import IRModule
from transect.plan import Planner, RandomPolicy
from transect.target import Target
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc
from transect.tir.op import if_then_else
from transect.transform import Context


@dataclass(frozen=True)
class Depthwise:
    """y = relu(window sums of x padded + b) + r: one image size, or a symbolic one."""

    height: int
    width: int
    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    batch: int = 1
    epilogue: bool = False
    symbolic: bool = False

    def out(self, axis: int, size):
        """The size of the result along an axis; size: of the image, a number or a term."""
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

    def function(self) -> PrimFunc:
        """The program: pads, sums, and the epilogue, each in a nest of its own."""
        n, h, w = self.batch, self.height, self.width
        if self.symbolic:
            n, h, w = Var("n"), Var("h"), Var("w")
        c, (kh, kw), (ph, pw) = self.channels, self.kernel, self.padding
        builder = FunctionBuilder("depthwise")
        x = builder.input("x", (n, h, w, c), "float32")
        weight = builder.input("weight", (kh, kw, c), "float32")
        bias = builder.input("bias", (c,), "float32")
        oh, ow = self.out(0, h), self.out(1, w)
        rest = builder.input("rest", (n, oh, ow, c), "float32")

        def padded(b: Var, i: Var, j: Var, k: Var) -> Expr:
            inside = logical_and(i >= ph, i < h + ph, j >= pw, j < w + pw)
            return if_then_else(inside, x[b, i - ph, j - pw, k], 0.0)

        pad = builder.compute((n, h + 2 * ph, w + 2 * pw, c), padded, name="pad")
        (sh, sw), (dh, dw) = self.stride, self.dilation
        y = builder.reduce(
            (n, oh, ow, c),
            (kh, kw),
            lambda b, i, j, k, p, q: pad[b, i * sh + p * dh, j * sw + q * dw, k] * weight[p, q, k],
            name="y",
        )
        if not self.epilogue:
            return builder.finish([y])
        z = builder.compute(
            (n, oh, ow, c), lambda b, i, j, k: maximum(y[b, i, j, k] + bias[k], 0.0), name="z"
        )
        done = builder.compute(
            (n, oh, ow, c), lambda b, i, j, k: z[b, i, j, k] + rest[b, i, j, k], name="done"
        )
        return builder.finish([done])

    def arrays(self) -> list[np.ndarray]:
        """Inputs of small integers, so that sums are exact in any order."""
        n, h, w, c = self.batch, self.height, self.width, self.channels
        shapes = [(n, h, w, c), (*self.kernel, c), (c,), (n, self.out(0, h), self.out(1, w), c)]
        random = np.random.default_rng(0)
        return [random.integers(-8, 8, shape).astype(np.float32) for shape in shapes]

    def result(self, x, weight, bias, rest) -> np.ndarray:
        """The same in numpy."""
        (ph, pw), (sh, sw), (dh, dw) = self.padding, self.stride, self.dilation
        padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
        oh, ow = self.out(0, self.height), self.out(1, self.width)
        total = np.zeros(rest.shape, np.float32)
        for p in range(self.kernel[0]):
            for q in range(self.kernel[1]):
                rows = slice(p * dh, p * dh + (oh - 1) * sh + 1, sh)
                pixels = slice(q * dw, q * dw + (ow - 1) * sw + 1, sw)
                total += padded[:, rows, pixels] * weight[p, q]
        return np.maximum(total + bias, 0) + rest if self.epilogue else total


CASES = {
    "plain": Depthwise(14, 14, 32),
    "epilogue": Depthwise(9, 15, 16, epilogue=True),
    "rest of channels": Depthwise(8, 9, 37, epilogue=True),
    "few channels": Depthwise(8, 9, 3),
    "stride": Depthwise(15, 17, 32, stride=(2, 2)),
    "strides apart": Depthwise(15, 16, 16, stride=(1, 3), epilogue=True),
    "dilation": Depthwise(13, 12, 16, dilation=(2, 3), padding=(2, 3)),
    "several tiles outside": Depthwise(24, 24, 16, kernel=(1, 3), dilation=(1, 8), padding=(0, 8)),
    "wide window": Depthwise(11, 10, 16, kernel=(5, 5), padding=(2, 2)),
    "long window": Depthwise(9, 30, 16, kernel=(1, 9), padding=(0, 4), epilogue=True),
    "no padding": Depthwise(9, 10, 32, padding=(0, 0)),
    "more padding than image": Depthwise(2, 3, 16, padding=(2, 2)),
    "one pixel": Depthwise(1, 1, 32, batch=3),
    "batch": Depthwise(7, 7, 48, batch=3, epilogue=True),
    "symbolic": Depthwise(9, 15, 32, batch=2, symbolic=True, epilogue=True),
    "symbolic stride": Depthwise(16, 7, 21, stride=(2, 2), symbolic=True),
}  # fmt: skip


def _scheduled(func: PrimFunc, seed: int | None, target: Target | None = None) -> PrimFunc:
    target = target or host()
    planner = Planner(target=target) if seed is None else Planner(RandomPolicy(seed), target=target)
    rules = schedule_rules(target.name)
    done = ScheduleKernels(rules)(IRModule.of(f=func), Context(target=target, planner=planner))["f"]
    assert isinstance(done, PrimFunc)
    return done


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_what_is_made_agrees_with_the_definition(name: str, seed: int | None) -> None:
    case = CASES[name]
    func = _scheduled(case.function(), seed)
    assert func.attrs["tir.schedule_rules"] == ("x86.depthwise",), func.attrs
    assert "tir.schedule_refusals" not in func.attrs
    arrays = case.arrays()
    expected = case.result(*arrays)
    room = np.full(expected.size + 128, 99, np.float32)
    output = room[64 : 64 + expected.size].reshape(expected.shape)
    model = transect.compile(func, target=host(), cache=False)
    model(*arrays, output)
    np.testing.assert_array_equal(output, expected)
    assert (np.concatenate([room[:64], room[64 + output.size :]]) == 99).all()
    if case.symbolic:
        for size in ((1, 1, 1), (1, 3, 40), (2, 25, 8)):
            other = replace(case, batch=size[0], height=size[1], width=size[2])
            given = other.arrays()
            wanted = other.result(*given)
            made = np.full_like(wanted, 99)
            model(*given, made)
            np.testing.assert_array_equal(made, wanted)


def test_tiles_inside_of_the_image_test_nothing() -> None:
    # Of several cores, each takes tiles of all rows.
    single = replace(host(), cores=1)
    text = repr(_scheduled(Depthwise(28, 28, 32).function(), None, single))
    assert text.count("T.if_then_else") > 3
    for target in (single, host()):
        lowered = transect.compile(Depthwise(28, 28, 32).function(), target=target, cache=False)
        assert "if_then_else" not in str(lowered.stages["LowerSignature"])


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_tiles_fit_the_registers(target) -> None:
    info = KernelInfo.of(Depthwise(28, 28, 192).function())
    assert info is not None
    tile = DepthwiseRule().space(info, target)[0]
    sizes = [(o.parameters["rows"], o.parameters["pixels"]) for o in tile.options]
    assert all(rows * pixels < target.vector_registers for rows, pixels in sizes)
    chosen = Planner(target=target).choose(tile).parameters
    # Neighbouring rows and pixels share what they read.
    assert chosen["rows"] > 1
    assert chosen["rows"] * chosen["pixels"] >= 4


def test_windows_that_are_too_large_are_left_to_other_rules() -> None:
    info = KernelInfo.of(Depthwise(40, 40, 32, kernel=(15, 15), padding=(7, 7)).function())
    assert info is not None
    assert not DepthwiseRule().matches(info)
    assert ContractionRule().matches(info)
