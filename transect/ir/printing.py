"""The hook through which `repr` of IR reaches the script printer, a room further down."""

from __future__ import annotations

from collections.abc import Callable


class _Hook:
    printer: Callable[[object], str] | None = None


_hook = _Hook()


def install(printer: Callable[[object], str]) -> None:
    """Use `printer` for the repr of all IR. Called by `transect.script`."""
    _hook.printer = printer


def render(value: object) -> str:
    """`value` as script, or as its class name and fields while no printer is installed."""
    if _hook.printer is not None:
        return _hook.printer(value)
    names: tuple[str, ...] = getattr(type(value), "__match_args__", ())
    inside = ", ".join(f"{name}={getattr(value, name)!r}" for name in names)
    return f"{type(value).__name__}({inside})"
