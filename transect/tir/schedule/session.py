"""Session: a schedule without its primitives: functions, handles, the trace and its replay.

The methods that apply primitives, and choices, are in `schedule`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from transect.ir.expr import Var
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.structural import structural_hash
from transect.plan import Option, Planner, Site
from transect.support import flags
from transect.support.errors import InputError, InputTypeError, ScheduleError
from transect.target import Target
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.schedule.check import check_edit
from transect.tir.schedule.decide import Decision
from transect.tir.schedule.edit import Edit, Primitive
from transect.tir.schedule.look import GetBlock
from transect.tir.schedule.marks import WorkOn
from transect.tir.schedule.table import PRIMITIVES, find_primitive
from transect.tir.schedule.trace import Instruction, Trace, option_vars
from transect.tir.schedule.tree import Tree
from transect.tir.stmt import Block, For, Stmt


@dataclass(frozen=True, eq=False)
class BlockRV:
    """A handle of a block: it stays valid while the program around it changes."""

    name: str


@dataclass(frozen=True, eq=False)
class LoopRV:
    """A handle of a loop: it stays valid while the program around it changes."""

    name: str


@dataclass(frozen=True, eq=False)
class StmtSRef:
    """Where a block or loop stands in the program as it was when it was asked for.

    stmt: the Block or For. parent: the reference of the block or loop around it, None for the
    root block. func_name: of the function it is in. It does not follow later edits; handles do.
    """

    stmt: Block | For
    parent: StmtSRef | None
    func_name: str


Handle = BlockRV | LoopRV
HandleT = TypeVar("HandleT", BlockRV, LoopRV)
Place = Handle | str
"""A handle, or the name of a block."""
Decide = Callable[[Site], Option]
"""Who answers the choices: `Planner.choose` of a compile, or any function."""

ROOT_LOOP = LoopRV("root")
"""What sample_compute_location returns for a block that stays where it is."""
INLINE_LOOP = LoopRV("inline")
"""What sample_compute_location returns for a block to be inlined."""


class Session:
    """Functions being edited, without the primitives: see `Schedule` for the arguments.

    Whoever changes how programs, handles or traces are kept works here; a new primitive needs
    only a class in the file of its family, and its method in `Schedule`.
    """

    def __init__(
        self,
        program: PrimFunc | IRModule,
        function: str | None = None,
        *,
        decide: Decide | None = None,
        subject: str | None = None,
        target: Target | str | None = None,
    ) -> None:
        self.module: IRModule | None = program if isinstance(program, IRModule) else None
        self._now: dict[str, PrimFunc] = {}
        self._start: dict[str, PrimFunc] = {}
        if isinstance(program, IRModule):
            self.function = function or only_function(program)
            self._take(self.function)
        else:
            self.function = function or "main"
            if not isinstance(program, PrimFunc):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputTypeError(
                    f"{type(program).__name__} is no tensor program", remedy="schedule a PrimFunc"
                )
            self._now[self.function] = self._start[self.function] = program
        planner = Planner()
        self.decide: Decide = decide or planner.choose
        self._subject = subject
        self.machine: Target | None = target if isinstance(target, Target) else None
        if target is None:
            self.machine = planner.target
        self._target = str(target if target is not None else planner.target)
        self.trace: Trace = Trace()
        self._nodes: dict[Handle, Stmt | None] = {}
        self._homes: dict[Handle, str] = {}
        self._removed: set[Handle] = set()
        self.candidates: dict[Var, tuple[int, ...]] = {}

    @property
    def func(self) -> PrimFunc:
        """The function that is worked on, as it is now."""
        return self._now[self.function]

    @property
    def source(self) -> PrimFunc:
        """The function that is worked on, as it was given."""
        return self._start[self.function]

    @property
    def func_working_on(self) -> str:
        """The name of the function that is worked on."""
        return self.function

    @property
    def mod(self) -> IRModule:
        """The module with its functions as they are now."""
        made = self.module if self.module is not None else IRModule.of(**self._now)
        for name, func in self._now.items():
            made = made.with_function(name, func)
        return made

    @property
    def subject(self) -> str:
        """What the choices are about, in site keys."""
        if self._subject is None:
            self._subject = subject_of(self.source)
        return self._subject

    def copy(self) -> Self:
        """An independent schedule in the same state; handles of one are valid in the other."""
        twin = type(self)(self.func, self.function, decide=self.decide, target=self._target)
        twin.module, twin._subject = self.module, self._subject
        twin._now, twin._start = dict(self._now), dict(self._start)
        twin.machine = self.machine
        twin.trace, twin._nodes = self.trace, dict(self._nodes)
        twin._homes, twin._removed = dict(self._homes), set(self._removed)
        twin.candidates = dict(self.candidates)
        return twin

    def work_on(self, func_name: str) -> None:
        """Go on with another function of the module. See `marks.WorkOn`.

        Raises InputError if the module has no tensor program of that name.
        """
        self._apply("work_on", func_name=func_name)

    def enter_postproc(self) -> None:
        """Mark in the trace that what follows is postprocessing. See `marks.EnterPostproc`."""
        self._apply("enter_postproc")

    def show(self) -> None:
        """Write the module and the trace to standard output, as Python."""
        sys.stdout.write(f"{self.mod!r}\n\n# the schedule\n{self.trace}\n")

    def size(self, name: str) -> Var:
        """The symbolic size of a name that the functions have, for factors such as n // 8, or the
        decision of that name.

        Raises InputError if there is none.
        """
        known = {var.name: var for var in self._sizes()}
        if name not in known:
            raise InputError(
                f"the function has no size {name!r}", remedy=f"it has: {', '.join(known) or 'none'}"
            )
        return known[name]

    def _sizes(self) -> tuple[Var, ...]:
        known = (
            var for func in self._start.values() for var in (*symbolic_vars(func), *func.params)
        )
        return (*known, *self.candidates)

    def _take(self, name: str) -> None:
        """Make a function of the module one that can be scheduled."""
        if name in self._now:
            return
        found = self.module[name] if self.module is not None and name in self.module else None
        if not isinstance(found, PrimFunc):
            known = () if self.module is None else self.module.functions.items()
            names = ", ".join(key for key, item in known if isinstance(item, PrimFunc))
            raise InputTypeError(
                f"{name!r} is no tensor program of the module", remedy=f"one of: {names or 'none'}"
            )
        self._now[name] = self._start[name] = found

    # --- handles ----------------------------------------------------------------------------

    def get(self, handle: Handle | StmtSRef | int) -> Any:
        """The block or loop of a handle as it is now; of a reference as it was; a number itself.

        Raises ScheduleError for a handle of what is gone, or that is not of this schedule.
        """
        if isinstance(handle, int):
            return handle
        if isinstance(handle, StmtSRef):
            return handle.stmt
        if handle in (ROOT_LOOP, INLINE_LOOP):
            raise ScheduleError(
                f"handle {handle.name!r} is no loop but the answer of sample_compute_location that "
                "the block does not move under one",
                remedy="hand it to compute_at or reverse_compute_at",
            )
        if handle in self._removed:
            raise ScheduleError(
                f"handle {handle.name!r} was given up by remove_rv",
                remedy="ask for the block or loop again",
            )
        if handle not in self._nodes:
            raise ScheduleError(
                f"handle {handle.name!r} is of another schedule",
                remedy="use handles that this schedule returned",
            )
        found = self._nodes[handle]
        if found is None:
            raise ScheduleError(
                f"what handle {handle.name!r} named is no longer in the program",
                remedy="use the handles that the primitive which removed it returned",
            )
        return found

    def get_sref(self, target: Place | Block | For) -> StmtSRef:
        """Where a block or loop stands now: its statement, and those around it.

        target: a handle, the name of a block, or a statement of one of the functions.
        """
        if isinstance(target, Block | For):
            homes = [name for name, func in self._now.items() if target in Tree(func)]
            if not homes:
                raise ScheduleError(
                    "the statement is not in the program as it is now",
                    remedy="use sch.get(handle), which follows edits",
                )
            node, home = target, homes[0]
        else:
            handle = self._place(target)
            node, home = self.get(handle), self._homes[handle]
        around = [
            item for item in Tree(self._now[home]).ancestors(node) if isinstance(item, Block | For)
        ]
        made: StmtSRef | None = None
        for item in reversed(around):
            made = StmtSRef(item, made, home)
        return StmtSRef(node, made, home)

    def remove_rv(self, rand_var: Handle) -> None:
        """Give up a handle; using it afterwards is an error."""
        self.get(rand_var)
        del self._nodes[rand_var], self._homes[rand_var]
        self._removed.add(rand_var)

    def _place(self, target: Place) -> Handle:
        return self.get_block(target) if isinstance(target, str) else target

    def _position(
        self, block: Handle, buffer: int | str | Buffer, kind: Literal["read", "write"]
    ) -> int:
        """The position of a buffer among what a block reads or writes."""
        if isinstance(buffer, int):
            return buffer
        node = self.get(block)
        if not isinstance(node, Block):
            raise ScheduleError(f"handle {block.name!r} is no block", span=node.span)
        regions = node.reads if kind == "read" else node.writes
        for number, region in enumerate(regions):
            if region.buffer is buffer or region.buffer.name == buffer:
                return number
        known = ", ".join(region.buffer.name for region in regions) or "nothing"
        name = buffer if isinstance(buffer, str) else buffer.name
        raise ScheduleError(
            f"block {node.name!r} does not {kind} a buffer {name!r}",
            span=node.span,
            remedy=f"it does {kind} {known}",
        )

    def _handle(self, stmt: Stmt, home: str) -> Handle:
        for handle, node in self._nodes.items():
            if node is stmt:
                return handle
        kind = BlockRV if isinstance(stmt, Block) else LoopRV
        letter = "b" if kind is BlockRV else "l"
        count = sum(item.name[0] == letter for item in (*self._nodes, *self._removed))
        handle = kind(f"{letter}{count}")
        self._nodes[handle] = stmt
        self._homes[handle] = home
        return handle

    def apply(
        self, primitive: Primitive, *targets: Handle, site: str = "", answer: str = ""
    ) -> Any:
        """Apply any primitive, a user's own included; handles of its results.

        site, answer: of a choice, as in the trace. Raises ScheduleError if it does not apply; the
        schedule is unchanged then.
        """
        nodes = [self.get(handle) for handle in targets]
        home = self._home(primitive, targets)
        made: Edit = primitive.apply(self._now[home], *nodes)
        if flags.check() and made.func is not self._now[home]:
            check_edit(primitive.name, self._now[home], made, option_vars(primitive))
        if isinstance(primitive, WorkOn):
            self.function = home
        if isinstance(primitive, Decision):
            self.candidates[primitive.var] = primitive.candidates
        self._now[home] = made.func
        for handle, node in self._nodes.items():
            if node is not None and node in made.forward:
                self._nodes[handle] = made.forward[node]
        results = [self._handle(stmt, home) for stmt in made.results]
        inputs = tuple(handle.name for handle in targets)
        outputs = tuple(item.name for item in results)
        self.trace += Instruction(primitive, inputs, outputs, site, answer)
        return results

    def _home(self, primitive: Primitive, targets: Sequence[Handle]) -> str:
        """The function that a primitive is about."""
        named = isinstance(primitive, GetBlock | WorkOn) and primitive.func_name
        if named:
            self._take(named)
            return named
        homes = list(dict.fromkeys(self._homes[handle] for handle in targets))
        if len(homes) > 1:
            raise ScheduleError(
                f"{primitive.name}: the handles are of different functions: {', '.join(homes)}",
                remedy="use handles of one function",
            )
        return homes[0] if homes else self.function

    def _apply(self, name: str, *targets: Handle, **options: Any) -> list[Any]:
        return self.apply(find_primitive(name)(**options), *targets)

    def replay(self, trace: Trace) -> None:
        """Apply the steps of a trace, recorded on an equal program."""
        named: dict[str, Handle] = {}
        for step in trace.instructions:
            if step.primitive is None:
                self.trace += step
                continue
            results = self.apply(
                step.primitive,
                *(named[name] for name in step.inputs),
                site=step.site,
                answer=step.answer,
            )
            named.update(zip(step.outputs, results, strict=True))

    def load_trace(self, text: str) -> Trace:
        """The trace of JSON text, its symbolic options in terms of this function's sizes."""
        classes = {name: find_primitive(name) for name in PRIMITIVES}
        return Trace.from_json(text, classes, self._sizes())

    def get_block(self, name: str, func_name: str | None = None) -> BlockRV:
        """The block of a name. See `look.GetBlock`."""
        return self._apply("get_block", block=name, func_name=func_name)[0]


def subject_of(func: PrimFunc) -> str:
    """What choices about a program are about, in site keys: the program, not its attributes."""
    return structural_hash(replace(func, attrs={}))


def only_function(module: IRModule) -> str:
    """The function to start with: "main", or the only tensor program."""
    found = [name for name, item in module.functions.items() if isinstance(item, PrimFunc)]
    return found[0] if len(found) == 1 else "main"
