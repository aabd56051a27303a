"""Damaged model files: bits flipped, bytes cut out, put in and moved about.

`python -m tests.fuzz.damaged --count 5000` loads, compiles and runs that many, in child processes
with little memory and time, and prints those that neither work nor give an error of ours.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import transect
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.support.errors import TransectError

MEMORY = 3 << 30
"""Bytes of addresses that a child may have: it needs some 1.5 GiB for its libraries and stacks."""
SECONDS = 60
"""Longest time that one file may take, on a busy machine."""

node = helper.make_node
Files = dict[str, bytes]
"""The contents of a model's files by name; its own is called model.onnx."""


def _value(name: str, code: int, dims: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, dims)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(
        list(nodes), "graph", list(inputs), [_value("y", TensorProto.FLOAT, None)], kept
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


X = _value("x", TensorProto.FLOAT, ["n", 4])


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def shapes() -> Files:
    """Shapes that are computed, constants that say how."""
    weights = {
        "w": _floats(4, 6),
        "minus": np.array([-1]), "pads": np.array([0, 1, 0, 1]), "repeats": np.array([1, 2]),
        "zero": np.array([0]), "two": np.array([2]), "k": np.array([2]), "depth": np.array(5),
        "values": np.array([0, 1], np.float32), "scales": np.array([1, 1.5], np.float32),
    }  # fmt: skip
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="matmul"),
        node("Shape", ["a"], ["s"]),
        node("Gather", ["s", "zero"], ["rows"]),
        node("Concat", ["rows", "two", "minus"], ["t"], axis=0),
        node("Reshape", ["a", "t"], ["b"], name="reshape"),
        node("Flatten", ["b"], ["c"], axis=1),
        node("Pad", ["c", "pads"], ["d"], name="pad"),
        node("Tile", ["d", "repeats"], ["e"], name="tile"),
        node("Resize", ["e", "", "scales"], ["f"], mode="nearest", name="resize"),
        node("TopK", ["f", "k"], ["g", "places"], name="topk"),
        node("OneHot", ["places", "depth", "values"], ["h"], name="onehot"),
        node("Slice", ["h", "zero", "two", "zero"], ["i"], name="slice"),
        node(
            "ConstantOfShape", ["s"], ["j"], value=numpy_helper.from_array(np.ones(1, np.float32))
        ),
        node("ReduceSum", ["j", "zero"], ["o"], keepdims=0),
        node("ReduceMean", ["i", "zero"], ["l"], keepdims=0),
        node("ReduceMax", ["o"], ["m"], keepdims=0),
        node("Add", ["l", "m"], ["y"], name="add"),
    ]
    return {"model.onnx": _model(nodes, [X], weights).SerializeToString()}


def images() -> Files:
    """Convolutions, pooling, normalization, weights in another file."""
    image = _value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    weights = {
        "w": _floats(8, 3, 3, 3),
        "b": np.zeros(8, np.float32), "scale": np.ones(8, np.float32),
        "mean": np.zeros(8, np.float32), "variance": np.ones(8, np.float32),
        "v": _floats(8, 4, 2, 2),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["a", "scale", "b", "mean", "variance"], ["c"], name="norm"),
        node("Relu", ["c"], ["d"]),
        node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        node("ConvTranspose", ["e", "v"], ["f"], strides=[2, 2], name="up"),
        node("GlobalAveragePool", ["f"], ["y"]),
    ]
    model = _model(nodes, [image], weights)
    content = b""
    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": "weights.bin", "offset": len(content), "length": len(raw)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        content += raw
    return {"model.onnx": model.SerializeToString(), "weights.bin": content}


