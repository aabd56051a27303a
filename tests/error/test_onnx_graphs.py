"""Graphs that are not what ONNX allows, and weights that are not what they say: a clear error that
names the node or the weight, before anything is read or allocated."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import transect
from tests.error.test_onnx_files import a_model
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.support.errors import ImportModelError, TransectError

node = helper.make_node


def load(model: onnx.ModelProto | Path) -> None:
    OnnxFrontend().load(model)


# --- graphs -----------------------------------------------------------------------------------


def test_nodes_that_are_not_in_order() -> None:
    model = a_model(
        node("Relu", ["a"], ["y"], name="second"), node("Neg", ["x"], ["a"], name="first")
    )
    with pytest.raises(ImportModelError, match="Neg node 'first' does, which stands after it"):
        load(model)


def test_a_cycle() -> None:
    one, two = node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"], name="two")
    model = a_model(one, two)
    with pytest.raises(ImportModelError, match="Relu node 'two' does, which stands after it"):
        load(model)


def test_a_node_that_uses_itself() -> None:
    with pytest.raises(ImportModelError, match="which stands after it or is itself"):
        load(a_model(node("Add", ["x", "y"], ["y"], name="self")))


def test_two_nodes_of_one_result() -> None:
    model = a_model(node("Relu", ["x"], ["y"], name="a"), node("Neg", ["x"], ["y"], name="b"))
    with pytest.raises(ImportModelError, match="Neg computes 'y', which has a value already"):
        load(model)


def test_two_weights_of_one_name() -> None:
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    with pytest.raises(ImportModelError, match="two weights called 'w'"):
        load(a_model(node("Add", ["x", "w"], ["y"]), weights=(weight, weight)))


def test_two_inputs_of_one_name() -> None:
    model = a_model()
    model.graph.input.append(model.graph.input[0])
    with pytest.raises(ImportModelError, match="two inputs called 'x'"):
        load(model)


@pytest.mark.parametrize("name", ['a "quoted" name', "two\nlines", "{braces} %s", "class", "", "é"])
def test_odd_names(name: str) -> None:
    """They are names like any other, in the program, its errors and its results."""
    model = a_model(node("Relu", ["x"], [name + "1"], name=name), node("Neg", [name + "1"], ["y"]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    compiled = transect.compile(model, cache=False)
    np.testing.assert_array_equal(compiled(np.ones((2, 4), np.float32)), -np.ones((2, 4)))


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, which a message or a text is."""
    size, head = len(content), bytearray()
    for value in ((number << 3) | 2, size):
        while value >= 128:
            head.append(value & 127 | 128)
            value >>= 7
        head.append(value)
    return bytes(head) + content


def nested(depth: int) -> bytes:
    """A model of branches in branches, written by hand: protobuf refuses to."""
    leaf = helper.make_graph(
        [node("Relu", ["x"], ["r"])],
        "leaf",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    ).SerializeToString()
    inner, kind = leaf, bytes([20 << 3 & 127 | 128, 1, onnx.AttributeProto.GRAPH])
    for level in range(depth):
        branches = [
            field(5, field(1, name) + kind + field(6, graph))
            for name, graph in ((b"then_branch", inner), (b"else_branch", leaf))
        ]
        name = b"y" if level == depth - 1 else b"r%d" % level
        made = field(1, b"c") + field(2, name) + field(4, b"If") + b"".join(branches)
        inner = field(1, made) + field(12, field(1, name))
    model = a_model()
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    del model.graph.node[:], model.graph.output[:]
    graph = model.graph.SerializeToString() + inner
    model.ClearField("graph")
    return model.SerializeToString() + field(7, graph)


