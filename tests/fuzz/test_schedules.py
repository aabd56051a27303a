"""Random schedules: 500 here; TRANSECT_FUZZ_SCHEDULES=10000, or `python -m tests.fuzz.schedules`,
runs more."""

import os

import pytest

from tests.fuzz.schedules import STEPS, run

COUNT = int(os.environ.get("TRANSECT_FUZZ_SCHEDULES", "500"))
CHUNKS = 10


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSECT_CHECK", "1")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_schedules_keep_the_meaning(chunk: int) -> None:
    applied = run(COUNT // CHUNKS, chunk)
    # Some of the primitives must have been legal, or nothing was tested.
    assert len(applied) > len(STEPS) // 4
