"""Damaged and unusual ONNX models: a clear error, never a crash or a wrong answer."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from transect.frontend.onnx import graph
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.frontend.onnx.node import Converter, Node
from transect.support.errors import ImportModelError, InputError, InputTypeError


def a_model(
    *nodes: onnx.NodeProto, opset: int = 17, weights: tuple[onnx.TensorProto, ...] = ()
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_missing_file() -> None:
    with pytest.raises(InputError, match=r"no such model file: nowhere\.onnx"):
        OnnxFrontend().load("nowhere.onnx")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, kept: float) -> None:
    weight = numpy_helper.from_array(np.ones((4, 300), np.float32), "w")
    data = a_model(
        helper.make_node("MatMul", ["x", "w"], ["y"]), weights=(weight,)
    ).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImportModelError, match=r"not a complete ONNX file|holds no graph"):
        OnnxFrontend().load(path)


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x00" * 64, bytes(range(256))])
def test_files_that_are_something_else(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ImportModelError, match=r"not a complete ONNX file|holds no graph"):
        OnnxFrontend().load(path)


def test_all_unknown_operators_are_reported_at_once() -> None:
    model = a_model(
        helper.make_node("Frobnicate", ["x"], ["a"], name="first"),
        helper.make_node("Frobnicate", ["a"], ["b"], name="second"),
        helper.make_node("Wobble", ["b"], ["y"], name="third", domain="com.example"),
    )
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(ImportModelError) as error:
        OnnxFrontend().load(model)
    text = str(error.value)
    assert "uses 2 operators that are not covered" in text
    assert "Frobnicate (opset 17): 2 nodes, first 'first'" in text
    assert "com.example.Wobble (opset 3): 1 node, first 'third'" in text


@pytest.mark.parametrize("opset", [-1, 0, 999])
def test_opsets_that_are_not_covered(opset: int) -> None:
    with pytest.raises(ImportModelError, match=f"uses opset {opset}; covered are 1 to"):
        OnnxFrontend().load(a_model(opset=opset))


def test_an_old_model_that_has_no_newer_form() -> None:
    """Until opset 6, broadcasting was an attribute; this one does not say that it does."""
    model = a_model(
        helper.make_node("Add", ["x", "w"], ["y"]),
        weights=[numpy_helper.from_array(np.ones(3, np.float32), "w")],
        opset=6,
    )
    with pytest.raises(ImportModelError, match="uses opset 6, and onnx cannot convert it to 7"):
        OnnxFrontend().load(model)


def test_an_old_model_that_is_not_valid() -> None:
    with pytest.raises(ImportModelError, match="uses opset 6, and onnx cannot convert it to 7"):
        OnnxFrontend().load(a_model(helper.make_node("Frobnicate", ["x"], ["y"]), opset=6))


def test_a_value_that_nothing_computes() -> None:
    model = a_model(helper.make_node("Add", ["x", "ghost"], ["y"], name="add"))
    with pytest.raises(
        ImportModelError, match="Add uses 'ghost', which nothing before it computes"
    ):
        OnnxFrontend().load(model)


def test_an_output_that_nothing_computes() -> None:
    model = a_model(helper.make_node("Relu", ["x"], ["z"]))
    with pytest.raises(ImportModelError, match="nothing computes the output 'y'"):
        OnnxFrontend().load(model)


def test_shapes_that_do_not_fit_name_the_node() -> None:
    weight = numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    model = a_model(
        helper.make_node("MatMul", ["x", "w"], ["y"], name="dense/mm"), weights=(weight,)
    )
    with pytest.raises(Exception, match="MatMul node 'dense/mm'"):
        OnnxFrontend().load(model)


def test_a_weight_whose_data_is_short() -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    weight.raw_data = weight.raw_data[:10]
    model = a_model(helper.make_node("MatMul", ["x", "w"], ["y"]), weights=(weight,))
    with pytest.raises(ImportModelError, match="the weight 'w' of graph is damaged"):
        OnnxFrontend().load(model)


def test_a_sequence_as_input() -> None:
    model = a_model()
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    model.graph.input[0].CopyFrom(sequence)
    with pytest.raises(ImportModelError, match="input 'x' of graph is not a tensor"):
        OnnxFrontend().load(model)


def test_a_string_input() -> None:
    model = a_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(ImportModelError, match="element type STRING"):
        OnnxFrontend().load(model)


def test_something_else_than_a_model() -> None:
    with pytest.raises(InputTypeError, match="not an ONNX model: int"):
        OnnxFrontend().load(3)


def test_a_node_that_is_not_valid_is_told_from_a_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exception is the same; onnx says whose fault it is."""

    def broken(node: Node) -> NoReturn:
        raise KeyError("table")

    monkeypatch.setattr(graph, "find_converter", lambda *_: Converter(broken))
    node = helper.make_node("Concat", ["x", "x"], ["y"], name="join", axis=1)
    with pytest.raises(ImportModelError, match=r"could not be converted .KeyError: 'table'"):
        OnnxFrontend().load(a_model(node))
    node = helper.make_node("Concat", ["x", "x"], ["y"], name="join", axis=7)
    with pytest.raises(ImportModelError, match=r"the node is not valid ONNX: .*axis"):
        OnnxFrontend().load(a_model(node))
