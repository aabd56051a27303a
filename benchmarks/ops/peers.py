"""Who computes operators: ours from an ONNX model, ONNX Runtime, OpenBLAS. torch and oneDNN differ
by operator and stand beside the cases.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import scipy_openblas32
from onnx import helper, numpy_helper

import transect
from benchmarks.ops.case import Call, Case
from transect.runtime.arrays import aligned_array, to_tensor

_KINDS = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.uint8): onnx.TensorProto.UINT8,
    np.dtype(np.int8): onnx.TensorProto.INT8,
    np.dtype(np.int32): onnx.TensorProto.INT32,
    np.dtype(ml_dtypes.bfloat16): onnx.TensorProto.BFLOAT16,
}

Node = tuple[str, str, str, Mapping[str, Any]]
"""Operator ("domain::name" if not ONNX's own), inputs and outputs by name, attributes."""


def model(
    nodes: Sequence[Node],
    inputs: Mapping[str, np.ndarray],
    output: np.dtype[Any],
    constants: Mapping[str, np.ndarray] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    *,
    rank: int,
) -> onnx.ModelProto:
    """An ONNX model whose result is `y`. output: its dtype; rank: how many dimensions it has.
    shapes: of inputs that have symbolic dimensions."""
    made = [
        helper.make_node(
            name.rpartition("::")[2], reads.split(), writes.split(),
            domain=name.rpartition("::")[0], **attributes,
        )
        for name, reads, writes, attributes in nodes
    ]  # fmt: skip
    given = [
        helper.make_tensor_value_info(
            name, _KINDS[array.dtype], (shapes or {}).get(name, array.shape)
        )
        for name, array in inputs.items()
    ]
    result = helper.make_tensor_value_info(
        "y", _KINDS[np.dtype(output)], [f"y{number}" for number in range(rank)]
    )
    stored = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(made, "operator", given, [result], stored)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


# --- ours


@cache
def _compiled(serialized: bytes) -> transect.CompiledModel:
    loaded = onnx.load_model_from_string(serialized)
    return transect.compile(loaded, libraries=(), cache=False)


def ours(case: Case) -> Callable[[], Call]:
    """The model of a case, compiled as a user does, without libraries."""
    return lambda: compiled(case.model, case.inputs)


def compiled(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> Call:
    """A call of the compiled model that writes to the same result every time."""
    program = _compiled(proto.SerializeToString())
    arrays = [aligned(inputs[parameter.name]) for parameter in program.signature.parameters]
    out = aligned(program(*arrays))
    passed = [to_tensor(array) for array in (*arrays, out)]

    def call() -> np.ndarray:
        program.entry(*passed)
        return out

    return call


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy at the start of a cache line, where all but numpy allocate."""
    made = aligned_array(array.shape, array.dtype)
    made[...] = array
    return made


# --- ONNX Runtime


def ort(
    proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray], threads: int
) -> Callable[[], Call]:
    """ONNX Runtime with its inputs and its result bound, so that nothing is allocated or copied."""

    def prepare() -> Call:
        session = _session(proto, threads)
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        out = session.run(None, dict(inputs))[0]
        kind = _KINDS[out.dtype]
        binding.bind_output("y", "cpu", 0, kind, list(out.shape), out.ctypes.data)

        def call() -> np.ndarray:
            session.run_with_iobinding(binding)
            return out

        return call

    return prepare


def _session(
    proto: onnx.ModelProto, threads: int, profile: str | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def ort_node_seconds(
    proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray], threads: int, operator: str
) -> float:
    """The least time of the one node of an operator, by ONNX Runtime's own profile: without the
    conversions to and from the layout that it prefers."""
    with TemporaryDirectory() as folder:
        session = _session(proto, threads, f"{folder}/profile")
        for _ in range(40):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    return min(
        event["dur"] * 1e-6
        for event in events
        if event["name"].endswith("kernel_time") and event["args"]["op_name"] == operator
    )


# --- OpenBLAS


def openblas(a: np.ndarray, b: np.ndarray, threads: int) -> Callable[[], Call]:
    """C = A @ B by OpenBLAS."""

    def prepare() -> Call:
        library = ctypes.CDLL(
            next(str(p) for p in Path(scipy_openblas32.get_lib_dir()).glob("libscipy_openblas*"))
        )
        library.scipy_openblas_set_num_threads(threads)
        (m, k), n = a.shape, b.shape[1]
        out = np.empty((m, n), np.float32)
        size, real, place = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        gemm = library.scipy_cblas_sgemm
        gemm.argtypes = [size] * 6 + [real, place, size, place, size, real, place, size]
        gemm.restype = None
        row_major, plain = 101, 111
        arguments = (
            row_major, plain, plain, m, n, k, 1.0,
            a.ctypes.data, k, b.ctypes.data, n, 0.0, out.ctypes.data, n,
        )  # fmt: skip

        def call() -> np.ndarray:
            gemm(*arguments)
            return out

        return call

    return prepare
