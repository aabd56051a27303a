"""The error classes and how they print: what is wrong, where, and what to do.

Raised by every room; each class also derives from the Python exception that a caller expects.
"""

from __future__ import annotations

from collections.abc import Sequence

from transect.support.span import Origin, Spans


class TransectError(Exception):
    """Base of all errors that transect raises on purpose.

    message: what is wrong, one sentence. span: where in the user's program (one place or several).
    remedy: what to do. notes: further facts, one line each.
    """

    def __init__(
        self,
        message: str,
        *,
        span: Origin | Spans = (),
        remedy: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.span: Spans = span if isinstance(span, tuple) else (span,)
        self.remedy = remedy
        self.notes = tuple(notes)

    def at(self, span: Spans) -> TransectError:
        """This error with `span` as its place, if it has none yet. For callers that know where."""
        if not self.span:
            self.span = span
        return self

    def __str__(self) -> str:
        lines = [self.message]
        lines += [origin.render() for origin in self.span]
        lines += [f"  note: {note}" for note in self.notes]
        if self.remedy is not None:
            lines.append(f"  help: {self.remedy}")
        return "\n".join(lines)


class InputError(TransectError, ValueError):
    """A value handed to a public function is wrong: a path, an option, an array, a model file."""


class InputTypeError(TransectError, TypeError):
    """A value handed to a public function has the wrong type or dtype."""


class ScriptError(TransectError, SyntaxError):
    """TVMScript that does not parse or does not mean anything.

    `errors` holds all errors found in one parse; the message shows each of them.
    """

    def __init__(
        self,
        message: str,
        *,
        span: Origin | Spans = (),
        remedy: str | None = None,
        notes: Sequence[str] = (),
        errors: Sequence[ScriptError] = (),
    ) -> None:
        TransectError.__init__(self, message, span=span, remedy=remedy, notes=notes)
        self.errors: tuple[ScriptError, ...] = tuple(errors) or (self,)

    def __str__(self) -> str:
        if self.errors == (self,):
            return TransectError.__str__(self)
        return "\n\n".join([self.message, *map(str, self.errors)])


class VerifyError(TransectError):
    """IR that breaks a rule of its level: the fault of a pass, or of who wrote the program."""


class InferenceError(TransectError, TypeError):
    """An operator applied to arguments whose types do not fit."""


class ScheduleError(TransectError):
    """A schedule primitive that would change what the program means, or that does not apply."""


class PlanError(TransectError, ValueError):
    """A partial plan or hint that contradicts the problem, or a problem with no solution."""


class ImportModelError(TransectError, ValueError):
    """A model file that cannot be read or uses what no importer covers; all causes at once."""


class UnsupportedError(TransectError):
    """A valid program that the chosen target or stage cannot take yet; the remedy says what can."""


class ExecutionError(TransectError, RuntimeError):
    """A failure while a compiled or interpreted program runs."""
