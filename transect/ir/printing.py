"""The hook through which `repr` of IR reaches the script printer, a room further down.

The printer is named by the distribution, as an entry point: this room knows none. It is loaded
when the first piece of IR is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

ENTRY_POINTS = "transect.printer"
"""The entry-point group of the printer: a function of a piece of IR that gives its text."""

Printer = Callable[[object], str]


class _Hook:
    printer: Printer | None = None
    is_searched: bool = False


_hook = _Hook()


def install(printer: Printer) -> None:
    """Use `printer` for the repr of all IR. Called by `transect.script`."""
    _hook.printer = printer


def render(value: object) -> str:
    """`value` as script, or as its class name and fields where no printer is installed."""
    printer = _hook.printer or _found()
    if printer is not None:
        return printer(value)
    names: tuple[str, ...] = getattr(type(value), "__match_args__", ())
    inside = ", ".join(f"{name}={getattr(value, name)!r}" for name in names)
    return f"{type(value).__name__}({inside})"


def _found() -> Printer | None:
    """The printer of the distribution; None in a source tree that is not installed, and while the
    printer itself is being loaded."""
    if _hook.is_searched:
        return None
    _hook.is_searched = True
    for point in entry_points(group=ENTRY_POINTS):
        install(point.load())
    return _hook.printer
