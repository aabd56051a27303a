"""examples/one_program.py runs and prints what its readers expect; `make demo` runs the others."""

import re

import pytest

from examples import one_program
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.script import parse


def test_one_program(capsys: pytest.CaptureFixture[str]) -> None:
    one_program.main()
    text = capsys.readouterr().out
    errors = re.findall(
        r"n, m, d = \((\d+), (\d+), (\d+)\): shape \((\d+),\), largest relative error (\S+)", text
    )
    assert len(errors) == 4
    for rows, columns, _, size, error in errors:
        assert int(size) == int(rows) * int(columns)
        assert float(error) < 1e-5
    assert "implementation:tir_mm" in text, "the plan is shown"


def test_the_program_that_one_program_prints_is_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one_program.main()
    text = capsys.readouterr().out
    program = text[: text.index("implementation:")]
    parsed = parse(program)
    assert isinstance(parsed, IRModule)
    assert structural_mismatch(parsed, one_program.MyIRModule) is None
