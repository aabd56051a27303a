"""ConvertToDataflow: runs of pure bindings, joined; effects and branches stay outside."""

from __future__ import annotations

from transect.ir.structural import structural_mismatch
from transect.relax.transform.convert_to_dataflow import ConvertToDataflow
from transect.relax.verify import verify_module
from transect.script import from_source

BEFORE = """
@I.ir_module
class Module:
    @R.function(pure=False)
    def main(x: R.Tensor((3,), "float32"), c: R.Tensor((), "bool")) -> R.Tensor((3,), "float32"):
        with R.dataflow():
            a = R.exp(x)
            R.output(a)
        b = R.add(a, a)
        p = R.print(b, format="")
        if c:
            d = R.exp(b)
            e = R.add(d, d)
            r = e
        else:
            r = R.exp(b)
        return r
"""
EXPECTED = """
@I.ir_module
class Module:
    @R.function(pure=False)
    def main(x: R.Tensor((3,), "float32"), c: R.Tensor((), "bool")) -> R.Tensor((3,), "float32"):
        with R.dataflow():
            a = R.exp(x)
            b = R.add(a, a)
            R.output(b)
        p = R.print(b, format="")
        if c:
            with R.dataflow():
                d = R.exp(b)
                e = R.add(d, d)
                R.output(e)
            r = e
        else:
            r = R.exp(b)
        return r
"""


def test_runs_are_joined_in_bodies_and_branches():
    module = from_source(BEFORE)
    after = ConvertToDataflow()(module)
    verify_module(after)
    assert structural_mismatch(after, from_source(EXPECTED)) is None
    assert ConvertToDataflow()(after)["main"] is after["main"]
