"""The shapes of tensor intrinsics that several folders of hardware have: outer and dot products.

Each is a script text; the instruction's name and its sizes are what the folders fill in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transect.script import parse
from transect.tir.function import PrimFunc
from transect.tir.tensor_intrin import TensorIntrin

Types = tuple[str, str, str]
"""The dtypes of the two operands and of the result."""


def prim_func(text: str, names: Mapping[str, Any]) -> PrimFunc:
    """The function that a script text defines. names: what it uses."""
    found = parse(text, **names)
    assert isinstance(found, PrimFunc)
    return found


_OUTER = """
@T.prim_func
def {which}(a: T.handle, b: T.handle, c: T.handle):
    sa, sb, sc = T.int64(), T.int64(), T.int64()
    A = T.match_buffer(a, (ROWS, 1), "float32", strides=(sa, 1), offset_factor=1)
    B = T.match_buffer(b, (1, LANES), "float32", strides=(sb, 1), offset_factor=1)
    C = T.match_buffer(c, (ROWS, LANES), "float32", strides=(sc, 1), offset_factor=1)
    with T.block("root"):
        T.reads(C[0:ROWS, 0:LANES], A[0:ROWS, 0:1], B[0:1, 0:LANES])
        T.writes(C[0:ROWS, 0:LANES])
{body}
"""

_OUTER_DESCRIPTION = """
        for i, j in T.grid(ROWS, LANES):
            with T.block("update"):
                vi, vj = T.axis.remap("SS", [i, j])
                C[vi, vj] = C[vi, vj] + A[vi, 0] * B[0, vj]
"""

_OUTER_IMPLEMENTATION = """
        for i in T.unroll(ROWS):
            C[i, T.ramp(0, 1, LANES)] = T.call_llvm_pure_intrin(
                VECTOR,
                NAME,
                T.broadcast(A[i, 0], LANES),
                B[0, T.ramp(0, 1, LANES)],
                C[i, T.ramp(0, 1, LANES)],
            )
"""


def outer_product(
    name: str, rows: int, lanes: int, *, target: str, requires: frozenset[str], rate: float
) -> TensorIntrin:
    """C[0:rows, 0:lanes] += A[0:rows, 0] * B[0, 0:lanes] of float32: one multiply-add of vectors
    for each row.

    rate: such instructions a cycle.
    """
    names = {
        "ROWS": rows,
        "LANES": lanes,
        "VECTOR": f"float32x{lanes}",
        "NAME": f"llvm.fma.v{lanes}f32",
    }
    description = _OUTER.format(which="description", body=_OUTER_DESCRIPTION)
    implementation = _OUTER.format(which="implementation", body=_OUTER_IMPLEMENTATION)
    return TensorIntrin(
        name,
        prim_func(description, names),
        prim_func(implementation, names),
        target,
        requires,
        rate / rows,
    )


_DOT = """
@T.prim_func
def {which}(
    A: T.Buffer((GROUP,), LEFT, offset_factor=1),
    B: T.Buffer((LANES, GROUP), RIGHT, offset_factor=1),
    C: T.Buffer((LANES,), RESULT, offset_factor=1),
):
    with T.block("root"):
        T.reads(C[0:LANES], A[0:GROUP], B[0:LANES, 0:GROUP])
        T.writes(C[0:LANES])
{body}
"""

_DOT_DESCRIPTION = """
        for i, k in T.grid(LANES, GROUP):
            with T.block("update"):
                vi, vk = T.axis.remap("SR", [i, k])
                C[vi] = C[vi] + T.cast(A[vk], RESULT) * T.cast(B[vi, vk], RESULT)
"""

# The small group of A goes to all lanes, as 32 bits.
_DOT_IMPLEMENTATION = """
        C[T.ramp(0, 1, LANES)] = T.call_llvm_pure_intrin(
            RESULTS,
            NAME,
            C[T.ramp(0, 1, LANES)],
            {operands},
        )