def control() -> Files:
    """Branches, loops, functions, a recurrent network."""
    one, other = (
        helper.make_graph([node(kind, ["x"], ["r"])], kind, [], [_value("r", 1, None)])
        for kind in ("Exp", "Neg")
    )
    body = helper.make_graph(
        [
            node("Identity", ["go"], ["on"]),
            node("Scale", ["s"], ["t"], domain="local", alpha=0.5),
            node("ReduceSum", ["t"], ["u"], keepdims=0),
        ],
        "body",
        [_value("i", TensorProto.INT64, []), _value("go", TensorProto.BOOL, []),
         _value("s", TensorProto.FLOAT, ["n", 4])],
        [_value("on", TensorProto.BOOL, []), _value("t", TensorProto.FLOAT, ["n", 4]),
         _value("u", TensorProto.FLOAT, [])],
    )  # fmt: skip
    alpha = node("Constant", [], ["c"])
    alpha.attribute.add(name="value_float", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    scale = helper.make_function(
        "local", "Scale", ["x"], ["z"], [alpha, node("Mul", ["x", "c"], ["z"])],
        [helper.make_opsetid("", 21)], ["alpha"],
    )  # fmt: skip
    weights = {
        "trips": np.array(3), "yes": np.array(True), "zero": np.array([0]),
        "w": _floats(1, 8, 4),
        "r": _floats(1, 8, 2),
    }  # fmt: skip
    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Cast", ["top"], ["positive"], to=TensorProto.BOOL),
        node("If", ["positive"], ["a"], then_branch=one, else_branch=other, name="if"),
        node("Loop", ["trips", "yes", "a"], ["b", "sums"], body=body, name="loop"),
        node("Unsqueeze", ["b", "zero"], ["d"]),
        node("LSTM", ["d", "w", "r"], ["", "e"], hidden_size=2, name="lstm"),
        node("ReduceSum", ["sums"], ["f"], keepdims=0),
        node("Add", ["e", "f"], ["y"]),
    ]
    return {"model.onnx": _model(nodes, [X], weights, [scale]).SerializeToString()}


def quantized() -> Files:
    """Integers, gathers, scatters, what depends on data."""
    indices = _value("x", TensorProto.INT64, ["n", 4])
    weights = {
        "table": _floats(9, 5),
        "scale": np.array(0.05, np.float32), "point": np.array(128, np.uint8),
        "w": (_floats(5, 3) * 9).astype(np.int8),
        "places": np.array([[0], [1]]), "updates": np.ones((2, 4, 3), np.float32),
        "axis": np.array(1),
    }  # fmt: skip
    nodes = [
        node("Gather", ["table", "x"], ["a"], name="gather"),
        node("QuantizeLinear", ["a", "scale", "point"], ["q"]),
        node("MatMulInteger", ["q", "w", "point"], ["b"], name="product"),
        node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        node("ScatterND", ["c", "places", "updates"], ["d"], name="scatter"),
        node("CumSum", ["d", "axis"], ["e"]),
        node("NonZero", ["e"], ["f"], name="nonzero"),
        node("Transpose", ["f"], ["g"]),
        node("GatherND", ["e", "g"], ["h"], name="gathernd"),
        node("Einsum", ["e"], ["i"], equation="ijk->ik"),
        node("ReduceSum", ["h"], ["j"], keepdims=0),
        node("Add", ["i", "j"], ["y"]),
    ]
    return {"model.onnx": _model(nodes, [indices], weights).SerializeToString()}


MODELS: tuple[Callable[[], Files], ...] = (shapes, images, control, quantized)


# --- damage -----------------------------------------------------------------------------------


def damaged(seed: int) -> Files:
    """The files of a model with something wrong in one of them."""
    random = Random(seed)
    files = MODELS[seed % len(MODELS)]()
    name = random.choice([*files, "model.onnx", "model.onnx"])
    data = bytearray(files[name])
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        random.choice((_flip, _flip, _byte, _byte, _cut, _remove, _insert, _move, _swap))(
            random, data
        )
    files[name] = bytes(data)
    return files


def _place(random: Random, data: bytearray) -> int:
    return random.randrange(len(data)) if data else 0


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _byte(random: Random, data: bytearray) -> None:
    """Small numbers are what opsets, kinds, axes and dimensions are."""
    if data:
        data[_place(random, data)] = random.choice((0, 1, 2, 3, 7, 127, 128, 255))


def _cut(random: Random, data: bytearray) -> None:
    if random.random() < 0.2:
        del data[_place(random, data) :]


def _remove(random: Random, data: bytearray) -> None:
    start = _place(random, data)
    del data[start : start + random.choice((1, 2, 8, 40))]


