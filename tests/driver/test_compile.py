"""compile(): what it takes, which function runs, bounds of dimensions, the cache, what it tells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import transect
from tests.driver.programs import (
    SEED,
    seed_inputs,
    seed_reference,
    small_magika,
    small_magika_inputs,
)
from tests.frontend.onnx_models import Graph, expected
from transect import GreedyPolicy, Plan, RandomPolicy
from transect.driver import Cache
from transect.driver.identity import identify
from transect.ir.structural import structural_equal
from transect.relax.block_builder import BlockBuilder
from transect.relax.expr import Function
from transect.script import ir as I
from transect.script import parse
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import ImportModelError, InputError, InputTypeError

n, m, d = T.symbolic("n", "m", "d")


@T.prim_func
def scale(X: T.Buffer[(n, 4), "float32"], factor: T.float32, Y: T.Buffer[(n, 4), "float32"]):
    for i, j in T.grid(n, 4):
        with T.block("scale"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * factor


@I.ir_module
class Two:
    """Two public functions, neither of them main."""

    @R.function
    def doubled(x: R.Tensor[(n,), "float32"]):
        R.func_attr({"global_symbol": "doubled"})
        return R.add(x, x)

    @R.function
    def squared(x: R.Tensor[(n,), "float32"]):
        R.func_attr({"global_symbol": "squared"})
        return R.multiply(x, x)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


# --- one compile for every size -----------------------------------------------------------------

_seed = transect.compile(SEED, cache=False)
sizes = st.integers(0, 40)


@settings(max_examples=150)
@given(sizes, sizes, sizes)
def test_one_compile_serves_every_size_of_the_seed(rows: int, columns: int, depth: int) -> None:
    inputs = seed_inputs(rows, columns, depth)
    result = _seed(**inputs)
    assert result.shape == (rows * columns,)
    np.testing.assert_allclose(result, seed_reference(**inputs), rtol=1e-4)


@pytest.mark.parametrize("size", [(257, 129, 65), (1, 513, 3), (300, 1, 1000), (64, 64, 0)])
def test_large_and_uneven_sizes_of_the_seed(size: tuple[int, int, int]) -> None:
    inputs = seed_inputs(*size)
    np.testing.assert_allclose(_seed(**inputs), seed_reference(**inputs), rtol=1e-4)


@settings(max_examples=12)
@given(st.integers(0, 9))
def test_one_compile_serves_every_batch_of_a_model(batch: int) -> None:
    result = transect.compile(small_magika())(**small_magika_inputs(batch))
    assert result.shape == (batch, 10)
    if batch:
        wanted = expected(small_magika(), small_magika_inputs(batch))[0]
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-6)


def test_results_of_calls_do_not_share_memory() -> None:
    first_inputs, second_inputs = seed_inputs(4, 3, 2), seed_inputs(4, 3, 5)
    first = _seed(**first_inputs)
    second = _seed(**second_inputs)
    np.testing.assert_allclose(first, seed_reference(**first_inputs), rtol=1e-4)
    assert not np.shares_memory(first, second)


# --- bounds of dimensions -----------------------------------------------------------------------


def test_bounds_are_checked_at_every_call() -> None:
    model = transect.compile(SEED, dims={"n": (2, 8), "d": 5}, cache=False)
    for rows in (2, 8):
        inputs = seed_inputs(rows, 3, 5)
        np.testing.assert_allclose(model(**inputs), seed_reference(**inputs), rtol=1e-4)
    for rows in (1, 9):
        with pytest.raises(ValueError, match=rf"n is {rows}, outside of its bounds 2 to 8"):
            model(**seed_inputs(rows, 3, 5))
    with pytest.raises(ValueError, match=r"d is 4, outside of its bounds 5 to 5"):
        model(**seed_inputs(2, 3, 4))


def test_bounds_of_a_model_file() -> None:
    model = transect.compile(small_magika(), dims={"batch": (1, 4)}, cache=False)
    assert model(**small_magika_inputs(4)).shape == (4, 10)
    with pytest.raises(ValueError, match=r"batch is 5, outside of its bounds 1 to 4"):
        model(**small_magika_inputs(5))


def test_bounds_of_a_tensor_program() -> None:
    model = transect.compile(scale, dims={"n": (1, 4)}, cache=False)
    result = np.zeros((4, 4), np.float32)
    model(floats(4, 4), 2.0, result)
    np.testing.assert_array_equal(result, floats(4, 4) * 2)
    with pytest.raises(ValueError, match=r"n is 5, outside of its bounds 1 to 4"):
        model(floats(5, 4), 2.0, np.zeros((5, 4), np.float32))


def test_bounds_are_of_the_entry_alone() -> None:
    """A function that it calls may call a dimension of its own the same."""
    module = parse("""
