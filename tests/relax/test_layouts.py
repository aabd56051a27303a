"""Layouts of intermediate tensors and constants: the same results, copies only at the borders."""

import numpy as np

from tests.relax.programs import graph, operators, tensor
from transect.driver.services import schedule_space
from transect.hardware.x86 import ZNVER4
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.plan import Plan, Planner
from transect.relax import expr as rx
from transect.relax.interpret import interpret
from transect.relax.op.binary import Add
from transect.relax.op.linear_algebra import Matmul
from transect.relax.op.manipulate import PermuteDims, Reshape
from transect.relax.op.nn_activation import Relu
from transect.relax.op.nn_conv import Conv2d
from transect.relax.transform.fuse_tir import FuseOps
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.pack_constants import PackConstants
from transect.relax.transform.plan_layouts import PlanLayouts
from transect.relax.verify import verify_module
from transect.relax.visit import walk
from transect.transform import Context

RNG = np.random.default_rng(0)
N = Var("n")


def whole(*shape: int) -> np.ndarray:
    return RNG.integers(-3, 4, shape).astype(np.float32)


def context(**answers: str) -> Context:
    """One whose plan has answers by kind of choice."""
    given = Plan({f"{kind}:*": answer for kind, answer in answers.items()})
    return Context(ZNVER4, planner=Planner(given=given, target=ZNVER4))


def network(b, x):
    """Two convolutions with a bias between them, and a skip around the second."""
    first = b.emit(Conv2d(padding=1)(x, rx.constant(whole(6, 3, 3, 3))))
    biased = b.emit(Relu()(Add()(first, rx.constant(whole(6, 1, 1)))))
    second = b.emit(Conv2d(padding=1)(biased, rx.constant(whole(6, 6, 3, 3))))
    return b.emit_output(Add()(second, biased))


def same_results(before: IRModule, after: IRModule, *arrays: np.ndarray) -> None:
    verify_module(after)
    expected, result = interpret(before, "main", *arrays), interpret(after, "main", *arrays)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_convolutions_get_channels_last_with_copies_at_the_borders() -> None:
    before = LegalizeOps()(graph([("x", tensor(N, 3, 5, 5))], network))
    after = PlanLayouts(schedule_space)(before, context(layout="channels last"))
    found = operators(after)
    assert [name.startswith("permute_dims") for name in found] == [
        True, False, False, False, False, False, True,
    ]  # fmt: skip
    same_results(before, after, whole(2, 3, 5, 5))


def test_a_plan_may_leave_layouts_as_they_are() -> None:
    before = LegalizeOps()(graph([("x", tensor(N, 3, 5, 5))], network))
    after = PlanLayouts(schedule_space)(before, context(layout="as given"))
    assert operators(after) == operators(before)


def test_transposes_between_layouts_are_gone() -> None:
    def body(b, x):
        y = b.emit(Conv2d()(x, rx.constant(whole(4, 3, 1, 1))))
        moved = b.emit(PermuteDims((0, 2, 3, 1))(y))
        z = b.emit(Matmul()(moved, rx.constant(whole(4, 4))))
        return b.emit_output(Relu()(PermuteDims((0, 3, 1, 2))(z)))

    before = LegalizeOps()(graph([("x", tensor(1, 3, 4, 4))], body))
    after = PlanLayouts(schedule_space)(before, context(layout="channels last"))
    found = operators(after)
    assert sum(name.startswith("permute_dims") for name in found) == 2, "at the borders only"
    same_results(before, after, whole(1, 3, 4, 4))


def test_reshapes_see_tensors_as_given() -> None:
    def body(b, x):
        y = b.emit(Conv2d()(x, rx.constant(whole(4, 3, 1, 1))))
        return b.emit_output(Reshape()(y, rx.shape_expr(1, 64)))

    before = LegalizeOps()(graph([("x", tensor(1, 3, 4, 4))], body))
    after = PlanLayouts(schedule_space)(before, context(layout="channels last"))
    same_results(before, after, whole(1, 3, 4, 4))


def constants(module: IRModule) -> list[tuple[int, ...]]:
    return [item.data.shape for item in walk(module["main"]) if isinstance(item, rx.Constant)]


def test_constants_are_packed_as_the_plan_says() -> None:
    def body(b, x):
        return b.emit_output(Matmul()(x, rx.constant(weights)))

    weights = whole(7, 40)
    before = LegalizeOps()(graph([("x", tensor(N, 7))], body))
    packed = PackConstants(schedule_space)(before, context(packing="panels of 32"))
    assert constants(packed) == [(2, 7, 32)]
    same_results(before, packed, whole(3, 7))
    stored = PackConstants(schedule_space)(before, context(packing="as stored"))
    assert constants(stored) == [(7, 40)]


def test_layers_of_computed_sizes_share_a_fused_program() -> None:
    def body(b, x):
        for _ in range(3):
            halved = Conv2d(strides=2, padding=1)(x, rx.constant(weights))
            x = b.emit(Relu()(Add()(b.emit(halved), rx.constant(bias))))
        return b.emit_output(Relu()(x))

    weights, bias = whole(3, 3, 3, 3), whole(3, 1, 1)
    before = LegalizeOps()(graph([("x", tensor(1, 3, N, 16))], body))
    after = FuseOps()(before)
    fused = {name for name in after if name.startswith("fused")}
    assert len(fused) <= 3
    for size in (9, 16):
        same_results(before, after, whole(1, 3, size, 16))