def _insert(random: Random, data: bytearray) -> None:
    start = _place(random, data)
    data[start:start] = random.choice((b"\xff" * 9, b"\x00", random.randbytes(6)))


def _move(random: Random, data: bytearray) -> None:
    """A piece of the file once more, somewhere else."""
    start, to = _place(random, data), _place(random, data)
    data[to:to] = data[start : start + random.choice((3, 20, 100))]


def _swap(random: Random, data: bytearray) -> None:
    """One name for another: they are letters here, with their length before them."""
    letters = [i for i, value in enumerate(data) if 97 <= value <= 122 and data[i - 1] == 1]
    if letters:
        data[random.choice(letters)] = data[random.choice(letters)]


_DAMAGES = (_flip, _flip, _byte, _byte, _cut, _remove, _insert, _move, _swap)


# --- outcomes ---------------------------------------------------------------------------------


def outcome(files: Files, folder: Path, *, compiles: bool = True) -> str:
    """What becomes of a model: "ran", "refused" while compiling, "stopped" while running, or what
    is wrong with that. compiles: False to import it only."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        if not compiles:
            OnnxFrontend().load(folder / "model.onnx")
            return "loaded"
        model = transect.compile(folder / "model.onnx", cache=False)
    except TransectError as error:
        return "refused" if error.message.strip() else "an error without a message"
    inputs: list[np.ndarray] = []
    for parameter in model.signature.parameters:
        shape = [dim if isinstance(dim, int) else 4 for dim in parameter.shape or ()]
        if any(dim > 1000 for dim in shape) or np.prod(shape) > 1 << 20:
            return "ran"  # It takes more than is worth making.
        inputs.append(np.ones(shape, parameter.dtype))
    try:
        model(*inputs)
    except (TransectError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        return "stopped" if str(error).strip() else "an error without a message"
    except MemoryError as error:
        return "stopped" if "transect" in str(error) or "workspace" in str(error) else "memory"
    return "ran"


def search(seeds: Sequence[int], *, compiles: bool = True) -> None:
    """Try some damaged models in this process; prints what comes of each."""
    with tempfile.TemporaryDirectory() as name:
        for seed in seeds:
            print(f"last {seed}", flush=True)
            signal.alarm(SECONDS)
            try:
                found = outcome(damaged(seed), Path(name), compiles=compiles)
            except Exception as error:  # noqa: BLE001 - any is a finding
                found = "exception"
                text = traceback.format_exc()
                print(f"seed {seed}: {type(error).__name__}\n{text[-3000:]}", flush=True)
            signal.alarm(0)
            print(f"done {found}", flush=True)


def limit() -> None:
    """Take no more memory than MEMORY, and show where a crash or an endless loop is."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, all_threads=False, chain=True)


def children(seeds: range, chunk: int, *, compiles: bool = True) -> Counter[str]:
    """As `search`, in child processes; how often each outcome was. A crash or an endless loop
    counts as "crash"; what should not be is printed."""
    total: Counter[str] = Counter()
    start = seeds.start
    while start < seeds.stop:
        stop = min(start + chunk, seeds.stop)
        command = [sys.executable, "-m", "tests.fuzz.damaged", "--inside"]
        command += ["--first", str(start), "--count", str(stop - start)]
        command += ["--load"] * (not compiles)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = start
        for line in done.stdout.splitlines():
            if line.startswith("done "):
                total[line.removeprefix("done ")] += 1
            elif line.startswith("last "):
                last = int(line.split()[1])
            else:
                print(line)
        if done.returncode:
            total["crash"] += 1
            print(f"seed {last}: exit status {done.returncode}\n{done.stderr[-3000:]}", flush=True)
            start = last + 1
        else:
            start = stop
        print(f"-- to {start}: {dict(total)}", flush=True)
    return total


def main() -> None:
    """Search in chunks, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=100)
    parser.add_argument("--load", action="store_true", help="import the models only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    if options.inside:
        limit()
        search(seeds, compiles=not options.load)
    else:
        children(seeds, options.chunk, compiles=not options.load)


if __name__ == "__main__":
    main()
