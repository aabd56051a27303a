"""OpenBLAS: which products it offers to take, which it leaves, and that it computes them right."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import transect
from transect.driver import CompiledModel
from transect.ir.function import IRModule
from transect.library import LIBRARIES, libraries, library_paths
from transect.library.openblas import Gemm, OpenBLAS
from transect.script import parse
from transect.script import tir as T
from transect.support.errors import InputError
from transect.target import host_target
from transect.tir.function import PrimFunc
from transect.tir.stmt import AssertStmt
from transect.tir.verify import verify_module
from transect.tir.visit import walk_stmts


def product(
    left: str, right: str, output: str, *, dtype: str = "float32", body: str = "", **options: str
) -> PrimFunc:
    """The program of an Einstein sum over the sizes a…z, which are symbolic.

    options: dtypes of the operands, `left`, `right` or `output`; body: the update in other words.
    """
    names = sorted({*left, *right})
    dims = {"X": left, "W": right, "Y": output}
    kinds = {name: options.get(name, dtype) for name in dims}
    sizes = ", ".join(f"n{name}" for name in names)
    axes = "".join("S" if name in output else "R" for name in names)
    index = {n: ", ".join(f"v{item}" for item in text) or "()" for n, text in dims.items()}
    params = ", ".join(
        f"{name}: T.Buffer(({''.join(f'n{item}, ' for item in text)}), '{kinds[name]}')"
        for name, text in dims.items()
    )
    symbols = "\n".join(f'n{name} = T.symbolic("n{name}")' for name in names)
    zero = f"T.Cast('{kinds['Y']}', 0)"
    update = body or f"Y[{index['Y']}] + X[{index['X']}] * W[{index['W']}]"
    source = f"""
{symbols}
@T.prim_func
def main({params}):
    for {", ".join(names)} in T.grid({sizes}):
        with T.block("product"):
            {", ".join("v" + name for name in names)} = T.axis.remap("{axes}", [{", ".join(names)}])
            with T.init():
                Y[{index["Y"]}] = {zero}
            Y[{index["Y"]}] = {update}
