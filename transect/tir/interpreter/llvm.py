"""What instructions compute that programs call by LLVM's name for them.

A tensorized block whose instructions are not listed here is run by its intrinsic's description.
Sources: Intel's Intrinsics Guide; Arm Architecture Reference Manual, A64 SIMD instructions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from transect.ir.dtype import DType
from transect.ir.expr import Call, Expr, Ramp, StringImm, as_int
from transect.ir.node import replace
from transect.ir.traverse import walk
from transect.tir.buffer import Buffer, BufferLoad
from transect.tir.interpreter.arithmetic import MATH, Value, on_dtype
from transect.tir.intrinsics import LLVM_CALLS
from transect.tir.stmt import Block, BlockRealize, BufferStore
from transect.tir.tensor_intrin import ANNOTATION, TensorIntrin
from transect.tir.visit import fresh_copy, own_terms, walk_stmts

Instruction = Callable[..., Value]
"""(accumulators, left, right), or the operands alone, each with its lanes along the last axis."""


def _dot(accumulators: Value, left: Value, right: Value) -> Value:
    """Lane n gains the products of the n-th groups of the narrow operands."""
    lanes = accumulators.shape[-1]
    wide = accumulators.dtype
    a, b = (x.reshape(*x.shape[:-1], lanes, -1).astype(wide) for x in (left, right))
    return accumulators + (a * b).sum(-1, dtype=wide)


def _pairs(left: Value, right: Value) -> Value:
    """The sums of two neighbouring products of words."""
    products = left.astype(np.int32) * right.astype(np.int32)
    return products.reshape(*products.shape[:-1], -1, 2).sum(-1, dtype=np.int32)


def _matrix(accumulators: Value, left: Value, right: Value) -> Value:
    """The 2 x 2 result gains left (2 x k) times the transpose of right (2 x k)."""
    wide = accumulators.dtype
    a, b = (x.reshape(*x.shape[:-1], 2, -1).astype(wide) for x in (left, right))
    products = (a[..., :, None, :] * b[..., None, :, :]).sum(-1, dtype=wide)
    return accumulators + products.reshape(*products.shape[:-2], 4)


_INSTRUCTIONS: dict[str, Instruction] = {
    "llvm.x86.avx512.vpdpbusd.": _dot,
    "llvm.x86.avx512bf16.dpbf16ps.": _dot,
    "llvm.x86.avx2.pmadd.wd": _pairs,
    "llvm.aarch64.neon.sdot.": _dot,
    "llvm.aarch64.neon.udot.": _dot,
    "llvm.aarch64.neon.usdot.": _dot,
    "llvm.aarch64.neon.bfdot.": _dot,
    "llvm.aarch64.neon.smmla.": _matrix,
    "llvm.aarch64.neon.ummla.": _matrix,
    "llvm.aarch64.neon.usmmla.": _matrix,
    "llvm.aarch64.neon.bfmmla": _matrix,
}
"""By the beginning of the name, which the types follow. Sums of floats are rounded at each step,
in an order of their own: compare with a tolerance."""


def instruction(name: str, dtype: DType) -> Instruction | None:
    """What the function of LLVM named so computes, if it is known here."""
    if name.startswith("llvm.fma."):
        return on_dtype(MATH["fma"], dtype)
    return next((run for start, run in _INSTRUCTIONS.items() if name.startswith(start)), None)


def _is_known(block: Block) -> bool:
    """Whether the interpreter can run what is inside: instructions that it knows, on vectors that
    are parts of rows."""
    for stmt in walk_stmts(block):
        if isinstance(stmt, BufferStore) and _crosses_rows(stmt.buffer, stmt.indices):
            return False
        for term in walk(*own_terms(stmt)):
            if isinstance(term, BufferLoad) and _crosses_rows(term.buffer, term.indices):
                return False
            if isinstance(term, Call) and term.op in LLVM_CALLS:
                name = term.args[0]
                if not isinstance(name, StringImm) or instruction(name.value, term.dtype) is None:
                    return False
    return True


def _crosses_rows(buffer: Buffer, indices: tuple[Expr, ...]) -> bool:
    """Whether a vector is longer than the last dimension, so that it goes on in the next row."""
    last = indices[-1] if indices else None
    size = as_int(buffer.shape[-1]) if indices else None
    return isinstance(last, Ramp) and size is not None and last.lanes > size


def runnable(block: Block) -> Block:
    """A tensorized block as something that the interpreter can run: itself, or around what the
    description of its intrinsic says."""
    if ANNOTATION not in block.annotations or _is_known(block):
        return block
    intrin = TensorIntrin.get(block.annotations[ANNOTATION])
    body = intrin.description.body
    assert isinstance(body, BlockRealize)
    views = [match.buffer for match in block.match_buffers[: len(intrin.description.buffers)]]
    buffers = dict(zip(intrin.description.buffers, views, strict=True))
    values = {old.data: new.data for old, new in buffers.items()}
    return replace(block, body=fresh_copy(body.block.body, values, buffers))
