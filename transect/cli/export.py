"""`transect compile`: a model as a folder that runs without a compiler."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from transect.cli.request import Outcome, Request
from transect.cli.session import compiled


def export(request: Request, *, output: Path) -> Outcome:
    """JSON keys: model, folder, files (name and bytes), signature, seconds."""
    begin = time.perf_counter()
    model = compiled(request)
    model.save(output)
    seconds = time.perf_counter() - begin
    files = [
        {"name": path.name, "bytes": path.stat().st_size}
        for path in sorted(output.iterdir())
        if path.is_file()
    ]
    data = {
        "model": request.model,
        "folder": str(output),
        "files": files,
        "signature": str(model.signature),
        "seconds": seconds,
    }

    def show(console: Console) -> None:
        console.print(escape(f"{request.model} -> {output} in {seconds:.1f} s"))
        console.print(escape(str(model.signature)))
        for item in files:
            console.print(escape(f"  {item['name']}  {item['bytes']} bytes"))

    return Outcome(data, show)
