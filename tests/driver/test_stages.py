"""Every stage of a compile is a valid program that prints, parses and means the same."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transect
from tests.driver.programs import (
    SEED,
    magika_inputs,
    magika_path,
    seed_inputs,
    small_magika,
    small_magika_inputs,
)
from tests.driver.stages import round_trip, run_stage, stage_names
from transect.driver import CompiledModel
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.script import parse_file

STAGES = stage_names()


def _verified(model: Any, **options: Any) -> CompiledModel:
    """The model compiled with every pass verified."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TRANSECT_CHECK", "1")
        return transect.compile(model, cache=False, **options)


@functools.cache
def seed() -> CompiledModel:
    return _verified(SEED)


@functools.cache
def small() -> CompiledModel:
    return _verified(small_magika())


@functools.cache
def magika() -> CompiledModel:
    return _verified(magika_path())


def holds(model: CompiledModel, stage: str, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Assert that a stage survives printing and parsing, and computes what compiled code does."""
    module = model.stages[stage]
    parsed = round_trip(module)
    assert structural_mismatch(module, parsed) is None
    for inputs in samples:
        wanted = model(**inputs)
        (got,) = run_stage(parsed, model.signature, inputs, [wanted.shape])
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [seed, small])
def test_the_stages_are_those_of_the_pipeline(model: Callable[[], CompiledModel]) -> None:
    assert list(model().stages) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_seed(stage: str) -> None:
    sizes = [(5, 3, 4), (1, 1, 1), (0, 2, 3), (9, 70, 2)]
    holds(seed(), stage, [seed_inputs(*size) for size in sizes])


@pytest.mark.parametrize("stage", STAGES)
def test_small_magika(stage: str) -> None:
    holds(small(), stage, [small_magika_inputs(2)])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_magika(stage: str) -> None:
    holds(magika(), stage, [magika_inputs(1)])


# In a process of its own, because nodes are guarded against assignment from their definition on.
DUMPING = """
import os, sys
os.environ["TRANSECT_CHECK"] = "1"
import transect
from tests.driver.programs import SEED, small_magika
for name, model in {"seed": SEED, "small": small_magika()}.items():
    os.environ["TRANSECT_DUMP"] = os.path.join(sys.argv[1], name)
    transect.compile(model)
"""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of dumped stages for each program, compiled with every check."""
    folder = tmp_path_factory.mktemp("dumps")
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", DUMPING, str(folder)]
    subprocess.run(command, cwd=repository, check=True, timeout=300)
    return folder


@pytest.mark.parametrize(("name", "model"), [("seed", seed), ("small", small)])
def test_dumps_parse_to_the_stages(
    dumps: Path, name: str, model: Callable[[], CompiledModel]
) -> None:
    stages = list(model().stages.items())[1:]
    files = sorted((dumps / name).glob("*.py"))
    numbered = [file.stem for file in files]
    plain = [stage.rsplit("_", 1)[0] if stage[-1].isdigit() else stage for stage, _ in stages]
    assert numbered == [f"{number:02}_{stage}" for number, stage in enumerate(plain)]
    for file, (_, stage) in zip(files, stages, strict=True):
        parsed = parse_file(file)
        assert isinstance(parsed, IRModule)
        assert structural_mismatch(stage, parsed) is None, file.name
