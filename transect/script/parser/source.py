"""Where script comes from: files and strings, their syntax trees, and spans of the parts."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from transect.support.errors import ScriptError
from transect.support.span import Span, Spans

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Source:
    """A piece of Python text. lines: kept only when `file` cannot be read again."""

    file: str
    text: str
    on_disk: bool
    lines: list[str] = field(default_factory=list[str], repr=False)

    @staticmethod
    def of_text(text: str, file: str = "<script>") -> Source:
        """Source given as a string."""
        return Source(file, text, False, text.splitlines())

    def span(self, node: ast.AST) -> Spans:
        """The place of a syntax node."""
        line: int | None = getattr(node, "lineno", None)
        if line is None:
            return ()
        end_line: int = getattr(node, "end_lineno", None) or line
        column = self._column(line, getattr(node, "col_offset", 0))
        end: int | None = getattr(node, "end_col_offset", None)
        end_column = column + 1 if not end else self._column(end_line, end)
        text = None if self.on_disk else "\n".join(self.lines[line - 1 : end_line])
        return (Span(self.file, line, column, end_line, end_column, text),)

    def _column(self, line: int, offset: int) -> int:
        """A column in characters; the syntax tree counts bytes of UTF-8."""
        text = linecache.getline(self.file, line) if self.on_disk else self._line(line)
        if text.isascii():
            return offset
        return len(text.encode("utf-8", "replace")[:offset].decode("utf-8", "ignore"))

    def _line(self, line: int) -> str:
        return self.lines[line - 1] if line <= len(self.lines) else ""

    def parse(self) -> ast.Module:
        """The syntax tree. Raises ScriptError where Python itself cannot read the text."""
        if self.on_disk:
            return _parse_file(self.file, self.text)
        return _parse(self.file, self.text, self)


def _parse(file: str, text: str, source: Source) -> ast.Module:
    try:
        return ast.parse(text, file)
    except SyntaxError as error:
        line, column = error.lineno or 1, max((error.offset or 1) - 1, 0)
        end = max((error.end_offset or column + 2) - 1, column + 1)
        shown = None if source.on_disk else "\n".join(source.lines[line - 1 : line])
        raise ScriptError(
            f"not valid Python: {error.msg}",
            span=Span(file, line, column, error.end_lineno or line, end, shown),
            remedy="script is written in Python's syntax",
        ) from None
    except (RecursionError, MemoryError):
        raise ScriptError(
            f"{file} nests too deeply for Python's parser",
            span=_start(file, source),
            remedy="give parts of long expressions names of their own",
        ) from None
    except ValueError as error:
        raise ScriptError(
            f"{file} is not Python text: {error}",
            span=_start(file, source),
            remedy="script is text in UTF-8",
        ) from None


def _start(file: str, source: Source) -> Span:
    return Span(file, 1, 0, 1, 1, None if source.on_disk else "".join(source.lines[:1]))


@lru_cache(maxsize=8)
def _parse_file(file: str, text: str) -> ast.Module:
    # Many decorated definitions of one file are parsed in a row: read it once.
    return _parse(file, text, Source(file, text, True))


def locate(
    name: str, file: str, line: int | None, scope: dict[str, Any] | None
) -> tuple[Source, Definition]:
    """The source and syntax tree of the definition of `name` that contains `line` of `file`."""
    lines = linecache.getlines(file, scope)
    missing = ScriptError(
        f"the source of {name!r} is not available ({file})",
        remedy="define it in a file, or give its text to transect.script.parse",
    )
    if not lines:
        raise missing
    source = Source(file, "".join(lines), True)
    best: Definition | None = None
    for node in ast.walk(source.parse()):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != name:
            continue
        first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
        if line is None or first <= line <= (node.end_lineno or node.lineno):
            # The innermost definition that contains the line; without a line, the last one.
            best = node
    if best is None:
        if file == "<string>":
            # Python 3.13 remembers the program of `python -c` under this name: not where `exec`
            # took the definition from.
            raise missing
        raise ScriptError(
            f"no definition of {name!r} at {file}:{line}",
            remedy="the file has changed since it was imported: restart Python",
        )
    return source, best


def locate_function(function: Callable[..., Any]) -> tuple[Source, ast.FunctionDef]:
    """The source and syntax tree of a Python function."""
    code = function.__code__
    source, node = locate(
        function.__name__, code.co_filename, code.co_firstlineno, function.__globals__
    )
    assert isinstance(node, ast.FunctionDef)
    return source, node
