"""`transect explain`: every choice of a compile, its options and their costs, what decided."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transect.cli.request import Outcome, Request
from transect.cli.session import compiled
from transect.plan import Decision

_SHOWN = 6


def explain(request: Request, *, save: Path | None) -> Outcome:
    """JSON keys: model, decisions (lists of site, choice, chosen, reason, options: name and
    predicted seconds)."""
    plan = compiled(request).plan
    if save is not None:
        plan.save(save)
    data = {"model": request.model, "decisions": [_record(item) for item in plan.decisions]}

    def show(console: Console) -> None:
        if not plan.decisions:
            console.print("nothing was left to choose")
            return
        table = Table(box=box.SIMPLE_HEAD, title_justify="left")
        table.add_column("choice", overflow="fold", ratio=3)
        table.add_column("taken", overflow="fold", ratio=2)
        table.add_column("why", overflow="fold", ratio=2)
        table.add_column("predicted us, of all options", overflow="fold", ratio=3)
        for item in plan.decisions:
            table.add_row(
                escape(item.label), escape(item.chosen), escape(item.reason), _options(item)
            )
        console.print(table)
        console.print(f"{len(plan.decisions)} choices")

    return Outcome(data, show)


def _record(item: Decision) -> dict[str, object]:
    return {
        "site": item.site,
        "choice": item.label,
        "chosen": item.chosen,
        "reason": item.reason,
        "options": [{"name": name, "seconds": seconds} for name, seconds in item.options],
    }


def _options(item: Decision) -> str:
    """The cheapest options and their predicted times, the one taken in bold."""
    ordered = sorted(item.options, key=lambda option: option[1])
    shown = [
        f"[bold]{escape(name)} {seconds * 1e6:.2f}[/]"
        if name == item.chosen
        else f"{escape(name)} {seconds * 1e6:.2f}"
        for name, seconds in ordered[:_SHOWN]
    ]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")
