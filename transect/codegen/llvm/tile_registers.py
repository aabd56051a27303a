"""Which tile registers of AMX hold which buffer of the scope "amx.tile".

A processor has eight registers of 16 rows of 64 bytes. A buffer takes one for each 1024 bytes, in
order, while its allocation lives; which one an intrinsic means must be known when code is emitted.
"""

from __future__ import annotations

import math

from transect.ir.dtype import DType
from transect.ir.expr import Call, Expr, Intrinsic, Var, as_int
from transect.ir.traverse import walk
from transect.support.errors import UnsupportedError
from transect.tir.buffer import BufferLoad
from transect.tir.intrinsics import INTRINSICS
from transect.tir.stmt import Allocate, SeqStmt
from transect.tir.tiles import ROW_BYTES, TILE_BYTES, TILE_ROWS, TILE_SCOPE
from transect.tir.visit import own_terms, walk_stmts

REGISTERS = 8


def is_tile(var: Var) -> bool:
    """Whether a data pointer is of tile registers."""
    return var.pointer is not None and var.pointer.scope == TILE_SCOPE


def last_uses(stmt: SeqStmt) -> dict[int, list[Var]]:
    """Which tile buffers that a sequence allocates are used last by which of its items: what
    follows may have their registers."""
    allocated = {
        item.var for item in stmt.stmts if isinstance(item, Allocate) and is_tile(item.var)
    }
    last: dict[Var, int] = {}
    for number, item in enumerate(stmt.stmts if allocated else ()):
        if isinstance(item, Allocate) and item.var in allocated:
            last[item.var] = number
        for inner in walk_stmts(item):
            for term in walk(*own_terms(inner)):
                if isinstance(term, BufferLoad) and term.buffer.data in allocated:
                    last[term.buffer.data] = number
    found: dict[int, list[Var]] = {}
    for var, number in last.items():
        found.setdefault(number, []).append(var)
    return found


class TileRegisters:
    """Which tile registers of a thread hold which buffer."""

    def __init__(self) -> None:
        self.configured = False
        """Whether the function begins by configuring tiles."""
        self._taken: dict[Var, range] = {}

    @property
    def live(self) -> list[str]:
        """The names of the buffers that are in registers now."""
        return [var.name for var in self._taken]

    def allocate(self, stmt: Allocate) -> None:
        """Registers for a buffer. Raises UnsupportedError if there are not enough."""
        sizes = [as_int(extent) for extent in stmt.extents]
        if any(size is None for size in sizes):
            raise UnsupportedError(
                f"tile registers for {stmt.var.name!r}, whose size {stmt.extents!r} may vary",
                span=stmt.span,
                remedy="allocate a constant number of tiles",
            )
        nbytes = math.prod(size or 0 for size in sizes) * stmt.dtype.bytes
        if nbytes % TILE_BYTES or not nbytes:
            raise UnsupportedError(
                f"tile registers for {stmt.var.name!r} of {nbytes} bytes",
                span=stmt.span,
                remedy=f"allocate whole tiles: {TILE_ROWS} rows of {ROW_BYTES} bytes each",
            )
        count = nbytes // TILE_BYTES
        used = {number for item in self._taken.values() for number in item}
        for first in range(REGISTERS - count + 1):
            wanted = range(first, first + count)
            if not used.intersection(wanted):
                self._taken[stmt.var] = wanted
                return
        held = ", ".join(f"{var.name} ({len(item)})" for var, item in self._taken.items())
        raise UnsupportedError(
            f"{stmt.var.name!r} needs {count} tile registers, but {REGISTERS - len(used)} of "
            f"{REGISTERS} are free",
            span=stmt.span,
            notes=[f"the others hold: {held}"] if held else [],
            remedy="use smaller register tiles, or allocate the buffer further inside",
        )

    def release(self, var: Var) -> None:
        """Give the registers of a buffer back, at the end of its scope."""
        self._taken.pop(var, None)

    def number(self, call: Call, operand: Expr) -> tuple[int, DType]:
        """The register that an operand of an intrinsic names, and the dtype of what is in it.

        Raises UnsupportedError if it is no tile, or not known before the program runs.
        """
        name = call.op.name if isinstance(call.op, Intrinsic) else str(call.op)
        load: Expr | None = None
        if isinstance(operand, Call) and operand.op is INTRINSICS["address_of"]:
            load = operand.args[0]
        if not isinstance(load, BufferLoad) or not is_tile(load.buffer.data):
            raise UnsupportedError(
                f"T.{name} of {operand!r}, which is no tile",
                remedy=f'give T.address_of(X[...]) of a buffer X of scope "{TILE_SCOPE}"',
            )
        taken = self._taken.get(load.buffer.data)
        if taken is None:
            raise UnsupportedError(
                f"T.{name}: {load.buffer.name!r} is not in tile registers here",
                remedy="allocate it inside of the parallel loop: each thread has its own tiles",
            )
        index = as_int(load.indices[0])
        if index is None:
            raise UnsupportedError(
                f"T.{name}: which tile of {load.buffer.name!r} element {load.indices[0]!r} is in "
                "is not known",
                remedy="unroll the loops over tiles: registers have constant numbers",
            )
        tile, rest = divmod(index * load.buffer.dtype.bytes, TILE_BYTES)
        if rest or not 0 <= tile < len(taken):
            raise UnsupportedError(
                f"T.{name}: element {index} of {load.buffer.name!r} is not the first of a tile of "
                "it"
            )
        return taken[tile], load.buffer.dtype
