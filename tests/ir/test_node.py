"""Nodes: replace, the guard against assignment, modules."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from transect.ir.expr import GlobalVar, Var
from transect.ir.function import BaseFunc, IRModule
from transect.ir.node import replace
from transect.support.errors import InputError
from transect.tir.function import PrimFunc
from transect.tir.stmt import Evaluate

_GUARDED = """
from transect.ir.expr import Var
from transect.tir.stmt import Evaluate
statement = Evaluate(Var("x"))
try:
    statement.value = Var("y")
except AttributeError as error:
    print(error)
else:
    print("assigned")
"""


@pytest.mark.parametrize(("flag", "said"), [("1", "cannot set 'value'"), ("0", "assigned")])
def test_check_guards_nodes_against_assignment(flag: str, said: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _GUARDED],
        env={**os.environ, "TRANSECT_CHECK": flag},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said in result.stdout


def test_replace_keeps_what_does_not_change() -> None:
    x, y = Var("x"), Var("y")
    statement = Evaluate(x)
    assert replace(statement, value=x) is statement
    changed = replace(statement, value=y)
    assert changed.value is y
    assert statement.value is x


def _function(name: str) -> PrimFunc:
    return PrimFunc((), {}, Evaluate(Var("x")), {"global_symbol": name})


def test_modules_are_changed_by_copy() -> None:
    f, g = _function("f"), _function("g")
    module = IRModule.of(f=f)
    assert module.with_function("f", f) is module
    both = module.with_function("g", g)
    assert list(both) == ["f", "g"]
    assert "g" not in module
    assert both[GlobalVar("g")] is g
    assert list(both.without("f")) == ["g"]
    assert both.fresh_name("f") == "f_1"
    assert both.fresh_name("h") == "h"

    def same(name: str, function: BaseFunc) -> BaseFunc:
        return function

    assert both.map_functions(same) is both
    with pytest.raises(InputError, match="no function 'h'"):
        _ = both["h"]


def test_attributes_are_added_and_removed() -> None:
    f = _function("f").with_attrs(tuned=True)
    assert f.attrs == {"global_symbol": "f", "tuned": True}
    assert f.with_attrs(global_symbol=None).attrs == {"tuned": True}
