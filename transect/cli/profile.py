"""`transect profile`: where the time of a call goes."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from transect.cli.request import Outcome, Request
from transect.cli.session import compiled, make_inputs, progress


def profile(request: Request, *, runs: int, limit: int, trace: Path | None) -> Outcome:
    """JSON keys: those of `Profile.to_json`, and dims."""
    model = compiled(request)
    inputs = make_inputs(request, model.signature)
    with progress(Path(request.model).name, hidden=request.json) as step:
        if step is not None:
            step("timing", 0, None)
        report = model.profile(*inputs.arguments, runs=runs)
    if trace is not None:
        report.trace(trace)

    def show(console: Console) -> None:
        console.print(escape(f"{request.model}: {inputs}"))
        report.show(console, limit=limit)
        if trace is not None:
            console.print(escape(f"trace: {trace}"))

    return Outcome({**report.to_json(), "dims": dict(inputs.sizes)}, show)
