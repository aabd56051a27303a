"""examples/new_intrinsic.py: the intrinsic is found, chosen, and right; declaring it is short."""

import inspect

import numpy as np
import pytest

from examples import new_intrinsic
from transect.hardware import this_machine
from transect.tir.interpret import interpret


def test_both_products_use_the_intrinsic(capsys: pytest.CaptureFixture[str]) -> None:
    new_intrinsic.main()
    text = capsys.readouterr().out
    if new_intrinsic.VPMADDWD.missing(this_machine()):
        assert "this processor lacks" in text
        return
    assert text.count("instruction: example.vpmaddwd") == 2
    assert "bit for bit" in text


def test_the_declaration_is_short() -> None:
    lines = inspect.getsource(new_intrinsic).splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("# What it computes"))
    last = next(n for n, line in enumerate(lines) if line.startswith("def model"))
    assert last - first < 40


def test_the_description_is_a_program() -> None:
    a, b = np.array([2, 3], np.int16), np.ones((8, 2), np.int16)
    c = np.ones(8, np.int32)
    interpret(new_intrinsic.VPMADDWD.description, a, b, c)
    assert (c == 6).all()
