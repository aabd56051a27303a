"""One pass at a time: before, expected, structurally equal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.codegen.support import compiled
from transect.ir.function import BaseFunc, IRModule
from transect.ir.node import node
from transect.ir.structural import structural_mismatch
from transect.script import tir as T
from transect.support.errors import UnsupportedError
from transect.support.span import Spans
from transect.target import Target
from transect.tir.function import PrimFunc
from transect.tir.interpret import interpret
from transect.tir.transform import (
    ConvertBlocksToOpaque,
    FlattenBuffer,
    LoopPartition,
    LowerInit,
    LowerMatchBuffer,
    LowerOpaqueBlock,
    LowerSignature,
    PlanAllocations,
    Simplify,
    UnrollLoop,
    VectorizeLoop,
)
from transect.tir.transform.hoist_checks import HoistChecks
from transect.tir.visit import walk_stmts
from transect.transform import Context, Pass

SIMD = Target("x86", "generic", vector_bits=128)


def run(func: PrimFunc, *passes: Pass) -> PrimFunc:
    """The function after the passes."""
    module = IRModule.of(main=func)
    for step in passes:
        module = step(module, Context(target=SIMD))
    result = module["main"]
    assert isinstance(result, PrimFunc)
    return result


def expect(before: PrimFunc, expected: PrimFunc, *passes: Pass) -> None:
    """`before` becomes `expected`."""
    after = run(before, *passes)
    mismatch = structural_mismatch(
        after.with_attrs(global_symbol=None), expected.with_attrs(global_symbol=None)
    )
    assert mismatch is None, f"{mismatch}\n{after!r}"


def test_init_runs_before_the_outermost_reduction_loop() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n",), "float32")):
        for i, k in T.grid(n, m):
            with T.block("sum"):
                vi, vk = T.axis.remap("SR", [i, k])
                T.reads(x[vi, vk])
                T.writes(y[vi])
                with T.init():
                    y[vi] = T.float32(0)
                y[vi] = y[vi] + x[vi, vk]

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n",), "float32")):
        for i in range(n):
            with T.block("sum_init"):
                vi = T.axis.spatial(n, i)
                T.reads()
                T.writes(y[vi])
                y[vi] = T.float32(0)
            for k in range(m):
                with T.block("sum"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    T.reads(x[vi, vk])
                    T.writes(y[vi])
                    y[vi] = y[vi] + x[vi, vk]

    expect(before, expected, LowerInit())


def test_init_stays_inside_where_a_loop_is_of_both_kinds() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((16,), "float32"), y: T.Buffer((4,), "float32")):
        for f in range(16):
            with T.block("sum"):
                vi = T.axis.spatial(4, f // 4)
                vk = T.axis.reduce(4, f % 4)
                T.reads(x[vi * 4 + vk])
                T.writes(y[vi])
                with T.init():
                    y[vi] = T.float32(0)
                y[vi] = y[vi] + x[vi * 4 + vk]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((16,), "float32"), y: T.Buffer((4,), "float32")):
        for f in range(16):
            with T.block("sum"):
                vi = T.axis.spatial(4, f // 4)
                vk = T.axis.reduce(4, f % 4)
                T.reads(x[vi * 4 + vk])
                T.writes(y[vi])
                if vk == 0:
                    y[vi] = T.float32(0)
                y[vi] = y[vi] + x[vi * 4 + vk]

    expect(before, expected, LowerInit())


def test_init_keeps_the_guard_of_its_own_loops() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n",), "float32")):
        for i0, k0, i1, k1 in T.grid((n + 3) // 4, (m + 7) // 8, 4, 8):
            with T.block("sum"):
                vi = T.axis.spatial(n, i0 * 4 + i1)
                vk = T.axis.reduce(m, k0 * 8 + k1)
                T.where(i0 * 4 + i1 < n and k0 * 8 + k1 < m)
                T.reads(x[vi, vk])
                T.writes(y[vi])
                with T.init():
                    y[vi] = T.float32(0)
                y[vi] = y[vi] + x[vi, vk]

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer(("n",), "float32")):
        for i0 in range((n + 3) // 4):
            for i1 in range(4):
                with T.block("sum_init"):
                    vi = T.axis.spatial(n, i0 * 4 + i1)
                    T.where(i0 * 4 + i1 < n)
                    T.reads()
                    T.writes(y[vi])
                    y[vi] = T.float32(0)
            for k0, i1, k1 in T.grid((m + 7) // 8, 4, 8):
                with T.block("sum"):
                    vi = T.axis.spatial(n, i0 * 4 + i1)
                    vk = T.axis.reduce(m, k0 * 8 + k1)
                    T.where(i0 * 4 + i1 < n and k0 * 8 + k1 < m)
                    T.reads(x[vi, vk])
                    T.writes(y[vi])
                    y[vi] = y[vi] + x[vi, vk]

    expect(before, expected, LowerInit())


def test_a_loop_of_one_iteration_leaves_the_init_outside() -> None:
    @T.prim_func(private=True)
    def before(a: T.handle, b: T.Buffer((3,), "float32")):
        n = T.int64()
        A = T.match_buffer(a, (3, n), "float32")
        for i, k, _ in T.grid(3, n, 1):
            with T.block("B"):
                vi, vk = T.axis.remap("SR", [i, k])
                with T.init():
                    b[vi] = T.float32(0)
                b[vi] = b[vi] + A[vi, vk]

    after = LowerInit()(IRModule.of(main=before), Context())["main"]
    assert isinstance(after, PrimFunc)
    sums = np.full(3, np.nan, np.float32)
    interpret(after, np.zeros((3, 0), np.float32), sums)
    np.testing.assert_array_equal(sums, 0)


def test_init_leaves_all_reduction_loops_past_other_statements() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", 8), "float32"), y: T.Buffer(("n",), "float32")):
        t = T.alloc_buffer((8,), "float32")
        for i, k0 in T.grid(n, 2):
            for k1 in range(4):
                with T.block("t"):
                    v = T.axis.spatial(8, k0 * 4 + k1)
                    vi = T.axis.spatial(n, i)
                    T.reads(x[vi, v])
                    T.writes(t[v])
                    t[v] = x[vi, v] * T.float32(2)
            for k1 in range(4):
                with T.block("sum"):
                    vi = T.axis.spatial(n, i)
                    vk = T.axis.reduce(8, k0 * 4 + k1)
                    T.reads(t[vk])
                    T.writes(y[vi])
                    with T.init():
                        y[vi] = T.float32(0)
                    y[vi] = y[vi] + t[vk]

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n", 8), "float32"), y: T.Buffer(("n",), "float32")):
        t = T.alloc_buffer((8,), "float32")
        for i in range(n):
            with T.block("sum_init"):
                vi = T.axis.spatial(n, i)
                T.reads()
                T.writes(y[vi])
                y[vi] = T.float32(0)
            for k0 in range(2):
                for k1 in range(4):
                    with T.block("t"):
                        v = T.axis.spatial(8, k0 * 4 + k1)
                        vi = T.axis.spatial(n, i)
                        T.reads(x[vi, v])
                        T.writes(t[v])
                        t[v] = x[vi, v] * T.float32(2)
                for k1 in range(4):
                    with T.block("sum"):
                        vi = T.axis.spatial(n, i)
                        vk = T.axis.reduce(8, k0 * 4 + k1)
                        T.reads(t[vk])
                        T.writes(y[vi])
                        y[vi] = y[vi] + t[vk]

    expect(before, expected, LowerInit())


BLOCKS = (
    LowerInit(),
    ConvertBlocksToOpaque(),
    LowerMatchBuffer(),
    PlanAllocations(),
    LowerOpaqueBlock(),
)


def test_a_temporary_shrinks_to_what_one_iteration_uses() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", 8), "float32"), y: T.Buffer(("n", 8), "float32")):
        t = T.alloc_buffer((n, 8), "float32")
        for i in range(n):
            for j in range(8):
                with T.block("t"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    t[vi, vj] = x[vi, vj] + T.float32(1)
            for j in range(8):
                with T.block("y"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = t[vi, 7 - vj]

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n", 8), "float32"), y: T.Buffer(("n", 8), "float32")):
        for i in range(n):
            with T.scope():
                t_data = T.allocate([1, 8], "float32", "global")
                t = T.decl_buffer((1, 8), "float32", data=t_data)
                for j in range(8):
                    t[0, j] = x[i, j] + T.float32(1)
                for j in range(8):
                    y[i, j] = t[0, 7 - j]

    expect(before, expected, *BLOCKS)


def test_a_temporary_that_carries_values_stays_outside() -> None:
    """A running sum: what iteration i reads was written by iteration i - 1."""

    @T.prim_func(private=True)
    def before(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        t = T.alloc_buffer((1,), "float32")
        for i in range(8):
            if i == 0:
                t[0] = T.float32(0)
            t[0] = t[0] + x[i]
            y[i] = t[0]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        with T.scope():
            t_data = T.allocate([1], "float32", "global")
            t = T.decl_buffer((1,), "float32", data=t_data)
            for i in range(8):
                if i == 0:
                    t[0] = T.float32(0)
                t[0] = t[0] + x[i]
                y[i] = t[0]

    expect(before, expected, *BLOCKS)


@T.prim_func
def _strided(x: T.Buffer((4,), "int64"), y: T.Buffer((4,), "int64")):
    t = T.alloc_buffer((4,), "int64")
    for i in range(2):
        for j in range(2):
            t[j * 2 + i] = x[j * 2 + i]
        for j in range(3):
            y[i + j] = t[i + j]


@T.prim_func
def _diagonal(x: T.Buffer((4,), "int64"), y: T.Buffer((4,), "int64")):
    t = T.alloc_buffer((3, 2), "int64")
    for i in range(2):
        for j in range(2):
            t[j + i, j] = x[j * 2 + i]
        y[i] = t[i, i]


@T.prim_func
def _triangle(x: T.Buffer((4,), "int64"), y: T.Buffer((4,), "int64")):
    t = T.alloc_buffer((3, 2), "int64")
    for i in range(2):
        for j in range(2):
            for k in range(j + 1):
                t[j + i, k] = x[j * 2 + i] + k
        y[i] = t[i, i]


@T.prim_func
def _in_some_iterations(x: T.Buffer((4,), "int64"), y: T.Buffer((4,), "int64")):
    t = T.alloc_buffer((2,), "int64")
    for i in range(4):
        for j in range(1 - i % 2):
            t[1] = x[i] + j
        y[i] = t[1]


@pytest.mark.parametrize("func", [_strided, _diagonal, _triangle, _in_some_iterations])
def test_a_temporary_with_holes_in_what_an_iteration_writes_stays_outside(func: PrimFunc) -> None:
    """Some element of the box that an iteration writes was written in the iteration before."""
    (block,) = (item for item in walk_stmts(func.body) if getattr(item, "alloc_buffers", ()))
    planned = run(func, ConvertBlocksToOpaque(), PlanAllocations())
    (kept,) = (item for item in walk_stmts(planned.body) if getattr(item, "alloc_buffers", ()))
    assert kept.alloc_buffers == block.alloc_buffers
    data = np.array([3, 1, 4, 8], np.int64)
    results = [np.zeros(4, np.int64) for _ in range(2)]
    interpret(func, data, results[0])
    compiled(func)(data, results[1])
    np.testing.assert_array_equal(*results)


def test_a_matched_region_becomes_accesses_of_its_source() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((16, 16), "float32")):
        for i, j in T.grid(4, 4):
            with T.block("tile"):
                vi, vj = T.axis.remap("SS", [i, j])
                tile = T.match_buffer(x[vi * 4 : vi * 4 + 4, vj * 4 : vj * 4 + 4], (4, 4))
                for a, b in T.grid(4, 4):
                    tile[a, b] = tile[a, b] + T.float32(1)

    @T.prim_func(private=True)
    def expected(x: T.Buffer((16, 16), "float32")):
        for i, j in T.grid(4, 4):
            for a, b in T.grid(4, 4):
                x[i * 4 + a, j * 4 + b] = x[i * 4 + a, j * 4 + b] + T.float32(1)

    expect(before, expected, *BLOCKS)


def test_flat_offsets_use_strides_where_there_are_any() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", "m"), "float32"), y: T.Buffer((4, 4), "float32", strides=(8, 1))):
        for i in range(4):
            y[i, 1] = x[i, 2]

    @T.prim_func(private=True)
    def expected(
        x: T.Buffer(("n", "m"), "float32"), y: T.Buffer((4, 4), "float32", strides=(8, 1))
    ):
        x_flat = T.decl_buffer((n * m,), "float32", data=x.data)
        y_flat = T.decl_buffer((16,), "float32", data=y.data)
        for i in range(4):
            y_flat[i * 8 + 1] = x_flat[i * m + 2]

    expect(before, expected, FlattenBuffer())


def test_groups_of_axes_are_flattened_apart() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", 4, 8, 2), "float32", axis_separators=[1, 3])):
        for i in range(4):
            x[i, 1, i, 0] = T.float32(1)

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n", 4, 8, 2), "float32", axis_separators=[1, 3])):
        flat = T.decl_buffer((n, 32, 2), "float32", data=x.data, axis_separators=[1, 2])
        for i in range(4):
            flat[i, 8 + i, 0] = T.float32(1)

    expect(before, expected, FlattenBuffer())


def test_simplify_decides_conditions_and_drops_empty_loops() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32")):
        for i in range(n):
            if i < n + 1:
                x[i * 4 // 4 + 0] = T.float32(1)
            if i < 0:
                x[i] = T.float32(2)
        for i in range(n):
            if i >= n:
                x[i] = T.float32(3)

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n",), "float32")):
        with T.scope():
            for i in range(n):
                with T.scope():
                    x[i] = T.float32(1)

    expect(before, expected, Simplify())


def test_guards_of_full_tiles_are_tested_once() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32")):
        for i0 in range((n + 3) // 4):
            for i1 in range(4):
                if i0 * 4 + i1 < n:
                    x[i0 * 4 + i1] = T.float32(1)

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n",), "float32")):
        for i0 in range(n // 4):
            for i1 in range(4):
                x[i0 * 4 + i1] = T.float32(1)
        for i2 in range(n // 4, (n + 3) // 4):
            for i3 in range(4):
                if i2 * 4 + i3 < n:
                    x[i2 * 4 + i3] = T.float32(1)

    expect(before, expected, LoopPartition(), Simplify())


def test_full_tiles_that_come_last_are_tested_one_by_one() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32")):
        for i0 in range((n + 3) // 4):
            for i1 in range(4):
                if n - 1 - i0 * 4 - i1 >= 3:
                    x[n - 1 - i0 * 4 - i1] = T.float32(1)
                if i0 * 4 + i1 >= 6:
                    x[i0 * 4 + i1] = T.float32(2)

    text = repr(run(before, LoopPartition(), Simplify()))
    assert text.count("//") == 1, text
    assert "else:" in text


def test_full_tiles_are_counted_before_the_loop() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32"), count: T.int64, shift: T.int64):
        for i0 in range(2, count):
            for i1 in range(4):
                if i0 * 12 + i1 * 3 + shift <= n:
                    x[i0] = x[i0] + T.float32(1)

    func = run(before, LoopPartition())
    assert repr(func).count("for ") == 4, repr(func)
    for count, shift in itertools.product((0, 2, 3, 5, 9), (-100, -30, -25, -24, -9, 0, 9, 70)):
        arrays = [np.zeros(60, "float32") for _ in range(2)]
        for each, array in zip((before, func), arrays, strict=True):
            interpret(each, array, count, shift)
        np.testing.assert_array_equal(*arrays)


def test_no_loop_ends_at_what_may_change_in_it() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "int64")):
        for i0 in range((n + 3) // 4):
            for i1 in range(4):
                if i0 * 4 + i1 < x[0]:
                    x[i0 * 4 + i1] = 1

    expect(before, before, LoopPartition())


def test_the_only_partial_tile_is_known() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((10,), "float32"), y: T.Buffer((10,), "float32")):
        for i0 in range(3):
            for i1 in range(4):
                y[0] = y[0] + x[T.min(i0 * 4 + i1, 9)]
            for j1 in range(4):
                if i0 * 4 + j1 < 10:
                    x[i0 * 4 + j1] = T.float32(1)

    @T.prim_func(private=True)
    def expected(x: T.Buffer((10,), "float32"), y: T.Buffer((10,), "float32")):
        for i0 in range(3):
            if i0 < 2:
                for i1 in range(4):
                    y[0] = y[0] + x[i0 * 4 + i1]
                for j1 in range(4):
                    x[i0 * 4 + j1] = T.float32(1)
            else:
                for i1 in range(4):
                    y[0] = y[0] + x[T.min(i1 + 8, 9)]
                for j1 in range(2):
                    x[j1 + 8] = T.float32(1)

    expect(before, run(expected, Simplify()), LoopPartition(), Simplify())


def test_partial_tiles_at_both_ends_are_known() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((20,), "float32"), y: T.Buffer((20,), "float32")):
        for i0 in T.parallel(5):
            for i1 in range(4):
                if i0 * 4 + i1 >= 1 and i0 * 4 + i1 < 19:
                    y[i0 * 4 + i1] = x[i0 * 4 + i1]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((20,), "float32"), y: T.Buffer((20,), "float32")):
        for i0 in T.parallel(5):
            if i0 * 4 >= 1 and i0 * 4 < 16:
                for i1 in range(4):
                    y[i0 * 4 + i1] = x[i0 * 4 + i1]
            elif i0 == 0:
                for i1 in range(4):
                    if i1 >= 1:
                        y[i1] = x[i1]
            else:
                for i1 in range(3):
                    y[i1 + 16] = x[i1 + 16]

    expect(before, run(expected, Simplify()), LoopPartition(), Simplify())


def test_partial_tiles_that_come_again_are_not_taken_for_the_last_one() -> None:
    @T.prim_func(private=True)
    def before(y: T.Buffer((3, 10), "float32")):
        for f in T.parallel(9):
            for i1 in range(4):
                if f % 3 * 4 + i1 < 10:
                    y[f // 3, f % 3 * 4 + i1] = T.float32(1)

    after = LoopPartition()(IRModule.of(main=before), Context())["main"]
    assert isinstance(after, PrimFunc)
    result = np.zeros((3, 10), np.float32)
    interpret(after, result)
    assert (result == 1).all()


def test_iterations_that_store_nothing_are_left_out() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((10,), "float32"), y: T.Buffer((32,), "float32")):
        for i0 in range(8):
            t = T.allocate([4], "float32", "local")
            t_1 = T.decl_buffer((4,), "float32", data=t, scope="local")
            for i1 in range(4):
                t_1[i1] = y[i0 * 4 + i1]
            for j1 in range(4):
                if i0 * 4 + j1 < 10:
                    x[i0 * 4 + j1] = t_1[j1]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((10,), "float32"), y: T.Buffer((32,), "float32")):
        for i0 in range(3):
            t = T.allocate([4], "float32", "local")
            t_1 = T.decl_buffer((4,), "float32", data=t, scope="local")
            for i1 in range(4):
                t_1[i1] = y[i0 * 4 + i1]
            if i0 < 2:
                for j1 in range(4):
                    x[i0 * 4 + j1] = t_1[j1]
            else:
                for j1 in range(2):
                    x[j1 + 8] = t_1[j1]

    expect(before, run(expected, Simplify()), LoopPartition(), Simplify())


def test_iterations_whose_results_are_read_later_stay() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((10,), "float32"), y: T.Buffer((32,), "float32")):
        t = T.allocate([32], "float32", "local")
        t_1 = T.decl_buffer((32,), "float32", data=t, scope="local")
        for i0 in range(8):
            t_1[i0] = y[i0]
            if i0 < 3:
                x[i0] = t_1[i0]
        x[9] = t_1[7]

    expect(before, run(before, Simplify()), LoopPartition(), Simplify())


def test_iterations_under_conditions_that_nobody_can_evaluate_stay() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((8,), "float32")):
        for i0 in range(8):
            if T.call_pure_extern("int32", "f", i0) < 2:
                x[i0] = T.float32(1)

    expect(before, before, LoopPartition())


def test_tiles_whose_guards_nobody_can_evaluate_are_tested_when_they_run() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((32,), "float32")):
        for i0 in range(8):
            for i1 in range(4):
                if T.call_pure_extern("int64", "f", i0) + i1 < 9:
                    x[i0 * 4 + i1] = T.float32(1)

    @T.prim_func(private=True)
    def expected(x: T.Buffer((32,), "float32")):
        for i0 in range(8):
            if T.call_pure_extern("int64", "f", i0) < 6:
                for i1 in range(4):
                    x[i0 * 4 + i1] = T.float32(1)
            else:
                for i1 in range(4):
                    if T.call_pure_extern("int64", "f", i0) + i1 < 9:
                        x[i0 * 4 + i1] = T.float32(1)

    expect(before, expected, LoopPartition())


def test_temporaries_of_nests_that_share_no_values_are_apart() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((6, 8), "float32"), y: T.Buffer((6, 8), "float32")):
        t = T.alloc_buffer((6, 8), "float32")
        for i in range(4):
            for j in range(8):
                with T.block("t"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    t[vi, vj] = x[vi, vj] + T.float32(1)
            for j in range(8):
                with T.block("y"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = t[vi, 7 - vj]
        for i in range(2):
            for j in range(8):
                with T.block("t_1"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    t[4 + vi, vj] = x[4 + vi, vj] * T.float32(2)
            for j in range(8):
                with T.block("y_1"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[4 + vi, vj] = t[4 + vi, 7 - vj]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((6, 8), "float32"), y: T.Buffer((6, 8), "float32")):
        for i in range(4):
            with T.scope():
                t_data = T.allocate([1, 8], "float32", "global")
                t = T.decl_buffer((1, 8), "float32", data=t_data)
                for j in range(8):
                    t[0, j] = x[i, j] + T.float32(1)
                for j in range(8):
                    y[i, j] = t[0, 7 - j]
        for i in range(2):
            with T.scope():
                u_data = T.allocate([1, 8], "float32", "global")
                u = T.decl_buffer((1, 8), "float32", data=u_data)
                for j in range(8):
                    u[0, j] = x[4 + i, j] * T.float32(2)
                for j in range(8):
                    y[4 + i, j] = u[0, 7 - j]

    expect(run(before, *BLOCKS), run(expected, Simplify()), Simplify())


def test_choices_within_values_are_decided() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(7):
            y[i] = T.if_then_else(i < 7, x[i], T.float32(0))
            y[i] = T.if_then_else(i >= 7, x[i], T.float32(1))
            y[i] = T.if_then_else(i < 7 and i > 2, x[i], T.float32(2))
            y[i] = T.Select(i >= 0, x[i], T.float32(3))

    @T.prim_func(private=True)
    def expected(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(7):
            y[i] = x[i]
            y[i] = T.float32(1)
            y[i] = T.if_then_else(i > 2, x[i], T.float32(2))
            y[i] = x[i]

    expect(before, run(expected, Simplify()), Simplify())


def test_a_vectorized_loop_becomes_a_vector_statement() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32"), s: T.float32):
        for i in range(8):
            for j in T.vectorized(8):
                y[i * 8 + j] = x[i * 8 + j] * s + T.exp(x[63 - j])

    @T.prim_func(private=True)
    def expected(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32"), s: T.float32):
        for i in range(8):
            y[T.Ramp(i * 8, 1, 8)] = x[T.Ramp(i * 8, 1, 8)] * T.Broadcast(s, 8) + T.exp(
                x[T.Ramp(63, -1, 8)]
            )

    expect(before, expected, VectorizeLoop(), Simplify())


def test_a_vectorized_loop_of_unknown_extent_has_a_serial_rest() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32")):
        for i in T.vectorized(n):
            x[i] = x[i] + T.float32(1)

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n",), "float32")):
        for i in range(n // 4):
            x[T.Ramp(i * 4, 1, 4)] = x[T.Ramp(i * 4, 1, 4)] + T.Broadcast(T.float32(1), 4)
        for i in range(n - n // 4 * 4):
            x[n // 4 * 4 + i] = x[n // 4 * 4 + i] + T.float32(1)

    after = repr(run(before, VectorizeLoop(), Simplify()))
    wanted = repr(run(expected, Simplify()))
    assert after.count("T.Ramp") == wanted.count("T.Ramp") == 2
    assert "for i_vector in range(n // 4)" in after


def test_a_sum_over_a_vectorized_loop_stays_serial() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((8,), "float32"), y: T.Buffer((1,), "float32")):
        for i in T.vectorized(8):
            y[0] = y[0] + x[i]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((8,), "float32"), y: T.Buffer((1,), "float32")):
        for i in range(8):
            y[0] = y[0] + x[i]

    expect(before, expected, VectorizeLoop())


def test_a_masked_read_reads_only_its_lanes() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((8,), "float32"), y: T.Buffer((16,), "float32")):
        for i in T.vectorized(16):
            y[i] = T.if_then_else(i < 8, x[i], T.float32(0))

    text = repr(run(before, VectorizeLoop()))
    assert "T.Select" in text
    assert "predicate=" in text


def test_unrolled_loops_become_copies() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((4,), "float32")):
        for i in T.unroll(3):
            x[i] = x[i + 1]

    @T.prim_func(private=True)
    def expected(x: T.Buffer((4,), "float32")):
        x[0] = x[1]
        x[1] = x[2]
        x[2] = x[3]

    expect(before, expected, UnrollLoop(), Simplify())


def test_unrolling_needs_a_known_and_reasonable_extent() -> None:
    @T.prim_func(private=True)
    def unknown(x: T.Buffer(("n",), "float32")):
        for i in T.unroll(n):
            x[i] = T.float32(0)

    @T.prim_func(private=True)
    def huge(x: T.Buffer((1000000,), "float32")):
        for i in T.unroll(1000000):
            x[i] = T.float32(0)

    with pytest.raises(UnsupportedError, match="its extent is not a constant"):
        run(unknown, UnrollLoop())
    with pytest.raises(UnsupportedError, match="unrolling loop i gives 1000000 statements"):
        run(huge, UnrollLoop())


def test_parameters_become_pointers_then_scalars_then_dimensions() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n", "m"), "float32"), k: T.int32, y: T.Buffer(("m", "d"), "float32")):
        T.evaluate(0)

    params = run(before, LowerSignature()).params
    assert [var.name for var in params] == ["x", "k", "y", "n", "m", "d"]


@node
class Other(BaseFunc):
    """A function of a kind that no pass knows."""

    attrs: Mapping[str, Any]
    span: Spans = ()


def test_functions_of_other_kinds_are_left_alone() -> None:
    module = IRModule({"other": Other({})}, {}, {})
    assert FlattenBuffer()(module) is module


def test_indices_that_are_cut_off_are_compared_once_a_tile() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32"), y: T.Buffer(("m",), "float32")):
        for i in range((n + 3) // 4):
            for j in range(4):
                y[i * 4 + j] = x[T.min(i * 4 + j, n - 1)]

    @T.prim_func(private=True)
    def expected(x: T.Buffer(("n",), "float32"), y: T.Buffer(("m",), "float32")):
        for i in range(n // 4):
            for j in range(4):
                y[i * 4 + j] = x[i * 4 + j]
        for k in range(n // 4, (n + 3) // 4):
            for l in range(4):  # noqa: E741
                y[k * 4 + l] = x[T.min(k * 4 + l, n - 1)]

    expect(run(before, Simplify()), run(expected, Simplify()), LoopPartition(), Simplify())


def test_a_cut_off_read_is_no_gather() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32"), y: T.Buffer((4,), "float32")):
        for i in T.vectorized(4):
            y[i] = x[T.min(i, n - 1)]

    text = repr(run(before, VectorizeLoop()))
    assert "T.Select(T.Ramp(" in text
    assert "predicate=" in text
    assert "T.min(T.Ramp(" not in text


def test_what_is_left_of_a_vector_runs_with_a_mask() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer(("n",), "float32"), y: T.Buffer(("n",), "float32")):
        for i in range((n + 3) // 4):
            for j in T.vectorized(4):
                if i * 4 + j < n:
                    y[i * 4 + j] = x[i * 4 + j] + x[0]

    text = repr(run(before, VectorizeLoop()))
    assert text.count("for ") == 1
    assert "y.vstore(" in text


def test_a_condition_on_memory_does_not_outlive_a_store() -> None:
    @T.prim_func
    def before(x: T.Buffer((4,), "int64"), flag: T.Buffer((1,), "bool")):
        if flag[0]:
            flag[0] = x[0] > 0
            if flag[0]:
                x[1] = 2

    expect(before, before, Simplify())


def test_a_check_is_made_once_before_a_loop() -> None:
    @T.prim_func(private=True)
    def before(
        x: T.Buffer((9,), "float32"), i: T.Buffer((4,), "int64"), y: T.Buffer((8,), "float32")
    ):
        for r in range(4):
            for j in range(8):
                y[j] = x[T.checked(i[r], i[r] < 9, "IndexError", "index ", i[r])] + T.float32(1)

    @T.prim_func(private=True)
    def expected(
        x: T.Buffer((9,), "float32"), i: T.Buffer((4,), "int64"), y: T.Buffer((8,), "float32")
    ):
        for r in range(4):
            place: T.int64 = T.checked(i[r], i[r] < 9, "IndexError", "index ", i[r])
            for j in range(8):
                y[j] = x[place] + T.float32(1)

    expect(before, expected, HoistChecks())


def test_a_check_stays_where_it_may_not_be_made_or_may_change() -> None:
    @T.prim_func(private=True)
    def before(x: T.Buffer((9,), "int64"), i: T.Buffer((4,), "int64"), n: T.int64):
        for j in range(n):
            x[j] = T.checked(i[0], i[0] < 9, "IndexError", "index")
        for j in range(4):
            i[j] = T.checked(i[0], i[0] < 9, "IndexError", "index")
        for j in range(4):
            x[j] = T.if_then_else(j < n, T.checked(i[0], i[0] < 9, "IndexError", "index"), 0)

    expect(before, before, HoistChecks())
