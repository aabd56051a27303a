"""Exported models: a folder that the runtime alone can run, whole or refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

import transect
from tests.driver.programs import SEED, seed_inputs, seed_reference, small_magika
from tests.driver.programs import small_magika_inputs as inputs_of
from transect.runtime import file_of, load_artifact, release_pages
from transect.runtime.libraries import SharedLibrary
from transect.runtime.safetensors import pack_arrays, unpack_arrays
from transect.support.errors import InputError

RUN = """
import sys
import numpy as np
from transect.runtime import load_artifact
model = load_artifact(sys.argv[1])
for size in (1, 3, 8):
    np.save(f"{sys.argv[2]}/out{size}.npy", model(np.load(f"{sys.argv[2]}/in{size}.npy")))
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("transect.")}
print(*sorted(rooms))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"llvmlite", "onnx", "blake3"}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    transect.compile(small_magika(), cache=False).save(folder / "model")
    return folder / "model"


def test_an_exported_model_runs_without_the_compiler(exported: Path, tmp_path: Path) -> None:
    model = transect.compile(small_magika(), cache=False)
    for size in (1, 3, 8):
        np.save(tmp_path / f"in{size}.npy", inputs_of(size)["bytes"])
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(exported), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    rooms, foreign = run.stdout.splitlines()
    assert rooms.split() == ["runtime", "support"]
    assert foreign.split() == []
    for size in (1, 3, 8):
        np.testing.assert_array_equal(
            np.load(tmp_path / f"out{size}.npy"), model(**inputs_of(size))
        )


def test_a_model_that_calls_a_library(tmp_path: Path) -> None:
    plan = transect.Plan({"implementation:*": "openblas.gemm"})
    transect.compile(SEED, plan=plan, cache=False).save(tmp_path)
    assert "scipy_openblas32" in (tmp_path / "model.json").read_text()
    inputs = seed_inputs(5, 3, 4)
    np.testing.assert_allclose(
        load_artifact(tmp_path)(**inputs), seed_reference(**inputs), rtol=1e-4
    )


def test_the_weights_are_a_file_of_safetensors(exported: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    model = load_artifact(exported)
    arrays = safetensors.load_file(exported / "weights.safetensors")
    assert any(name.isdigit() for name in arrays)
    assert model.signature == transect.compile(small_magika(), cache=False).signature


def test_saving_again_replaces_what_another_process_may_use(exported: Path) -> None:
    model = load_artifact(exported)
    wanted = model(**inputs_of(2))
    transect.compile(small_magika(), cache=False).save(exported)
    np.testing.assert_array_equal(model(**inputs_of(2)), wanted)
    np.testing.assert_array_equal(load_artifact(exported)(**inputs_of(2)), wanted)


def change(path: Path, **values: object) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **values}))


def test_folders_that_hold_no_model(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "good")
    with pytest.raises(InputError, match="does not hold a compiled model"):
        load_artifact(tmp_path)
    for name in ("model.json", "model.so", "weights.safetensors"):
        shutil.copytree(exported, tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(InputError, match="does not hold a compiled model"):
            load_artifact(tmp_path / name)
    description = tmp_path / "good" / "model.json"
    whole = description.read_text()
    change(description, version=99)
    with pytest.raises(InputError, match="version 99; this runtime reads 1"):
        load_artifact(tmp_path / "good")
    description.write_text("[1, 2")
    with pytest.raises(InputError, match="does not hold a compiled model"):
        load_artifact(tmp_path / "good")
    description.write_text(whole)
    change(description, imports=["no_such_symbol_anywhere"])
    with pytest.raises(InputError, match="no_such_symbol_anywhere"):
        load_artifact(tmp_path / "good")
    description.write_text(whole)
    change(description, entries=["__tvm_ffi_other"])
    with pytest.raises(InputError, match="not the code of a compiled model"):
        load_artifact(tmp_path / "good")
    description.write_text(whole)
    code = tmp_path / "good" / "model.so"
    code.write_bytes(b"\x7fELF" + bytes(64))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_artifact(tmp_path / "good")


@pytest.mark.parametrize("damage", ["cut", "header", "size"])
def test_damaged_weights(exported: Path, tmp_path: Path, damage: str) -> None:
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "weights.safetensors"
    data = path.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "header": data[:8] + b"x" * 20 + data[28:],
        "size": b"\xff" * 8 + data[8:],
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(InputError, match="the weights of the model are damaged"):
        load_artifact(tmp_path)


# --- its parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "bfloat16", "int4"],
)
def test_arrays_of_every_dtype_survive_in_a_file(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    arrays = {
        "a": np.arange(6).reshape(2, 3).astype(kind),
        "empty": np.zeros((0, 4), kind),
        "scalar": np.ones((), kind),
        "turned": np.arange(6).reshape(2, 3).astype(kind).T,
    }
    data = memoryview(b"".join(pack_arrays(arrays)))
    kinds = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    for name, array in unpack_arrays(data, kinds).items():
        assert array.dtype == kind
        np.testing.assert_array_equal(array.astype(float), arrays[name].astype(float))
    start = np.frombuffer(data, np.uint8).ctypes.data
    places = [a.ctypes.data - start for a in unpack_arrays(data, kinds).values() if a.size]
    assert [place % 64 for place in places] == [0] * len(places)


def test_where_an_array_is_mapped_from(tmp_path: Path) -> None:
    path = tmp_path / "data"
    np.arange(100_000, dtype=np.float32).tofile(path)
    mapped = np.memmap(path, np.uint8, "r")
    part = mapped[4003:204_003].view()[1:]
    assert file_of(part) == (path, 4004)
    assert file_of(np.memmap(path, np.uint8, "r", offset=5000)[3:]) == (path, 5003)
    assert file_of(np.asarray(mapped)[8192:].view(np.float32)) == (path, 8192)
    assert file_of(np.zeros(5)) is None
    assert file_of(np.asarray(mapped)[::2]) is None
    before = np.array(part)
    release_pages(part)
    release_pages(np.zeros(5))
    np.testing.assert_array_equal(part, before)


def test_a_library_that_is_not_there() -> None:
    for library in (SharedLibrary("no_such_package", "*.so"), SharedLibrary("", "/no/such.so")):
        assert library.find() is None
        with pytest.raises(InputError, match="which is not installed"):
            library.open()


def test_onnx_models_with_external_data_export_their_weights(tmp_path: Path) -> None:
    onnx.save(
        small_magika(),
        str(tmp_path / "m.onnx"),
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    transect.compile(tmp_path / "m.onnx", cache=tmp_path / "cache").save(tmp_path / "out")
    (tmp_path / "w").unlink()
    (tmp_path / "m.onnx").unlink()
    model = load_artifact(tmp_path / "out")
    wanted = transect.compile(small_magika(), cache=False)(**inputs_of(4))
    np.testing.assert_array_equal(model(**inputs_of(4)), wanted)
