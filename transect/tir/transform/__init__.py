"""Lowering passes of tensor programs, one a file, and their order.

Scheduling happens before, in `tir.schedule`; machine code is made in `codegen`.
"""

from __future__ import annotations

from transect.target import Target
from transect.tir.transform.convert_blocks import ConvertBlocksToOpaque
from transect.tir.transform.flatten_buffer import FlattenBuffer
from transect.tir.transform.hoist_checks import HoistChecks
from transect.tir.transform.inject_prefetch import InjectPrefetch
from transect.tir.transform.loop_partition import LoopPartition
from transect.tir.transform.lower_init import LowerInit
from transect.tir.transform.lower_match_buffer import LowerMatchBuffer
from transect.tir.transform.lower_opaque_block import LowerOpaqueBlock
from transect.tir.transform.lower_signature import LowerSignature
from transect.tir.transform.make_packed_api import MakePackedAPI
from transect.tir.transform.plan_allocations import PlanAllocations
from transect.tir.transform.simplify import Simplify
from transect.tir.transform.transpose_tiles import TransposeTiles
from transect.tir.transform.unroll_loop import UnrollLoop
from transect.tir.transform.vectorize_loop import VectorizeLoop
from transect.transform import Pass


def lowering(target: Target) -> tuple[Pass, ...]:
    """The passes from blocks to what the back end of `target` takes, in order."""
    return (
        LowerInit(),
        ConvertBlocksToOpaque(),
        LowerMatchBuffer(),
        Simplify(),
        PlanAllocations(),
        LowerOpaqueBlock(),
        FlattenBuffer(),
        Simplify(),
        LoopPartition(),
        VectorizeLoop(),
        TransposeTiles(),
        UnrollLoop(),
        Simplify(division=True),
        InjectPrefetch(),
        HoistChecks(),
        MakePackedAPI(),
        LowerSignature(),
    )
