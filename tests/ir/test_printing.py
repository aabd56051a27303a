"""repr of IR reads as script, whatever has been imported."""

from __future__ import annotations

import subprocess
import sys


def _printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_repr_is_script_without_importing_the_printer() -> None:
    text = _printed(
        "import sys\n"
        "from transect.ir.expr import Var\n"
        "from transect.tir.buffer import buffer\n"
        "assert not any('script' in name for name in sys.modules if 'transect' in name)\n"
        "n = Var('n')\n"
        "print(n, n + 1, buffer('A', (n, 4))[n, 0])"
    )
    assert text == "n n + 1 A[n, 0]\n"


def test_without_a_printer_repr_shows_classes_and_fields() -> None:
    text = _printed(
        "from transect.ir import printing\n"
        "printing.entry_points = lambda group: ()\n"
        "from transect.ir.expr import IntImm\n"
        "print(IntImm(3))"
    )
    assert text == "IntImm(value=3, kind=DType('int64'))\n"


def test_fresh_variables_show_their_name() -> None:
    text = _printed("from transect.script import tir as T\nprint(T.int64(), T.symbolic('q', 'r'))")
    assert text == "v (q, r)\n"
