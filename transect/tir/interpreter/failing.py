"""Conditions that must hold: the error of the first point of the grid where one does not."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from transect.ir.dtype import as_dtype
from transect.support.errors import ExecutionError
from transect.support.span import Spans
from transect.tir.interpreter.frame import Frame
from transect.tir.interpreter.grid import Run, Value, lanes_of


def require(
    held: Value,
    frame: Frame,
    kind: str,
    parts: Sequence[str | Run],
    *,
    lanes: int = 1,
    span: Spans = (),
) -> None:
    """Raise the exception named `kind` if the condition is false at an active point.

    parts: of the message; of closures the value at that point is printed. lanes: of the condition.
    """
    failed = np.logical_not(held)
    if frame.mask is not None:
        failed = failed & (frame.mask if lanes == 1 else lanes_of(frame.mask))
    if not np.any(failed):
        return
    # Points come in the order of the loops, the outermost first, which is the last axis.
    depth = len(frame.lengths)
    full = (*frame.shape, lanes)
    shape = np.shape(failed) if lanes > 1 else (*np.shape(failed), 1)
    everywhere = np.broadcast_to(
        np.reshape(failed, (1,) * (depth + 1 - len(shape)) + shape), full
    ).transpose(*reversed(range(depth)), depth)
    *outer, lane = np.unravel_index(int(np.argmax(everywhere)), everywhere.shape)
    grid = tuple(reversed(outer))
    texts = [
        part if isinstance(part, str) else _number(_at(part(frame), grid, lane, lanes))
        for part in parts
    ]
    raise _error(kind, "".join(texts), span)


def _at(value: Value, grid: tuple[Any, ...], lane: Any, lanes: int) -> Value:
    """The value at one point of the grid, and of a vector at one lane."""
    array = np.asarray(value)
    place = grid
    if lanes > 1:
        place = (*grid, lane)
    kept = place[len(place) - array.ndim :]
    return array[tuple(0 if n == 1 else k for n, k in zip(array.shape, kept, strict=True))]


def _number(value: Value) -> str:
    """A number as the formats %lld and %.9g of C print it."""
    dtype = np.asarray(value).dtype
    if as_dtype(dtype).is_float:
        return f"{float(value):.9g}"
    return str(int(value))


def _error(kind: str, message: str, span: Spans) -> Exception:
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found(message)
    return ExecutionError(f"{kind}: {message}", span=span)