def test_branches_in_branches(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(nested(20))
    model = transect.compile(path, cache=False)
    x = np.full((2, 4), -1, np.float32)
    for condition in (True, False):
        np.testing.assert_array_equal(model(x=x, c=np.array(condition)), np.zeros((2, 4)))


@pytest.mark.parametrize("depth", [200, 5000])
def test_branches_nested_too_deep(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(nested(depth))
    with pytest.raises(ImportModelError, match="graphs in graphs deeper than"):
        load(path)


def test_a_long_chain() -> None:
    count = 10_000
    steps = [node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
    model = a_model(node("Relu", ["x"], ["v0"]), *steps, node("Relu", [f"v{count}"], ["y"]))
    load(model)


# --- weights ----------------------------------------------------------------------------------


def external(tmp_path: Path, location: str, **fields: int) -> Path:
    """A model whose weight w (4, 3) lies in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **fields}.items():
        weight.external_data.add(key=key, value=str(value))
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    model = a_model(node("MatMul", ["x", "w"], ["y"]), weights=(weight,))
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path, "data/weights.bin", offset=5, length=48)
    (path.parent / "data").mkdir()
    values = np.arange(12, dtype=np.float32)
    (path.parent / "data" / "weights.bin").write_bytes(bytes(5) + values.tobytes() + bytes(3))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(transect.compile(path, cache=False)(x), x @ values.reshape(4, 3))


@pytest.mark.parametrize(
    "location", ["../secret", "data/../../secret", "", "/etc/hostname", "a\0b", "x" * 5000]
)
def test_external_data_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(48))
    with pytest.raises(ImportModelError, match=r"the weight 'w' of model\.onnx cannot be used"):
        load(external(tmp_path, location))


def test_external_data_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(48))
    path = external(tmp_path, "weights.bin")
    os.symlink(tmp_path / "secret", path.parent / "weights.bin")
    with pytest.raises(ImportModelError, match="not a file in the folder of the model"):
        load(path)


def test_external_data_in_a_folder_or_a_pipe(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    (path.parent / "weights.bin").mkdir()
    with pytest.raises(ImportModelError, match="does not exist"):
        load(path)
    (path.parent / "weights.bin").rmdir()
    os.mkfifo(path.parent / "weights.bin")
    with pytest.raises(ImportModelError, match="does not exist"):
        load(path)


@pytest.mark.parametrize(
    "fields",
    [{"offset": 60}, {"length": 2**40}, {"offset": -8, "length": 48}, {"offset": 2**62}],
    ids=str,
)
def test_external_data_beyond_the_file(tmp_path: Path, fields: dict[str, int]) -> None:
    path = external(tmp_path, "weights.bin", **fields)
    (path.parent / "weights.bin").write_bytes(bytes(48))
    with pytest.raises(ImportModelError, match=r"of 'weights\.bin' are asked for, which has 48"):
        load(path)


def test_external_data_of_another_length(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    (path.parent / "weights.bin").write_bytes(bytes(44))
    with pytest.raises(ImportModelError, match="it has 44 bytes, its shape needs 48"):
        load(path)


def test_external_data_of_a_model_without_a_folder(tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(external(tmp_path, "weights.bin").read_bytes())
    with pytest.raises(ImportModelError, match=r"its data is in the file 'weights\.bin'"):
        load(model)


def stored(**fields: object) -> onnx.ModelProto:
    weight = TensorProto(**{"name": "w", "data_type": TensorProto.FLOAT, "dims": [4], **fields})
    return a_model(node("Add", ["x", "w"], ["y"]), weights=(weight,))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"raw_data": bytes(15)}, "it has 15 bytes, its shape"),
        ({"raw_data": b""}, "it has 0 bytes, its shape"),
        ({"dims": [2**62], "raw_data": bytes(16)}, "needs 18446744073709551616"),
        ({"dims": [2**31, 2**31, 2**31], "float_data": [1.0]}, "it has 1 elements"),
        ({"float_data": [1.0, 2.0]}, "it has 2 elements, its shape needs 4|reshape"),
        ({}, "it has 0 elements, its shape needs 4|reshape"),
        ({"dims": [-4], "float_data": [1.0]}, r"it has the shape \(-4,\)"),
        ({"data_type": 99, "raw_data": bytes(16)}, "its element type 99 is unknown"),
        ({"data_type": TensorProto.STRING, "string_data": [b"a"] * 4}, "it holds strings"),
        ({"data_type": 0, "raw_data": bytes(16)}, "its element type 0 is unknown"),
    ],
    ids=str,
)
def test_weights_that_are_not_what_they_say(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ImportModelError, match=why) as caught:
        load(stored(**fields))
    assert "the weight 'w'" in str(caught.value)


def test_sparse_weights() -> None:
    model = a_model(node("Add", ["x", "w"], ["y"]))
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "w")
    indices = numpy_helper.from_array(np.array([0, 3]), "w_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    found = transect.compile(model, cache=False)(np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(found, [[5, 0, 0, 7]])
    del model.graph.sparse_initializer[0].dims[:]
    model.graph.sparse_initializer[0].dims.extend([2**40, 2**22])
    with pytest.raises(ImportModelError, match="the sparse weight 'w' of graph"):
        load(model)
    model.graph.sparse_initializer[0].dims[:] = [2]
    with pytest.raises(ImportModelError, match="the sparse weight 'w' of graph is damaged"):
        load(model)


# --- any file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_files_with_flipped_bits(tmp_path: Path, seed: int) -> None:
    """Either the model is still one, or the error is one of ours."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    shape = numpy_helper.from_array(np.array([-1, 3]), "s")
    data = a_model(
        node("MatMul", ["x", "w"], ["m"], name="mm"),
        node("Reshape", ["m", "s"], ["r"]),
        node("Softmax", ["r"], ["y"], axis=1),
        weights=(weight, shape),
    ).SerializeToString()
    random = np.random.default_rng(seed)
    path = tmp_path / "model.onnx"
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            broken[place] ^= 1 << int(random.integers(8))
        path.write_bytes(broken)
        with contextlib.suppress(TransectError):
            load(path)


# --- functions --------------------------------------------------------------------------------


def with_functions(call: onnx.NodeProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    model = a_model(call)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend(functions)
    return model


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["p"], ["q"], list(nodes), opsets)


def test_a_call_with_more_outputs_than_its_function() -> None:
    call = node("F", ["x"], ["y", "z"], domain="local", name="call")
    with pytest.raises(ImportModelError, match="F has 2 outputs, its function 1") as caught:
        load(with_functions(call, function("F", node("Relu", ["p"], ["q"]))))
    assert "'call'" in str(caught.value)


def test_functions_that_double_at_each_level() -> None:
    functions = [function("F0", node("Relu", ["p"], ["q"]))]
    for level in range(1, 31):
        inner = f"F{level - 1}"
        calls = (node(inner, [a], [b], domain="local") for a, b in (("p", "r"), ("r", "q")))
        functions.append(function(f"F{level}", *calls))
    with pytest.raises(ImportModelError, match="come to more than 50000 nodes"):
        load(with_functions(node("F30", ["x"], ["y"], domain="local"), *functions))
