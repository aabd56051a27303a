"""The schedule's tests run with the check after every primitive."""

import pytest

import transect.script


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transect.script  # Messages print programs through it.
    monkeypatch.setenv("TRANSECT_CHECK", "1")
