"""The seed program prints and parses back at every stage of a compile."""

import numpy as np

from tests.script.test_program import MyIRModule
from transect.driver.pipeline import pipeline
from transect.ir.function import IRModule
from transect.ir.structural import structural_hash, structural_mismatch
from transect.script import parse, script
from transect.transform.base import Context


def test_every_stage_makes_the_round_trip() -> None:
    stages: list[str] = []

    def check(name: str, module: IRModule) -> None:
        constants: dict[str, np.ndarray] = {}
        text = script(module, constants=constants)
        again = parse(text, constants=constants, file=f"{name}.py")
        assert structural_mismatch(module, again) is None, f"{name}\n{text}"
        assert structural_hash(module) == structural_hash(again)
        assert script(again) == text
        stages.append(name)

    context = Context(observe=check)
    pipeline(context, "relax_func")(MyIRModule, context)
    assert len(stages) > 10
