"""Scripts with random mistakes: a module, or a ScriptError that says where and what to do.

TRANSECT_FUZZ_EXAMPLES=3000 runs more of them.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

from tests.script.damage import damaged
from transect.ir.function import BaseFunc, IRModule
from transect.script import parse
from transect.support.errors import ScriptError

EXAMPLES = int(os.environ.get("TRANSECT_FUZZ_EXAMPLES", "200"))


@given(damaged())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_damaged(text: str) -> None:
    try:
        made = parse(text, file="damaged.py")
    except ScriptError as error:
        for item in error.errors:
            shown = str(item)
            assert "damaged.py:" in shown, shown
            assert "^" in shown, shown
            assert item.remedy, shown
    else:
        assert isinstance(made, IRModule | BaseFunc)
