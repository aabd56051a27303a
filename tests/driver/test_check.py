"""transect.check: what agrees is said to agree; what was made wrong is found, by its own name."""

import importlib

import numpy as np
import pytest
from onnx import TensorProto, helper

import transect
from transect.codegen.llvm import function as llvm_function
from transect.driver import check as check_module
from transect.driver import check_onnx
from transect.relax.legalize import _write_loops
from transect.relax.op.nn_activation import Softmax
from transect.script import ir as I
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import InputError

n = T.symbolic("n")


def model(*, opset: int = 17):
    """Two layers over a dynamic batch, with names as exporters give them."""
    random = np.random.default_rng(0)
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).ravel())
        for name, shape in (("w0", (8, 6)), ("w1", (6, 4)))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"], name="block/MatMul"),
            helper.make_node("Floor", ["h"], ["f"], name="block/Floor"),
            helper.make_node("Tanh", ["f"], ["t"], name="block/Tanh"),
            helper.make_node("MatMul", ["t", "w1"], ["l"], name="head/MatMul"),
            helper.make_node("Softmax", ["l"], ["y"], name="head/Softmax", axis=-1),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)


@pytest.fixture
def wrong_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A back end that rounds up where it should round down."""
    handlers = dict(llvm_function.HANDLERS)
    handlers["floor"] = handlers["ceil"]
    monkeypatch.setattr(llvm_function, "HANDLERS", handlers)


def test_a_right_model_agrees_with_all(x):
    report = transect.check(model(), x)
    assert report.ok
    assert report.reference == "onnxruntime"
    assert report.first_difference is None
    (output,) = report.outputs
    assert output.name == "y"
    assert output.shape == (3, 4)
    assert output.error.relative < 1e-4
    assert output.errors["interpreter"].relative < 1e-4
    assert output.errors["float64"].relative < 1e-6
    assert "agrees with onnxruntime" in str(report)


def test_a_wrong_back_end_is_found_at_its_node(x, wrong_floor):
    report = transect.check(model(), {"x": x})
    assert not report.ok
    first = report.first_difference
    assert (first.value, first.node, first.operator) == ("f", "block/Floor", "Floor")
    assert "its compiled code is wrong" in first.verdict
    assert first.error.absolute == 1.0
    assert first.float64.absolute == 1.0
    assert first.reference_float64.absolute == 0.0
    assert first.elements[0] == len(np.flatnonzero(np.ones((3, 6))))
    mismatch = first.mismatches[0]
    assert mismatch.index == (0, 0)
    assert mismatch.value - mismatch.expected == 1.0
    assert mismatch.exact == mismatch.expected
    assert "Floor node 'block/Floor'" in str(report)


def test_a_wrong_definition_is_told_from_wrong_code(x, monkeypatch):
    right = Softmax.legalize

    def wrong(self, b, value):
        out = right(self, b, value)
        return b.compute(out.shape, lambda *i: out[i] * 0.5, name="half")

    _write_loops.cache_clear()
    monkeypatch.setattr(Softmax, "legalize", wrong)
    report = transect.check(model(), x)
    _write_loops.cache_clear()
    first = report.first_difference
    assert (first.value, first.node) == ("y", "head/Softmax")
    assert "the operator's definition" in first.verdict
    assert report.outputs[0].errors["interpreter"].relative == pytest.approx(0.5, rel=1e-3)


def test_without_onnx_runtime_the_interpreter_is_the_reference(x, wrong_floor, monkeypatch):
    monkeypatch.setattr(check_onnx, "has_runtime", lambda: False)
    monkeypatch.setattr(check_onnx, "run_in_reference", _cannot)
    report = transect.check(model(), x)
    assert report.reference == "interpreter"
    assert report.first_difference.node == "block/Floor"


def _cannot(model, feeds):
    raise InputError("not today")


def test_a_large_model_is_not_interpreted_as_a_whole(x, wrong_floor):
    report = transect.check(model(), x, interpreter_seconds=1e-5)
    assert any("would take longer" in note for note in report.notes)
    assert report.outputs[0].errors == {}
    assert report.first_difference.node == "block/Floor"


def test_script_models_are_checked_by_the_interpreter(wrong_floor):
    @I.ir_module
    class Program:
        @R.function
        def main(x: R.Tensor[(n, 4), "float32"]):
            with R.dataflow():
                a = R.exp(x)
                b = R.floor(a)
                c = R.add(b, a)
                R.output(c)
            return c

    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    report = transect.check(Program, x)
    assert report.reference == "interpreter"
    first = report.first_difference
    assert (first.value, first.operator) == ("b", "R.floor")
    assert "test_check.py" in first.place
    assert "R.floor(a)" in first.place
    assert first.float64.absolute == 1.0
    assert not report.ok


def test_a_users_wrong_kernel_is_found(monkeypatch):
    """The kernel's schedule is what is wrong: the compiler is handed a different program."""

    @I.ir_module
    class Program:
        @T.prim_func
        def negated(a: T.Buffer[(n,), "float32"], y: T.Buffer[(n,), "float32"]):
            for i in range(n):
                with T.block("negated"):
                    v = T.axis.spatial(n, i)
                    y[v] = T.floor(a[v])

        @R.function
        def main(x: R.Tensor[(n,), "float32"]):
            with R.dataflow():
                a = R.multiply(x, x)
                b = R.call_tir(Program.negated, (a,), out_sinfo=R.Tensor((n,), "float32"))
                c = R.exp(b)
                R.output(c)
            return c

    handlers = dict(llvm_function.HANDLERS)
    handlers["floor"] = handlers["ceil"]
    x = np.linspace(0, 2, 9, dtype=np.float32)
    assert transect.check(Program, x).ok
    monkeypatch.setattr(llvm_function, "HANDLERS", handlers)
    first = transect.check(Program, x).first_difference
    assert first.value == "b"
    assert "negated" in first.operator
    # 0 and 2 are whole: rounded either way the same.
    assert first.mismatches[0].index == (1,)


