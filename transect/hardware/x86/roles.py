"""A contraction as a product of rows and columns: which of its variables become vectors.

How it is scheduled is in `contraction`, what that takes in `register_tile`
and `tile_cost`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.expr import Expr, FloorMod, Var, as_int
from transect.ir.traverse import free_vars, substitute, walk
from transect.tir.affine import difference
from transect.tir.analysis.contraction import Contraction
from transect.tir.buffer import BufferLoad
from transect.tir.stmt import IterVar


@dataclass(frozen=True)
class Roles:
    """A contraction seen as rows times columns.

    column: the variable of the output's last dimension, which becomes vectors. row: the variable
    that is unrolled beside it, or None. columns: the operand that depends on `column` and not on
    `row`; rows: the other one. contiguous: whether the elements of `columns` for neighbouring
    columns lie side by side. panel: how many columns lie side by side before others come, None for
    all. shared: whether `rows` depends on `column` as well, as in a depthwise convolution, and so
    is read in vectors too.
    """

    column: IterVar
    row: IterVar | None
    columns: BufferLoad
    rows: BufferLoad
    contiguous: bool
    panel: int | None
    shared: bool


def roles(found: Contraction) -> Roles | None:
    """The roles of a contraction's variables, or None if it cannot be seen so: the last dimension
    is in both operands and one of them cannot be read in vectors along it."""
    last = found.output.indices[-1] if found.output.indices else None
    spatial = (*found.batch, *found.rows, *found.columns)
    column = next((item for item in spatial if item.var is last), None)
    if column is None:
        return None
    shared = column in found.batch
    if shared and bool(found.rows) == bool(found.columns):
        return None
    swapped = bool(found.columns) if shared else column in found.rows
    columns, rows = (found.left, found.right) if swapped else (found.right, found.left)
    candidates = found.columns if swapped else found.rows
    order = [index for index in found.output.indices if isinstance(index, Var)]
    in_order = sorted(
        (item for item in candidates if item.var in order), key=lambda item: order.index(item.var)
    )
    row = in_order[-1] if in_order else None
    panel = panel_width(columns, column.var)
    side_by_side = panel is not None or contiguous(columns, column.var)
    if shared and not (side_by_side and contiguous(rows, column.var)):
        return None
    return Roles(column, row, columns, rows, side_by_side, panel, shared)


def contiguous(load: BufferLoad, var: Var) -> bool:
    """Whether the elements that a load reads for neighbouring values of `var` are neighbours."""
    if not load.indices:
        return False
    *outer, last = load.indices
    if any(item is var for index in outer for item in walk(index)):
        return False
    moved: dict[Var, Expr] = {var: var + 1}
    step = difference(substitute(last, moved), last)
    return step == 1 and not load.buffer.strides


def panel_width(load: BufferLoad, var: Var) -> int | None:
    """The width of the panels (`tir.schedule.layout.panel_axis`) that a load takes along `var`, if
    it does: it reads at var // width, …, var % width and nowhere else."""
    last = load.indices[-1]
    width = as_int(last.b) if isinstance(last, FloorMod) and last.a is var else None
    if width is None or as_int(load.buffer.shape[-1]) != width or load.buffer.strides:
        return None
    using = [index for index in load.indices[:-1] if var in free_vars((index,))]
    return width if len(using) == 1 and using[0] is var // width else None
