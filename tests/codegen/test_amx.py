"""AMX tiles: registers, products, permission, and what is refused."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import ml_dtypes
import numpy as np
import pytest

from tests.codegen.support import compiled, lower
from transect.codegen.llvm.compile import emit_module, machine_features
from transect.hardware.x86 import ICELAKE, SAPPHIRE_RAPIDS
from transect.script import parse
from transect.support.errors import ExecutionError, UnsupportedError
from transect.target import Target, host_target
from transect.tir.function import PrimFunc
from transect.tir.interpret import Interpreter

HAS_AMX = "amx_bf16" in host_target().features
needs_amx = pytest.mark.skipif(not HAS_AMX, reason="this processor has no AMX")

_PRODUCT = """
@T.prim_func
def product(
    A: T.Buffer((M * 16, K * E), LEFT),
    B: T.Buffer((N, K, 16, 16, P), RIGHT),
    C: T.Buffer((M * 16, N * 16), RESULT),
):
    for i in T.parallel(M):
        for j in range(N):
            with T.block("tile"):
                vi, vj = T.axis.remap("SS", [i, j])
                T.reads(A[vi * 16 : vi * 16 + 16, 0 : K * E], B[vj, 0:K, 0:16, 0:16, 0:P])
                T.writes(C[vi * 16 : vi * 16 + 16, vj * 16 : vj * 16 + 16])
                total = T.alloc_buffer((16, 16), RESULT, scope="amx.tile")
                left = T.alloc_buffer((16, E), LEFT, scope="amx.tile")
                right = T.alloc_buffer((16, 16, P), RIGHT, scope="amx.tile")
                T.amx_tile_zero(T.address_of(total))
                for k in range(K):
                    T.amx_tile_load(
                        T.address_of(left), T.address_of(A[vi * 16, k * E]), K * E * (64 // E)
                    )
                    T.amx_tile_load(T.address_of(right), T.address_of(B[vj, k, 0, 0, 0]), 64)
                    T.amx_tile_dot(T.address_of(total), T.address_of(left), T.address_of(right))
                T.amx_tile_store(
                    T.address_of(C[vi * 16, vj * 16]), N * 64, T.address_of(total)
                )
"""
KINDS = [
    ("bfloat16", "bfloat16", "float32", "tdpbf16ps"),
    ("int8", "int8", "int32", "tdpbssd"),
    ("uint8", "int8", "int32", "tdpbusd"),
    ("int8", "uint8", "int32", "tdpbsud"),
    ("uint8", "uint8", "int32", "tdpbuud"),
]


def product(left: str, right: str, result: str, m: int = 3, n: int = 2, k: int = 4) -> PrimFunc:
    """C = A @ B of whole tiles, B with groups of neighbouring rows side by side."""
    group = 2 if left == "bfloat16" else 4
    names = {"M": m, "N": n, "K": k, "E": 16 * group, "P": group}
    found = parse(_PRODUCT, LEFT=left, RIGHT=right, RESULT=result, **names)
    assert isinstance(found, PrimFunc)
    return found


def operands(
    left: str, right: str, result: str, m: int = 3, n: int = 2, k: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random A, B as the program wants it, C full of garbage, and what C should be."""
    rng = np.random.default_rng(0)
    group = 2 if left == "bfloat16" else 4
    depth = k * 16 * group

    def matrix(kind: str, *shape: int) -> np.ndarray:
        if kind == "bfloat16":
            return rng.standard_normal(shape).astype(ml_dtypes.bfloat16)
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, kind, endpoint=True)

    a, b = matrix(left, m * 16, depth), matrix(right, depth, n * 16)
    packed = np.ascontiguousarray(b.reshape(k, 16, group, n, 16).transpose(3, 0, 1, 4, 2))
    want = a.astype(np.float64) @ b.astype(np.float64)
    return a, packed, np.full((m * 16, n * 16), 77, result), want


def assembly(program: PrimFunc, target: Target) -> str:
    """The assembler text of a program, which need not run here."""
    text = str(emit_module(lower(program, target), target))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
        cpu=target.arch, features=machine_features(target)
    )
    return machine.emit_assembly(llvm.parse_assembly(text))


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: kinds[3])
def test_interpreted(kinds: tuple[str, str, str, str]) -> None:
    a, b, c, want = operands(*kinds[:3])
    Interpreter().run(product(*kinds[:3]), a, b, c)
    np.testing.assert_allclose(c, want, rtol=1e-4 if kinds[2] == "float32" else 0, atol=1e-4)


@needs_amx
@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: kinds[3])
def test_compiled(kinds: tuple[str, str, str, str]) -> None:
    a, b, c, want = operands(*kinds[:3])
    compiled(product(*kinds[:3]))(a, b, c)
    np.testing.assert_allclose(c, want, rtol=1e-4 if kinds[2] == "float32" else 0, atol=1e-4)


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: kinds[3])
def test_assembly_of_another_machine(kinds: tuple[str, str, str, str]) -> None:
    found = assembly(product(*kinds[:3]), SAPPHIRE_RAPIDS)
    for name in ("ldtilecfg", "tilezero", "tileloadd", kinds[3], "tilestored", "tilerelease"):
        assert name in found


def test_integer_sums_wrap() -> None:
    a, b, c, _ = operands("uint8", "uint8", "int32", 1, 1, 2)
    a[...], b[...] = 255, 255
    program = product("uint8", "uint8", "int32", 1, 1, 2)
    Interpreter().run(program, a, b, c)
    assert (c == 128 * 255 * 255).all()


