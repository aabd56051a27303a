"""The rooms: who may import whom, and what the runtime may load."""

import subprocess
import sys
from pathlib import Path

import pytest

import transect
from tools.rooms import PROJECT, Rooms, string_loaders

ROOMS = Rooms(
    ["app.high", "app.base.sub", "app.base", "app.run", "app.low", "app.lowest"],
    only=["app.run -> app.lowest"],
)


def _fresh_interpreter(program: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_contracts_hold() -> None:
    # A process of its own: import-linter configures logging and the import path globally.
    program = "from importlinter.cli import lint_imports_command as main; main()"
    command = [sys.executable, "-c", program, "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_of_modules_is_a_package() -> None:
    # The import graph does not see into a folder without `__init__.py`, so no contract would hold.
    folders = {file.parent for file in (PROJECT / "transect").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_string_loaders_obey_the_room_order() -> None:
    rooms = Rooms.of_project()
    breaches = [
        f"{where}: {module} -> {target}: {complaint}"
        for module, target, where in string_loaders(PROJECT / "transect")
        if (complaint := rooms.complaint(module, target))
    ]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("app.high.x", "app.base.sub.y"),
        ("app.base.sub.y", "app.base.z"),
        ("app.base.sub.y", "app.base"),
        ("app.base.z", "app.base.z2"),
        ("app.run", "app.lowest"),
        ("app", "app.high"),
    ],
)
def test_import_downwards_or_within_a_room_is_allowed(importer: str, imported: str) -> None:
    assert ROOMS.complaint(importer, imported) is None


@pytest.mark.parametrize(
    ("importer", "imported", "complaint"),
    [
        ("app.low.x", "app.high.y", "room app.high is above room app.low"),
        ("app.base.z", "app.base.sub.y", "room app.base.sub is above room app.base"),
        ("app.base", "app.base.sub", "room app.base.sub is above room app.base"),
        ("app.run.x", "app.low", "room app.run may import only app.lowest"),
        ("app.low", "app", "app is above all rooms"),
    ],
)
def test_import_upwards_is_refused(importer: str, imported: str, complaint: str) -> None:
    assert ROOMS.complaint(importer, imported) == complaint


def test_only_names_an_unknown_room() -> None:
    with pytest.raises(ValueError, match=r"'app\.gone', which is not in `rooms`"):
        Rooms(["app.low"], only=["app.low -> app.gone"])


def test_string_loaders_are_found(tmp_path: Path) -> None:
    package = tmp_path / "transect"
    package.mkdir()
    (package / "table.py").write_text(
        '"""transect.ir in prose is no loader."""\n'
        'TABLE = {"a": "transect.relax.op.nn:Softmax", "b": "transect.symbol.of.code"}\n'
        'WORKER = ("-m", "transect.table", "transect.tab")\n',
        encoding="utf-8",
    )
    assert list(string_loaders(package)) == [
        ("transect.table", "transect.relax.op.nn", "transect/table.py:2"),
        ("transect.table", "transect.table", "transect/table.py:3"),
    ]


def test_import_transect_loads_no_room() -> None:
    loaded = _fresh_interpreter(
        "import sys, transect\nprint(*(name for name in sys.modules if 'transect.' in name))"
    )
    assert not loaded.split()


_LOADED = "print(*(name for name in sys.modules if name.partition('.')[0] != 'encodings'))"


def test_runtime_needs_only_its_two_dependencies() -> None:
    dependencies = set(_fresh_interpreter(f"import sys, tvm_ffi, numpy\n{_LOADED}").split())
    loaded = set(_fresh_interpreter(f"import sys, transect.runtime\n{_LOADED}").split())
    rooms = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("transect.")}
    assert rooms <= {"transect.runtime", "transect.support"}
    # tvm_ffi loads what it finds (torch, where that is installed): that is not our doing.
    packages = {name.partition(".")[0] for name in loaded - dependencies}
    heavy = {"llvmlite", "onnx", "scipy", "scipy_openblas32", "ml_dtypes", "cuda", "rich"}
    assert not packages & heavy


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'transect' has no attribute 'nothing'"):
        _ = transect.nothing
