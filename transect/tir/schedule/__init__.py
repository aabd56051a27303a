"""Scheduling: rewriting a tensor program by primitives that keep its meaning.

Which schedule suits which machine is the business of `hardware`; lowering that of `tir.transform`.
"""

from transect.tir.schedule.edit import Edit, Primitive
from transect.tir.schedule.schedule import Schedule
from transect.tir.schedule.session import (
    INLINE_LOOP,
    ROOT_LOOP,
    BlockRV,
    LoopRV,
    StmtSRef,
    subject_of,
)
from transect.tir.schedule.trace import Instruction, Trace

__all__ = [
    "INLINE_LOOP",
    "ROOT_LOOP",
    "BlockRV",
    "Edit",
    "Instruction",
    "LoopRV",
    "Primitive",
    "Schedule",
    "StmtSRef",
    "Trace",
    "subject_of",
]
