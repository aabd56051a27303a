"""What the program around a decorated definition sees: closures, enclosing frames, globals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any


def in_class_body(frame: FrameType | None) -> bool:
    """Whether a decorator was called while the body of a class runs."""
    return frame is not None and "__qualname__" in frame.f_locals and "__module__" in frame.f_locals


def function_scopes(
    function: Callable[..., Any], frame: FrameType | None
) -> list[Mapping[str, Any]]:
    """The names that a function sees, the innermost scope first."""
    return [
        closure(function),
        *enclosing_locals(frame, function.__code__.co_filename),
        function.__globals__,
    ]


def closure(function: Callable[..., Any]) -> dict[str, Any]:
    """The variables of enclosing functions that a function uses."""
    cells = function.__closure__ or ()
    return {
        name: cell.cell_contents
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True)
        if _is_filled(cell)
    }


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def enclosing_locals(frame: FrameType | None, file: str) -> list[Mapping[str, Any]]:
    """The local variables of the functions around a definition, copied, from the inside out.

    Annotations that Python does not evaluate (`from __future__ import annotations`) capture
    nothing, so the frames that run now are asked, as far as they stand around each other in `file`.
    """
    found: list[Mapping[str, Any]] = []
    inside: str | None = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename == file and code.co_name != "<module>":
            name = code.co_qualname
            if inside is None or inside.startswith((f"{name}.<locals>.", f"{name}.")):
                found.append(dict(frame.f_locals))
                inside = name
        elif code.co_filename == file and inside is None:
            # Definitions at the top of a file that is executed: its names are the globals.
            found.append(dict(frame.f_locals))
            break
        frame = frame.f_back
    return found