"""
_BROADCAST = """
            T.reinterpret(
                LEFTS, T.broadcast(T.reinterpret("int32", A[T.ramp(0, 1, GROUP)]), LANES)
            )"""
_VECTOR = "B.vload([0, 0], RIGHTS)"


def dot_product(
    name: str,
    instruction: str,
    types: Types,
    lanes: int,
    *,
    target: str,
    requires: frozenset[str],
    rate: float,
    vector_first: bool = False,
) -> TensorIntrin:
    """C[0:lanes] += sum over k of A[k] * B[0:lanes, k], of groups of 32 bits, by one instruction.

    vector_first: whether the instruction takes B before A.
    """
    order = (_VECTOR, _BROADCAST) if vector_first else (_BROADCAST, _VECTOR)
    body = _DOT_IMPLEMENTATION.format(operands=", ".join(order))
    return dot_product_of(
        name, body, types, lanes, {"NAME": instruction},
        target=target, requires=requires, rate=rate,
    )  # fmt: skip


def dot_product_of(
    name: str,
    body: str,
    types: Types,
    lanes: int,
    constants: Mapping[str, Any],
    *,
    target: str,
    requires: frozenset[str],
    rate: float,
) -> TensorIntrin:
    """The same by a script text of one's own, in the buffers A, B and C. constants: names that it
    uses besides GROUP, LANES, and LEFT, RIGHT, RESULT with the vectors LEFTS, RIGHTS, RESULTS."""
    left, right, result = types
    group = 2 if left == "bfloat16" else 4
    names = {
        "GROUP": group,
        "LANES": lanes,
        "LEFT": left,
        "RIGHT": right,
        "RESULT": result,
        "LEFTS": f"{left}x{lanes * group}",
        "RIGHTS": f"{right}x{lanes * group}",
        "RESULTS": f"{result}x{lanes}",
        **constants,
    }
    return TensorIntrin(
        name,
        prim_func(_DOT.format(which="description", body=_DOT_DESCRIPTION), names),
        prim_func(_DOT.format(which="implementation", body=body), names),
        target,
        requires,
        rate,
    )


_MATRIX = """
@T.prim_func
def {which}(a: T.handle, b: T.handle, c: T.handle):
    A = T.match_buffer(a, (2, GROUP), LEFT, offset_factor=1)
    B = T.match_buffer(b, (2, GROUP), RIGHT, offset_factor=1)
    C = T.match_buffer(c, (2, 2), RESULT, offset_factor=1)
    with T.block("root"):
        T.reads(C[0:2, 0:2], A[0:2, 0:GROUP], B[0:2, 0:GROUP])
        T.writes(C[0:2, 0:2])
{body}
"""

_MATRIX_DESCRIPTION = """
        for i, j, k in T.grid(2, 2, GROUP):
            with T.block("update"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], RESULT) * T.cast(B[vj, vk], RESULT)
"""

_MATRIX_IMPLEMENTATION = """
        C.vstore(
            [0, T.ramp(0, 1, 4)],
            T.call_llvm_pure_intrin(
                RESULTS,
                NAME,
                C.vload([0, 0], RESULTS),
                A.vload([0, 0], LEFTS),
                B.vload([0, 0], RIGHTS),
            ),
        )
"""


def matrix_product(
    name: str,
    instruction: str,
    types: Types,
    *,
    target: str,
    requires: frozenset[str],
    rate: float,
) -> TensorIntrin:
    """C[0:2, 0:2] += A[0:2, 0:k] times the transpose of B[0:2, 0:k], all three packed, of operands
    of 128 bits."""
    left, right, result = types
    group = 4 if left == "bfloat16" else 8
    names = {
        "GROUP": group,
        "LEFT": left,
        "RIGHT": right,
        "RESULT": result,
        "LEFTS": f"{left}x{2 * group}",
        "RIGHTS": f"{right}x{2 * group}",
        "RESULTS": f"{result}x4",
        "NAME": instruction,
    }
    return TensorIntrin(
        name,
        prim_func(_MATRIX.format(which="description", body=_MATRIX_DESCRIPTION), names),
        prim_func(_MATRIX.format(which="implementation", body=_MATRIX_IMPLEMENTATION), names),
        target,
        requires,
        rate,
    )
