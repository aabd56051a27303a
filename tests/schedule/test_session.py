"""What is not an edit: functions of a module, references, names for handles, choices, copies."""

import inspect
from collections import Counter

import numpy as np
import pytest

from tests.fuzz.outcome import assert_agree, compiled, interpreted, outcome
from tests.schedule.examples import loop, ring, two_functions
from tests.schedule.programs import blur, chain, check, expect, matmul
from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.plan import Cost, Option, Planner, RandomPolicy, Site
from transect.script import tir as T
from transect.support.errors import InputError, InputTypeError, ScheduleError, TransectError
from transect.tir.schedule import INLINE_LOOP, ROOT_LOOP, Schedule
from transect.tir.stmt import Block, For
from transect.tir.verify import verify_module

N, M = Var("n"), Var("m")


def refusal(edit: object, func: object = None) -> str:
    s = Schedule(func or chain(4, 4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TransectError) as caught:
        edit(s)  # pyright: ignore[reportCallIssue]
    return str(caught.value)


# --- functions ------------------------------------------------------------------------------


def test_work_on_another_function() -> None:
    s = Schedule(two_functions())
    first = loop(s, "c")
    s.work_on("second")
    assert s.func_working_on == "second"
    s.parallel(loop(s, "c"))
    s.unroll(first)
    module = s.mod
    assert "T.unroll(4)" in repr(module["main"])
    assert "T.parallel(8)" in repr(module["second"])


def test_a_block_of_another_function() -> None:
    s = Schedule(two_functions())
    s.parallel(s.get_loops(s.get_block("c", "second"))[0])
    assert s.func is s.source
    assert "T.parallel(8)" in repr(s.mod["second"])


def test_the_only_function_needs_no_name() -> None:
    assert Schedule(IRModule.of(other=chain(4, 4))).func_working_on == "other"


def test_refuse_functions_that_are_not_there() -> None:
    with pytest.raises(InputTypeError, match="'third' is no tensor program of the module"):
        Schedule(two_functions()).work_on("third")
    with pytest.raises(InputTypeError, match="one of: main, second"):
        Schedule(two_functions(), "third")


def test_refuse_handles_of_two_functions() -> None:
    s = Schedule(two_functions())
    with pytest.raises(ScheduleError, match="of different functions: main, second"):
        s.compute_at("b", s.get_loops(s.get_block("c", "second"))[0])


# --- handles --------------------------------------------------------------------------------


def test_get_sref_tells_where_something_stands() -> None:
    s = Schedule(chain(4, 6))
    where = s.get_sref("c")
    assert isinstance(where.stmt, Block)
    assert isinstance(where.parent and where.parent.stmt, For)
    assert s.get(where) is where.stmt
    names: list[str] = []
    while where is not None:
        names.append(where.stmt.var.name if isinstance(where.stmt, For) else where.stmt.name)
        where = where.parent
    assert names == ["c", "i1", "i0", "root"]
    assert s.get_sref(s.get(loop(s, "c"))).stmt is s.get(loop(s, "c"))
    assert s.get_sref(loop(s, "b")).func_name == "main"


def test_get_sref_of_what_is_not_there() -> None:
    old = chain(4, 6)
    assert "is not in the program as it is now" in refusal(
        lambda s: s.get_sref(Schedule(old).get_sref("c").stmt)
    )


def test_get_of_a_number_is_the_number() -> None:
    assert Schedule(chain(4, 4)).get(4) == 4


def test_remove_rv() -> None:
    s = Schedule(chain(4, 4))
    block = s.get_block("c")
    s.remove_rv(block)
    with pytest.raises(ScheduleError, match="was given up by remove_rv"):
        s.compute_inline(block)
    assert s.get_block("c") is not block


def test_copies_are_independent_and_share_handles() -> None:
    s = Schedule(two_functions())
    block = s.get_block("c")
    twin = s.copy()
    twin.unroll(twin.get_loops(block)[1])
    assert s.func is s.source
    assert twin.func is not s.func
    assert twin.get(block).name == "c"
    assert len(s.trace.instructions) == 1


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    s = Schedule(chain(4, 4))
    s.unroll(loop(s, "c", 1))
    s.show()
    shown = capsys.readouterr().out
    assert "T.unroll(4)" in shown
    assert "sch.unroll(l1)" in shown


def test_names_for_blocks_and_buffers() -> None:
    def edit(s: Schedule) -> None:
        s.cache_read("c", "b", "shared")
        s.cache_write("c", s.get(s.get_block("c")).writes[0].buffer, "local")
        s.annotate("c", "hint", 1)
        s.set_scope("b", "b", "local")

    check(lambda: chain(N, M), edit, {"n": 3, "m": 5})


def test_size_by_name() -> None:
    s = Schedule(chain(N, M))
    assert s.size("n") is N
    with pytest.raises(InputError, match="has no size 'k'"):
        s.size("k")


# --- postprocessing -------------------------------------------------------------------------


def test_what_follows_enter_postproc_can_be_left_out() -> None:
    s, again = Schedule(chain(8, 4)), Schedule(chain(8, 4))
    s.split(loop(s, "c"), [None, 4])
    s.enter_postproc()
    s.unroll(loop(s, "c", 1))
    text = s.trace.as_python(remove_postproc=True)
    assert "unroll" not in text
    assert "enter_postproc" not in text
    again.replay(s.trace.without_postproc())
    assert str(again.trace) == text


# --- choices --------------------------------------------------------------------------------


def test_a_decision_is_taken_without_asking() -> None:
    def decide(_: Site) -> Option:
        raise AssertionError

    s = Schedule(chain(12, 4), decide=decide)
    assert s.sample_categorical([2, 4, 8], [0.5, 0.25, 0.25], 2) == 8
    assert s.sample_perfect_tile(loop(s, "c"), 2, 16, [3, 4]) == (3, 4)
    assert s.get(s.sample_compute_location("b", 0)).var.name == "i0"
    assert s.sample_compute_location("b", -2) is INLINE_LOOP
    assert s.sample_compute_location("b", -1) is ROOT_LOOP
    assert list(s.trace.answers.values()) == ["8", "3x4", "0", "inline", "root"]


def test_probabilities_weigh_random_draws() -> None:
    drawn = Counter(
        Schedule(chain(4, 4), decide=Planner(RandomPolicy(seed)).choose).sample_categorical(
            [1, 2, 3], [0.05, 0.95, 0.0]
        )
        for seed in range(200)
    )
    assert set(drawn) == {1, 2}
    assert drawn[2] > 150


def test_without_costs_the_likeliest_is_taken() -> None:
    s = Schedule(chain(4, 4))
    assert s.sample_categorical([1, 2, 3], [0.2, 0.7, 0.1]) == 2
    slow = [Cost(launches=n) for n in (3, 2, 1)]
    assert s.sample_categorical([1, 2, 3], [0.2, 0.7, 0.1], costs=slow) == 3


def test_an_inlined_location() -> None:
    s = Schedule(chain(4, 4))
    s.compute_at("b", s.sample_compute_location("b", -2))
    assert "alloc_buffer" not in repr(s.func)
    assert "sch.compute_inline(b0)" in str(s.trace)
    before = s.func
    s.compute_at("c", s.sample_compute_location("c", -1))
    assert s.func is before


def test_locations_are_those_that_are_legal() -> None:
    seen: list[Site] = []

    def decide(site: Site) -> Option:
        seen.append(site)
        return site.options[-1]

    s = Schedule(chain(4, 4), decide=decide)
    s.reverse_compute_at("c", s.sample_compute_location("c"))
    assert [option.name for option in seen[0].options] == ["root", "0", "1"]
    assert len(s.get_loops("b")) == 2
    assert len(s.get_child_blocks(loop(s, "b", 1))) == 2


# --- facts ----------------------------------------------------------------------------------


@T.prim_func
def halves(a: T.Buffer((4, 6), "float32"), c: T.Buffer((4, 6), "float32")):
    b = T.alloc_buffer((4, 6), "float16")
    for i0, i1 in T.grid(4, 6):
        with T.block("b"):
            vi, vj = T.axis.remap("SS", [i0, i1])
            b[vi, vj] = T.Cast("float16", a[vi, vj] * 2.0)
    for i0_1, i1_1 in T.grid(4, 6):
        with T.block("c"):
            vi, vj = T.axis.remap("SS", [i0_1, i1_1])
            c[vi, vj] = T.Cast("float32", b[vi, vj]) + 1.0


def test_unsafe_set_dtype() -> None:
    # The inputs are small integers, which float16 holds.
    s = check(lambda: chain(4, 6), lambda s: s.unsafe_set_dtype("b", 0, "float16"))
    expect(s.func, halves)


@T.prim_func
def wider(a: T.Buffer((7,), "float32"), c: T.Buffer((6,), "float32")):
    b = T.alloc_buffer((7,), "float32")
    for i0 in range(7):
        with T.block("b"):
            vi = T.axis.remap("S", [i0])
            b[vi] = a[vi] * 2.0
    for i0_1 in range(6):
        with T.block("c"):
            vi = T.axis.remap("S", [i0_1])
            T.reads(b[vi - 1 : vi + 3])
            T.writes(c[vi])
            T.block_attr({"explicit_read_region": (0,)})
            c[vi] = b[vi] + b[vi + 1]


def test_annotate_buffer_access() -> None:
    s = check(
        lambda: blur(6),
        lambda s: s.annotate_buffer_access("c", "b", "read", lambda vi: ((vi - 1, vi + 3),)),
    )
    expect(s.func, wider)


def test_unsafe_hide_buffer_access() -> None:
    def edit(s: Schedule) -> None:
        s.unsafe_hide_buffer_access("z", "read", [1])
        assert [region.buffer.name for region in s.get(s.get_block("z")).reads] == ["y"]
        s.split(loop(s, "z"), [None, 2])
        s.cache_write("z", 0, "local")
        assert [region.buffer.name for region in s.get(s.get_block("z")).reads] == ["y"]

    verify_module(check(lambda: matmul(4, 6, 5, bias=True), edit).mod)


# --- options that follow TVM ----------------------------------------------------------------


def test_unit_loops_are_kept_or_not() -> None:
    kept = check(lambda: chain(4, 6), lambda s: s.split(loop(s, "c"), [1, None]))
    assert "i0_0 * 4" in repr(kept.func)
    left_out = check(lambda: chain(4, 6), lambda s: s.split(loop(s, "c"), [1, None], False))
    assert "i0_0 * 4" not in repr(left_out.func)


def test_a_split_without_predicate_asserts_what_it_needs() -> None:
    def edit(s: Schedule) -> None:
        s.split(loop(s, "c"), [None, 4], disable_predication=True)

    schedule = check(lambda: chain(N, M), edit, {"n": 8, "m": 3}, {"n": 0, "m": 1})
    assert "T.where" not in repr(schedule.func)
    with pytest.raises(ValueError, match="a loop was split without a predicate"):
        check(lambda: chain(N, M), edit, {"n": 7, "m": 3})
    assert "assert" not in repr(check(lambda: chain(8, 2), edit).func)


def test_what_partitions_leave_over_is_one_more() -> None:
    def edit(s: Schedule) -> None:
        parts = s.loop_partition(loop(s, "c"), [2, 4])
        assert [int(s.get(part).extent.value) for part in parts] == [2, 4, 3]

    check(lambda: chain(9, 3), edit)


def test_merge_of_inner_loops_and_of_three() -> None:
    def inner(s: Schedule) -> None:
        merged = s.merge(loop(s, "b", 1), loop(s, "c", 1))
        assert s.get_loops("c")[1] is merged
        assert len(s.get_child_blocks(merged)) == 2

    check(lambda: chain(N, M), inner, {"n": 3, "m": 4})

    def three(s: Schedule) -> None:
        s.cache_write("c", 0, "local")
        s.merge(*(loop(s, name) for name in ("b", "c", "c_local")))
        assert len(s.get_child_blocks(loop(s, "c"))) == 3

    check(lambda: chain(12, 3), three)


def test_where_in_the_body_a_block_goes() -> None:
    def edit(s: Schedule) -> None:
        s.cache_read("c", 0, "local")
        s.cache_read("c", 0, "shared")
        s.compute_at("b_local_shared", loop(s, "c"))
        s.compute_at("b_local", loop(s, "c"), index=0)
        inside = [s.get(b).name for b in s.get_child_blocks(loop(s, "c"))]
        assert inside == ["b_local", "b_local_shared", "c"]

    check(lambda: chain(4, 6), edit)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.sample_categorical([]), "there are no candidates"),
        (lambda s: s.sample_categorical([1, 2], [1.0]), "are no probabilities of"),
        (lambda s: s.sample_categorical([1, 2], None, 2), "there is no candidate 2"),
        (lambda s: s.sample_perfect_tile(loop(s, "c"), 2, 2, [1, 4]), "(1, 4) is no tile of it"),
        (lambda s: s.sample_perfect_tile(loop(s, "c"), 1, 2), "one extent of at most 2"),
        (lambda s: s.sample_compute_location("b", 7), "7 is none of its locations"),
        (lambda s: s.get_loops(ROOT_LOOP), "is no loop but the answer of sample_compute_location"),
        (lambda s: s.compute_at("b", loop(s, "c"), index=3), "at position 3 it would come before"),
        (
            lambda s: s.reverse_compute_at("c", loop(s, "b"), index=0),
            "at position 0 it would come before what it needs",
        ),
        (
            lambda s: s.split(loop(s, "c"), [None, 3], disable_predication=True),
            "do not divide its extent 4",
        ),
        (lambda s: s.merge(loop(s, "b"), loop(s, "c", 1)), "not as deep in its nest"),
        (lambda s: s.merge(loop(s, "b")), "it is the only one"),
        (lambda s: s.unsafe_set_dtype("c", 0, "float16"), "'c' is a parameter"),
        (lambda s: s.unsafe_set_dtype("b", 0, "floaty"), "unsafe_set_dtype: block 'b'"),
        (
            lambda s: s.annotate_buffer_access("c", 0, "read", lambda i, j: [(i, i + 1)]),
            "2 ends for the 2 dimensions",
        ),
        (
            lambda s: s.annotate_buffer_access(
                "c", 0, "read", lambda i, j: [(i + 1, i + 2), (j, j + 1)]
            ),
            "it may touch more of 'b'",
        ),
        (
            lambda s: s.annotate_buffer_access("c", 1, "write", lambda i, j: [i, i, j, j]),
            "it has no write 1",
        ),
        (lambda s: s.unsafe_hide_buffer_access("c", "read", [3]), "it has no read 3"),
        (lambda s: s.unsafe_hide_buffer_access("c", "both", [0]), "'both' is no kind of access"),
        (
            lambda s: (
                s.unsafe_hide_buffer_access("c", "read", [0]),
                s.unsafe_hide_buffer_access("c", "write", [0]),
            ),
            "nothing that it declares would be left",
        ),
        (lambda s: s.fuse(loop(s, "c"), s.get_block("b")), "a loop is needed"),
        (lambda s: s.add_unit_loop("root"), "add_unit_loop: block 'root'"),
    ],
)
def test_refusals(edit: object, message: str) -> None:
    assert message in refusal(edit)


