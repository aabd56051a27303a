"""What the user asked for, and what a command gives back. No compiler is needed to know either."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from transect.support.errors import InputError


class UsageError(InputError):
    """An option whose value means nothing: the exit code is 2."""


@dataclass(frozen=True)
class Request:
    """The model, and the options that several commands share.

    inputs: what inputs are, as given ("x=x.npy"). sizes: of dimensions of the inputs. bounds: of
    dimensions, for the compiler. json: whether nothing but JSON is written to standard output.
    """

    model: str
    inputs: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    target: str | None = None
    plan: Path | None = None
    entry: str | None = None
    seed: int = 0
    cache: bool = True
    json: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a command found: as JSON data, and as something that prints itself to a console.

    code: the exit code, 1 if the answer is that something is wrong with the model.
    """

    data: Any
    show: Callable[[Console], None]
    code: int = 0


def parse_sizes(items: Iterable[str]) -> dict[str, int]:
    """`batch=4` as {"batch": 4}. Raises UsageError."""
    return {name: _number(value, item) for item in items for name, value in (_pair(item),)}


def parse_bounds(items: Iterable[str]) -> dict[str, tuple[int, int]]:
    """`batch=1:64` as {"batch": (1, 64)}; one number is both. Raises UsageError."""
    found: dict[str, tuple[int, int]] = {}
    for item in items:
        name, value = _pair(item)
        low, _, high = value.partition(":")
        found[name] = _number(low, item), _number(high or low, item)
    return found


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{item!r} is not NAME=SIZE", remedy="as in batch=4")
    return name, value


def _number(text: str, item: str) -> int:
    if not text.isdigit():
        raise UsageError(f"{text!r} in {item!r} is not a size", remedy="as in batch=4")
    return int(text)