def test_values_in_between_are_compared_on_demand(x, wrong_floor, monkeypatch):
    """The outputs agree, as what is wrong does not reach them: x - x is 0 for any x."""

    @I.ir_module
    class Program:
        @R.function
        def main(x: R.Tensor[(n, 8), "float32"]):
            with R.dataflow():
                a = R.floor(x)
                b = R.subtract(a, a)
                R.output(b)
            return b

    assert transect.check(Program, x).ok
    report = transect.check(Program, x, every=True)
    assert not report.ok
    assert report.outputs[0].ok
    assert report.first_difference.value == "a"
    clean = transect.check(model(), x)
    assert clean.compared < transect.check(model(), x, every=True, tolerance=1e9).compared


def test_a_fault_that_hides_when_all_values_are_outputs_is_bisected(x, monkeypatch):
    """As of a fused kernel: compiled alone, everything from the third node on is wrong."""
    right = check_module.compile
    order = ["h", "f", "t", "l", "y"]

    def wrong(variant, **options):
        names = [item.name for item in variant.graph.output]
        compiled = right(variant, **options)
        bad = len(names) == 1 and order.index(names[0]) >= 2

        class Faulty:
            signature = compiled.signature

            def __call__(self, *args):
                result = compiled(*args)
                return result + 1 if bad else result

        return Faulty()

    monkeypatch.setattr(check_module, "compile", wrong)
    report = transect.check(model(), x)
    assert report.first_difference.node == "block/Tanh"
    assert any("how kernels are fused" in note for note in report.notes)


def test_integers_must_be_equal_and_floats_near():
    rules = importlib.import_module("transect.driver.check_report").Rules()
    big = np.array([2**62, 0])
    assert rules.agree(big, big.copy())
    assert not rules.agree(big, big + 1)
    a = np.array([1.0, np.nan, np.inf], np.float32)
    assert rules.agree(a, a * np.float32(1 + 1e-6))
    assert not rules.agree(a, np.array([1.0, np.nan, -np.inf], np.float32))
    assert not rules.agree(a, np.array([1.0, 0.0, np.inf], np.float32))
    assert not rules.agree(a, a.astype(np.float64))


def test_json_and_wrong_inputs(x, wrong_floor):
    data = transect.check(model(), x).to_json()
    assert data["ok"] is False
    assert data["first_difference"]["node"] == "block/Floor"
    with pytest.raises(InputError, match="missing inputs: 'x'"):
        transect.check(model(), {})
    with pytest.raises(InputError, match="no input is named 'z'"):
        transect.check(model(), {"x": x, "z": x})
    with pytest.raises(InputError, match="takes 1 inputs"):
        transect.check(model(), [x, x])
