"""InjectPrefetch: before, expected, structurally equal."""

from __future__ import annotations

from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.script import tir as T
from transect.tir.function import PrimFunc
from transect.tir.transform.inject_prefetch import InjectPrefetch
from transect.transform import Context


def expect(before: PrimFunc, expected: PrimFunc) -> None:
    after = InjectPrefetch()(IRModule.of(main=before), Context())["main"]
    mismatch = structural_mismatch(
        after.with_attrs(global_symbol=None), expected.with_attrs(global_symbol=None)
    )
    assert mismatch is None, f"{mismatch}\n{after!r}"


def test_lines_of_a_panel_are_fetched_ahead_and_slow_streams_are_not() -> None:
    @T.prim_func(private=True)
    def before(
        a: T.Buffer((100,), "float32"),
        b: T.Buffer((3200,), "float32"),
        c: T.Buffer((32,), "float32"),
    ):
        for k in T.serial(100, annotations={"prefetch": 8}):
            c[T.Ramp(0, 1, 16)] = T.Broadcast(a[k], 16) * b[T.Ramp(k * 32, 1, 16)]
            c[T.Ramp(16, 1, 16)] = T.Broadcast(a[k], 16) * b[T.Ramp(k * 32 + 16, 1, 16)]

    @T.prim_func(private=True)
    def expected(
        a: T.Buffer((100,), "float32"),
        b: T.Buffer((3200,), "float32"),
        c: T.Buffer((32,), "float32"),
    ):
        for k in range(100):
            T.prefetch(b[(k + 8) * 32 + 0])
            T.prefetch(b[(k + 8) * 32 + 16])
            c[T.Ramp(0, 1, 16)] = T.Broadcast(a[k], 16) * b[T.Ramp(k * 32, 1, 16)]
            c[T.Ramp(16, 1, 16)] = T.Broadcast(a[k], 16) * b[T.Ramp(k * 32 + 16, 1, 16)]

    expect(before, expected)


def test_loops_without_the_annotation_stay() -> None:
    @T.prim_func(private=True)
    def before(b: T.Buffer((3200,), "float32"), c: T.Buffer((16,), "float32")):
        for k in range(100):
            c[T.Ramp(0, 1, 16)] = b[T.Ramp(k * 32, 1, 16)]

    expect(before, before)


def test_what_an_inner_loop_moves_is_not_fetched() -> None:
    @T.prim_func(private=True)
    def before(b: T.Buffer((3200,), "float32"), c: T.Buffer((16,), "float32")):
        for k in T.serial(100, annotations={"prefetch": 4}):
            for j in range(2):
                c[T.Ramp(0, 1, 16)] = b[T.Ramp(k * 32 + j * 16, 1, 16)]

    @T.prim_func(private=True)
    def expected(b: T.Buffer((3200,), "float32"), c: T.Buffer((16,), "float32")):
        for k in range(100):
            for j in range(2):
                c[T.Ramp(0, 1, 16)] = b[T.Ramp(k * 32 + j * 16, 1, 16)]

    expect(before, expected)


def test_the_next_panel_is_fetched_in_parts() -> None:
    @T.prim_func(private=True)
    def before(
        a: T.Buffer((32,), "float32"),
        b: T.Buffer((1024,), "float32"),
        c: T.Buffer((32,), "float32"),
    ):
        for j in range(4):
            for i in range(4):
                for k in T.serial(8, annotations={"prefetch_next": 2}):
                    c[T.Ramp(0, 1, 16)] = (
                        T.Broadcast(a[i * 8 + k], 16) * b[T.Ramp(j * 256 + k * 32, 1, 16)]
                    )
                    c[T.Ramp(16, 1, 16)] = (
                        T.Broadcast(a[i * 8 + k], 16) * b[T.Ramp(j * 256 + k * 32 + 16, 1, 16)]
                    )

    @T.prim_func(private=True)
    def expected(
        a: T.Buffer((32,), "float32"),
        b: T.Buffer((1024,), "float32"),
        c: T.Buffer((32,), "float32"),
    ):
        for j in range(4):
            for i in range(4):
                for k in range(8):
                    T.prefetch(b[(j + 1) * 256 + k * 32 + (i % 2 * 1 + 0) * 16], 2)
                    c[T.Ramp(0, 1, 16)] = (
                        T.Broadcast(a[i * 8 + k], 16) * b[T.Ramp(j * 256 + k * 32, 1, 16)]
                    )
                    c[T.Ramp(16, 1, 16)] = (
                        T.Broadcast(a[i * 8 + k], 16) * b[T.Ramp(j * 256 + k * 32 + 16, 1, 16)]
                    )

    expect(before, expected)


