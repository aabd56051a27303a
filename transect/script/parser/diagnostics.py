"""Collecting errors so that one parse reports all of them, and "did you mean" suggestions."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable

from transect.script.parser.source import Source
from transect.support.errors import ScriptError, TransectError

PYTHON_ERRORS = (
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    OSError,
    StopIteration,
    SystemExit,
)
"""What a Python function that the script calls while it is parsed may raise."""

LARGEST_SEQUENCE = 1 << 20
"""Items: Python values of a script are parts of a program, not data."""
LARGEST_NUMBER = 1 << 12
"""Bits of a Python integer; the widest dtype has 64."""


class Poisoned(Exception):
    """A statement uses a name whose own definition has failed: already reported."""


class Diagnostics:
    """The errors of one parse."""

    def __init__(self) -> None:
        self.errors: list[ScriptError] = []

    def add(self, error: ScriptError) -> None:
        """Keep an error for the report."""
        self.errors.append(error)

    def check(self) -> None:
        """Raise what has been collected: the one error, or one that shows all."""
        if not self.errors:
            return
        if len(self.errors) == 1:
            raise self.errors[0]
        raise ScriptError(f"{len(self.errors)} errors in this script", errors=self.errors)


def script_error(
    message: str, source: Source, node: ast.AST, remedy: str | None = None
) -> ScriptError:
    """An error at a syntax node."""
    return ScriptError(message, span=source.span(node), remedy=remedy)


def located(error: TransectError, source: Source, node: ast.AST) -> ScriptError:
    """An error of a lower room as a script error at `node`, unless it has a place already."""
    if isinstance(error, ScriptError) and error.span:
        return error
    return ScriptError(
        error.message, span=error.span or source.span(node), remedy=error.remedy, notes=error.notes
    )


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy that names what the user may have meant; `otherwise`, where nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else otherwise


def listed(names: Iterable[str], most: int = 12) -> str | None:
    """A remedy that names what there is: "there is: a, b, …"; None if there is nothing."""
    public = [name for name in names if not name.startswith("_")]
    if not public:
        return None
    more = ", …" if len(public) > most else ""
    return f"there is: {', '.join(public[:most])}{more}"
