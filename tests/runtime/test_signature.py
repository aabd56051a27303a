"""Signatures survive JSON; what comes from a file is checked, and never executed."""

from __future__ import annotations

import json

import pytest
import tvm_ffi

from transect.runtime import CompiledModel, Output, Parameter, Signature
from transect.runtime.dimension import check_formula, names_in, rename
from transect.support.errors import InputError

SIGNATURE = Signature(
    "main",
    (
        Parameter("input.1", "tensor", "float32", ("n", 4, "n + 1"), 3),
        Parameter("t", "tuple", items=(Parameter("p", "scalar", "int64", name_of="k"),)),
    ),
    (Output("destination", "float32", ("max(n, 2) * 4",)), Output("owned")),
    [0, [1, []]],
)


def test_a_signature_survives_json():
    assert Signature.from_json(SIGNATURE.to_json()) == SIGNATURE


def test_what_it_says():
    assert str(SIGNATURE) == (
        "main(input.1: float32 (n, 4, n + 1), t: (int64 scalar)) -> "
        "(float32 (max(n, 2) * 4,), (object, ()))"
    )
    assert SIGNATURE.dimensions() == {"n": (0, 0)}


def changed(**changes):
    return json.dumps({**json.loads(SIGNATURE.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a signature"),
        ("[]", "not a signature"),
        ("{}", "not a signature"),
        (changed(version=99), "version 99"),
        (changed(result=[0, 7]), "output 7 of 2"),
        (changed(result=[0]), "uses 1 of 2 outputs"),
        (
            changed(outputs=[{"kind": "stolen", "dtype": None, "shape": None}]),
            "none of destination",
        ),
        (
            changed(outputs=[{"kind": "destination", "dtype": "int8", "shape": [-1]}]),
            "not a dimension",
        ),
        (
            changed(outputs=[{"kind": "destination", "dtype": "int8", "shape": None}]),
            "needs a shape",
        ),
    ],
)
def test_damaged_signatures_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        Signature.from_json(text)


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('true')", "n.bit_length()", "n ** 9", "[n]", "lambda: n", "n if n",
        "max(n)", "max(n, 2, key=n)", "m", "1.5", "True", "'n'", "n < 1 < 2", "(n := 3)", "n[0]",
        "open", "n @ n", "f'{n}'", "n\n+1\nimport os", "0" * 20_000, "(" * 500 + "n" + ")" * 500,
    ],
)  # fmt: skip
def test_only_formulas_are_accepted(formula):
    with pytest.raises(InputError):
        check_formula(formula, ["n"])


def test_hostile_formulas_do_not_reach_a_call():
    evil = Signature(
        "main",
        (Parameter("x", "tensor", "float32", ("n",)),),
        (Output("destination", "float32", ("[].__class__",)),),
        0,
    )
    with pytest.raises(InputError):
        CompiledModel(tvm_ffi.convert(lambda *_: None), evil)


def test_formulas_are_renamed_as_a_whole():
    text = check_formula("max(n, nn) * -2 + (n if n < nn else 3) % 5", ["n", "nn"])
    assert names_in(text) == {"n", "nn"}
    assert eval(rename(text, {"n": "a", "nn": "n"}), {"a": 7, "n": 9, "max": max}) == 9 * -2 + 7 % 5
