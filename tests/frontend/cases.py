"""One case for every ONNX operator that is covered, and its variants, by family.

A case writes its nodes into a graph and returns its results. Dimensions are given by name; a model
is made with them dynamic, or with the sizes in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.frontend.onnx_models import Graph

Size = int | str
Range = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """build: takes the graph and the names of the inputs. inputs: dims, dtype, range of values."""

    name: str
    build: Callable[..., str | tuple[str, ...]]
    inputs: tuple[tuple[tuple[Size, ...], Any, Range], ...]


def case(
    name: str,
    build: Callable[..., str | tuple[str, ...]],
    *dims: tuple[Size, ...],
    dtype: Any = np.float32,
    values: Range = (-3.0, 3.0),
) -> Case:
    """A case whose inputs all have one dtype and range."""
    return Case(name, build, tuple((item, dtype, values) for item in dims))


def node(kind: str, *, outputs: int = 1, **attributes: Any) -> Callable[..., Any]:
    """One node that takes the inputs of the case."""
    return lambda g, *names: g.op(kind, *names, outputs=outputs, **attributes)


def with_constants(kind: str, *constants: Any, **attributes: Any) -> Callable[..., Any]:
    """One node that takes the inputs of the case, then int64 constants."""
    return lambda g, *names: g.op(
        kind, *names, *(g.constant(item, np.int64) for item in constants), **attributes
    )


NM: tuple[Size, ...] = ("n", 4, "m")


def unary() -> Iterator[Case]:
    for kind in (
        "Abs", "Atan", "Asinh", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity", "IsNaN", "Neg",
        "Relu", "Sigmoid", "Sign", "Sin", "Sinh", "Cosh", "Softplus", "Tanh", "Dropout",
    ):  # fmt: skip
        yield case(kind, node(kind), NM)
    for kind in ("Log", "Sqrt", "Reciprocal"):
        yield case(kind, node(kind), NM, values=(0.1, 9.0))
    for kind in ("Acos", "Asin", "Atanh", "Tan"):
        yield case(kind, node(kind), NM, values=(-0.95, 0.95))
    yield case("Acosh", node("Acosh"), NM, values=(1.0, 9.0))
    yield case("Not", node("Not"), NM, dtype=np.bool_, values=(0, 2))
    yield case("Neg int", node("Neg"), NM, dtype=np.int32, values=(-9, 9))
    yield case("Abs int", node("Abs"), NM, dtype=np.int64, values=(-9, 9))
    yield case("LeakyRelu", node("LeakyRelu"), NM)
    yield case("LeakyRelu alpha", node("LeakyRelu", alpha=0.3), NM)
    yield case("HardSigmoid", node("HardSigmoid"), NM)
    yield case("HardSigmoid alpha", node("HardSigmoid", alpha=0.5, beta=0.25), NM)
    yield case("Relu double", node("Relu"), NM, dtype=np.float64)
    yield case("scalar", node("Exp"), ())


def binary() -> Iterator[Case]:
    for kind in ("Add", "Sub", "Mul", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
                 "LessOrEqual"):  # fmt: skip
        yield case(f"{kind} int", node(kind), NM, NM, dtype=np.int32, values=(1, 9))
        yield case(f"{kind} broadcast", node(kind), NM, (4, 1))
        yield case(f"{kind} outer", node(kind), ("n", 1), ("m",))
    yield case("Div signs", node("Div"), NM, NM, dtype=np.int64, values=(-9, 0))
    yield case("Add scalar", node("Add"), (), NM)
    for kind in ("And", "Or", "Xor"):
        yield case(kind, node(kind), NM, ("m",), dtype=np.bool_, values=(0, 2))
    yield case("Pow", node("Pow"), NM, ("m",), values=(0.1, 3.0))
    yield case("Pow square", lambda g, x: g.op("Pow", x, g.constant(2, np.float32)), NM)
    yield case("Pow cube", lambda g, x: g.op("Pow", x, g.constant(3, np.int64)), NM)
    yield Case("Pow int", node("Pow"), ((NM, np.int32, (0, 5)), (("m",), np.float32, (0.0, 2.0))))
    yield Case(
        "Mod signs",
        node("Mod"),
        ((NM, np.int32, (-9, 9)), (NM, np.int32, (1, 5))),
    )
    yield Case(
        "Mod negative",
        node("Mod"),
        ((NM, np.int32, (-9, 9)), (NM, np.int32, (-5, 0))),
    )
    yield Case(
        "Mod fmod", node("Mod", fmod=1), ((NM, np.float32, (-9, 9)), (NM, np.float32, (1, 4)))
    )
    yield case("PRelu", node("PRelu"), NM, (4, 1))
    yield case("PRelu last", node("PRelu"), NM, ("m",))
    yield case("PRelu one", node("PRelu"), NM, (1,))
    for kind in ("Max", "Min", "Sum"):
        yield case(f"{kind} of three", node(kind), NM, ("m",), (4, 1))
        yield case(f"{kind} of one", node(kind), NM)
    yield case("Max int", node("Max"), NM, NM, dtype=np.int64, values=(-9, 9))
    yield Case(
        "Where",
        node("Where"),
        (
            (("n", 1, "m"), np.bool_, (0, 2)),
            (NM, np.float32, (-3, 3)),
            ((4, 1), np.float32, (-3, 3)),
        ),
    )
    yield case("Clip", lambda g, x: g.op("Clip", x, *_floats(g, -1, 2)), NM)
    yield case("Clip below", lambda g, x: g.op("Clip", x, *_floats(g, -1)), NM)
    yield case("Clip above", lambda g, x: g.op("Clip", x, "", *_floats(g, 1)), NM)
    for code in ("FLOAT", "DOUBLE", "FLOAT16", "INT32", "INT64", "INT8", "BOOL"):
        to = getattr(TensorProto, code)
        yield case(f"Cast to {code}", node("Cast", to=to), NM)
        yield case(f"Cast int to {code}", node("Cast", to=to), NM, dtype=np.int32, values=(-9, 9))
    yield case("Cast bool", node("Cast", to=TensorProto.FLOAT), NM, dtype=np.bool_, values=(0, 2))
    yield case("Constant", _constants, (3,))


def _floats(g: Graph, *values: float) -> tuple[str, ...]:
    return tuple(g.constant(value, np.float32) for value in values)


def _constants(g: Graph, x: str) -> str:
    for attributes in ({"value_float": 1.5}, {"value_floats": [1.0, 2.0, 3.0]}):
        x = g.op("Add", x, g.op("Constant", **attributes))
    for attributes in ({"value_int": 2}, {"value_ints": [1, 2, 3]}):
        number = g.op("Cast", g.op("Constant", **attributes), to=TensorProto.FLOAT)
        x = g.op("Mul", x, number)
    return x


IMAGE: tuple[Size, ...] = ("n", 4, 9, "w")


def products() -> Iterator[Case]:
    yield case("MatMul", node("MatMul"), ("n", "k"), ("k", "m"))
    yield case("MatMul batch", node("MatMul"), ("n", 2, 3, "k"), ("n", 2, "k", 5))
    yield case("MatMul broadcast", node("MatMul"), ("n", 3, "k"), ("k", 5))
    yield case("MatMul broadcast left", node("MatMul"), (3, "k"), ("n", "k", 5))
    yield case("MatMul broadcast both", node("MatMul"), (2, 1, 3, "k"), ("n", "k", 5))
    yield case("MatMul vector", node("MatMul"), ("k",), ("k", 5))
    yield case("MatMul matrix vector", node("MatMul"), ("n", 3, "k"), ("k",))
    yield case("MatMul vectors", node("MatMul"), ("k",), ("k",))
    yield case("MatMul double", node("MatMul"), ("n", "k"), ("k", "m"), dtype=np.float64)
    yield case("Gemm", node("Gemm"), ("n", "k"), ("k", "m"), ("m",))
    yield case("Gemm no bias", node("Gemm"), ("n", "k"), ("k", "m"))
    yield case("Gemm trans", node("Gemm", transA=1, transB=1), ("k", "n"), ("m", "k"), ("n", 1))
    yield case("Gemm scaled", node("Gemm", alpha=0.5, beta=2.0), ("n", "k"), ("k", "m"), ())
    yield case("Gemm beta 0", node("Gemm", beta=0.0), ("n", "k"), ("k", "m"), ("m",))


def convolutions() -> Iterator[Case]:
    yield case("Conv", node("Conv"), IMAGE, (6, 4, 3, 2), (6,))
    yield case("Conv no bias", node("Conv"), IMAGE, (6, 4, 1, 1))
    yield case("Conv pads", node("Conv", pads=[1, 0, 2, 1]), IMAGE, (6, 4, 3, 2))
    yield case("Conv strides", node("Conv", strides=[2, 1], pads=[1, 1, 1, 1]), IMAGE, (6, 4, 3, 3))
    yield case("Conv dilations", node("Conv", dilations=[2, 1]), IMAGE, (6, 4, 3, 2))
    yield case("Conv groups", node("Conv", group=2), IMAGE, (6, 2, 3, 2))
    yield case("Conv depthwise", node("Conv", group=4), IMAGE, (4, 1, 3, 2))
    yield case("Conv same upper", node("Conv", auto_pad="SAME_UPPER"), IMAGE, (6, 4, 4, 3))
    yield case("Conv same lower", node("Conv", auto_pad="SAME_LOWER"), IMAGE, (6, 4, 4, 3))
    yield case(
        "Conv same strides", node("Conv", auto_pad="SAME_UPPER", strides=[2, 2]), ("n", 4, 9, 7),
        (6, 4, 3, 3),
    )  # fmt: skip
    yield case("Conv valid", node("Conv", auto_pad="VALID", strides=[2, 1]), IMAGE, (6, 4, 3, 2))
    yield case("Conv 1d", node("Conv", strides=[2]), ("n", 4, "w"), (6, 4, 3), (6,))
    yield case("Conv 3d", node("Conv", pads=[1] * 6), ("n", 2, 4, 5, "w"), (3, 2, 3, 3, 3), (3,))


def pools() -> Iterator[Case]:
    for kind in ("MaxPool", "AveragePool"):
        yield case(kind, node(kind, kernel_shape=[3, 2]), IMAGE)
        yield case(f"{kind} strides", node(kind, kernel_shape=[3, 2], strides=[2, 2]), IMAGE)
        yield case(
            f"{kind} pads",
            node(kind, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 1]),
            IMAGE,
        )
        yield case(
            f"{kind} ceil", node(kind, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
            ("n", 4, 9, 7),
        )  # fmt: skip
        yield case(
            f"{kind} same", node(kind, kernel_shape=[3, 2], auto_pad="SAME_UPPER"), ("n", 4, 9, 7)
        )
        yield case(f"{kind} 1d", node(kind, kernel_shape=[3]), ("n", 4, "w"))
        yield case(f"{kind} 3d", node(kind, kernel_shape=[2, 2, 2]), ("n", 2, 4, 5, "w"))
        yield case(f"Global{kind}", node(f"Global{kind}"), IMAGE)
        yield case(f"Global{kind} 1d", node(f"Global{kind}"), ("n", 4, "w"))
    yield case(
        "AveragePool include pad",
        node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        IMAGE,
    )
    yield case("MaxPool dilations", node("MaxPool", kernel_shape=[2, 2], dilations=[2, 1]), IMAGE)


def normalisations() -> Iterator[Case]:
    for kind in ("Softmax", "LogSoftmax"):
        yield case(kind, node(kind), NM)
        yield case(f"{kind} axis 0", node(kind, axis=0), NM)
        yield case(f"{kind} axis 1", node(kind, axis=1), NM)
        yield case(f"{kind} large", node(kind), NM, values=(-500, 500))
    yield Case(
        "BatchNormalization",
        node("BatchNormalization", epsilon=1e-3),
        ((IMAGE, np.float32, (-3, 3)), *(((4,), np.float32, (0.5, 2)) for _ in range(4))),
    )
    yield Case(
        "BatchNormalization 2d",
        node("BatchNormalization"),
        ((("n", 4), np.float32, (-3, 3)), *(((4,), np.float32, (0.5, 2)) for _ in range(4))),
    )
    yield case("LayerNormalization", node("LayerNormalization"), ("n", "m", 6), (6,), (6,))
    yield case("LayerNormalization no bias", node("LayerNormalization"), ("n", "m", 6), (6,))
    yield case(
        "LayerNormalization axis", node("LayerNormalization", axis=1, epsilon=1e-2), ("n", 4, 6),
        (4, 6), (4, 6),
    )  # fmt: skip


def reductions() -> Iterator[Case]:
    for kind in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2",
                 "ReduceSumSquare"):  # fmt: skip
        yield case(f"{kind} all", node(kind), NM)
        yield case(f"{kind} axis", node(kind, axes=[1], keepdims=0), NM)
        yield case(f"{kind} axes", node(kind, axes=[-1, 0]), NM)
    yield case("ReduceLogSum", node("ReduceLogSum", axes=[2]), NM, values=(0.1, 3))
    yield case("ReduceSum all", node("ReduceSum", keepdims=0), NM)
    yield case("ReduceSum axis", with_constants("ReduceSum", [1], keepdims=0), NM)
    yield case("ReduceSum axes", with_constants("ReduceSum", [-1, 0]), NM)
    empty: list[int] = []
    yield case("ReduceSum noop", with_constants("ReduceSum", empty, noop_with_empty_axes=1), NM)
    yield case("ReduceSum empty", with_constants("ReduceSum", empty), NM)
    yield case(
        "ReduceSum int", with_constants("ReduceSum", [0]), NM, dtype=np.int32, values=(-9, 9)
    )
    yield case("ReduceMax int", node("ReduceMax", axes=[1]), NM, dtype=np.int32, values=(-9, 9))
    for kind in ("ArgMax", "ArgMin"):
        yield case(kind, node(kind), NM)
        yield case(f"{kind} axis", node(kind, axis=-1, keepdims=0), NM)
        yield case(f"{kind} ties", node(kind, axis=1), NM, dtype=np.int32, values=(0, 2))


def layouts() -> Iterator[Case]:
    yield case("Concat", node("Concat", axis=1), ("n", 2, "m"), ("n", 3, "m"), ("n", "k", "m"))
    yield case("Concat one", node("Concat", axis=-1), NM)
    yield case("Transpose", node("Transpose"), NM)
    yield case("Transpose perm", node("Transpose", perm=[0, 2, 1]), NM)
    yield case("Flatten", node("Flatten"), NM)
    yield case("Flatten 0", node("Flatten", axis=0), NM)
    yield case("Flatten end", node("Flatten", axis=3), NM)
    yield case("Flatten -1", node("Flatten", axis=-1), NM)
    yield case("Reshape", with_constants("Reshape", [-1, 2]), NM)
    yield case("Reshape keep", with_constants("Reshape", [0, 2, -1]), NM)
    yield case("Reshape split", with_constants("Reshape", [0, 2, 6, 0]), ("n", 4, 3, 5))
    yield case("Squeeze", with_constants("Squeeze", [1, -1]), ("n", 1, "m", 1))
    yield case("Unsqueeze", with_constants("Unsqueeze", [0, -1]), NM)
    yield case("Unsqueeze middle", with_constants("Unsqueeze", [2]), NM)
    yield case("Expand", with_constants("Expand", [2, 1, 4, 1]), NM)
    yield case("Expand rows", with_constants("Expand", [3, 4, 5]), (4, 1))
    yield case("Split", _split([1, 3]), NM)
    yield case("Split equal", lambda g, x: g.op("Split", x, outputs=2, axis=1), NM)
    yield case("Gather", with_constants("Gather", [0, 2, -1, 1]), (4, "n", "m"))
    yield case("Gather axis", with_constants("Gather", [[0, 2], [-1, 1]], axis=1), NM)
    yield case("Gather scalar", with_constants("Gather", 2, axis=1), NM)
    yield Case(
        "Gather embedding",
        node("Gather"),
        (((7, "m"), np.float32, (-3, 3)), (("n", "k"), np.int64, (-7, 7))),
    )
    yield case("Slice", with_constants("Slice", [1], [3], [1]), NM)
    yield case("Slice negative", with_constants("Slice", [-3], [-1], [1]), NM)
    yield case("Slice to the end", with_constants("Slice", [1], [2**63 - 1], [1]), NM)
    yield case("Slice steps", with_constants("Slice", [0], [4], [1], [2]), NM)
    yield case("Slice back", with_constants("Slice", [3], [0], [1], [-1]), NM)
    yield case("Slice all back", with_constants("Slice", [-1], [-(2**63)], [1], [-1]), NM)
    yield case("Slice dynamic", with_constants("Slice", [0, 1], [2, 2**31 - 1], [0, 2]), NM)
    yield case("Slice dynamic negative", with_constants("Slice", [-2], [2**63 - 1], [2]), NM)
    yield case("Slice dynamic last", with_constants("Slice", [0], [-1], [2]), NM)
    yield case("Slice dynamic back", with_constants("Slice", [-1], [-(2**63)], [2], [-1]), NM)
    yield case("Slice no axes", with_constants("Slice", [0, 1], [2, 9]), NM)
    yield case("Slice beyond", with_constants("Slice", [2], [100], [1]), NM)
    yield case("Slice empty", with_constants("Slice", [3], [1], [1]), NM)
    yield case("ConstantOfShape", _filled(np.float32(1.5)), NM)
    yield case("ConstantOfShape int", _filled(np.int64(7)), NM)
    yield case(
        "ConstantOfShape default", lambda g, x: g.op("ConstantOfShape", g.op("Shape", x)), NM
    )
    yield case("Shape", node("Shape"), NM)
    yield case("Shape part", node("Shape", start=1, end=-1), NM)
    yield case("Size", node("Size"), NM)


def _split(sizes: list[int]) -> Callable[..., Any]:
    def build(g: Graph, x: str) -> tuple[str, ...]:
        return g.op("Split", x, g.constant(sizes, np.int64), outputs=len(sizes), axis=1)

    return build


def _filled(value: np.generic) -> Callable[..., str]:
    def build(g: Graph, x: str) -> str:
        tensor = TensorProto()
        tensor.CopyFrom(_tensor(value))
        return g.op("ConstantOfShape", g.op("Shape", x), value=tensor)

    return build


def _tensor(value: np.generic) -> TensorProto:
    g = Graph()
    g.constant(np.asarray([value]))
    return g.weights[0]


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    "unary": unary,
    "binary": binary,
    "products": products,
    "convolutions": convolutions,
    "pools": pools,
    "normalisations": normalisations,
    "reductions": reductions,
    "layouts": layouts,
}