@I.ir_module
class Twice:
    @R.function(private=True)
    def helper(a: R.Tensor(("n", 4), "float32")) -> R.Tensor(("n", 4), "float32"):
        b = R.exp(R.exp(R.exp(a)))
        return b
    @R.function
    def main(x: R.Tensor(("n", 4), "float32")) -> R.Tensor(None, "float32", ndim=2):
        y = R.concat((x, x), axis=0)
        z = cls.helper(y)
        return z
""")
    model = transect.compile(module, dims={"n": (6, 8)}, cache=False)
    x = -np.abs(floats(8, 4))
    np.testing.assert_allclose(model(x), np.exp(np.exp(np.exp(np.concatenate([x, x])))), rtol=1e-5)
    with pytest.raises(ValueError, match="n is 9, outside of its bounds 6 to 8"):
        model(floats(9, 4))


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"k": 4}, "the model has no symbolic dimension 'k'"),
        ({"n": (5, 2)}, r"dims\['n'\] is \(5, 2\)"),
        ({"n": (-1, 2)}, r"dims\['n'\] is \(-1, 2\)"),
        ({"n": -3}, r"dims\['n'\] is -3"),
    ],
)
def test_bounds_that_mean_nothing(dims, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        transect.compile(SEED, dims=dims, cache=False)
    assert "it has: d, m, n" in str(caught.value) or "least <= most" in str(caught.value)


def test_bounds_are_what_the_plan_predicts_with() -> None:
    small = transect.compile(SEED, dims={"n": (1, 2), "m": (1, 2), "d": (1, 2)}, cache=False)
    large = transect.compile(SEED, dims={"n": 2000, "m": 2000, "d": 2000}, cache=False)

    def predicted(model: transect.CompiledModel) -> float:
        decision = next(x for x in model.plan.decisions if x.label.startswith("implementation"))
        return dict(decision.options)["openblas.gemm"]

    assert predicted(large) > 100 * predicted(small)


# --- which function runs ------------------------------------------------------------------------


def test_an_entry_is_named() -> None:
    x = floats(7)
    doubled = transect.compile(Two, entry="doubled", cache=False)
    squared = transect.compile(Two, entry="squared", cache=False)
    np.testing.assert_allclose(doubled(x), x + x)
    np.testing.assert_allclose(squared(x), x * x)
    assert doubled.signature.name == "doubled"
    assert "squared" not in doubled.stages["LowerSignature"]


def test_several_functions_and_no_telling_which() -> None:
    with pytest.raises(InputError) as caught:
        transect.compile(Two, cache=False)
    assert str(caught.value) == (
        "cannot tell which function of the module to run\n"
        "  note: it has: doubled, squared\n"
        '  help: name one: compile(module, entry="...")'
    )


def test_an_entry_that_is_not_there() -> None:
    with pytest.raises(InputError, match="tripled"):
        transect.compile(Two, entry="tripled", cache=False)


def test_a_kernel_as_the_entry_of_a_module() -> None:
    model = transect.compile(SEED, entry="tir_mm", cache=False)
    inputs = seed_inputs(5, 3, 4)
    result = np.full((5, 3), np.nan, np.float32)
    assert model(*inputs.values(), result) == ()
    np.testing.assert_allclose(result, inputs["x"] @ inputs["w"], rtol=1e-5)


# --- what is compiled ---------------------------------------------------------------------------


def test_a_tensor_program_alone() -> None:
    model = transect.compile(scale, cache=False)
    for rows in (0, 1, 19):
        result = np.full((rows, 4), np.nan, np.float32)
        assert model(floats(rows, 4), 0.5, result) == ()
        np.testing.assert_array_equal(result, floats(rows, 4) * np.float32(0.5))
    assert str(model.signature) == (
        "scale(X: float32 (n, 4), factor: float32 scalar, Y: float32 (n, 4)) -> ()"
    )
    read_only = np.zeros((2, 4), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(InputError, match="'Y' is read-only, and the program writes to it"):
        model(floats(2, 4), 1.0, read_only)


def test_a_graph_function_alone() -> None:
    model = transect.compile(Two["squared"], cache=False)
    np.testing.assert_allclose(model(floats(3)), floats(3) ** 2, rtol=1e-6)


def test_a_module_built_in_python() -> None:
    builder = BlockBuilder(Two)
    model = transect.compile(builder.finish(), entry="doubled", cache=False)
    np.testing.assert_allclose(model(floats(3)), 2 * floats(3))


def test_a_proto_and_its_file_are_the_same(tmp_path: Path) -> None:
    proto = small_magika()
    onnx.save(proto, str(tmp_path / "small.onnx"))
    inputs = small_magika_inputs(3)
    results = [
        transect.compile(model, cache=False)(**inputs)
        for model in (proto, tmp_path / "small.onnx", str(tmp_path / "small.onnx"))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, InputTypeError, "cannot compile a builtins.NoneType"),
        (lambda x: x, InputTypeError, "cannot compile a builtins.function"),
        (np.zeros(3), InputTypeError, "cannot compile a numpy.ndarray"),
        ("model.pt", InputError, "cannot tell what 'model.pt' is"),
        ("absent.onnx", InputError, "no such model file: absent.onnx"),
        (Path("/"), InputError, "cannot tell what '/' is"),
    ],
)
def test_what_cannot_be_compiled(model, error, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        transect.compile(model)
    assert caught.value.remedy is not None


# --- what it tells ------------------------------------------------------------------------------


def test_stages_module_and_plan_tell_how_it_came_about() -> None:
    assert next(iter(_seed.stages)) == "input"
    assert structural_equal(_seed.module, SEED)
    assert _seed.stages["input"] is _seed.module
    assert "tir_mm" in repr(_seed.module)
    text = _seed.explain()
    assert text == str(_seed.plan)
    for line in ("implementation:tir_mm lv0: ", "openblas.gemm", "us predicted", "fusion:flatten"):
        assert line in text
    assert (
        repr(_seed)
        == "<CompiledModel relax_func(x: float32 (n, d), w: float32 (d, m)) -> float32 ((n * m),)>"
    )


# --- the cache ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_magika(), str(path))
    return path


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_hit_gives_the_same_results_and_stages(file: Path, tmp_path: Path) -> None:
    inputs = small_magika_inputs(3)
    first = transect.compile(file, cache=tmp_path / "cache")
    second = transect.compile(file, cache=tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 1
    np.testing.assert_array_equal(first(**inputs), second(**inputs))
    assert second.signature == first.signature
    assert second.plan == first.plan
    assert list(second.stages) == list(first.stages)
    for name, stage in first.stages.items():
        assert structural_equal(stage, second.stages[name]), name


HIT = """
import sys
import numpy as np
import transect
model = transect.compile(sys.argv[1], cache=__import__("pathlib").Path(sys.argv[2]))
np.save(sys.argv[3], model(np.load(sys.argv[4])))
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("onnx", "llvmlite")))
"""


def test_a_hit_in_a_new_process_reads_no_model(file: Path, tmp_path: Path) -> None:
    inputs = small_magika_inputs(3)
    np.save(tmp_path / "in.npy", inputs["bytes"])
    arguments = [file, tmp_path / "cache", tmp_path / "out.npy", tmp_path / "in.npy"]
    command = [sys.executable, "-W", "error", "-c", HIT, *map(str, arguments)]
    imported: list[list[str]] = []
    for _ in range(2):
        run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        imported.append(run.stdout.split())
        np.testing.assert_allclose(
            np.load(tmp_path / "out.npy"), expected(small_magika(), inputs)[0], rtol=1e-4, atol=1e-6
        )
    assert "onnx" in imported[0]
    assert imported[1] == [], "the model was parsed, or LLVM loaded"
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "other"])
def test_damaged_entries_are_compiled_anew(file: Path, tmp_path: Path, damage: str) -> None:
    inputs = small_magika_inputs(2)
    wanted = transect.compile(file, cache=tmp_path / "cache")(**inputs)
    (entry,) = entries(tmp_path / "cache")
    data = bytearray(entry.read_bytes())
    whole = bytes(data)
    data[len(data) // 2] ^= 1
    entry.write_bytes(
        {"empty": b"", "short": whole[:-1], "flipped": bytes(data), "other": b"PK\3\4" * 99}[damage]
    )
    np.testing.assert_array_equal(
        transect.compile(file, cache=tmp_path / "cache")(**inputs), wanted
    )
    assert entry.read_bytes() == whole


def test_another_file_at_the_same_path_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for factor in (2.0, 3.0):
        g = Graph()
        g.output(g.op("Mul", g.input("x", ["n"]), g.constant(factor, np.float32)))
        onnx.save(g.model(), str(path))
        model = transect.compile(path, cache=tmp_path / "cache")
        np.testing.assert_allclose(model(floats(5)), floats(5) * factor, rtol=1e-6)


def test_changed_external_weights_are_seen(tmp_path: Path) -> None:
    """The bytes of the model file stay the same while the weights beside it change."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 300])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 300])],
    )
    path = tmp_path / "model.onnx"
    files: list[bytes] = []
    for factor in (2.0, 3.0):
        weight = numpy_helper.from_array(np.full(300, factor, np.float32), "w")
        del graph.initializer[:]
        graph.initializer.append(weight)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        onnx.save(
            proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0
        )
        files.append(path.read_bytes())
        model = transect.compile(path, cache=tmp_path / "cache")
        np.testing.assert_allclose(model(floats(2, 300)), floats(2, 300) * factor, rtol=1e-6)
    assert files[0] == files[1]
    assert len(entries(tmp_path / "cache")) == 2


