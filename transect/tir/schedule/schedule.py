"""Schedule: a tensor program being rewritten, primitive by primitive, with handles and a trace.

Each method is one primitive; what it does and refuses stands on the primitive's class, in the
file of its family. Choices (`sample_*`) are sites of the plan. Names and the order of arguments
are those of TVM's Schedule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_options
from typing import Any, Literal, TypeVar

from transect.ir.expr import Expr, Var
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.structural import structural_hash
from transect.plan import Cost, Option, Planner, Site, SiteKey
from transect.support import flags
from transect.support.errors import InputError, InputTypeError, ScheduleError
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.index_map import IndexMap, index_map
from transect.tir.schedule.check import check_edit
from transect.tir.schedule.edit import Edit, Primitive, refuse
from transect.tir.schedule.look import GetBlock
from transect.tir.schedule.marks import WorkOn
from transect.tir.schedule.relayout import BufferName, MapLike, named_buffer, read_map
from transect.tir.schedule.sample import (
    INLINE,
    ROOT,
    SampleCategorical,
    SampleComputeLocation,
    SamplePerfectTile,
    weights,
)
from transect.tir.schedule.table import PRIMITIVES, find_primitive
from transect.tir.schedule.trace import Instruction, Trace
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


class Schedule:
    """A PrimFunc, edited by primitives that keep its meaning.

    program: a PrimFunc, or a module with the name of its function; by default "main", or the only
    PrimFunc of the module. decide: answers the choices; by default greedily by predicted cost for
    this machine. subject: what the choices are about in site keys; the structural hash of the
    program by default. target: the target's name in keys.

    `func` is the program as it is now, `trace` how it came to be so. Where a method takes a block,
    it also takes the name of one; where it takes a buffer of a block, its position among what the
    block reads or writes, its name, or the Buffer.
    """

    def __init__(
        self,
        program: PrimFunc | IRModule,
        function: str | None = None,
        *,
        decide: Decide | None = None,
        subject: str | None = None,
        target: str | None = None,
    ) -> None:
        self.module: IRModule | None = program if isinstance(program, IRModule) else None
        self._now: dict[str, PrimFunc] = {}
        self._start: dict[str, PrimFunc] = {}
        if isinstance(program, IRModule):
            self.function = function or _only_function(program)
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
        self._target = target if target is not None else str(planner.target)
        self.trace = Trace()
        self._nodes: dict[Handle, Stmt | None] = {}
        self._homes: dict[Handle, str] = {}
        self._removed: set[Handle] = set()

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

    def copy(self) -> Schedule:
        """An independent schedule in the same state; handles of one are valid in the other."""
        twin = Schedule(self.func, self.function, decide=self.decide, target=self._target)
        twin.module, twin._subject = self.module, self._subject
        twin._now, twin._start = dict(self._now), dict(self._start)
        twin.trace, twin._nodes = self.trace, dict(self._nodes)
        twin._homes, twin._removed = dict(self._homes), set(self._removed)
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
        """The symbolic size of a name that the functions have, for factors such as n // 8.

        Raises InputError if there is none.
        """
        known = {var.name: var for var in self._sizes()}
        if name not in known:
            raise InputError(
                f"the function has no size {name!r}", remedy=f"it has: {', '.join(known) or 'none'}"
            )
        return known[name]

    def _sizes(self) -> tuple[Var, ...]:
        return tuple(
            var for func in self._start.values() for var in (*symbolic_vars(func), *func.params)
        )

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
            check_edit(primitive.name, self._now[home], made)
        if isinstance(primitive, WorkOn):
            self.function = home
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

    # --- choices ----------------------------------------------------------------------------

    def sample(self, site: Site) -> Option:
        """The plan's answer to a choice."""
        option = self.decide(site)
        self.trace += Instruction(None, (), (), str(site.key), option.name)
        return option

    def site_key(self, kind: str, role: str) -> SiteKey:
        """The key of a choice about this program. role: which of its choices."""
        return SiteKey(kind, self.subject, self._target, role)

    def _role(self, role: str) -> str:
        """The role of a choice that was given none: its number."""
        return role or str(sum(bool(step.site) for step in self.trace.instructions))

    def _choose(
        self, kind: str, role: str, options: Sequence[Option], fixed: int | None
    ) -> tuple[int, str, str]:
        """Which option the plan takes, or `fixed`; with the site's key and the option's name."""
        site = Site(self.site_key(kind, role), tuple(options), label=role, span=self.func.span)
        if fixed is None:
            # The plan may answer with an equal option; its name tells which.
            names = [option.name for option in options]
            fixed = names.index(self.decide(site).name)
        return fixed, str(site.key), options[fixed].name

    def sample_categorical(
        self,
        candidates: Sequence[Any],
        probs: Sequence[float] | None = None,
        decision: int | None = None,
        *,
        role: str = "",
        costs: Sequence[Cost] = (),
    ) -> Any:
        """One of several values. See `sample.SampleCategorical`.

        costs: predictions for each, for policies that go by cost; without them the likeliest is
        preferred.
        """
        given = None if probs is None else tuple(probs)
        choice = SampleCategorical(tuple(candidates), given, decision, self._role(role))
        choice.apply(self.func)
        predicted = tuple(costs) or tuple(Cost() for _ in candidates)
        likely = weights(given, len(candidates))
        names = [str(value) for value in candidates]
        order = sorted(range(len(names)), key=lambda n: 0.0 if costs else -likely[n])
        options = [
            Option(
                names[n] if names.count(names[n]) == 1 else f"{names[n]}#{n}",
                {"value": candidates[n], **({} if given is None else {"probability": likely[n]})},
                predicted[n],
            )
            for n in order
        ]
        fixed = None if decision is None else order.index(decision)
        number, site, answer = self._choose("sample", choice.role, options, fixed)
        taken = order[number]
        self.apply(with_options(choice, decision=taken), site=site, answer=answer)
        return candidates[taken]

    def sample_perfect_tile(
        self,
        loop: LoopRV,
        n: int,
        max_innermost_factor: int = 16,
        decision: Sequence[int] | None = None,
        *,
        role: str = "",
    ) -> tuple[int, ...]:
        """Extents of `n` nested loops whose product is the extent of `loop`, a constant. See
        `sample.SamplePerfectTile`."""
        fixed = None if decision is None else tuple(decision)
        choice = SamplePerfectTile(n, max_innermost_factor, fixed, self._role(role))
        node = self.get(loop)
        choice.apply(self.func, node)
        tiles = choice.tiles(node)
        options = [Option("x".join(map(str, tile)), {"value": tile}) for tile in tiles]
        place = None if fixed is None else tiles.index(fixed)
        number, site, answer = self._choose("tile", choice.role, options, place)
        self.apply(with_options(choice, decision=tiles[number]), loop, site=site, answer=answer)
        return tiles[number]

    def sample_compute_location(
        self, block: Place, decision: int | None = None, *, role: str = ""
    ) -> LoopRV:
        """A loop where a block could be computed. See `sample.SampleComputeLocation`."""
        handle = self._place(block)
        choice = SampleComputeLocation(decision, self._role(role))
        node = self.get(handle)
        func = self._now[self._homes[handle]]
        if decision is not None:
            choice.apply(func, node)
        found = list(choice.locations(func, node))
        names = {INLINE: "inline", ROOT: "root"}
        options = [Option(names.get(item, str(item)), {"value": item}) for item in found]
        fixed = None if decision is None else found.index(decision)
        number, site, answer = self._choose("location", choice.role, options, fixed)
        taken = found[number]
        results = self.apply(with_options(choice, decision=taken), handle, site=site, answer=answer)
        return results[0] if results else INLINE_LOOP if taken == INLINE else ROOT_LOOP

    # --- primitives that look ---------------------------------------------------------------

    def get_block(self, name: str, func_name: str | None = None) -> BlockRV:
        """The block of a name. See `look.GetBlock`."""
        return self._apply("get_block", block=name, func_name=func_name)[0]

    def get_loops(self, block: Place) -> list[LoopRV]:
        """The loops around a block. See `look.GetLoops`."""
        return self._apply("get_loops", self._place(block))

    def get_child_blocks(self, block_or_loop: Place) -> list[BlockRV]:
        """The blocks inside. See `look.GetChildBlocks`."""
        return self._apply("get_child_blocks", self._place(block_or_loop))

    def get_producers(self, block: Place) -> list[BlockRV]:
        """The blocks whose results a block reads. See `look.GetProducers`."""
        return self._apply("get_producers", self._place(block))

    def get_consumers(self, block: Place) -> list[BlockRV]:
        """The blocks that read a block's result. See `look.GetConsumers`."""
        return self._apply("get_consumers", self._place(block))

    def get_output_blocks(self, scope_block: Place | None = None) -> list[BlockRV]:
        """The blocks that write what leaves a scope, by default the function. See
        `look.GetOutputBlocks`."""
        around = () if scope_block is None else (self._place(scope_block),)
        return self._apply("get_output_blocks", *around)

    # --- loops ------------------------------------------------------------------------------

    def split(
        self,
        loop: LoopRV,
        factors: Sequence[Expr | int | None],
        preserve_unit_iters: bool = True,
        disable_predication: bool = False,
    ) -> list[LoopRV]:
        """One loop as a nest of loops. See `loops.Split`."""
        return self._apply(
            "split",
            loop,
            factors=tuple(factors),
            preserve_unit_iters=preserve_unit_iters,
            disable_predication=disable_predication,
        )

    def fuse(self, *loops: LoopRV, preserve_unit_iters: bool = True) -> LoopRV:
        """A nest of loops as one. See `loops.Fuse`."""
        return self._apply("fuse", *loops, preserve_unit_iters=preserve_unit_iters)[0]

    def reorder(self, *ordered_loops: LoopRV) -> None:
        """The loops of a nest in another order. See `loops.Reorder`."""
        self._apply("reorder", *ordered_loops)

    def loop_partition(
        self,
        loop: LoopRV,
        factors: Sequence[Expr | int | None],
        preserve_unit_iters: bool = True,
    ) -> list[LoopRV]:
        """One loop as several over consecutive parts. See `loops.LoopPartition`."""
        return self._apply(
            "loop_partition", loop, factors=tuple(factors), preserve_unit_iters=preserve_unit_iters
        )

    def merge(self, *loops: LoopRV) -> LoopRV:
        """Neighbouring loops as one. See `loops.Merge`."""
        return self._apply("merge", *loops)[0]

    def add_unit_loop(self, block_or_loop: Place) -> LoopRV:
        """A loop of one iteration around a block or loop. See `loops.AddUnitLoop`."""
        return self._apply("add_unit_loop", self._place(block_or_loop))[0]

    def parallel(self, loop: LoopRV) -> None:
        """Run iterations on different cores. See `kinds.Parallel`."""
        self._apply("parallel", loop)

    def vectorize(self, loop: LoopRV) -> None:
        """Make iterations the lanes of vectors. See `kinds.Vectorize`."""
        self._apply("vectorize", loop)

    def unroll(self, loop: LoopRV) -> None:
        """Repeat the body in the code. See `kinds.Unroll`."""
        self._apply("unroll", loop)

    def bind(self, loop: LoopRV, thread_axis: str) -> None:
        """Run iterations on different threads. See `kinds.Bind`."""
        self._apply("bind", loop, thread_axis=thread_axis)

    # --- blocks -----------------------------------------------------------------------------

    def compute_inline(self, block: Place) -> None:
        """Compute a block's result where it is read. See `inline.ComputeInline`."""
        self._apply("compute_inline", self._place(block))

    def reverse_compute_inline(self, block: Place) -> None:
        """Do a block's work where its input is made. See `inline.ReverseComputeInline`."""
        self._apply("reverse_compute_inline", self._place(block))

    def cache_read(
        self,
        block: Place,
        read_buffer_index: int | str | Buffer,
        storage_scope: str,
        consumer_blocks: Sequence[Place] | None = None,
    ) -> BlockRV:
        """Read a copy of an input. See `cache.CacheRead`."""
        handle = self._place(block)
        readers = [self._place(item) for item in consumer_blocks or ()]
        index = self._position(handle, read_buffer_index, "read")
        return self._apply(
            "cache_read", handle, *readers, read_buffer_index=index, storage_scope=storage_scope
        )[0]

    def cache_write(
        self,
        block: Place,
        write_buffer_index: int | str | Buffer,
        storage_scope: str,
        consumer_blocks: Sequence[Place] | None = None,
    ) -> BlockRV:
        """Write to a buffer that is copied out afterwards. See `cache.CacheWrite`."""
        handle = self._place(block)
        readers = [self._place(item) for item in consumer_blocks or ()]
        index = self._position(handle, write_buffer_index, "write")
        return self._apply(
            "cache_write", handle, *readers, write_buffer_index=index, storage_scope=storage_scope
        )[0]

    def cache_inplace(
        self, block: Place, read_buffer_index: int | str | Buffer, storage_scope: str
    ) -> list[BlockRV]:
        """Update a copy of what a block updates. See `cache_more.CacheInplace`."""
        handle = self._place(block)
        index = self._position(handle, read_buffer_index, "read")
        return self._apply(
            "cache_inplace", handle, read_buffer_index=index, storage_scope=storage_scope
        )

    def cache_index(self, block: Place, storage_scope: str, cse_thresh: int = 0) -> list[BlockRV]:
        """Compute indices in advance. See `cache_more.CacheIndex`."""
        return self._apply(
            "cache_index", self._place(block), storage_scope=storage_scope, cse_thresh=cse_thresh
        )

    def read_at(
        self,
        loop: LoopRV,
        block: Place,
        read_buffer_index: int | str | Buffer,
        storage_scope: str,
    ) -> BlockRV:
        """Copy an input where an iteration starts. See `stage_at.ReadAt`."""
        handle = self._place(block)
        index = self._position(handle, read_buffer_index, "read")
        return self._apply(
            "read_at", loop, handle, read_buffer_index=index, storage_scope=storage_scope
        )[0]

    def write_at(
        self,
        loop: LoopRV,
        block: Place,
        write_buffer_index: int | str | Buffer,
        storage_scope: str,
    ) -> BlockRV:
        """Copy an output where an iteration ends. See `stage_at.WriteAt`."""
        handle = self._place(block)
        index = self._position(handle, write_buffer_index, "write")
        return self._apply(
            "write_at", loop, handle, write_buffer_index=index, storage_scope=storage_scope
        )[0]

    def rolling_buffer(self, block: Place, write_buffer_index: int | str | Buffer) -> None:
        """Keep what earlier iterations made in a ring. See `rolling.RollingBuffer`."""
        handle = self._place(block)
        index = self._position(handle, write_buffer_index, "write")
        self._apply("rolling_buffer", handle, write_buffer_index=index)

    def compute_at(
        self, block: Place, loop: LoopRV, preserve_unit_loops: bool = False, index: int = -1
    ) -> None:
        """Move a producer under a loop of its consumers. See `compute_at.ComputeAt`."""
        self._move("compute_at", block, loop, preserve_unit_loops, index)

    def reverse_compute_at(
        self, block: Place, loop: LoopRV, preserve_unit_loops: bool = False, index: int = -1
    ) -> None:
        """Move a consumer under a loop of its producers. See `compute_at.ReverseComputeAt`."""
        self._move("reverse_compute_at", block, loop, preserve_unit_loops, index)

    def _move(self, name: str, block: Place, loop: LoopRV, units: bool, index: int) -> None:
        handle = self._place(block)
        if loop is INLINE_LOOP:
            self._apply(name.replace("_at", "_inline"), handle)
        elif loop is not ROOT_LOOP:
            self._apply(name, handle, loop, preserve_unit_loops=units, index=index)

    def decompose_reduction(self, block: Place, loop: LoopRV) -> BlockRV:
        """Initialise a reduction in a block of its own. See `reduction.DecomposeReduction`."""
        return self._apply("decompose_reduction", self._place(block), loop)[0]

    def rfactor(self, loop: LoopRV, factor_axis: int = 0) -> BlockRV:
        """Reduce in parts that are combined afterwards. See `reduction.Rfactor`."""
        return self._apply("rfactor", loop, factor_axis=factor_axis)[0]

    def pad_domain(self, block: Place, multiples: Sequence[int]) -> None:
        """Round a block's domain up to multiples. See `pad.PadDomain`."""
        self._apply("pad_domain", self._place(block), multiples=tuple(multiples))

    # --- layouts ----------------------------------------------------------------------------

    def _buffer(self, block: Handle, buffer: BufferName | Buffer) -> BufferName:
        """A buffer of a block by name or position. An object is found among its regions."""
        if not isinstance(buffer, Buffer):
            return buffer
        node: Block = self.get(block)
        for side, regions in (("write", node.writes), ("read", node.reads)):
            for number, region in enumerate(regions):
                if region.buffer is buffer:
                    return side, number
        return buffer.name

    def transform_layout(
        self,
        block: Place,
        buffer: BufferName | Buffer,
        index_map: MapLike,
        pad_value: MapLike | float | None = None,
        *,
        assume_injective_transform: bool = False,
    ) -> None:
        """Lay a buffer out anew. See `transform_layout.TransformLayout`.

        index_map: an IndexMap, a function of the old indices that returns the new ones (with
        IndexMap.AXIS_SEPARATOR between groups of axes), or old axes in the new order.
        """
        block = self._place(block)
        name, node, where = "transform_layout", self.get(block), self._buffer(block, buffer)
        found, side, number = named_buffer(name, node, where)
        names = [f"i{n}" for n in range(found.ndim)]
        layout, separators = read_map(name, node, index_map, names)
        if pad_value is not None and not isinstance(pad_value, int | float):
            names = [f"i{n}" for n in range(len(layout.outputs))]
            pad_value, _ = read_map(name, node, pad_value, names)
        self._apply(
            name,
            block,
            buffer=where,
            index_map=layout,
            pad_value=pad_value,
            assume_injective_transform=assume_injective_transform,
        )
        if separators:
            self.set_axis_separator(block, (side, number), separators)

    def transform_block_layout(self, block: Place, index_map: MapLike) -> None:
        """Run over other iteration variables. See `block_layout.TransformBlockLayout`."""
        block = self._place(block)
        layout = self._block_map("transform_block_layout", block, index_map)
        self._apply("transform_block_layout", block, index_map=layout)

    def set_axis_separator(
        self, block: Place, buffer: BufferName | Buffer, axis_separators: Sequence[int]
    ) -> None:
        """Flatten axes in groups. See `axis_separator.SetAxisSeparator`."""
        block = self._place(block)
        where = self._buffer(block, buffer)
        separators = tuple(axis_separators)
        self._apply("set_axis_separator", block, buffer=where, axis_separators=separators)

    def reindex(self, block: Place, buffer: BufferName | Buffer) -> BlockRV:
        """Touch a buffer through a copy at plain iteration variables. See `reindex.Reindex`."""
        block = self._place(block)
        return self._apply("reindex", block, buffer=self._buffer(block, buffer))[0]

    def reindex_cache_read(
        self,
        block: Place,
        read_buffer_index: int | str | Buffer,
        storage_scope: str,
        index_map: MapLike,
    ) -> BlockRV:
        """Read a copy at a map of iteration variables. See `reindex.ReindexCacheRead`.

        index_map: an IndexMap or a function of the iteration variables, or positions of some.
        """
        name, block = "reindex_cache_read", self._place(block)
        return self._apply(
            name,
            block,
            read_buffer_index=self._position(block, read_buffer_index, "read"),
            storage_scope=storage_scope,
            index_map=self._block_map(name, block, index_map),
        )[0]

    def reindex_cache_write(
        self,
        block: Place,
        write_buffer_index: int | str | Buffer,
        storage_scope: str,
        index_map: MapLike,
    ) -> BlockRV:
        """Write through a cache at a map of iteration variables. See `reindex.ReindexCacheWrite`.

        index_map: as in reindex_cache_read.
        """
        name, block = "reindex_cache_write", self._place(block)
        return self._apply(
            name,
            block,
            write_buffer_index=self._position(block, write_buffer_index, "write"),
            storage_scope=storage_scope,
            index_map=self._block_map(name, block, index_map),
        )[0]

    def _block_map(self, primitive: str, block: Handle, index_map: MapLike) -> IndexMap:
        """A map of a block's iteration variables."""
        node: Block = self.get(block)
        names = [item.var.name for item in node.iter_vars]
        layout, separators = read_map(primitive, node, index_map, names)
        if separators:
            refuse(primitive, "its map separates axes", node, "only transform_layout does")
        return layout

    def pad_einsum(self, block: Place, padding: Sequence[int]) -> None:
        """Round a sum of products up to multiples. See `pad_einsum.PadEinsum`."""
        self._apply("pad_einsum", self._place(block), padding=tuple(padding))

    def decompose_padding(self, block: Place, loop: LoopRV) -> BlockRV:
        """Fill with the padding first. See `decompose_padding.DecomposePadding`."""
        return self._apply("decompose_padding", self._place(block), loop)[0]

    def can_decompose_padding(self, block: Place, loop: LoopRV) -> bool:
        """Whether decompose_padding applies. Not a step of the trace."""
        handle = self._place(block)
        func = self._now[self._homes[handle]]
        try:
            find_primitive("decompose_padding")().apply(func, self.get(handle), self.get(loop))
        except ScheduleError:
            return False
        return True

    def reorder_block_iter_var(self, block: Place, new_order: Sequence[int]) -> None:
        """Reorder iteration variables. See `block_layout.ReorderBlockIterVar`."""
        self._apply("reorder_block_iter_var", self._place(block), new_order=tuple(new_order))

    # --- facts ------------------------------------------------------------------------------

    def annotate(self, block_or_loop: Place, ann_key: str, ann_val: Any) -> None:
        """Attach a hint. See `annotate.Annotate`."""
        self._apply("annotate", self._place(block_or_loop), ann_key=ann_key, ann_val=ann_val)

    def unannotate(self, block_or_loop: Place, ann_key: str) -> None:
        """Remove a hint. See `annotate.Unannotate`."""
        self._apply("unannotate", self._place(block_or_loop), ann_key=ann_key)

    def set_scope(self, block: Place, buffer_index: int | str | Buffer, storage_scope: str) -> None:
        """Choose the memory of a block's result. See `annotate.SetScope`."""
        handle = self._place(block)
        index = self._position(handle, buffer_index, "write")
        self._apply("set_scope", handle, buffer_index=index, storage_scope=storage_scope)

    def storage_align(
        self, block: Place, buffer_index: int, axis: int, factor: int, offset: int
    ) -> None:
        """Pad the rows of a block's result. See `annotate.StorageAlign`."""
        self._apply(
            "storage_align",
            self._place(block),
            buffer_index=buffer_index,
            axis=axis,
            factor=factor,
            offset=offset,
        )

    def unsafe_set_dtype(self, block: Place, buffer_index: int | str | Buffer, dtype: str) -> None:
        """Keep a block's result in another dtype. See `annotate.UnsafeSetDtype`."""
        handle = self._place(block)
        index = self._position(handle, buffer_index, "write")
        self._apply("unsafe_set_dtype", handle, buffer_index=index, dtype=str(dtype))

    def annotate_buffer_access(
        self,
        block: Place,
        buffer_index: int | str | Buffer,
        buf_type: Literal["read", "write"],
        gen_new_ranges: Callable[..., Any] | IndexMap,
    ) -> None:
        """State a larger region that a block touches. See `access.AnnotateBufferAccess`."""
        handle = self._place(block)
        index = self._position(handle, buffer_index, buf_type)
        ranges = gen_new_ranges
        if not isinstance(ranges, IndexMap):
            names = [item.var.name for item in getattr(self.get(handle), "iter_vars", ())]
            ranges = index_map(lambda *args: _flat(gen_new_ranges, args), names)
        self._apply(
            "annotate_buffer_access",
            handle,
            buffer_index=index,
            buf_type=buf_type,
            gen_new_ranges=ranges,
        )

    def unsafe_hide_buffer_access(
        self, block: Place, buf_type: Literal["read", "write"], buf_index_array: Sequence[int]
    ) -> None:
        """Leave out what a block declares. See `access.UnsafeHideBufferAccess`."""
        self._apply(
            "unsafe_hide_buffer_access",
            self._place(block),
            buf_type=buf_type,
            buf_index_array=tuple(buf_index_array),
        )


def subject_of(func: PrimFunc) -> str:
    """What choices about a program are about, in site keys: the program, not its attributes."""
    return structural_hash(replace(func, attrs={}))


def _only_function(module: IRModule) -> str:
    """The function to start with: "main", or the only tensor program."""
    found = [name for name, item in module.functions.items() if isinstance(item, PrimFunc)]
    return found[0] if len(found) == 1 else "main"


def _flat(function: Any, args: tuple[Any, ...]) -> list[Any]:
    """Begins and ends in turn, of (begin, end) pairs, of single indices, or given so."""
    items: list[Any] = []
    result = function(*args)
    for item in result if isinstance(result, tuple | list) else [result]:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(item, tuple | list):
            items.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        else:
            items.append(item)
    return items
