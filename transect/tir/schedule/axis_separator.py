"""Primitives about memory of several dimensions: set_axis_separator."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from transect.ir.node import replace
from transect.tir.function import PrimFunc
from transect.tir.schedule.annotate import exchange_buffer
from transect.tir.schedule.edit import Edit, Primitive, Target, expect_block, refuse
from transect.tir.schedule.relayout import BufferName, named_buffer, with_parameter


@dataclass(frozen=True)
class SetAxisSeparator(Primitive):
    """Cut the axes of a buffer into groups that are flattened apart, for memory of several
    dimensions.

    buffer: as in transform_layout. axis_separators: the axes before which a group begins; none to
    flatten the buffer into one dimension again.

        B = T.alloc_buffer((n, m))   ->   B = T.alloc_buffer((n, m), axis_separators=[1])

    FlattenBuffer leaves one index for each group. Targets whose memory has one dimension refuse
    such a buffer when code is generated.
    """

    buffer: BufferName
    axis_separators: tuple[int, ...]
    name: ClassVar[str] = "set_axis_separator"

    def apply(self, func: PrimFunc, *targets: Target) -> Edit:
        block = expect_block(self.name, targets[0])
        found, _, _ = named_buffer(self.name, block, self.buffer)
        ends = (0, *self.axis_separators, found.ndim)
        if self.axis_separators and any(a >= b for a, b in pairwise(ends)):
            refuse(
                self.name,
                f"{self.axis_separators} do not cut the {found.ndim} axes of {found.name!r} into "
                "groups",
                block,
                f"ascending axes from 1 to {found.ndim - 1}",
            )
        if self.axis_separators and found.strides:
            refuse(
                self.name,
                f"{found.name!r} has strides, which say where each element lies",
                block,
                "separate the axes of compact buffers",
            )
        new = replace(found, axis_separators=self.axis_separators)
        done = exchange_buffer(func, found, new)
        return Edit(with_parameter(done.func, found, new), done.forward)
