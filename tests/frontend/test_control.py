"""If, Loop and Scan against ONNX Runtime: branches and bodies that see what is around them, sizes
that change, results that are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import transect
from tests.frontend.onnx_models import expected
from transect.frontend.onnx.frontend import OnnxFrontend
from transect.relax import expr as rx
from transect.relax.visit import bindings
from transect.support.errors import ImportModelError

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

Info = onnx.ValueInfoProto
node = helper.make_node


def value(name: str, dtype: int = FLOAT, dims: Sequence[int | str] | None = None) -> Info:
    return helper.make_tensor_value_info(name, dtype, dims)


def graph(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Info] = (), outputs: Sequence[Info] = ()
) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Info],
    outputs: Sequence[str],
    weights: dict[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    made = helper.make_graph(list(nodes), "g", list(inputs), [value(o) for o in outputs], stored)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def check(proto: onnx.ModelProto, *feeds: dict[str, np.ndarray]) -> None:
    compiled = transect.compile(proto, cache=False)
    for inputs in feeds:
        found = compiled(**inputs)
        results = found if isinstance(found, tuple) else (found,)
        for ours, theirs in zip(results, expected(proto, inputs), strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


# --- If ---------------------------------------------------------------------------------------


def branches(then: onnx.NodeProto, other: onnx.NodeProto) -> onnx.NodeProto:
    return node(
        "If",
        ["c"],
        ["z"],
        then_branch=graph([then], outputs=[value("t")]),
        else_branch=graph([other], outputs=[value("e")]),
    )


@pytest.mark.parametrize(
    "other",
    [node("Neg", ["x"], ["e"]), node("Concat", ["x", "x"], ["e"], axis=0)],
    ids=["same shape", "another shape"],
)
def test_branches(other: onnx.NodeProto) -> None:
    proto = model(
        [branches(node("Relu", ["x"], ["t"]), other), node("Exp", ["z"], ["y"])],
        [value("x", FLOAT, ["n", 4]), value("c", BOOL, [])],
        ["y"],
    )
    check(proto, *({"x": array(n, 4), "c": np.array(c)} for n in (1, 3) for c in (True, False)))


def test_branches_of_different_rank_are_an_error() -> None:
    other = node("ReduceSum", ["x"], ["e"], keepdims=0)
    proto = model(
        [branches(node("Relu", ["x"], ["t"]), other)],
        [value("x", FLOAT, ["n", 4]), value("c", BOOL, [])],
        ["z"],
    )
    with pytest.raises(ImportModelError, match="tensors with 2 and 0 dimensions") as caught:
        OnnxFrontend().load(proto)
    assert "If node 'z' of g" in str(caught.value)


def test_a_condition_that_is_known_takes_one_branch() -> None:
    proto = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Size", ["s"], ["rank"]),
            node("Equal", ["rank", "two"], ["c"]),
            branches(node("Relu", ["x"], ["t"]), node("Transpose", ["x"], ["e"], perm=[0, 1, 2])),
        ],
        [value("x", FLOAT, ["n", 4])],
        ["z"],
        {"two": np.int64(2)},
    )
    main = OnnxFrontend().load(proto)["main"]
    assert isinstance(main, rx.Function)
    assert not any(isinstance(item.value, rx.If) for item in bindings(main))


def test_a_condition_on_a_dimension() -> None:
    proto = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Greater", ["n", "two"], ["c"]),
            branches(node("Relu", ["x"], ["t"]), node("Neg", ["x"], ["e"])),
        ],
        [value("x", FLOAT, ["n", 4])],
        ["z"],
        {"two": np.int64(2), "zero": np.int64(0)},
    )
    check(proto, {"x": array(1, 4)}, {"x": array(5, 4)})


# --- Loop -------------------------------------------------------------------------------------

BODY = [value("i", INT64, []), value("c", BOOL, []), value("s")]
INPUTS = [value("x", FLOAT, ["n", 4]), value("m", INT64, [])]
ON = node("Identity", ["c"], ["c2"])
DOUBLE = node("Add", ["s", "s"], ["s2"])


def looped(
    nodes: Sequence[onnx.NodeProto],
    results: Sequence[str] = ("s2",),
    outputs: Sequence[str] = ("y",),
    weights: dict[str, Any] | None = None,
    condition: str = "",
) -> onnx.ModelProto:
    body = graph(nodes, BODY, [value("c2", BOOL, []), *map(value, results)])
    return model(
        [node("Loop", ["m", condition, "x"], outputs, body=body)], INPUTS, outputs, weights
    )


def feeds(*counts: int) -> list[dict[str, np.ndarray]]:
    return [{"x": array(n, 4), "m": np.array(k)} for n in (1, 3) for k in counts]


def test_a_loop_with_a_state() -> None:
    check(looped([DOUBLE, ON]), *feeds(0, 1, 5))


def test_a_state_that_grows() -> None:
    grown = node("Concat", ["s", "x"], ["s2"], axis=0)
    check(looped([grown, ON]), *feeds(0, 1, 5))


def test_a_loop_that_stacks() -> None:
    counted = [node("Cast", ["i"], ["f"], to=FLOAT), node("Mul", ["s", "f"], ["r"])]
    check(looped([DOUBLE, ON, *counted], ("s2", "r"), ("y", "r")), *feeds(1, 5))


def test_a_stack_of_no_iterations() -> None:
    compiled = transect.compile(looped([DOUBLE, ON], ("s2", "s"), ("y", "r")), cache=False)
    x = array(3, 4)
    state, stack = compiled(x=x, m=np.array(0))
    np.testing.assert_array_equal(state, x)
    assert stack.shape == (0, 3, 4)


def test_a_loop_that_stops_by_data() -> None:
    large = node("ReduceMax", ["s2"], ["large"], keepdims=0)
    less = node("Less", ["large", "limit"], ["c2"])
    proto = looped([DOUBLE, large, less], ("s2", "s"), ("y", "r"), {"limit": np.float32(10)})
    check(proto, *({"x": np.abs(array(n, 4)), "m": np.array(k)} for n in (1, 3) for k in (1, 50)))


def test_many_rows_of_a_loop_whose_end_is_not_known() -> None:
    """The stacks grow while the loop runs; every call begins with empty ones."""
    more = node("Add", ["s", "one"], ["s2"])
    sums = [node("ReduceSum", ["s2"], ["q"], keepdims=0), node("Less", ["q", "limit"], ["c2"])]
    weights = {"one": np.float32(1), "limit": np.float32(4000)}
    proto = looped([more, *sums], ("s2", "s", "q"), ("y", "r", "t"), weights)
    check(proto, *({"x": array(n, 4), "m": np.array(k)} for n in (1, 3) for k in (2000, 3, 1)))


def test_stacks_of_one_size() -> None:
    """Each is a tensor of its own, though they begin alike; sizes are constant here."""
    rows = [node("Neg", ["s2"], ["r"]), node("Abs", ["s2"], ["t"])]
    proto = looped([DOUBLE, ON, *rows], ("s2", "r", "t"), ("y", "r", "t"))
    proto.graph.input[0].CopyFrom(value("x", FLOAT, [2, 4]))
    del proto.graph.input[1]
    proto.graph.initializer.append(numpy_helper.from_array(np.array(6), "m"))
    check(proto, {"x": array(2, 4)}, {"x": -array(2, 4)})


def test_a_loop_in_a_loop_with_a_branch() -> None:
    inner = graph(
        [
            node("Identity", ["ci"], ["ci2"]),
            node("Add", ["t", "x"], ["t2"]),
            node("Add", ["t2", "s"], ["t3"]),
        ],
        [value("j", INT64, []), value("ci", BOOL, []), value("t")],
        [value("ci2", BOOL, []), value("t3")],
    )
    negated = graph([node("Neg", ["w"], ["a"])], outputs=[value("a")])
    same = graph([node("Identity", ["w"], ["b"])], outputs=[value("b")])
    proto = looped(
        [
            ON,
            node("Loop", ["i", "", "s"], ["w"], body=inner),
            node("ReduceSum", ["w"], ["q"], keepdims=0),
            node("Less", ["q", "zero"], ["cc"]),
            node("If", ["cc"], ["s2"], then_branch=negated, else_branch=same),
        ],
        weights={"zero": np.float32(0)},
    )
    check(proto, *feeds(0, 1, 4))


# --- Scan -------------------------------------------------------------------------------------


def scanned(opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    inner = [4] if opset == 8 else None
    body = graph(
        [node("Add", ["s", "e"], ["s2"]), node("Mul", ["s2", "e"], ["r"])],
        [value("s", FLOAT, inner), value("e", FLOAT, inner)],
        [value("s2", FLOAT, inner), value("r", FLOAT, inner)],
    )
    names = ["", "z", "x"] if opset == 8 else ["z", "x"]
    along = attributes.get("scan_input_axes") == [1]
    dims = [["b", 4], ["b", "n", 4]] if opset == 8 else [[4], [4, "n"] if along else ["n", 4]]
    made = model(
        [node("Scan", names, ["y", "r"], body=body, num_scan_inputs=1, **attributes)],
        [value("z", FLOAT, dims[0]), value("x", FLOAT, dims[1])],
        ["y", "r"],
        opset=opset,
    )
    if opset == 8:
        for output, shape in zip(made.graph.output, dims, strict=True):
            output.CopyFrom(value(output.name, FLOAT, shape))
    return made


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1]},
        {"scan_output_directions": [1]},
        {"scan_output_axes": [1]},
        {"scan_input_axes": [1]},
    ],
    ids=str,
)
def test_scan(attributes: dict[str, list[int]]) -> None:
    along = "scan_input_axes" in attributes
    shapes = [(4, n) if along else (n, 4) for n in (1, 3, 7)]
    check(scanned(**attributes), *({"z": array(4), "x": array(*shape)} for shape in shapes))


def test_scan_of_a_batch() -> None:
    sizes = [(1, 1), (2, 3)]
    check(scanned(8), *({"z": array(b, 4), "x": array(b, n, 4)} for b, n in sizes))


def test_sequences_of_different_lengths_fail() -> None:
    body = graph([node("Add", ["a", "b"], ["r"])], [value("a"), value("b")], [value("r")])
    proto = model(
        [node("Scan", ["x", "w"], ["r"], body=body, num_scan_inputs=2)],
        [value("x", FLOAT, ["n", 4]), value("w", FLOAT, ["m", 4])],
        ["r"],
    )
    check(proto, {"x": array(3, 4), "w": array(3, 4)})
    with pytest.raises(ValueError, match="is 2, expected 3"):
        transect.compile(proto, cache=False)(array(3, 4), array(2, 4))
