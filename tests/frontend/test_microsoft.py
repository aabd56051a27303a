"""Operators that ONNX Runtime adds (com.microsoft), each against ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import transect
from tests.frontend.onnx_models import expected

N, M = 3, 5
"""Sizes that are dynamic in the dynamic models, wherever they occur."""


@dataclass(frozen=True)
class Weight:
    """An operand that is a constant of the model."""

    array: np.ndarray


@dataclass(frozen=True)
class Case:
    """make: the operands of a node (None: left out) for sizes of N and M."""

    kind: str
    make: Callable[[int, int], Sequence[Any]]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    domain: str = "com.microsoft"
    step: float = 0.0
    note: str = ""


def real(*dims: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(sum(dims) + 7 * len(dims))
    return random.uniform(low, high, dims).astype(np.float32)


def whole(*dims: int, dtype: Any = np.uint8, low: int = 0, high: int = 255) -> np.ndarray:
    random = np.random.default_rng(sum(dims) + 11 * len(dims))
    return random.integers(low, high, dims, dtype=dtype)


def number(value: float, dtype: Any = np.float32) -> Weight:
    return Weight(np.asarray(value, dtype))


def scale(value: float, zero: int = 0, dtype: Any = np.uint8) -> tuple[Weight, Weight]:
    return number(value), number(zero, dtype)


def model_of(case: Case, dynamic: bool) -> tuple[onnx.ModelProto, list[str]]:
    """The model with one node, and the names of its inputs."""
    names: list[str] = []
    inputs: list[onnx.ValueInfoProto] = []
    weights: list[onnx.TensorProto] = []
    small, large = case.make(N, M), case.make(N + 1, M + 2)
    for i, (operand, other) in enumerate(zip(small, large, strict=True)):
        names.append("" if operand is None else f"x{i}")
        if isinstance(operand, Weight):
            weights.append(numpy_helper.from_array(operand.array, names[-1]))
        elif operand is not None:
            # A dimension that changes with the sizes is dynamic; equal changes have one name.
            dims = [
                f"d{a}_{b}" if dynamic and a != b else a
                for a, b in zip(operand.shape, other.shape, strict=True)
            ]
            code = helper.np_dtype_to_tensor_dtype(operand.dtype)
            inputs.append(helper.make_tensor_value_info(names[-1], code, dims))
    node = helper.make_node(
        case.kind, names, case.outputs, "node", domain=case.domain, **case.attributes
    )
    outputs = [onnx.ValueInfoProto(name=name) for name in case.outputs if name]
    graph = helper.make_graph([node], "graph", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), names


def check(case: Case, dynamic: bool) -> None:
    proto, names = model_of(case, dynamic)
    model = transect.compile(proto, cache=False)
    for n, m in [(N, M), *([(1, 1), (7, 18)] if dynamic else [])]:
        operands = zip(names, case.make(n, m), strict=True)
        inputs = {name: item for name, item in operands if isinstance(item, np.ndarray)}
        results = model(**inputs)
        results = results if isinstance(results, tuple) else (results,)
        for ours, theirs in zip(results, expected(proto, inputs), strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            a, b = ours.astype(np.float64), theirs.astype(np.float64)
            if ours.dtype.kind in "iu":
                np.testing.assert_allclose(a, b, rtol=0, atol=case.step)
            else:
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


X, Y = scale(0.02, 120), scale(0.05, 100)
MAPS = [
    Case("QLinearSigmoid", lambda n, m: [whole(n, m), *X, *scale(1 / 256)]),
    Case("QLinearLeakyRelu", lambda n, m: [whole(n, m), *X, *Y], {"alpha": 0.2}),
    Case(
        "QLinearSoftmax",
        lambda n, m: [whole(n, m), *X, *scale(1 / 256)],
        {"axis": -1, "opset": 13},
        step=1,
    ),
    Case(
        "QLinearAveragePool",
        lambda n, m: [whole(n, 2, 8, 8), *X, *Y],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
        step=1,
    ),
    Case("QLinearGlobalAveragePool", lambda n, m: [whole(n, 4, m, 6), *X, *Y]),
    Case(
        "QLinearGlobalAveragePool",
        lambda n, m: [whole(n, m, 6, 4), *X, *Y],
        {"channels_last": 1},
        note="channels last",
    ),
    Case("QLinearAdd", lambda n, m: [whole(n, m), *X, whole(m), *scale(0.03, 7), *Y], step=1),
    Case(
        "QLinearMul",
        lambda n, m: [
            whole(n, m, dtype=np.int8, low=-128, high=127),
            *scale(0.02, -3, np.int8),
            whole(1, m, dtype=np.int8, low=-128, high=127),
            *scale(0.03, 7, np.int8),
            *scale(0.05, 1, np.int8),
        ],
    ),
    Case(
        "QLinearConcat",
        lambda n, m: [*Y, whole(n, m), *X, whole(n, 2), *scale(0.03, 7)],
        {"axis": 1},
    ),
    Case(
        "QLinearWhere",
        lambda n, m: [whole(n, m, high=2).astype(bool), whole(n, m), *X, whole(m), *Y, *X],
    ),
    Case("QuantizeLinear", lambda n, m: [real(n, m), *Y]),
    Case("QuantizeLinear", lambda n, m: [real(n, m), *scale(1e-4, 9, np.uint16)], note="16 bits"),
    Case(
        "DequantizeLinear",
        lambda n, m: [whole(n, m, dtype=np.int16, low=-9999, high=9999), *scale(1e-4, 9, np.int16)],
    ),
]
WEIGHTS: Any = {"dtype": np.int8, "low": -63, "high": 63}
"""Seven bits: where a processor has no dot product of bytes, ONNX Runtime adds two products of
bytes in 16 bits, which saturate for larger ones."""
B = Weight(whole(8, 6, **WEIGHTS))
PRODUCTS = [
    Case(
        "QGemm",
        lambda n, m: [
            whole(n, 8),
            *X,
            B,
            *scale(0.01, 0, np.int8),
            Weight(whole(6, dtype=np.int32, low=-99, high=99)),
            *Y,
        ],
    ),
    Case(
        "QGemm",
        lambda n, m: [
            whole(n, 8),
            *X,
            Weight(B.array.T.copy()),
            Weight(real(6, low=0.01, high=0.02)),
            Weight(np.zeros(6, np.int8)),
        ],
        {"transB": 1, "alpha": 0.5},
        note="to floats, per column",
    ),
    Case("DynamicQuantizeMatMul", lambda n, m: [real(n, m, 8), B, *scale(0.01, 3, np.int8)]),
    Case(
        "DynamicQuantizeMatMul",
        lambda n, m: [real(n, 8), B, Weight(real(6, low=0.01)), None, Weight(real(6))],
        note="bias",
    ),
    Case(
        "MatMulIntegerToFloat",
        lambda n, m: [whole(n, m, 8), B, *(number(0.1), Weight(real(6))), number(9, np.uint8)],
    ),
    Case(
        "MatMulNBits",
        lambda n, m: [real(n, m, 40), Weight(whole(6, 2, 16)), Weight(real(12))],
        {"K": 40, "N": 6, "bits": 4, "block_size": 32},
    ),
    Case(
        "MatMulNBits",
        lambda n, m: [real(n, 32), Weight(whole(6, 2, 8)), Weight(real(12)), Weight(whole(6, 1))],
        {"K": 32, "N": 6, "bits": 4, "block_size": 16},
        note="zero points",
    ),
    Case(
        "MatMulNBits",
        lambda n, m: [real(n, 32), Weight(whole(6, 2, 16)), Weight(real(12))],
        {"K": 32, "N": 6, "bits": 8, "block_size": 16},
        note="8 bits",
    ),
    Case("FusedMatMul", lambda n, m: [real(n, m, 4), real(n, m, 6)], {"transA": 1, "alpha": 0.5}),
    Case("FusedMatMul", lambda n, m: [real(m, 4), real(6, 4)], {"transB": 1}),
    Case("TransposeMatMul", lambda n, m: [real(m, 4), real(6, 4)], {"transB": 1}),
    Case(
        "FusedMatMul",
        lambda n, m: [real(4, n, m), real(n, m, 6)],
        {"transBatchA": 1},
        note="batch later",
    ),
    *(
        Case("FusedGemm", lambda n, m: [real(n, 4), real(4, 6), real(6)], attributes, note=name)
        for name, attributes in {
            "relu": {"activation": "Relu"},
            "leaky": {"activation": "LeakyRelu", "activation_alpha": 0.3},
        }.items()
    ),
    *(
        Case(
            "FusedConv",
            lambda n, m: [real(n, 3, 9, 9), Weight(real(4, 3, 3, 3)), Weight(real(4))],
            {"kernel_shape": [3, 3], "activation": name, **parameters},
            note=name,
        )
        for name, parameters in {
            "Relu": {},
            "Tanh": {},
            "Sigmoid": {},
            "LeakyRelu": {"activation_params": [0.2]},
            "Clip": {"activation_params": [0.0, 1.0]},
            "HardSigmoid": {"activation_params": [0.3, 0.4]},
        }.items()
    ),
    Case(
        "FusedConv",
        lambda n, m: [
            real(n, 3, 9, 9),
            Weight(real(4, 3, 3, 3)),
            Weight(real(4)),
            real(n, 4, 7, 7),
        ],
        {"kernel_shape": [3, 3], "activation": "Relu"},
        note="sum",
    ),
]
NORMS = [
    Case("BiasGelu", lambda n, m: [real(n, m, 8), Weight(real(8))]),
    Case("FastGelu", lambda n, m: [real(n, m, 8), Weight(real(8))]),
    Case("FastGelu", lambda n, m: [real(n, m, 8)], note="no bias"),
    Case("QuickGelu", lambda n, m: [real(n, m)], {"alpha": 1.5}),
    Case("Gelu", lambda n, m: [real(n, m)]),
    Case(
        "SkipLayerNormalization",
        lambda n, m: [real(n, m, 8), real(n, m, 8), *(Weight(real(8, low=k)) for k in (-1, 0, 1))],
        {"epsilon": 1e-5},
        ("y", "", "", "sum"),
    ),
    Case(
        "SkipSimplifiedLayerNormalization",
        lambda n, m: [real(n, m, 8), real(n, m, 8), Weight(real(8)), Weight(real(8, low=1))],
        {"epsilon": 1e-5},
        ("y", "", "", "sum"),
    ),
    Case(
        "SimplifiedLayerNormalization",
        lambda n, m: [real(n, m, 8), Weight(real(8))],
        {"epsilon": 1e-5, "axis": -1},
        domain="",
    ),
    Case(
        "EmbedLayerNormalization",
        lambda n, m: [
            whole(n, m, dtype=np.int32, high=10),
            whole(n, m, dtype=np.int32, high=2),
            *(Weight(real(rows, 8)) for rows in (10, 20, 2)),
            Weight(real(8)),
            Weight(real(8, low=1)),
            whole(n, m, dtype=np.int32, high=2),
        ],
        {"epsilon": 1e-5},
        ("y", "mask", "sum"),
    ),
]
QKV = (Weight(real(8, 24, low=-1, high=1)), Weight(real(24)))
ATTENTION = [
    Case("Attention", lambda n, m: [real(n, m, 8), *QKV], {"num_heads": 2}),
    Case(
        "Attention",
        lambda n, m: [real(n, m, 8), *QKV],
        {"num_heads": 2, "unidirectional": 1},
        note="causal",
    ),
    Case(
        "Attention",
        lambda n, m: [
            real(n, m, 8),
            *QKV,
            np.tril(np.ones((n, m), np.int32), m - 1),
            real(2, n, 2, 4, 4)[:, :, :, :0],
        ],
        {"num_heads": 2},
        ("y", "present"),
        note="mask and an empty past",
    ),
    Case(
        "Attention",
        lambda n, m: [real(n, m, 8), *QKV, np.full(n, max(1, m - 1), np.int32)],
        {"num_heads": 2},
        note="lengths",
    ),
    Case(
        "Attention",
        lambda n, m: [real(n, m, 8), *QKV, None, None, real(1, 2, m, m)],
        {"num_heads": 2},
        note="bias",
    ),
    Case(
        "Attention",
        lambda n, m: [
            real(n, m, 8),
            *QKV,
            np.ones((n, m + 6), np.int32),
            real(2, n, 2, 6, 4),
        ],
        {"num_heads": 2, "unidirectional": 1},
        ("y", "present"),
        note="mask and past",
    ),
    Case(
        "QAttention",
        lambda n, m: [
            whole(n, m, 8),
            Weight(whole(8, 24, **WEIGHTS)),
            Weight(real(24)),
            number(0.02),
            number(0.01),
            None,
            number(120, np.uint8),
            number(0, np.int8),
        ],
        {"num_heads": 2},
    ),
    Case(
        "MultiHeadAttention",
        lambda n, m: [real(n, m, 8), real(n, 6, 8), real(n, 6, 8), Weight(real(24))],
        {"num_heads": 2},
    ),
    Case(
        "MultiHeadAttention",
        lambda n, m: [
            *(real(n, m, 8) for _ in range(3)),
            None,
            np.ones((n, m + 4), np.int32),
            None,
            *(real(n, 2, 4, 4) for _ in range(2)),
        ],
        {"num_heads": 2},
        ("y", "keys", "values"),
        note="past",
    ),
    *(
        Case(
            "RotaryEmbedding",
            lambda n, m, width=width: [
                real(n, m, 16),
                np.tile(np.arange(m, dtype=np.int64)[::-1], (n, 1)),
                *(Weight(real(20, width, low=low)) for low in (-1.0, 0.0)),
            ],
            attributes,
            note=note,
        )
        for note, width, attributes in (
            ("", 4, {"num_heads": 2}),
            ("interleaved", 4, {"interleaved": 1, "num_heads": 2}),
            ("partial", 2, {"num_heads": 2, "rotary_embedding_dim": 4}),
        )
    ),
    Case(
        "RotaryEmbedding",
        lambda n, m: [
            real(n, 2, m, 8),
            Weight(np.array([2], np.int64)),
            *(Weight(real(22, 4, low=low)) for low in (-1.0, 0.0)),
        ],
        note="heads first, from a position",
    ),
]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "case", [*MAPS, *PRODUCTS, *NORMS, *ATTENTION], ids=lambda case: f"{case.kind} {case.note}"
)
def test_operator(case: Case, dynamic: bool) -> None:
    check(case, dynamic)