@needs_amx
def test_refused_by_the_operating_system() -> None:
    no = ctypes.CFUNCTYPE(ctypes.c_long)(lambda: -1)
    address = ctypes.cast(no, ctypes.c_void_p).value
    assert address is not None
    a, b, c, _ = operands("int8", "int8", "int32")
    run = compiled(product("int8", "int8", "int32"), symbols={"syscall": address})
    with pytest.raises(RuntimeError, match="does not let this process use AMX"):
        run(a, b, c)
    assert (c == 77).all()


def _with(body: str, buffers: str = "") -> PrimFunc:
    lines = "\n".join("            " + line for line in body.strip("\n").split("\n"))
    found = parse(
        f"""
@T.prim_func
def f(A: T.Buffer((16, 64), "int8"), n: T.int64):
    for i in T.parallel(2):
        with T.block("b"):
            vi = T.axis.spatial(2, i)
            T.reads(A[0:16, 0:64])
            T.writes(A[0:16, 0:64])
{lines}
"""
    )
    assert isinstance(found, PrimFunc)
    return found


REFUSALS: dict[str, tuple[str, str]] = {
    "too many": (
        """
X = T.alloc_buffer((6, 16, 64), "int8", scope="amx.tile")
Y = T.alloc_buffer((3, 16, 64), "int8", scope="amx.tile")
T.amx_tile_zero(T.address_of(X[5, 0, 0]))
T.amx_tile_zero(T.address_of(Y[0, 0, 0]))
""",
        "'Y' needs 3 tile registers, but 2 of 8 are free",
    ),
    "not constant": (
        """
X = T.alloc_buffer((2, 16, 64), "int8", scope="amx.tile")
for j in range(2):
    T.amx_tile_zero(T.address_of(X[j, 0, 0]))
""",
        "which tile of 'X' element j \\* 1024 is in is not known",
    ),
    "beyond": (
        """
X = T.alloc_buffer((2, 16, 64), "int8", scope="amx.tile")
T.amx_tile_zero(T.address_of(X[2, 0, 0]))
""",
        "element 2048 of 'X' is not the first of a tile of it",
    ),
    "half a tile": (
        """
X = T.alloc_buffer((8, 64), "int8", scope="amx.tile")
T.amx_tile_zero(T.address_of(X[0, 0]))
""",
        "tile registers for 'X' of 512 bytes",
    ),
    "an element": (
        """
X = T.alloc_buffer((16, 64), "int8", scope="amx.tile")
T.amx_tile_zero(T.address_of(X[0, 0]))
A[0, 0] = X[0, 0]
""",
        "an access to an element of 'X', which is in tile registers",
    ),
    "memory as a tile": (
        """
X = T.alloc_buffer((16, 64), "int8", scope="amx.tile")
T.amx_tile_load(T.address_of(A[0, 0]), T.address_of(X[0, 0]), 64)
""",
        "which is no tile",
    ),
    "another product": (
        """
X = T.alloc_buffer((16, 64), "int8", scope="amx.tile")
T.amx_tile_dot(T.address_of(X[0, 0]), T.address_of(X[0, 0]), T.address_of(X[0, 0]))
""",
        "a product of tiles of int8 and int8 into int8",
    ),
    "a call": (
        """
X = T.alloc_buffer((16, 64), "int8", scope="amx.tile")
T.amx_tile_zero(T.address_of(X[0, 0]))
T.evaluate(T.call_extern("int32", "abs", 3))
""",
        "a call of 'abs' in a function that uses AMX tiles",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused(case: str) -> None:
    body, message = REFUSALS[case]
    with pytest.raises(UnsupportedError, match=message):
        emit_module(lower(_with(body), SAPPHIRE_RAPIDS), SAPPHIRE_RAPIDS)


def test_a_target_without_tiles() -> None:
    program = product("int8", "int8", "int32")
    with pytest.raises(UnsupportedError, match="AMX tiles on x86-icelake-server, which has none"):
        emit_module(lower(program, ICELAKE), ICELAKE)


def test_tiles_around_a_parallel_loop() -> None:
    program = parse(
        """
@T.prim_func
def f(A: T.Buffer((16, 64), "int8")):
    with T.block("b"):
        T.reads(A[0:16, 0:64])
        T.writes(A[0:16, 0:64])
        X = T.alloc_buffer((16, 64), "int8", scope="amx.tile")
        T.amx_tile_zero(T.address_of(X[0, 0]))
        for i in T.parallel(2):
            T.amx_tile_store(T.address_of(A[0, 0]), 64, T.address_of(X[0, 0]))
"""
    )
    assert isinstance(program, PrimFunc)
    with pytest.raises(UnsupportedError, match="a parallel loop over 'i' while X are in tile"):
        emit_module(lower(program, SAPPHIRE_RAPIDS), SAPPHIRE_RAPIDS)


@pytest.mark.parametrize(
    "statement",
    [
        "T.amx_tile_load(T.address_of(X[0, 0]), T.address_of(A[1, 0]), 64)",
        "T.amx_tile_store(T.address_of(A[0, 1]), 64, T.address_of(X[0, 0]))",
        "T.amx_tile_load(T.address_of(X[0, 0]), T.address_of(A[0, 0]), -64)",
    ],
)
def test_the_interpreter_stays_inside(statement: str) -> None:
    tile = 'X = T.alloc_buffer((16, 64), "int8", scope="amx.tile")\n'
    program = _with(tile + "T.amx_tile_zero(T.address_of(X[0, 0]))\n" + statement)
    with pytest.raises(ExecutionError, match="leaves"):
        Interpreter().run(program, np.zeros((16, 64), np.int8), 1)
