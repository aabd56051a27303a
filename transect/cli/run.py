"""`transect run`: a model once, on files or made-up inputs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transect.cli.request import Outcome, Request
from transect.cli.session import describe_array, loaded, make_inputs
from transect.runtime.arrays import as_numpy, as_sequence


def run(request: Request, *, output: Path | None) -> Outcome:
    """JSON keys: model, seconds, dims, inputs and outputs (lists of name, dtype, shape, and for
    outputs mean, least, most of finite elements, nans, file if --output is given)."""
    model = loaded(request)
    inputs = make_inputs(request, model.signature)
    begin = time.perf_counter()
    result = model(*inputs.arguments)
    seconds = time.perf_counter() - begin
    arrays = _flat("output", result)
    outputs = [{**describe_array(name, array), **_summary(array)} for name, array in arrays]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for record, (name, array) in zip(outputs, arrays, strict=True):
            path = output / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            record["file"] = str(path)
    data = {
        "model": request.model,
        "seconds": seconds,
        "dims": dict(inputs.sizes),
        "inputs": inputs.to_json(),
        "outputs": outputs,
    }

    def show(console: Console) -> None:
        console.print(escape(f"{request.model}: {seconds * 1e3:.2f} ms, the first call"))
        console.print(escape(f"inputs: {inputs}"))
        table = Table(box=None, pad_edge=False)
        for title in ("output", "dtype", "shape", "mean", "least", "most", "NaN", "file"):
            table.add_column(title)
        for record in outputs:
            shape = "x".join(map(str, record["shape"])) or "scalar"
            numbers = (record[key] for key in ("mean", "least", "most"))
            table.add_row(
                record["name"],
                record["dtype"],
                shape,
                *("" if number is None else f"{number:.6g}" for number in numbers),
                str(record["nans"] or ""),
                escape(record.get("file", "")),
            )
        console.print(table)

    return Outcome(data, show)


def _flat(name: str, result: Any) -> list[tuple[str, Any]]:
    """The arrays of a result, numbered if there are several."""
    items = None if as_numpy(result) is not None else as_sequence(result)
    if items is None:
        return [] if result is None else [(name, np.asarray(result))]
    return [part for i, item in enumerate(items) for part in _flat(f"{name}{i}", item)]


def _summary(array: Any) -> dict[str, Any]:
    """What the elements are like."""
    wide = array.astype(np.float64) if array.dtype.kind not in "OSU" else np.zeros(0)
    finite = wide[np.isfinite(wide)]
    if not finite.size:
        return {"mean": None, "least": None, "most": None, "nans": int(np.isnan(wide).sum())}
    return {
        "mean": float(finite.mean()),
        "least": float(finite.min()),
        "most": float(finite.max()),
        "nans": int(np.isnan(wide).sum()),
    }
