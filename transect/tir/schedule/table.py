"""All primitives by name, loaded when a trace needs them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from transect.support.errors import InputError

PRIMITIVES: dict[str, str] = {
    "get_block": "transect.tir.schedule.look:GetBlock",
    "get_loops": "transect.tir.schedule.look:GetLoops",
    "get_child_blocks": "transect.tir.schedule.look:GetChildBlocks",
    "get_producers": "transect.tir.schedule.look:GetProducers",
    "get_consumers": "transect.tir.schedule.look:GetConsumers",
    "get_output_blocks": "transect.tir.schedule.look:GetOutputBlocks",
    "work_on": "transect.tir.schedule.marks:WorkOn",
    "enter_postproc": "transect.tir.schedule.marks:EnterPostproc",
    "sample_categorical": "transect.tir.schedule.sample:SampleCategorical",
    "sample_perfect_tile": "transect.tir.schedule.sample:SamplePerfectTile",
    "sample_compute_location": "transect.tir.schedule.sample:SampleComputeLocation",
    "split": "transect.tir.schedule.loops:Split",
    "fuse": "transect.tir.schedule.loops:Fuse",
    "reorder": "transect.tir.schedule.loops:Reorder",
    "loop_partition": "transect.tir.schedule.loops:LoopPartition",
    "add_unit_loop": "transect.tir.schedule.loops:AddUnitLoop",
    "merge": "transect.tir.schedule.loops:Merge",
    "parallel": "transect.tir.schedule.kinds:Parallel",
    "vectorize": "transect.tir.schedule.kinds:Vectorize",
    "unroll": "transect.tir.schedule.kinds:Unroll",
    "bind": "transect.tir.schedule.kinds:Bind",
    "annotate": "transect.tir.schedule.annotate:Annotate",
    "unannotate": "transect.tir.schedule.annotate:Unannotate",
    "set_scope": "transect.tir.schedule.annotate:SetScope",
    "storage_align": "transect.tir.schedule.annotate:StorageAlign",
    "unsafe_set_dtype": "transect.tir.schedule.annotate:UnsafeSetDtype",
    "annotate_buffer_access": "transect.tir.schedule.access:AnnotateBufferAccess",
    "unsafe_hide_buffer_access": "transect.tir.schedule.access:UnsafeHideBufferAccess",
    "decision": "transect.tir.schedule.decide:Decision",
    "decide_sizes": "transect.tir.schedule.decide:DecideSizes",
    "compute_inline": "transect.tir.schedule.inline:ComputeInline",
    "reverse_compute_inline": "transect.tir.schedule.inline:ReverseComputeInline",
    "cache_read": "transect.tir.schedule.cache:CacheRead",
    "cache_write": "transect.tir.schedule.cache:CacheWrite",
    "cache_inplace": "transect.tir.schedule.cache_more:CacheInplace",
    "cache_index": "transect.tir.schedule.cache_more:CacheIndex",
    "read_at": "transect.tir.schedule.stage_at:ReadAt",
    "write_at": "transect.tir.schedule.stage_at:WriteAt",
    "rolling_buffer": "transect.tir.schedule.rolling:RollingBuffer",
    "compute_at": "transect.tir.schedule.compute_at:ComputeAt",
    "reverse_compute_at": "transect.tir.schedule.compute_at:ReverseComputeAt",
    "decompose_reduction": "transect.tir.schedule.reduction:DecomposeReduction",
    "fold_reduction": "transect.tir.schedule.fold:FoldReduction",
    "pad_domain": "transect.tir.schedule.pad:PadDomain",
    "reindex": "transect.tir.schedule.reindex:Reindex",
    "reindex_cache_read": "transect.tir.schedule.reindex:ReindexCacheRead",
    "reindex_cache_write": "transect.tir.schedule.reindex:ReindexCacheWrite",
    "transform_layout": "transect.tir.schedule.transform_layout:TransformLayout",
    "set_axis_separator": "transect.tir.schedule.axis_separator:SetAxisSeparator",
    "transform_block_layout": "transect.tir.schedule.block_layout:TransformBlockLayout",
    "reorder_block_iter_var": "transect.tir.schedule.block_layout:ReorderBlockIterVar",
    "pad_einsum": "transect.tir.schedule.pad_einsum:PadEinsum",
    "decompose_padding": "transect.tir.schedule.decompose_padding:DecomposePadding",
    "blockize": "transect.tir.schedule.blockize:Blockize",
    "tensorize": "transect.tir.schedule.tensorize:Tensorize",
    "rfactor": "transect.tir.schedule.reduction:Rfactor",
    "cache_common": "transect.tir.schedule.share:CacheCommon",
    "factor_out": "transect.tir.schedule.share:FactorOut",
}
"""Name -> "module:Class" of each primitive."""


@cache
def find_primitive(name: str) -> type[Any]:
    """The primitive's class. Raises InputError for a name that no primitive has.

    A user's own primitive is named by its loader, "package.module:Class".
    """
    loader = PRIMITIVES.get(name, name)
    module, colon, attribute = loader.partition(":")
    if not colon:
        raise InputError(
            f"no schedule primitive {name!r}", remedy=f"one of: {', '.join(PRIMITIVES)}"
        )
    return getattr(import_module(module), attribute)
