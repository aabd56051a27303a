"""CompiledModel.profile: whose time is counted, under which names, and what it says of the work."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import transect
from transect.driver.peak import measured_peak
from transect.script import ir as I
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import InputError

n = T.symbolic("n")


def mlp():
    """Two named layers over a dynamic batch."""
    random = np.random.default_rng(0)
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).ravel())
        for name, shape in (("w0", (8, 16)), ("w1", (16, 4)))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"], name="first/MatMul"),
            helper.make_node("Tanh", ["h"], ["t"], name="first/Tanh"),
            helper.make_node("MatMul", ["t", "w1"], ["y"], name="second/MatMul"),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def compiled():
    return transect.compile(mlp(), cache=False)


def test_every_node_is_in_a_region_and_the_result_is_that_of_a_call(compiled):
    x = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    report = compiled.profile(x, runs=3, measure_peak=False)
    named = {name for region in report.regions for name in region.nodes}
    assert {"first/MatMul", "first/Tanh", "second/MatMul"} <= named
    np.testing.assert_array_equal(report.results, compiled(x))
    assert all(region.calls == 1 for region in report.regions)
    assert 0 < report.busy <= report.seconds


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_work_is_that_of_the_dimensions_of_the_run(compiled, batch):
    x = np.ones((batch, 8), np.float32)
    report = compiled.profile({"x": x}, runs=1, measure_peak=False)
    by_node = {name: region for region in report.regions for name in region.nodes}
    second = by_node["second/MatMul"]
    assert second.operations >= 2 * batch * 16 * 4
    assert second.operations <= 2 * batch * 16 * 4 + batch * 16 * 40
    assert by_node["first/MatMul"].operations >= 2 * batch * 8 * 16
    assert second.bytes >= 4 * (16 * 4 + batch * 4)


def test_work_is_that_of_programs_over_fewer_axes():
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w"], ["h"], name="pixels"),
                helper.make_node("Relu", ["h"], ["y"]),
            ],
            "convolution",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 10, 12])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32, 10, 12])],
            [helper.make_tensor("w", TensorProto.FLOAT, [32, 16, 1, 1], np.ones(512))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    x = np.ones((1, 16, 10, 12), np.float32)
    report = transect.compile(model, cache=False).profile(x, runs=1, measure_peak=False)
    counts = {name: region.operations for region in report.regions for name in region.nodes}
    assert counts["pixels"] >= 2 * 120 * 16 * 32


def test_json_trace_and_table(compiled, tmp_path: Path):
    report = compiled.profile(np.ones((2, 8), np.float32), runs=2, measure_peak=False)
    report.save(tmp_path / "profile.json")
    data = json.loads((tmp_path / "profile.json").read_text())
    assert data["runs"] == 2
    assert {"seconds", "gflops", "gbytes_per_second", "nodes"} <= set(data["regions"][0])
    report.trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == 1 + sum(region.calls for region in report.regions)
    whole = next(event for event in events if event["cat"] == "model")
    for event in events:
        assert whole["ts"] <= event["ts"]
        assert event["ts"] + event["dur"] <= whole["ts"] + whole["dur"] + 1e-3
    assert "second/MatMul" in str(report)


def test_branches_functions_and_packed_calls():
    @I.ir_module
    class Program:
        @R.function
        def double(x: R.Tensor[(n,), "float32"]) -> R.Tensor[(n,), "float32"]:
            return R.add(x, x)

        @R.function
        def main(x: R.Tensor[(n,), "float32"], flag: R.Tensor[(), "bool"]):
            if flag:
                a = Program.double(x)
                z = Program.double(a)
            else:
                z = R.exp(x)
            return R.call_pure_packed(
                "tests.profile.negated", z, sinfo_args=R.Tensor((n,), "float32")
            )

    transect.register_function("tests.profile.negated", lambda x: -x, override=True)
    model = transect.compile(Program, cache=False)
    x = np.ones(7, np.float32)
    for flag, doubled in ((True, 2), (False, 0)):
        report = model.profile(x, np.array(flag), runs=1, measure_peak=False)
        calls = dict.fromkeys(("kernel", "function", "packed"), 0)
        for region in report.regions:
            calls[region.kind] = calls.get(region.kind, 0) + region.calls
        assert calls["packed"] == 1
        assert calls["function"] == doubled
        assert calls["kernel"] == (2 if flag else 1)
        assert any("test_profile.py:" in name for region in report.regions for name in region.nodes)
        np.testing.assert_allclose(report.results, -4 * x if flag else -np.exp(x), rtol=1e-6)


def test_threads_do_not_disturb_each_other(compiled):
    reports = []

    def run(batch: int) -> None:
        x = np.ones((batch, 8), np.float32)
        reports.extend((batch, compiled.profile(x, runs=1, measure_peak=False)) for _ in range(5))

    threads = [threading.Thread(target=run, args=(size,)) for size in (1, 64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes: dict[int, set[int]] = {1: set(), 64: set()}
    for batch, report in reports:
        assert all(region.calls == 1 for region in report.regions)
        sizes[batch].add(sum(region.operations for region in report.regions))
    assert len(sizes[1]) == len(sizes[64]) == 1
    assert max(sizes[64]) == 64 * max(sizes[1])


def test_refusals(compiled):
    with pytest.raises(InputError, match="0 runs"):
        compiled.profile(np.ones((2, 8), np.float32), runs=0)
    with pytest.raises(InputError, match="missing inputs: 'x'"):
        compiled.profile({})

    @T.prim_func
    def program(a: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.block("b"):
                v = T.axis.spatial(4, i)
                a[v] = a[v] + 1.0

    with pytest.raises(InputError, match="is a tensor program"):
        transect.compile(program, cache=False).profile(np.ones(4, np.float32))


def test_the_peak_is_measured_once():
    peak = measured_peak("float32")
    assert peak.operations > 1e8
    assert peak.bandwidth > 1e8
    assert measured_peak("float32") is peak
