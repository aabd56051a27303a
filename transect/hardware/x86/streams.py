"""When loops that stream through memory on x86 fetch ahead what they read.

A processor finds streams by itself, but what is computed with each element fills the window of
instructions that it looks ahead over: it then waits for memory and computes by turns.
"""

from __future__ import annotations

from transect.hardware.kernel import KernelInfo
from transect.ir.expr import Expr, IntImm, as_int
from transect.plan import Cost, Option, Site, SiteKey
from transect.target import Target
from transect.tir.analysis.regions import buffer_bytes
from transect.tir.schedule import LoopRV, Schedule
from transect.tir.transform.inject_prefetch import PREFETCH

LINE = 64
"""Bytes of a cache line."""
_AHEAD = 2048
"""Bytes: softmax and gelu of tensors of 6 MB took least from 1 to 2 KiB ahead (benchmarks/ops)."""
_WAITING = 6
"""One part of this many of the time that reading takes is not hidden behind computing where nothing
is fetched ahead (the same)."""


def bytes_ahead(sch: Schedule, info: KernelInfo, target: Target) -> int:
    """What the plan says about `fetch_site`."""
    return sch.sample(fetch_site(info, sch.subject, target)).number("ahead")


def fetch_site(info: KernelInfo, subject: str, target: Target) -> Site:
    """Whether the nest of the last pending block, with all that is computed in it, fetches ahead
    what it reads from outside. Only vectors that follow each other are: for other nests the answer
    changes nothing.

    Fetching takes an instruction for each cache line; what is in a near cache comes soon enough.
    """
    block = info.site(info.pending[-1]).block
    outside = dict.fromkeys(
        region.buffer
        for pending in info.blocks()
        for region in pending.reads
        if region.buffer in info.func.buffers
    )
    reads: Expr = IntImm(0)
    for buffer in outside:
        reads = reads + buffer_bytes(buffer)
    moved = reads
    for region in block.writes:
        moved = moved + buffer_bytes(region.buffer)
    known = as_int(moved)
    near = known is not None and known <= max(target.caches[:2])
    instructions = reads // LINE * target.lanes(block.writes[0].buffer.dtype)
    options = (
        Option(
            "as it comes", {"ahead": 0}, Cost({}, {"L2" if near else "memory": reads // _WAITING})
        ),
        Option(
            f"{_AHEAD} bytes ahead",
            {"ahead": _AHEAD},
            Cost({block.writes[0].buffer.dtype: instructions}),
        ),
    )
    key = SiteKey("schedule", subject, str(target), f"{block.name}.fetch")
    return Site(key, options, f"{block.name} fetched ahead")


def fetch_ahead(sch: Schedule, loop: LoopRV, step: int, ahead: int) -> None:
    """Let a loop fetch what it reads so many bytes later. step: the bytes of one buffer that one
    iteration reads in order."""
    if ahead:
        sch.annotate(loop, PREFETCH, max(1, ahead // step))
