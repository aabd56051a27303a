"""What is no product alone: softmax, activations, normalizations, attention; and, reported only,
transposes, reductions and chains of elementwise operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.ops.case import Call, Case, Goal
from benchmarks.ops.peers import Node, model, ort

_HEADS, _HEAD = 12, 64
REPORTED = Goal()


def cases(threads: int) -> Iterator[Case]:
    """All rows."""
    wide = (8, 12, 128, 128)
    row = partial(_row, threads=threads)
    goal = Goal(ratio=1.25)
    yield row(
        "softmax", wide, [("Softmax", "x", "y", {"axis": -1})],
        lambda x: torch.softmax(x, -1), lambda x, out: torch.softmax(x, -1, out=out), goal,
    )  # fmt: skip
    gelu = torch.ops.aten.gelu
    yield row(
        "gelu", wide, [("Gelu", "x", "y", {})],
        functional.gelu, lambda x, out: gelu.out(x, out=out), goal,
    )  # fmt: skip
    for rows, columns in ((128, 768), (4096, 1024)):
        yield _layer_norm(rows, columns, threads, goal)
    for length in (128, 1024):
        yield from _attention(length, threads, Goal(ratio=1.2))
    yield from _reported(row)


def _row(
    family: str,
    shape: Sequence[int],
    nodes: Sequence[Node],
    exact: Callable[[torch.Tensor], torch.Tensor],
    into: Callable[[torch.Tensor, torch.Tensor], Any],
    goal: Goal = REPORTED,
    *,
    threads: int,
    name: str = "",
    constants: Mapping[str, np.ndarray] | None = None,
) -> Case:
    """A row of one input. exact: by torch, in float64 on doubles. into: torch with a result to
    write to."""
    x = _floats(*shape)
    given = torch.from_numpy(x)
    result = exact(given)
    inputs = {"x": x}
    proto = model(nodes, inputs, x.dtype, constants, rank=result.ndim)

    def torch_call() -> Call:
        out = torch.empty_like(result)

        def call() -> torch.Tensor:
            into(given, out)
            return out

        return call

    peers = {"torch": torch_call, "ONNX Runtime": ort(proto, inputs, threads)}
    title = name or "x".join(map(str, shape))
    moved = 4 * (x.size + result.numel())
    return Case(
        family, title, proto, inputs, lambda: exact(given.double()).numpy(), peers, goal,
        moved=moved, tolerance=2e-5,
    )  # fmt: skip


def _layer_norm(rows: int, columns: int, threads: int, goal: Goal) -> Case:
    x, scale, bias = _floats(rows, columns), _floats(columns), _floats(columns)
    inputs, constants = {"x": x}, {"scale": scale, "bias": bias}
    node = ("LayerNormalization", "x scale bias", "y", {"axis": -1, "epsilon": 1e-5})
    proto = model([node], inputs, x.dtype, constants, rank=2)
    given = [torch.from_numpy(item) for item in (x, scale, bias)]

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (columns,), scale, bias, 1e-5)

    def into() -> Call:
        out, mean, scale = torch.empty(rows, columns), torch.empty(rows, 1), torch.empty(rows, 1)
        norm = torch.ops.aten.native_layer_norm.out

        def call() -> torch.Tensor:
            norm(given[0], [columns], given[1], given[2], 1e-5, out0=out, out1=mean, out2=scale)
            return out

        return call

    peers: Mapping[str, Callable[[], Call]] = {
        "torch": lambda: lambda: run(*given),
        "torch, preallocated": into,
        "ONNX Runtime": ort(proto, inputs, threads),
    }
    return Case(
        "layernorm", f"{rows}x{columns}", proto, inputs,
        lambda: run(*(item.double() for item in given)).numpy(), peers, goal, moved=8 * x.size,
    )  # fmt: skip


def _attention(length: int, threads: int, goal: Goal) -> Iterator[Case]:
    """Softmax(Q Kᵀ / 8) V, heads first, as a model has it after its transposes."""
    shape = (1, _HEADS, length, _HEAD)
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal(shape, dtype=np.float32) for _ in range(3))
    inputs = {"q": q, "k": k, "v": v}
    proto = model(
        [
            ("Transpose", "k", "t", {"perm": [0, 1, 3, 2]}),
            ("MatMul", "q t", "p", {}),
            ("Mul", "p scale", "s", {}),
            ("Softmax", "s", "a", {"axis": -1}),
            ("MatMul", "a v", "y", {}),
        ],
        inputs,
        q.dtype,
        {"scale": np.float32(_HEAD**-0.5).reshape(())},
        rank=4,
    )
    given = [torch.from_numpy(item) for item in (q, k, v)]
    # ONNX Runtime's own kernel takes the heads within the rows, and so is spared a transpose.
    rows = {
        name: np.ascontiguousarray(item.transpose(0, 2, 1, 3)).reshape(1, length, _HEADS * _HEAD)
        for name, item in inputs.items()
    }
    fused = model(
        [("com.microsoft::MultiHeadAttention", "q k v", "y", {"num_heads": _HEADS})],
        rows,
        q.dtype,
        rank=3,
    )

    def flash() -> Call:
        call = ort(fused, rows, threads)()
        return lambda: _heads_first(call(), length)

    peers: Mapping[str, Callable[[], Call]] = {
        "torch": lambda: lambda: functional.scaled_dot_product_attention(*given),
        "ONNX Runtime": ort(proto, inputs, threads),
        "ONNX Runtime, MultiHeadAttention": flash,
    }
    exact = [item.double() for item in given]
    yield Case(
        "attention", f"{_HEADS} heads, {length}, {_HEAD}", proto, inputs,
        lambda: functional.scaled_dot_product_attention(*exact).numpy(), peers, goal,
        operations=4.0 * _HEADS * length**2 * _HEAD,
    )  # fmt: skip


def _heads_first(result: np.ndarray, length: int) -> np.ndarray:
    """A view."""
    return result.reshape(1, length, _HEADS, _HEAD).transpose(0, 2, 1, 3)


def _reported(row: Callable[..., Case]) -> Iterator[Case]:
    def turn(*order: int) -> tuple[Any, ...]:
        return (
            [("Transpose", "x", "y", {"perm": list(order)})],
            lambda x: x.permute(order).contiguous(),
            lambda x, out: out.copy_(x.permute(order)),
        )

    yield row("transpose", (2048, 2048), *turn(1, 0))
    yield row("transpose", (1, 64, 112, 112), *turn(0, 2, 3, 1), name="NCHW 64x112x112 to NHWC")
    yield row("transpose", (1, 112, 112, 64), *turn(0, 3, 1, 2), name="NHWC 64x112x112 to NCHW")
    yield row("transpose", (8, 128, 12, 64), *turn(0, 2, 1, 3), name="heads 8x128x12x64")
    for axis, name in enumerate(("along columns", "along rows")):
        yield row(
            "mean", (4096, 1024),
            [("ReduceMean", "x axes", "y", {"keepdims": 0})],
            lambda x, axis=axis: x.mean(axis),
            lambda x, out, axis=axis: torch.mean(x, axis, out=out),
            name=f"4096x1024 {name}", constants={"axes": np.array([axis])},
        )  # fmt: skip
    vector = _floats(1024)
    factor = torch.from_numpy(vector)
    yield row(
        "elementwise", (4096, 1024),
        [
            ("Mul", "x scale", "a", {}), ("Add", "a scale", "b", {}),
            ("Relu", "b", "c", {}), ("Add", "c x", "y", {}),
        ],
        lambda x: torch.relu(x * factor.to(x.dtype) + factor.to(x.dtype)) + x,
        lambda x, out: torch.addcmul(factor, x, factor, out=out).relu_().add_(x),
        name="relu(x * s + s) + x, 4096x1024", constants={"scale": vector},
    )  # fmt: skip
    yield row(
        "elementwise", (4096, 1024),
        [("Sigmoid", "x", "a", {}), ("Mul", "x a", "y", {})],
        functional.silu, lambda x, out: torch.ops.aten.silu.out(x, out=out), name="silu 4096x1024",
    )  # fmt: skip


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
