"""Damaged model files work, or give an error of ours: they neither crash nor take much time or
memory. `python -m tests.fuzz.damaged --count 5000` tries more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.damaged import MODELS, children, damaged, outcome

COMPILED, LOADED, CHUNK = 60, 400, 20
FINE = {"ran", "loaded", "refused", "stopped"}


@pytest.mark.parametrize("make", MODELS)
def test_they_work_before(make, tmp_path: Path) -> None:
    assert outcome(make(), tmp_path) == "ran"


@pytest.mark.parametrize("first", range(0, COMPILED, CHUNK))
def test_compiled(first: int) -> None:
    found = children(range(first, first + CHUNK), CHUNK)
    assert set(found) <= FINE
    assert found.total() == CHUNK


def test_loaded() -> None:
    found = children(range(1000, 1000 + LOADED), LOADED, compiles=False)
    assert set(found) <= FINE
    assert found.total() == LOADED


def test_damage_comes_from_its_seed() -> None:
    assert damaged(11) == damaged(11)