def test_rows_of_the_next_tile_are_fetched_a_line_of_each_in_turn() -> None:
    @T.prim_func(private=True)
    def before(a: T.Buffer((1024,), "float32"), c: T.Buffer((3,), "float32")):
        for i in range(4):
            for k in T.serial(16, annotations={"prefetch_next_rows": True}):
                c[0] = c[0] + a[i * 192 + k * 4] * a[i * 192 + k * 4 + 1]
                c[1] = c[1] + a[i * 192 + k * 4 + 64] * a[i * 192 + k * 4 + 65]
                c[2] = c[2] + a[i * 192 + k * 4 + 128] * a[i * 192 + k * 4 + 129]

    @T.prim_func(private=True)
    def expected(a: T.Buffer((1024,), "float32"), c: T.Buffer((3,), "float32")):
        for i in range(4):
            for k in range(16):
                T.prefetch(a[(i + 1) * 192 + k * 4 + k % 4 * 60 + 0], 2)
                c[0] = c[0] + a[i * 192 + k * 4] * a[i * 192 + k * 4 + 1]
                c[1] = c[1] + a[i * 192 + k * 4 + 64] * a[i * 192 + k * 4 + 65]
                c[2] = c[2] + a[i * 192 + k * 4 + 128] * a[i * 192 + k * 4 + 129]

    expect(before, expected)


def test_rows_that_the_next_step_reads_again_are_not_fetched() -> None:
    @T.prim_func(private=True)
    def before(a: T.Buffer((1024,), "float32"), c: T.Buffer((2,), "float32")):
        for i in range(4):
            for k in T.serial(16, annotations={"prefetch_next_rows": True}):
                c[0] = c[0] + a[i * 64 + k * 4]
                c[1] = c[1] + a[i * 64 + k * 4 + 64]

    @T.prim_func(private=True)
    def expected(a: T.Buffer((1024,), "float32"), c: T.Buffer((2,), "float32")):
        for i in range(4):
            for k in range(16):
                c[0] = c[0] + a[i * 64 + k * 4]
                c[1] = c[1] + a[i * 64 + k * 4 + 64]

    expect(before, expected)


def test_vectors_in_several_places_are_as_many_streams() -> None:
    @T.prim_func(private=True)
    def before(b: T.Buffer((3200,), "float32"), c: T.Buffer((32,), "float32")):
        for k in T.serial(10, annotations={"prefetch": 8}):
            c[T.Ramp(0, 1, 16)] = b[T.Ramp(k * 16, 1, 16)]
            c[T.Ramp(16, 1, 16)] = b[T.Ramp(k * 16 + 1600, 1, 16)]

    @T.prim_func(private=True)
    def expected(b: T.Buffer((3200,), "float32"), c: T.Buffer((32,), "float32")):
        for k in range(10):
            T.prefetch(b[(k + 8) * 16 + 0])
            T.prefetch(b[(k + 8) * 16 + 1600 + 0])
            c[T.Ramp(0, 1, 16)] = b[T.Ramp(k * 16, 1, 16)]
            c[T.Ramp(16, 1, 16)] = b[T.Ramp(k * 16 + 1600, 1, 16)]

    expect(before, expected)


def test_parts_are_fetched_in_all_loops_that_read_the_same_again() -> None:
    @T.prim_func(private=True)
    def before(
        a: T.Buffer((1024,), "float32"),
        b: T.Buffer((1024,), "float32"),
        c: T.Buffer((32,), "float32"),
    ):
        for j in range(4):
            for h in range(3):
                for i in range(2):
                    for k in T.serial(8, annotations={"prefetch_next": 2}):
                        c[T.Ramp(0, 1, 32)] = (
                            T.Broadcast(a[h * 64 + i * 32 + k * 2], 32)
                            * b[T.Ramp(j * 256 + k * 32, 1, 32)]
                        )

    @T.prim_func(private=True)
    def expected(
        a: T.Buffer((1024,), "float32"),
        b: T.Buffer((1024,), "float32"),
        c: T.Buffer((32,), "float32"),
    ):
        for j in range(4):
            for h in range(3):
                for i in range(2):
                    for k in range(8):
                        T.prefetch(b[(j + 1) * 256 + k * 32 + ((h * 2 + i) % 2 * 1 + 0) * 16], 2)
                        c[T.Ramp(0, 1, 32)] = (
                            T.Broadcast(a[h * 64 + i * 32 + k * 2], 32)
                            * b[T.Ramp(j * 256 + k * 32, 1, 32)]
                        )

    expect(before, expected)
