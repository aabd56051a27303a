"""ONNX files on the wire: the outline means what the file does, and no byte of it is trusted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.frontend.onnx_models import Graph
from transect.frontend.onnx.weights import Weights
from transect.frontend.onnx.wire import LARGE, WireError, model_files, outline


def tensor(name: str, size: int) -> onnx.TensorProto:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    return numpy_helper.from_array(values, name)


def model() -> onnx.ModelProto:
    """Weights of all sizes, as initializers, in attributes and in the branches of an If."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor("inner", 3000))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3000])],
    )
    nodes = [
        helper.make_node("Constant", [], ["k"], value=tensor("attribute", 2000)),
        helper.make_node("If", ["p"], ["y"], then_branch=branch, else_branch=branch),
    ]
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [4000], np.ones(4000).tolist())
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("p", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3000])],
        [tensor("small", 3), tensor("large", 5000), tensor("edge", LARGE // 4), typed],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    branches = [a.g for a in proto.graph.node[1].attribute]
    constants = [n.attribute[0].t for g in (proto.graph, *branches) for n in g.node[:1]]
    return [*proto.graph.initializer, *constants]


def test_the_outline_means_what_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString())
    data = outline(path)
    typed = 4 * 4000
    assert len(data) < typed + 3000
    weights = Weights(path.name, tmp_path)
    outlined = tensors(onnx.ModelProto.FromString(data))
    assert sum(t.data_location == TensorProto.EXTERNAL for t in outlined) == 5
    for found, wanted in zip(outlined, tensors(model()), strict=True):
        np.testing.assert_array_equal(
            weights.array(found, found.name), numpy_helper.to_array(wanted)
        )


def test_a_file_that_is_a_link_to_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "blob").write_bytes(model().SerializeToString())
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "model.onnx"
    path.symlink_to("../store/blob")
    found = tensors(onnx.ModelProto.FromString(outline(path)))[1]
    array = Weights(path.name, path.parent).array(found, "large")
    np.testing.assert_array_equal(array, numpy_helper.to_array(tensor("large", 5000)))


def external(folder: Path, *locations: str) -> Path:
    """A model whose weights are said to be in these files."""
    proto = model()
    for location in locations:
        item = proto.graph.initializer.add(name=f"at {location}", data_type=1, dims=[1])
        item.data_location = TensorProto.EXTERNAL
        item.external_data.add(key="location", value=location)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_the_files_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.bin", "a.bin", "sub/c.bin"):
        (tmp_path / name).write_bytes(b"1234")
    assert model_files(external(tmp_path)) == [tmp_path / "model.onnx"]
    path = external(tmp_path, "b.bin", "a.bin", "b.bin", "sub/c.bin")
    names = [str(file.relative_to(tmp_path)) for file in model_files(path) or []]
    assert names == ["model.onnx", "a.bin", "b.bin", "sub/c.bin"]


@pytest.mark.parametrize(
    "location",
    ["../outside", "/etc/passwd", "missing", "", ".", "sub/../../outside", "link", "pipe", "a\0b"],
)
def test_a_location_that_is_no_file_of_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside").write_bytes(b"1234")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to("../outside")
    os.mkfifo(folder / "pipe")
    assert model_files(external(folder, location)) is None


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"wire-{os.getpid()}.onnx"
    path.write_bytes(data)
    try:
        model_files(path)
        assert outline(path) == data
    except WireError:
        pass
    finally:
        path.unlink()


@settings(max_examples=200)
@given(st.data())
def test_damage_is_refused_or_changes_no_structure(data: st.DataObject) -> None:
    """A flipped bit or a cut: never a crash, and what protobuf takes means the same to both."""
    raw = bytearray(model().SerializeToString())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del raw[at:]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"damaged-{os.getpid()}.onnx"
    path.write_bytes(raw)
    try:
        outlined = outline(path)
        model_files(path)
    except WireError:
        return
    finally:
        path.unlink()
    try:
        wanted = onnx.ModelProto.FromString(bytes(raw))
    except DecodeError:
        return
    found = onnx.ModelProto.FromString(outlined)
    assert [n.op_type for n in found.graph.node] == [n.op_type for n in wanted.graph.node]
    assert [t.name for t in found.graph.initializer] == [t.name for t in wanted.graph.initializer]


def test_nested_too_deep_is_refused(tmp_path: Path) -> None:
    """Deeper than protobuf itself goes."""
    data = bytes(LARGE)
    # A graph in an attribute in a node in a graph, and so on, in a model.
    for number in (*(6, 5, 1) * 600, 7):
        length, size = len(data), b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        data = bytes([number << 3 | 2]) + size + bytes([length]) + data
    path = tmp_path / "deep.onnx"
    path.write_bytes(data)
    with pytest.raises(WireError):
        outline(path)
    assert model_files(path) in (None, [path])


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert outline(path) == b""
    assert model_files(path) == [path]


def test_a_model_of_the_suite(tmp_path: Path) -> None:
    g = Graph()
    g.output(g.op("Add", g.input("x", ["n", 4000]), g.constant(np.ones(4000), np.float32)))
    path = tmp_path / "add.onnx"
    onnx.save(g.model(), str(path))
    assert len(outline(path)) < 1000
