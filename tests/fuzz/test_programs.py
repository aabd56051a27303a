"""Random programs: both paths of the interpreter, the script and compiled code agree.

TRANSECT_FUZZ_EXAMPLES=5000 runs more of them.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

from tests.fuzz.outcome import assert_agree, compiled, interpreted, outcome
from tests.fuzz.programs import Program, programs
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.script import parse, script
from transect.target import host_target
from transect.tir.interpret import Interpreter
from transect.tir.transform import lowering
from transect.tir.transform.make_packed_api import PREFIX
from transect.tir.verify import verify_module
from transect.transform import Context, Pipeline

EXAMPLES = int(os.environ.get("TRANSECT_FUZZ_EXAMPLES", "200"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
# Interpreting every stage is slower than one comparison, and finds the pass that is wrong.
STAGES = settings(FUZZ, max_examples=max(EXAMPLES // 4, 1))


@given(programs())
@FUZZ
def test_lockstep_agrees_with_order(program: Program) -> None:
    verify_module(program.module)
    want = outcome(interpreted(program.module, vectorize=False), program.arguments)
    got = outcome(interpreted(program.module), program.arguments)
    assert_agree(got, want, exact=True)


@given(programs())
@FUZZ
def test_script_round_trip(program: Program) -> None:
    text = script(program.module)
    mismatch = structural_mismatch(program.module, parse(text))
    assert mismatch is None, f"{mismatch}\n{text}"


@given(programs())
@STAGES
def test_every_stage_is_valid_and_means_the_same(program: Program) -> None:
    want = outcome(interpreted(program.module), program.arguments)

    def observe(name: str, module: IRModule) -> None:
        verify_module(module)
        if PREFIX + "main" in module:
            runner = Interpreter(module)
            got = outcome(
                lambda *args: runner.call_entry(PREFIX + "main", *args), program.arguments
            )
        else:
            got = outcome(interpreted(module), program.arguments)
        try:
            assert_agree(got, want, inexact=program.inexact)
        except AssertionError as error:
            error.add_note(f"after {name}:\n{script(module)}")
            raise

    target = host_target()
    Pipeline(*lowering(target))(program.module, Context(target=target, observe=observe))


@given(programs())
@FUZZ
def test_compiled_agrees_with_interpreted(program: Program) -> None:
    want = outcome(interpreted(program.module), program.arguments)
    got = outcome(compiled(program.module), program.arguments)
    assert_agree(got, want, inexact=program.inexact)
