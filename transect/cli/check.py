"""`transect check`: compiled code beside ONNX Runtime and the interpreter."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from transect.cli.request import Outcome, Request
from transect.cli.session import compiled, make_inputs, progress, read_model
from transect.driver.check import check as run_check
from transect.plan import Plan


def check(
    request: Request, *, every: bool, tolerance: float, interpreter_seconds: float
) -> Outcome:
    """JSON keys: those of `CheckReport.to_json`, and dims. The exit code is 1 for a difference."""
    inputs = make_inputs(request, compiled(request).signature)
    with progress(Path(request.model).name, hidden=request.json) as step:
        if step is not None:
            step("comparing", 0, None)
        report = run_check(
            read_model(request),
            list(inputs.arguments),
            target=request.target,
            dims=request.bounds,
            plan=None if request.plan is None else Plan.load(request.plan),
            entry=request.entry,
            every=every,
            tolerance=tolerance,
            interpreter_seconds=interpreter_seconds,
        )

    def show(console: Console) -> None:
        color = "green" if report.ok else "red"
        first, _, rest = str(report).partition("\n")
        console.print(f"[bold {color}]{escape(first)}[/]")
        console.print(escape(rest), soft_wrap=True)

    data = {**report.to_json(), "dims": dict(inputs.sizes)}
    return Outcome(data, show, 0 if report.ok else 1)
