"""Products between transforms: the rule takes them, and what it makes computes what the convolution
does, whatever tile and order the plan chooses; and the compiler finds them by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import transect
from tests.relax.programs import graph, tensor
from tests.schedule.winograd_programs import Convolution, given_to
from transect.hardware import schedule_rules
from transect.hardware.kernel import KernelInfo
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.hardware.x86 import TARGETS, host
from transect.hardware.x86.winograd import WinogradRule
from transect.ir.function import IRModule
from transect.plan import Plan, Planner, RandomPolicy
from transect.relax import expr as rx
from transect.relax.op.binary import Add
from transect.relax.op.nn_activation import Relu
from transect.relax.op.nn_conv import Conv2d
from transect.target import Target
from transect.tir.function import PrimFunc
from transect.tir.schedule.layout import panel_axis, to_panels
from transect.tir.schedule.winograd import to_winograd, transform_filters
from transect.transform import Context

WIDTH = 16

CASES = {
    "plain": Convolution(14, 14),
    "epilogue": Convolution(12, 8, epilogue=True),
    "odd": Convolution(7, 9, epilogue=True),
    "prime": Convolution(13, 13, channels=48, results=32),
    "rest of channels": Convolution(8, 8, channels=37),
    "no padding": Convolution(10, 8, padding=0),
    "more padding": Convolution(5, 6, padding=2),
    "one tile": Convolution(2, 2),
    "batch": Convolution(7, 8, batch=3, epilogue=True),
    "symbolic batch": Convolution(8, 8, batch=2, symbolic=True, epilogue=True),
}


def _program(case: Convolution) -> tuple[PrimFunc, list[np.ndarray]]:
    """The transformed program over panels, and its inputs."""
    func = case.function()
    found = to_winograd(func, func.buffers[1])
    assert found is not None
    inputs = given_to(func, case.arrays())
    filters = transform_filters(inputs[1], found.order)
    inputs[1] = to_panels(filters, (0, 1, 2, 3), WIDTH)
    return panel_axis(found.function, found.buffer, WIDTH), inputs


def _scheduled(func: PrimFunc, planner: Planner, target: Target) -> PrimFunc:
    context = Context(target=target, planner=planner)
    done = ScheduleKernels(schedule_rules(target.name))(IRModule.of(f=func), context)["f"]
    assert isinstance(done, PrimFunc)
    assert done.attrs["tir.schedule_rules"] == ("x86.winograd",), done.attrs
    assert "tir.schedule_refusals" not in done.attrs
    return done


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_what_is_made_agrees_with_the_convolution(name: str, seed: int | None) -> None:
    case, target = CASES[name], host()
    func, inputs = _program(case)
    planner = Planner(target=target) if seed is None else Planner(RandomPolicy(seed), target=target)
    model = transect.compile(_scheduled(func, planner, target), target=target, cache=False)
    for batch in (2, 1, 5) if case.symbolic else (case.batch,):
        other = replace(case, batch=batch)
        arrays = other.arrays()
        taken = [arrays[0], inputs[1], *given_to(func, arrays)[2:]]
        expected = other.result(*arrays)
        room = np.full(expected.size + 128, 99, np.float32)
        output = room[64 : 64 + expected.size].reshape(expected.shape)
        model(*taken, output)
        np.testing.assert_array_equal(output, expected)
        assert (np.concatenate([room[:64], room[64 + output.size :]]) == 99).all()


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("cores", [1, 2])
def test_every_number_of_rows(rows: int, cores: int) -> None:
    case, target = CASES["plain"], replace(host(), cores=cores)
    func, inputs = _program(case)
    info = KernelInfo.of(func)
    assert info is not None
    site = WinogradRule().space(info, target)[1]
    option = next(item for item in site.options if item.parameters["rows"] == rows)
    planner = Planner(plan=Plan({str(site.key): option.name}), target=target)
    model = transect.compile(_scheduled(func, planner, target), target=target, cache=False)
    expected = case.result(*case.arrays())
    output = np.empty_like(expected)
    model(*inputs, output)
    np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_tiles_divide_rows_and_fit_the_registers(target: Target) -> None:
    info = KernelInfo.of(_program(Convolution(28, 28, channels=64, results=64))[0])
    assert info is not None
    tile = WinogradRule().space(info, target)[0]
    lanes = target.lanes()
    for option in tile.options:
        rows, vectors = option.parameters["rows"], option.parameters["vectors"]
        assert isinstance(rows, int)
        assert 14 % rows == 0
        assert vectors == WIDTH // lanes
        assert rows * vectors < target.vector_registers


def test_programs_without_transforms_are_left_to_other_rules() -> None:
    for case in CASES.values():
        info = KernelInfo.of(case.function())
        assert info is not None
        assert not WinogradRule().matches(info)


def _model(case: Convolution) -> tuple[IRModule, list[np.ndarray]]:
    """relu(conv2d(x, constant) + rest) in the usual layout, and its inputs."""
    arrays = case.arrays()
    x, weight, _, rest = arrays
    plain = [np.ascontiguousarray(item.transpose(0, 3, 1, 2)) for item in (x, rest)]
    filters = np.ascontiguousarray(weight.transpose(3, 2, 0, 1))
    kinds = [(name, tensor(*item.shape)) for name, item in zip("xr", plain, strict=True)]

    def body(b, x, rest):
        conv = Conv2d(padding=case.padding)(x, rx.constant(filters))
        return b.emit_output(Relu()(Add()(conv, rest)))

    return graph(kinds, body), plain


def test_the_compiler_finds_them_by_itself() -> None:
    case = Convolution(28, 28, channels=64, results=64)
    module, inputs = _model(case)
    model = transect.compile(module, libraries=(), cache=False)
    chosen = {site.split(":")[0]: name for site, name in model.plan.answers.items()}
    assert any("transformed" in name for name in chosen.values()), chosen
    x, weight, _, rest = case.arrays()
    sums = case.result(x, weight, rest, rest)
    expected = np.maximum(sums + rest, 0).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(np.asarray(model(*inputs)), expected)


def test_an_expert_may_keep_the_sum() -> None:
    case = Convolution(28, 28, channels=64, results=64)
    module, inputs = _model(case)
    model = transect.compile(module, libraries=(), cache=False)
    packing = next(s for s, name in model.plan.answers.items() if "transformed" in name)
    other = transect.compile(
        module, libraries=(), cache=False, plan=Plan({packing: "panels of 32"})
    )
    assert not any("transformed" in name for name in other.plan.answers.values())
    got, sums = (np.asarray(item(*inputs)) for item in (model, other))
    np.testing.assert_array_equal(got, sums)
