"""Where a piece of a program came from: a place in a source file, or a layer of an imported model.

Printing them with a caret lives here too; which error to raise does not.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A range of source text. Lines count from 1, columns from 0, as `ast` does.

    `text` holds the lines of the range when the file cannot be read again later
    (source given as a string); otherwise it is None and the file is read on demand.
    """

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    text: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column + 1}"

    def source_line(self) -> str | None:
        """The first line of the range, without its newline, or None if it cannot be read."""
        if self.text is not None:
            return self.text.split("\n", 1)[0]
        line = linecache.getline(self.file, self.line)
        return line.rstrip("\n") or None

    def render(self) -> str:
        """file:line:column, the source line and carets under the range, as a compiler prints it."""
        source = self.source_line()
        if source is None:
            return f"  at {self}"
        end = self.end_column if self.end_line == self.line else len(source)
        width = max(1, min(end, len(source)) - self.column)
        number = str(self.line)
        pad = " " * len(number)
        return (
            f"  --> {self}\n"
            f" {pad} |\n"
            f" {number} | {source}\n"
            f" {pad} | {' ' * self.column}{'^' * width}"
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """A node of an imported model: its name, its operator, and the framework's source if known."""

    model: str
    name: str
    operator: str
    source: str | None = None

    def __str__(self) -> str:
        return f"{self.operator} node {self.name!r} of {self.model}"

    def render(self) -> str:
        """One line that names the node, and one with the framework's source line if it is known."""
        text = f"  --> {self}"
        return text if self.source is None else f"{text}\n      from {self.source}"


Origin = Span | Layer
"""One place that a piece of IR came from."""

Spans = tuple[Origin, ...]
"""All places that a piece of IR came from: fusion joins those of its sources."""


def merge_spans(*groups: Spans) -> Spans:
    """The union of several spans in order of first appearance."""
    return tuple(dict.fromkeys(origin for group in groups for origin in group))
