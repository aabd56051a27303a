"""Schedule: a tensor program being rewritten, primitive by primitive, with handles and a trace.

Each method is one primitive; what it does and refuses stands on the primitive's class, in the
file of its family. Choices (`sample_*`) are sites of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from transect.ir.expr import Expr, Var, as_int
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.structural import structural_hash
from transect.plan import Cost, Option, Planner, Site, SiteKey
from transect.support import flags
from transect.support.errors import InputTypeError, ScheduleError
from transect.target import Target
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc, symbolic_vars
from transect.tir.index_map import IndexMap
from transect.tir.schedule.check import check_edit
from transect.tir.schedule.edit import Edit, Primitive, refuse
from transect.tir.schedule.relayout import BufferName, MapLike, named_buffer, read_map
from transect.tir.schedule.table import PRIMITIVES, find_primitive
from transect.tir.schedule.tensorize import require_machine
from transect.tir.schedule.trace import Instruction, Trace, option_vars
from transect.tir.stmt import Block, For, Stmt
from transect.tir.tensor_intrin import TensorIntrin, remember


@dataclass(frozen=True, eq=False)
class BlockRV:
    """A handle of a block: it stays valid while the program around it changes."""

    name: str


@dataclass(frozen=True, eq=False)
class LoopRV:
    """A handle of a loop: it stays valid while the program around it changes."""

    name: str


Handle = BlockRV | LoopRV
HandleT = TypeVar("HandleT", BlockRV, LoopRV)
Decide = Callable[[Site], Option]
"""Who answers the choices: `Planner.choose` of a compile, or any function."""


class Schedule:
    """A PrimFunc, edited by primitives that keep its meaning.

    program: a PrimFunc, or a module with the name of its function. decide: answers the choices;
    by default greedily by predicted cost for this machine. subject: what the choices are about in
    site keys; the structural hash of the program by default. target: the machine that it
    is for, this one by default, or the name alone that stands in keys.

    `func` is the program as it is now, `trace` how it came to be so.
    """

    def __init__(
        self,
        program: PrimFunc | IRModule,
        function: str = "main",
        *,
        decide: Decide | None = None,
        subject: str | None = None,
        target: Target | str | None = None,
    ) -> None:
        self.module: IRModule | None = program if isinstance(program, IRModule) else None
        self.function = function
        start = program[function] if isinstance(program, IRModule) else program
        if not isinstance(start, PrimFunc):
            raise InputTypeError(f"{function!r} is no tensor program", remedy="name a PrimFunc")
        self.func: PrimFunc = start
        self.source: PrimFunc = start
        planner = Planner()
        self.decide: Decide = decide or planner.choose
        self._subject = subject
        self.machine: Target | None = target if isinstance(target, Target) else None
        if target is None:
            self.machine = planner.target
        self._target = str(target if target is not None else planner.target)
        self.trace = Trace()
        self._nodes: dict[Handle, Stmt | None] = {}
        self.candidates: dict[Var, tuple[int, ...]] = {}

    @property
    def mod(self) -> IRModule:
        """The module with the function as it is now."""
        base = self.module if self.module is not None else IRModule.of(**{self.function: self.func})
        return base.with_function(self.function, self.func)

    @property
    def subject(self) -> str:
        """What the choices are about, in site keys."""
        if self._subject is None:
            self._subject = subject_of(self.source)
        return self._subject

    def copy(self) -> Schedule:
        """An independent schedule in the same state; handles of one are valid in the other."""
        twin = Schedule(self.func, decide=self.decide, subject=self.subject, target=self._target)
        twin.module, twin.function, twin.source = self.module, self.function, self.source
        twin.machine = self.machine
        twin.trace, twin._nodes = self.trace, dict(self._nodes)
        twin.candidates = dict(self.candidates)
        return twin

    # --- handles ----------------------------------------------------------------------------

    def get(self, handle: Handle) -> Any:
        """The block or loop of a handle as it is now. Raises ScheduleError if it is gone."""
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

    def _handle(self, stmt: Stmt) -> Handle:
        for handle, node in self._nodes.items():
            if node is stmt:
                return handle
        kind = BlockRV if isinstance(stmt, Block) else LoopRV
        letter = "b" if kind is BlockRV else "l"
        count = sum(item.name[0] == letter for item in self._nodes)
        handle = kind(f"{letter}{count}")
        self._nodes[handle] = stmt
        return handle

    def apply(self, primitive: Primitive, *targets: Handle) -> list[Any]:
        """Apply any primitive, a user's own included; handles of its results.

        Raises ScheduleError if it does not apply; the schedule is unchanged then.
        """
        nodes = [self.get(handle) for handle in targets]
        made: Edit = primitive.apply(self.func, *nodes)
        if flags.check():
            check_edit(primitive.name, self.func, made, option_vars(primitive))
        self.func = made.func
        for handle, node in self._nodes.items():
            if node is not None and node in made.forward:
                self._nodes[handle] = made.forward[node]
        results = [self._handle(stmt) for stmt in made.results]
        inputs = tuple(handle.name for handle in targets)
        self.trace += Instruction(primitive, inputs, tuple(item.name for item in results))
        return results

    def _apply(self, name: str, *targets: Handle, **options: Any) -> list[Any]:
        return self.apply(find_primitive(name)(**options), *targets)

    def replay(self, trace: Trace) -> None:
        """Apply the steps of a trace, recorded on an equal program."""
        named: dict[str, Handle] = {}
        for step in trace.instructions:
            if step.primitive is None:
                self.trace += step
                continue
            results = self.apply(step.primitive, *(named[name] for name in step.inputs))
            named.update(zip(step.outputs, results, strict=True))

    def load_trace(self, text: str) -> Trace:
        """The trace of JSON text, its symbolic options in terms of this function's sizes and of
        the decision variables made by `decision`."""
        classes = {name: find_primitive(name) for name in PRIMITIVES}
        sizes = (*symbolic_vars(self.source), *self.source.params, *self.candidates)
        return Trace.from_json(text, classes, sizes)

    # --- decisions --------------------------------------------------------------------------

    def decision(self, name: str, candidates: Sequence[int]) -> Var:
        """A number that is chosen later: a variable to use in factors, multiples and extents.

        `hardware.tile_site` predicts the time for all candidates at once; `decide_sizes` puts
        numbers in. Raises ScheduleError for candidates that are not positive, and for a name
        used before.
        """
        if not candidates or min(candidates) < 1 or any(v.name == name for v in self.candidates):
            raise ScheduleError(
                f"decision {name!r}: candidates {tuple(candidates)}",
                remedy="give positive numbers, and each decision a name of its own",
            )
        var = Var(name)
        self.candidates[var] = tuple(candidates)
        return var

    def decide_sizes(self, values: Mapping[Var, int] | Sequence[tuple[Var, int]]) -> None:
        """Numbers in place of decision variables. See `decide.DecideSizes`."""
        self._apply("decide_sizes", values=tuple(dict(values).items()))

    # --- choices ----------------------------------------------------------------------------

    def sample(self, site: Site) -> Option:
        """The plan's answer to a choice."""
        option = self.decide(site)
        self.trace += Instruction(None, (), (), str(site.key), option.name)
        return option

    def site_key(self, kind: str, role: str) -> SiteKey:
        """The key of a choice about this program. role: which of its choices."""
        return SiteKey(kind, self.subject, self._target, role)

    def sample_categorical(
        self, candidates: Sequence[int], *, role: str, costs: Sequence[Cost] = ()
    ) -> int:
        """One of several numbers. costs: predictions for each, for policies that go by cost."""
        predicted = tuple(costs) or tuple(Cost() for _ in candidates)
        options = tuple(
            Option(str(value), {"value": value}, cost)
            for value, cost in zip(candidates, predicted, strict=True)
        )
        site = Site(self.site_key("sample", role), options, label=role, span=self.func.span)
        return candidates[options.index(self.sample(site))]

    def sample_perfect_tile(
        self, loop: LoopRV, parts: int, *, role: str, max_innermost: int = 64
    ) -> tuple[int, ...]:
        """Extents of `parts` nested loops whose product is the extent of `loop`, a constant."""
        node: For = self.get(loop)
        extent = as_int(node.extent)
        if extent is None:
            raise ScheduleError(
                f"sample_perfect_tile: loop {node.var.name!r} has the symbolic extent "
                f"{node.extent!r}",
                span=node.span,
                remedy="split it by a factor of sample_categorical",
            )
        tiles = [t for t in _factorizations(extent, parts) if t[-1] <= max_innermost]
        options = tuple(Option("x".join(map(str, t)), {"value": t}) for t in tiles)
        site = Site(self.site_key("tile", role), options, label=role, span=node.span)
        return tiles[options.index(self.sample(site))]

    # --- primitives that look ---------------------------------------------------------------

    def get_block(self, name: str) -> BlockRV:
        """The block of a name. See `look.GetBlock`."""
        return self._apply("get_block", block=name)[0]

    def get_loops(self, target: Handle) -> list[LoopRV]:
        """The loops around a block. See `look.GetLoops`."""
        return self._apply("get_loops", target)

    def get_child_blocks(self, target: Handle) -> list[BlockRV]:
        """The blocks inside. See `look.GetChildBlocks`."""
        return self._apply("get_child_blocks", target)

    def get_producers(self, block: BlockRV) -> list[BlockRV]:
        """The blocks whose results a block reads. See `look.GetProducers`."""
        return self._apply("get_producers", block)

    def get_consumers(self, block: BlockRV) -> list[BlockRV]:
        """The blocks that read a block's result. See `look.GetConsumers`."""
        return self._apply("get_consumers", block)

    def get_output_blocks(self) -> list[BlockRV]:
        """The blocks that write parameters. See `look.GetOutputBlocks`."""
        return self._apply("get_output_blocks")

    # --- loops ------------------------------------------------------------------------------

    def split(self, loop: LoopRV, factors: Sequence[Expr | int | None]) -> list[LoopRV]:
        """One loop as a nest of loops. See `loops.Split`."""
        return self._apply("split", loop, factors=tuple(factors))

    def fuse(self, *loops: LoopRV) -> LoopRV:
        """A nest of loops as one. See `loops.Fuse`."""
        return self._apply("fuse", *loops)[0]

    def reorder(self, *loops: LoopRV) -> None:
        """The loops of a nest in another order. See `loops.Reorder`."""
        self._apply("reorder", *loops)

    def loop_partition(self, loop: LoopRV, extents: Sequence[Expr | int | None]) -> list[LoopRV]:
        """One loop as several over consecutive parts. See `loops.LoopPartition`."""
        return self._apply("loop_partition", loop, extents=tuple(extents))

    def merge(self, first: LoopRV, second: LoopRV) -> LoopRV:
        """Two neighbouring loops as one. See `loops.Merge`."""
        return self._apply("merge", first, second)[0]

    def add_unit_loop(self, target: Handle) -> LoopRV:
        """A loop of one iteration around a block or loop. See `loops.AddUnitLoop`."""
        return self._apply("add_unit_loop", target)[0]

    def parallel(self, loop: LoopRV) -> None:
        """Run iterations on different cores. See `kinds.Parallel`."""
        self._apply("parallel", loop)

    def vectorize(self, loop: LoopRV) -> None:
        """Make iterations the lanes of vectors. See `kinds.Vectorize`."""
        self._apply("vectorize", loop)

    def unroll(self, loop: LoopRV) -> None:
        """Repeat the body in the code. See `kinds.Unroll`."""
        self._apply("unroll", loop)

    def bind(self, loop: LoopRV, thread: str) -> None:
        """Run iterations on different threads. See `kinds.Bind`."""
        self._apply("bind", loop, thread=thread)

    # --- blocks -----------------------------------------------------------------------------

    def compute_inline(self, block: BlockRV) -> None:
        """Compute a block's result where it is read. See `inline.ComputeInline`."""
        self._apply("compute_inline", block)

    def reverse_compute_inline(self, block: BlockRV) -> None:
        """Do a block's work where its input is made. See `inline.ReverseComputeInline`."""
        self._apply("reverse_compute_inline", block)

    def cache_read(self, block: BlockRV, index: int, scope: str) -> BlockRV:
        """Read a copy of an input. See `cache.CacheRead`."""
        return self._apply("cache_read", block, index=index, scope=scope)[0]

    def cache_write(self, block: BlockRV, index: int, scope: str) -> BlockRV:
        """Write to a buffer that is copied out afterwards. See `cache.CacheWrite`."""
        return self._apply("cache_write", block, index=index, scope=scope)[0]

    def compute_at(self, block: BlockRV, loop: LoopRV) -> None:
        """Move a producer under a loop of its consumers. See `compute_at.ComputeAt`."""
        self._apply("compute_at", block, loop)

    def reverse_compute_at(self, block: BlockRV, loop: LoopRV) -> None:
        """Move a consumer under a loop of its producers. See `compute_at.ReverseComputeAt`."""
        self._apply("reverse_compute_at", block, loop)

    def decompose_reduction(self, block: BlockRV, loop: LoopRV) -> BlockRV:
        """Initialise a reduction in a block of its own. See `reduction.DecomposeReduction`."""
        return self._apply("decompose_reduction", block, loop)[0]

    def rfactor(self, loop: LoopRV, axis: int = 0) -> BlockRV:
        """Reduce in parts that are combined afterwards. See `reduction.Rfactor`."""
        return self._apply("rfactor", loop, axis=axis)[0]

    def pad_domain(self, block: BlockRV, multiples: Sequence[Expr | int]) -> None:
        """Round a block's domain up to multiples. See `pad.PadDomain`."""
        self._apply("pad_domain", block, multiples=tuple(multiples))

    # --- instructions -----------------------------------------------------------------------

    def blockize(
        self, target: LoopRV | BlockRV | Sequence[BlockRV], preserve_unit_iters: bool = True
    ) -> BlockRV:
        """A nest of loops as a block of its own. See `blockize.Blockize`."""
        targets = [target] if isinstance(target, LoopRV | BlockRV) else list(target)
        return self._apply("blockize", *targets, preserve_unit_iters=preserve_unit_iters)[0]

    def tensorize(
        self,
        block_or_loop: Handle,
        tensor_intrin: str | TensorIntrin,
        preserve_unit_iters: bool = True,
    ) -> BlockRV:
        """A nest of loops as an instruction. See `tensorize.Tensorize`."""
        name = tensor_intrin if isinstance(tensor_intrin, str) else tensor_intrin.name
        if not isinstance(tensor_intrin, str):
            remember(tensor_intrin)  # Programs and traces name it.
        if self.machine is not None:
            require_machine(TensorIntrin.get(name), self.machine, self.get(block_or_loop))
        options = {"tensor_intrin": name, "preserve_unit_iters": preserve_unit_iters}
        return self._apply("tensorize", block_or_loop, **options)[0]

    # --- layouts ----------------------------------------------------------------------------

    def _buffer(self, block: BlockRV, buffer: BufferName | Buffer) -> BufferName:
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
        block: BlockRV,
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

    def transform_block_layout(self, block: BlockRV, index_map: MapLike) -> None:
        """Run over other iteration variables. See `block_layout.TransformBlockLayout`."""
        layout = self._block_map("transform_block_layout", block, index_map)
        self._apply("transform_block_layout", block, index_map=layout)

    def set_axis_separator(
        self, block: BlockRV, buffer: BufferName | Buffer, axis_separators: Sequence[int]
    ) -> None:
        """Flatten axes in groups. See `axis_separator.SetAxisSeparator`."""
        where = self._buffer(block, buffer)
        separators = tuple(axis_separators)
        self._apply("set_axis_separator", block, buffer=where, axis_separators=separators)

    def reindex(self, block: BlockRV, buffer: BufferName | Buffer) -> BlockRV:
        """Touch a buffer through a copy at plain iteration variables. See `reindex.Reindex`."""
        return self._apply("reindex", block, buffer=self._buffer(block, buffer))[0]

    def reindex_cache_read(
        self, block: BlockRV, read_buffer_index: int, storage_scope: str, index_map: MapLike
    ) -> BlockRV:
        """Read a copy at a map of iteration variables. See `reindex.ReindexCacheRead`.

        index_map: an IndexMap or a function of the iteration variables, or positions of some.
        """
        name = "reindex_cache_read"
        return self._apply(
            name,
            block,
            read_buffer_index=read_buffer_index,
            storage_scope=storage_scope,
            index_map=self._block_map(name, block, index_map),
        )[0]

    def reindex_cache_write(
        self, block: BlockRV, write_buffer_index: int, storage_scope: str, index_map: MapLike
    ) -> BlockRV:
        """Write through a cache at a map of iteration variables. See `reindex.ReindexCacheWrite`.

        index_map: as in reindex_cache_read.
        """
        name = "reindex_cache_write"
        return self._apply(
            name,
            block,
            write_buffer_index=write_buffer_index,
            storage_scope=storage_scope,
            index_map=self._block_map(name, block, index_map),
        )[0]

    def _block_map(self, primitive: str, block: BlockRV, index_map: MapLike) -> IndexMap:
        """A map of a block's iteration variables."""
        node: Block = self.get(block)
        names = [item.var.name for item in node.iter_vars]
        layout, separators = read_map(primitive, node, index_map, names)
        if separators:
            refuse(primitive, "its map separates axes", node, "only transform_layout does")
        return layout

    def pad_einsum(self, block: BlockRV, padding: Sequence[int]) -> None:
        """Round a sum of products up to multiples. See `pad_einsum.PadEinsum`."""
        self._apply("pad_einsum", block, padding=tuple(padding))

    def decompose_padding(self, block: BlockRV, loop: LoopRV) -> BlockRV:
        """Fill with the padding first. See `decompose_padding.DecomposePadding`."""
        return self._apply("decompose_padding", block, loop)[0]

    def can_decompose_padding(self, block: BlockRV, loop: LoopRV) -> bool:
        """Whether decompose_padding applies. Not a step of the trace."""
        try:
            find_primitive("decompose_padding")().apply(self.func, self.get(block), self.get(loop))
        except ScheduleError:
            return False
        return True

    def reorder_block_iter_var(self, block: BlockRV, new_order: Sequence[int]) -> None:
        """Reorder iteration variables. See `block_layout.ReorderBlockIterVar`."""
        self._apply("reorder_block_iter_var", block, new_order=tuple(new_order))

    def cache_common(self, first: BlockRV, second: BlockRV, scope: str = "global") -> BlockRV:
        """Compute once what two blocks have in common. See `share.CacheCommon`."""
        return self._apply("cache_common", first, second, scope=scope)[0]

    def factor_out(self, block: BlockRV, scope: str = "global") -> BlockRV:
        """Multiply or divide a sum instead of its terms. See `share.FactorOut`."""
        return self._apply("factor_out", block, scope=scope)[0]

    # --- facts ------------------------------------------------------------------------------

    def annotate(self, target: Handle, key: str, value: Any) -> None:
        """Attach a hint. See `annotate.Annotate`."""
        self._apply("annotate", target, key=key, value=value)

    def unannotate(self, target: Handle, key: str) -> None:
        """Remove a hint. See `annotate.Unannotate`."""
        self._apply("unannotate", target, key=key)

    def set_scope(self, block: BlockRV, index: int, scope: str) -> None:
        """Choose the memory of a block's result. See `annotate.SetScope`."""
        self._apply("set_scope", block, index=index, scope=scope)

    def storage_align(
        self, block: BlockRV, index: int, axis: int, factor: int, offset: int
    ) -> None:
        """Pad the rows of a block's result. See `annotate.StorageAlign`."""
        self._apply("storage_align", block, index=index, axis=axis, factor=factor, offset=offset)


def subject_of(func: PrimFunc) -> str:
    """What choices about a program are about, in site keys: the program, not its attributes."""
    return structural_hash(replace(func, attrs={}))


@cache
def _factorizations(extent: int, parts: int) -> tuple[tuple[int, ...], ...]:
    if parts == 1:
        return ((extent,),)
    return tuple(
        (divisor, *rest)
        for divisor in range(1, extent + 1)
        if extent % divisor == 0
        for rest in _factorizations(extent // divisor, parts - 1)
    )
