"""TransposeTiles: annotated tiles are turned in registers, everything else stays."""

from __future__ import annotations

import numpy as np
import pytest

from transect.ir.function import IRModule
from transect.script import tir as T
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.transform.transpose_tiles import TransposeTiles
from transect.transform import Context


def turned(before: PrimFunc) -> PrimFunc:
    after = TransposeTiles()(IRModule.of(main=before), Context())["main"]
    assert isinstance(after, PrimFunc)
    assert "annotations" not in repr(after)
    return after


@T.prim_func(private=True)
def four(a: T.Buffer((4 * 10,), "float32"), b: T.Buffer((16,), "float32")):
    for k in T.serial(4, annotations={"transpose": True}):
        b[T.Ramp(k * 4, 1, 4)] = a[T.Ramp(k + 3, 10, 4)]


@T.prim_func(private=True)
def eight(a: T.Buffer((8 * 8,), "float64"), b: T.Buffer((8 * 9,), "float64")):
    for k in T.serial(8, annotations={"transpose": True}):
        b[T.Ramp(k * 9, 1, 8)] = a[T.Ramp(k, 8, 8)]


@pytest.mark.parametrize("before", [four, eight], ids=["four", "eight"])
def test_tiles_are_turned(before: PrimFunc) -> None:
    after = turned(before)
    text = repr(after)
    lanes = 4 if before is four else 8
    assert text.count("T.Shuffle(") == lanes * lanes.bit_length() - lanes
    assert " in T.serial" not in text
    assert " in range" not in text
    source, target = before.buffers
    shapes = [(int(item.shape[0].value), item.dtype.numpy) for item in (source, target)]  # pyright: ignore[reportAttributeAccessIssue]
    data = np.arange(shapes[0][0]).astype(shapes[0][1])
    results = [np.zeros(*shapes[1]) for _ in range(2)]
    interpret(before, data, results[0])
    interpret(after, data, results[1])
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0].any()


def test_other_loops_stay_without_the_annotation() -> None:
    @T.prim_func(private=True)
    def partial(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32")):
        for k in T.serial(3, annotations={"transpose": True}):
            b[T.Ramp(k * 4, 1, 4)] = a[T.Ramp(k, 4, 4)]

    @T.prim_func(private=True)
    def changed(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32")):
        for k in T.serial(4, annotations={"transpose": True}):
            b[T.Ramp(k * 4, 1, 4)] = a[T.Ramp(k, 4, 4)] + a[T.Ramp(k, 4, 4)]

    @T.prim_func(private=True)
    def in_place(a: T.Buffer((64,), "float32")):
        for k in T.serial(4, annotations={"transpose": True}):
            a[T.Ramp(k * 4, 1, 4)] = a[T.Ramp(k, 4, 4)]

    for before in (partial, changed, in_place):
        assert "Shuffle" not in repr(turned(before))
        assert "for k in range" in repr(turned(before))
