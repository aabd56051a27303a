"""Schedule: a tensor program being rewritten, primitive by primitive, with handles and a trace.

Each method is one primitive; what it does and refuses stands on the primitive's class, in the
file of its family. Choices (`sample_*`) are sites of the plan. Names and the order of arguments
are those of TVM's Schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as with_options
from typing import Any, Literal

from transect.ir.expr import Expr, Var
from transect.plan import Cost, Option, Site, SiteKey
from transect.support.errors import ScheduleError
from transect.tir.buffer import Buffer
from transect.tir.index_map import IndexMap, index_map
from transect.tir.schedule.edit import refuse
from transect.tir.schedule.relayout import BufferName, MapLike, named_buffer, read_map
from transect.tir.schedule.sample import (
    INLINE,
    ROOT,
    SampleCategorical,
    SampleComputeLocation,
    SamplePerfectTile,
    weights,
)
from transect.tir.schedule.session import (
    INLINE_LOOP,
    ROOT_LOOP,
    BlockRV,
    Handle,
    LoopRV,
    Place,
    Session,
)
from transect.tir.schedule.table import find_primitive
from transect.tir.schedule.tensorize import require_machine
from transect.tir.schedule.trace import Instruction
from transect.tir.stmt import Block
from transect.tir.tensor_intrin import TensorIntrin, remember


class Schedule(Session):
    """A PrimFunc, edited by primitives that keep its meaning.

    program: a PrimFunc, or a module with the name of its function; by default "main", or the only
    PrimFunc of the module. decide: answers the choices; by default greedily by predicted cost for
    this machine. subject: what the choices are about in site keys; the structural hash of the
    program by default. target: the machine that it is for, this one by default, or the name alone
    that stands in keys.

    `func` is the program as it is now, `trace` how it came to be so. Where a method takes a block,
    it also takes the name of one; where it takes a buffer of a block, its position among what the
    block reads or writes, its name, or the Buffer.
    """

    # --- decisions --------------------------------------------------------------------------

    def decision(self, var: str | Var, candidates: Sequence[int]) -> Var:
        """A number that is chosen later: a variable of the name. See `decide.Decision`.

        `hardware.tile_site` predicts the time for all candidates at once; `decide_sizes` puts
        numbers in. Raises ScheduleError for a name used before.
        """
        made = Var(var) if isinstance(var, str) else var
        if any(known.name == made.name for known in self.candidates):
            raise ScheduleError(
                f"decision {made.name!r} is made already",
                remedy=f"use sch.size({made.name!r}), or another name",
            )
        self._apply("decision", var=made, candidates=tuple(candidates))
        return made

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

    def fold_reduction(self, block: Place, limit: int = 64) -> None:
        """Write a short reduction out as one expression. See `fold.FoldReduction`."""
        self._apply("fold_reduction", self._place(block), limit=limit)

    def pad_domain(self, block: Place, multiples: Sequence[Expr | int]) -> None:
        """Round a block's domain up to multiples. See `pad.PadDomain`."""
        self._apply("pad_domain", self._place(block), multiples=tuple(multiples))

    def cache_common(self, first: Place, second: Place, scope: str = "global") -> BlockRV:
        """Compute once what two blocks have in common. See `share.CacheCommon`."""
        return self._apply("cache_common", self._place(first), self._place(second), scope=scope)[0]

    def factor_out(self, block: Place, scope: str = "global") -> BlockRV:
        """Multiply or divide a sum instead of its terms. See `share.FactorOut`."""
        return self._apply("factor_out", self._place(block), scope=scope)[0]

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

    # --- instructions -----------------------------------------------------------------------

    def blockize(
        self, target: Place | Sequence[Place], preserve_unit_iters: bool = True
    ) -> BlockRV:
        """A nest of loops as a block of its own. See `blockize.Blockize`."""
        several = not isinstance(target, LoopRV | BlockRV | str)
        targets = [self._place(item) for item in (target if several else [target])]
        return self._apply("blockize", *targets, preserve_unit_iters=preserve_unit_iters)[0]

    def tensorize(
        self,
        block_or_loop: Place,
        tensor_intrin: str | TensorIntrin,
        preserve_unit_iters: bool = True,
    ) -> BlockRV:
        """A nest of loops as an instruction. See `tensorize.Tensorize`."""
        block_or_loop = self._place(block_or_loop)
        name = tensor_intrin if isinstance(tensor_intrin, str) else tensor_intrin.name
        if not isinstance(tensor_intrin, str):
            remember(tensor_intrin)  # Programs and traces name it.
        if self.machine is not None:
            require_machine(TensorIntrin.get(name), self.machine, self.get(block_or_loop))
        options = {"tensor_intrin": name, "preserve_unit_iters": preserve_unit_iters}
        return self._apply("tensorize", block_or_loop, **options)[0]

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