"""
    made = parse(source)
    assert isinstance(made, PrimFunc)
    return made


def offered(func: PrimFunc) -> bool:
    return Gemm().offer(func, host_target()) is not None


TAKEN = [
    ("nk", "km", "nm"),
    ("kn", "km", "nm"),
    ("nk", "mk", "nm"),
    ("kn", "mk", "nm"),
    ("bnk", "bkm", "bnm"),
    ("bkn", "bmk", "bnm"),
    ("abnk", "abkm", "abnm"),
    ("ank", "km", "anm"),
    ("nab", "abm", "nm"),
    ("nk", "kab", "nab"),
    ("k", "km", "m"),
    ("nk", "k", "n"),
    ("k", "k", ""),
    ("km", "nk", "nm"),
    ("nk", "km", "mn"),
]

LEFT = {
    "no sum": product("n", "m", "nm"),
    "the batch inside": product("nbk", "bkm", "bnm"),
    "the batch last": product("nkb", "kmb", "nmb"),
    "reduced dimensions in two orders": product("nab", "bam", "nm"),
    "a diagonal": product("nn", "nm", "nm"),
    "integers": product("nk", "km", "nm", dtype="int32"),
    "half precision": product("nk", "km", "nm", dtype="float16"),
    "mixed dtypes": product(
        "nk", "km", "nm", Y="float64",
        body="Y[vn, vm] + T.Cast('float64', X[vn, vk]) * T.Cast('float64', W[vk, vm])",
    ),
    "rounding on the way": product(
        "nk", "km", "nm",
        body="Y[vn, vm] + T.Cast('float32', T.Cast('float16', X[vn, vk])) * W[vk, vm]",
    ),
    "a maximum": product("nk", "km", "nm", body="T.max(Y[vn, vm], X[vn, vk] * W[vk, vm])"),
    "a sum": product("nk", "km", "nm", body="Y[vn, vm] + (X[vn, vk] + W[vk, vm])"),
    "a shift": product("nk", "km", "nm", body="Y[vn, vm] + X[vn, nk - 1 - vk] * W[vk, vm]"),
    "one operand": product("nk", "km", "nm", body="Y[vn, vm] + X[vn, vk] * X[vn, vk]"),
    "a factor more": product("nk", "km", "nm", body="Y[vn, vm] + X[vn, vk] * W[vk, vm] * 2.0"),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right", "output"), TAKEN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_that_it_takes(left: str, right: str, output: str, dtype: str) -> None:
    func = product(left, right, output, dtype=dtype)
    offer = Gemm().offer(func, host_target())
    assert offer is not None
    assert offer.routine == "openblas.gemm"
    assert offer.program.params == func.params
    assert offer.program.buffer_map == func.buffer_map
    verify_module(IRModule.of(main=offer.program))


@pytest.mark.parametrize("name", LEFT)
def test_programs_that_it_leaves(name: str) -> None:
    assert not offered(LEFT[name])


@T.prim_func
def strided(
    X: T.Buffer((8, 8), "float32", strides=(16, 1)),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def offset(
    X: T.Buffer((8, 8), "float32", elem_offset=8),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def from_one(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(1)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def a_part(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(4, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def some_rows(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            T.where(i < 5)
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def part_of_a_row(
    X: T.Buffer((8, 16), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def every_other(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(4, 8, 8):
        with T.block("product"):
            vi = T.axis.spatial(8, i * 2)
            vj, vk = T.axis.remap("SR", [j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def checked(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    assert X[0, 0] > 0, "the first element is negative"
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def parallel(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i in T.parallel(8):
        for j, k in T.grid(8, 8):
            with T.block("product"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    Y[vi, vj] = T.float32(0)
                Y[vi, vj] += X[vi, vk] * W[vk, vj]


@T.prim_func
def twice(
    X: T.Buffer((8, 8), "float32"),
    W: T.Buffer((8, 8), "float32"),
    Y: T.Buffer((8, 8), "float32"),
):
    for i, j, k in T.grid(8, 8, 8):
        with T.block("product"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] += X[vi, vk] * W[vk, vj]
    for i, j in T.grid(8, 8):
        with T.block("more"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = Y[vi, vj] + T.float32(1)


@pytest.mark.parametrize(
    "func",
    [
        strided,
        offset,
        from_one,
        some_rows,
        every_other,
        twice,
        checked,
        parallel,
        part_of_a_row,
        a_part,
    ],
    ids=lambda func: func.attrs["global_symbol"],
)
def test_memory_and_loops_that_it_leaves(func: PrimFunc) -> None:
    """gemm would read past rows, or write what the program does not."""
    assert not offered(func)


# --- results ------------------------------------------------------------------------------------


def compiled(left: str, right: str, output: str, dtype: str = "float32") -> CompiledModel:
    program = Gemm().offer(product(left, right, output, dtype=dtype), host_target())
    assert program is not None
    return transect.compile(program.program, cache=False)


def check(model: Any, spec: tuple[str, str, str], sizes: dict[str, int], dtype: str) -> None:
    random = np.random.default_rng(sum(sizes.values()))
    x, w = (random.standard_normal([sizes[i] for i in text]).astype(dtype) for text in spec[:2])
    y = np.full([sizes[i] for i in spec[2]], np.nan, dtype)
    model(x, w, y)
    wanted = np.einsum(f"{spec[0]},{spec[1]}->{spec[2]}", x, w)
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(y, wanted, rtol=tolerance, atol=tolerance)


SIZES = [0, 1, 2, 7, 33]


@pytest.mark.parametrize("spec", TAKEN, ids=",".join)
def test_results(spec: tuple[str, str, str]) -> None:
    model = compiled(*spec)
    names = sorted({*spec[0], *spec[1]})
    every = list(itertools.product(SIZES, repeat=len(names)))
    for number, sizes in enumerate(every):
        # All of them where there are few; else those that a stride prime to 5 picks.
        if len(every) <= 125 or number % 7 == 0:
            check(model, spec, dict(zip(names, sizes, strict=True)), "float32")


@pytest.mark.parametrize("spec", TAKEN[:5], ids=",".join)
def test_results_in_double_precision(spec: tuple[str, str, str]) -> None:
    model = compiled(*spec, dtype="float64")
    for size in ((3, 5, 7, 2), (1, 0, 4, 3), (40, 30, 20, 10)):
        names = sorted({*spec[0], *spec[1]})
        check(model, spec, dict(zip(names, size, strict=False)), "float64")


@pytest.mark.parametrize("spec", TAKEN[:6], ids=",".join)
@pytest.mark.parametrize("sizes", [(200, 150, 130, 90), (64, 1, 5000, 70), (3, 700, 256, 300)])
def test_large_results_from_several_threads(spec: tuple[str, str, str], sizes: Any) -> None:
    names = sorted({*spec[0], *spec[1]})
    check(compiled(*spec), spec, dict(zip(names, sizes, strict=False)), "float32")


def test_each_part_is_computed_by_someone() -> None:
    """As many parts as there are threads, whatever the machine: here for 64."""
    target = replace(host_target(), cores=64)
    offer = Gemm().offer(product("nk", "km", "nm"), target)
    assert offer is not None
    model = transect.compile(offer.program, cache=False)
    for n, m in ((1, 2000), (2000, 1), (17, 1023), (1025, 31), (600, 600)):
        check(model, ("nk", "km", "nm"), {"n": n, "m": m, "k": 300}, "float32")


# --- limits -------------------------------------------------------------------------------------


def test_dimensions_beyond_32_bits_are_refused_before_the_call() -> None:
    offer = Gemm().offer(product("nk", "km", "nm"), host_target())
    assert offer is not None
    model = transect.compile(offer.program, cache=False)
    wide = 2**31
    # No memory is behind these arrays: with k = 0 there are no elements at all.
    x, w = np.zeros((wide, 0), np.float32), np.zeros((0, 0), np.float32)
    with pytest.raises(ValueError, match=r"openblas.gemm: a dimension of 2147483648 elements"):
        model(x, w, np.zeros((wide, 0), np.float32))
    model(x[:5], w, np.zeros((5, 0), np.float32))


def test_static_dimensions_are_not_checked_at_run_time() -> None:
    func = a_full_product()
    offer = Gemm().offer(func, host_target())
    assert offer is not None
    assert not any(isinstance(stmt, AssertStmt) for stmt in walk_stmts(offer.program.body))


def a_full_product() -> PrimFunc:
    @T.prim_func
    def whole(
        X: T.Buffer((8, 8), "float32"),
        W: T.Buffer((8, 8), "float32"),
        Y: T.Buffer((8, 8), "float32"),
    ):
        for i, j, k in T.grid(8, 8, 8):
            with T.block("product"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    Y[vi, vj] = T.float32(0)
                Y[vi, vj] += X[vi, vk] * W[vk, vj]

    return whole


# --- the library --------------------------------------------------------------------------------


def test_the_library_is_found_by_its_symbols() -> None:
    path = OpenBLAS().path()
    assert path.is_file()
    assert library_paths(["scipy_cblas_sgemm", "malloc"]) == [path]
    assert library_paths(["malloc"]) == []
    assert [library.name for library in libraries()] == list(LIBRARIES)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert OpenBLAS().find() is None
    with pytest.raises(InputError) as caught:
        library_paths(["scipy_cblas_sgemm"])
    assert caught.value.message == "the library openblas is not installed"
    assert caught.value.remedy == "pip install scipy-openblas32"
