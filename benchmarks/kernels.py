"""Generated CPU kernels beside numpy (OpenBLAS) and ONNX Runtime: the best of calls taken in turns.

Run it alone on a quiet machine: python benchmarks/kernels.py [name ...]. Each kernel is compiled
for static and for symbolic sizes; results are compared with float64 before anything is timed.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import transect
from transect.hardware.x86 import host
from transect.ir.expr import Expr, Var
from transect.tir import op
from transect.tir.builder import FunctionBuilder
from transect.tir.function import PrimFunc

Size = Expr | int
SECONDS = 0.5
"""Time spent on one kernel, all rivals together."""


@dataclass(frozen=True)
class Kernel:
    """A kernel and its rivals.

    build: the tensor program for sizes. sizes: of one run. shapes: of the inputs. exact: in
    float64. rivals: by name, on the same arrays. operations: floating-point operations, 0 if
    time says more than a rate.
    """

    name: str
    build: Callable[..., PrimFunc]
    sizes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    exact: Callable[..., np.ndarray]
    rivals: dict[str, Callable[[list[np.ndarray]], Callable[[], object]]]
    operations: int = 0


def matmul(n: Size, m: Size, d: Size) -> PrimFunc:
    builder = FunctionBuilder("matmul")
    x = builder.input("x", (n, d), "float32")
    w = builder.input("w", (d, m), "float32")
    y = builder.reduce((n, m), (d,), lambda i, j, k: x[i, k] * w[k, j], name="y")
    return builder.finish([y])


def conv1d(length: Size) -> PrimFunc:
    builder = FunctionBuilder("conv1d")
    x = builder.input("x", (1, 256, length), "float32")
    w = builder.input("w", (512, 256, 5), "float32")
    y = builder.reduce(
        (1, 512, length - 4), (256, 5), lambda n, o, p, c, k: x[n, c, p + k] * w[o, c, k], name="y"
    )
    return builder.finish([y])


def softmax(n: Size, m: Size) -> PrimFunc:
    builder = FunctionBuilder("softmax")
    x = builder.input("x", (n, m), "float32")
    t = builder.reduce((n,), (m,), lambda i, k: x[i, k], combiner="max", name="t")
    e = builder.compute((n, m), lambda i, j: op.exp(x[i, j] - t[i]), name="e")
    s = builder.reduce((n,), (m,), lambda i, k: e[i, k], name="s")
    return builder.finish([builder.compute((n, m), lambda i, j: e[i, j] / s[i], name="o")])


def layer_norm(n: Size, m: Size) -> PrimFunc:
    builder = FunctionBuilder("layer_norm")
    x = builder.input("x", (n, m), "float32")
    count = m.astype("float32") if isinstance(m, Expr) else float(m)
    s = builder.reduce((n,), (m,), lambda i, k: x[i, k], name="s")
    v = builder.reduce(
        (n,), (m,), lambda i, k: (x[i, k] - s[i] / count) * (x[i, k] - s[i] / count), name="v"
    )
    o = builder.compute(
        (n, m), lambda i, j: (x[i, j] - s[i] / count) * op.rsqrt(v[i] / count + 1e-5), name="o"
    )
    return builder.finish([o])


def gelu(n: Size, m: Size) -> PrimFunc:
    builder = FunctionBuilder("gelu")
    x = builder.input("x", (n, m), "float32")
    o = builder.compute(
        (n, m), lambda i, j: x[i, j] * 0.5 * (1.0 + op.erf(x[i, j] * 0.5**0.5)), name="o"
    )
    return builder.finish([o])


def exact_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def exact_layer_norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def exact_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x * 0.5**0.5))


def exact_conv1d(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x[0], w.shape[2], axis=1)
    return np.einsum("cpk,ock->op", windows, w, optimize=True)[None]


def ort(operator: str, **attributes: object) -> Callable[[list[np.ndarray]], Callable[[], object]]:
    """ONNX Runtime running one operator. A Gelu or LayerNormalization takes constants itself."""

    def prepare(arrays: list[np.ndarray]) -> Callable[[], object]:
        names = [f"x{number}" for number in range(len(arrays))]
        inputs = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
            for name, array in zip(names, arrays, strict=True)
        ]
        extra = []
        if operator == "LayerNormalization":
            ones = np.ones(arrays[0].shape[-1], np.float32)
            extra = [onnx.numpy_helper.from_array(ones, "scale")]
        node = helper.make_node(operator, [*names, *(e.name for e in extra)], ["y"], **attributes)
        output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "kernel", inputs, [output], initializer=extra)
        opset = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = transect.num_threads()
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = dict(zip(names, arrays, strict=True))
        return lambda: session.run(None, feeds)

    return prepare


def blas(arrays: list[np.ndarray]) -> Callable[[], object]:
    out = np.empty((arrays[0].shape[0], arrays[1].shape[1]), np.float32)
    return lambda: np.matmul(*arrays, out=out)


def numpy_of(
    function: Callable[..., np.ndarray],
) -> Callable[[list[np.ndarray]], Callable[[], object]]:
    return lambda arrays: lambda: function(*arrays)


def product(n: int, m: int, d: int) -> Kernel:
    rivals = {"numpy": blas, "onnxruntime": ort("MatMul")}
    name = f"matmul {n}x{m}x{d}"
    return Kernel(name, matmul, (n, m, d), ((n, d), (d, m)), np.matmul, rivals, 2 * n * m * d)


def convolution(length: int) -> Kernel:
    shapes = ((1, 256, length), (512, 256, 5))
    flops = 2 * 512 * 256 * 5 * (length - 4)
    rivals = {"onnxruntime": ort("Conv")}
    return Kernel(f"conv1d {length}", conv1d, (length,), shapes, exact_conv1d, rivals, flops)


KERNELS = [
    product(128, 768, 768),
    product(512, 768, 3072),
    product(1, 768, 768),
    convolution(512),
    Kernel("softmax 1536x128", softmax, (1536, 128), ((1536, 128),), exact_softmax,
           {"numpy": numpy_of(exact_softmax), "onnxruntime": ort("Softmax")}),
    Kernel("layernorm 128x768", layer_norm, (128, 768), ((128, 768),), exact_layer_norm,
           {"numpy": numpy_of(exact_layer_norm), "onnxruntime": ort("LayerNormalization")}),
    Kernel("gelu 128x3072", gelu, (128, 3072), ((128, 3072),), exact_gelu,
           {"onnxruntime": ort("Gelu")}),
]  # fmt: skip


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The fewest seconds of each call, all of them taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.min(found)) for name, found in times.items()}


def measure(kernel: Kernel) -> bool:
    """Print a row for each form and rival; whether the results are right."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in kernel.shapes]
    exact = kernel.exact(*(array.astype(np.float64) for array in arrays))
    symbolic = tuple(Var(f"s{number}") for number in range(len(kernel.sizes)))
    calls: dict[str, Callable[[], object]] = {}
    errors: dict[str, float] = {}
    for form, sizes in (("static", kernel.sizes), ("symbolic", symbolic)):
        model = transect.compile(kernel.build(*sizes), target=host())
        out = np.full(exact.shape, np.nan, np.float32)
        model(*arrays, out)
        errors[form] = float(np.abs(out - exact).max() / np.abs(exact).max())
        calls[form] = lambda model=model, out=out: model(*arrays, out)
    for name, prepare in kernel.rivals.items():
        calls[name] = prepare(arrays)
    found = best(calls)
    right = all(error < 1e-5 for error in errors.values())
    for name, seconds in found.items():
        rate = f"{kernel.operations / seconds / 1e9:8.1f}" if kernel.operations else "       -"
        error = f"{errors[name]:9.1e}" if name in errors else "        -"
        print(
            f"{kernel.name:20} {name:12} {seconds * 1e6:10.1f} {rate} {error} "
            f"{seconds / found['static']:8.2f}"
        )
    return right


def main() -> int:
    """Measure the kernels whose names contain an argument, or all."""
    wanted = sys.argv[1:]
    chosen = [k for k in KERNELS if not wanted or any(word in k.name for word in wanted)]
    heads = ("kernel", "by", "us", "GFLOP/s", "error", "x static")
    print("{:20} {:12} {:>10} {:>8} {:>9} {:>8}".format(*heads))
    right = [measure(kernel) for kernel in chosen]
    print("all results right" if all(right) else "WRONG results")
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
