"""The commands, as a process runs them: what they print, their JSON, their exit codes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from transect.cli.app import app

SCRIPT = """
from transect.script import ir as I, relax as R, tir as T

n = T.symbolic("n")

@I.ir_module
class Program:
    @R.function
    def main(x: R.Tensor[(n, 4), "float32"], rows: R.Tensor[(n,), "int64"]):
        with R.dataflow():
            a = R.exp(x)
            b = R.take(a, rows, axis=0)
            R.output(b)
        return b
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two named nodes, a program in script, and an array."""
    where = tmp_path_factory.mktemp("models")
    weight = np.linspace(-1, 1, 32, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="layer/MatMul"),
            helper.make_node("Tanh", ["h"], ["y"], name="layer/Tanh"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, (8, 4), weight)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), where / "net.onnx")
    (where / "program.py").write_text(SCRIPT)
    (where / "broken.onnx").write_bytes(b"\x08\x07garbage")
    np.save(where / "x.npy", np.ones((3, 8), np.float32))
    return where


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSECT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    # --threads sets them; here they are set back.
    monkeypatch.setenv("TRANSECT_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


def call(*arguments: object, code: int = 0) -> str:
    """What a command prints, in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def data(*arguments: object, code: int = 0) -> Any:
    """What a command gives as JSON."""
    return json.loads(call(*arguments, "--json", code=code))


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, without a terminal."""
    command: Sequence[str] = [sys.executable, "-m", "transect.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_is_there_at_once():
    """Nothing of the compiler is loaded for it."""
    code = (
        "import sys\n"
        "from transect.cli.app import app\n"
        "try:\n    app(['run', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = [n for n in ('onnx', 'llvmlite', 'numpy', 'tvm_ffi') if n in sys.modules]\n"
        "print('HEAVY', heavy)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in run.stdout
    assert "--input" in run.stdout


@pytest.mark.parametrize(
    "command", ["run", "bench", "show", "explain", "compile", "check", "profile", "cache"]
)
def test_every_command_explains_itself(command):
    text = call(command, "--help")
    assert "--json" in text
    assert "Usage" in text


def test_run(folder: Path, tmp_path: Path):
    found = data("run", folder / "net.onnx", "-i", f"x={folder / 'x.npy'}", "-o", tmp_path / "out")
    assert found["dims"] == {"batch": 3}
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [3, 8]}]
    (output,) = found["outputs"]
    assert output["shape"] == [3, 4]
    w = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    expected = np.tanh(np.ones((3, 8), np.float32) @ w)
    np.testing.assert_allclose(np.load(output["file"]), expected, rtol=1e-5, atol=1e-6)
    assert output["most"] == pytest.approx(float(expected.max()), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ([], [1, 8]),
        (["--dim", "batch=5"], [5, 8]),
        (["-i", "x=ones:2x8"], [2, 8]),
        (["-i", "zeros", "--dim", "batch=4"], [4, 8]),
        (["-i", "random:6,8"], [6, 8]),
    ],
)
def test_made_up_inputs(folder: Path, options, shape):
    assert data("run", folder / "net.onnx", *options)["inputs"][0]["shape"] == shape


def test_random_inputs_depend_on_the_seed_alone(folder: Path):
    runs = [data("run", folder / "net.onnx", "--seed", seed)["outputs"] for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_integers_are_valid_indices(folder: Path):
    found = data("run", folder / "program.py", "--dim", "n=3")
    assert [item["shape"] for item in found["inputs"]] == [[3, 4], [3]]
    assert found["outputs"][0]["shape"] == [3, 4]


def test_an_npz_file_gives_inputs_by_name(folder: Path, tmp_path: Path):
    np.savez(tmp_path / "all.npz", x=np.zeros((2, 4), np.float32), rows=np.array([1, 0]))
    found = data("run", folder / "program.py", "-i", tmp_path / "all.npz")
    assert found["outputs"][0]["mean"] == 1.0


def test_bench(folder: Path):
    found = data("bench", folder / "net.onnx", "--rounds", 3, "--dim", "batch=2", "--threads", 1)
    assert set(found["results"]) == {"transect", "onnxruntime"}
    for result in found["results"].values():
        low, high = result["quartiles"]
        assert result["least"] <= low <= result["median"] <= high <= result["most"]
    assert found["ratio"] > 0
    assert found["threads"] == 1
    alone = data("bench", folder / "program.py", "--rounds", 2)
    assert alone["ratio"] is None
    assert "only .onnx" in alone["notes"][0]
    assert "median ms" in call("bench", folder / "net.onnx", "--rounds", 2, "--alone")


def test_show(folder: Path):
    text = call("show", folder / "net.onnx")
    assert "R.matmul" in text
    assert "\x1b" not in text
    assert "call_tir" in call("show", folder / "net.onnx", "--after", "legalizeops")
    assert "LowerToHost" in call("show", folder / "net.onnx", "--passes").splitlines()
    found = data("show", folder / "net.onnx", "--after", "LegalizeOps", "--function", "matmul")
    assert found["pass"] == "LegalizeOps"
    assert "def matmul" in found["program"]
    assert "def main" not in found["program"]


def test_a_wrong_pass_is_answered_with_the_right_ones(folder: Path):
    run = process("show", folder / "net.onnx", "--after", "legalise")
    assert run.returncode == 2
    assert "there is no pass 'legalise'" in run.stderr
    assert "LegalizeOps" in run.stderr
    assert "Traceback" not in run.stderr


def test_explain_and_replay(folder: Path, tmp_path: Path):
    found = data("explain", folder / "net.onnx", "--save", tmp_path / "plan.json")
    assert found["decisions"]
    for decision in found["decisions"]:
        assert decision["chosen"] in [option["name"] for option in decision["options"]]
    again = data("explain", folder / "net.onnx", "--plan", tmp_path / "plan.json")
    chosen = {item["site"]: item["chosen"] for item in found["decisions"]}
    assert {item["site"]: item["chosen"] for item in again["decisions"]} == chosen
    assert found["decisions"][0]["chosen"] in call("explain", folder / "net.onnx")


def test_compile_and_run_the_folder(folder: Path, tmp_path: Path):
    found = data("compile", folder / "net.onnx", "-o", tmp_path / "exported")
    assert found["files"]
    exported = data("run", tmp_path / "exported", "--seed", 3)
    direct = data("run", folder / "net.onnx", "--seed", 3)
    assert exported["outputs"] == direct["outputs"]


def test_check(folder: Path):
    found = data("check", folder / "net.onnx", "--dim", "batch=3")
    assert found["ok"] is True
    assert found["reference"] == "onnxruntime"
    assert found["dims"] == {"batch": 3}
    assert "agrees with" in call("check", folder / "program.py")
    every = data("check", folder / "net.onnx", "--every")
    assert every["compared"] == found["compared"] + 2


def test_profile(folder: Path, tmp_path: Path):
    trace = tmp_path / "trace.json"
    found = data("profile", folder / "net.onnx", "--runs", 2, "--trace", trace)
    nodes = {node for region in found["regions"] for node in region["nodes"]}
    assert {"layer/MatMul", "layer/Tanh"} <= nodes
    assert json.loads(trace.read_text())["traceEvents"]
    assert "GFLOP/s" in call("profile", folder / "net.onnx", "--runs", 1)


def test_cache(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TRANSECT_CACHE_DIR", str(tmp_path))
    assert data("cache")["entries"] == []
    data("run", folder / "net.onnx")
    data("run", folder / "net.onnx", "--bounds", "batch=1:4")
    data("run", folder / "net.onnx", "--bounds", "batch=1:5", "--no-cache")
    found = data("cache", "list")
    assert [Path(entry["name"]).name for entry in found["entries"]] == ["net.onnx"] * 2
    assert found["bytes"] == sum(entry["bytes"] for entry in found["entries"])
    assert "net.onnx" in call("cache")
    key = found["entries"][0]["key"]
    assert data("cache", "clear", key[:10])["removed"] == 1
    assert data("cache", "clear")["removed"] == 1
    assert data("cache", "path")["folder"].startswith(str(tmp_path))
    assert "nothing to do with a cache" in call("cache", "burn", code=2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "absent.onnx"], 1, "no model at absent.onnx"),
        (["run", "{folder}/x.npy"], 1, "cannot tell what"),
        (["run", "{folder}/broken.onnx"], 1, "broken.onnx"),
        (["run", "{folder}/net.onnx", "-i", "z=ones"], 2, "no input 'z'"),
        (["run", "{folder}/net.onnx", "-i", "x=absent.npy"], 1, "no file absent.npy"),
        (["run", "{folder}/net.onnx", "-i", "x=wrong"], 2, "is no value of an input"),
        (["run", "{folder}/net.onnx", "-i", "x=ones:2xy"], 2, "is no shape"),
        (["run", "{folder}/program.py", "-i", "ones"], 2, "which input"),
        (["run", "{folder}/net.onnx", "-i", "x=ones:2x9"], 1, "x"),
        (["run", "{folder}/net.onnx", "--dim", "batch"], 2, "NAME=SIZE"),
        (["run", "{folder}/net.onnx", "--dim", "batch=-1"], 2, "is not a size"),
        (["run", "{folder}/net.onnx", "--dim", "height=1"], 2, "no dimension 'height'"),
        (["run", "{folder}/net.onnx", "--bounds", "height=1:2"], 1, "no symbolic dimension"),
        (["run", "{folder}/net.onnx", "--bounds", "batch=1:2", "--dim", "batch=3"], 1, "bounds"),
        (["run", "{folder}/net.onnx", "--target", "abacus"], 1, "abacus"),
        (["show", "{folder}/net.onnx", "-f", "absent"], 2, "no function 'absent'"),
        (["run"], 2, "Missing argument"),
        (["fly"], 2, "No such command"),
        (["bench", "{folder}/net.onnx", "--rounds", "0"], 2, "Usage: transect bench"),
        (["explain", "{folder}/net.onnx", "--plan", "{folder}/program.py"], 1, "not a plan"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(folder: Path, arguments, code, message):
    text = call(*(part.replace("{folder}", str(folder)) for part in arguments), code=code)
    assert message in text
    assert "Traceback" not in text


def test_an_error_as_json(folder: Path):
    error = data("run", "absent.onnx", code=1)["error"]
    assert error["type"] == "InputError"
    assert error["message"] == "no model at absent.onnx"


def test_a_process_without_a_terminal_gets_plain_text(folder: Path):
    run = process("run", folder / "net.onnx")
    assert run.returncode == 0
    assert run.stderr == ""
    assert "\x1b" not in run.stdout
    assert "float32" in run.stdout


def test_debug_shows_where_an_error_was_raised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSECT_DEBUG", "1")
    run = process("run", "absent.onnx")
    assert run.returncode == 1
    assert "Traceback" in run.stderr
