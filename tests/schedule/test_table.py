"""Over every primitive of the table: traces replay, serialise and print; handles go stale."""

import inspect
import json

import pytest

from tests.schedule.examples import EXAMPLES
from tests.schedule.programs import chain
from transect.ir.structural import structural_mismatch
from transect.support.errors import ScheduleError
from transect.tir.schedule import BlockRV, LoopRV, Primitive, Schedule
from transect.tir.schedule.table import PRIMITIVES, find_primitive

NAMES = sorted(PRIMITIVES)


def scheduled(name: str) -> tuple[Schedule, Schedule]:
    """The example's schedule, and a new one of the same program."""
    make, edit = EXAMPLES[name]
    program = make()
    # A name alone: instructions are not asked whether this machine has them.
    done = Schedule(program, target="any")
    edit(done)
    return done, Schedule(program, target="any")


def test_every_primitive_has_an_example() -> None:
    assert set(EXAMPLES) == set(PRIMITIVES), "add a use of it to tests/schedule/examples.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_example_uses_it(name: str) -> None:
    done, _ = scheduled(name)
    used = [step.primitive.name for step in done.trace.instructions if step.primitive is not None]
    assert name in used


@pytest.mark.parametrize("name", NAMES)
def test_replay(name: str) -> None:
    done, again = scheduled(name)
    again.replay(done.trace)
    assert structural_mismatch(done.mod, again.mod) is None
    assert again.trace == done.trace
    assert again.function == done.function


@pytest.mark.parametrize("name", NAMES)
def test_json_both_ways(name: str) -> None:
    done, again = scheduled(name)
    text = done.trace.to_json()
    assert json.loads(text)
    again.replay(again.load_trace(text))
    assert structural_mismatch(done.mod, again.mod) is None
    assert again.trace.to_json() == text


@pytest.mark.parametrize("name", NAMES)
def test_printed_trace_is_python_that_runs(name: str) -> None:
    done, again = scheduled(name)
    text = str(done.trace)
    exec(text, {"sch": again})
    assert structural_mismatch(done.mod, again.mod) is None, text
    assert str(again.trace) == text
    assert again.trace.answers == done.trace.answers


@pytest.mark.parametrize("name", NAMES)
def test_the_method_takes_the_options_by_name(name: str) -> None:
    options = inspect.signature(find_primitive(name)).parameters
    taken = inspect.signature(getattr(Schedule, name)).parameters
    assert set(options) - {"block"} <= set(taken)
    assert issubclass(find_primitive(name), Primitive)


LOOKS = {name for name in PRIMITIVES if name.startswith("get_")} | {"work_on", "enter_postproc"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - LOOKS))
def test_its_docstring_shows_before_and_after(name: str) -> None:
    assert "->" in (inspect.getdoc(find_primitive(name)) or "")


@pytest.mark.parametrize("name", NAMES)
def test_handles_of_what_is_gone(name: str) -> None:
    """Every primitive that takes a handle refuses one whose block or loop is gone, one that was
    given up, and one of another schedule; and changes nothing."""
    done, _ = scheduled(name)
    step = next(s for s in done.trace.instructions if s.primitive and s.primitive.name == name)
    if not step.inputs or step.primitive is None:
        pytest.skip("takes no handle")
    s, other = Schedule(chain(4, 4)), Schedule(chain(4, 4))
    block, given_up = s.get_block("b"), s.get_block("c")
    outer = s.get_loops(block)[0]
    loop = s.get_loops(given_up)[0]
    s.split(outer, [2, 2])
    s.compute_inline(block)
    s.remove_rv(given_up)
    s.remove_rv(loop)
    foreign: list[tuple[BlockRV | LoopRV, str]] = [
        (block, "is no longer in the program"),
        (outer, "is no longer in the program"),
        (given_up, "was given up by remove_rv"),
        (loop, "was given up by remove_rv"),
        (other.get_block("b"), "is of another schedule"),
    ]
    func, trace = s.func, s.trace
    for handle, message in foreign:
        with pytest.raises(ScheduleError, match=message):
            s.apply(step.primitive, *[handle for _ in step.inputs])
    assert s.func is func
    assert s.trace is trace