def test_hidden_and_stated_regions_do_not_move_allocations() -> None:
    """What a block hides is not shrunk away, and what it overstates is not taken as written."""

    def hidden(s: Schedule) -> None:
        s.compute_at("b", loop(s, "c"))
        s.unsafe_hide_buffer_access("c", "read", [0])
        s.annotate("c", "more", 1)

    def overstated(s: Schedule) -> None:
        ring(s)
        s.annotate_buffer_access("b", 0, "write", lambda vi: [(vi % 2 - 2, vi % 2 + 2)])

    for edit in (hidden, overstated):
        s = check(lambda: blur(6), edit)
        before = [np.arange(7, dtype=np.float32), np.zeros(6, np.float32)]
        want = outcome(interpreted(IRModule.of(main=s.source)), before)
        main = s.func.with_attrs(global_symbol="main")
        assert_agree(outcome(compiled(IRModule.of(main=main)), before), want)


SIGNATURES = {
    "get_block": "name func_name",
    "get_loops": "block",
    "get_child_blocks": "block_or_loop",
    "get_output_blocks": "scope_block",
    "split": "loop factors preserve_unit_iters disable_predication",
    "loop_partition": "loop factors preserve_unit_iters",
    "add_unit_loop": "block_or_loop",
    "bind": "loop thread_axis",
    "cache_read": "block read_buffer_index storage_scope consumer_blocks",
    "cache_write": "block write_buffer_index storage_scope consumer_blocks",
    "cache_inplace": "block read_buffer_index storage_scope",
    "cache_index": "block storage_scope cse_thresh",
    "read_at": "loop block read_buffer_index storage_scope",
    "write_at": "loop block write_buffer_index storage_scope",
    "rolling_buffer": "block write_buffer_index",
    "compute_at": "block loop preserve_unit_loops index",
    "reverse_compute_at": "block loop preserve_unit_loops index",
    "decompose_reduction": "block loop",
    "rfactor": "loop factor_axis",
    "storage_align": "block buffer_index axis factor offset",
    "set_scope": "block buffer_index storage_scope",
    "unsafe_set_dtype": "block buffer_index dtype",
    "annotate": "block_or_loop ann_key ann_val",
    "unannotate": "block_or_loop ann_key",
    "annotate_buffer_access": "block buffer_index buf_type gen_new_ranges",
    "unsafe_hide_buffer_access": "block buf_type buf_index_array",
    "sample_categorical": "candidates probs decision",
    "sample_perfect_tile": "loop n max_innermost_factor decision",
    "sample_compute_location": "block decision",
    "work_on": "func_name",
    "remove_rv": "rand_var",
}
"""The arguments of TVM's Schedule, in order."""


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_stand_in_the_order_of_tvm(name: str) -> None:
    taken = inspect.signature(getattr(Schedule, name)).parameters.values()
    in_order = [p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    assert in_order == SIGNATURES[name].split()
