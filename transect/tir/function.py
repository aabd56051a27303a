"""PrimFunc: a tensor program as a function of buffers and scalars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from transect.ir.expr import Expr, Var
from transect.ir.function import BaseFunc
from transect.ir.node import node
from transect.ir.traverse import free_vars
from transect.support.span import Spans
from transect.tir.buffer import Buffer
from transect.tir.stmt import Stmt

SCHEDULED = "tir.is_scheduled"
"""The attribute of functions that are scheduled, by their author or by a rule: passes that shape
programs leave them as they are."""


@node
class PrimFunc(BaseFunc):
    """A tensor program.

    params: scalars, and handles. buffer_map: the buffer that a handle parameter is; its shape,
    strides and offset may use variables, bound by their first plain occurrence there. A handle
    that is not in the map is an opaque pointer.
    body: at the block level a BlockRealize of the root block; after lowering, plain loops.
    """

    binds: ClassVar[tuple[str, ...]] = ("params", "buffer_map")

    params: tuple[Var, ...]
    buffer_map: Mapping[Var, Buffer]
    body: Stmt
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    span: Spans = ()

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffer parameters, in order."""
        return tuple(self.buffer_map[p] for p in self.params if p in self.buffer_map)


def buffer_fields(value: Buffer) -> tuple[Expr, ...]:
    """The expressions that describe a buffer parameter: shape, strides, offset."""
    return (*value.shape, *value.strides, value.elem_offset)


def symbolic_vars(func: PrimFunc) -> tuple[Var, ...]:
    """The variables that buffer parameters bind, in order of first appearance, scalars excluded.

    A lowered function takes their values as trailing parameters, in this order.
    """
    scalars = set(func.params)
    roots = [field for value in func.buffers for field in buffer_fields(value)]
    return tuple(var for var in free_vars(roots) if var not in scalars)
