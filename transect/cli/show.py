"""`transect show`: the program as Python, after any pass."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from rich.console import Console
from rich.syntax import Syntax

from transect.cli.request import Outcome, Request, UsageError
from transect.cli.session import compiled
from transect.ir.function import IRModule


def show(request: Request, *, after: str, function: str | None, passes: bool) -> Outcome:
    """JSON keys: model, passes (all names), and without --passes also pass, program (the text)."""
    stages = compiled(request).stages
    data: dict[str, object] = {"model": request.model, "passes": list(stages)}
    if passes:
        return Outcome(data, lambda console: console.print("\n".join(stages)))
    program = _part(_stage(stages, after), function)
    text = repr(program)
    data |= {"pass": after, "program": text}

    def render(console: Console) -> None:
        if console.is_terminal:
            console.print(Syntax(text, "python", background_color="default"))
        else:
            console.file.write(f"{text}\n")

    return Outcome(data, render)


def _stage(stages: Mapping[str, IRModule], wanted: str) -> IRModule:
    lower = {name.lower(): name for name in stages}
    name = lower.get(wanted.lower())
    if name is None:
        near = get_close_matches(wanted.lower(), lower, 1)
        raise UsageError(
            f"there is no pass {wanted!r}",
            notes=[f"there are: {', '.join(stages)}"],
            remedy=f"--after {lower[near[0]]}" if near else None,
        )
    return stages[name]


def _part(module: IRModule, function: str | None) -> object:
    if function is None:
        return module
    if function not in module:
        raise UsageError(
            f"the program has no function {function!r} here",
            notes=[f"it has: {', '.join(module.functions)}"],
        )
    return IRModule.of(**{function: module[function]})