def test_missing_external_weights_are_named(tmp_path: Path) -> None:
    g = Graph()
    g.output(g.op("Mul", g.input("x", ["n", 300]), g.constant(np.ones(300), np.float32)))
    path = tmp_path / "model.onnx"
    onnx.save(g.model(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ImportModelError, match=r"its data is in 'w.bin', which does not exist"):
        transect.compile(path)


def test_the_key_changes_with_all_that_counts(file: Path) -> None:
    identity = identify(file)
    assert identity is not None
    keys = [
        identity.key(options)
        for options in (
            (),
            ({"batch": (1, 2)},),
            ({"batch": (1, 3)},),
            (Plan(),),
            (Plan({"implementation:*": "generated"}),),
            (GreedyPolicy(),),
            (RandomPolicy(1),),
            (RandomPolicy(2),),
        )
    ]
    assert len(set(keys)) == len(keys)
    seed, two, again = identify(SEED), identify(Two), identify(SEED)
    assert seed is not None
    assert two is not None
    assert again is not None
    assert seed.key(()) != two.key(())
    assert seed.key(()) == again.key(())
    assert identify(object()) is None


def _twice_of_a() -> Function:
    @R.function
    def twice(a: R.Tensor[(n,), "float32"]):
        return R.add(a, a)

    return twice


def _twice_of_b() -> Function:
    @R.function
    def twice(b: R.Tensor[(n,), "float32"]):
        return R.add(b, b)

    return twice


def test_programs_that_differ_in_names_only_have_keys_of_their_own() -> None:
    first, second = _twice_of_a(), _twice_of_b()
    assert structural_equal(first, second)
    first, second = transect.compile(first), transect.compile(second)
    np.testing.assert_allclose(first(a=floats(3)), 2 * floats(3))
    np.testing.assert_allclose(second(b=floats(3)), 2 * floats(3))


def test_the_users_cache_is_where_the_flag_says(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TRANSECT_CACHE_DIR", str(tmp_path / "mine"))
    transect.compile(file, cache=False)
    assert entries(tmp_path / "mine") == []
    transect.compile(file)
    (entry,) = entries(tmp_path / "mine")
    found = Cache().get(entry.name)
    assert found is not None
    assert json.loads(found.metadata["signature"])["name"] == "main"


def test_what_is_no_target_is_refused() -> None:
    with pytest.raises(InputTypeError, match="a target is expected, got tuple") as caught:
        transect.compile(SEED, (1, 2), cache=False)
    assert caught.value.remedy is not None
