"""Matrix products: constant and dynamic right operands, odd and symbolic sizes, bfloat16, int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from benchmarks.ops.case import Call, Case, Goal
from benchmarks.ops.peers import model, openblas, ort

SIZES = ((1024, 1024, 1024), (512, 768, 3072), (128, 768, 768), (256, 1000, 2048))
"""M, N, K."""
ODD = ((127, 771, 1023), (1, 1000, 2048), (3, 5, 7))
_PACKED = Goal(0.92, 1.0)
_DYNAMIC = Goal(ratio=1.0, peers=("OpenBLAS",))
_NARROW = Goal(ratio=0.95)
"""torch computes these by oneDNN, too."""


def cases(threads: int) -> Iterator[Case]:
    """All rows."""
    for m, n, k in SIZES:
        yield _constant("gemm, B packed", f"{m}x{n}x{k}", m, n, k, threads, _PACKED)
    for m, n, k in SIZES:
        yield _dynamic("gemm, B dynamic", f"{m}x{n}x{k}", m, n, k, threads, _DYNAMIC, {})
    for m, n, k in ODD:
        # Few rows are bound by reading B, few elements by the call.
        goal = Goal(0.88 if m * n > 1000 else 0.0, 1.0)
        name = f"{m}x{n}x{k}"
        yield _constant("gemm, odd", name, m, n, k, threads, goal)
        yield _constant("gemm, symbolic", f"{name}, M symbolic", m, n, k, threads, goal, "m")
        whole = {"x": ("m", "k"), "w": ("k", "n")}
        for symbolic in ("n", "k", "mnk"):
            shapes = {
                name: [dim if dim in symbolic else {"m": m, "n": n, "k": k}[dim] for dim in dims]
                for name, dims in whole.items()
            }
            title = f"{name}, {', '.join(symbolic.upper())} symbolic"
            yield _dynamic("gemm, symbolic", title, m, n, k, threads, goal, shapes)
    yield _bfloat16(1024, threads)
    yield _int8(1024, threads)
    yield _gemv(threads)


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _constant(
    family: str, name: str, m: int, n: int, k: int, threads: int, goal: Goal, rows: str = ""
) -> Case:
    x, w = _floats(m, k), _floats(k, n)
    inputs = {"x": x}
    shapes = {"x": [rows, k]} if rows else None
    proto = model([("MatMul", "x w", "y", {})], inputs, x.dtype, {"w": w}, shapes, rank=2)
    peers = {
        "torch": _torch_mm(x, w),
        "oneDNN packed": _linear(torch.from_numpy(x), torch.from_numpy(w)),
        "ONNX Runtime": ort(proto, inputs, threads),
        "OpenBLAS": openblas(x, w, threads),
    }
    return Case(family, name, proto, inputs, _exact(x, w), peers, goal, 2.0 * m * n * k)


def _dynamic(
    family: str,
    name: str,
    m: int,
    n: int,
    k: int,
    threads: int,
    goal: Goal,
    shapes: Mapping[str, Any],
) -> Case:
    x, w = _floats(m, k), _floats(k, n)
    inputs = {"x": x, "w": w}
    proto = model([("MatMul", "x w", "y", {})], inputs, x.dtype, shapes=shapes, rank=2)
    peers = {
        "torch": _torch_mm(x, w),
        "oneDNN": _linear(torch.from_numpy(x), torch.from_numpy(w), packed=False),
        "ONNX Runtime": ort(proto, inputs, threads),
        "OpenBLAS": openblas(x, w, threads),
    }
    return Case(family, name, proto, inputs, _exact(x, w), peers, goal, 2.0 * m * n * k)


def _gemv(threads: int) -> Case:
    case = _constant("gemv", "1x4096x4096", 1, 4096, 4096, threads, Goal(0.85))
    moved = 4 * (4096 * 4096 + 2 * 4096)
    return Case(
        case.family, case.name, case.model, case.inputs, case.exact, case.peers, case.goal,
        moved=moved,
    )  # fmt: skip


def _bfloat16(size: int, threads: int) -> Case:
    x, w = (_floats(size, size).astype(ml_dtypes.bfloat16) for _ in range(2))
    inputs = {"x": x}
    proto = model([("MatMul", "x w", "y", {})], inputs, x.dtype, {"w": w}, rank=2)
    a, b = (torch.from_numpy(item.view(np.int16)).view(torch.bfloat16) for item in (x, w))
    out = torch.empty(size, size, dtype=torch.bfloat16)
    peers = {
        "torch": lambda: lambda: torch.mm(a, b, out=out),
        "oneDNN packed": _linear(a, b),
        "ONNX Runtime": ort(proto, inputs, threads),
    }
    return Case(
        "gemm, bf16", f"{size}x{size}x{size}", proto, inputs, _exact(x, w), peers, _NARROW,
        2.0 * size**3, unit="bfloat16", tolerance=5e-3,
    )  # fmt: skip


def _int8(size: int, threads: int) -> Case:
    random = np.random.default_rng(0)
    # What eight bits in each operand can hold without an intermediate sum of 16 bits that does not
    # fit, so that processors with and without VNNI agree.
    x = random.integers(0, 128, (size, size), np.uint8)
    w = random.integers(-127, 128, (size, size), np.int8)
    inputs = {"x": x}
    node = ("MatMulInteger", "x w", "y", {})
    proto = model([node], inputs, np.dtype(np.int32), {"w": w}, rank=2)
    signed, right = torch.from_numpy(x.astype(np.int8)), torch.from_numpy(w)
    peers = {
        "torch": lambda: lambda: torch._int_mm(signed, right),
        "oneDNN packed": _quantized_linear(x, w),
        "ONNX Runtime": ort(proto, inputs, threads),
    }
    return Case(
        "gemm, int8", f"{size}x{size}x{size}", proto, inputs, _exact(x, w), peers, _NARROW,
        2.0 * size**3, unit="int8", tolerance=1e-7,
    )  # fmt: skip


def _exact(x: np.ndarray, w: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: x.astype(np.float64) @ w.astype(np.float64)


def _torch_mm(x: np.ndarray, w: np.ndarray) -> Callable[[], Call]:
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    out = torch.empty(len(x), w.shape[1])
    return lambda: lambda: torch.mm(a, b, out=out)


def _linear(x: torch.Tensor, w: torch.Tensor, *, packed: bool = True) -> Callable[[], Call]:
    """oneDNN's product; the weights as it wants them for this many rows, or as they are."""

    def prepare() -> Call:
        ops = torch.ops.mkldnn
        weight = w.t().contiguous() if packed else w.t()
        if packed:
            weight = ops._reorder_linear_weight(weight, len(x))
        return lambda: ops._linear_pointwise(x, weight, None, "none", [], "")

    return prepare


def _quantized_linear(x: np.ndarray, w: np.ndarray) -> Callable[[], Call]:
    """oneDNN's product of uint8 and packed int8. Its result is float32, as wide as our int32."""

    def prepare() -> Call:
        ops = torch.ops.onednn
        a = torch.from_numpy(x)
        packed = ops.qlinear_prepack(torch.from_numpy(w).t().contiguous(), list(a.shape))
        scales, zeros = torch.ones(w.shape[1]), torch.zeros(w.shape[1], dtype=torch.int64)
        return lambda: ops.qlinear_pointwise(
            a, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return prepare
